//! `GET /v1/load`: what the edges say of their traffic, by service, version and locality. Every figure was reported by an Envoy,
//! and says when; services and versions are those of the state, never a client's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_core::compile::SPILL;
use tidegate_core::name::cluster_name;
use tidegate_core::problem::printable;
use tidegate_core::service::ServiceView;
use tidegate_core::status::API_VERSION;
use tidegate_core::{State, Timestamp};
use tidegate_xds::{LoadSnapshot, Locality, Reporter, Requests, Store};

use crate::clock::timestamp;

/// A service and its versions, each with the name of its cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    pub(crate) service: String,
    pub(crate) versions: Vec<(String, String)>,
}

/// All that edges reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LoadReport {
    pub(crate) api_version: String,
    pub(crate) at: Timestamp,
    /// When counting began: at the start of the control plane.
    pub(crate) since: Timestamp,
    /// How often edges are told to report.
    pub(crate) interval_millis: u64,
    pub(crate) edges: Vec<EdgeReports>,
    /// Nodes that are connected and have no load stream.
    pub(crate) silent: Vec<String>,
    pub(crate) services: Vec<ServiceLoad>,
    /// Requests to clusters that no service has (any more): an edge's own way to the control plane, and what is gone.
    pub(crate) other: Counted,
}

/// An edge with a load stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EdgeReports {
    pub(crate) node: String,
    pub(crate) connected_at: Timestamp,
    /// `None`: it has reported nothing yet.
    pub(crate) reported_at: Option<Timestamp>,
    pub(crate) reports: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceLoad {
    pub(crate) name: String,
    pub(crate) versions: Vec<VersionLoad>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VersionLoad {
    pub(crate) name: String,
    /// How many connected edges named it in their last report.
    pub(crate) edges: usize,
    /// The oldest and the newest of these reports.
    pub(crate) oldest_report_at: Option<Timestamp>,
    pub(crate) newest_report_at: Option<Timestamp>,
    #[serde(flatten)]
    pub(crate) load: Figures,
    pub(crate) localities: Vec<LocalityLoad>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LocalityLoad {
    pub(crate) region: String,
    pub(crate) zone: String,
    pub(crate) sub_zone: String,
    pub(crate) priority: u32,
    #[serde(flatten)]
    pub(crate) load: Figures,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    /// Since counting began, by every edge that ever reported.
    pub(crate) total: Counted,
    /// In the last report of each connected edge.
    pub(crate) last: Counted,
    /// Requests issued a second, over the last interval.
    pub(crate) per_second: f64,
    pub(crate) in_progress: u64,
    /// Metrics that endpoints report (ORCA), since counting began.
    pub(crate) metrics: BTreeMap<String, Metric>,
}

/// Attempts: Envoy counts each try of a request that it retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Counted {
    /// Sent to an instance; not those whose connection was refused.
    pub(crate) issued: u64,
    pub(crate) successful: u64,
    /// 5xx, reset, timed out, or no connection.
    pub(crate) error: u64,
    /// Given to no instance: a limit of the edge was reached.
    pub(crate) dropped: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metric {
    pub(crate) requests: u64,
    pub(crate) total: f64,
}

/// The services and their versions, in the order of their names.
pub(crate) fn known(state: &State) -> Vec<Known> {
    let of_service = |view: &ServiceView| {
        let versions: BTreeSet<_> = view.split.versions().into_iter().chain(view.versions.keys()).collect();
        let versions = versions.into_iter().map(|it| (it.to_string(), cluster_name(&view.name, it)));
        Known { service: view.name.to_string(), versions: versions.collect() }
    };
    state.services().map(of_service).collect()
}

/// The document.
pub(crate) fn report(store: &Store, services: Vec<Known>, now: Timestamp) -> LoadReport {
    let reports = store.load_reports();
    let LoadSnapshot { since, clusters, other, reporters } = reports.snapshot();
    let nodes: BTreeSet<_> = reporters.iter().map(|reporter| reporter.node_id.clone()).collect();
    let silent = store.clients().into_iter().map(|client| client.node.id).filter(|node| !nodes.contains(node));
    let mut known: BTreeMap<_, _> = clusters.into_iter().map(|cluster| (cluster.name.clone(), cluster)).collect();
    let mut of_version = |(name, cluster): (String, String)| {
        let mut of = VersionLoad { name, ..VersionLoad::default() };
        if let Some(reported) = known.remove(&*cluster) {
            of.edges = reported.reporters;
            of.oldest_report_at = reported.oldest.map(timestamp);
            of.newest_report_at = reported.newest.map(timestamp);
            of.load = Figures::of(reported.load);
            of.localities = reported.localities.into_iter().map(locality).collect();
        }
        // An aggregate's requests are counted at its members. What it drops was meant for its version.
        if let Some(spill) = known.remove(&*(cluster + SPILL)) {
            of.load.total.dropped = of.load.total.dropped.saturating_add(spill.load.total.dropped);
            of.load.last.dropped = of.load.last.dropped.saturating_add(spill.load.last.dropped);
        }
        of
    };
    let services = services
        .into_iter()
        .map(|Known { service: name, versions }| {
            let versions = versions.into_iter().map(&mut of_version);
            ServiceLoad { name, versions: versions.collect() }
        })
        .collect();
    let other = known.values().fold(counted(other), |sum, cluster| sum.and(counted(cluster.load.total)));
    LoadReport {
        api_version: API_VERSION.to_owned(),
        at: now,
        since: timestamp(since),
        interval_millis: u64::try_from(reports.interval().as_millis()).unwrap_or(u64::MAX),
        edges: reporters.iter().map(edge).collect(),
        silent: silent.map(|node| printable(&node)).collect(),
        services,
        other,
    }
}

fn edge(reporter: &Reporter) -> EdgeReports {
    EdgeReports {
        node: printable(&reporter.node_id),
        connected_at: timestamp(reporter.connected_at),
        reported_at: reporter.reported_at.map(timestamp),
        reports: reporter.reports,
    }
}

fn locality((at, load): (Locality, tidegate_xds::Load)) -> LocalityLoad {
    let Locality { region, zone, sub_zone, priority } = at;
    let [region, zone, sub_zone] = [region, zone, sub_zone].map(|part| printable(&part));
    LocalityLoad { region, zone, sub_zone, priority, load: Figures::of(load) }
}

fn counted(requests: Requests) -> Counted {
    let Requests { issued, successful, error, dropped } = requests;
    Counted { issued, successful, error, dropped }
}

impl Counted {
    fn and(self, more: Self) -> Self {
        Self {
            issued: self.issued.saturating_add(more.issued),
            successful: self.successful.saturating_add(more.successful),
            error: self.error.saturating_add(more.error),
            dropped: self.dropped.saturating_add(more.dropped),
        }
    }
}

impl Figures {
    fn of(load: tidegate_xds::Load) -> Self {
        let metric = |(name, metric): (Arc<str>, tidegate_xds::Metric)| {
            (printable(&name), Metric { requests: metric.requests, total: metric.total })
        };
        Self {
            total: counted(load.total),
            last: counted(load.last),
            per_second: load.per_second,
            in_progress: load.in_progress,
            metrics: load.metrics.into_iter().map(metric).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::core::v3::Node;
    use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
    use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
    use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
    use tidegate_xds::{Commit, ResourceType, ServerConfig};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    fn stats(cluster: &str, total_issued_requests: u64, total_dropped_requests: u64) -> ClusterStats {
        let locality = UpstreamLocalityStats { total_issued_requests, ..UpstreamLocalityStats::default() };
        ClusterStats {
            cluster_name: cluster.to_owned(),
            upstream_locality_stats: vec![locality],
            total_dropped_requests,
            ..ClusterStats::default()
        }
    }

    #[tokio::test]
    async fn only_what_the_state_knows_is_named_and_nothing_is_lost() {
        let store = Store::new();
        let mut commit = Commit::default();
        for name in ["shop/v1", "shop/v2", "shop/v2+spill", "gone/v1"] {
            commit.upsert(ResourceType::Cluster, name, &Cluster { name: name.to_owned(), ..Cluster::default() });
        }
        store.commit(commit);
        store.open();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(tidegate_xds::serve(store.clone(), listener, ServerConfig::default(), std::future::pending()));

        let mut client = LoadReportingServiceClient::connect(format!("http://{address}")).await.unwrap();
        let (requests, receiver) = mpsc::channel(1);
        let node = Some(Node { id: "edge\u{1b}[31m".to_owned(), ..Node::default() });
        let clusters =
            [("shop/v1", 5, 0), ("shop/v2", 3, 1), ("shop/v2+spill", 0, 2), ("gone/v1", 7, 0), ("evil/v1", 9, 0)];
        let cluster_stats = clusters.map(|(name, issued, dropped)| stats(name, issued, dropped)).into();
        requests.send(LoadStatsRequest { node, cluster_stats }).await.unwrap();
        let mut answers = client.stream_load_stats(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let answered = tokio::time::timeout(Duration::from_secs(30), answers.message()).await.unwrap();
        assert!(answered.unwrap().is_some());

        let versions = ["v1", "v2", "v3"].map(|version| (version.to_owned(), format!("shop/{version}")));
        let known = Known { service: "shop".to_owned(), versions: versions.into() };
        let seen = report(&store, vec![known], Timestamp::from_millis(1));
        let of = |version: &VersionLoad| {
            (version.name.clone(), version.edges, version.load.total.issued, version.load.total.dropped)
        };
        let versions: Vec<_> = seen.services[0].versions.iter().map(of).collect();
        assert_eq!(versions, [("v1".to_owned(), 1, 5, 0), ("v2".to_owned(), 1, 3, 3), ("v3".to_owned(), 0, 0, 0)]);
        assert_eq!(seen.services[0].versions[2].oldest_report_at, None, "never is not zero");
        assert_eq!(seen.other.issued, 7 + 9);
        assert_eq!((seen.edges.len(), seen.edges[0].reports, seen.silent.len()), (1, 1, 0));
        assert!(!seen.edges[0].node.contains('\u{1b}'), "foreign bytes are escaped");
    }
}
