//! Load and its bookkeeping: so many requests a second, or as many as a number of connections carry, bounded in count and
//! in time, and of every request what came of it. It judges nothing; tests do, on the report.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use tidegate_figures::percentile;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{
    client::{Connection, Endpoint, SERVED_BY, encode, version_of},
    poll::{SOON, until},
};

/// What to send, to whom, how fast and for how long.
#[derive(Clone)]
pub struct Load {
    pub endpoint: Endpoint,
    pub host: String,
    pub pace: Pace,
    /// At most so many requests are under way at once.
    pub connections: usize,
    /// Whether connections are used again; otherwise each request opens its own.
    pub keep_alive: bool,
    /// It ends after so many requests, or after `duration`, whichever is first. `None`: as many as a rate comes to in that time, or
    /// 100,000 of a closed loop.
    pub requests: Option<u64>,
    pub duration: Duration,
    /// Of one request, from the first byte of the connection to the last of the body.
    pub timeout: Duration,
    /// The n-th request, from 0.
    pub ask: Arc<dyn Fn(u64) -> Ask + Send + Sync>,
    /// Told of each sample as it is taken, for those who watch.
    pub watch: Arc<dyn Fn(&Sample) + Send + Sync>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Requests a second, evenly. A request that finds all connections busy starts late, and its latency counts from when
    /// it should have started.
    Rate(f64),
    /// Every connection sends its next request when it has its answer.
    Closed,
}

#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// What the report groups by: the sticky key that the request carries, for instance.
    pub key: Option<String>,
}

/// What came of one request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the load started; when the request was to start.
    pub at: Duration,
    pub latency: Duration,
    pub outcome: Outcome,
    /// `VERSION/HOSTNAME` of the sample backend.
    pub served_by: Option<String>,
    pub key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Status(u16),
    /// No connection.
    Connect,
    /// The connection ended before the response's headers.
    BeforeHeaders,
    /// It ended within the body.
    Body,
    Timeout,
}

#[derive(Debug, Clone, Default)]
pub struct Report {
    /// In the order of `at`.
    pub samples: Vec<Sample>,
    pub took: Duration,
}

/// A load that is under way; dropping it ends it.
pub struct Running {
    workers: JoinSet<Result<Vec<Sample>>>,
    shared: Arc<Shared>,
}

struct Shared {
    load: Load,
    started: Instant,
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// `GET path`: one connection's closed loop for at most 10 s and 100,000 requests; change what is not to your liking.
    pub fn get(endpoint: impl Into<Endpoint>, host: &str, path: &str) -> Self {
        let path = path.to_owned();
        Self {
            endpoint: endpoint.into(),
            host: host.to_owned(),
            pace: Pace::Closed,
            connections: 1,
            keep_alive: true,
            requests: None,
            duration: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            ask: Arc::new(move |_| Ask::get(&path)),
            watch: Arc::new(|_| {}),
        }
    }

    /// So many a second over enough connections for slow answers.
    pub fn rate(mut self, per_second: f64, connections: usize) -> Self {
        (self.pace, self.connections) = (Pace::Rate(per_second), connections);
        self
    }

    pub fn closed(mut self, connections: usize) -> Self {
        (self.pace, self.connections) = (Pace::Closed, connections);
        self
    }

    pub fn requests(mut self, requests: u64) -> Self {
        self.requests = Some(requests);
        self
    }

    fn most(&self) -> u64 {
        self.requests.unwrap_or(match self.pace {
            Pace::Rate(_) => u64::MAX,
            Pace::Closed => 100_000,
        })
    }

    pub fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub fn asking(mut self, ask: impl Fn(u64) -> Ask + Send + Sync + 'static) -> Self {
        self.ask = Arc::new(ask);
        self
    }

    pub fn watched(mut self, watch: impl Fn(&Sample) + Send + Sync + 'static) -> Self {
        self.watch = Arc::new(watch);
        self
    }

    pub async fn run(self) -> Result<Report> {
        self.start().wait().await
    }

    /// Starts it in the background.
    pub fn start(self) -> Running {
        let connections = self.connections;
        let shared = Arc::new(Shared {
            load: self,
            started: Instant::now(),
            next: AtomicU64::new(0),
            done: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut workers = JoinSet::new();
        for _ in 0..connections {
            workers.spawn(work(Arc::clone(&shared)));
        }
        Running { workers, shared }
    }
}

impl Ask {
    pub fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), headers: Vec::new(), body: Bytes::new(), key: None }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }
}

impl Running {
    /// How many requests have been answered or have failed.
    pub fn done(&self) -> u64 {
        self.shared.done.load(Relaxed)
    }

    /// Waits while it goes on for so long.
    pub async fn goes_on(&self, long: Duration) -> Result<()> {
        let so_far = self.elapsed();
        until(long + SOON, &format!("{long:?} more of it"), async || {
            ensure!(self.elapsed() >= so_far + long, "{:?}", self.elapsed() - so_far);
            Ok(())
        })
        .await
    }

    /// How long it has been running.
    pub fn elapsed(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// Sends no more, and reports when what is under way has ended.
    pub async fn stop(self) -> Result<Report> {
        self.shared.stop.store(true, Relaxed);
        self.wait().await
    }

    /// Reports when it has run its course.
    pub async fn wait(mut self) -> Result<Report> {
        let mut samples = Vec::new();
        while let Some(ended) = self.workers.join_next().await {
            samples.append(&mut ended.context("a load worker")??);
        }
        samples.sort_by_key(|sample| sample.at);
        Ok(Report { samples, took: self.shared.started.elapsed() })
    }
}

impl Shared {
    /// The next request and when it is due, or None if it was the last.
    fn next(&self) -> Option<(u64, Instant)> {
        if self.stop.load(Relaxed) {
            return None;
        }
        let number = self.next.fetch_add(1, Relaxed);
        let due = match self.load.pace {
            Pace::Closed => Instant::now(),
            #[allow(clippy::cast_precision_loss, reason = "far fewer requests than 2^52")]
            Pace::Rate(rate) => self.started + Duration::from_secs_f64(number as f64 / rate),
        };
        (number < self.load.most() && due < self.started + self.load.duration).then_some((number, due))
    }
}

async fn work(shared: Arc<Shared>) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut connection = None;
    while let Some((number, due)) = shared.next() {
        sleep_until(due).await;
        if shared.stop.load(Relaxed) {
            break;
        }
        let ask = (shared.load.ask)(number);
        let (outcome, served_by) = request(&shared.load, &ask, &mut connection).await?;
        let at = due.duration_since(shared.started);
        let sample = Sample { at, latency: due.elapsed(), outcome, served_by, key: ask.key };
        (shared.load.watch)(&sample);
        samples.push(sample);
        shared.done.fetch_add(1, Relaxed);
        if !shared.load.keep_alive || !matches!(outcome, Outcome::Status(_)) {
            connection = None;
        }
    }
    Ok(samples)
}

/// Errors only for a request that cannot be built; everything else is an outcome.
async fn request(load: &Load, ask: &Ask, connection: &mut Option<Connection>) -> Result<(Outcome, Option<String>)> {
    let deadline = Instant::now() + load.timeout;
    let mut request = encode(&ask.method, &ask.path, &load.host, &ask.headers, &ask.body)?;
    loop {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match timeout_at(deadline, Connection::open(&load.endpoint)).await {
                Ok(Ok(open)) => open,
                Ok(Err(_)) => return Ok((Outcome::Connect, None)),
                Err(_) => return Ok((Outcome::Timeout, None)),
            },
        };
        let answer = match timeout_at(deadline, open.sender.try_send_request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(mut error)) => match error.take_message() {
                // The connection was closed while it rested and nothing was sent: any client opens another.
                Some(unsent) => {
                    request = unsent;
                    continue;
                }
                None => return Ok((Outcome::BeforeHeaders, None)),
            },
            Err(_) => return Ok((Outcome::Timeout, None)),
        };
        let status = Outcome::Status(answer.status().as_u16());
        let served_by = answer.headers().get(SERVED_BY).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let outcome = match timeout_at(deadline, answer.into_body().collect()).await {
            Ok(Ok(_)) => status,
            Ok(Err(_)) => Outcome::Body,
            Err(_) => Outcome::Timeout,
        };
        *connection = Some(open);
        return Ok((outcome, served_by));
    }
}

impl Outcome {
    pub fn is_success(self) -> bool {
        matches!(self, Self::Status(200..=299))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(formatter, "{status}"),
            Self::Connect => formatter.write_str("no connection"),
            Self::BeforeHeaders => formatter.write_str("ended before headers"),
            Self::Body => formatter.write_str("ended within the body"),
            Self::Timeout => formatter.write_str("timed out"),
        }
    }
}

impl Sample {
    /// The version that served it.
    pub fn version(&self) -> Option<&str> {
        self.served_by.as_deref().map(version_of)
    }
}

impl Report {
    pub fn count(&self) -> usize {
        self.samples.len()
    }

    pub fn outcomes(&self) -> BTreeMap<Outcome, usize> {
        let mut outcomes = BTreeMap::new();
        for sample in &self.samples {
            *outcomes.entry(sample.outcome).or_default() += 1;
        }
        outcomes
    }

    /// Every sample that is no 2xx.
    pub fn failures(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| !sample.outcome.is_success())
    }

    pub fn failed(&self) -> usize {
        self.failures().count()
    }

    /// How many answers each version gave, whatever their status.
    pub fn by_version(&self) -> BTreeMap<String, usize> {
        let mut versions = BTreeMap::new();
        for version in self.samples.iter().filter_map(Sample::version) {
            *versions.entry(version.to_owned()).or_default() += 1;
        }
        versions
    }

    /// Of the answers that name a version, the part that this one gave: 0 to 1.
    pub fn share(&self, version: &str) -> f64 {
        let versions = self.by_version();
        let total: usize = versions.values().sum();
        #[allow(clippy::cast_precision_loss, reason = "far fewer requests than 2^52")]
        if total == 0 { 0.0 } else { versions.get(version).copied().unwrap_or_default() as f64 / total as f64 }
    }

    /// Which versions each key met.
    pub fn versions_by_key(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sample in &self.samples {
            if let (Some(key), Some(version)) = (&sample.key, sample.version()) {
                keys.entry(key.clone()).or_default().insert(version.to_owned());
            }
        }
        keys
    }

    /// The latency that so many percent of the successes did not exceed; zero without any.
    pub fn percentile(&self, percent: f64) -> Duration {
        let successes = self.samples.iter().filter(|sample| sample.outcome.is_success());
        let mut latencies: Vec<_> = successes.map(|sample| sample.latency).collect();
        latencies.sort_unstable();
        percentile(&latencies, percent)
    }

    pub fn per_second(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "far fewer requests than 2^52")]
        if self.took.is_zero() { 0.0 } else { self.count() as f64 / self.took.as_secs_f64() }
    }

    /// Errors, with a summary, unless there were requests and all succeeded.
    pub fn all_succeeded(&self) -> Result<()> {
        ensure!(self.count() > 0, "no request was sent");
        ensure!(self.failed() == 0, "{self}");
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} requests in {:.1?} ({:.0}/s):", self.count(), self.took, self.per_second())?;
        for (outcome, count) in self.outcomes() {
            write!(formatter, " {count} × {outcome},")?;
        }
        for version in self.by_version().keys() {
            write!(formatter, " {version} {:.1} %,", 100.0 * self.share(version))?;
        }
        let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| self.percentile(percent));
        write!(formatter, " p50 {p50:.1?}, p99 {p99:.1?}, max {max:.1?}")?;
        if let Some(first) = self.failures().next() {
            write!(formatter, "; first failure at {:.3?}: {}", first.at, first.outcome)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(outcome: Outcome, version: Option<&str>, key: Option<&str>) -> Sample {
        Sample {
            at: Duration::ZERO,
            latency: Duration::from_millis(5),
            outcome,
            served_by: version.map(|version| format!("{version}/box")),
            key: key.map(str::to_owned),
        }
    }

    #[test]
    fn a_report_counts_what_came_of_each_request() {
        let report = Report {
            samples: vec![
                sample(Outcome::Status(200), Some("v1"), Some("a")),
                sample(Outcome::Status(200), Some("v1"), Some("b")),
                sample(Outcome::Status(500), Some("v2"), Some("b")),
                sample(Outcome::BeforeHeaders, None, None),
            ],
            took: Duration::from_secs(2),
        };
        assert_eq!((report.count(), report.failed()), (4, 2));
        assert!((report.share("v2") - 1.0 / 3.0).abs() < 1e-9);
        assert_eq!(report.versions_by_key()["b"].len(), 2);
        let text = report.all_succeeded().unwrap_err().to_string();
        assert!(text.contains("1 × ended before headers"), "{text}");
        assert!(text.contains("first failure at 0.000ns: 500"), "{text}");
        assert!(Report::default().all_succeeded().is_err());
    }
}
