//! One container: how it is made, and what is known of it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

/// How a container is made: `docker create`.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Name, and id too unless [`Self::id`] says otherwise.
    pub name: String,
    /// Full id; `None`: the name. Real ones are 64 hexadecimal digits.
    pub id: Option<String>,
    /// The name of its image.
    pub image: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Exposed TCP ports.
    pub ports: Vec<u16>,
    /// `HostConfig.NetworkMode`; a network's name is the network that it is on.
    pub network_mode: String,
    /// `--ip`: its address on its first network, else the lowest one that is free.
    pub address: Option<Ipv4Addr>,
    /// Its only address on its first network, as on one without IPv4, which engines have since 28.
    pub ipv6: Option<Ipv6Addr>,
    /// `--restart`.
    pub restart: Restart,
    /// It has a HEALTHCHECK.
    pub healthcheck: bool,
    /// `--stop-signal`.
    pub stop_signal: Option<String>,
    /// `--stop-timeout`, seconds.
    pub stop_timeout: Option<u64>,
}

impl Spec {
    /// A container on the default bridge, with port 80 exposed and nothing else.
    #[must_use]
    pub fn new(name: &str, labels: &[(&str, &str)]) -> Self {
        Self {
            name: name.to_owned(),
            id: None,
            image: "fake".to_owned(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ports: vec![80],
            network_mode: "default".to_owned(),
            address: None,
            ipv6: None,
            restart: Restart::No,
            healthcheck: false,
            stop_signal: None,
            stop_timeout: None,
        }
    }
}

/// What is done when a container ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Nothing.
    No,
    /// It is started again, after a pause that doubles.
    Always,
    /// That, so many times, if its exit code is not 0.
    OnFailure(u32),
}

/// `State.Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Between two runs by its restart policy.
    Restarting,
    /// Ended.
    Exited,
}

impl Status {
    /// As Docker writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    /// It has a process.
    #[must_use]
    pub const fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// What the HEALTHCHECK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// No verdict yet.
    Starting,
    /// Healthy.
    Healthy,
    /// Not.
    Unhealthy,
}

impl Health {
    /// As Docker writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of a container. All times are nanoseconds since the Unix epoch by the engine's clock.
#[derive(Clone, Debug)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// As it was made; its name changes with the container's.
    pub spec: Spec,
    /// What it does.
    pub status: Status,
    /// When it was made.
    pub created: i64,
    /// When its newest run began; 0: never.
    pub started_at: i64,
    /// When its last run ended; 0: never.
    pub finished_at: i64,
    /// Of the last run.
    pub exit_code: i64,
    /// Memory ran out in this run.
    pub oom: bool,
    /// What its HEALTHCHECK says, if it has one.
    pub health: Option<Health>,
    /// The networks it is on, with the address it has there now.
    pub networks: BTreeMap<String, Option<Ipv4Addr>>,
    /// Restarts by policy.
    pub restarts: u32,
    /// Somebody stopped it, so that no policy starts it again.
    pub(crate) stopped: bool,
    /// How often it ended soon after it began.
    pub(crate) backoff: u32,
    /// Which of the scheduled actions on it still hold.
    pub(crate) generation: u64,
    /// What is shown of it until then: list entry and inspect.
    pub(crate) shown: Option<(Instant, Value, Value)>,
}

impl Container {
    /// The pause before the next restart by policy, as moby's `restartmanager`: 100 ms doubling up to a minute.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_millis(100 << self.backoff.min(10)).min(Duration::from_secs(60))
    }
}
