//! Containers: what to create, and everything that can happen to one.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bollard::{
    models::{
        ContainerCreateBody, ContainerInspectResponse, EndpointSettings, HealthConfig, HealthStatusEnum, HostConfig,
        NetworkingConfig,
    },
    query_parameters::{
        CreateContainerOptions, KillContainerOptions, LogsOptions, RestartContainerOptions, StopContainerOptions,
    },
};
use futures_util::StreamExt;

use super::{Engine, Network, remove};
use crate::{
    client::{Answer, Request, control},
    poll::{self, SOON},
    run::LABEL,
};

/// Where the sample backend listens unless told otherwise.
pub const PORT: u16 = 8080;

/// A container to be. The methods set what is common; `body` is the whole of Docker's request, for everything else.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// Made unique by the run's prefix.
    pub name: String,
    /// No image means the sample backend's.
    pub body: ContainerCreateBody,
    /// Id and aliases; none means Docker's default bridge.
    pub networks: Vec<(String, Vec<String>)>,
}

#[derive(Clone)]
pub struct Container {
    pub id: String,
    /// With the run's prefix.
    pub name: String,
    engine: Engine,
}

impl Spec {
    /// The sample backend; version `v1` of service `sample`, as it says of itself, unless its environment differs.
    pub fn sample(name: &str) -> Self {
        Self { name: name.to_owned(), ..Default::default() }
    }

    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.body.labels.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        self
    }

    /// See the sample backend's `--help`.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.body.env.get_or_insert_default().push(format!("{name}={value}"));
        self
    }

    /// What the sample backend says of itself; no label.
    pub fn version(self, version: &str) -> Self {
        self.env("VERSION", version)
    }

    pub fn network(self, network: &Network) -> Self {
        self.network_as(network, &[])
    }

    pub fn network_as(mut self, network: &Network, aliases: &[&str]) -> Self {
        self.networks.push((network.id.clone(), aliases.iter().map(|alias| (*alias).to_owned()).collect()));
        self
    }

    /// A HEALTHCHECK of the sample backend's `/health`, so often; three failures in a row make it unhealthy.
    pub fn healthcheck(mut self, interval: Duration) -> Self {
        let nanos = i64::try_from(interval.as_nanos()).unwrap_or(i64::MAX);
        let test = ["CMD", "/tidegate-sample", "healthcheck"].map(str::to_owned).to_vec();
        let timeout = Some(3_000_000_000);
        self.body.healthcheck = Some(HealthConfig {
            test: Some(test),
            interval: Some(nanos),
            timeout,
            retries: Some(3),
            ..Default::default()
        });
        self
    }

    pub fn host_config(mut self, change: impl FnOnce(&mut HostConfig)) -> Self {
        change(self.body.host_config.get_or_insert_default());
        self
    }
}

impl Container {
    pub(super) async fn create(engine: &Engine, spec: Spec) -> Result<Self> {
        let Spec { name, mut body, networks } = spec;
        let name = engine.unique(&name);
        if body.image.is_none() {
            body.image = Some(engine.sample_image().await?);
        }
        body.labels.get_or_insert_default().insert(LABEL.to_owned(), engine.run_id().to_owned());
        // Engines before API 1.44 take only one network here; the others follow before the container starts.
        let mut networks = networks.into_iter();
        if let Some((network, aliases)) = networks.next() {
            body.host_config.get_or_insert_default().network_mode = Some(network.clone());
            let endpoint = EndpointSettings { aliases: Some(aliases), ..Default::default() };
            body.networking_config =
                Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network, endpoint)])) });
        }
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        let created = engine.docker().create_container(Some(options), body).await;
        let id = created.with_context(|| format!("create container {name}"))?.id;
        let container = Self { id, name, engine: engine.clone() };
        for (network, aliases) in networks {
            let network = Network { id: network.clone(), name: network, engine: engine.clone() };
            network.connect_as(&container, &aliases.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        Ok(container)
    }

    pub async fn start(&self) -> Result<()> {
        self.docker().start_container(&self.id, None).await.with_context(|| format!("start {}", self.name))
    }

    /// SIGTERM, and SIGKILL if it has not ended within `grace` (whole seconds); returns when it has ended.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        let options = StopContainerOptions { t: Some(seconds(grace)), ..Default::default() };
        self.docker().stop_container(&self.id, Some(options)).await.with_context(|| format!("stop {}", self.name))
    }

    pub async fn restart(&self, grace: Duration) -> Result<()> {
        let options = RestartContainerOptions { t: Some(seconds(grace)), ..Default::default() };
        self.docker().restart_container(&self.id, Some(options)).await.with_context(|| format!("restart {}", self.name))
    }

    /// A signal by its name: `SIGKILL`, `SIGTERM`.
    pub async fn kill(&self, signal: &str) -> Result<()> {
        let options = KillContainerOptions { signal: signal.to_owned() };
        self.docker()
            .kill_container(&self.id, Some(options))
            .await
            .with_context(|| format!("{signal} to {}", self.name))
    }

    pub async fn pause(&self) -> Result<()> {
        self.docker().pause_container(&self.id).await.with_context(|| format!("pause {}", self.name))
    }

    pub async fn unpause(&self) -> Result<()> {
        self.docker().unpause_container(&self.id).await.with_context(|| format!("unpause {}", self.name))
    }

    /// `docker rm -f`; no error if it is gone.
    pub async fn remove(&self) -> Result<()> {
        remove(self.docker(), &self.id).await
    }

    pub async fn inspect(&self) -> Result<ContainerInspectResponse> {
        self.docker().inspect_container(&self.id, None).await.with_context(|| format!("inspect {}", self.name))
    }

    pub async fn is_running(&self) -> Result<bool> {
        Ok(self.inspect().await?.state.and_then(|state| state.running).unwrap_or_default())
    }

    /// Its exit code, once it has ended.
    pub async fn exit_code(&self, limit: Duration) -> Result<i64> {
        poll::until(limit, &format!("the end of {}", self.name), async || {
            let state = self.inspect().await?.state.context("no state")?;
            ensure!(state.running == Some(false), "it is {:?}", state.status);
            state.exit_code.context("no exit code")
        })
        .await
    }

    /// Waits until Docker calls it healthy.
    pub async fn healthy(&self) -> Result<()> {
        self.health(HealthStatusEnum::HEALTHY).await
    }

    pub async fn unhealthy(&self) -> Result<()> {
        self.health(HealthStatusEnum::UNHEALTHY).await
    }

    async fn health(&self, wanted: HealthStatusEnum) -> Result<()> {
        poll::until(SOON, &format!("{} to be {wanted}", self.name), async || {
            let health = self.inspect().await?.state.and_then(|state| state.health).context("it has no HEALTHCHECK")?;
            ensure!(
                health.status == Some(wanted),
                "{:?}, last check {:?}",
                health.status,
                health.log.unwrap_or_default().last()
            );
            Ok(())
        })
        .await
    }

    /// Its address in the network it has, or in any of several.
    pub async fn address(&self) -> Result<SocketAddr> {
        let networks = self.networks().await?;
        let ip = networks.values().find_map(ip).with_context(|| format!("{} has no address", self.name))?;
        Ok(SocketAddr::new(ip, PORT))
    }

    pub async fn address_in(&self, network: &Network) -> Result<SocketAddr> {
        let networks = self.networks().await?;
        let ip = networks.get(&network.name).and_then(ip);
        Ok(SocketAddr::new(ip.with_context(|| format!("{} has no address in {}", self.name, network.name))?, PORT))
    }

    /// Its IPv6 address there.
    pub async fn ipv6_in(&self, network: &Network) -> Result<Ipv6Addr> {
        let networks = self.networks().await?;
        let ip = networks.get(&network.name).and_then(|endpoint| endpoint.global_ipv6_address.as_deref()?.parse().ok());
        ip.with_context(|| format!("{} has no IPv6 address in {}", self.name, network.name))
    }

    /// Asks the sample backend itself, not through Envoy.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        Request::get(self.address().await?, path).send().await
    }

    /// Switches the sample backend's behaviour: `ready=false&errors=50`.
    pub async fn control(&self, query: &str) -> Result<()> {
        control(self.address().await?, query).await
    }

    /// Waits until the sample backend says that it is ready.
    pub async fn ready(&self) -> Result<()> {
        poll::until(SOON, &format!("{} to be ready", self.name), async || {
            let answer = self.get("/ready").await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        })
        .await
    }

    /// What it has written so far.
    pub async fn logs(&self) -> Result<String> {
        let options = LogsOptions { stdout: true, stderr: true, ..Default::default() };
        let mut lines = std::pin::pin!(self.docker().logs(&self.id, Some(options)));
        let mut text = String::new();
        while let Some(line) = lines.next().await {
            text.push_str(&line?.to_string());
        }
        Ok(text)
    }

    async fn networks(&self) -> Result<HashMap<String, EndpointSettings>> {
        let settings = self.inspect().await?.network_settings;
        settings.and_then(|settings| settings.networks).with_context(|| format!("{} has no networks", self.name))
    }

    fn docker(&self) -> &bollard::Docker {
        self.engine.docker()
    }
}

/// Docker writes an empty address for a container that does not run.
fn ip(endpoint: &EndpointSettings) -> Option<IpAddr> {
    endpoint.ip_address.as_deref()?.parse().ok()
}

fn seconds(grace: Duration) -> i32 {
    i32::try_from(grace.as_secs()).unwrap_or(i32::MAX)
}
