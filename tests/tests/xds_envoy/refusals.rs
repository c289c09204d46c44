//! A cluster that Envoy refuses, among good ones.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use envoy_types::pb::{
    envoy::config::{cluster::v3::Cluster, core::v3::TransportSocket},
    google::protobuf,
};
use tidegate_tests::{
    client::Request,
    edge::{Local, Variant, host},
    poll::{SOON, until},
};
use tidegate_xds::{AcceptanceState, Commit, ResourceType, Store, TypeStatus};
use tokio::time::Instant;

use crate::{
    asked, in_both_variants,
    library::{Transport, World, assignment, in_force, routes},
    load,
};

in_both_variants!(
    a_broken_field_rule_refuses_one_cluster_of_a_response,
    a_cluster_that_cannot_be_made_is_refused_alone
);

/// Envoy checks field rules of all resources before it takes any: it refuses the good ones, too.
async fn a_broken_field_rule_refuses_one_cluster_of_a_response(variant: Variant) -> Result<()> {
    let spoil = |cluster: &mut Cluster| {
        cluster.connect_timeout = Some(protobuf::Duration { seconds: 0, nanos: 0 });
    };
    refused_among_good_ones(variant, "Proto constraint validation failed", spoil).await
}

async fn a_cluster_that_cannot_be_made_is_refused_alone(variant: Variant) -> Result<()> {
    let spoil = |cluster: &mut Cluster| {
        cluster.transport_socket =
            Some(TransportSocket { name: "there.is.no.such.socket".to_owned(), ..TransportSocket::default() });
    };
    refused_among_good_ones(variant, "Error adding/updating cluster(s) shop: ", spoil).await
}

async fn refused_among_good_ones(variant: Variant, words: &str, spoil: impl Fn(&mut Cluster)) -> Result<()> {
    let (v1, v2) = (Local::start("backend", "v1").await?, Local::start("backend", "v2").await?);
    let transport = Transport { variant, aggregated: true };
    let services: [(&str, &[_]); 3] = [("a", &[v1.address]), ("shop", &[v1.address]), ("z", &[v1.address])];
    let world = World::start(transport, &services).await?;
    world.answers("shop", 200).await?;
    let loads = ["shop", "a", "z"].map(|service| load(world.listener, &host(service)));
    world.settled(SOON).await?;

    let since = Instant::now();
    let mut commit = Commit::default();
    let mut bad = world.cluster("shop", 9);
    spoil(&mut bad);
    commit.upsert(ResourceType::Cluster, "shop", &bad);
    for service in ["a", "z"] {
        commit.upsert(ResourceType::Cluster, service, &world.cluster(service, 2));
    }
    commit.upsert(ResourceType::Cluster, "new", &world.cluster("new", 1));
    commit.upsert(ResourceType::Endpoint, "new", &assignment("new", &[v2.address]));
    commit.upsert(ResourceType::Route, "web", &routes(&["a", "shop", "z", "new"]));
    world.store.commit(commit);
    world.answers("new", 200).await?;
    eprintln!("the good ones of a refused response: {:.0?}", since.elapsed());
    until(SOON, "the good ones", async || {
        for service in ["a", "z"] {
            let timeout = in_force(&world.envoy, service).await?;
            ensure!(timeout == "2s", "{service} has {timeout}");
        }
        Ok(())
    })
    .await?;
    assert!(since.elapsed() < Duration::from_secs(10), "it took {:?}", since.elapsed());

    // The status has Envoy's own words.
    let refused = until(SOON, "the refusal to be known", async || {
        let status = world.status_of(ResourceType::Cluster)?;
        ensure!(!status.in_flight && status.rejected.len() == 1, "{status:#?}");
        Ok(status)
    })
    .await?;
    let rejection = &refused.rejected[0];
    assert_eq!((&*rejection.name, Some(rejection.version)), ("shop", version(&world.store)));
    ensure!(rejection.message.contains(words), "{}", rejection.message);
    let log = world.envoy.process.log();
    for line in rejection.message.lines() {
        ensure!(log.contains(line), "{line:?} is not Envoy's:\n{log}");
    }
    assert_eq!(in_force(&world.envoy, "shop").await?, "1s", "the last accepted version");
    assert_eq!(world.envoy.stat("cluster_manager.warming_clusters").await?, 0);

    // Others change; it is not sent again.
    let rejected = world.envoy.stat("cluster_manager.cds.update_rejected").await?;
    for seconds in 3..=6 {
        let mut commit = Commit::default();
        commit.upsert(ResourceType::Cluster, "a", &world.cluster("a", seconds));
        commit.upsert(ResourceType::Endpoint, "z", &assignment("z", &[[v1.address, v2.address][seconds as usize % 2]]));
        commit.upsert(ResourceType::Cluster, "shop", &bad);
        world.store.commit(commit);
        until(SOON, "the next change", async || {
            ensure!(in_force(&world.envoy, "a").await? == format!("{seconds}s"), "it is not there");
            Ok(())
        })
        .await?;
    }
    asked(&loads[0], 100).await?;
    let later = world.status_of(ResourceType::Cluster)?;
    assert_eq!(later.nacks, refused.nacks, "it was refused again: {later:#?}");
    assert_eq!(later.responses, refused.responses + 4, "more was sent than had changed: {later:#?}");
    assert_eq!(world.envoy.stat("cluster_manager.cds.update_rejected").await?, rejected);

    // One that has nothing yet gets the last accepted version.
    let second = world.another_envoy().await?;
    assert_eq!(in_force(&second, "shop").await?, "1s");
    assert_eq!(second.stat("cluster_manager.cds.update_rejected").await?, 0);
    let endpoints = second.endpoints("shop").await?.context("no such cluster")?;
    ensure!(endpoints.len() == 1 && endpoints[0].healthy, "{endpoints:?}");
    let held_back = |state: &AcceptanceState| matches!(state, AcceptanceState::HeldBack);
    let states = world.store.acceptance(ResourceType::Cluster, "shop");
    assert_eq!(states.iter().filter(|of| held_back(&of.state)).count(), 1, "{states:#?}");

    let mut commit = Commit::default();
    commit.upsert(ResourceType::Cluster, "shop", &world.cluster("shop", 4));
    world.store.commit(commit);
    until(SOON, "the mended cluster everywhere", async || {
        for envoy in [&world.envoy, &second] {
            let timeout = in_force(envoy, "shop").await?;
            ensure!(timeout == "4s", "it has {timeout}");
        }
        let states = world.store.acceptance(ResourceType::Cluster, "shop");
        let accepted = |state: &AcceptanceState| matches!(state, AcceptanceState::Accepted { .. });
        ensure!(states.len() == 2 && states.iter().all(|of| accepted(&of.state)), "{states:#?}");
        let rejected = |status: &TypeStatus| !status.rejected.is_empty();
        let clients = world.store.clients();
        ensure!(!clients.iter().flat_map(|client| &client.types).any(rejected), "{clients:#?}");
        Ok(())
    })
    .await?;
    asked(&loads[0], 50).await?;
    for load in loads {
        load.stop().await?.all_succeeded()?;
    }

    // The second serves, too: alone, for both listen on the same port.
    let World { envoy, listener, .. } = world;
    drop(envoy);
    let answer = Request::get(listener, "/").host(&host("shop")).send().await?;
    assert_eq!(answer.status, 200);
    Ok(())
}

fn version(store: &Store) -> Option<tidegate_xds::Version> {
    store.version(ResourceType::Cluster, "shop")
}
