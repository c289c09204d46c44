//! The gRPC side: accepts connections, knows which method is which, and moves messages between a stream and its
//! session. What to say and when is the session's business.

mod incoming;
mod stream;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::{info, warn};

pub use self::incoming::Connections;
use crate::codec::DeltaCodec;
use crate::server::incoming::{incoming, peer};
use crate::server::stream::Stream;
use crate::session::{self, Limits};
use crate::store::Store;
use crate::tls::ServerTls;

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const STATE_OF_THE_WORLD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// The limits of a server. The defaults suit Envoy.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// How long a client may take to answer a response before the stream goes on without the answer. 10 s: Envoy holds
    /// back its ACK of clusters until they are warm, which may take as long as their `initial_fetch_timeout`.
    pub ack_timeout: Duration,
    /// Where a response is cut in two. 2 MiB: below the 4 MiB that gRPC clients accept by default. A single resource
    /// may be longer.
    pub max_response_bytes: usize,
    /// The longest request. 32 MiB: on reconnect a client lists the version of everything that it has.
    pub max_request_bytes: usize,
    /// Mutual TLS, and with it a node id that is bound to the client's certificate; `None`: plain text, for which who
    /// may connect has to be settled elsewhere (loopback).
    pub tls: Option<ServerTls>,
    /// Connections at a time; more are closed at once. 10,000: twice the edges that the budgets speak of, some 170 MiB
    /// at the 17 KiB that an idle one without TLS takes. The process needs as many open files.
    pub max_connections: usize,
    /// HTTP/2 streams at a time on one connection; more wait at the client. 100: the least that RFC 9113 recommends,
    /// and an Envoy needs one, or one a type.
    pub max_streams_per_connection: u32,
    /// How long the TLS handshake may take, and how long a client may then be silent. 5 s: three round trips and a
    /// signature, at any distance and on a busy machine.
    pub handshake_timeout: Duration,
    /// The longest list of headers. 16 KiB: some twenty times what Envoy sends.
    pub max_header_list_bytes: u32,
    /// How often an idle connection is probed, and how long it may take to answer, so that a client that vanished is
    /// not kept. 4 s and 10 s: noticed after 14 s at most, and an Envoy whose main thread is busy with thousands of new
    /// clusters answers late and is not gone. 2,000 idle connections cost 1.6 % of a core.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// Counts what becomes of connections.
    pub connections: Connections,
    /// How long connections have to end once the server shuts down.
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(10),
            max_response_bytes: 2 << 20,
            max_request_bytes: 32 << 20,
            tls: None,
            max_connections: 10_000,
            max_streams_per_connection: 100,
            handshake_timeout: Duration::from_secs(5),
            max_header_list_bytes: 16 << 10,
            keepalive_interval: Duration::from_secs(4),
            keepalive_timeout: Duration::from_secs(10),
            connections: Connections::default(),
            drain_timeout: Duration::from_secs(2),
        }
    }
}

/// Why a server ended other than by its shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("reading the address of the xDS listener")]
    Listener(#[source] std::io::Error),
    #[error("serving xDS")]
    Transport(#[source] tonic::transport::Error),
}

/// Serves a store on a listener until `shutdown` resolves. Streams are then told that the server is unavailable, so
/// that clients keep what they have and come back.
pub async fn serve(
    store: Store,
    listener: TcpListener,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr().map_err(ServeError::Listener)?;
    let (stop, stopping) = watch::channel(false);
    let service = AggregatedDiscovery { store, config: config.clone(), stopping: stopping.clone() };
    let incoming = incoming(listener, &config);
    let mut stopped = stopping.clone();
    let serving = Server::builder()
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
        .max_concurrent_streams(config.max_streams_per_connection)
        .http2_max_header_list_size(config.max_header_list_bytes)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the other end is gone, and with it this server.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
    info!(%address, tls = config.tls.is_some(), "xDS is served");

    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map_err(ServeError::Transport),
        () = shutdown => {}
    }
    stop.send_replace(true);
    info!(%address, "xDS is shutting down");
    match tokio::time::timeout(config.drain_timeout, serving).await {
        Ok(ended) => ended.map_err(ServeError::Transport),
        Err(_) => {
            warn!(%address, "xDS connections did not end in time");
            Ok(())
        }
    }
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`, written by hand for the sake of its codec.
#[derive(Clone, Debug)]
struct AggregatedDiscovery {
    store: Store,
    config: ServerConfig,
    stopping: watch::Receiver<bool>,
}

impl NamedService for AggregatedDiscovery {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tonic::codegen::Service<http::Request<Body>> for AggregatedDiscovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                DELTA => {
                    let max_request_bytes = service.config.max_request_bytes;
                    Grpc::new(DeltaCodec)
                        .apply_max_message_size_config(Some(max_request_bytes), None)
                        .streaming(service, request)
                        .await
                }
                STATE_OF_THE_WORLD => {
                    Status::unimplemented("state-of-the-world ADS is not served: use api_type DELTA_GRPC").into_http()
                }
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

impl StreamingService<DeltaDiscoveryRequest> for AggregatedDiscovery {
    type Response = session::Response;
    type ResponseStream = BoxStream<'static, Result<session::Response, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let limits =
            Limits { ack_timeout: self.config.ack_timeout, max_response_bytes: self.config.max_response_bytes };
        let (peer, pass) = peer(&request);
        let stream = Stream::new(self.store.clone(), limits, peer, pass, request.into_inner(), self.stopping.clone());
        Box::pin(async move { Ok(Response::new(stream.run())) })
    }
}
