//! Many streams under a steady rate of commits: how far behind each of them is.
//!
//! The lag of a response is the age of the oldest commit that the stream has from it and not from the one before, since the
//! time when that commit was due. A stream that was still behind when the load ended is waited for and counts.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Result;
use tidegate_figures::{Row, percentile};

use crate::Options;
use crate::cases::{PATIENCE, float, mebibytes, milliseconds, thousands};
use crate::child::Command;
use crate::fleet::Fleet;
use crate::plan::{Endpoints, Plan, Variant};
use crate::server::{Meter, Server};
use crate::tally::{Load, Tally};

const SERVICES: usize = 1_000;
/// The issue names no number for this case.
const ENDPOINTS: usize = 1;
const PER_SECOND: u64 = 2_500;
const EACH: usize = 20;
const MOST: f64 = 1_000.0;
pub(super) const MOST_FOR_A_STREAM: f64 = 64.0;

pub(crate) fn steady(options: &Options, variant: Variant, wildcard: bool) -> Result<Vec<Row>> {
    let streams = options.streams;
    let (how, endpoints) = if wildcard {
        ("all wildcard", Endpoints::Wildcard)
    } else {
        ("20 names each", Endpoints::Some { from: 0, of: SERVICES, each: EACH })
    };
    let case = format!("{} {} streams, {how}, {} commits/s", thousands(streams), variant.label(), PER_SECOND);
    let profile = format!("lag-{}-{}", if wildcard { "wildcard" } else { "named" }, variant.label());
    let mut server = Server::start(&Command::Serve, &profile, options.profiles.as_deref())?;
    server.publish(SERVICES, ENDPOINTS)?;
    let plan = Plan { clusters: false, ..Plan::new(variant, SERVICES, endpoints) };
    let before = server.look()?.memory;
    let fleet = Fleet::start(server.address, plan.clone(), streams)?;
    fleet.synced(PATIENCE)?;
    server.settle(&fleet)?;
    let each = server.look()?.memory.saturating_sub(before) / streams as u64;

    let commits = PER_SECOND * options.seconds;
    let begin = Command::Begin { per_second: PER_SECOND, commits, endpoints: ENDPOINTS, from: 0, of: SERVICES };
    let (meter, before) = (Meter::start(&mut server)?, fleet.tally.responses.load(Relaxed));
    let load = server.begin(&begin)?;
    fleet.tally.expect(load);
    let took = server.finish()?;
    let caught_up = fleet.wait("the last commit", PATIENCE, |tally| is_caught_up(&plan, load, commits, tally));
    let clients = meter.row(&case, &mut server)?;
    let per_second = float(fleet.tally.responses.load(Relaxed) - before) / took.as_secs_f64();
    let mut rows = figures(&case, fleet.tally.take_lags(), streams);
    let committed = float(commits) / took.as_secs_f64();
    rows.push(Row::new(format!("{case}: commits/s that the server took"), committed, "1/s"));
    rows.push(Row::new(format!("{case}: responses/s"), per_second, "1/s"));
    let memory = format!("{case}: memory for each stream before that");
    rows.push(Row::at_most(memory, mebibytes(each) * 1024.0, MOST_FOR_A_STREAM, "KiB"));
    rows.push(clients);
    if let Err(error) = caught_up {
        let broken = fleet.tally.broken.load(Relaxed);
        rows.push(Row { met: Some(false), ..Row::new(format!("{case}: {error:#}"), float(broken as u64), "broken") });
    }
    fleet.stop()?;
    server.stop()?;
    Ok(rows)
}

/// The rows of so many lags, each with the stream that had it.
pub(super) fn figures(case: &str, lags: Vec<(u32, Duration)>, streams: usize) -> Vec<Row> {
    let mut of_stream: HashMap<u32, Vec<Duration>> = HashMap::with_capacity(streams);
    let mut all = Vec::with_capacity(lags.len());
    for (stream, lag) in lags {
        of_stream.entry(stream).or_default().push(lag);
        all.push(lag);
    }
    all.sort_unstable();
    let p99_of = |mut lags: Vec<Duration>| {
        lags.sort_unstable();
        percentile(&lags, 99.0)
    };
    let worst = of_stream.into_values().map(p99_of).max().unwrap_or_default();
    let at = |percent| milliseconds(percentile(&all, percent));
    vec![
        Row::new(format!("{case}: lag, p50"), at(50.0), "ms"),
        Row::at_most(format!("{case}: lag, p99"), at(99.0), MOST, "ms"),
        Row::at_most(format!("{case}: lag, p99 of the stream that has it worst"), milliseconds(worst), MOST, "ms"),
        Row::new(format!("{case}: lag, most"), at(100.0), "ms"),
    ]
}

/// Whether every stream has the last commit that concerns it.
pub(super) fn is_caught_up(plan: &Plan, load: Load, commits: u64, tally: &Tally) -> bool {
    tally.newest.iter().enumerate().all(|(stream, newest)| {
        let last = (0..commits).rev().find(|commit| plan.concerns(stream, load.service(*commit)));
        newest.load(Relaxed) >= last.map_or(0, |last| last + 1)
    })
}
