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
    /// The server's processor time.
    cpu: Duration,
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
        ours.push(run(options, &plan, &Command::Serve, &format!("sync-{}", variant.label()), &case)?);
        let plain = Command::ServePlain(messages.path().to_owned());
        theirs.push(run(options, &plan, &plain, &format!("plain-{}", variant.label()), &case)?);
    }
    let seconds = |runs: &[Run], of: fn(&Run) -> Duration| middle(runs.iter().map(|run| of(run).as_secs_f64()));
    let compared = |what: &str, of: fn(&Run) -> Duration| {
        let pairs = ours.iter().zip(&theirs);
        let ratio = middle(pairs.map(|(ours, theirs)| of(ours).as_secs_f64() / of(theirs).as_secs_f64()));
        let plainly = format!("plain tonic {:.2} s", seconds(&theirs, of));
        (ratio, Row::new(format!("{case}: {what}"), seconds(&ours, of), "s").against(plainly, ratio))
    };
    let (ratio, mut took) = compared("until the last is synced", |run| run.took);
    took.budget = Some("ratio ≤ 1.5".to_owned());
    took.met = Some(ratio <= 1.5);
    let (_, cpu) = compared("processor time of the server", |run| run.cpu);
    let peak = |runs: &[Run]| mebibytes(runs.iter().map(|it| it.peak).max().unwrap_or(0));
    let memory = Row::at_most(format!("{case}: most memory of the server"), peak(&ours), MOST_MEMORY, "MiB")
        .against("plain tonic", peak(&ours) / peak(&theirs));
    let last = ours.pop().context("there were rounds")?;
    let bytes = Row::new(format!("{case}: bytes on the wire"), mebibytes(last.bytes), "MiB");
    Ok(vec![took, cpu, memory, bytes, last.clients])
}

/// What one stream is sent.
fn record(plan: &Plan) -> Result<Vec<Vec<u8>>> {
    let mut server = Server::start(&Command::Serve, "", None)?;
    server.publish(SERVICES, ENDPOINTS)?;
    let fleet = Fleet::start(server.address, Plan { record: true, ..plan.clone() }, 1)?;
    fleet.synced(PATIENCE)?;
    let messages = std::mem::take(&mut fleet.tally.recorded().messages);
    fleet.stop()?;
    server.stop()?;
    Ok(messages)
}

fn run(options: &Options, plan: &Plan, serve: &Command, profile: &str, case: &str) -> Result<Run> {
    let publishes = matches!(serve, Command::Serve);
    let mut server = Server::start(serve, profile, options.profiles.as_deref())?;
    if publishes {
        server.publish(SERVICES, ENDPOINTS)?;
    }
    let before = server.look()?.processor;
    let (meter, began) = (Meter::start(&mut server)?, now());
    let fleet = Fleet::start(server.address, plan.clone(), STREAMS)?;
    fleet.synced(PATIENCE)?;
    let took = Duration::from_nanos(fleet.tally.synced_at.load(Relaxed) - began);
    let bytes = fleet.tally.received.load(Relaxed);
    let clients = meter.row(case, &mut server)?;
    let seen = server.look()?;
    fleet.stop()?;
    server.stop()?;
    Ok(Run { took, cpu: seen.processor - before, bytes, peak: seen.peak, clients })
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
