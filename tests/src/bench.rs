//! Measurements on real containers: how long discovery takes, and what the filter costs; and of files at scale. Figures come as ratios within one run
//! wherever the machine would speak louder than the code.

mod canaries;
mod checks;
mod deploys;
mod drain;
mod events;
mod files;
mod filter;
mod fleet;
mod hold;
mod idle;
mod measured;
mod publish;
mod replaced;
mod storm;

use std::time::Duration;

use anyhow::{Result, ensure};
use tidegate_figures::{Row, percentile};
use tokio::time::Instant;

use crate::{
    edge::{Edge, backend, host},
    engine::{Engine, Network, Spec},
};

const STARTS: usize = 15;
const KILLS: usize = 15;
const WEIGHTS: usize = 15;

/// The parts of [`run`].
pub const PARTS: [&str; 13] = [
    "files",
    "checks",
    "events",
    "replaced",
    "idle",
    "storm",
    "publish",
    "drain",
    "hold",
    "canaries",
    "deploys",
    "discovery",
    "filter",
];

/// Measures everything, or one of [`PARTS`].
pub async fn run(only: Option<&str>, say: impl Fn(&str)) -> Result<Vec<Row>> {
    if let Some(only) = only {
        ensure!(PARTS.contains(&only), "there is no part {only}; the parts are {}", PARTS.join(", "));
    }
    let is_wanted = |part: &str| only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if is_wanted("files") {
        say("files: 10,000 services of ten instances, and one edit");
        rows.extend(files::run().await?);
    }
    if is_wanted("checks") {
        say("checks: of 5,000 instances, 100 of which hang");
        rows.extend(checks::run().await?);
    }
    if is_wanted("events") {
        say("events: one among 10, 100 and 1,000 services");
        rows.extend(events::run().await?);
    }
    if is_wanted("replaced") {
        say("replaced: a container of one service among 10, 100 and 1,000 others");
        rows.extend(replaced::run().await?);
    }
    if is_wanted("idle") {
        say("idle: 1,000 containers, and health checks of strangers");
        rows.extend(idle::run().await?);
    }
    if is_wanted("storm") {
        say("storm: 2,000 fake and 40 real containers start together");
        rows.extend(storm::run().await?);
    }
    if is_wanted("publish") {
        say("publish: a start and a stop to clients, among 10, 100 and 1,000 containers");
        rows.extend(publish::run().await?);
    }
    if is_wanted("drain") {
        say("drain: docker stop to out of rotation");
        rows.extend(drain::run().await?);
    }
    if is_wanted("hold") {
        say("hold: 1,000 requests that wait for a ready instance");
        rows.extend(hold::run().await?);
    }
    if is_wanted("canaries") {
        say("canaries: bad ones at 1,000 requests/s, until their share is gone");
        rows.extend(canaries::run(&say).await?);
    }
    if is_wanted("deploys") {
        say("deploys: 100 containers of three services replaced under load, behind tidegate and Traefik");
        rows.extend(deploys::run(&say).await?);
    }
    if !is_wanted("discovery") && !is_wanted("filter") {
        return Ok(rows);
    }
    let engine = Engine::connect().await?;
    // A network of its own: a bridge address that was just asked for in vain takes a while to answer.
    let network = engine.network("bench").await?;
    if is_wanted("discovery") {
        say("discovery: docker run to the first 200, docker kill to the endpoint's end, a weight's way");
        rows.extend(discovery(&engine, &network).await?);
    }
    if is_wanted("filter") {
        say("the filter: none, off on the route, sticky canary, with breaker, and Envoy's own means, in turn");
        rows.extend(filter::run(&engine, &network).await?);
    }
    Ok(rows)
}

async fn discovery(engine: &Engine, network: &Network) -> Result<Vec<Row>> {
    let edge = Edge::start_at(&engine.direct(), "{}", &[], 2).await?;
    let mut starts = Vec::new();
    for number in 0..STARTS {
        let service = format!("start{number}");
        let plain = Spec::sample(&service)
            .label("tidegate.enable", "true")
            .label("tidegate.service", &service)
            .label("tidegate.host", &host(&service))
            .label("tidegate.port", "8080")
            .network(network);
        let container = engine.run(plain).await?;
        let returned = Instant::now();
        while edge.get(&host(&service)).await?.status != 200 {
            ensure!(returned.elapsed() < Duration::from_secs(30), "{service} never answered");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        starts.push(returned.elapsed());
        container.remove().await?;
    }

    let mut kills = Vec::new();
    let keeper = engine.run(backend("kill", "v1").network(network)).await?;
    for _ in 0..KILLS {
        let victim = engine.run(backend("kill", "v1").network(network)).await?;
        edge.healthy("kill/v1", 2).await?;
        let killed = Instant::now();
        victim.kill("SIGKILL").await?;
        edge.healthy("kill/v1", 1).await?;
        kills.push(killed.elapsed());
        victim.remove().await?;
    }

    let other = engine.run(backend("kill", "v2").network(network)).await?;
    let mut weights = Vec::new();
    for number in 0..WEIGHTS {
        let percent = 10 + u32::try_from(number)?;
        let declared =
            format!("{{ kill: {{ stable: {{ version: v1 }}, canary: {{ version: v2, weight: {percent} }} }} }}");
        edge.declare(&declared)?;
        let written = Instant::now();
        edge.weighs("kill", "v2", percent * 100).await?;
        weights.push(written.elapsed());
    }
    drop((keeper, other));

    let mut rows = timings("docker run returns to first 200", starts, None);
    rows.extend(timings("docker kill to endpoint out of Envoy", kills, Some(Duration::from_millis(250))));
    rows.extend(timings("configuration file written to weight in Envoy", weights, None));
    Ok(rows)
}

fn timings(name: &str, mut times: Vec<Duration>, budget: Option<Duration>) -> Vec<Row> {
    times.sort_unstable();
    let row = |percent: f64, budget: Option<Duration>| {
        let value = percentile(&times, percent);
        Row {
            name: format!("{name}, p{percent}"),
            value: value.as_secs_f64() * 1e3,
            unit: "ms",
            compared_with: None,
            ratio: None,
            budget: budget.map(|budget| format!("≤ {} ms", budget.as_millis())),
            met: budget.map(|budget| value <= budget),
        }
    };
    vec![row(50.0, None), row(99.0, budget)]
}
