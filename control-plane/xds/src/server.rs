//! The gRPC side: accepts connections, knows which method is which, and moves messages between a stream and its
//! session. What to say and when is the session's business.

mod stream;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use crate::codec::DeltaCodec;
use crate::load;
use crate::server::stream::Stream;
use crate::session::{self, Limits};
use crate::store::Store;

const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const STATE_OF_THE_WORLD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";

/// How long to wait after a connection could not be accepted: when files run out, trying again at once only burns the
/// processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    /// How often an idle connection is probed, and how long it may take to answer, so that a client that vanished is
    /// not kept.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// How long connections have to end once the server shuts down.
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(10),
            max_response_bytes: 2 << 20,
            max_request_bytes: 32 << 20,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
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
    let load = load::service(store.clone(), stopping.clone());
    let service = AggregatedDiscovery { store, config: config.clone(), stopping: stopping.clone() };
    let incoming = TcpListenerStream::new(listener).filter_map(|accepted| async {
        match accepted {
            Ok(stream) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a connection went away before it was set up");
                }
                Some(Ok::<_, Infallible>(stream))
            }
            Err(error) => {
                warn!(%error, "an xDS connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                None
            }
        }
    });
    let mut stopped = stopping.clone();
    let serving = Server::builder()
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .http2_keepalive_timeout(Some(config.keepalive_timeout))
        .add_service(service)
        .add_service(load)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the other end is gone, and with it this server.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
    info!(%address, "xDS is served");

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
        let peer = request.remote_addr();
        let stream = Stream::new(self.store.clone(), limits, peer, request.into_inner(), self.stopping.clone());
        Box::pin(async move { Ok(Response::new(stream.run())) })
    }
}
