//! Every container of three services is replaced again and again under load, and ends in every way: real Docker, real Envoy. Asserted
//! on what clients saw.

mod judge;

use anyhow::{Context, Result, ensure};
use tidegate_tests::{
    deploys::{End, REPLICAS, Script, Traffic, number},
    edge::Edge,
    engine::Engine,
};
use tokio::time::Instant;

use self::judge::Judgement;

/// Enough for each first container and for each way.
const REPLACEMENTS: u64 = 10;

/// `TIDEGATE_REPLACEMENTS` says how many, and `TIDEGATE_SEED` in which order containers end in which way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replacing_every_container_costs_no_request_that_may_be_repeated() -> Result<()> {
    let (replacements, seed) = (number("TIDEGATE_REPLACEMENTS", REPLACEMENTS)?, number("TIDEGATE_SEED", 5)?);
    let engine = Engine::connect().await?;
    let mut script = Script::start(&engine, seed, |_| Vec::new()).await?;
    let edge = Edge::start(&engine, "{}").await?;
    for service in &script.services {
        edge.healthy(&format!("{}/v1", service.name), REPLICAS).await?;
    }
    let traffic = Traffic::start(edge.listener, &script.services);
    let began = Instant::now();
    let mut ends = Vec::new();
    let mut strange = Vec::new();
    for _ in 0..replacements {
        let service = script.service()?.name.clone();
        let cluster = format!("{service}/v1");
        script.begin().await?;
        let replicas = (REPLICAS + 1).to_string();
        let wait = ["deploy", "wait", &service, "--version", "v1", "--replicas", &replicas, "--timeout", "30s"];
        edge.cli().run(wait).await?.ok()?;
        ends.push(script.end().await?);
        edge.healthy(&cluster, REPLICAS).await?;
        // By Envoy's own count, all that went wrong went wrong at containers that ended.
        let staying = script.addresses(&service).await?;
        for endpoint in edge.envoy.endpoints(&cluster).await?.context("its endpoints")? {
            if endpoint.errors > 0 && staying.contains(&endpoint.address) {
                strange.push(format!("{} errors of {} of {service}, which stays", endpoint.errors, endpoint.address));
            }
        }
    }
    let judgement = Judgement::of(&traffic.stop().await?, &ends, &script.services, began);
    judgement.say(seed);
    ensure!(strange.is_empty(), "{}\n{judgement}", strange.join("\n"));
    judgement.passes()?;
    if replacements >= REPLACEMENTS {
        let missing: Vec<_> = End::ALL.into_iter().filter(|way| !ends.iter().any(|ended| ended.end == *way)).collect();
        ensure!(missing.is_empty(), "nothing ended like that: {missing:?}");
    }
    Ok(())
}
