//! A canary under trial at an edge: what stops it there, who chooses it, who is given a cookie, what is copied to it. Real dockerd,
//! real Envoy, the real `.wasm`.

mod breaker;
mod calls;
mod choice;
mod copies;
mod cookies;
mod reports;

use anyhow::Result;
use tidegate_filter_core::{BUCKETS, bucket, pick};
use tidegate_tests::{
    client::{Answer, Request},
    edge::{Edge, backend, host},
    engine::{Container, Engine},
    poll::{SOON, until},
};

/// A service with v1 stable and v2 the canary, a container of each.
struct Trial {
    edge: Edge,
    engine: Engine,
    service: String,
    _stable: Container,
    canary: Container,
}

impl Trial {
    /// `canary` is what the configuration says of it besides its version, in one line.
    async fn start(name: &str, canary: &str, concurrency: u32) -> Result<Self> {
        let engine = Engine::connect().await?;
        let service = engine.unique(name);
        let edge = Edge::start_on(&engine, &declared(&service, canary), &[], concurrency).await?;
        let (stable, canary) = (engine.run(backend(&service, "v1")).await?, engine.run(backend(&service, "v2")).await?);
        let trial = Self { edge, engine, service, _stable: stable, canary };
        for version in ["v1", "v2"] {
            trial.edge.healthy(&trial.cluster(version), 1).await?;
        }
        Ok(trial)
    }

    fn declare(&self, canary: &str) -> Result<()> {
        self.edge.declare(&declared(&self.service, canary))
    }

    async fn weighs(&self, basis_points: u32) -> Result<()> {
        self.edge.weighs(&self.service, "v2", basis_points).await
    }

    fn host(&self) -> String {
        host(&self.service)
    }

    fn cluster(&self, version: &str) -> String {
        format!("{}/{version}", self.service)
    }

    fn get(&self, path: &str) -> Request {
        Request::get(self.edge.listener, path).host(&self.host())
    }

    /// `GET /` with this header.
    async fn with(&self, header: &str, value: &str) -> Result<Answer> {
        self.get("/").header(header, value).send().await
    }

    /// A counter, or a gauge, of the filter's for the service.
    async fn counted(&self, name: &str) -> Result<u64> {
        self.edge.envoy.stat(&format!("wasmcustom.tidegate.service.{}.{name}", self.service)).await
    }

    async fn counts(&self, name: &str, count: u64) -> Result<()> {
        until(SOON, &format!("{name} = {count}"), async || {
            let counted = self.counted(name).await?;
            anyhow::ensure!(counted == count, "it is {counted}");
            Ok(())
        })
        .await
    }

    /// Whether a key is the canary's at this weight.
    fn is_canarys(&self, key: &str, basis_points: u32) -> bool {
        pick(&[BUCKETS - basis_points, basis_points], bucket(&self.service, "v2", key.as_bytes())) == Some(1)
    }

    /// So many keys of the canary's at this weight.
    fn canarys(&self, keys: usize, basis_points: u32) -> Vec<String> {
        (0..).map(|n| format!("key-{n}")).filter(|key| self.is_canarys(key, basis_points)).take(keys).collect()
    }

    /// How many answers it took to its clients (not to checks) a version's container says it gave.
    async fn served(container: &Container) -> Result<u64> {
        Ok(container.get("/control").await?.json()?["requests"].as_u64().unwrap_or_default())
    }
}

fn declared(service: &str, canary: &str) -> String {
    format!("{{ \"{service}\": {{ stable: {{ version: v1 }}, canary: {{ version: v2, {canary} }} }} }}")
}

/// The affinity of tests: the header, and nothing without it.
const BY_USER: &str = "sessionAffinity: { hashOn: [ { header: X-User } ] }";
