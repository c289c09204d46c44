//! `tidegate run`: the wiring. Every task of the control plane is made and spawned here, by name; one that ends by itself ends
//! them all, and is named.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tidegate_core::compile::Compiler;
use tidegate_core::config::{Admin, Config, DockerEngine, Reach};
use tidegate_core::labels::Placement;
use tidegate_core::{Input, Problem, ProviderName, Severity, State};
use tidegate_xds::{ServerConfig, Store};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::token::Token;
use crate::api::{ApiContext, LocalEnvoy};
use crate::clock::Clock;
use crate::config::ConfigWatch;
use crate::discovery::docker::{DockerMetrics, DockerProvider, DockerSettings, Sightings};
use crate::discovery::file::FileProvider;
use crate::last_known_good::LastKnownGood;
use crate::operator::{self, Operator};
use crate::options::{DEFAULT_CONFIG, RunOptions};
use crate::probe::Prober;
use crate::reconcile::{Outlets, Reconcile};
use crate::reports::{self, ReportStats};
use crate::rollouts::{self, Held, Kept};
use crate::state_dir::StateDir;
use crate::tls::CertificateWatch;
use crate::{api, config, edges, envoy, filter, groups, heartbeat, metrics, ports, samples, supervised, tls, webhooks};

/// Inputs that may wait for the reconcile task. A storm fills it and slows its senders down, which then coalesce; what waits
/// costs little memory.
const INBOX: usize = 1024;

/// Changes that may wait for the prober, which takes them as fast as they come.
const PROBES: usize = 256;

/// Webhooks and queries that may wait to be asked.
const ERRANDS: usize = 256;

/// The name under which it is reported how xDS is served.
const XDS: &str = "xds";

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
#[error("the control plane cannot start")]
pub struct StartError {
    /// What is wrong, for people.
    pub problems: Vec<Problem>,
}

/// Runs the control plane until SIGTERM or SIGINT.
///
/// # Errors
/// [`StartError`] when the configuration is invalid, or an address or the state directory is in use; otherwise when a task ended by itself.
pub async fn run(options: RunOptions) -> anyhow::Result<()> {
    let clock = Clock::start();
    let config = config::load(options.config.as_deref()).map_err(|problems| StartError { problems })?;
    let _state_dir = StateDir::take(&options.state_dir).map_err(|problem| StartError { problems: vec![problem] })?;
    let code = filter::install(&options.state_dir, options.filter_wasm.as_deref())?;
    let code = code.to_str().ok_or_else(|| anyhow!("the state directory's path is not UTF-8: {}", code.display()))?;
    let exposed = config.xds.exposed(options.insecure_xds);
    if let Some(problem) = exposed.clone().filter(|problem| problem.severity == Severity::Error) {
        return Err(StartError { problems: vec![problem] }.into());
    }
    let tls = match &config.xds.tls {
        Some(files) => Some(tls::load(files).map_err(|problem| StartError { problems: vec![problem] })?),
        None => None,
    };
    let xds = bind(config.xds.address, "xds.address").await?;
    let api = bind(config.api, "api.address").await?;
    let admin = envoy::admin(&config, &options.state_dir).map_err(|problem| StartError { problems: vec![problem] })?;

    let store = Store::new();
    store.load_reports().set_interval(config.load_report_interval);
    let (inbox, inputs) = mpsc::channel(INBOX);
    let (probes, probe_changes) = mpsc::channel(PROBES);
    let (commits, committed) = watch::channel(0);
    let docker_metrics = DockerMetrics::default();
    let engines = docker_engines(&config);
    let file = config.file.as_deref().map(FileProvider::new);
    let required = required_engines(&config).chain(file.iter().map(|_| ProviderName::file()));
    groups::put_in_force(&config.edge.groups, &store);
    let mut last_known_good = LastKnownGood::new(&options.state_dir);
    let (drains, unread) = Operator::restore(&options.state_dir);
    let (token, untaken) = Token::take_or_none(&options.state_dir);
    let kept_at = last_known_good.restore(&store);
    let (trials, lost) = rollouts::restore(&options.state_dir, &store, clock.now());
    let mut state = State::new(config.clone(), required, 0).draining(drains).rolling(trials);
    if let Some(kept_at) = kept_at {
        state = state.serving_kept(kept_at);
    }
    let compiler = Compiler::new(code.to_owned());
    let (held, holds) = watch::channel(Held::default());
    let (errands, errand) = mpsc::channel(ERRANDS);
    let outlets = Outlets { probes, commits, rollouts: held, errands };
    let (reconcile, observer, orders) = Reconcile::new(state, compiler, store.clone(), clock, inputs, outlets);
    let (kept, is_kept) = watch::channel(Kept::default());
    let prober = Prober::new(clock);
    let mut registry = metrics::registry();
    docker_metrics.register(&mut registry);
    if let Some(file) = &file {
        file.stats().register(&mut registry);
    }
    prober.metrics().register(&mut registry);
    let reports = ReportStats::default();
    reports.register(&mut registry);
    let beside = vec![reports::beside(store.clone(), inbox.clone(), reports)];
    let serving = ServerConfig { tls, beside, ..ServerConfig::default() };
    metrics::connections(&serving.connections, &mut registry);
    let local = LocalEnvoy::new(&admin);
    let operator = Operator::new(&options.state_dir, inbox.clone());
    let context = ApiContext::new(
        observer.clone(),
        store.clone(),
        Arc::new(registry),
        local,
        operator,
        token,
        api::Rollouts { orders, kept: is_kept },
    );

    let shutdown = CancellationToken::new();
    let mut tasks = Tasks::default();
    tasks.spawn("reconcile", reconcile.run(shutdown.clone()));
    tasks.spawn(
        "last known good",
        last_known_good.run(store.clone(), committed.clone(), inbox.clone(), shutdown.clone()),
    );
    let state_dir = options.state_dir.clone();
    let changed = holds.clone();
    tasks.spawn("rollouts' keeper", rollouts::keep(state_dir, holds, kept, inbox.clone(), shutdown.clone()));
    let reports = store.load_reports().clone();
    tasks.spawn("samples", samples::watch(reports, changed, observer, inbox.clone(), shutdown.clone()));
    tasks.spawn("webhooks", webhooks::run(errand, inbox.clone(), shutdown.clone()));
    tasks.spawn_apart("prober", prober.run(probe_changes, inbox.clone(), shutdown.clone()))?;
    for engine in engines {
        let stats = docker_metrics.of(&engine.name);
        let provider = DockerProvider::new(engine, stats);
        tasks.spawn("docker provider", provider.run(inbox.clone(), clock, shutdown.clone()));
    }
    if let Some(file) = file {
        tasks.spawn("file provider", file.run(inbox.clone(), clock, shutdown.clone()));
    }
    tasks.spawn("edges", edges::watch(store.clone(), committed, inbox.clone(), clock, shutdown.clone()));
    tasks.spawn("filter's heartbeat", heartbeat::watch(admin, inbox.clone(), shutdown.clone()));
    tasks.spawn("API", api::serve(api, context, shutdown.clone()));
    if options.supervised {
        let (inbox, shutdown) = (inbox.clone(), shutdown.clone());
        tasks.spawn_fallible("reports of up", async { Ok(supervised::run(inbox, shutdown).await?) });
    }
    let file = options.config.unwrap_or_else(|| DEFAULT_CONFIG.into());
    tasks.spawn("configuration", ConfigWatch::new(file, config.clone(), inbox.clone()).run(shutdown.clone()));
    if let (Some(files), Some(served)) = (config.xds.tls.clone(), serving.tls.clone()) {
        let watch = CertificateWatch::new(files, served, clock, inbox.clone());
        tasks.spawn("certificates of xDS", watch.run(shutdown.clone()));
    }
    if let Some(problem) = exposed {
        tracing::warn!(address = %config.xds.address, "xDS is served in plain text to whoever can reach it");
        inbox.send(Input::Reported { part: XDS, problems: vec![problem] }).await.context("nobody reads the inbox")?;
    }
    if let Some(problem) = lost {
        inbox
            .send(Input::Reported { part: rollouts::PART, problems: vec![problem] })
            .await
            .context("nobody reads the inbox")?;
    }
    let unkept: Vec<Problem> = unread.into_iter().chain(untaken).collect();
    if !unkept.is_empty() {
        inbox
            .send(Input::Reported { part: operator::PART, problems: unkept })
            .await
            .context("nobody reads the inbox")?;
    }
    let stop = shutdown.clone();
    tasks.spawn_fallible("xDS server", async move {
        Ok(tidegate_xds::serve(store, xds, serving, stop.cancelled_owned()).await?)
    });
    drop(inbox);
    tracing::info!(
        xds = %config.xds.address,
        api = %config.api,
        docker = ?config.docker,
        file = config.file,
        "control plane started"
    );
    tasks.until_stopped(&shutdown).await
}

/// What the provider of each engine needs to know.
fn docker_engines(config: &Config) -> Vec<DockerSettings> {
    let sightings = Sightings::default();
    let engines = config.docker.engines.iter().filter(|_| config.docker.enabled);
    let settings = engines.map(|engine| DockerSettings {
        name: engine.provider(),
        endpoint: engine.endpoint.clone(),
        tls: engine.tls.clone(),
        sightings: sightings.clone(),
        placement: placement(config),
        ..DockerSettings::default()
    });
    settings.collect()
}

/// The engines that the first full picture waits for.
fn required_engines(config: &Config) -> impl Iterator<Item = ProviderName> {
    let engines = config.docker.engines.iter().filter(|engine| config.docker.enabled && engine.required);
    engines.map(DockerEngine::provider)
}

/// Where Envoy stands, and which ports of the node no label leads to: those where nobody asks who is calling, and those that
/// would lead back to Envoy.
fn placement(config: &Config) -> Placement {
    let admin = match &config.edge.admin {
        Some(Admin::Tcp(address)) => Some(*address),
        Some(Admin::Unix(_)) | None => None,
    };
    let own = [config.xds.address, config.api].into_iter().chain(admin);
    let listeners = config.edge.listeners.iter().map(|listener| listener.address);
    Placement {
        network: config.edge.network.clone(),
        published: config.edge.reach == Reach::Published,
        node: config.edge.node,
        distrusts_images: !config.docker.trust_image_labels,
        reserved: own.chain(listeners).map(|address| address.port()).collect(),
    }
}

async fn bind(address: SocketAddr, key: &str) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| StartError { problems: vec![ports::problem(key, address, &error)] })
}

/// The tasks of the process by name.
#[derive(Default)]
struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_fallible(name, async {
            task.await;
            Ok(())
        });
    }

    fn spawn_fallible(&mut self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.set.spawn(async move { (name, task.await) });
    }

    /// On a thread of its own with all that the task spawns: a wake-up of one by another is then no matter of the kernel.
    fn spawn_apart(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build().context("a thread cannot be made")?;
        self.set.spawn_blocking(move || {
            runtime.block_on(task);
            (name, Ok(()))
        });
        Ok(())
    }

    /// Waits for a signal, or for the first task to end, and then for all of them.
    async fn until_stopped(mut self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        let result = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            // The end of `up`, which started this process.
            () = shutdown.cancelled() => Ok(()),
            Some(ended) = self.set.join_next() => match ended {
                Ok((name, Ok(()))) => Err(anyhow!("the task \"{name}\" ended by itself")),
                Ok((name, Err(error))) => Err(error.context(format!("the task \"{name}\" failed"))),
                Err(error) => Err(anyhow!("a task panicked: {error}")),
            },
        };
        tracing::info!("control plane stops");
        shutdown.cancel();
        while self.set.join_next().await.is_some() {}
        result
    }
}
