//! `envoy.service.load_stats.v3.LoadReportingService`: one stream of reports. It has no task and no queue: it reads when
//! the connection lets it. As with ADS, nobody is answered before the store is open, for until then it is not known which
//! clusters count.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_server::{
    LoadReportingService, LoadReportingServiceServer,
};
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

use super::LoadReports;
use super::accounts::{ReporterId, cut};
use crate::resource::ResourceType;
use crate::server::incoming::{Pass, peer};
use crate::store::{Opening, Store};

/// What a client says that will report every cluster it has, named or not.
const SENDS_ALL: &str = "envoy.lrs.supports_send_all_clusters";

/// The longest report: some 40,000 clusters with traffic. A message of nothing but empty parts takes a hundredfold in memory,
/// so this is not the limit of discovery requests.
const MAX_REPORT: usize = 4 << 20;

/// From one report of a stream to the next. Those who keep to the interval never wait; those who do not are read no faster.
const PAUSE: Duration = Duration::from_millis(100);

/// The service over a store, until `stopping`.
pub(crate) fn service(store: Store, stopping: watch::Receiver<bool>) -> LoadReportingServiceServer<LoadReporting> {
    LoadReportingServiceServer::new(LoadReporting { store, stopping }).max_decoding_message_size(MAX_REPORT)
}

pub(crate) struct LoadReporting {
    store: Store,
    stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl LoadReportingService for LoadReporting {
    type StreamLoadStatsStream = BoxStream<'static, Result<LoadStatsResponse, Status>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        let (peer, pass) = peer(request.extensions());
        let stream = LoadStream {
            store: self.store.clone(),
            stopping: self.stopping.clone(),
            opened: self.store.opened(),
            peer,
            pass,
            requests: request.into_inner(),
            reporting: None,
            told: Told::default(),
            ended: false,
        };
        Ok(Response::new(stream.run()))
    }
}

struct LoadStream {
    store: Store,
    stopping: watch::Receiver<bool>,
    opened: watch::Receiver<Opening>,
    peer: Option<SocketAddr>,
    /// What the first request's node is held against; `None` without TLS.
    pass: Option<Pass>,
    requests: Streaming<LoadStatsRequest>,
    /// From the first request on.
    reporting: Option<Reporting>,
    told: Told,
    ended: bool,
}

/// A client's place among those who report, for as long as its stream lives.
struct Reporting {
    reports: LoadReports,
    id: ReporterId,
    node_id: Arc<str>,
    node_cluster: Arc<str>,
    sends_all: bool,
}

/// What the client was told last.
#[derive(Default)]
struct Told {
    interval: Option<Duration>,
    /// Of clients that want names: as of this change of the store.
    sequence: u64,
    names: BTreeSet<Arc<str>>,
}

impl LoadStream {
    fn run(self) -> BoxStream<'static, Result<LoadStatsResponse, Status>> {
        stream::unfold(self, |mut this| async move {
            if this.ended {
                return None;
            }
            let item = this.next().await?;
            this.ended = item.is_err();
            Some((item, this))
        })
        .boxed()
    }

    /// The next answer; `None` when the client is gone.
    async fn next(&mut self) -> Option<Result<LoadStatsResponse, Status>> {
        loop {
            let request = match self.request().await {
                Ok(request) => request?,
                Err(status) => return Some(Err(status)),
            };
            if let Err(status) = self.on_request(&request) {
                warn!(peer = ?self.peer, %status, "a client's load report is not taken");
                return Some(Err(status));
            }
            if let Some(answer) = self.answer() {
                return Some(Ok(answer));
            }
        }
    }

    async fn request(&mut self) -> Result<Option<LoadStatsRequest>, Status> {
        let Self { stopping, opened, requests, reporting, .. } = self;
        let received = async {
            // An error means that the store is gone, and with it the server.
            let _ = opened.wait_for(|open| *open != Opening::Nobody).await;
            if reporting.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            requests.message().await
        };
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => Err(Status::unavailable("the xDS server is shutting down")),
            received = received => match received {
                Ok(request) => Ok(request),
                Err(status) if status.code() == tonic::Code::OutOfRange => {
                    warn!(peer = ?self.peer, %status, "a client's load report is too long");
                    Err(status)
                }
                Err(status) => {
                    debug!(%status, "a load stream broke");
                    Ok(None)
                }
            },
        }
    }

    fn on_request(&mut self, request: &LoadStatsRequest) -> Result<(), Status> {
        let reports = self.store.load_reports();
        let now = reports.now();
        let reporting = match (&self.reporting, &request.node) {
            (Some(reporting), None) => reporting,
            (Some(reporting), Some(node)) => {
                if !reporting.is(node) {
                    return Err(Status::invalid_argument("the node of a stream cannot change"));
                }
                reporting
            }
            (None, Some(node)) => {
                if let Some(pass) = &self.pass {
                    pass.check(&node.id)?;
                }
                let (node_id, node_cluster) = names(node);
                let id = reports.accounts().join(Arc::clone(&node_id), Arc::clone(&node_cluster), self.peer, now);
                debug!(node = %node_id, peer = ?self.peer, "a client begins to report its load");
                let sends_all = node.client_features.iter().any(|feature| feature == SENDS_ALL);
                self.reporting.insert(Reporting { reports: reports.clone(), id, node_id, node_cluster, sends_all })
            }
            (None, None) => return Err(Status::invalid_argument("the first request of a stream bears the node")),
        };
        let published = |name: &str| self.store.is_published(ResourceType::Cluster, name);
        let counted = reports.accounts().report(reporting.id, &request.cluster_stats, published, now);
        reports.changed();
        if counted { Ok(()) } else { Err(Status::aborted("another stream of this connection reports the load")) }
    }

    /// What the client has to be told, if it does not know it yet.
    fn answer(&mut self) -> Option<LoadStatsResponse> {
        let Reporting { reports, sends_all, .. } = self.reporting.as_ref()?;
        let interval = reports.interval();
        let mut is_news = self.told.interval.replace(interval) != Some(interval);
        let sequence = self.store.sequence();
        if !sends_all && self.told.sequence != sequence {
            self.told.sequence = sequence;
            let names = self.store.every_name(ResourceType::Cluster);
            is_news |= names != self.told.names;
            self.told.names = names;
        }
        is_news.then(|| LoadStatsResponse {
            clusters: self.told.names.iter().map(|name| name.to_string()).collect(),
            send_all_clusters: *sends_all,
            load_reporting_interval: Some(seconds(interval)),
            report_endpoint_granularity: false,
        })
    }
}

impl Reporting {
    fn is(&self, node: &Node) -> bool {
        // As on a discovery stream, a node may be left out, or left empty.
        let (node_id, node_cluster) = names(node);
        node_id.is_empty() || (self.node_id == node_id && self.node_cluster == node_cluster)
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.reports.accounts().leave(self.id);
        self.reports.changed();
        debug!(node = %self.node_id, "a client reports its load no more");
    }
}

fn seconds(interval: Duration) -> protobuf::Duration {
    let seconds = i64::try_from(interval.as_secs()).unwrap_or(i64::MAX);
    protobuf::Duration { seconds, nanos: i32::try_from(interval.subsec_nanos()).unwrap_or_default() }
}

fn names(node: &Node) -> (Arc<str>, Arc<str>) {
    (Arc::from(cut(&node.id)), Arc::from(cut(&node.cluster)))
}
