//! The conversation with one Docker engine: reads only, each with a timeout. [`bollard`] negotiates, pings and lists; inspects
//! and the stream of events go through the same connection code but are decoded here, for three reasons that bollard 0.21.1
//! gives: it sends every path without the negotiated version, its inspect type holds the environment (and logs every body at
//! debug level), and its stream does not tell when the engine has answered, which is when listing may begin.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::ContainerSummary;
use bollard::query_parameters::ListContainersOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tidegate_core::container::Container;
use tokio::time::timeout;

use super::dial::{Dialer, Endpoint};
use super::facts::{self, Inspect, Inspected};
use super::hints::{self, Event};
use super::images::{Image, Images};
use crate::clock::Clock;
use crate::http::escaped;

/// The oldest API that is spoken (Docker 20.10).
const OLDEST_API: (usize, usize) = (1, 41);
/// One call, unless it says otherwise: a container's lock may be held while it starts.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Connecting and negotiating: a local engine answers in milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A list of thousands of containers takes its time.
const LIST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the watchdog's ping may take.
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// What is asked about images.
pub(super) const IMAGE: &str = "the inspection of its image";
/// An inspect is tens of kilobytes; this is its bound.
const MAX_INSPECT: usize = 4 << 20;
/// An event is a kilobyte or two, of which labels are the most; a line that is longer ends the stream.
const MAX_LINE: usize = 1 << 20;
/// Clocks that differ by less are taken for one clock: the `Date` header has whole seconds.
const SAME_CLOCK: i64 = 2_000_000_000;

/// What went wrong with the engine.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// The configuration names no endpoint.
    #[error("{endpoint:?} is not an endpoint")]
    Endpoint {
        /// As configured.
        endpoint: String,
    },
    /// No connection, or one that broke before the answer.
    #[error("it cannot be reached: {source}")]
    Connect {
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("no answer to {phase} within {after:?}")]
    TimedOut {
        /// What was asked.
        phase: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// An answer that says no.
    #[error("{phase}: HTTP {status}: {message}")]
    Refused {
        /// What was asked.
        phase: &'static str,
        /// HTTP's status.
        status: u16,
        /// The engine's words.
        message: String,
    },
    /// A file of TLS cannot be used.
    #[error("the file {path} of `tls.{key}` cannot be used: {reason}")]
    Tls {
        /// Which one.
        key: &'static str,
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// The engine is too old.
    #[error("it speaks the API version {version}, and 1.41 is the oldest that is understood")]
    ApiTooOld {
        /// What it speaks.
        version: String,
    },
    /// An answer that cannot be read.
    #[error("{phase}: {reason}")]
    Protocol {
        /// What was asked.
        phase: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The stream of events ended.
    #[error("the stream of events ended")]
    StreamEnded,
}

impl EngineError {
    fn of_bollard(phase: &'static str, error: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        match error {
            Error::IOError { err } => Self::Connect { source: err },
            Error::DockerResponseServerError { status_code, message } => {
                Self::Refused { phase, status: status_code, message }
            }
            other => Self::Protocol { phase, reason: other.to_string() },
        }
    }
}

/// A connection's worth of agreement with one engine. Every call opens a connection of its own, as Docker's own client does
/// over a socket.
#[derive(Debug)]
pub(super) struct Engine {
    dialer: Arc<Dialer>,
    docker: Docker,
    /// The engine's clock minus ours, in nanoseconds; zero when they are the same.
    skew: i64,
    clock: Clock,
    /// `None`: what a container has from its image counts as its own, and no image is read.
    images: Option<Images>,
}

impl Engine {
    /// Connects, and agrees on a version.
    pub(super) async fn connect(endpoint: Endpoint, clock: Clock) -> Result<Self, EngineError> {
        const PHASE: &str = "the negotiation of a version";
        let dialer = Arc::new(Dialer::new(endpoint));
        let transport = {
            let dialer = Arc::clone(&dialer);
            move |request: BollardRequest| {
                let dialer = Arc::clone(&dialer);
                async move { dialer.send(request).await.map_err(|err| bollard::errors::Error::IOError { err }) }
            }
        };
        // Bollard's own timeout has whole seconds and ends with the head; ours is around each call.
        let docker = Docker::connect_with_custom_transport(
            transport,
            Some("http://docker"),
            LIST_TIMEOUT.as_secs(),
            API_DEFAULT_VERSION,
        )
        .map_err(|error| EngineError::of_bollard(PHASE, error))?;
        let docker = within(CONNECT_TIMEOUT, PHASE, docker.negotiate_version())
            .await?
            .map_err(|error| EngineError::of_bollard(PHASE, error))?;
        let version = docker.client_version();
        if (version.major_version, version.minor_version) < OLDEST_API {
            return Err(EngineError::ApiTooOld { version: version.to_string() });
        }
        dialer.speak(version.to_string());
        let ours = nanos(clock);
        let skew = dialer.date().map_or(0, |date| date - ours);
        let skew = if skew.abs() < SAME_CLOCK { 0 } else { skew };
        Ok(Self { dialer, docker, skew, clock, images: None })
    }

    /// From now on with each container comes what its image says.
    #[must_use]
    pub(super) fn reading_images(self) -> Self {
        Self { images: Some(Images::default()), ..self }
    }

    /// The version agreed on.
    pub(super) fn version(&self) -> &str {
        self.dialer.version().unwrap_or_default()
    }

    /// The time now by the engine's clock, in nanoseconds since the Unix epoch.
    pub(super) fn now(&self) -> i64 {
        nanos(self.clock).saturating_add(self.skew)
    }

    /// Opens the stream of events, beginning with what the engine remembers since `since`. Returns once the engine has
    /// answered. (It subscribes right after, so `since` has to reach back a little even the first time.)
    pub(super) async fn subscribe(&self, since: i64) -> Result<Events, EngineError> {
        const PHASE: &str = "the subscription to events";
        let filters = serde_json::json!({ "type": ["container", "network"], "event": hints::ACTIONS }).to_string();
        let (seconds, fraction) = (since.div_euclid(1_000_000_000), since.rem_euclid(1_000_000_000));
        let path = format!("/events?since={seconds}.{fraction:09}&filters={}", escaped(&filters));
        let response =
            within(CALL_TIMEOUT, PHASE, self.get(&path)).await?.map_err(|source| EngineError::Connect { source })?;
        let response = accepted(PHASE, response).await?;
        Ok(Events { body: response.into_body(), buffer: BytesMut::new() })
    }

    /// All containers, whatever they do.
    pub(super) async fn list(&self) -> Result<Vec<Container>, EngineError> {
        const PHASE: &str = "the list of containers";
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let list: Vec<ContainerSummary> = within(LIST_TIMEOUT, PHASE, self.docker.list_containers(Some(options)))
            .await?
            .map_err(|error| EngineError::of_bollard(PHASE, error))?;
        Ok(list.into_iter().filter_map(facts::listed).collect())
    }

    /// One container; `None` when there is none with that id.
    pub(super) async fn inspect(&self, id: &str) -> Result<Option<Inspected>, EngineError> {
        const PHASE: &str = "the inspection";
        let call = async {
            let response =
                self.get(&format!("/containers/{id}/json")).await.map_err(|source| EngineError::Connect { source })?;
            if response.status() == http::StatusCode::NOT_FOUND {
                return Ok(None);
            }
            Ok(Some(decoded::<Inspect>(PHASE, response).await?))
        };
        let Some(inspect) = within(CALL_TIMEOUT, PHASE, call).await?? else { return Ok(None) };
        let image = inspect.image().to_owned();
        let mut inspected = Inspected::from(inspect);
        if let Some(images) = &self.images {
            let labels = images.labels(&image, self.image(&image));
            inspected.facts.image_labels = Some(within(CALL_TIMEOUT, IMAGE, labels).await??);
        }
        Ok(Some(inspected))
    }

    async fn image(&self, id: &str) -> Result<Image, EngineError> {
        let response =
            self.get(&format!("/images/{id}/json")).await.map_err(|source| EngineError::Connect { source })?;
        decoded(IMAGE, response).await
    }

    /// Whether it still answers.
    pub(super) async fn ping(&self) -> Result<(), EngineError> {
        const PHASE: &str = "a ping";
        within(PING_TIMEOUT, PHASE, self.docker.ping())
            .await?
            .map(drop)
            .map_err(|error| EngineError::of_bollard(PHASE, error))
    }

    async fn get(&self, path: &str) -> io::Result<Response<Incoming>> {
        let request = Request::get(format!("http://docker{path}")).body(Empty::<Bytes>::new());
        self.dialer.send(request.map_err(io::Error::other)?).await
    }
}

/// The stream of events.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    buffer: BytesMut,
}

impl Events {
    /// The next event; lines that are none are passed over.
    pub(super) async fn next(&mut self) -> Result<Event, EngineError> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                match serde_json::from_slice(&line) {
                    Ok(event) => return Ok(event),
                    Err(error) if line.iter().any(|byte| !byte.is_ascii_whitespace()) => {
                        tracing::debug!(%error, "passing over a line of the event stream that is no event");
                    }
                    Err(_) => {}
                }
            }
            if self.buffer.len() > MAX_LINE {
                let reason = format!("a line has more than {MAX_LINE} bytes");
                return Err(EngineError::Protocol { phase: "the stream of events", reason });
            }
            match self.body.frame().await {
                None => return Err(EngineError::StreamEnded),
                Some(Err(error)) => {
                    return Err(EngineError::Protocol { phase: "the stream of events", reason: error.to_string() });
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(data.chunk());
                    }
                }
            }
        }
    }
}

async fn within<T>(limit: Duration, phase: &'static str, call: impl Future<Output = T>) -> Result<T, EngineError> {
    timeout(limit, call).await.map_err(|_| EngineError::TimedOut { phase, after: limit })
}

/// The body of a success, as JSON.
async fn decoded<T: DeserializeOwned>(phase: &'static str, response: Response<Incoming>) -> Result<T, EngineError> {
    let unreadable = |reason: String| EngineError::Protocol { phase, reason };
    let body = accepted(phase, response).await?.into_body();
    let body = Limited::new(body, MAX_INSPECT).collect().await.map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| unreadable(error.to_string()))
}

/// The response if it is a success, else what the engine says.
async fn accepted(phase: &'static str, response: Response<Incoming>) -> Result<Response<Incoming>, EngineError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let body =
        Limited::new(response.into_body(), 64 << 10).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let message = serde_json::from_str::<serde_json::Value>(&text)
        .ok()
        .and_then(|value| value.get("message")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| text.trim().to_owned());
    Err(EngineError::Refused { phase, status, message })
}

fn nanos(clock: Clock) -> i64 {
    i64::try_from(clock.now().as_millis()).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}
