//! A client of the load reporting service written by hand: it sends what the test says, and nothing by itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, UpstreamLocalityStats};
use envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use envoy_types::pb::envoy::service::load_stats::v3::{LoadStatsRequest, LoadStatsResponse};
use envoy_types::pb::google::protobuf;
use tidegate_xds::{Commit, ResourceType, ServeError, ServerConfig, Store};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

pub(crate) const SENDS_ALL: &str = "envoy.lrs.supports_send_all_clusters";

/// How long anything may take on a busy machine before the test gives up.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(200);

pub(crate) struct Served {
    pub(crate) store: Store,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: oneshot::Sender<()>,
    pub(crate) serving: JoinHandle<Result<(), ServeError>>,
}

/// With these clusters, open.
pub(crate) async fn serve(clusters: &[&str]) -> Served {
    let served = serve_closed().await;
    commit(&served.store, clusters);
    served.store.open();
    served
}

#[expect(clippy::disallowed_methods, reason = "a test's server ends with the test's runtime")]
pub(crate) async fn serve_closed() -> Served {
    let store = Store::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, stop) = oneshot::channel();
    let served = store.clone();
    let serving = tokio::spawn(async move {
        let stopped = async {
            if stop.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tidegate_xds::serve(served, listener, ServerConfig::default(), stopped).await
    });
    Served { store, address, shutdown, serving }
}

pub(crate) fn commit(store: &Store, clusters: &[&str]) {
    let mut commit = Commit::default();
    for name in clusters {
        commit.upsert(ResourceType::Cluster, *name, &Cluster { name: (*name).to_owned(), ..Default::default() });
    }
    store.commit(commit);
}

pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.expect("the condition comes true");
}

pub(crate) fn request(node_id: &str, features: &[&str], cluster_stats: Vec<ClusterStats>) -> LoadStatsRequest {
    let node = Node {
        id: node_id.to_owned(),
        client_features: features.iter().copied().map(str::to_owned).collect(),
        ..Default::default()
    };
    LoadStatsRequest { node: Some(node), cluster_stats }
}

/// One second's figures of a cluster.
pub(crate) fn stats(cluster: &str, issued: u64, successful: u64, error: u64, in_progress: u64) -> ClusterStats {
    ClusterStats {
        cluster_name: cluster.to_owned(),
        upstream_locality_stats: vec![UpstreamLocalityStats {
            total_issued_requests: issued,
            total_successful_requests: successful,
            total_error_requests: error,
            total_requests_in_progress: in_progress,
            ..Default::default()
        }],
        load_report_interval: Some(protobuf::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    }
}

pub(crate) struct Client {
    service: LoadReportingServiceClient<Channel>,
    requests: mpsc::Sender<LoadStatsRequest>,
    responses: Streaming<LoadStatsResponse>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let service = LoadReportingServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self::open(service).await
    }

    /// Another stream over the same connection.
    pub(crate) async fn another(&self) -> Self {
        Self::open(self.service.clone()).await
    }

    async fn open(mut service: LoadReportingServiceClient<Channel>) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let responses = service.stream_load_stats(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        Self { service, requests, responses }
    }

    pub(crate) async fn send(&self, request: LoadStatsRequest) {
        self.requests.send(request).await.unwrap();
    }

    /// The next answer, which must come.
    pub(crate) async fn next(&mut self) -> LoadStatsResponse {
        let message = tokio::time::timeout(DEADLINE, self.responses.message()).await.expect("an answer comes in time");
        message.unwrap().expect("the stream goes on")
    }

    /// The status that the stream ends with, which it must.
    pub(crate) async fn end(&mut self) -> Status {
        let message = tokio::time::timeout(DEADLINE, self.responses.message()).await.expect("the stream ends in time");
        message.expect_err("the stream ends with a status")
    }

    /// Nothing comes.
    pub(crate) async fn silent(&mut self) {
        if let Ok(message) = tokio::time::timeout(SILENCE, self.responses.message()).await {
            panic!("nothing was to come: {message:?}");
        }
    }
}
