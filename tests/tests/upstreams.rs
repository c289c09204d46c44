//! Upstreams that the network takes away: a real Envoy, backends on loopback and beyond a cable that is cut.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use tidegate_tests::{
    edge::{Edge, Local, host},
    load::Load,
    namespace::Namespace,
    poll::{SOON, until},
};

/// Checked so rarely that Envoy is alone with it.
fn entry(local: &Local, service: &str) -> String {
    local.entry(service, "v1").replace("200ms", "60s")
}

#[tokio::test]
async fn a_host_that_falls_silent_is_left_by_envoy_itself_and_costs_no_request() -> Result<()> {
    let namespace = Namespace::create()?;
    let (near, far) = (Local::start("shop", "v1").await?, Local::start_in(&namespace, "shop", "v1").await?);
    let files = tempfile::tempdir()?;
    fs::write(files.path().join("shop.yaml"), entry(&near, "shop") + &entry(&far, "shop"))?;
    let edge = Edge::on_files(files.path(), "{}").await?;
    edge.healthy("shop/v1", 2).await?;

    // So many at once that the host that answers is always the busier one, to which least-request does not turn.
    let load =
        Load::get(edge.listener, &host("shop"), "/slow?ms=20").closed(64).duration(Duration::from_secs(5)).start();
    until(SOON, "some answers", async || {
        ensure!(load.done() > 100, "{}", load.done());
        Ok(())
    })
    .await?;
    namespace.cut()?;
    edge.healthy("shop/v1", 1).await?;
    let report = load.wait().await?;
    ensure!(report.count() > 1_000, "it was hardly asked: {report}");
    report.all_succeeded()
}
