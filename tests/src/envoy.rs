//! A real Envoy from a bootstrap text: checked, started, asked through its admin interface, ended on drop.

use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::{Answer, Endpoint, Request},
    namespace,
    poll::{self, SOON},
    process::{self, Process},
};

pub struct Envoy {
    /// Signal it, read its log.
    pub process: Process,
    admin: Endpoint,
    _directory: TempDir,
}

/// How to start it; [`Options::default`] is one worker, logging warnings.
#[derive(Debug, Clone)]
pub struct Options {
    pub concurrency: u32,
    pub log_level: String,
    /// Further arguments, as on the command line.
    pub arguments: Vec<String>,
    /// The network namespace that it runs in; its admin interface is reached by a unix socket then.
    pub namespace: Option<String>,
}

/// One endpoint of a cluster, as Envoy sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStatus {
    pub address: String,
    /// Healthy by EDS, by checks and by outlier detection.
    pub healthy: bool,
    pub weight: u64,
    /// Of requests and tries that it got: those that ended by a reset, a time-out or a 5xx.
    pub errors: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { concurrency: 1, log_level: "warning".to_owned(), arguments: Vec::new(), namespace: None }
    }
}

/// `TIDEGATE_ENVOY`, else what `make setup` chose, else the one in `PATH`.
pub fn locate() -> Result<PathBuf> {
    if let Some(path) = env::var_os("TIDEGATE_ENVOY").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "TIDEGATE_ENVOY={} is not a file", path.display());
        return Ok(path);
    }
    let chosen = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/envoy");
    if chosen.is_file() {
        return Ok(chosen);
    }
    let directories = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&directories).map(|directory| directory.join("envoy")).find(|path| path.is_file());
    found.context("there is no Envoy: run make setup")
}

/// Envoy's own opinion of a bootstrap, as of `--mode validate`.
pub async fn validate(bootstrap: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(locate()?);
    command.args(["--mode", "validate", "--log-level", "error", "-c"]).arg(write(&directory, bootstrap)?);
    process::output(command, SOON).await?.ok().context("Envoy refuses the bootstrap")?;
    Ok(())
}

/// What this key of the runtime holds in the Envoy with this admin interface; `None`: there is no such key.
pub async fn runtime(admin: &Endpoint, key: &str) -> Result<Option<String>> {
    let runtime = Request::get(admin, "/runtime?format=json").send().await?.json()?;
    Ok(runtime["entries"][key]["final_value"].as_str().map(ToOwned::to_owned))
}

/// The share of a service's canary, in basis points, by which the Envoy with this admin interface splits.
pub async fn weight(admin: &Endpoint, service: &str, canary: &str) -> Result<Option<u32>> {
    let value = runtime(admin, &format!("tg.{service}.{service}/{canary}+spill")).await?;
    Ok(value.and_then(|value| value.parse().ok()))
}

impl Envoy {
    pub async fn start(bootstrap: &str) -> Result<Self> {
        Self::start_with(bootstrap, &Options::default()).await
    }

    /// Starts it and waits until its admin interface answers. The bootstrap must have one, on loopback (port 0 will do) or
    /// on a unix socket.
    pub async fn start_with(bootstrap: &str, options: &Options) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let admin_file = directory.path().join("admin-address");
        let mut command = namespace::command(options.namespace.as_deref(), locate()?);
        // Without hot restart there is no shared memory, and so no base id to choose and nothing to leave behind.
        command.args(["--disable-hot-restart", "--concurrency", &options.concurrency.to_string()]);
        command.args(["--log-level", &options.log_level, "-c"]).arg(write(&directory, bootstrap)?);
        command.arg("--admin-address-path").arg(&admin_file).args(&options.arguments);
        let mut process = Process::spawn("envoy", &mut command, directory.path())?;
        let admin = process.until(SOON, "its admin address", async || admin_address(&admin_file)).await?;
        Ok(Self { process, admin, _directory: directory })
    }

    /// Waits until it is live: the first clusters and listeners have come, from wherever it gets them.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let admin = &self.admin;
        let probe = async || {
            let answer = Request::get(admin, "/ready").send().await?;
            ensure!(answer.status == 200, "{}", answer.text().trim());
            Ok(())
        };
        self.process.until(limit, "Envoy to be live", probe).await
    }

    pub fn admin(&self) -> &Endpoint {
        &self.admin
    }

    /// Of the admin interface.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        let answer = Request::get(&self.admin, path).send().await?;
        ensure!(answer.status == 200, "GET {path}: {} {}", answer.status, answer.text());
        Ok(answer)
    }

    pub async fn post(&self, path: &str) -> Result<Answer> {
        let answer = Request::post(&self.admin, path, "").send().await?;
        ensure!(answer.status == 200, "POST {path}: {} {}", answer.status, answer.text());
        Ok(answer)
    }

    pub async fn config_dump(&self) -> Result<Value> {
        self.get("/config_dump?include_eds").await?.json()
    }

    pub async fn clusters(&self) -> Result<Value> {
        self.get("/clusters?format=json").await?.json()
    }

    /// The endpoints of a cluster, or None if there is no such cluster.
    pub async fn endpoints(&self, cluster: &str) -> Result<Option<Vec<EndpointStatus>>> {
        let clusters = self.clusters().await?;
        let statuses = clusters["cluster_statuses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let Some(status) = statuses.iter().find(|status| status["name"] == cluster) else { return Ok(None) };
        let hosts = status["host_statuses"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(Some(hosts.iter().map(endpoint_status).collect()))
    }

    /// Waits until this is the [`weight`] of a service's canary.
    pub async fn weighs(&self, service: &str, canary: &str, basis_points: u32) -> Result<()> {
        poll::until(SOON, &format!("{service}/{canary} to weigh {basis_points} in Envoy"), async || {
            let weight = weight(&self.admin, service, canary).await?;
            ensure!(weight == Some(basis_points), "it is {weight:?}");
            Ok(())
        })
        .await
    }

    /// Waits until just these addresses are healthy endpoints of a cluster.
    pub async fn serves(&self, cluster: &str, addresses: &[SocketAddr]) -> Result<()> {
        let mut expected: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        expected.sort_unstable();
        poll::until(SOON, &format!("{expected:?} in {cluster}"), async || {
            let endpoints = self.endpoints(cluster).await?.unwrap_or_default();
            let healthy = endpoints.into_iter().filter(|endpoint| endpoint.healthy);
            let mut addresses: Vec<String> = healthy.map(|endpoint| endpoint.address).collect();
            addresses.sort_unstable();
            ensure!(addresses == expected, "{addresses:?}");
            Ok(())
        })
        .await
    }

    /// Counters and gauges whose names match the regular expression.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>> {
        let filter = filter.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        let stats = self.get(&format!("/stats?format=json&filter={filter}")).await?.json()?;
        let stats = stats["stats"].as_array().cloned().unwrap_or_default();
        let pair = |stat: &Value| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?));
        Ok(stats.iter().filter_map(pair).collect())
    }

    /// One counter or gauge, by its exact name; 0 as long as Envoy has not used it.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.stats(&format!("^{}$", name.replace('.', "\\."))).await?;
        Ok(stats.get(name).copied().unwrap_or_default())
    }

    /// Where a listener listens, which the bootstrap need not know; waits until it does.
    pub async fn listener(&self, name: &str) -> Result<SocketAddr> {
        poll::until(SOON, &format!("listener {name}"), async || {
            let listeners = self.get("/listeners?format=json").await?.json()?;
            let statuses = listeners["listener_statuses"].as_array().cloned().unwrap_or_default();
            let listener = statuses.iter().find(|status| status["name"] == name).context("no such listener")?;
            let address = &listener["local_address"]["socket_address"];
            let (Some(ip), Some(port)) = (address["address"].as_str(), address["port_value"].as_u64()) else {
                bail!("not a TCP listener: {listener}");
            };
            ensure!(port != 0, "not listening yet");
            Ok(SocketAddr::new(ip.parse()?, u16::try_from(port)?))
        })
        .await
    }
}

fn write(directory: &TempDir, bootstrap: &str) -> Result<PathBuf> {
    let path = directory.path().join("bootstrap.yaml");
    fs::write(&path, bootstrap)?;
    Ok(path)
}

/// Envoy writes the file once it listens: `IP:PORT` or a path.
fn admin_address(file: &Path) -> Result<Endpoint> {
    let text = fs::read_to_string(file).context("no admin address yet; has the bootstrap an admin section?")?;
    let text = text.trim();
    ensure!(!text.is_empty(), "no admin address yet");
    Ok(match text.parse() {
        Ok(address) => Endpoint::Tcp(address),
        Err(_) => Endpoint::Unix(PathBuf::from(text)),
    })
}

fn endpoint_status(host: &Value) -> EndpointStatus {
    let address = &host["address"]["socket_address"];
    let health = &host["health_status"];
    let flags = health.as_object().into_iter().flatten();
    // Beside eds_health_status, every member names a reason against the host.
    let stats = host["stats"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors = stats.iter().find(|stat| stat["name"] == "rq_error");
    let accused = flags.filter(|(name, _)| *name != "eds_health_status").any(|(_, flag)| flag == true);
    EndpointStatus {
        address: format!("{}:{}", address["address"].as_str().unwrap_or_default(), address["port_value"]),
        healthy: !accused && health["eds_health_status"].as_str().is_none_or(|health| health == "HEALTHY"),
        weight: host["weight"].as_u64().unwrap_or_default(),
        // Numbers of 64 bits are texts there, and a zero may be left out.
        errors: errors.and_then(|stat| stat["value"].as_str()?.parse().ok()).unwrap_or_default(),
    }
}
