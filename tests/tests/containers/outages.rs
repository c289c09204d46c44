//! An engine that is frozen, killed, stopped and replaced while its containers are asked all the time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tidegate_core::Code;
use tidegate_tests::{
    edge::{Edge, backend, host},
    engine::{Container, Engine},
    load::Load,
    poll::{SOON, outage},
    private_engine::PrivateEngine,
};

use super::problem;

async fn serves(edge: &Edge, cluster: &str, containers: &[&Container]) -> Result<()> {
    let mut addresses = Vec::new();
    for container in containers {
        addresses.push(container.address().await?);
    }
    edge.envoy.serves(cluster, &addresses).await
}

#[tokio::test]
async fn an_engine_that_is_frozen_killed_and_replaced_costs_no_request_and_is_seen_right_again() -> Result<()> {
    let mut private = PrivateEngine::start().await?;
    let engine: Engine = private.connect().await?;
    let service = engine.unique("outage");
    let cluster = format!("{service}/v1");
    let edge = Edge::start(&engine, "{}").await?;
    let docker = format!("Docker engine {}", private.endpoint());
    let run = || engine.run(backend(&service, "v1"));
    let (first, second) = (run().await?, run().await?);
    serves(&edge, &cluster, &[&first, &second]).await?;
    let load = Load::get(edge.listener, &host(&service), "/").rate(200.0, 16).duration(40 * SOON).start();

    // Frozen: connections stay open, and nothing is said any more.
    private.freeze().await?;
    let stale = problem(&edge.cli(), Code::StaleView, &docker).await?;
    ensure!(stale.reason.contains("since"), "{stale}");
    edge.healthy(&cluster, 2).await?;
    private.thaw()?;
    let third = run().await?;
    serves(&edge, &cluster, &[&first, &second, &third]).await?;

    // Killed, and one of its containers ends meanwhile: no event will ever tell.
    let pid = third.inspect().await?.state.and_then(|state| state.pid).context("its process")?;
    private.kill()?;
    problem(&edge.cli(), Code::DockerUnreachable, &docker).await?;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id")?;
    kill_process(process, Signal::KILL)?;
    edge.healthy(&cluster, 2).await?;
    private.restart().await?;
    serves(&edge, &cluster, &[&first, &second]).await?;

    // Stopped and started again: another socket.
    private.stop().await?;
    edge.healthy(&cluster, 2).await?;
    load.goes_on(outage(Duration::from_secs(1))?).await?;
    edge.healthy(&cluster, 2).await?;
    private.restart().await?;
    second.stop(Duration::from_secs(5)).await?;
    serves(&edge, &cluster, &[&first]).await?;
    let fourth = run().await?;
    serves(&edge, &cluster, &[&first, &fourth]).await?;

    let report = load.stop().await?;
    ensure!(report.count() > 1_000, "it was hardly asked: {report}");
    report.all_succeeded()
}
