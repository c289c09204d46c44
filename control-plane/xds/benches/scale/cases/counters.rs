//! What must not depend on the machine: how often a change is encoded and whom it wakes. Allocations are counted by
//! `tests/counters.rs`, whose allocator would be in the way here.

use std::sync::atomic::Ordering::Relaxed;

use anyhow::Result;
use tidegate_figures::Row;

use crate::Options;
use crate::cases::{PATIENCE, float};
use crate::child::Command;
use crate::fleet::Fleet;
use crate::plan::{Endpoints, Plan, Variant};
use crate::server::Server;

const STREAMS: usize = 100;
const SERVICES: usize = 1_000;
/// Every service has two subscribers among the streams.
const EACH: usize = 20;
const CHANGES: usize = 50;

pub(crate) fn counted(options: &Options, variant: Variant) -> Result<Vec<Row>> {
    let mut server = Server::start(&Command::Serve, "counters", options.profiles.as_deref())?;
    server.publish(SERVICES, 1)?;
    let endpoints = Endpoints::Some { from: 0, of: SERVICES, each: EACH };
    let plan = Plan::new(variant, SERVICES, endpoints);
    let fleet = Fleet::start(server.address, plan.clone(), STREAMS)?;
    fleet.synced(PATIENCE)?;
    server.settle(&fleet)?;
    let (before, mut encodes, mut subscribers) = (server.look()?.wakes, 0, 0);
    for change in 0..CHANGES {
        let service = change * SERVICES / CHANGES;
        let weight = u32::try_from(change + 2)?;
        encodes += server.commit(&Command::Change { service, endpoints: 1, weight })?.1;
        subscribers += (0..STREAMS).filter(|stream| plan.concerns(*stream, service)).count();
        fleet.wait("news for the subscribers", PATIENCE, |tally| tally.news.load(Relaxed) >= subscribers)?;
        server.settle(&fleet)?;
    }
    let woken = server.look()?.wakes - before;
    fleet.stop()?;
    server.stop()?;
    let encodes = float(encodes as u64) / float(CHANGES as u64);
    let woken = float(woken) / float(subscribers as u64);
    let case = format!("{STREAMS} {} streams, {EACH} names each", variant.label());
    let exactly = |name: String, value: f64| {
        let mut row = Row::new(name, value, "");
        row.budget = Some("1".to_owned());
        row.met = Some((value - 1.0).abs() < f64::EPSILON);
        row
    };
    Ok(vec![
        exactly(format!("{case}: encodes for each changed resource"), encodes),
        exactly(format!("{case}: streams woken for each subscriber"), woken),
    ])
}
