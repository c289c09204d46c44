//! What is declared of a canary: which version is under trial, who gets it, by which steps its share grows, and what ends the trial.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
pub use tidegate_filter_core::{Failure, HashOn};

use crate::VersionName;

/// The version under trial, and how it is tried. Run-time state belongs to what this says: another text begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// The version.
    pub version: VersionName,
    /// How many of its instances have to be ready before it gets anything.
    pub min_ready: MinReady,
    /// What the canary's clients get while fewer are.
    pub when_not_ready: WhenNotReady,
    /// Clients that say themselves which version they want.
    pub overrides: Overrides,
    /// Where a client's key is taken from, in order of preference. Empty: the split is not sticky.
    pub hash_on: Vec<HashOn>,
    /// The cookie that is given to clients that have none of them; only where a cookie of that name is in `hash_on`.
    pub cookie: Option<AffinityCookie>,
    /// Whether another canary version deals the buckets anew.
    pub salt: Salt,
    /// How its share grows; after the last one it is the whole. Never empty.
    pub steps: Vec<Step>,
    /// What is measured, and what follows from it; `None`: only time, operators and the breaker move it.
    pub analysis: Option<Analysis>,
    /// What stops it at an edge at once; `None`: nothing does.
    pub breaker: Option<Breaker>,
    /// Who is asked, and who is told.
    pub webhooks: Vec<Webhook>,
}

/// How many instances of a canary have to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MinReady {
    /// So many.
    Instances(u32),
    /// So many percent of those that run, rounded up, and at least one.
    Percent(u32),
}

/// What a canary's clients get while it has not enough ready instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenNotReady {
    /// The stable version's answer.
    #[default]
    Stable,
    /// An error that says so.
    Error,
}

/// By what clients say which version they want; the header counts before the cookie, and both before the weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Overrides {
    /// A header.
    pub header: Option<HeaderOverride>,
    /// The name of a cookie whose values `always` and `never` count.
    pub cookie: Option<String>,
}

/// A header by which clients say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderOverride {
    /// Its name, in lower case.
    pub name: String,
    /// Which values count.
    pub wanted: Wanted,
}

/// Which values of a header count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wanted {
    /// `always` is the canary, `never` the stable version.
    AlwaysNever,
    /// This one is the canary.
    Value(String),
    /// What this regular expression (RE2) matches as a whole is the canary.
    Pattern(String),
}

/// A cookie with a random id, which is hashed as any key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AffinityCookie {
    /// Its name.
    pub name: String,
    /// Seconds that clients keep it.
    pub max_age_s: u32,
}

/// What the hash of a client is mixed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Salt {
    /// The canary's version: each rollout tries another set of clients first.
    #[default]
    Rollout,
    /// Nothing but the service: the same clients are always first.
    Service,
}

/// A step. Weights never go down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// So many basis points of the requests that may be repeated are sent to the canary, too, and nobody waits for its answer. Only
    /// before the first weight.
    Mirror(u32),
    /// Its share from now on, in basis points.
    SetWeight(u32),
    /// It stays for so long; `None`: until it is promoted.
    Pause(Option<Duration>),
}

/// What is measured of both versions, and what follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// From one look to the next.
    pub interval: Duration,
    /// Looks of one step that may fail: it is rolled back when so many have.
    pub threshold: u32,
    /// Requests that the canary must have had in a step before that step is passed.
    pub min_samples: u64,
    /// How long a step may stay undecided after its pause.
    pub max_step_duration: Duration,
    /// What becomes of it then.
    pub on_inconclusive: OnInconclusive,
    /// What becomes of one that failed.
    pub on_failure: OnFailure,
    /// Whether it only says what it would do.
    pub dry_run: bool,
    /// What is looked at. Never empty.
    pub metrics: Vec<Metric>,
}

/// What becomes of a rollout about which there is too little to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnInconclusive {
    /// It stays where it is until someone decides.
    #[default]
    Pause,
    /// The canary gets nothing any more.
    Rollback,
}

/// What becomes of a rollout whose canary failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// The canary gets nothing any more.
    #[default]
    Rollback,
    /// It stays where it is until someone decides.
    Freeze,
}

/// One thing that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metric {
    /// How it is called.
    pub name: String,
    /// What it is.
    pub kind: MetricKind,
    /// The canary's own figure must not be below.
    pub min: Option<Figure>,
    /// The canary's own figure must not be above.
    pub max: Option<Figure>,
    /// How much worse than the stable version the canary may be: percentage points of [`SuccessRate`](MetricKind::SuccessRate), a
    /// factor of [`Duration`](MetricKind::Duration); of others never.
    pub max_degradation: Option<Figure>,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetricKind {
    /// The share of requests that did not fail, in percent, as the edges report it.
    SuccessRate,
    /// The time from a request to the beginning of its answer, in milliseconds: this percentile, as the filters report it.
    Duration {
        /// From 1 to 99.
        percentile: u32,
    },
    /// The one number that a Prometheus server answers.
    Prometheus {
        /// The server, as `http://HOST:PORT`.
        address: String,
        /// The query.
        query: String,
    },
}

/// A finite number.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Figure(f64);

/// What stops a canary at an edge, within milliseconds and without the control plane: a one-sided CUSUM of its failures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// What counts as a failure.
    pub fail_on: Vec<Failure>,
    /// The share of failures that is normal at least, in basis points (p0); more where the stable version has more.
    pub baseline_error_rate: u32,
    /// The share at which it is to stop, in basis points (p1).
    pub tripped_error_rate: u32,
    /// How sure it has to be (the CUSUM's h).
    pub sensitivity: Figure,
    /// From how many clients failures must have come.
    pub min_distinct_keys: u32,
}

/// Someone outside who is asked or told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// For what.
    pub kind: WebhookKind,
    /// Where: `http://HOST:PORT/PATH`.
    pub url: String,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// For what a webhook is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookKind {
    /// Asked before the share grows, the last step not counted: a 2xx lets it go on.
    ConfirmTrafficIncrease,
    /// Asked before the canary gets everything: a 2xx lets it go on.
    ConfirmPromotion,
    /// Told of every decision; what it answers changes nothing.
    Notify,
}

impl Canary {
    /// The short form: this share at once, and no more until it is promoted.
    #[must_use]
    pub fn at(version: VersionName, weight: u32) -> Self {
        Self {
            version,
            min_ready: MinReady::default(),
            when_not_ready: WhenNotReady::default(),
            overrides: Overrides::default(),
            hash_on: Vec::new(),
            cookie: None,
            salt: Salt::default(),
            steps: vec![Step::SetWeight(weight), Step::Pause(None)],
            analysis: None,
            breaker: None,
            webhooks: Vec::new(),
        }
    }
}

impl Default for MinReady {
    fn default() -> Self {
        Self::Instances(1)
    }
}

impl MinReady {
    /// How many that is, of so many that run.
    #[must_use]
    pub fn of(self, running: u32) -> u32 {
        match self {
            Self::Instances(instances) => instances,
            Self::Percent(percent) => running.saturating_mul(percent).div_ceil(100).max(1),
        }
    }
}

impl Figure {
    /// `None`: not finite.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// Finite numbers equal themselves.
impl Eq for Figure {}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            threshold: 3,
            min_samples: 300,
            max_step_duration: Duration::from_mins(30),
            on_inconclusive: OnInconclusive::default(),
            on_failure: OnFailure::default(),
            dry_run: false,
            metrics: vec![Metric {
                name: "request-success-rate".to_owned(),
                kind: MetricKind::SuccessRate,
                min: None,
                max: None,
                max_degradation: Figure::new(1.0),
            }],
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            fail_on: vec![Failure::ServerError, Failure::Reset, Failure::ConnectFailure, Failure::Timeout],
            baseline_error_rate: 100,
            tripped_error_rate: 1_000,
            sensitivity: Figure(13.9),
            min_distinct_keys: 3,
        }
    }
}
