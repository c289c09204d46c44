//! Bridge networks of a run.

use std::collections::HashMap;

use anyhow::{Context, Result};
use bollard::models::{EndpointSettings, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};

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
        let name = engine.unique(name);
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(HashMap::from([(LABEL.to_owned(), engine.run_id().to_owned())])),
            ..Default::default()
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
