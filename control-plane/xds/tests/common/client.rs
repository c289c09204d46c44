//! A client of either variant, written by hand: it sends what the test says and reads what comes, and nothing by itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc;
use prost::Message;
use tidegate_xds::{Commit, ResourceType, ServeError, ServerConfig, Store};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

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

/// Publishes clusters under another type's name, perhaps: the type of the message does not matter to a server.
pub(crate) fn commit(store: &Store, resource_type: ResourceType, names: &[&str], content: &str) {
    let mut commit = Commit::default();
    for name in names {
        commit.upsert(resource_type, *name, &cluster(name, content));
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

/// A variant of the protocol, and how a client says in it what every client says.
pub(crate) trait Speaks: 'static {
    type Request: Message + Default + 'static;
    type Response: Got + Message + Default + Debug + 'static;

    /// The service and the method that carry one type alone, or all of them.
    fn path(only: Option<ResourceType>) -> String;
    fn request(resource_type: ResourceType, names: &[&str], node: Option<Node>) -> Self::Request;
    /// The answer to a response. State of the world repeats the names with it.
    fn answer(got: &Self::Response, names: &[&str], error: Option<rpc::Status>) -> Self::Request;
}

pub(crate) struct Delta;
pub(crate) struct Sotw;

/// Package, service, what its streams carry, and the name of its unary method.
pub(crate) fn service(only: ResourceType) -> (&'static str, &'static str, &'static str, &'static str) {
    match only {
        ResourceType::Cluster => ("cluster", "ClusterDiscoveryService", "Clusters", "FetchClusters"),
        ResourceType::Endpoint => ("endpoint", "EndpointDiscoveryService", "Endpoints", "FetchEndpoints"),
        ResourceType::Listener => ("listener", "ListenerDiscoveryService", "Listeners", "FetchListeners"),
        ResourceType::Route => ("route", "RouteDiscoveryService", "Routes", "FetchRoutes"),
        ResourceType::ExtensionConfig => {
            ("extension", "ExtensionConfigDiscoveryService", "ExtensionConfigs", "FetchExtensionConfigs")
        }
        ResourceType::Runtime => ("runtime", "RuntimeDiscoveryService", "Runtime", "FetchRuntime"),
    }
}

fn path(only: Option<ResourceType>, kind: &str) -> String {
    let Some(only) = only else {
        return format!("/envoy.service.discovery.v3.AggregatedDiscoveryService/{kind}AggregatedResources");
    };
    let (package, service, streams, _) = service(only);
    format!("/envoy.service.{package}.v3.{service}/{kind}{streams}")
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().copied().map(str::to_owned).collect()
}

impl Speaks for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn path(only: Option<ResourceType>) -> String {
        path(only, "Delta")
    }

    fn request(resource_type: ResourceType, names: &[&str], node: Option<Node>) -> DeltaDiscoveryRequest {
        let (type_url, resource_names_subscribe) = (resource_type.type_url().to_owned(), strings(names));
        DeltaDiscoveryRequest { node, type_url, resource_names_subscribe, ..Default::default() }
    }

    fn answer(got: &DeltaDiscoveryResponse, _: &[&str], error_detail: Option<rpc::Status>) -> DeltaDiscoveryRequest {
        let (type_url, response_nonce) = (got.type_url.clone(), got.nonce.clone());
        DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() }
    }
}

impl Speaks for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn path(only: Option<ResourceType>) -> String {
        path(only, "Stream")
    }

    fn request(resource_type: ResourceType, names: &[&str], node: Option<Node>) -> DiscoveryRequest {
        let (type_url, resource_names) = (resource_type.type_url().to_owned(), strings(names));
        DiscoveryRequest { node, type_url, resource_names, ..Default::default() }
    }

    fn answer(got: &DiscoveryResponse, names: &[&str], error_detail: Option<rpc::Status>) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: got.type_url.clone(),
            response_nonce: got.nonce.clone(),
            version_info: got.version_info.clone(),
            resource_names: strings(names),
            error_detail,
            ..Default::default()
        }
    }
}

pub(crate) struct Client<V: Speaks> {
    node: Option<Node>,
    requests: mpsc::Sender<V::Request>,
    responses: Opening<V::Response>,
}

/// The server's headers may come as late as its first response.
enum Opening<R> {
    Waiting(JoinHandle<Result<Streaming<R>, Status>>),
    Open(Box<Streaming<R>>),
}

impl Client<Delta> {
    /// Opens a delta ADS stream.
    pub(crate) async fn connect(address: SocketAddr, node_id: &str) -> Self {
        Self::open(address, node_id, None).await
    }

    /// Sends a request; the first of the stream bears the node, as Envoy's does.
    pub(crate) async fn send(&mut self, request: DeltaDiscoveryRequest) {
        let request = DeltaDiscoveryRequest { node: self.node.take(), ..request };
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn reconnect(&mut self, resource_type: ResourceType, names: &[&str], held: &[(&str, &str)]) {
        let held = held.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned()));
        let request = Delta::request(resource_type, names, None);
        self.send(DeltaDiscoveryRequest { initial_resource_versions: held.collect(), ..request }).await;
    }

    pub(crate) async fn ack(&mut self, got: &DeltaDiscoveryResponse) {
        self.answer(got, &[], None).await;
    }

    pub(crate) async fn nack(&mut self, got: &DeltaDiscoveryResponse, message: &str) {
        self.answer(got, &[], Some(message)).await;
    }
}

impl<V: Speaks> Client<V> {
    /// Opens a stream of the service that carries one type alone, or of the aggregated one.
    #[expect(clippy::disallowed_methods, reason = "ends with the stream that it opens")]
    pub(crate) async fn open(address: SocketAddr, node_id: &str, only: Option<ResourceType>) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (requests, receiver) = mpsc::channel(16);
        let opening = tokio::spawn(async move {
            let mut grpc = Grpc::new(channel).max_encoding_message_size(usize::MAX);
            grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            let path = V::path(only).parse().unwrap();
            let codec = ProstCodec::<V::Request, V::Response>::default();
            let requests = tonic::Request::new(ReceiverStream::new(receiver));
            grpc.streaming(requests, path, codec).await.map(tonic::Response::into_inner)
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

    /// Asks for these names: in delta for them too, in state of the world for them alone.
    pub(crate) async fn subscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        let request = V::request(resource_type, names, self.node.take());
        self.requests.send(request).await.unwrap();
    }

    /// Accepts or refuses a response; in state of the world with the names that are asked for.
    pub(crate) async fn answer(&mut self, got: &V::Response, names: &[&str], error: Option<&str>) {
        let error = error.map(|message| rpc::Status { code: 13, message: message.to_owned(), details: vec![] });
        self.requests.send(V::answer(got, names, error)).await.unwrap();
    }

    /// The next response, which must come.
    pub(crate) async fn next(&mut self) -> V::Response {
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

    async fn message(&mut self) -> Result<Option<V::Response>, Status> {
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
    /// What it brings. The type of the message does not matter to a server: these tests publish clusters alone.
    fn names(&self) -> Vec<String>;
    fn contents(&self) -> Vec<String>;
    fn resource_type(&self) -> ResourceType;
}

fn decoded(any: &Any) -> Cluster {
    Cluster::decode(any.value.as_slice()).unwrap()
}

impl Got for DeltaDiscoveryResponse {
    fn names(&self) -> Vec<String> {
        self.resources.iter().map(|resource| resource.name.clone()).collect()
    }

    fn contents(&self) -> Vec<String> {
        self.resources.iter().map(|it| decoded(it.resource.as_ref().unwrap()).alt_stat_name).collect()
    }

    fn resource_type(&self) -> ResourceType {
        ResourceType::from_type_url(&self.type_url).unwrap()
    }
}

impl Got for DiscoveryResponse {
    fn names(&self) -> Vec<String> {
        self.resources.iter().map(|any| decoded(any).name).collect()
    }

    fn contents(&self) -> Vec<String> {
        self.resources.iter().map(|any| decoded(any).alt_stat_name).collect()
    }

    fn resource_type(&self) -> ResourceType {
        ResourceType::from_type_url(&self.type_url).unwrap()
    }
}
