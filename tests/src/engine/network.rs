//! Networks of a run.

use std::{collections::HashMap, net::IpAddr};

use anyhow::{Context, Result};
use bollard::models::{
    EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};

use super::{Container, Engine};
use crate::run::LABEL;

#[derive(Clone)]
pub struct Network {
    pub id: String,
    /// With the run's prefix.
    pub name: String,
    pub(super) engine: Engine,
}

impl Network {
    pub(super) async fn create(engine: &Engine, name: &str) -> Result<Self> {
        Self::create_with(engine, name, NetworkCreateRequest::default()).await
    }

    /// Of four addresses a /30 keeps one for itself, one for the broadcast and one for the gateway.
    pub(super) async fn create_of_one(engine: &Engine, name: &str) -> Result<Self> {
        // Where it overlaps another network the next one is tried.
        let seed = std::process::id();
        let mut refused = None;
        for attempt in 0..64 {
            let number = seed.wrapping_mul(61).wrapping_add(attempt * 17) % 0x4000;
            let [high, low] = [number >> 6, (number & 0x3f) * 4];
            let ipam = Some(pool(&format!("10.213.{high}.{low}/30"), None));
            let request = NetworkCreateRequest { ipam, ..Default::default() };
            match Self::create_with(engine, name, request).await {
                Ok(network) => return Ok(network),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.context("no attempt was made")?)
    }

    /// With IPv6 addresses beside those of IPv4, which engines before 28 always give.
    pub(super) async fn create_v6(engine: &Engine, name: &str) -> Result<Self> {
        // Unique local addresses are drawn by chance (RFC 4193); the process is one.
        let subnet = format!("fd0d:{:x}:{:x}::/64", std::process::id() >> 16, std::process::id() & 0xffff);
        let ipam = Some(pool(&subnet, None));
        Self::create_with(engine, name, NetworkCreateRequest { enable_ipv6: Some(true), ipam, ..Default::default() })
            .await
    }

    /// Macvlan on this device.
    pub(super) async fn create_macvlan(
        engine: &Engine,
        name: &str,
        parent: &str,
        subnet: &str,
        gateway: IpAddr,
    ) -> Result<Self> {
        let request = NetworkCreateRequest {
            driver: Some("macvlan".to_owned()),
            options: Some(HashMap::from([("parent".to_owned(), parent.to_owned())])),
            ipam: Some(pool(subnet, Some(gateway))),
            ..Default::default()
        };
        Self::create_with(engine, name, request).await
    }

    async fn create_with(engine: &Engine, name: &str, request: NetworkCreateRequest) -> Result<Self> {
        let name = engine.unique(name);
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: request.driver.or_else(|| Some("bridge".to_owned())),
            labels: Some(HashMap::from([(LABEL.to_owned(), engine.run_id().to_owned())])),
            ..request
        };
        let created =
            engine.docker().create_network(request).await.with_context(|| format!("create network {name}"))?;
        Ok(Self { id: created.id, name, engine: engine.clone() })
    }

    pub async fn connect(&self, container: &Container) -> Result<()> {
        self.connect_as(container, &[]).await
    }

    /// With names of its own in this network.
    pub async fn connect_as(&self, container: &Container, aliases: &[&str]) -> Result<()> {
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        let request = NetworkConnectRequest {
            container: container.id.clone(),
            endpoint_config: Some(EndpointSettings { aliases: Some(aliases), ..Default::default() }),
        };
        self.engine.docker().connect_network(&self.id, request).await.with_context(|| format!("connect {}", self.name))
    }

    pub async fn disconnect(&self, container: &Container) -> Result<()> {
        let request = NetworkDisconnectRequest { container: container.id.clone(), force: Some(true) };
        let done = self.engine.docker().disconnect_network(&self.id, request).await;
        done.with_context(|| format!("disconnect {}", self.name))
    }

    /// Fails while containers are connected.
    pub async fn remove(self) -> Result<()> {
        self.engine.docker().remove_network(&self.id).await.with_context(|| format!("remove network {}", self.name))
    }
}

fn pool(subnet: &str, gateway: Option<IpAddr>) -> Ipam {
    let gateway = gateway.map(|gateway| gateway.to_string());
    let config = IpamConfig { subnet: Some(subnet.to_owned()), gateway, ..Default::default() };
    Ipam { config: Some(vec![config]), ..Default::default() }
}
