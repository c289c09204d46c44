//! Who may connect, how many may, and what those who may not cost the others. The server in-process on a free port, with
//! certificates made for each test.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pki;

use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest};
use envoy_types::pb::envoy::service::health::v3::HealthCheckRequestOrEndpointHealthResponse;
use envoy_types::pb::envoy::service::health::v3::health_discovery_service_client::HealthDiscoveryServiceClient;
use pki::{Authority, SERVER_NAME, channel, shake};
use tidegate_xds::{Beside, Commit, Connections, Posted, ResourceType, ServerConfig, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// How long anything may take on a busy machine before the test gives up.
const DEADLINE: Duration = Duration::from_secs(20);

struct Served {
    store: Store,
    address: SocketAddr,
    connections: Connections,
}

#[expect(clippy::disallowed_methods, reason = "a test's server ends with the test's runtime")]
async fn serve(config: ServerConfig) -> Served {
    let store = Store::new();
    commit(&store, "1");
    store.open();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = config.connections.clone();
    let served = store.clone();
    tokio::spawn(async move { tidegate_xds::serve(served, listener, config, std::future::pending()).await });
    Served { store, address, connections }
}

fn commit(store: &Store, content: &str) {
    let mut commit = Commit::default();
    let cluster = Cluster { name: "shop".to_owned(), alt_stat_name: content.to_owned(), ..Default::default() };
    commit.upsert(ResourceType::Cluster, "shop", &cluster);
    store.commit(commit);
}

/// An ADS stream that asked for all clusters and acknowledges what it gets.
struct Ads {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Ads {
    async fn open(channel: &Channel, node_id: &str) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(1);
        let node = Some(Node { id: node_id.to_owned(), ..Default::default() });
        let type_url = ResourceType::Cluster.type_url().to_owned();
        requests.send(DeltaDiscoveryRequest { node, type_url, ..Default::default() }).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel.clone());
        let responses = client.delta_aggregated_resources(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self { requests, responses })
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let message = tokio::time::timeout(DEADLINE, self.responses.message()).await.expect("a response comes in time");
        let response = message?.expect("the stream goes on");
        let (type_url, response_nonce) = (response.type_url.clone(), response.nonce.clone());
        self.requests.send(DeltaDiscoveryRequest { type_url, response_nonce, ..Default::default() }).await.unwrap();
        Ok(response)
    }
}

/// The first response, or why there is none.
async fn first_response(channel: &Channel, node_id: &str) -> Result<Ads, Status> {
    let opened = async {
        let mut ads = Ads::open(channel, node_id).await?;
        ads.next().await?;
        Ok(ads)
    };
    tokio::time::timeout(DEADLINE, opened).await.expect("an answer in time")
}

async fn wait_until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.expect("the condition comes true");
}

/// The server closes the connection; what it says before does not matter.
async fn closed(mut stream: impl AsyncReadExt + Unpin) {
    let mut sink = [0; 1024];
    let reading = async { while stream.read(&mut sink).await.is_ok_and(|bytes| bytes > 0) {} };
    tokio::time::timeout(DEADLINE, reading).await.expect("the connection is closed");
}

/// An authority for both sides, and a server with a certificate of it.
async fn serve_tls(config: ServerConfig) -> (Authority, Served) {
    let authority = Authority::new();
    let tls = authority.serve(&authority.sign(&[SERVER_NAME]));
    let served = serve(ServerConfig { tls: Some(tls), ..config }).await;
    (authority, served)
}

#[tokio::test]
async fn strangers_are_refused_with_the_handshake_and_disturb_nobody() {
    let (authority, Served { store, address, connections }) = serve_tls(ServerConfig::default()).await;
    let honest = channel(address, authority.trusted(Some(&authority.sign(&["edge-1"])))).await.unwrap();
    let mut ads = first_response(&honest, "edge-1").await.unwrap();

    let stranger = Authority::new().sign(&["edge-1"]);
    let expired = authority.sign_until(&["edge-1"], 2021);
    for (failed, shown) in [None, Some(&stranger), Some(&expired)].into_iter().enumerate() {
        let config = authority.trusted(shown);
        // In TLS 1.3 the client is done before the server has seen its certificate.
        if let Ok(stream) = shake(address, &config).await {
            closed(stream).await;
        }
        let refused = match channel(address, config).await {
            Ok(channel) => first_response(&channel, "edge-1").await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{failed}");
        wait_until(|| connections.handshakes_failed() >= 2 * (failed as u64 + 1)).await;
    }
    let failed = connections.handshakes_failed();
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closed(plain).await;
    wait_until(|| connections.handshakes_failed() > failed).await;

    assert_eq!((connections.open(), store.clients().len()), (1, 1));
    commit(&store, "2");
    assert_eq!(ads.next().await.unwrap().resources.len(), 1);
}

#[tokio::test]
async fn a_node_that_the_certificate_does_not_name_is_denied() {
    let (authority, Served { store, address, connections }) = serve_tls(ServerConfig::default()).await;
    let names = ["edge-1.example", "spiffe://shop.example/edge/edge-2"];
    let channel = channel(address, authority.trusted(Some(&authority.sign(&names)))).await.unwrap();
    for (index, node_id) in ["edge-3", "", "shop.example"].into_iter().enumerate() {
        let denied = first_response(&channel, node_id).await.err().expect("it is denied");
        assert_eq!(denied.code(), Code::PermissionDenied);
        for named in names.iter().chain([&node_id]) {
            assert!(denied.message().contains(named), "{named}: {}", denied.message());
        }
        assert_eq!((connections.denied(), store.clients().len()), (index as u64 + 1, 0));
    }
    // The same connection, and all that it may be.
    for node_id in ["edge-1.example", "edge-2", "spiffe://shop.example/edge/edge-2"] {
        assert!(first_response(&channel, node_id).await.is_ok(), "{node_id}");
    }
}

#[tokio::test]
async fn another_method_needs_a_certificate_too_and_is_unimplemented() {
    let (authority, Served { address, .. }) = serve_tls(ServerConfig::default()).await;
    let known = channel(address, authority.trusted(Some(&authority.sign(&["edge-1"])))).await.unwrap();
    let unknown = channel(address, authority.trusted(None)).await;
    let fetch = async |channel: Channel| {
        let mut clusters = ClusterDiscoveryServiceClient::new(channel.clone());
        let fetched = clusters.fetch_clusters(DiscoveryRequest::default()).await.map(drop);
        let mut health = HealthDiscoveryServiceClient::new(channel);
        let checked = health.fetch_health_check(HealthCheckRequestOrEndpointHealthResponse::default()).await.map(drop);
        [fetched, checked].map(|result| result.unwrap_err().code())
    };
    assert_eq!(fetch(known).await, [Code::Unimplemented; 2]);
    if let Ok(unknown) = unknown {
        for code in fetch(unknown).await {
            assert_ne!(code, Code::Unimplemented, "a method was reached without a certificate");
        }
    }
}

#[tokio::test]
async fn a_renewed_certificate_serves_new_connections_and_old_streams_live_on() {
    let authority = Authority::new();
    let (old, new) = (authority.sign(&[SERVER_NAME]), authority.sign(&[SERVER_NAME]));
    let tls = authority.serve(&old);
    let Served { store, address, .. } = serve(ServerConfig { tls: Some(tls.clone()), ..Default::default() }).await;
    let trusted = authority.trusted(Some(&authority.sign(&["edge-1"])));
    let channel = channel(address, trusted.clone()).await.unwrap();
    let mut ads = first_response(&channel, "edge-1").await.unwrap();
    let seen = async || {
        let stream = shake(address, &trusted).await.unwrap();
        let shown = stream.get_ref().1.peer_certificates().unwrap();
        [&old, &new].map(|signed| pem::parse(&signed.cert) == shown[0])
    };
    assert_eq!(seen().await, [true, false]);

    let successor = Authority::new();
    assert!(tls.replace(successor.pem(&old)).is_ok() && tls.replace(authority.pem(&new)).is_ok());
    assert_eq!(seen().await, [false, true]);
    let mismatched = pki::Signed { cert: old.cert.clone(), key: new.key.clone() };
    assert!(tls.replace(authority.pem(&mismatched)).is_err());
    assert_eq!(seen().await, [false, true], "what cannot be used changes nothing");
    commit(&store, "2");
    assert_eq!(ads.next().await.unwrap().resources.len(), 1);

    // A new client CA: who shows a certificate of the old one can connect no more.
    tls.replace(successor.pem(&new)).unwrap();
    closed(shake(address, &trusted).await.unwrap()).await;
    commit(&store, "3");
    assert_eq!(ads.next().await.unwrap().resources.len(), 1);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_there_is_room_when_one_leaves() {
    let config = ServerConfig { max_connections: 2, ..Default::default() };
    let (authority, Served { address, connections, .. }) = serve_tls(config).await;
    let trusted = authority.trusted(Some(&authority.sign(&["edge-1"])));
    let channels = [channel(address, trusted.clone()).await.unwrap(), channel(address, trusted.clone()).await.unwrap()];
    let [first, second] = &channels;
    let _streams = [first_response(first, "edge-1").await.unwrap(), first_response(second, "edge-1").await.unwrap()];
    assert_eq!((connections.open(), connections.refused()), (2, 0));

    closed(shake(address, &trusted).await.unwrap()).await;
    assert_eq!((connections.open(), connections.refused()), (2, 1));
    // Those who do not come through the handshake take no place, and get no word of the limit.
    let _silent = TcpStream::connect(address).await.unwrap();

    drop((_streams, channels));
    wait_until(|| connections.open() < 2).await;
    let channel = channel(address, trusted).await.unwrap();
    assert!(first_response(&channel, "edge-1").await.is_ok());
    assert_eq!(connections.refused(), 1);
}

#[tokio::test]
async fn silent_connections_delay_nobody_and_do_not_stay() {
    let config = ServerConfig { handshake_timeout: Duration::from_secs(2), ..Default::default() };
    let (authority, Served { address, connections, .. }) = serve_tls(config).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let trusted = authority.trusted(Some(&authority.sign(&["edge-1"])));
    let channel = channel(address, trusted).await.unwrap();
    assert!(first_response(&channel, "edge-1").await.is_ok());
    assert!(connections.handshakes_failed() < 300, "served before the silent ones were out of time");
    wait_until(|| connections.handshakes_failed() == 300).await;
    closed(silent.swap_remove(0)).await;
    assert_eq!(connections.open(), 1);
}

#[tokio::test]
async fn more_handshakes_than_may_be_end_the_oldest() {
    let config = ServerConfig { handshake_timeout: 10 * DEADLINE, ..Default::default() };
    let (authority, Served { address, connections, .. }) = serve_tls(config).await;
    let oldest = TcpStream::connect(address).await.unwrap();
    let mut silent = Vec::new();
    // 1024 may be. The backlog of a listener is as long, so they come in turns.
    for _ in 0..1024 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    closed(oldest).await;
    let trusted = authority.trusted(Some(&authority.sign(&["edge-1"])));
    let channel = channel(address, trusted).await.unwrap();
    assert!(first_response(&channel, "edge-1").await.is_ok());
    wait_until(|| connections.handshakes_failed() == 2).await;
}

#[tokio::test]
async fn who_says_nothing_after_the_handshake_is_closed_and_its_place_is_free() {
    let config = ServerConfig { handshake_timeout: Duration::from_millis(300), ..Default::default() };
    let (authority, tls) = serve_tls(config.clone()).await;
    let plain = serve(ServerConfig { connections: Connections::default(), ..config }).await;
    let client = authority.trusted(Some(&authority.sign(&["edge-1"])));
    closed(shake(tls.address, &client).await.unwrap()).await;
    closed(TcpStream::connect(plain.address).await.unwrap()).await;
    let mut drip = TcpStream::connect(plain.address).await.unwrap();
    drip.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    closed(drip).await;
    wait_until(|| tls.connections.open() + plain.connections.open() == 0).await;
}

#[tokio::test]
async fn streams_of_a_connection_and_their_headers_are_bounded() {
    let config = ServerConfig { max_streams_per_connection: 1, max_header_list_bytes: 4 << 10, ..Default::default() };
    let Served { store, address, .. } = serve(config).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let first = first_response(&channel, "edge-1").await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(200), Ads::open(&channel, "edge-2")).await;
    assert!(waiting.is_err(), "a second stream waits at the client");
    assert_eq!(store.clients().len(), 1);
    drop(first);
    wait_until(|| store.clients().is_empty()).await;

    let mut request = tonic::Request::new(DiscoveryRequest::default());
    request.metadata_mut().insert("x-long", "x".repeat(5 << 10).parse().unwrap());
    let refused = ClusterDiscoveryServiceClient::new(channel.clone()).fetch_clusters(request).await.unwrap_err();
    assert_ne!(refused.code(), Code::Unimplemented, "it was read: {refused}");
    assert!(first_response(&channel, "edge-1").await.is_ok());
}

mod pem {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;

    pub(super) fn parse(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }
}

/// The status that a POST of this body to this path is answered with.
async fn post(channel: &Channel, method: &str, path: &str, body: &'static [u8]) -> u16 {
    let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from_static(body)));
    let request = http::Request::builder().method(method).uri(path).body(body).unwrap();
    let answer = tower::ServiceExt::oneshot(channel.clone(), request);
    tokio::time::timeout(DEADLINE, answer).await.expect("an answer in time").unwrap().status().as_u16()
}

/// A place that takes the word of the node that its body names.
fn beside() -> ServerConfig {
    let beside = Beside::new("/word", 8, |posted: Posted| {
        let may_be = posted.may_be(std::str::from_utf8(&posted.body).unwrap_or_default());
        if may_be { http::StatusCode::NO_CONTENT } else { http::StatusCode::FORBIDDEN }
    });
    ServerConfig { beside: vec![beside], ..ServerConfig::default() }
}

#[tokio::test]
async fn what_is_served_beside_knows_whom_the_certificate_names() {
    let (authority, Served { address, connections, .. }) = serve_tls(beside()).await;
    let channel = channel(address, authority.trusted(Some(&authority.sign(&["edge-1"])))).await.unwrap();
    assert_eq!(post(&channel, "POST", "/word", b"edge-1").await, 204);
    assert_eq!(post(&channel, "POST", "/word", b"edge-2").await, 403, "another node's word");
    assert_eq!(connections.denied(), 1);
    first_response(&channel, "edge-1").await.expect("xDS goes by the same connection");
}

#[tokio::test]
async fn what_is_served_beside_is_bounded_and_leaves_xds_alone() {
    let Served { address, .. } = serve(beside()).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    assert_eq!(post(&channel, "POST", "/word", b"anybody").await, 204, "without TLS everyone may be everybody");
    assert_eq!(post(&channel, "POST", "/word", b"123456789").await, 413);
    assert_eq!(post(&channel, "GET", "/word", b"").await, 405);
    assert_eq!(post(&channel, "POST", "/words", b"").await, 200, "gRPC's own answer: no such service");
    first_response(&channel, "edge-1").await.expect("xDS goes by the same connection");
}
