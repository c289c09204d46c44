//! A stream that is cut and comes back. Envoy then says which versions it has; silence about those must leave no cluster
//! empty and none warming (envoy#22418), wherever the cut was.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidegate_tests::{
    edge::{Local, Variant, host},
    load::Load,
    poll::{SOON, until},
};
use tidegate_xds::{Commit, ResourceType};
use tokio::time::Instant;

use crate::{
    asked, connected, in_both_variants,
    library::{Transport, World, assignment, in_force, routes, routes_to},
    load,
};

in_both_variants!(
    a_cut_with_nothing_changed_costs_nothing,
    a_cut_between_a_cluster_and_its_endpoints_leaves_nothing_warming,
    a_route_to_a_new_cluster_waits_for_it_also_after_such_a_cut,
    what_changed_during_a_cut_arrives_whole,
    a_cluster_that_another_replaced_during_a_cut_serves_until_its_routes_have_moved,
    a_cluster_that_was_empty_is_filled_after_a_cut,
);

/// Far below the 15 s after which Envoy gives up on endpoints.
const PROMPTLY: Duration = Duration::from_secs(7);

fn transport(variant: Variant) -> Transport {
    Transport { variant, aggregated: true }
}

async fn a_cut_with_nothing_changed_costs_nothing(variant: Variant) -> Result<()> {
    let (shop, cart, next) =
        (Local::start("shop", "v1").await?, Local::start("cart", "v1").await?, Local::start("shop", "v2").await?);
    let services: [(&str, &[_]); 2] = [("shop", &[shop.address]), ("cart", &[cart.address])];
    let mut world = World::start(transport(variant), &services).await?;
    world.answers("cart", 200).await?;
    let loads = ["shop", "cart"].map(|service| load(world.listener, &host(service)));
    world.settled(PROMPTLY).await?;
    let stats = "membership_change|upstream_cx_destroy_local|rds.web.update_success";
    let before = world.envoy.stats(stats).await?;

    for server_is_new in [false, true, false] {
        world.cable.cut().await;
        connected(&world.envoy, false).await?;
        asked(&loads[0], 50).await?;
        if server_is_new {
            world = world.with_new_server().await?;
        }
        world.cable.mend()?;
        world.settled(PROMPTLY).await?;
        if variant == Variant::Delta {
            for resource_type in [ResourceType::Cluster, ResourceType::Endpoint, ResourceType::Route] {
                let resent = world.status_of(resource_type)?;
                // Of the types that are asked for with a wildcard the first answer may be empty, but must come.
                let most = u64::from(resource_type == ResourceType::Cluster);
                ensure!(resent.responses <= most, "{resource_type} was sent again: {resent:?}");
            }
        }
        world.envoy.serves("shop", &[shop.address]).await?;
        world.envoy.serves("cart", &[cart.address]).await?;
        asked(&loads[1], 50).await?;
    }
    if variant == Variant::Delta {
        assert_eq!(world.envoy.stats(stats).await?, before, "nothing came or went");
    }

    // And it still hears what it was silent about.
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Endpoint, "shop", &assignment("shop", &[next.address]));
    world.store.commit(commit);
    world.envoy.serves("shop", &[next.address]).await?;
    for load in loads {
        load.stop().await?.all_succeeded()?;
    }
    Ok(())
}

/// Changes `shop`, and cuts before its endpoints are sent again. `cart` moves to another backend before.
async fn cut_while_shop_warms(world: &mut World, moved: &Local, seconds: i64) -> Result<()> {
    // While an answer about endpoints is awaited, no endpoints are sent, and clusters are.
    world.cable.mute();
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Endpoint, "cart", &assignment("cart", &[moved.address]));
    world.store.commit(commit);
    world.envoy.serves("cart", &[moved.address]).await?;
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Cluster, "shop", &world.cluster("shop", seconds));
    world.store.commit(commit);
    until(SOON, "the cluster to warm", async || {
        let warming = world.envoy.stat("cluster_manager.warming_clusters").await?;
        ensure!(warming == 1, "{warming} clusters are warming");
        Ok(())
    })
    .await?;
    world.cable.cut().await;
    connected(&world.envoy, false).await?;
    assert_eq!(world.envoy.stat("cluster_manager.warming_clusters").await?, 1, "it was cut too late");
    Ok(())
}

async fn a_cut_between_a_cluster_and_its_endpoints_leaves_nothing_warming(variant: Variant) -> Result<()> {
    let (shop, cart, other) =
        (Local::start("shop", "v1").await?, Local::start("cart", "v1").await?, Local::start("cart", "v2").await?);
    let services: [(&str, &[_]); 2] = [("shop", &[shop.address]), ("cart", &[cart.address])];
    let mut world = World::start(transport(variant), &services).await?;
    world.answers("cart", 200).await?;
    let loads = ["shop", "cart"].map(|service| load(world.listener, &host(service)));
    world.settled(PROMPTLY).await?;

    cut_while_shop_warms(&mut world, &other, 2).await?;
    let mended = Instant::now();
    world.cable.mend()?;
    world.settled(PROMPTLY).await?;
    eprintln!("warm {:.0?} after the cable was mended", mended.elapsed());
    assert_eq!(in_force(&world.envoy, "shop").await?, "2s");
    world.envoy.serves("shop", &[shop.address]).await?;
    world.envoy.serves("cart", &[other.address]).await?;
    asked(&loads[0], 50).await?;
    for load in loads {
        load.stop().await?.all_succeeded()?;
    }
    Ok(())
}

async fn a_route_to_a_new_cluster_waits_for_it_also_after_such_a_cut(variant: Variant) -> Result<()> {
    let (shop, cart, other) =
        (Local::start("shop", "v1").await?, Local::start("cart", "v1").await?, Local::start("cart", "v2").await?);
    let services: [(&str, &[_]); 2] = [("shop", &[shop.address]), ("cart", &[cart.address])];
    let mut world = World::start(transport(variant), &services).await?;
    world.answers("cart", 200).await?;
    let load = Load::get(world.listener, &host("shop"), "/").closed(8).duration(2 * SOON).requests(1_000_000).start();
    world.settled(PROMPTLY).await?;

    // Several times, for it is a race: between routes that are sent too early, and Envoy's asking for clusters.
    for (round, moved) in (2..).zip([&other, &cart, &other, &cart, &other]) {
        cut_while_shop_warms(&mut world, moved, round).await?;
        let mut commit = Commit::default();
        // Many, so that it takes time until they are warm.
        let names: Vec<String> = (0..300).map(|number| format!("next-{round}-{number}")).collect();
        for cluster in &names {
            commit.upsert(ResourceType::Cluster, cluster, &world.cluster(cluster, 1));
            commit.upsert(ResourceType::Endpoint, cluster, &assignment(cluster, &[moved.address]));
        }
        commit.upsert(ResourceType::Route, "web", &routes_to(&[("shop", &names[299]), ("cart", "cart")]));
        world.store.commit(commit);
        world.cable.mend()?;
        world.settled(PROMPTLY).await?;
        assert_eq!(in_force(&world.envoy, "shop").await?, format!("{round}s"));
        let served_by_new = format!("cluster.{}.upstream_rq_completed", names[299]);
        until(SOON, "the new cluster's answers", async || {
            ensure!(world.envoy.stat(&served_by_new).await? > 0, "it has none");
            Ok(())
        })
        .await?;
        // Next time there are others.
        let mut commit = Commit::default();
        commit.upsert(ResourceType::Route, "web", &routes(&["shop", "cart"]));
        for cluster in &names {
            commit.remove(ResourceType::Cluster, cluster);
            commit.remove(ResourceType::Endpoint, cluster);
        }
        world.store.commit(commit);
        world.settled(PROMPTLY).await?;
    }
    asked(&load, 50).await?;
    let report = load.stop().await?;
    eprintln!("{variant:?}: {report}");
    report.all_succeeded()
}

async fn what_changed_during_a_cut_arrives_whole(variant: Variant) -> Result<()> {
    let (shop, cart, other) =
        (Local::start("shop", "v1").await?, Local::start("cart", "v1").await?, Local::start("cart", "v2").await?);
    let services: [(&str, &[_]); 3] = [("shop", &[shop.address]), ("cart", &[cart.address]), ("old", &[shop.address])];
    let mut world = World::start(transport(variant), &services).await?;
    world.answers("old", 200).await?;
    let loads = ["shop", "cart"].map(|service| load(world.listener, &host(service)));
    world.settled(PROMPTLY).await?;

    world.cable.cut().await;
    connected(&world.envoy, false).await?;
    // A cluster without its endpoints, one with them, one that is new, one that goes.
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Cluster, "shop", &world.cluster("shop", 2));
    commit.upsert(ResourceType::Cluster, "cart", &world.cluster("cart", 2));
    commit.upsert(ResourceType::Endpoint, "cart", &assignment("cart", &[other.address]));
    commit.upsert(ResourceType::Cluster, "new", &world.cluster("new", 1));
    commit.upsert(ResourceType::Endpoint, "new", &assignment("new", &[shop.address]));
    commit.remove(ResourceType::Cluster, "old");
    commit.remove(ResourceType::Endpoint, "old");
    commit.upsert(ResourceType::Route, "web", &routes(&["shop", "cart", "new"]));
    world.store.commit(commit);
    let mended = Instant::now();
    world.cable.mend()?;
    world.settled(PROMPTLY).await?;
    eprintln!("everything in force {:.0?} after the cable was mended", mended.elapsed());
    for cluster in ["shop", "cart"] {
        assert_eq!(in_force(&world.envoy, cluster).await?, "2s");
    }
    world.envoy.serves("shop", &[shop.address]).await?;
    world.envoy.serves("cart", &[other.address]).await?;
    world.answers("new", 200).await?;
    world.answers("old", 404).await?;
    until(SOON, "the old cluster's end", async || {
        ensure!(world.envoy.endpoints("old").await?.is_none(), "it is there");
        Ok(())
    })
    .await?;
    asked(&loads[0], 50).await?;
    for load in loads {
        load.stop().await?.all_succeeded()?;
    }
    Ok(())
}

async fn a_cluster_that_another_replaced_during_a_cut_serves_until_its_routes_have_moved(
    variant: Variant,
) -> Result<()> {
    let shop = Local::start("shop", "v1").await?;
    let mut world = World::start(transport(variant), &[("old", &[shop.address])]).await?;
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Route, "web", &routes_to(&[("shop", "old")]));
    world.store.commit(commit);
    world.answers("shop", 200).await?;
    let load = Load::get(world.listener, &host("shop"), "/").closed(8).duration(2 * SOON).requests(1_000_000).start();
    world.settled(PROMPTLY).await?;

    // Several times, for it is a race between the end of the old and the route to the new.
    let mut serving = "old".to_owned();
    for round in 0..5 {
        world.cable.cut().await;
        connected(&world.envoy, false).await?;
        let next = format!("next-{round}");
        let mut commit = Commit::default();
        commit.upsert(ResourceType::Cluster, &next, &world.cluster(&next, 1));
        commit.upsert(ResourceType::Endpoint, &next, &assignment(&next, &[shop.address]));
        commit.upsert(ResourceType::Route, "web", &routes_to(&[("shop", &next)]));
        commit.remove(ResourceType::Cluster, &serving);
        commit.remove(ResourceType::Endpoint, &serving);
        world.store.commit(commit);
        world.cable.mend()?;
        world.settled(PROMPTLY).await?;
        until(SOON, "the old cluster's end", async || {
            ensure!(world.envoy.endpoints(&serving).await?.is_none(), "it is there");
            Ok(())
        })
        .await?;
        asked(&load, 50).await?;
        serving = next;
    }
    let report = load.stop().await?;
    eprintln!("{variant:?}: {report}");
    report.all_succeeded()
}

async fn a_cluster_that_was_empty_is_filled_after_a_cut(variant: Variant) -> Result<()> {
    let shop = Local::start("shop", "v1").await?;
    let services: [(&str, &[_]); 4] = [("shop", &[shop.address]), ("late", &[]), ("filled", &[]), ("changed", &[])];
    let mut world = World::start(transport(variant), &services).await?;
    for service in ["late", "filled", "changed"] {
        world.answers(service, 503).await?;
    }
    let load = load(world.listener, &host("shop"));
    world.settled(PROMPTLY).await?;

    world.cable.cut().await;
    connected(&world.envoy, false).await?;
    let fill = |commit: &mut Commit, service: &str| {
        commit.upsert(ResourceType::Endpoint, service, &assignment(service, &[shop.address]));
    };
    let mut commit = Commit::default();
    fill(&mut commit, "filled");
    commit.upsert(ResourceType::Cluster, "changed", &world.cluster("changed", 2));
    world.store.commit(commit);
    world.cable.mend()?;
    world.settled(PROMPTLY).await?;
    world.answers("filled", 200).await?;
    for (service, backends) in [("late", &[][..]), ("changed", &[]), ("filled", &[shop.address])] {
        world.envoy.serves(service, backends).await?;
    }
    assert_eq!(in_force(&world.envoy, "changed").await?, "2s");

    let mut commit = Commit::default();
    fill(&mut commit, "late");
    fill(&mut commit, "changed");
    world.store.commit(commit);
    for service in ["late", "changed", "filled", "shop"] {
        world.answers(service, 200).await?;
    }
    load.stop().await?.all_succeeded()
}
