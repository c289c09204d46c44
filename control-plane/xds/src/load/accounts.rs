//! What the reports add up to. Pure: no lock, no clock, no stream. Every figure is kept with the client that reported it, and
//! moves to the departed when that client leaves, so a total is the sum of its parts, whatever the order of reports.
//! Bounded, whatever clients say: clusters by what is published, the rest by constants.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};

use super::{ClusterLoad, Load, Locality, Metric, Reporter, Requests};

/// Localities of a cluster. What comes after them is counted under one whose zone is `other`.
const MAX_LOCALITIES: usize = 64;
/// Metrics of a locality. Others are not kept.
const MAX_METRICS: usize = 32;
/// How long the account of a cluster that is not published any more is kept for reports that are still on their way: twice
/// the longest interval one would set.
const KEPT: Duration = Duration::from_mins(10);
/// How often accounts are looked through for such clusters.
const SWEEP: Duration = Duration::from_mins(1);

/// One load stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ReporterId(u64);

#[derive(Debug, Default)]
pub(super) struct Accounts {
    clusters: BTreeMap<Arc<str>, Account>,
    other: Requests,
    reporters: BTreeMap<ReporterId, Client>,
    last_id: u64,
    swept: Duration,
}

#[derive(Debug)]
struct Client {
    node_id: Arc<str>,
    node_cluster: Arc<str>,
    peer: Option<SocketAddr>,
    connected: Duration,
    reported: Option<Duration>,
    /// The number of its last report; 0: none yet.
    reports: u64,
}

#[derive(Debug, Default)]
struct Account {
    /// Those who reported the cluster, with what they reported.
    shares: BTreeMap<ReporterId, Share>,
    /// What those reported who are gone.
    departed: Share,
    /// The places that shares refer to by number.
    localities: Vec<Locality>,
    last_named: Duration,
}

/// What one client reported of a cluster. It is small as long as there is no traffic.
#[derive(Debug, Default)]
struct Share {
    /// The report that named the cluster last. If the client has sent another since, its figures of `last` are over.
    report: u64,
    parts: Option<Box<Parts>>,
}

#[derive(Debug, Default)]
struct Parts {
    dropped: u64,
    last_dropped: u64,
    /// How long the last report covers; `None` if the client does not say.
    interval: Option<Duration>,
    localities: Vec<(usize, Part)>,
}

#[derive(Debug, Default)]
struct Part {
    total: Requests,
    last: Requests,
    in_progress: u64,
    metrics: Vec<(Arc<str>, Metric)>,
}

impl Accounts {
    /// A stream begins. One stream of a connection is counted: an earlier one of the same peer is forgotten.
    pub(super) fn join(
        &mut self,
        node_id: Arc<str>,
        node_cluster: Arc<str>,
        peer: Option<SocketAddr>,
        now: Duration,
    ) -> ReporterId {
        let earlier = self.reporters.iter().find(|(_, client)| peer.is_some() && client.peer == peer);
        if let Some(id) = earlier.map(|(id, _)| *id) {
            self.leave(id);
        }
        self.last_id += 1;
        let id = ReporterId(self.last_id);
        let client = Client { node_id, node_cluster, peer, connected: now, reported: None, reports: 0 };
        self.reporters.insert(id, client);
        id
    }

    /// Adds a report. False if the stream is none of those that are counted (any more).
    pub(super) fn report(
        &mut self,
        id: ReporterId,
        report: &[ClusterStats],
        published: impl Fn(&str) -> bool,
        now: Duration,
    ) -> bool {
        let Some(client) = self.reporters.get_mut(&id) else { return false };
        // A stream's first message has nothing to report.
        if report.is_empty() {
            return true;
        }
        client.reports += 1;
        client.reported = Some(now);
        let number = client.reports;
        for stats in report {
            let name = stats.cluster_name.as_str();
            if !self.clusters.contains_key(name) && published(name) {
                self.clusters.insert(Arc::from(name), Account::default());
            }
            match self.clusters.get_mut(name) {
                Some(account) => account.add(id, number, stats, now),
                None => {
                    stats.upstream_locality_stats.iter().for_each(|of| self.other.add(requests(of)));
                    self.other.add(Requests { dropped: stats.total_dropped_requests, ..Requests::default() });
                }
            }
        }
        if now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.sweep(published, now);
        }
        true
    }

    /// A stream has ended. What it reported stays; what it had under way does not.
    pub(super) fn leave(&mut self, id: ReporterId) {
        if self.reporters.remove(&id).is_some() {
            for account in self.clusters.values_mut() {
                account.leave(id);
            }
        }
    }

    /// Clusters that nobody serves and nobody names any more become part of `other`.
    fn sweep(&mut self, published: impl Fn(&str) -> bool, now: Duration) {
        let other = &mut self.other;
        self.clusters.retain(|name, account| {
            let kept = now.saturating_sub(account.last_named) < KEPT || published(name);
            if !kept {
                account.shares.values().chain([&account.departed]).for_each(|share| other.add(share.total()));
            }
            kept
        });
    }

    pub(super) fn other(&self) -> Requests {
        self.other
    }

    pub(super) fn reporters(&self, wall: impl Fn(Duration) -> SystemTime) -> Vec<Reporter> {
        let reporter = |client: &Client| Reporter {
            node_id: Arc::clone(&client.node_id),
            node_cluster: Arc::clone(&client.node_cluster),
            connected_at: wall(client.connected),
            reported_at: client.reported.map(&wall),
            reports: client.reports,
        };
        self.reporters.values().map(reporter).collect()
    }

    pub(super) fn clusters(&self, wall: impl Fn(Duration) -> SystemTime) -> Vec<ClusterLoad> {
        self.clusters.iter().map(|(name, account)| account.read(name, &self.reporters, &wall)).collect()
    }

    pub(super) fn cluster(&self, name: &str, wall: impl Fn(Duration) -> SystemTime) -> Option<ClusterLoad> {
        let (name, account) = self.clusters.get_key_value(name)?;
        Some(account.read(name, &self.reporters, wall))
    }
}

impl Account {
    fn add(&mut self, id: ReporterId, report: u64, stats: &ClusterStats, now: Duration) {
        self.last_named = now;
        let places: Vec<usize> = stats.upstream_locality_stats.iter().map(|of| self.place(of)).collect();
        let share = self.shares.entry(id).or_default();
        if share.report != report {
            share.report = report;
            share.begin();
        }
        if places.is_empty() && stats.total_dropped_requests == 0 {
            return;
        }
        let parts = share.parts.get_or_insert_default();
        parts.interval = stats.load_report_interval.as_ref().and_then(interval);
        parts.dropped = parts.dropped.saturating_add(stats.total_dropped_requests);
        parts.last_dropped = parts.last_dropped.saturating_add(stats.total_dropped_requests);
        for (place, of) in places.into_iter().zip(&stats.upstream_locality_stats) {
            let part = parts.at(place);
            part.total.add(requests(of));
            part.last.add(requests(of));
            part.in_progress = part.in_progress.saturating_add(of.total_requests_in_progress);
            for stat in &of.load_metric_stats {
                let total = if stat.total_metric_value.is_finite() { stat.total_metric_value } else { 0.0 };
                part.metric(&stat.metric_name, Metric { requests: stat.num_requests_finished_with_metric, total });
            }
        }
    }

    /// The number of a place, which is given one if it is new and there is room.
    fn place(&mut self, of: &UpstreamLocalityStats) -> usize {
        let unnamed = core::Locality::default();
        let core::Locality { region, zone, sub_zone } = of.locality.as_ref().unwrap_or(&unnamed);
        let (region, zone, sub_zone) = (cut(region), cut(zone), cut(sub_zone));
        let same = |known: &Locality| {
            known.priority == of.priority && known.region == region && known.zone == zone && known.sub_zone == sub_zone
        };
        if let Some(number) = self.localities.iter().position(same) {
            return number;
        }
        // The last place is for all that find no other.
        if self.localities.len() < MAX_LOCALITIES {
            let [region, zone, sub_zone] = [region, zone, sub_zone].map(str::to_owned);
            self.localities.push(Locality { region, zone, sub_zone, priority: of.priority });
        } else if self.localities.len() == MAX_LOCALITIES {
            self.localities.push(Locality { zone: "other".to_owned(), ..Locality::default() });
        }
        self.localities.len() - 1
    }

    fn leave(&mut self, id: ReporterId) {
        let Some(Share { parts: Some(parts), .. }) = self.shares.remove(&id) else { return };
        let departed = self.departed.parts.get_or_insert_default();
        departed.dropped = departed.dropped.saturating_add(parts.dropped);
        for (place, part) in parts.localities {
            let of = departed.at(place);
            of.total.add(part.total);
            part.metrics.into_iter().for_each(|(name, metric)| of.metric(&name, metric));
        }
    }

    fn read(
        &self,
        name: &Arc<str>,
        reporters: &BTreeMap<ReporterId, Client>,
        wall: impl Fn(Duration) -> SystemTime,
    ) -> ClusterLoad {
        let mut load = Load::default();
        let mut localities: Vec<_> = self.localities.iter().map(|at| (at.clone(), Load::default())).collect();
        let mut reported = Vec::new();
        for (id, share) in &self.shares {
            let client = reporters.get(id).filter(|client| client.reports == share.report);
            reported.extend(client.and_then(|client| client.reported));
            share.read_into(client.is_some(), &mut load, &mut localities);
        }
        self.departed.read_into(false, &mut load, &mut localities);
        ClusterLoad {
            name: Arc::clone(name),
            load,
            localities,
            reporters: reported.len(),
            oldest: reported.iter().min().map(|at| wall(*at)),
            newest: reported.iter().max().map(|at| wall(*at)),
        }
    }
}

impl Share {
    /// Another report has come: what the last one said of now is over.
    fn begin(&mut self) {
        let Some(parts) = &mut self.parts else { return };
        parts.last_dropped = 0;
        parts.interval = None;
        for (_, part) in &mut parts.localities {
            part.last = Requests::default();
            part.in_progress = 0;
        }
    }

    fn total(&self) -> Requests {
        let mut total = Requests::default();
        if let Some(parts) = &self.parts {
            total.dropped = parts.dropped;
            parts.localities.iter().for_each(|(_, part)| total.add(part.total));
        }
        total
    }

    fn read_into(&self, is_current: bool, load: &mut Load, localities: &mut [(Locality, Load)]) {
        let Some(parts) = &self.parts else { return };
        load.total.add(Requests { dropped: parts.dropped, ..Requests::default() });
        if is_current {
            load.last.add(Requests { dropped: parts.last_dropped, ..Requests::default() });
        }
        for (place, part) in &parts.localities {
            for of in [&mut *load, &mut localities[*place].1] {
                of.total.add(part.total);
                for (name, metric) in &part.metrics {
                    add_metric(&mut of.metrics, name, *metric);
                }
                if is_current {
                    of.last.add(part.last);
                    of.in_progress = of.in_progress.saturating_add(part.in_progress);
                    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
                    let issued = part.last.issued as f64;
                    of.per_second += parts.interval.map_or(0.0, |interval| issued / interval.as_secs_f64());
                }
            }
        }
    }
}

impl Parts {
    fn at(&mut self, place: usize) -> &mut Part {
        let index = self.localities.iter().position(|(known, _)| *known == place).unwrap_or_else(|| {
            self.localities.push((place, Part::default()));
            self.localities.len() - 1
        });
        &mut self.localities[index].1
    }
}

impl Part {
    fn metric(&mut self, name: &str, metric: Metric) {
        add_metric(&mut self.metrics, name, metric);
    }
}

fn add_metric(metrics: &mut Vec<(Arc<str>, Metric)>, name: &str, more: Metric) {
    let name = cut(name);
    if let Some((_, metric)) = metrics.iter_mut().find(|(known, _)| **known == *name) {
        metric.add(more);
    } else if metrics.len() < MAX_METRICS {
        metrics.push((Arc::from(name), more));
    }
}

fn requests(of: &UpstreamLocalityStats) -> Requests {
    Requests {
        issued: of.total_issued_requests,
        successful: of.total_successful_requests,
        error: of.total_error_requests,
        dropped: 0,
    }
}

/// As a client says it; nothing shorter than a millisecond, which would make any rate of it.
fn interval(said: &envoy_types::pb::google::protobuf::Duration) -> Option<Duration> {
    let interval = Duration::new(u64::try_from(said.seconds).ok()?, u32::try_from(said.nanos).ok()?.min(999_999_999));
    (interval >= Duration::from_millis(1)).then_some(interval)
}

/// At most 256 bytes of what a client says.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(256)]
}
