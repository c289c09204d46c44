//! The services, their containers, and the ways in which these end. A container's end is decided when it is born, because it has to
//! take SIGTERM accordingly.

use std::{collections::VecDeque, fmt, time::Duration};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::{
    edge::{backend, host},
    engine::{Container, Engine, Network, Spec},
    poll::SOON,
};

/// Of each service, while none is being replaced.
pub const REPLICAS: usize = 2;
/// How long an answer may take to begin; less than [`FROZEN`], so that this is what ends the wait for a frozen container.
const TIMEOUT: &str = "2s";
const FROZEN: Duration = Duration::from_millis(2_500);
const NOT_ANSWERING: Duration = Duration::from_secs(1);

/// How a container ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// `docker stop`: it takes requests for a while, then finishes what it has.
    Graceful,
    /// `docker stop`: it exits at once.
    AtOnce,
    /// `docker stop`: it goes on until Docker kills it.
    Ignoring,
    /// `docker kill`.
    Killed,
    /// `docker pause`, and `docker kill` later.
    Paused,
    /// Its process is killed, without a word to Docker.
    Crashed,
}

#[derive(Debug, Clone)]
pub struct Service {
    pub name: String,
    pub host: String,
    /// Over HTTP/2, in gRPC; otherwise over HTTP/1.1.
    pub is_grpc: bool,
}

/// What ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its place among the services.
    pub service: usize,
    /// Its short id.
    pub container: String,
    pub end: End,
    /// When it was told, and when it had ended.
    pub began: Instant,
    pub over: Instant,
}

struct Replica {
    container: Container,
    service: usize,
    end: End,
}

/// A deployment that never ends: the oldest container is always the next to be replaced.
pub struct Script {
    pub services: Vec<Service>,
    engine: Engine,
    network: Network,
    grpc_image: String,
    /// The oldest first.
    replicas: VecDeque<Replica>,
    /// What else a container is labelled with.
    labels: fn(&Service) -> Vec<(String, String)>,
    /// Ends of containers that are to be born; all six in each round.
    round: Vec<End>,
    random: u64,
    born: usize,
}

impl End {
    pub const ALL: [Self; 6] =
        [Self::Graceful, Self::AtOnce, Self::Ignoring, Self::Killed, Self::Paused, Self::Crashed];

    /// What a container does about SIGTERM that is to end in this way.
    fn on_term(self) -> &'static str {
        match self {
            Self::AtOnce => "now",
            Self::Ignoring => "ignore",
            _ => "graceful",
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Graceful => "stop, gracefully",
            Self::AtOnce => "stop, exits at once",
            Self::Ignoring => "stop, ignored",
            Self::Killed => "kill",
            Self::Paused => "pause, then kill",
            Self::Crashed => "crash",
        })
    }
}

impl Ended {
    /// For a report.
    pub fn describe(&self, services: &[Service], since: Instant) -> String {
        let at = self.began.saturating_duration_since(since);
        format!("{at:.3?}: {} of {}: {}", self.container, services[self.service].name, self.end)
    }
}

impl Script {
    /// All services with all their containers running, and `labels` on them beside our own.
    pub async fn start(engine: &Engine, seed: u64, labels: fn(&Service) -> Vec<(String, String)>) -> Result<Self> {
        let service = |name: &str, is_grpc| {
            let name = engine.unique(name);
            Service { host: host(&name), name, is_grpc }
        };
        let services = vec![service("shop", false), service("cart", false), service("rpc", true)];
        let mut script = Self {
            replicas: VecDeque::new(),
            network: engine.network("deploy").await?,
            grpc_image: engine.sample_h2_image().await?,
            round: Vec::new(),
            random: seed,
            born: 0,
            engine: engine.clone(),
            services,
            labels,
        };
        for _ in 0..REPLICAS * script.services.len() {
            script.begin().await?;
        }
        Ok(script)
    }

    /// Starts another container of the service whose turn it is, the one that the oldest belongs to: its short id.
    pub async fn begin(&mut self) -> Result<String> {
        let number = self.born % self.services.len();
        self.born += 1;
        if self.round.is_empty() {
            self.round = self.shuffled();
        }
        let end = self.round.pop().context("an end")?;
        let spec = self.spec(&self.services[number], end);
        let container = self.engine.run(spec).await?;
        let id = container.id[..12].to_owned();
        self.replicas.push_back(Replica { container, service: number, end });
        Ok(id)
    }

    /// The service of the oldest container.
    pub fn service(&self) -> Result<&Service> {
        let oldest = self.replicas.front().context("a container")?;
        Ok(&self.services[oldest.service])
    }

    /// Ends the oldest container as it is to end, and removes it.
    pub async fn end(&mut self) -> Result<Ended> {
        let Replica { container, service, end } = self.replicas.pop_front().context("a container")?;
        let began = Instant::now();
        match end {
            End::Graceful | End::AtOnce => container.stop(Duration::from_secs(10)).await?,
            End::Ignoring => container.stop(NOT_ANSWERING).await?,
            End::Killed => container.kill("SIGKILL").await?,
            End::Paused => {
                container.pause().await?;
                sleep(FROZEN).await;
                container.kill("SIGKILL").await?;
            }
            End::Crashed => {
                let pid = container.inspect().await?.state.and_then(|state| state.pid).context("a process")?;
                let pid = Pid::from_raw(i32::try_from(pid)?).context("a process")?;
                kill_process(pid, Signal::KILL).context("kill the container's process")?;
            }
        }
        container.exit_code(SOON).await?;
        let over = Instant::now();
        container.remove().await?;
        Ok(Ended { service, container: container.id[..12].to_owned(), end, began, over })
    }

    /// The addresses of those containers of a service that are there.
    pub async fn addresses(&self, service: &str) -> Result<Vec<String>> {
        let mut addresses = Vec::new();
        for replica in self.replicas.iter().filter(|replica| self.services[replica.service].name == service) {
            addresses.push(replica.container.address().await?.to_string());
        }
        Ok(addresses)
    }

    fn spec(&self, service: &Service, end: End) -> Spec {
        let mut spec = backend(&service.name, "v1").network(&self.network).label("tidegate.timeout", TIMEOUT);
        spec = spec.env("TERM", end.on_term()).env("TERM_DELAY_MS", "300");
        if service.is_grpc {
            spec.body.image = Some(self.grpc_image.clone());
            spec = spec.label("tidegate.protocol", "grpc").label("tidegate.check.type", "grpc");
            spec.body.labels.get_or_insert_default().remove("tidegate.check.path");
        }
        for (name, value) in (self.labels)(service) {
            spec = spec.label(&name, &value);
        }
        spec
    }

    fn shuffled(&mut self) -> Vec<End> {
        let mut ends = End::ALL.to_vec();
        for last in (1..ends.len()).rev() {
            ends.swap(last, usize::try_from(self.draw() % (last as u64 + 1)).unwrap_or_default());
        }
        ends
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
