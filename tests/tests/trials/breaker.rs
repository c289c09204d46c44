//! The breaker: a bad canary is left by the edge alone, and nobody leaves a good one.

use anyhow::{Result, ensure};
use http::Method;
use tidegate_tests::{
    deploys::Http2,
    edge::{Edge, backend, host},
    engine::Engine,
    load::{Ask, Load, Outcome},
    poll::{SOON, until},
};

use crate::{BY_USER, Trial, declared};

const ARMED: &str = "breaker: {}";

fn armed(percent: &str) -> String {
    format!("weight: {percent}, {BY_USER}, {ARMED}")
}

fn by_key(n: u64) -> Ask {
    let key = format!("key-{n}");
    Ask::get("/").header("x-user", &key).key(&key)
}

/// On a busy machine each of them may have a request under way when it opens; `bench -- canaries` holds it to a dozen in all.
const CONNECTIONS: usize = 16;

/// A thousand requests a second, a tenth of them the canary's, all of which fail; the control plane is dead.
async fn a_dead_canary_is_left(name: &str, workers: u32) -> Result<()> {
    let mut trial = Trial::start(name, &armed("10"), workers).await?;
    trial.weighs(1_000).await?;
    trial.canary.control("errors=100").await?;
    trial.edge.tidegate.process.kill()?;
    let load =
        Load::get(trial.edge.listener, &trial.host(), "/").rate(1_000.0, CONNECTIONS).requests(3_000).duration(SOON);
    let report = load.asking(by_key).run().await?;
    ensure!((7..=12 + CONNECTIONS).contains(&report.failed()), "{report}");
    let rest = report.samples.len() - report.samples.iter().rposition(|s| !s.outcome.is_success()).unwrap_or(0);
    ensure!(rest > 2_000, "the last failure was {rest} requests before the end: {report}");
    ensure!(trial.counted("breaker_trips_total").await? == 1, "{report}");
    ensure!(trial.counted("breaker_open").await? == 1, "{report}");
    ensure!(trial.counted("breaker_failures_total").await? >= 7, "{report}");
    Ok(())
}

#[tokio::test]
async fn a_dead_canary_is_left_after_a_dozen_failures_with_one_worker() -> Result<()> {
    a_dead_canary_is_left("dead-one", 1).await
}

#[tokio::test]
async fn a_dead_canary_is_left_after_a_dozen_failures_with_two_workers() -> Result<()> {
    a_dead_canary_is_left("dead-two", 2).await
}

#[tokio::test]
async fn with_everything_at_the_canary_everyone_is_stables_until_another_trial() -> Result<()> {
    let trial = Trial::start("whole", &armed("100"), 2).await?;
    trial.weighs(10_000).await?;
    trial.canary.control("errors=100").await?;
    let load =
        |requests| Load::get(trial.edge.listener, &trial.host(), "/").closed(4).requests(requests).asking(by_key);
    let report = load(500).run().await?;
    ensure!((7..=12).contains(&report.failed()), "{report}");
    ensure!(trial.counted("breaker_open").await? == 1, "{report}");
    // It stays open, also when the canary is well.
    trial.canary.control("errors=0").await?;
    let report = load(200).run().await?;
    report.all_succeeded()?;
    ensure!(report.share("v1") > 0.999, "{report}");
    trial.declare(&armed("50"))?;
    trial.weighs(5_000).await?;
    trial.counts("breaker_open", 0).await?;
    until(SOON, "the canary's clients back", async || {
        let report = load(200).run().await?;
        ensure!((0.3..0.7).contains(&report.share("v2")), "{report}");
        Ok(())
    })
    .await?;
    // One that is open shows as closed once there is no breaker.
    trial.canary.control("errors=100").await?;
    load(500).run().await?;
    trial.counts("breaker_open", 1).await?;
    trial.declare(&format!("weight: 50, {BY_USER}"))?;
    trial.counts("breaker_open", 0).await
}

#[tokio::test]
async fn one_client_that_repeats_what_fails_opens_nothing_and_many_do() -> Result<()> {
    let trial = Trial::start("outsider", &armed("20"), 2).await?;
    trial.weighs(2_000).await?;
    // One path fails, and all others are well.
    trial.canary.control("health=false").await?;
    let keys = trial.canarys(40, 2_000);
    let failing = |keys: Vec<String>, requests| {
        let ask =
            move |n: u64| Ask::get("/health").header("x-user", &keys[usize::try_from(n).unwrap_or(0) % keys.len()]);
        Load::get(trial.edge.listener, &trial.host(), "/").closed(4).requests(requests).asking(ask)
    };
    let report = failing(keys[..1].to_vec(), 1_000).run().await?;
    ensure!(report.failed() == 1_000, "{report}");
    ensure!(trial.counted("breaker_failures_total").await? >= 1_000 - 64, "they were not looked at");
    ensure!(trial.counted("breaker_trips_total").await? == 0, "one client opened it");
    let report = failing(keys, 400).run().await?;
    ensure!(report.failed() <= 12, "{report}");
    ensure!(trial.counted("breaker_trips_total").await? == 1, "{report}");
    Ok(())
}

#[tokio::test]
async fn what_clients_do_wrong_and_what_is_chosen_opens_nothing() -> Result<()> {
    let canary = format!("{}, match: {{ header: {{ name: X-Canary }} }}", armed("20"));
    let trial = Trial::start("wrong", &canary, 1).await?;
    trial.weighs(2_000).await?;
    let keys = trial.canarys(50, 2_000);
    let wrong =
        move |n: u64| Ask::get("/slow?ms=soon").header("x-user", &keys[usize::try_from(n).unwrap_or(0) % keys.len()]);
    let load = Load::get(trial.edge.listener, &trial.host(), "/").closed(4).requests(500);
    let report = load.clone().asking(wrong).run().await?;
    ensure!(report.failed() == 500 && report.share("v2") > 0.999, "{report}");
    trial.canary.control("errors=100").await?;
    let chosen = |n: u64| by_key(n).header("x-canary", "always");
    let report = load.asking(chosen).run().await?;
    ensure!(report.failed() == 500 && report.share("v2") > 0.999, "{report}");
    ensure!(trial.counted("breaker_trips_total").await? == 0 && trial.counted("breaker_failures_total").await? == 0);
    Ok(())
}

#[tokio::test]
async fn what_the_network_fails_counts_as_what_it_is() -> Result<()> {
    // A time-out of an answer that may not be asked for again is Envoy's own 504.
    let only = |kind: &str| format!("weight: 20, {BY_USER}, breaker: {{ failOn: [ {kind} ] }}");
    let trial = Trial::start("network", &only("5xx"), 1).await?;
    trial.edge.declare(&format!(
        "{{ \"{}\": {{ stable: {{ version: v1 }}, timeout: 100ms, canary: {{ version: v2, {} }} }} }}",
        trial.service,
        only("5xx")
    ))?;
    trial.weighs(2_000).await?;
    let keys = trial.canarys(60, 2_000);
    let slow = move |n: u64| Ask {
        method: Method::POST,
        ..Ask::get("/slow?ms=2000").header("x-user", &keys[usize::try_from(n).unwrap_or(0) % keys.len()])
    };
    let load =
        |requests| Load::get(trial.edge.listener, &trial.host(), "/").closed(8).requests(requests).asking(slow.clone());
    until(SOON, "the time-out to hold", async || {
        let report = load(1).run().await?;
        ensure!(report.percentile(50.0).is_zero() && report.took.as_millis() < 1_500, "{report}");
        Ok(())
    })
    .await?;
    let report = load(40).run().await?;
    ensure!(report.failed() == 40, "{report}");
    ensure!(trial.counted("breaker_failures_total").await? == 0, "a time-out is no 5xx of the application's");
    trial.edge.declare(&format!(
        "{{ \"{}\": {{ stable: {{ version: v1 }}, timeout: 100ms, canary: {{ version: v2, {} }} }} }}",
        trial.service,
        only("timeout")
    ))?;
    until(SOON, "the time-outs to count", async || {
        load(20).run().await?;
        ensure!(trial.counted("breaker_trips_total").await? == 1, "{}", trial.counted("breaker_failures_total").await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_grpc_canary_fails_by_the_status_at_the_end_of_its_answers() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("grpc");
    // All calls are one client's, for they have no key and one address.
    let canary = "weight: 50, breaker: { failOn: [ internal ], minDistinctKeys: 1 }";
    let edge = Edge::start_on(&engine, &declared(&service, canary), &[], 1).await?;
    let image = engine.sample_h2_image().await?;
    let mut containers = Vec::new();
    for version in ["v1", "v2"] {
        let mut spec =
            backend(&service, version).label("tidegate.protocol", "grpc").label("tidegate.check.type", "grpc");
        spec.body.image = Some(image.clone());
        spec.body.labels.get_or_insert_default().remove("tidegate.check.path");
        containers.push(engine.run(spec).await?);
        edge.healthy(&format!("{service}/{version}"), 1).await?;
    }
    edge.weighs(&service, "v2", 5_000).await?;
    let mut client = Http2::new(edge.listener, &host(&service));
    let mut failed = 0;
    for _ in 0..200 {
        let (outcome, served_by) = client.call("/fail/v2", SOON).await?;
        let from_canary = served_by.is_some_and(|by| by.starts_with("v2/"));
        // A call with a status other than 0 in its trailers.
        ensure!((outcome == Outcome::Body) == from_canary, "{outcome}");
        failed += usize::from(from_canary);
    }
    ensure!((7..=12).contains(&failed), "{failed} of 200 calls failed");
    let trips = format!("wasmcustom.tidegate.service.{service}.breaker_trips_total");
    ensure!(edge.envoy.stat(&trips).await? == 1);
    Ok(())
}
