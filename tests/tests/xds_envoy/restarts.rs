//! Envoy killed, the control plane killed, and the control plane replaced by another process.

use std::{fs, time::Duration};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tidegate_tests::{
    client::Request,
    edge::{Edge, Local, Variant, host},
    poll::{SOON, outage, until},
};
use tokio::{sync::oneshot, time::Instant};

use crate::{asked, connected, in_both_variants, load};

in_both_variants!(
    a_killed_envoy_has_everything_at_once,
    a_killed_control_plane_costs_no_request,
    a_replaced_control_plane_is_missed_for_a_moment,
);

/// Connections to control planes so far.
const CONNECTIONS: &str = "cluster.tidegate-xds.upstream_cx_total";

/// So many services of one backend, in one file.
struct World {
    edge: Edge,
    _backend: Local,
    files: TempDir,
    entries: String,
}

impl World {
    async fn start(variant: Variant, services: usize) -> Result<Self> {
        let (backend, files) = (Local::start("many", "v1").await?, tempfile::tempdir()?);
        let entries: String = (0..services).map(|number| backend.entry(&format!("s{number}"), "v1")).collect();
        fs::write(files.path().join("all.yaml"), &entries)?;
        let edge = Edge::on_files(files.path(), "{}").await?.speaking(variant).await?;
        let world = Self { edge, _backend: backend, files, entries };
        for number in 0..services {
            world.edge.answers(&host(&format!("s{number}")), 200).await?;
        }
        Ok(world)
    }

    /// Another service arrives: the stream that there is works.
    async fn follows(&mut self, service: &str) -> Result<()> {
        self.entries += &self._backend.entry(service, "v1");
        fs::write(self.files.path().join("all.yaml"), &self.entries)?;
        self.edge.answers(&host(service), 200).await.map(drop)
    }
}

async fn a_killed_envoy_has_everything_at_once(variant: Variant) -> Result<()> {
    const SERVICES: usize = 200;
    let World { edge, _backend, files: _files, .. } = World::start(variant, SERVICES).await?;
    let load = load(edge.listener, &host("s0"));
    asked(&load, 100).await?;

    // Its bootstrap is asked for in this time, too, as `tidegate up` would.
    let killed = Instant::now();
    let died_at = load.elapsed();
    let edge = edge.with_new_envoy().await?;
    for number in 0..SERVICES {
        let answer = edge.get(&host(&format!("s{number}"))).await?;
        assert_eq!(answer.status, 200, "s{number} as soon as Envoy is ready");
    }
    let took = killed.elapsed();
    asked(&load, 100).await?;
    let report = load.stop().await?;
    let back_at = report.failures().map(|sample| sample.at).max().unwrap_or(died_at);
    eprintln!("{variant:?}: no answer for {:.2?}; {SERVICES} services asked after {took:.2?}", back_at - died_at);
    assert!(back_at - died_at < Duration::from_secs(10), "{report}");
    assert!(report.failures().all(|sample| sample.at + Duration::from_millis(50) >= died_at), "{report}");
    let alive = report.samples.iter().filter(|sample| sample.at > back_at);
    assert!(alive.count() >= 100, "{report}");
    Ok(())
}

async fn a_killed_control_plane_costs_no_request(variant: Variant) -> Result<()> {
    let mut world = World::start(variant, 20).await?;
    let load = load(world.edge.listener, &host("s0"));
    asked(&load, 100).await?;
    world.edge.tidegate.process.kill()?;
    connected(&world.edge.envoy, false).await?;
    load.goes_on(outage(Duration::from_secs(5))?).await?;
    assert_eq!(world.edge.envoy.stat("cluster.s0/v1.membership_healthy").await?, 1);
    let change = world.edge.envoy.stat("cluster.s0/v1.membership_change").await?;
    world.edge = world.edge.restart_control_plane().await?;
    connected(&world.edge.envoy, true).await?;
    world.follows("another").await?;
    assert_eq!(world.edge.envoy.stat("cluster.s0/v1.membership_change").await?, change, "nobody came or went");
    asked(&load, 100).await?;
    load.stop().await?.all_succeeded()
}

async fn a_replaced_control_plane_is_missed_for_a_moment(variant: Variant) -> Result<()> {
    let mut world = World::start(variant, 20).await?;
    let load = load(world.edge.listener, &host("s0"));
    asked(&load, 100).await?;
    let before = world.edge.envoy.stat(CONNECTIONS).await?;
    let (admin, (done, mut is_done)) = (world.edge.envoy.admin().clone(), oneshot::channel());
    let watch = async move {
        let (mut left, mut longest) = (None, Duration::ZERO);
        until(2 * SOON, "the new control plane", async || {
            let stat = Request::get(&admin, "/stats?filter=control_plane.connected_state").send().await?.text();
            if stat.trim().ends_with(": 1") {
                left = None;
            } else {
                longest = longest.max(left.get_or_insert_with(Instant::now).elapsed());
            }
            Ok(is_done.try_recv()?)
        })
        .await?;
        anyhow::Ok(longest)
    };
    let replace = async {
        world.edge = world.edge.without_control_plane(async {}).await?;
        connected(&world.edge.envoy, true).await?;
        world.follows("another").await?;
        let _ = done.send(());
        anyhow::Ok(world)
    };
    let (longest, world) = tokio::try_join!(watch, replace)?;
    eprintln!("{variant:?}: {longest:.0?} without a stream");
    // It may have been back before it was looked at.
    let connections = world.edge.envoy.stat(CONNECTIONS).await?;
    ensure!(connections > before, "the stream did not end: {connections} connections, as before");
    ensure!(longest < Duration::from_secs(5), "{longest:?} without a stream");
    until(SOON, "nothing to be warming", async || {
        let warming = world.edge.envoy.stat("cluster_manager.warming_clusters").await?;
        ensure!(warming == 0, "{warming}");
        Ok(())
    })
    .await?;
    asked(&load, 100).await?;
    load.stop().await?.all_succeeded()
}
