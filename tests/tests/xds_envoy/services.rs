//! A stream for each type in place of one for all.

use anyhow::{Result, ensure};
use tidegate_tests::{
    edge::{Local, Variant, host},
    poll::{SOON, until},
};
use tidegate_xds::{Commit, ResourceType};

use crate::{
    asked, in_both_variants,
    library::{Transport, World, assignment, in_force, routes},
    load,
};

in_both_variants!(an_envoy_without_ads_becomes_ready_and_follows);

async fn an_envoy_without_ads_becomes_ready_and_follows(variant: Variant) -> Result<()> {
    let (shop, next) = (Local::start("shop", "v1").await?, Local::start("shop", "v2").await?);
    let transport = Transport { variant, aggregated: false };
    let services: [(&str, &[_]); 2] = [("shop", &[shop.address]), ("cart", &[shop.address])];
    let mut world = World::start(transport, &services).await?;
    world.answers("cart", 200).await?;
    let load = load(world.listener, &host("shop"));

    // One for clusters, one for listeners, one for the route table, and Envoy keeps one for the endpoints of each cluster.
    let synced = |streams: usize| {
        let store = world.store.clone();
        async move || {
            let clients = store.clients();
            ensure!(clients.len() == streams, "there are {} streams", clients.len());
            ensure!(clients.iter().all(tidegate_xds::ClientStatus::is_synced), "{clients:#?}");
            Ok(())
        }
    };
    until(SOON, "five streams", synced(5)).await?;
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Cluster, "shop", &world.cluster("shop", 2));
    commit.upsert(ResourceType::Endpoint, "shop", &assignment("shop", &[next.address]));
    commit.upsert(ResourceType::Cluster, "new", &world.cluster("new", 1));
    commit.upsert(ResourceType::Endpoint, "new", &assignment("new", &[next.address]));
    world.store.commit(commit);
    let answered = async || {
        let endpoints = world.envoy.endpoints("new").await?.unwrap_or_default();
        ensure!(endpoints.len() == 1, "{endpoints:?}");
        Ok(())
    };
    until(SOON, "the new cluster", answered).await?;
    // No stream waits for another here: routes are the committer's to hold back.
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Route, "web", &routes(&["shop", "cart", "new"]));
    world.store.commit(commit);
    world.answers("new", 200).await?;
    until(SOON, "the other version of shop", async || {
        let answer = world.get("shop").await?;
        ensure!(answer.version() == Some("v2"), "{:?}", answer.version());
        ensure!(in_force(&world.envoy, "shop").await? == "2s", "the cluster is the old one");
        Ok(())
    })
    .await?;
    until(SOON, "six streams", synced(6)).await?;

    world.cable.cut().await;
    until(SOON, "no stream", synced(0)).await?;
    asked(&load, 50).await?;
    world.cable.mend()?;
    until(SOON, "six streams again", synced(6)).await?;
    assert_eq!(world.envoy.stat("cluster_manager.warming_clusters").await?, 0);
    asked(&load, 50).await?;
    load.stop().await?.all_succeeded()
}
