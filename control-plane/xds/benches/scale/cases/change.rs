//! One thing changes: how long until every stream has it, and what that puts on the wire.

use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use tidegate_figures::{Row, percentile};
use tidegate_xds::ResourceType;

use crate::Options;
use crate::cases::{PATIENCE, float, milliseconds, thousands};
use crate::child::Command;
use crate::fleet::Fleet;
use crate::plan::{Endpoints, Plan, Variant};
use crate::server::{Meter, Server};
use crate::tally::now;

const STREAMS: usize = 100;
const ENDPOINTS: usize = 10;
/// Rounds in one case, unless they take longer than this together.
const ROUNDS: usize = 100;
const LONGEST: Duration = Duration::from_secs(20);
/// Between rounds the clients' answers arrive and the server comes to rest; a change that follows many others closely is
/// another case, for a server may hold it back to send it with the next.
const PAUSE: Duration = Duration::from_millis(100);

/// One endpoint of one service changes.
pub(crate) fn endpoint(
    options: &Options,
    variant: Variant,
    services: usize,
    endpoints: Endpoints,
    budget: f64,
) -> Result<Vec<Row>> {
    let how = if endpoints == Endpoints::Wildcard { "wildcard" } else { "named" };
    let case = format!("{} × {ENDPOINTS}, {} EDS, {how}", thousands(services), variant.label());
    let plan = Plan::new(variant, services, endpoints);
    let change = |round: usize| Command::Change {
        service: round * 7919 % services,
        endpoints: ENDPOINTS,
        weight: u32::try_from(round + 2).unwrap_or(2),
    };
    let profile = format!("change-{services}-{}-{how}", variant.label());
    let Seen { times, bytes, processor, clients } = rounds(options, plan, &profile, &case, change)?;
    Ok(vec![
        Row::at_most(
            format!("{case}: one endpoint changed, p50 until {STREAMS} streams have it"),
            milliseconds(percentile(&times, 50.0)),
            budget,
            "ms",
        ),
        Row::new(format!("{case}: p99"), milliseconds(percentile(&times, 99.0)), "ms"),
        Row::new(format!("{case}: bytes for each stream and change"), bytes, "B"),
        Row::new(format!("{case}: server's processor time for each stream and change"), processor, "µs"),
        clients,
    ])
}

/// One weight changes, with ever more services published.
pub(crate) fn weight(options: &Options, variant: Variant) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut fewest = None;
    for services in [100, 1_000, 10_000] {
        let case = format!("{} services, {} RTDS", thousands(services), variant.label());
        let mut plan = Plan::new(variant, services, Endpoints::OfClusters);
        plan.runtime = true;
        plan.news = ResourceType::Runtime;
        let weigh = |round| Command::Weigh(u32::try_from(round + 1).unwrap_or(1));
        let profile = format!("weight-{services}-{}", variant.label());
        let Seen { times, bytes, processor, clients } = rounds(options, plan, &profile, &case, weigh)?;
        rows.push(Row::at_most(
            format!("{case}: one weight changed, p50 until {STREAMS} edges have it"),
            milliseconds(percentile(&times, 50.0)),
            20.0,
            "ms",
        ));
        let mut on_wire = Row::new(format!("{case}: bytes for each edge and weight"), bytes, "B");
        let least = *fewest.get_or_insert(bytes);
        if services > 100 {
            // A ping or the number of a nonce may differ by some bytes.
            on_wire = on_wire.against("100 services", bytes / least);
            on_wire.budget = Some("as with 100 services (± 10 %)".to_owned());
            on_wire.met = Some((bytes / least - 1.0).abs() <= 0.1);
        }
        let cost = Row::new(format!("{case}: server's processor time for each edge and weight"), processor, "µs");
        rows.extend([on_wire, cost, clients]);
    }
    Ok(rows)
}

struct Seen {
    /// Sorted.
    times: Vec<Duration>,
    /// What each stream was sent in each round.
    bytes: f64,
    /// The server's processor time for each stream in each round, in microseconds.
    processor: f64,
    clients: Row,
}

fn rounds(options: &Options, plan: Plan, profile: &str, case: &str, change: impl Fn(usize) -> Command) -> Result<Seen> {
    let mut server = Server::start(&Command::Serve, profile, options.profiles.as_deref())?;
    server.publish(plan.services, ENDPOINTS)?;
    let fleet = Fleet::start(server.address, plan, STREAMS)?;
    fleet.synced(PATIENCE)?;
    server.settle(&fleet)?;

    let mut times = Vec::new();
    let (meter, began, before) = (Meter::start(&mut server)?, now(), fleet.tally.received.load(Relaxed));
    while times.len() < ROUNDS && u128::from(now() - began) < LONGEST.as_nanos() {
        let had = fleet.tally.news.load(Relaxed);
        let (at, _) = server.commit(&change(times.len()))?;
        fleet.wait("news for every stream", PATIENCE, |tally| tally.news.load(Relaxed) >= had + STREAMS)?;
        times.push(Duration::from_nanos(fleet.tally.news_at.load(Relaxed).saturating_sub(at)));
        thread::sleep(PAUSE);
    }
    let bytes = fleet.tally.received.load(Relaxed) - before;
    let cost = meter.read(&mut server)?;
    fleet.stop()?;
    server.stop()?;
    let sent = float((STREAMS * times.len()) as u64);
    times.sort_unstable();
    Ok(Seen { times, bytes: float(bytes) / sent, processor: cost.server * 1e6 / sent, clients: cost.row(case) })
}
