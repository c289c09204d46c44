//! Networks of every kind, and what follows when they change.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result, ensure};
use bollard::models::PortBinding;
use tidegate_core::Code;
use tidegate_tests::{
    edge::{Edge, backend, host},
    engine::{Engine, Spec},
    load::Load,
    poll::{SOON, until},
    ports,
};

use super::{explained, problem, subject};

/// The sample backend on another network than one of its own, at another port than its usual one.
fn on_network(service: &str, mode: &str, port: u16) -> Spec {
    backend(service, "v1")
        .env("PORT", &port.to_string())
        .label("tidegate.port", &port.to_string())
        .host_config(|config| config.network_mode = Some(mode.to_owned()))
}

#[tokio::test]
async fn a_network_that_is_left_and_joined_again_costs_no_request() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("move");
    let host = host(&service);
    let cluster = format!("{service}/v1");
    let network = engine.network("move").await?;
    let edge = Edge::start(&engine, "{}").await?;
    let stays = engine.run(backend(&service, "v1").network(&network)).await?;
    let moves = engine.run(backend(&service, "v1").network(&network)).await?;
    edge.healthy(&cluster, 2).await?;
    let load = Load::get(edge.listener, &host, "/").rate(200.0, 16).duration(Duration::from_secs(60)).start();
    let old = moves.address_in(&network).await?;
    network.disconnect(&moves).await?;
    edge.healthy(&cluster, 1).await?;
    // Somebody else has the address now.
    let _other = engine.run(Spec::sample("other").network(&network)).await?;
    network.connect(&moves).await?;
    let new = moves.address_in(&network).await?;
    ensure!(old != new, "it has the same address {old} again");
    edge.envoy.serves(&cluster, &[stays.address_in(&network).await?, new]).await?;
    let report = load.stop().await?;
    ensure!(report.count() > 0, "it was never asked");
    report.all_succeeded()
}

#[tokio::test]
async fn a_container_on_the_nodes_network_is_reached_at_the_node() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let (service, admin) = (engine.unique("node"), engine.unique("admin"));
    let port = ports::free()?.port();
    let _container = engine.run(on_network(&service, "host", port).env("ADDRESS", "127.0.0.1")).await?;
    edge.answers(&host(&service), 200).await?;

    // The API listens on the same loopback, and no label leads there.
    let hostile = Spec::sample("hostile").env("ADDRESS", "127.0.0.1").env("PORT", &ports::free()?.port().to_string());
    let hostile = hostile
        .label("tidegate.enable", "true")
        .label("tidegate.service", &admin)
        .label("tidegate.host", &host(&admin))
        .label("tidegate.port", &edge.api().port().to_string())
        .host_config(|config| config.network_mode = Some("host".to_owned()));
    let hostile = engine.run(hostile).await?;
    let found = problem(&edge.cli(), Code::NoAddress, &subject(&hostile)).await?;
    ensure!(found.reason.contains("one of tidegate's or Envoy's own"), "{found}");
    let answer = edge.answers(&host(&admin), 503).await?;
    ensure!(answer.header("x-tidegate-reason") == Some("no-ready-instance"), "{answer:?}");

    let nowhere = engine.run(on_network(&engine.unique("none"), "none", 8080)).await?;
    let found = problem(&edge.cli(), Code::NoAddress, &subject(&nowhere)).await?;
    ensure!(found.reason.contains("its network mode is `none`"), "{found}");
    Ok(())
}

#[tokio::test]
async fn a_container_on_anothers_network_follows_it() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let service = engine.unique("lent");
    let host = host(&service);
    let network = engine.network("lent").await?;
    let lender = engine.run(Spec::sample("lender").network(&network)).await?;
    let borrower = engine.run(on_network(&service, &format!("container:{}", lender.name), 9000)).await?;
    edge.answers(&host, 200).await?;
    let address = lender.address_in(&network).await?.ip();
    explained(&edge.cli(), &borrower.name, &format!("{address}:9000 on the network `{}`", network.name)).await?;

    lender.stop(Duration::from_secs(5)).await?;
    edge.answers(&host, 503).await?;
    let found = problem(&edge.cli(), Code::NoAddress, &subject(&borrower)).await?;
    ensure!(found.reason.contains(&format!("on the network of `{}`, which is exited", lender.name)), "{found}");
    // Somebody else has its address when it comes back.
    let _other = engine.run(Spec::sample("other").network(&network)).await?;
    lender.start().await?;
    ensure!(lender.address_in(&network).await?.ip() != address, "it has the same address again");
    borrower.restart(Duration::from_secs(5)).await?;
    edge.answers(&host, 200).await?;
    Ok(())
}

#[tokio::test]
async fn an_envoy_on_no_network_of_theirs_uses_published_ports() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start_keyed(&engine, "reach: published", "{}").await?;
    let (open, shut) = (engine.unique("open"), engine.unique("shut"));
    let port = ports::free()?.port();
    let binding = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(port.to_string()) };
    let published = HashMap::from([("8080/tcp".to_owned(), Some(vec![binding]))]);
    let spec = backend(&open, "v1").host_config(|config| config.port_bindings = Some(published));
    let _container = engine.run(spec).await?;
    edge.answers(&host(&open), 200).await?;
    let endpoints = edge.envoy.endpoints(&format!("{open}/v1")).await?.context("endpoints")?;
    assert_eq!(endpoints.first().map(|endpoint| endpoint.address.as_str()), Some(&*format!("127.0.0.1:{port}")));

    let unpublished = engine.run(backend(&shut, "v1")).await?;
    let found = problem(&edge.cli(), Code::NoAddress, &subject(&unpublished)).await?;
    ensure!(
        found.reason.contains("its port 8080 is not published") && found.cure.contains("docker run -p 8080"),
        "{found}"
    );
    edge.answers(&host(&shut), 503).await?;
    Ok(())
}

#[tokio::test]
async fn two_networks_and_no_rule_give_one_answer_however_often() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let service = engine.unique("torn");
    let (front, back) = (engine.network("front").await?, engine.network("back").await?);
    let torn = engine.run(backend(&service, "v1").network(&front).network(&back)).await?;
    let first = problem(&edge.cli(), Code::AmbiguousNetwork, &subject(&torn)).await?;
    // Each is an event, and a look at what Docker tells of its networks, in an order of its own.
    for _ in 0..100 {
        torn.kill("SIGHUP").await?;
    }
    torn.restart(Duration::from_secs(5)).await?;
    let again = problem(&edge.cli(), Code::AmbiguousNetwork, &subject(&torn)).await?;
    assert_eq!(first, again);
    until(SOON, "no other answer", async || {
        let endpoints = edge.envoy.endpoints(&format!("{service}/v1")).await?.unwrap_or_default();
        ensure!(endpoints.is_empty(), "{endpoints:?}");
        Ok(())
    })
    .await
}
