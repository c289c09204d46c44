//! Containers that never rest: real dockerd with a restart policy, real Envoy.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::models::{RestartPolicy, RestartPolicyNameEnum};
use tidegate_tests::{
    edge::{Edge, backend, host},
    engine::Engine,
    load::Load,
    poll::{SOON, until},
};

/// How long the loop is watched.
const WATCHED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_crash_loop_is_damped_and_costs_nobody_a_request() -> Result<()> {
    let engine = Engine::connect().await?;
    let (service, other) = (engine.unique("loop"), engine.unique("calm"));
    let edge = Edge::start(&engine, "{}").await?;
    let _calm = engine.run(backend(&other, "v1")).await?;
    let _steady = engine.run(backend(&service, "v1")).await?;
    edge.answers(&host(&service), 200).await?;
    edge.answers(&host(&other), 200).await?;
    let stat = |of: &str, name: &str| format!("cluster.{of}/v1.{name}");
    let updates = edge.envoy.stat(&stat(&other, "update_success")).await?;

    let restarts = RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None };
    let crashing = backend(&service, "v1").env("EXIT_AFTER_MS", "700");
    let crashing = crashing.host_config(|host| host.restart_policy = Some(restarts));
    let changes_before = edge.envoy.stat(&stat(&service, "membership_change")).await?;
    let load = |of: &str| Load::get(edge.listener, &host(of), "/").rate(50.0, 8).duration(WATCHED).start();
    let loads = [load(&service), load(&other)];
    let crashing = engine.run(crashing).await?;

    until(SOON, "the damping", async || {
        let shown = edge.cli().run(["ps"]).await?.ok()?.stdout;
        ensure!(shown.contains(&crashing.name) && shown.contains("is kept out for"), "{shown}");
        Ok(())
    })
    .await?;
    // It may be between two runs just now, which is a failure, too.
    let seen = edge.cli().run(["explain", &crashing.name, "-o", "json"]).await?.stdout;
    let seen: serde_json::Value = serde_json::from_str(&seen)?;
    let stages = seen["parts"][0]["stages"].as_array().context("stages")?;
    let damping = stages.iter().find(|stage| stage["name"] == "damping").with_context(|| format!("{seen}"))?;
    ensure!(damping["detail"].as_str().is_some_and(|detail| detail.contains("it ends at 20")), "{damping}");
    let status = edge.cli().run(["status"]).await?.stdout;
    ensure!(status.contains("warning[TG0213]"), "{status}");

    for load in loads {
        load.wait().await?.all_succeeded()?;
    }
    let runs = crashing.inspect().await?.restart_count.unwrap_or_default();
    ensure!(runs >= 4, "it was started again only {runs} times");
    let changes = edge.envoy.stat(&stat(&service, "membership_change")).await? - changes_before;
    ensure!((2..=4).contains(&changes), "{changes} changes for {runs} runs");
    let of_other = edge.envoy.stat(&stat(&other, "update_success")).await? - updates;
    ensure!(of_other == 0, "the other service's endpoints were sent again {of_other} times");
    Ok(())
}
