//! The Docker engine as a source of instances. An event is only a hint to look; what is known comes from inspect and list. It
//! subscribes before it lists, lists in full at each connection and now and then between, keeps what it knows while the engine
//! does not answer, and says what is wrong then. It only reads: nothing here changes anything in the engine.
//!
//! The pieces: `dial`, `engine` and `images` talk, `facts` and `hints` understand, `fate` and `view` know, `queue` says what to look at
//! next, `session` is one connection's life, and this file connects, again and again.

mod dial;
mod engine;
mod facts;
mod fate;
mod hints;
mod images;
mod outbox;
mod problems;
mod queue;
mod session;
mod sightings;
mod signal;
mod stats;
#[cfg(any(test, fuzzing))]
mod hostile;
mod tls;
mod view;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::config::DockerTls;
use tidegate_core::labels::Placement;
use tidegate_core::{Input, ProviderName};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::dial::Endpoint;
use self::engine::{Engine, EngineError};
#[cfg(any(test, fuzzing))]
pub use self::hostile::answers;
use self::outbox::{InboxClosed, Outbox};
use self::session::{Heard, Session, Turn};
pub use self::sightings::Sightings;
pub use self::stats::{DockerMetrics, DockerStats};
use self::view::View;
use crate::clock::Clock;

/// Where Docker listens by default.
pub const DEFAULT_ENDPOINT: &str = "unix:///var/run/docker.sock";
/// How often everything is listed although no event asked for it: events can be lost without a trace (`docker-events.md`).
pub const DEFAULT_RESYNC: Duration = Duration::from_secs(15);

/// The stream begins this long before the last event that was read: Docker's events are ordered only roughly.
const OVERLAP: i64 = 2_000_000_000;
/// The longest pause between two attempts to connect: an attempt costs nothing, and a socket that is back is used at once.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// A session that lasted this long was a good one: its end is routine and the next attempt is made at once.
const GOOD_SESSION: Duration = Duration::from_secs(10);

/// What the provider needs to know.
#[derive(Clone, Debug)]
pub struct DockerSettings {
    /// What it is called: `docker` where there is one engine.
    pub name: ProviderName,
    /// `unix:///path` or `tcp://host:port`.
    pub endpoint: String,
    /// The files of TLS to it; `None`: plain text.
    pub tls: Option<DockerTls>,
    /// What the engines of this control plane show.
    pub sightings: Sightings,
    /// Where Envoy stands.
    pub placement: Placement,
    /// How often everything is listed although no event asked for it.
    pub resync: Duration,
    /// What the pauses between retries vary by, so that not all who lost an engine come back to it at once.
    pub jitter: u64,
}

impl Default for DockerSettings {
    fn default() -> Self {
        Self {
            name: ProviderName::docker(),
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            tls: None,
            sightings: Sightings::default(),
            placement: Placement::default(),
            resync: DEFAULT_RESYNC,
            jitter: rand::random(),
        }
    }
}

/// The Docker provider.
#[derive(Debug)]
pub struct DockerProvider {
    settings: DockerSettings,
    stats: DockerStats,
}

impl DockerProvider {
    /// A provider that does nothing until it runs.
    #[must_use]
    pub const fn new(settings: DockerSettings, stats: DockerStats) -> Self {
        Self { settings, stats }
    }

    /// Follows the engine until `shutdown`, or until nobody reads `inbox` any more. The first update is either a reset or the
    /// problem that keeps it from coming.
    #[tracing::instrument(name = "docker", skip_all, fields(provider = %self.settings.name, endpoint = self.settings.endpoint))]
    pub async fn run(self, inbox: mpsc::Sender<Input>, clock: Clock, shutdown: CancellationToken) {
        let follower = Follower {
            view: View::new(self.settings.placement.clone()),
            outbox: Outbox::new(inbox, &self.settings, clock, self.stats.clone()),
            settings: self.settings,
            stats: self.stats,
            heard: Arc::default(),
            clock,
            connections: 0,
        };
        // Dropping the follower drops its session, and with it every call under way.
        let _ = shutdown.run_until_cancelled(follower.run()).await;
    }
}

struct Follower {
    settings: DockerSettings,
    stats: DockerStats,
    view: View,
    heard: Arc<Heard>,
    clock: Clock,
    outbox: Outbox,
    connections: u64,
}

/// Where the conversation with the engine stands.
enum State {
    /// No connection. `failures` attempts in a row were in vain.
    Disconnected { failures: u32 },
    /// Events are read; nothing is listed yet.
    Subscribed { failures: u32, session: Box<Session> },
    /// The list is known and every enabled container in it is being looked at, or has been.
    Following { failures: u32, session: Box<Session> },
}

impl Follower {
    async fn run(mut self) {
        let mut state = State::Disconnected { failures: 0 };
        while let Ok(next) = self.step(state).await {
            state = next;
        }
    }

    async fn step(&mut self, state: State) -> Result<State, InboxClosed> {
        match state {
            State::Disconnected { failures } => {
                let connecting = async {
                    sleep(pause(failures, self.settings.jitter)).await;
                    connect(&self.settings, &self.heard, &self.stats, self.clock).await
                };
                match self.outbox.watched(connecting).await? {
                    Ok(session) => {
                        if self.connections > 0 {
                            self.stats.reconnects.inc();
                        }
                        self.connections += 1;
                        Ok(State::Subscribed { failures, session: Box::new(session) })
                    }
                    Err(error) => self.fail(&error, failures).await,
                }
            }
            State::Subscribed { failures, mut session } => {
                match self.outbox.watched(session.list(&mut self.view)).await? {
                    Ok(turn) => {
                        self.send(turn, &session).await?;
                        Ok(State::Following { failures, session })
                    }
                    Err(error) => self.fail(&error, failures).await,
                }
            }
            State::Following { failures, mut session } => {
                match self.outbox.watched(session.turn(&mut self.view)).await? {
                    Ok(turn) => {
                        let suspect = turn.suspect;
                        self.send(turn, &session).await?;
                        if suspect {
                            tracing::warn!("the stream of events keeps things to itself; opening another");
                            return Ok(State::Disconnected { failures: 0 });
                        }
                        Ok(State::Following { failures, session })
                    }
                    Err(error) => {
                        let failures = if session.age() >= GOOD_SESSION { 0 } else { failures.saturating_add(1) };
                        if matches!(error, EngineError::StreamEnded) {
                            // Proxies cut idle streams: that is no problem before the next attempt has failed.
                            tracing::debug!("the stream of events ended");
                            return Ok(State::Disconnected { failures });
                        }
                        self.fail(&error, failures).await
                    }
                }
            }
        }
    }

    async fn fail(&mut self, error: &EngineError, failures: u32) -> Result<State, InboxClosed> {
        let problem = problems::unreachable(&self.settings.endpoint, error);
        if self.outbox.problems() == [problem.clone()] {
            tracing::debug!(%error, "the Docker engine still does not answer");
        } else {
            tracing::warn!(code = %problem.code, reason = problem.reason, cure = problem.cure, "the Docker engine does not answer");
        }
        self.outbox.report(vec![problem]).await?;
        Ok(State::Disconnected { failures: failures.saturating_add(1) })
    }

    async fn send(&mut self, turn: Turn, session: &Session) -> Result<(), InboxClosed> {
        for update in turn.updates {
            self.outbox.tell(update).await?;
        }
        if turn.problems || turn.complete {
            self.outbox.report(session.problems()).await?;
        }
        if turn.confirmed {
            self.outbox.confirm().await?;
        }
        Ok(())
    }
}

/// Connects and subscribes.
async fn connect(
    settings: &DockerSettings,
    heard: &Arc<Heard>,
    stats: &DockerStats,
    clock: Clock,
) -> Result<Session, EngineError> {
    let endpoint = Endpoint::new(&settings.endpoint, settings.tls.as_ref()).await?;
    let engine = Engine::connect(endpoint, clock).await?;
    let engine = if settings.placement.distrusts_images { engine.reading_images() } else { engine };
    let opened = engine.now();
    // An event of a time to come would begin the stream after what is still to happen.
    let since = heard.newest().map_or(opened, |newest| newest.min(opened)).saturating_sub(OVERLAP);
    let events = engine.subscribe(since).await?;
    stats.answered(clock.now());
    tracing::info!(api = engine.version(), "connected to the Docker engine");
    Ok(Session::new(engine, events, opened, Arc::clone(heard), stats.clone(), clock, settings))
}

/// At once, and then from 100 ms doubling up to [`MAX_PAUSE`], less up to half of it.
fn pause(failures: u32, jitter: u64) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let pause = Duration::from_millis(100 << failures.saturating_sub(1).min(5)).min(MAX_PAUSE);
    jittered(pause, (jitter, failures))
}

/// `pause` less up to half of it: by how much is a matter of `what`, always the same for the same.
fn jittered(pause: Duration, what: impl Hash) -> Duration {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    pause - (pause / 2).mul_f64((hasher.finish() % 1024) as f64 / 1024.0)
}

#[cfg(test)]
mod tests;
