//! The first sync of many streams, against the same bytes from a server that has nothing to decide.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result};
use tidegate_figures::Row;

use crate::Options;
use crate::cases::{PATIENCE, mebibytes, thousands};
use crate::child::Command;
use crate::fleet::Fleet;
use crate::plain;
use crate::plan::{Endpoints, Plan, Variant};
use crate::server::{Meter, Server};
use crate::tally::now;

const STREAMS: usize = 100;
const SERVICES: usize = 10_000;
const ENDPOINTS: usize = 10;
/// Each server in turn, so that what the machine does meanwhile meets both.
const ROUNDS: usize = 3;
const MOST_MEMORY: f64 = 300.0;

struct Run {
    took: Duration,
    bytes: u64,
    peak: u64,
    clients: Row,
}

pub(crate) fn first(options: &Options, variant: Variant) -> Result<Vec<Row>> {
    let case = format!("first sync of {STREAMS} × {}, {}", thousands(SERVICES), variant.label());
    let plan = Plan::new(variant, SERVICES, Endpoints::OfClusters);
    let messages = tempfile::NamedTempFile::new()?;
    plain::store(&record(&plan)?, messages.path())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(run(options, &plan, Command::Serve, &format!("sync-{}", variant.label()), &case)?);
        let plain = Command::ServePlain(messages.path().to_owned());
        theirs.push(run(options, &plan, plain, &format!("plain-{}", variant.label()), &case)?);
    }
    let ratio =
        middle(ours.iter().zip(&theirs).map(|(ours, theirs)| ours.took.as_secs_f64() / theirs.took.as_secs_f64()));
    let (seconds, plainly) =
        (middle(ours.iter().map(|it| it.took.as_secs_f64())), middle(theirs.iter().map(|it| it.took.as_secs_f64())));
    let mut took = Row::new(format!("{case}: until the last is synced"), seconds, "s")
        .against(format!("plain tonic {plainly:.2} s"), ratio);
    took.budget = Some("ratio ≤ 1.5".to_owned());
    took.met = Some(ratio <= 1.5);
    let peak = |runs: &[Run]| mebibytes(runs.iter().map(|it| it.peak).max().unwrap_or(0));
    let memory = Row::at_most(format!("{case}: most memory of the server"), peak(&ours), MOST_MEMORY, "MiB")
        .against("plain tonic", peak(&ours) / peak(&theirs));
    let last = ours.pop().context("there were rounds")?;
    Ok(vec![took, memory, Row::new(format!("{case}: bytes on the wire"), mebibytes(last.bytes), "MiB"), last.clients])
}

/// What one stream is sent.
fn record(plan: &Plan) -> Result<Vec<Vec<u8>>> {
    let mut server = Server::start(Command::Serve, "", None)?;
    server.publish(SERVICES, ENDPOINTS)?;
    let fleet = Fleet::start(server.address, Plan { record: true, ..plan.clone() }, 1)?;
    fleet.synced(PATIENCE)?;
    let messages = std::mem::take(&mut fleet.tally.recorded().messages);
    fleet.stop()?;
    server.stop()?;
    Ok(messages)
}

fn run(options: &Options, plan: &Plan, serve: Command, profile: &str, case: &str) -> Result<Run> {
    let publishes = matches!(serve, Command::Serve);
    let mut server = Server::start(serve, profile, options.profiles.as_deref())?;
    if publishes {
        server.publish(SERVICES, ENDPOINTS)?;
    }
    let (meter, began) = (Meter::start(&mut server)?, now());
    let fleet = Fleet::start(server.address, plan.clone(), STREAMS)?;
    fleet.synced(PATIENCE)?;
    let took = Duration::from_nanos(fleet.tally.synced_at.load(Relaxed) - began);
    let bytes = fleet.tally.received.load(Relaxed);
    let clients = meter.row(case, &mut server)?;
    let peak = server.look()?.peak;
    fleet.stop()?;
    server.stop()?;
    Ok(Run { took, bytes, peak, clients })
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
