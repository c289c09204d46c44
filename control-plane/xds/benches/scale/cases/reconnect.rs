//! Many idle streams, what each costs, and what it costs when all of them come back at once and nothing has changed, while
//! a few others expect to be served.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Result;
use tidegate_figures::Row;

use crate::Options;
use crate::cases::{PATIENCE, float, lag, mebibytes, thousands};
use crate::child::Command;
use crate::fleet::Fleet;
use crate::plan::{Endpoints, Plan, Variant};
use crate::server::{Meter, Server};
use crate::tally::now;

const SERVICES: usize = 1_000;
const ENDPOINTS: usize = 1;
const HONEST: usize = 10;
/// Services beside the others, which only the honest streams ask for.
const ASIDE: usize = 10;
/// What the honest streams are sent meanwhile: enough to see any gap.
const PER_SECOND: u64 = 100;

pub(crate) fn idle_then_back(options: &Options) -> Result<Vec<Row>> {
    let (variant, streams) = (Variant::Delta, options.streams);
    let case = format!("{} delta streams × {} clusters", thousands(streams), thousands(SERVICES));
    let mut server = Server::start(&Command::Serve, "reconnect", options.profiles.as_deref())?;
    server.publish(SERVICES, ENDPOINTS)?;
    server.commit(&Command::PublishEndpoints { from: SERVICES, services: ASIDE, endpoints: ENDPOINTS })?;
    let plan = Plan::new(variant, SERVICES, Endpoints::OfClusters);
    let recorder = Fleet::start(server.address, Plan { record: true, ..plan.clone() }, 1)?;
    recorder.synced(PATIENCE)?;
    let held = std::mem::take(&mut recorder.tally.recorded().held);
    // What it leaves unanswered would be missed for ever.
    server.settle(&recorder)?;
    recorder.stop()?;

    let before = server.look()?.memory;
    let (meter, began) = (Meter::start(&mut server)?, now());
    let fleet = Fleet::start(server.address, plan.clone(), streams)?;
    fleet.synced(PATIENCE)?;
    let took = Duration::from_nanos(fleet.tally.synced_at.load(Relaxed) - began);
    server.settle(&fleet)?;
    let first = fleet.tally.received.load(Relaxed);
    let (idle, clients) = (server.look()?, meter.row(&format!("{case}, first sync"), &mut server)?);
    let each = idle.memory.saturating_sub(before) / streams as u64;
    let mut rows = vec![
        Row::new(format!("{case}: first sync, until the last is synced"), took.as_secs_f64(), "s"),
        Row::new(format!("{case}: first sync, bytes on the wire"), mebibytes(first), "MiB"),
        clients,
        Row::at_most(
            format!("{case}: memory for each idle stream"),
            mebibytes(each) * 1024.0,
            lag::MOST_FOR_A_STREAM,
            "KiB",
        ),
        Row::new(format!("{case}: most memory of the server"), mebibytes(idle.peak), "MiB"),
    ];
    fleet.stop()?;

    let aside = Endpoints::Some { from: SERVICES, of: ASIDE, each: ASIDE };
    let plan_of_honest = Plan::new(variant, SERVICES, aside);
    let honest = Fleet::start(server.address, plan_of_honest.clone(), HONEST)?;
    honest.synced(PATIENCE)?;
    let meter = Meter::start(&mut server)?;
    let commits = PER_SECOND * options.seconds.min(20);
    let load = server.begin(&Command::Begin {
        per_second: PER_SECOND,
        commits,
        endpoints: ENDPOINTS,
        from: SERVICES,
        of: ASIDE,
    })?;
    honest.tally.expect(load);
    let began = now();
    let fleet = Fleet::start(server.address, Plan { held: Some(held), ..plan }, streams)?;
    fleet.synced(PATIENCE)?;
    let took = Duration::from_nanos(fleet.tally.synced_at.load(Relaxed) - began);
    server.finish()?;
    honest.wait("the last commit", PATIENCE, |tally| lag::is_caught_up(&plan_of_honest, load, commits, tally))?;
    server.settle(&fleet)?;
    let (again, resources) = (fleet.tally.received.load(Relaxed), fleet.tally.resources.load(Relaxed));
    let clients = meter.row(&format!("{case}, reconnect"), &mut server)?;
    let share = float(again) / float(first);
    let mut bytes =
        Row::new(format!("{case}: reconnect with nothing changed, bytes on the wire"), mebibytes(again), "MiB")
            .against("first sync", share);
    bytes.budget = Some("ratio < 0.05".to_owned());
    bytes.met = Some(share < 0.05);
    rows.extend([
        bytes,
        Row::new(
            format!("{case}: reconnect, unchanged resources sent to each stream"),
            float(resources) / float(streams as u64),
            "",
        ),
        Row::new(format!("{case}: reconnect, until the last is answered"), took.as_secs_f64(), "s"),
    ]);
    rows.extend(lag::figures(
        &format!("{HONEST} honest streams while those reconnect"),
        honest.tally.take_lags(),
        HONEST,
    ));
    rows.push(clients);
    honest.stop()?;
    fleet.stop()?;
    server.stop()?;
    Ok(rows)
}
