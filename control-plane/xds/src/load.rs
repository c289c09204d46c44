//! Load reports (LRS): how many requests each client sent to each cluster and locality, and what became of them, as the
//! clients say. `accounts` adds up and is pure; `service` moves the messages. Nothing here touches an xDS stream.

mod accounts;
mod service;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use self::accounts::Accounts;
pub(crate) use self::service::service;

/// How often clients report unless told otherwise.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest interval: below it, reports cost more than they tell.
pub const MIN_LOAD_REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What clients report of the load they carry. A cheap handle: clones share everything. It belongs to a
/// [`Store`](crate::Store), which knows the clusters that are counted.
#[derive(Clone, Debug)]
pub struct LoadReports {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    accounts: Mutex<Accounts>,
    interval_ms: AtomicU64,
    /// Counted up with each report, and when a client leaves.
    changes: watch::Sender<u64>,
    started: Instant,
    started_at: SystemTime,
}

/// All that has been reported, as of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadSnapshot {
    /// When counting began.
    pub since: SystemTime,
    /// Clusters that were reported by name, in its order.
    pub clusters: Vec<ClusterLoad>,
    /// What was reported of clusters that are not published (any more): an Envoy's own static ones, among them its way to
    /// this server, and whatever else a client names.
    pub other: Requests,
    /// The clients that have a load stream, oldest first.
    pub reporters: Vec<Reporter>,
}

/// A client with a load stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reporter {
    /// The node's id as its bootstrap gives it, cut at 256 bytes. So is its cluster.
    pub node_id: Arc<str>,
    pub node_cluster: Arc<str>,
    pub connected_at: SystemTime,
    /// When the last report came; `None`: none has yet.
    pub reported_at: Option<SystemTime>,
    /// How many came.
    pub reports: u64,
}

/// What was reported of one cluster, summed over clients.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterLoad {
    pub name: Arc<str>,
    pub load: Load,
    /// The same by locality and priority, in the order in which they were first named.
    pub localities: Vec<(Locality, Load)>,
    /// How many of the connected clients named it in their last report.
    pub reporters: usize,
    /// The oldest and the newest of these reports: how old `last`, `per_second` and `in_progress` are.
    pub oldest: Option<SystemTime>,
    pub newest: Option<SystemTime>,
}

/// The figures of a cluster, or of one locality of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Since counting began, by every client that ever reported.
    pub total: Requests,
    /// The last report of each connected client.
    pub last: Requests,
    /// Requests issued a second, over the last interval of each connected client.
    pub per_second: f64,
    /// Requests that connected clients had under way when they reported.
    pub in_progress: u64,
    /// Since counting began: metrics that endpoints report (ORCA), by name.
    pub metrics: Vec<(Arc<str>, Metric)>,
}

/// Counted requests. Attempts, rather: Envoy counts each try of a request that it retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Sent to an endpoint. Not those whose connection was refused.
    pub issued: u64,
    /// Answered, with other than 5xx.
    pub successful: u64,
    /// Answered with 5xx, reset, timed out, or without a connection.
    pub error: u64,
    /// Given to no endpoint (circuit breaker, overload). Of clusters only: clients do not say in which locality.
    pub dropped: u64,
}

/// A metric that endpoints report with their answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metric {
    /// Answers that bore it.
    pub requests: u64,
    /// The sum of its values.
    pub total: f64,
}

/// Where endpoints are, each part cut at 256 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    pub region: String,
    pub zone: String,
    pub sub_zone: String,
    pub priority: u32,
}

impl Requests {
    fn add(&mut self, more: Self) {
        self.issued = self.issued.saturating_add(more.issued);
        self.successful = self.successful.saturating_add(more.successful);
        self.error = self.error.saturating_add(more.error);
        self.dropped = self.dropped.saturating_add(more.dropped);
    }

    /// The share of successes among the requests that came to an end; `None` if none did.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
        let (successful, error) = (self.successful as f64, self.error as f64);
        (successful + error > 0.0).then(|| successful / (successful + error))
    }
}

impl Metric {
    fn add(&mut self, more: Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.total += more.total;
    }
}

impl LoadReports {
    pub(crate) fn new(started: Instant, started_at: SystemTime) -> Self {
        let shared = Shared {
            accounts: Mutex::default(),
            interval_ms: AtomicU64::new(0),
            changes: watch::Sender::new(0),
            started,
            started_at,
        };
        let this = Self { shared: Arc::new(shared) };
        this.set_interval(DEFAULT_INTERVAL);
        this
    }

    /// How often clients are told to report; 10 s at first.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_millis(self.shared.interval_ms.load(Ordering::Relaxed))
    }

    /// Sets how often clients are told to report, at least [`MIN_LOAD_REPORT_INTERVAL`]. A stream that is open is told
    /// when its next report comes.
    pub fn set_interval(&self, interval: Duration) {
        let millis = u64::try_from(interval.max(MIN_LOAD_REPORT_INTERVAL).as_millis()).unwrap_or(u64::MAX);
        self.shared.interval_ms.store(millis, Ordering::Relaxed);
    }

    /// Everything that has been reported. It costs what there is: the clusters, times the clients that report them.
    #[must_use]
    pub fn snapshot(&self) -> LoadSnapshot {
        let wall = |at| self.wall(at);
        let accounts = self.accounts();
        LoadSnapshot {
            since: self.shared.started_at,
            clusters: accounts.clusters(wall),
            other: accounts.other(),
            reporters: accounts.reporters(wall),
        }
    }

    /// The clients that report.
    #[must_use]
    pub fn reporters(&self) -> Vec<Reporter> {
        self.accounts().reporters(|at| self.wall(at))
    }

    /// What has been reported of one cluster; `None` if nothing has.
    #[must_use]
    pub fn cluster(&self, name: &str) -> Option<ClusterLoad> {
        self.accounts().cluster(name, |at| self.wall(at))
    }

    /// Changes when a report has come or a client has left. Only that it changed counts; read what is there then.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.shared.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.shared.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    fn wall(&self, at: Duration) -> SystemTime {
        self.shared.started_at + at
    }
}

#[cfg(test)]
mod tests;
