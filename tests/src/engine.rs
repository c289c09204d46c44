//! A Docker engine as the tests use it: the running one or a private one. Every container and network that is made through
//! an [`Engine`] carries its run's label and is removed when the last handle of it is dropped, also by a panic.

mod container;
mod image;
mod network;

use std::{
    collections::HashMap,
    env,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bollard::{
    ClientVersion, Docker,
    query_parameters::{ListContainersOptions, ListNetworksOptions, RemoveContainerOptions},
};
use tokio::time::timeout;

pub use container::{Container, PORT, Spec};
pub use network::Network;

use crate::{
    docker_proxy::Guard,
    private_engine,
    run::{self, LABEL, RunId},
};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Removing must not hang a test run whose engine hangs.
const CLEANUP: Duration = Duration::from_secs(60);

/// Seconds; the slowest call is stopping a container that ignores SIGTERM.
const CALL: u64 = 120;

/// Cheap to clone; all clones are one run.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    docker: Docker,
    socket: PathBuf,
    run: RunId,
    /// `None`: tidegate asks the engine itself.
    guard: Option<Guard>,
}

impl Engine {
    /// The engine that runs on this machine. Removes first what dead test runs left behind there.
    pub async fn connect() -> Result<Self> {
        let socket = running_socket()?;
        run::sweep_processes();
        private_engine::sweep();
        let docker = connect(&socket).await.context("no Docker engine answers: run make setup")?;
        let guard = Some(Guard::before(&socket)?);
        let engine = Self(Arc::new(Inner { docker, socket, run: RunId::new(), guard }));
        sweep(&engine.0.docker).await;
        Ok(engine)
    }

    /// The engine behind this socket. tidegate asks it itself, for tests of what it says when that fails.
    pub async fn at(socket: &Path) -> Result<Self> {
        let docker = connect(socket).await?;
        Ok(Self(Arc::new(Inner { docker, socket: socket.to_owned(), run: RunId::new(), guard: None })))
    }

    pub fn docker(&self) -> &Docker {
        &self.0.docker
    }

    pub fn socket(&self) -> &Path {
        &self.0.socket
    }

    /// As tidegate's `providers.docker.endpoint` takes it. What is asked of the engine of this machine goes through a proxy that
    /// refuses all that the rule that we ship does not allow.
    pub fn endpoint(&self) -> String {
        self.0.guard.as_ref().map_or_else(|| self.direct(), Guard::endpoint)
    }

    /// The engine without a proxy before it.
    pub fn direct(&self) -> String {
        format!("unix://{}", self.0.socket.display())
    }

    /// The requests that were refused at [`Self::endpoint`].
    pub fn refused(&self) -> Vec<String> {
        self.0.guard.as_ref().map(Guard::refused).unwrap_or_default()
    }

    /// A name that no other run has, ending in `name`.
    pub fn unique(&self, name: &str) -> String {
        format!("tgt-{}-{name}", self.0.run.short())
    }

    /// What everything of this run is labelled with: [`LABEL`] and this.
    pub fn run_id(&self) -> &str {
        self.0.run.as_str()
    }

    /// The sample backend's image, built `FROM scratch` if this engine does not have it.
    pub async fn sample_image(&self) -> Result<String> {
        image::sample(self.docker()).await
    }

    /// That of the one that speaks HTTP/2, built in the same way.
    pub async fn sample_h2_image(&self) -> Result<String> {
        image::sample_h2(self.docker()).await
    }

    /// A bridge network of the user's own; its name is made unique.
    pub async fn network(&self, name: &str) -> Result<Network> {
        Network::create(self, name).await
    }

    /// A bridge network that has one address to give away.
    pub async fn network_of_one(&self, name: &str) -> Result<Network> {
        Network::create_of_one(self, name).await
    }

    /// A bridge network with IPv6.
    pub async fn network_v6(&self, name: &str) -> Result<Network> {
        Network::create_v6(self, name).await
    }

    /// A macvlan network on a device of this machine, with its addresses and the gateway among them.
    pub async fn macvlan(&self, name: &str, parent: &str, subnet: &str, gateway: IpAddr) -> Result<Network> {
        Network::create_macvlan(self, name, parent, subnet, gateway).await
    }

    pub async fn create(&self, spec: Spec) -> Result<Container> {
        Container::create(self, spec).await
    }

    /// Creates and starts it: `docker run -d`.
    pub async fn run(&self, spec: Spec) -> Result<Container> {
        let container = self.create(spec).await?;
        container.start().await?;
        Ok(container)
    }

    /// Removes everything of this run now, rather than on drop.
    pub async fn clean(&self) -> Result<()> {
        remove_all(self.docker(), Some(self.run_id())).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        remove_blocking(&self.socket, Some(self.run.as_str()));
    }
}

/// Removes what is labelled with the run's id, or everything if none is given, by a thread with a runtime and a connection
/// of its own: the caller's may be gone, or blocked by the very drop that this is called from.
pub(crate) fn remove_blocking(socket: &Path, run: Option<&str>) {
    if !socket.exists() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            let removal = async { remove_all(&connect(socket).await?, run).await };
            // What is left the next run sweeps.
            let _ = runtime.block_on(async { timeout(CLEANUP, removal).await });
        });
    });
}

async fn connect(socket: &Path) -> Result<Docker> {
    let path = socket.to_str().context("a socket's path is UTF-8")?;
    // The oldest version that every engine we support speaks, and for engines that dropped it the oldest they speak.
    let mut last = None;
    for minor_version in [41, 44] {
        let docker = Docker::connect_with_unix(path, CALL, &ClientVersion { major_version: 1, minor_version })?;
        match timeout(Duration::from_secs(10), docker.version()).await {
            Ok(Ok(_)) => return Ok(docker),
            Ok(Err(error)) => last = Some(error),
            Err(_) => bail!("the engine at {path} does not answer"),
        }
    }
    Err(last.context("no version was tried")?).with_context(|| format!("the engine at {path}"))
}

fn running_socket() -> Result<PathBuf> {
    match env::var("DOCKER_HOST") {
        Err(_) => Ok(DEFAULT_SOCKET.into()),
        Ok(host) if host.is_empty() => Ok(DEFAULT_SOCKET.into()),
        Ok(host) => match host.strip_prefix("unix://") {
            Some(path) => Ok(path.into()),
            None => bail!("DOCKER_HOST={host} is not on this machine: the tests reach containers by their addresses"),
        },
    }
}

/// Removes the containers and networks of runs whose processes are gone. What cannot be removed stays for the next one.
async fn sweep(docker: &Docker) {
    let mut ids: Vec<String> = Vec::new();
    let containers = ListContainersOptions { all: true, filters: Some(label_filter(LABEL)), ..Default::default() };
    for container in docker.list_containers(Some(containers)).await.unwrap_or_default() {
        ids.extend(container.labels.unwrap_or_default().remove(LABEL));
    }
    let networks = ListNetworksOptions { filters: Some(label_filter(LABEL)) };
    for network in docker.list_networks(Some(networks)).await.unwrap_or_default() {
        ids.extend(network.labels.unwrap_or_default().remove(LABEL));
    }
    ids.sort_unstable();
    ids.dedup();
    for id in ids.iter().filter(|id| run::is_dead(id)) {
        let _ = remove_all(docker, Some(id)).await;
    }
}

/// Containers first: a network with containers cannot be removed. Goes on after a failure and reports the first.
async fn remove_all(docker: &Docker, run: Option<&str>) -> Result<()> {
    let filter = run.map(|id| label_filter(&format!("{LABEL}={id}")));
    let options = ListContainersOptions { all: true, filters: filter.clone(), ..Default::default() };
    let mut failures = Vec::new();
    let containers = docker.list_containers(Some(options)).await?;
    let removals = containers.iter().filter_map(|container| container.id.as_deref()).map(|id| remove(docker, id));
    failures.extend(futures_util::future::join_all(removals).await.into_iter().filter_map(Result::err));
    let filter = filter.unwrap_or_else(|| HashMap::from([("type".to_owned(), vec!["custom".to_owned()])]));
    for network in docker.list_networks(Some(ListNetworksOptions { filters: Some(filter) })).await? {
        if let Some(id) = network.id
            && let Err(error) = docker.remove_network(&id).await
            && !is_gone(&error)
        {
            failures.push(error.into());
        }
    }
    failures.into_iter().next().map_or(Ok(()), Err)
}

async fn remove(docker: &Docker, container: &str) -> Result<()> {
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    match docker.remove_container(container, Some(options)).await {
        Err(error) if !is_gone(&error) => Err(error).with_context(|| format!("remove container {container}")),
        _ => Ok(()),
    }
}

/// No such thing, or its removal is already under way: both are what was wanted.
fn is_gone(error: &bollard::errors::Error) -> bool {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code: 404, .. } => true,
        bollard::errors::Error::DockerResponseServerError { status_code: 409, message } => {
            message.contains("already in progress")
        }
        _ => false,
    }
}

fn label_filter(label: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([("label".to_owned(), vec![label.to_owned()])])
}
