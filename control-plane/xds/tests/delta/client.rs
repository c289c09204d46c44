//! A delta client written by hand: it sends what the test says and reads what comes, and nothing by itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc;
use tidegate_xds::{ResourceType, ServeError, ServerConfig, Store};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// How long anything may take on a busy machine before the test gives up.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long silence is listened to.
const SILENCE: Duration = Duration::from_millis(100);

pub(crate) struct Served {
    pub(crate) store: Store,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: oneshot::Sender<()>,
    pub(crate) serving: JoinHandle<Result<(), ServeError>>,
}

pub(crate) async fn serve() -> Served {
    serve_with(ServerConfig::default()).await
}

#[expect(clippy::disallowed_methods, reason = "a test's server ends with the test's runtime")]
pub(crate) async fn serve_with(config: ServerConfig) -> Served {
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
        tidegate_xds::serve(served, listener, config, stopped).await
    });
    Served { store, address, shutdown, serving }
}

pub(crate) fn cluster(name: &str, content: &str) -> Cluster {
    Cluster { name: name.to_owned(), alt_stat_name: content.to_owned(), ..Default::default() }
}

pub(crate) async fn wait_until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.expect("the condition comes true");
}

pub(crate) struct Client {
    node: Option<Node>,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Opening,
}

/// The server's headers may come as late as its first response.
enum Opening {
    Waiting(JoinHandle<Result<Streaming<DeltaDiscoveryResponse>, Status>>),
    Open(Box<Streaming<DeltaDiscoveryResponse>>),
}

impl Client {
    #[expect(clippy::disallowed_methods, reason = "ends with the stream that it opens")]
    pub(crate) async fn connect(address: SocketAddr, node_id: &str) -> Self {
        let mut ads = AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.unwrap();
        let (requests, receiver) = mpsc::channel(16);
        let opening = tokio::spawn(async move {
            ads.delta_aggregated_resources(ReceiverStream::new(receiver)).await.map(tonic::Response::into_inner)
        });
        let node = Node {
            id: node_id.to_owned(),
            cluster: "edge".to_owned(),
            user_agent_name: "test".to_owned(),
            user_agent_version_type: Some(UserAgentVersionType::UserAgentVersion("1.2.3".to_owned())),
            ..Default::default()
        };
        Self { node: Some(node), requests, responses: Opening::Waiting(opening) }
    }

    /// Sends a request; the first of the stream bears the node, as Envoy's does.
    pub(crate) async fn send(&mut self, request: DeltaDiscoveryRequest) {
        let request = DeltaDiscoveryRequest { node: self.node.take(), ..request };
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn subscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        self.reconnect(resource_type, names, &[]).await;
    }

    pub(crate) async fn reconnect(&mut self, resource_type: ResourceType, names: &[&str], held: &[(&str, &str)]) {
        self.send(DeltaDiscoveryRequest {
            type_url: resource_type.type_url().to_owned(),
            resource_names_subscribe: names.iter().copied().map(str::to_owned).collect(),
            initial_resource_versions: held
                .iter()
                .map(|(name, version)| ((*name).to_owned(), (*version).to_owned()))
                .collect(),
            ..Default::default()
        })
        .await;
    }

    pub(crate) async fn ack(&mut self, got: &DeltaDiscoveryResponse) {
        self.answer(got, None).await;
    }

    pub(crate) async fn nack(&mut self, got: &DeltaDiscoveryResponse, message: &str) {
        self.answer(got, Some(rpc::Status { code: 13, message: message.to_owned(), details: vec![] })).await;
    }

    async fn answer(&mut self, got: &DeltaDiscoveryResponse, error_detail: Option<rpc::Status>) {
        self.send(DeltaDiscoveryRequest {
            type_url: got.type_url.clone(),
            response_nonce: got.nonce.clone(),
            error_detail,
            ..Default::default()
        })
        .await;
    }

    /// The next response, which must come.
    pub(crate) async fn next(&mut self) -> DeltaDiscoveryResponse {
        let message = tokio::time::timeout(DEADLINE, self.message()).await.expect("a response comes in time");
        message.unwrap().expect("the stream goes on")
    }

    /// The status that the stream ends with, which it must.
    pub(crate) async fn end(&mut self) -> Status {
        let message = tokio::time::timeout(DEADLINE, self.message()).await.expect("the stream ends in time");
        message.expect_err("the stream ends with a status")
    }

    /// Nothing comes.
    pub(crate) async fn silent(&mut self) {
        if let Ok(message) = tokio::time::timeout(SILENCE, self.message()).await {
            panic!("nothing was to come: {message:?}");
        }
    }

    pub(crate) async fn message(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        if let Opening::Waiting(opening) = &mut self.responses {
            let responses = opening.await.unwrap()?;
            self.responses = Opening::Open(Box::new(responses));
        }
        match &mut self.responses {
            Opening::Open(responses) => responses.message().await,
            Opening::Waiting(_) => unreachable!("it has just been opened"),
        }
    }
}

pub(crate) trait Got {
    fn names(&self) -> Vec<&str>;
    fn resource_type(&self) -> ResourceType;
}

impl Got for DeltaDiscoveryResponse {
    fn names(&self) -> Vec<&str> {
        self.resources.iter().map(|resource| resource.name.as_str()).collect()
    }

    fn resource_type(&self) -> ResourceType {
        ResourceType::from_type_url(&self.type_url).unwrap()
    }
}
