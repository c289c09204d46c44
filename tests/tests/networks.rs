//! Networks that need more of a machine than a bridge: IPv6, and macvlan on a device that the test made. Real dockerd, real Envoy;
//! where the engine here cannot make what newer ones can, the fake one shows it, over addresses that a real container has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use anyhow::{Context, Result, ensure};
use bollard::models::PortBinding;
use tidegate_fake_docker::FakeDocker;
use tidegate_tests::{
    client::SERVED_BY,
    edge::{Edge, backend, host},
    engine::{Container, Engine, PORT, Spec},
    namespace::Namespace,
    poll::{SOON, until},
    ports,
};

/// Waits until this very container answers, and gives the addresses that Envoy has for it.
async fn answered_by(edge: &Edge, service: &str, container: &Container) -> Result<Vec<String>> {
    let answer = edge.answers(&host(service), 200).await?;
    let by = answer.header(SERVED_BY).context("a name")?;
    ensure!(by.ends_with(&container.id[..12]), "answered by {by}, not {}", container.id);
    let endpoints = edge.envoy.endpoints(&format!("{service}/v1")).await?.context("endpoints")?;
    Ok(endpoints.into_iter().map(|endpoint| endpoint.address).collect())
}

/// The sample backend, at all addresses of both families.
fn of_both(service: &str) -> Spec {
    backend(service, "v1").env("ADDRESS", "::")
}

#[tokio::test]
async fn on_a_network_with_both_families_ipv4_is_used() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("both");
    let network = engine.network_v6("both").await?;
    let edge = Edge::start(&engine, "{}").await?;
    let container = engine.run(of_both(&service).network(&network)).await?;
    container.ipv6_in(&network).await?;
    let addresses = answered_by(&edge, &service, &container).await?;
    assert_eq!(addresses, [container.address_in(&network).await?.to_string()]);
    Ok(())
}

#[tokio::test]
async fn a_port_that_is_published_on_ipv6_alone_is_reached_there() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("six");
    let edge = Edge::start_keyed(&engine, "reach: published", "{}").await?;
    let port = ports::free()?.port();
    let binding = PortBinding { host_ip: Some("::1".to_owned()), host_port: Some(port.to_string()) };
    let published = HashMap::from([(format!("{PORT}/tcp"), Some(vec![binding]))]);
    let container = engine.run(of_both(&service).host_config(|config| config.port_bindings = Some(published))).await?;
    let addresses = answered_by(&edge, &service, &container).await?;
    // As Envoy's admin interface writes address and port.
    assert_eq!(addresses, [format!("::1:{port}")]);
    Ok(())
}

/// Engines before 28 give every container of a network an IPv4 address, too: so a real container has the address, and the fake
/// engine says that it has no other.
#[tokio::test]
async fn a_container_that_has_only_an_ipv6_address_is_reached_there() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("only");
    let network = engine.network_v6("only").await?;
    let container = engine.run(of_both(&service).network(&network)).await?;
    let address = container.ipv6_in(&network).await?;

    let mut fake = FakeDocker::new();
    fake.engine().image("fake", &[]);
    fake.engine().create_network("six");
    fake.listen();
    let edge = Edge::start_at(&fake.endpoint(), "{}", &[], 2).await?;
    let (host, port) = (host(&service), PORT.to_string());
    let labels = [
        ("tidegate.enable", "true"),
        ("tidegate.service", service.as_str()),
        ("tidegate.version", "v1"),
        ("tidegate.host", &host),
        ("tidegate.port", &port),
    ];
    let spec = tidegate_fake_docker::Spec {
        network_mode: "six".to_owned(),
        ipv6: Some(address),
        ..tidegate_fake_docker::Spec::new("only", &labels)
    };
    let id = fake.engine().run(spec);
    let addresses = answered_by(&edge, &service, &container).await?;
    assert_eq!(addresses, [format!("{address}:{PORT}")]);
    fake.engine().remove(&id);
    edge.answers(&host, 404).await?;
    Ok(())
}

#[tokio::test]
async fn a_container_on_macvlan_is_reached_by_an_envoy_that_has_a_way_there() -> Result<()> {
    let engine = Engine::connect().await?;
    let namespace = Namespace::create()?;
    // A range of its own for each namespace, as theirs.
    let IpAddr::V4(inside) = namespace.address() else { anyhow::bail!("an IPv4 address") };
    let number = inside.octets()[2];
    let (subnet, gateway) = (format!("10.252.{number}.0/24"), IpAddr::from(Ipv4Addr::new(10, 252, number, 1)));
    namespace.route(&subnet, gateway)?;
    let network = engine.macvlan("lan", &namespace.device(), &subnet, gateway).await?;
    let service = engine.unique("lan");
    let edge = Edge::start(&engine, "{}").await?;
    let container = engine.run(backend(&service, "v1").network(&network)).await?;
    let address = container.address_in(&network).await?;
    let addresses = answered_by(&edge, &service, &container).await?;
    assert_eq!(addresses, [address.to_string()]);

    // It does not go by way of the host's own stack: with the cable cut nothing gets there, and its check says so.
    namespace.cut()?;
    edge.answers(&host(&service), 503).await?;
    namespace.heal()?;
    edge.answers(&host(&service), 200).await?;
    // As on a bridge, an end is an event.
    container.remove().await?;
    until(SOON, "no route any more", async || {
        let status = edge.get(&host(&service)).await?.status;
        ensure!(status == 404, "status {status}");
        Ok(())
    })
    .await?;
    engine.clean().await
}
