//! An edge as a user has it: a control plane on free ports and an Envoy with tidegate's bootstrap, over an engine whose
//! containers it serves, or over files of instances, which may be [`Local`] ones, without any engine.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    client::{Answer, Request, control},
    engine::{Engine, Spec},
    envoy::{Envoy, Options},
    load::{Ask, Load, Report},
    namespace::{self, Namespace},
    poll::{SOON, until},
    ports,
    process::Process,
    tidegate::{self, Cli, Tidegate},
};

/// A container of one version of a service on `SERVICE.localhost`, whose `/ready` is checked every 200 ms.
pub fn backend(service: &str, version: &str) -> Spec {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    Spec::sample(&format!("{version}-{}", COUNT.fetch_add(1, Ordering::Relaxed)))
        .label("tidegate.enable", "true")
        .label("tidegate.service", service)
        .label("tidegate.host", &host(service))
        .label("tidegate.version", version)
        .label("tidegate.port", "8080")
        .label("tidegate.check.type", "http")
        .label("tidegate.check.path", "/ready")
        .label("tidegate.check.interval", "200ms")
        .version(version)
}

/// The host of a [`backend`].
pub fn host(service: &str) -> String {
    format!("{service}.localhost")
}

/// The sample backend as a process, for files to name.
pub struct Local {
    pub process: Process,
    pub address: SocketAddr,
    _directory: TempDir,
}

impl Local {
    /// Starts it and waits until it answers; it says that it is this version of this service.
    pub async fn start(service: &str, version: &str) -> Result<Self> {
        Self::start_at(ports::free()?, None, service, version).await
    }

    /// The same beyond the cable of a namespace.
    pub async fn start_in(namespace: &Namespace, service: &str, version: &str) -> Result<Self> {
        let address = SocketAddr::new(namespace.address(), ports::free()?.port());
        Self::start_at(address, Some(&namespace.name()), service, version).await
    }

    async fn start_at(address: SocketAddr, namespace: Option<&str>, service: &str, version: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut command = namespace::command(namespace, tidegate::locate_sample()?);
        command.env("ADDRESS", address.ip().to_string()).env("PORT", address.port().to_string());
        command.env("SERVICE", service).env("VERSION", version);
        let mut process = Process::spawn("sample", &mut command, directory.path())?;
        let ready = Request::get(address, "/ready");
        process.until(SOON, "the sample's answer", async || ready.clone().send().await.map(drop)).await?;
        Ok(Self { process, address, _directory: directory })
    }

    /// Starts one of each of these versions, and a file in a folder of its own that names them.
    pub async fn start_each(service: &str, versions: &[&str]) -> Result<(Vec<Self>, TempDir)> {
        let (mut locals, mut entries) = (Vec::new(), String::new());
        for version in versions {
            let local = Self::start(service, version).await?;
            entries += &local.entry(service, version);
            locals.push(local);
        }
        let files = tempfile::tempdir()?;
        fs::write(files.path().join(format!("{service}.yaml")), entries)?;
        Ok((locals, files))
    }

    /// Switches its behaviour: `ready=false&errors=50`.
    pub async fn control(&self, query: &str) -> Result<()> {
        control(self.address, query).await
    }

    /// Its entry in a file of instances, in one line: a version of a service on `SERVICE.localhost`, checked as [`backend`]s are.
    pub fn entry(&self, service: &str, version: &str) -> String {
        format!(
            "- {{ service: {service}, version: {version}, host: {}, address: \"{}\", \
             check: {{ type: http, path: /ready, interval: 200ms }} }}\n",
            host(service),
            self.address
        )
    }
}

/// A control plane with its Envoy.
pub struct Edge {
    // In this order: the one that sends requests goes first.
    pub envoy: Envoy,
    pub tidegate: Tidegate,
    /// Where clients connect.
    pub listener: SocketAddr,
    settings: Settings,
    command: Vec<String>,
    options: Options,
    variant: Variant,
}

/// How an Envoy and its control plane speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Variant {
    /// As in tidegate's own bootstrap.
    #[default]
    Delta,
    /// State of the world.
    Sotw,
}

impl Variant {
    /// As an `api_type` in Envoy's configuration.
    pub fn api_type(self) -> &'static str {
        match self {
            Self::Delta => "DELTA_GRPC",
            Self::Sotw => "GRPC",
        }
    }
}

/// Everything of the configuration file but the services.
#[derive(Debug, Clone)]
struct Settings {
    listener: SocketAddr,
    xds: SocketAddr,
    api: SocketAddr,
    /// The YAML below the key `providers:`, in one line.
    providers: String,
    /// Further keys below `edge:`, each with a comma before it.
    edge: String,
}

impl Settings {
    fn free(providers: String) -> Result<Self> {
        let edge = String::new();
        Ok(Self { listener: ports::free()?, xds: ports::free()?, api: ports::free()?, providers, edge })
    }

    /// `services` is the YAML below the key `services:`, in one line.
    fn with(&self, services: &str) -> String {
        let Self { listener, xds, api, providers, edge } = self;
        format!(
            "edge: {{ listeners: [ {{ name: web, address: \"{listener}\" }} ]{edge} }}\nxds: {{ address: \"{xds}\" }}\n\
             api: {{ address: \"{api}\" }}\nproviders: {providers}\nservices: {services}\n"
        )
    }
}

impl Edge {
    /// With these services declared (`{}` for none), over the engine's containers.
    pub async fn start(engine: &Engine, services: &str) -> Result<Self> {
        Self::start_with(engine, services, &[]).await
    }

    /// The same with further arguments of `tidegate run`.
    pub async fn start_with(engine: &Engine, services: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_on(engine, services, arguments, 2).await
    }

    /// The same with so many workers in Envoy.
    pub async fn start_on(engine: &Engine, services: &str, arguments: &[&str], concurrency: u32) -> Result<Self> {
        Self::start_at(&engine.endpoint(), services, arguments, concurrency).await
    }

    /// The same with these words for Envoy.
    pub async fn start_told(engine: &Engine, services: &str, arguments: &[&str], envoy: Options) -> Result<Self> {
        let docker = format!("{{ docker: {{ endpoint: \"{}\" }} }}", engine.endpoint());
        Self::start_as(Settings::free(docker)?, services, arguments, envoy).await
    }

    /// Over the engine's containers, with further keys of the configuration below `edge:`, in one line.
    pub async fn start_keyed(engine: &Engine, edge: &str, services: &str) -> Result<Self> {
        let providers = format!("{{ docker: {{ endpoint: \"{}\" }} }}", engine.endpoint());
        let settings = Settings { edge: format!(", {edge}"), ..Settings::free(providers)? };
        Self::start_as(settings, services, &[], workers(2)).await
    }

    /// The same over whatever answers at `docker`, as `providers.docker.endpoint` takes it.
    pub async fn start_at(docker: &str, services: &str, arguments: &[&str], concurrency: u32) -> Result<Self> {
        let docker = format!("{{ docker: {{ endpoint: \"{docker}\" }} }}");
        Self::start_from(docker, services, arguments, concurrency).await
    }

    /// Without Docker, over the files of instances at this path: a directory or one file, which need not exist yet, but Envoy is
    /// not live before it does.
    pub async fn on_files(path: &Path, services: &str) -> Result<Self> {
        Self::start_on_files(path, services, &[], 2).await
    }

    /// The same with further arguments of `tidegate run`, and so many workers in Envoy.
    pub async fn start_on_files(path: &Path, services: &str, arguments: &[&str], concurrency: u32) -> Result<Self> {
        let providers = format!("{{ docker: {{ enabled: false }}, file: {{ path: \"{}\" }} }}", path.display());
        Self::start_from(providers, services, arguments, concurrency).await
    }

    /// With these providers: the YAML below the key `providers:`, in one line.
    pub async fn start_from(providers: String, services: &str, arguments: &[&str], concurrency: u32) -> Result<Self> {
        Self::start_as(Settings::free(providers)?, services, arguments, workers(concurrency)).await
    }

    async fn start_as(settings: Settings, services: &str, arguments: &[&str], options: Options) -> Result<Self> {
        let command: Vec<String> = ["run"].iter().chain(arguments).map(ToString::to_string).collect();
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let mut tidegate = Tidegate::start(&words, &settings.with(services), &[])?;
        tidegate.answers(&format!("http://{}/healthz", settings.api)).await?;
        let variant = Variant::default();
        let envoy = start_envoy(&tidegate, &command, &[], &options, variant).await?;
        Ok(Self { envoy, tidegate, listener: settings.listener, settings, command, options, variant })
    }

    /// With another Envoy, which speaks this variant, as do those that take its place.
    pub async fn speaking(mut self, variant: Variant) -> Result<Self> {
        self.variant = variant;
        self.with_new_envoy().await
    }

    /// Another Envoy in the place of this one: it has nothing but its bootstrap.
    pub async fn with_new_envoy(self) -> Result<Self> {
        let Self { envoy, tidegate, listener, settings, command, options, variant } = self;
        drop(envoy);
        let envoy = start_envoy(&tidegate, &command, &[], &options, variant).await?;
        Ok(Self { envoy, tidegate, listener, settings, command, options, variant })
    }

    /// A second edge of this control plane, the node `two`, at the same address: the kernel deals connections out to both.
    pub async fn second_envoy(&self) -> Result<Envoy> {
        let another = ["--node-id", "two", "--admin", "127.0.0.1:0"];
        start_envoy(&self.tidegate, &self.command, &another, &self.options, self.variant).await
    }

    /// Declares other services, as an operator who edits the file.
    pub fn declare(&self, services: &str) -> Result<()> {
        self.tidegate.reconfigure(&self.settings.with(services))
    }

    /// The file with these services, for what is not to be written the usual way.
    pub fn file(&self, services: &str) -> String {
        self.settings.with(services)
    }

    /// Where its API listens.
    pub fn api(&self) -> SocketAddr {
        self.settings.api
    }

    /// Where it serves xDS.
    pub fn xds(&self) -> SocketAddr {
        self.settings.xds
    }

    /// Commands against this control plane.
    pub fn cli(&self) -> Cli {
        self.tidegate.cli(&format!("http://{}", self.settings.api))
    }

    /// Kills the control plane with SIGKILL and starts it again with the same state and file.
    pub async fn restart_control_plane(mut self) -> Result<Self> {
        self.tidegate.process.kill()?;
        self.revive().await
    }

    /// Stops the control plane, as an operator would, and starts it again when `meanwhile` is over.
    pub async fn without_control_plane(mut self, meanwhile: impl Future<Output = ()>) -> Result<Self> {
        self.tidegate.process.terminate(SOON).await?;
        meanwhile.await;
        self.revive().await
    }

    async fn revive(self) -> Result<Self> {
        let Self { envoy, tidegate, listener, settings, command, options, variant } = self;
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let mut tidegate = tidegate.again(&words, &[])?;
        tidegate.answers(&format!("http://{}/healthz", settings.api)).await?;
        Ok(Self { envoy, tidegate, listener, settings, command, options, variant })
    }

    /// `GET /` with this host.
    pub async fn get(&self, host: &str) -> Result<Answer> {
        Request::get(self.listener, "/").host(host).send().await
    }

    /// Waits until `GET /` with this host answers with this status.
    pub async fn answers(&self, host: &str, status: u16) -> Result<Answer> {
        until(SOON, &format!("status {status} for {host}"), async || {
            let answer = self.get(host).await?;
            ensure!(answer.status == status, "status {}: {}", answer.status, answer.text().trim());
            Ok(answer)
        })
        .await
    }

    /// Waits until Envoy itself has so many healthy endpoints in a cluster.
    pub async fn healthy(&self, cluster: &str, count: usize) -> Result<()> {
        until(SOON, &format!("{count} healthy endpoint(s) of {cluster} in Envoy"), async || {
            let endpoints = self.envoy.endpoints(cluster).await?.unwrap_or_default();
            let healthy = endpoints.iter().filter(|endpoint| endpoint.healthy).count();
            ensure!(healthy == count, "{healthy} healthy of {}", endpoints.len());
            Ok(())
        })
        .await
    }

    /// Waits until Envoy's runtime, which is what it splits by, holds the canary's weight.
    pub async fn weighs(&self, service: &str, canary: &str, basis_points: u32) -> Result<()> {
        self.envoy.weighs(service, canary, basis_points).await
    }

    /// Which version answered each of `keys` (`key-0`, `key-1`, …), asked once each with the header `x-user`.
    pub async fn versions_of_keys(&self, host: &str, keys: u64) -> Result<BTreeMap<String, String>> {
        let report = self.ask_keys(host, keys).await?;
        report.all_succeeded()?;
        let versions = report.versions_by_key();
        ensure!(versions.len() as u64 == keys, "{} of {keys} keys were answered", versions.len());
        versions
            .into_iter()
            .map(|(key, versions)| {
                let version = versions.into_iter().next().context("a key without an answer")?;
                Ok((key, version))
            })
            .collect()
    }

    async fn ask_keys(&self, host: &str, keys: u64) -> Result<Report> {
        let ask = |n: u64| {
            let key = format!("key-{n}");
            Ask::get("/").header("x-user", &key).key(&key)
        };
        let load = Load::get(self.listener, host, "/").closed(8).requests(keys).duration(Duration::from_secs(120));
        load.asking(ask).run().await
    }
}

fn workers(concurrency: u32) -> Options {
    Options { concurrency, ..Options::default() }
}

/// With the bootstrap that this `tidegate run ARGUMENTS` has for it, asked for with these words, and the variant changed in it.
async fn start_envoy(
    tidegate: &Tidegate,
    command: &[String],
    words: &[&str],
    options: &Options,
    variant: Variant,
) -> Result<Envoy> {
    let state_dir = command.windows(2).find(|pair| pair[0] == "--state-dir").unwrap_or_default();
    let arguments = ["envoy", "bootstrap", "--config", "tidegate.yaml"].iter().chain(words).copied();
    let cli = Cli { directory: Some(tidegate.directory().to_owned()), ..Cli::default() };
    let bootstrap = cli.run(arguments.chain(state_dir.iter().map(String::as_str))).await?.ok()?.stdout;
    ensure!(bootstrap.matches(Variant::Delta.api_type()).count() == 1, "the variant is said elsewhere:\n{bootstrap}");
    let bootstrap = bootstrap.replace(Variant::Delta.api_type(), variant.api_type());
    let mut envoy = Envoy::start_with(&bootstrap, options).await?;
    envoy.ready(SOON).await?;
    Ok(envoy)
}
