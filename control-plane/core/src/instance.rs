//! What providers tell: containers (or entries of a file or registry), the instances found in them, and the updates that carry
//! them. A provider knows nothing of Envoy, and never reads the catalog.

mod check;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

pub use self::check::{
    Check, CheckKind, CheckTls, DEFAULT_GRACE, DEFAULT_INTERVAL, DEFAULT_THRESHOLD, DEFAULT_TIMEOUT, HeaderMatch,
    HttpCheck, MAX_BODY, Statuses,
};
use crate::traffic::{Protocol, Traffic};
use crate::{Problem, ServiceName, Timestamp, VersionName};

/// One run of one container behind one port. A run that ended never comes back: another start of the same container has
/// another `started_at` and so is another instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct InstanceId {
    /// The provider's own id of the container or entry, the full one.
    pub container: String,
    /// When this run began, verbatim as the provider says it (Docker: `State.StartedAt`).
    pub started_at: String,
    /// The network on which `address` holds.
    pub network: String,
    /// Where it listens.
    pub address: SocketAddr,
}

impl InstanceId {
    /// The container's or entry's [short id](short_id).
    #[must_use]
    pub fn short(&self) -> &str {
        short_id(&self.container)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match entry(&self.container) {
            // It ends with the address.
            Some(entry) => f.write_str(entry),
            None => write!(f, "{}@{}", self.short(), self.address),
        }
    }
}

/// What an entry is: the id of one is `PROVIDER:ENTRY`, that of a container has no colon.
fn entry(id: &str) -> Option<&str> {
    id.split_once(':').map(|(_, entry)| entry)
}

/// Whether an id is that of an entry of a file or registry.
#[must_use]
pub fn is_entry(id: &str) -> bool {
    entry(id).is_some()
}

/// What has that id, in a word.
#[must_use]
pub fn noun(id: &str) -> &'static str {
    if is_entry(id) { "entry" } else { "container" }
}

/// The first twelve characters of a container's id, as Docker shows it; `SERVICE/VERSION@ADDRESS` of an entry.
#[must_use]
pub fn short_id(id: &str) -> &str {
    entry(id).unwrap_or_else(|| id.get(..12).unwrap_or(id))
}

/// How problems name a container or an entry.
#[must_use]
pub fn subject(name: &str, id: &str) -> String {
    match entry(id) {
        Some(entry) if entry == name => format!("entry {name}"),
        Some(entry) => format!("entry {name} ({entry})"),
        None => format!("container {name} ({})", short_id(id)),
    }
}

/// How problems name one of several services of a container. `name` is what its labels call it, or the service's own name.
#[must_use]
pub fn service_subject(container: &str, name: &str) -> String {
    format!("{container}, service {name}")
}

/// Default grace of an instance that is being stopped: Docker's own default stop timeout.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(10);

/// What Docker's own HEALTHCHECK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DockerHealth {
    /// No verdict yet.
    Starting,
    /// The last check passed.
    Healthy,
    /// The container is unhealthy.
    Unhealthy,
}

/// What a container is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Created, never started.
    #[default]
    Created,
    /// Running.
    Running,
    /// Frozen by `docker pause`.
    Paused,
    /// Between two runs, by its restart policy.
    Restarting,
    /// Ended.
    Exited {
        /// Exit code.
        code: i64,
        /// Killed because memory ran out.
        oom: bool,
    },
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created => f.write_str("created, not started"),
            Self::Running => f.write_str("running"),
            Self::Paused => f.write_str("paused"),
            Self::Restarting => f.write_str("waiting to be restarted"),
            Self::Exited { code, oom: true } => write!(f, "exited with {code}, out of memory"),
            Self::Exited { code, oom: false } => write!(f, "exited with {code}"),
        }
    }
}

/// What clients have to ask for to reach a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Claim {
    /// Host names, lower-case ASCII, without port, sorted. Empty: no route at the edge.
    pub hosts: Vec<String>,
    /// Path prefix, beginning with `/`.
    pub path: String,
}

/// That a container belongs to a version of a service, whether or not it runs just now: a service whose containers all
/// stopped answers 503, not 404.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Membership {
    /// The service it belongs to.
    pub service: ServiceName,
    /// The version of that service.
    pub version: VersionName,
    /// Hosts and path.
    pub claim: Claim,
    /// What its instances understand.
    pub protocol: Protocol,
    /// How they are to be asked.
    #[serde(skip)]
    pub traffic: Traffic,
    /// The services that it needs, as it says.
    pub depends_on: Vec<ServiceName>,
    /// It says that its version is a canary with this share, in basis points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary_weight: Option<u32>,
}

/// One instance of a service, as its provider sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Its identity.
    pub id: InstanceId,
    /// The service it belongs to.
    pub service: ServiceName,
    /// The version of that service.
    pub version: VersionName,
    /// Whether no other container of its engine can have its address, as long as this run lasts.
    #[serde(skip)]
    pub has_own_address: bool,
    /// How it is checked.
    pub check: Check,
    /// How long requests in flight may take once it is being stopped.
    #[serde(serialize_with = "as_millis", rename = "drainMs")]
    pub drain: Duration,
}

/// What made a provider look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// The event (`start`, `kill`, …), or `list` and `resync`; the place of an entry, `FILE:LINE:COLUMN`.
    pub action: String,
    /// When the provider saw it.
    pub at: Timestamp,
}

/// One container (or entry), with everything the provider found in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Discovered {
    /// The provider's own full id.
    pub id: String,
    /// The name people know it by.
    pub name: String,
    /// When it was created; the older of two that disagree is the incumbent. Zero of an entry that was there at start.
    pub created: Timestamp,
    /// The Compose project that made it; `None` of an entry, and of a container that no project did.
    pub project: Option<String>,
    /// Whether its owner asked tidegate to route it.
    pub enabled: bool,
    /// What it is doing.
    pub phase: Phase,
    /// What Docker's HEALTHCHECK says; `None` when it has none.
    pub health: Option<DockerHealth>,
    /// It was told to stop, and is given up at that moment at the latest.
    pub terminating: Option<Timestamp>,
    /// The services it belongs to, running or not.
    pub memberships: Vec<Membership>,
    /// Its instances. Only a running or paused container has any.
    pub instances: Vec<Instance>,
    /// What is wrong with its labels, ports and networks.
    pub problems: Vec<Problem>,
    /// What made the provider look.
    pub hint: Hint,
    /// When the facts above were read.
    pub observed_at: Timestamp,
}

impl Discovered {
    /// The instances that a check can say something about. The kernel of a paused container still accepts connections.
    #[must_use]
    pub fn checkable(&self) -> &[Instance] {
        if self.phase == Phase::Running { &self.instances } else { &[] }
    }

    /// How problems name it.
    #[must_use]
    pub fn subject(&self) -> String {
        subject(&self.name, &self.id)
    }
}

/// What a provider counted when it confirmed what it had told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Connections to its source after the first.
    pub reconnects: u64,
    /// Changes that it found although no event had told of them.
    pub repaired: u64,
}

/// What a provider sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Everything there is, replacing what was known of this provider.
    Reset(Vec<Discovered>),
    /// One container, new or changed.
    Upsert(Box<Discovered>),
    /// One container that is gone, by its full id.
    Remove(String),
    /// What was told before holds at this moment.
    Confirmed(Confirmed),
    /// The provider's own problems now, replacing those it sent before (an unreachable engine, a failed inspect). What was
    /// discovered stays.
    Problems(Vec<Problem>),
}

fn as_millis<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
