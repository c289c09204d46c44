//! Requests that wait at the edge: a thousand of them, how soon after the check that lets them go the last one is answered, and what
//! each takes of Envoy's memory meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidegate_figures::Row;

use super::{measured::resident, timings};
use crate::{
    client::Request,
    edge::{Edge, backend, host},
    engine::Engine,
    load::Load,
    poll::{SOON, until, wall_clock},
};

const PARKED: u64 = 1_000;
const ROUNDS: usize = 20;
/// From readiness to the last answer.
const ANSWERED: Duration = Duration::from_millis(250);
/// Of each, its client's connection included.
const KIB: f64 = 32.0;

pub(super) async fn run() -> Result<Vec<Row>> {
    let engine = Engine::connect().await?;
    let service = engine.unique("hold");
    let cluster = format!("{service}/v1");
    let edge = Edge::start_at(&engine.direct(), "{}", &[], 2).await?;
    let network = engine.network("hold").await?;
    let spec = backend(&service, "v1").network(&network).env("TERM", "now").label("tidegate.ready.hold", "60s");
    // Stopped and started again, it is the only one of its service.
    let container = engine.run(spec).await?;
    edge.healthy(&cluster, 1).await?;
    let held = format!("wasmcustom.tidegate.service.{service}.held_total");
    let pid = edge.envoy.process.pid();
    let (mut lates, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        container.stop(Duration::from_secs(5)).await?;
        edge.healthy(&cluster, 0).await?;
        let (before, memory) = (edge.envoy.stat(&held).await?, resident(pid)?);
        let began = wall_clock();
        let load = Load::get(edge.listener, &host(&service), "/").closed(usize::try_from(PARKED)?).requests(PARKED);
        let load = load.duration(10 * SOON).timeout(2 * SOON).start();
        until(SOON, "all to wait", async || {
            let held = edge.envoy.stat(&held).await? - before;
            ensure!(held == PARKED, "{held}");
            Ok(())
        })
        .await?;
        sizes.push((resident(pid)? - memory) * 1024.0 / PARKED as f64);
        container.start().await?;
        let report = load.wait().await?;
        report.all_succeeded()?;
        let last = report.samples.iter().map(|sample| sample.at + sample.latency).max().context("an answer")?;
        lates.push((began + last).saturating_sub(ready(&edge, &service).await?));
    }
    let late = edge.envoy.stat(&format!("cluster.{cluster}.upstream_cx_connect_timeout")).await?;
    let name = format!("{PARKED} requests wait");
    let mut rows = timings(&format!("{name}, the check that passes to the last answer"), lates, Some(ANSWERED));
    // Later rounds use again what the first one took.
    let size = sizes.first().copied().unwrap_or_default();
    rows.push(Row::at_most(format!("{name}, Envoy's memory for each and its connection"), size, KIB, "KiB"));
    let name = format!("{name}, connections of {} that came about too late", ROUNDS as u64 * PARKED);
    rows.push(Row::new(name, late as f64, ""));
    Ok(rows)
}

/// When the last check was seen that made the service ready, since 1970.
async fn ready(edge: &Edge, service: &str) -> Result<Duration> {
    until(SOON, "the line of the check", async || {
        let told = Request::get(edge.api(), &format!("/v1/events?subject={service}")).send().await?.text();
        let entries = told.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let checks = entries.filter(|entry| entry["what"] == "ready");
        let at = checks.filter_map(|entry| entry["cause"]["at"].as_u64()).max();
        at.map(Duration::from_millis).with_context(|| told.clone())
    })
    .await
}
