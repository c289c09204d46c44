//! The gRPC side: accepts connections, knows which method is which, and moves messages between a stream and its
//! session. What to say and when is the session's business.

mod beside;
mod frames;
pub(crate) mod incoming;
mod stall;
mod stream;

use std::convert::Infallible;
use std::future::Future;
use std::task::{Context, Poll};
use std::time::Duration;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::transport::Server;
use tower::layer::layer_fn;
use tracing::{info, warn};

pub use self::beside::{Beside, Posted};
pub use self::incoming::Connections;
use crate::codec::{Asks, Listed};
use crate::load;
use crate::pace::Rate;
use crate::resource::{ResourceType, TypeSet, Variant};
use crate::server::beside::Besides;
use crate::server::frames::{Requests, Responses};
use crate::server::incoming::{incoming, line, peer};
use crate::server::stall::{Stalls, Watched};
use crate::server::stream::Stream;
use crate::session::{Limits, Protocol};
use crate::store::Store;
use crate::tls::ServerTls;

/// The limits of a server. The defaults suit Envoy.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// How long a client may take to answer a response before the stream goes on without the answer. 10 s: Envoy holds
    /// back its ACK of clusters until they are warm, which may take as long as their `initial_fetch_timeout`.
    pub ack_timeout: Duration,
    /// How long a client may leave a response unanswered, or not take it, before its stream is closed: it is stuck, and
    /// what waits for it costs memory. 30 s, well above any warming that ends. What stands still in the connection
    /// itself is closed with the connection, an eighth later at most.
    pub stall_timeout: Duration,
    /// How often changes of one type are sent to one stream, in a storm of commits: the first eight at once, then one
    /// response each 50 ms, which holds what came meanwhile. Removals, urgent commits and answers to requests do not
    /// wait.
    pub coalesce: Duration,
    /// The types of which a first request without names asks for everything, as it did before `*` was invented: clusters
    /// and listeners. Switch it off for clients that mean "nothing" by it.
    pub legacy_wildcard: TypeSet,
    /// Where a response is cut in two. 768 KiB: of a client that does not read, two wait in its connection, and they are
    /// to take less than 2 MB. A single resource may be longer, and so may what state of the world has to send whole.
    pub max_response_bytes: usize,
    /// How many names a stream may ask for, and how many bytes they may have together.
    pub max_names: usize,
    pub max_name_bytes: usize,
    /// How many requests a stream may send a second, in the long run; ten times as many at once. An Envoy that starts
    /// with 10,000 clusters sends some thousands.
    pub max_requests_per_second: u32,
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
    /// How often the kernel probes an idle connection, in whole seconds, and how long nothing may be acknowledged, so
    /// that a client that vanished is not kept. 4 s and 10 s: noticed after 14 s, and after 24 s at most, for what is sent just
    /// before the probes' time is over has a time of its own. Less would end clients that are too busy to read: Linux counts
    /// the time that they take nothing, too. It is the other end's kernel that answers: neither a client nor a server that is busy is taken for dead, and idle connections cost nothing.
    /// A client that hangs is [`stall_timeout`](Self::stall_timeout)'s business.
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    /// What is served beside xDS, by path.
    pub beside: Vec<Beside>,
    /// Counts what becomes of connections.
    pub connections: Connections,
    /// How long connections have to end once the server shuts down.
    pub drain_timeout: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            coalesce: Duration::from_millis(50),
            legacy_wildcard: TypeSet::of(&[ResourceType::Cluster, ResourceType::Listener]),
            max_response_bytes: 768 << 10,
            max_names: 100_000,
            max_name_bytes: 16 << 20,
            max_requests_per_second: 1000,
            max_request_bytes: 32 << 20,
            tls: None,
            max_connections: 10_000,
            max_streams_per_connection: 100,
            handshake_timeout: Duration::from_secs(5),
            max_header_list_bytes: 16 << 10,
            keepalive_interval: Duration::from_secs(4),
            keepalive_timeout: Duration::from_secs(10),
            beside: Vec::new(),
            connections: Connections::default(),
            drain_timeout: Duration::from_secs(2),
        }
    }
}

/// Streams of a connection that the client has reset before they were looked at (rapid reset); one more closes it. The
/// default of h2.
const MAX_PENDING_RESETS: usize = 20;

/// Streams of a connection that were reset because of what the client sent; one more closes it. The default of hyper.
const MAX_RESETS: usize = 1024;

/// How many changes of a type are sent at once after a quiet time: a container that starts is several.
const BURST: u32 = 8;

impl ServerConfig {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            ack_timeout: self.ack_timeout,
            max_response_bytes: self.max_response_bytes,
            changes: Rate { interval: self.coalesce, burst: BURST },
            max_names: self.max_names,
            max_name_bytes: self.max_name_bytes,
            legacy_wildcard: self.legacy_wildcard,
        }
    }

    fn requests(&self) -> Rate {
        let per_second = self.max_requests_per_second.max(1);
        Rate { interval: Duration::from_secs(1) / per_second, burst: per_second.saturating_mul(10) }
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
    let discovery = Discovery { store, config: config.clone(), stopping: stopping.clone() };
    let stalls = Stalls::new(config.connections.clone());
    let incoming = incoming(listener, &config, &stalls);
    let (watched, places) = (stalls.clone(), config.beside.clone());
    let mut stopped = stopping.clone();
    let serving = Server::builder()
        .max_concurrent_streams(config.max_streams_per_connection)
        // Said here, for what is not said is unlimited: the second.
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_RESETS))
        .http2_max_header_list_size(config.max_header_list_bytes)
        .layer(layer_fn(move |service| Watched {
            service: Besides { service, places: places.clone() },
            stalls: watched.clone(),
        }))
        .add_service(Service::<ADS>(discovery.clone()))
        .add_service(Service::<0>(discovery.clone()))
        .add_service(Service::<1>(discovery.clone()))
        .add_service(Service::<2>(discovery.clone()))
        .add_service(Service::<3>(discovery.clone()))
        .add_service(Service::<4>(discovery.clone()))
        .add_service(Service::<5>(discovery))
        .add_service(load)
        .serve_with_incoming_shutdown(incoming, async move {
            // An error means that the other end is gone, and with it this server.
            let _ = stopped.wait_for(|stop| *stop).await;
        });
    info!(%address, tls = config.tls.is_some(), "xDS is served");

    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        ended = &mut serving => return ended.map_err(ServeError::Transport),
        never = stalls.watch(config.stall_timeout) => match never {},
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

/// What all services share.
#[derive(Clone, Debug)]
struct Discovery {
    store: Store,
    config: ServerConfig,
    stopping: watch::Receiver<bool>,
}

/// The place of the aggregated service behind those of [`ResourceType::ALL`].
const ADS: usize = ResourceType::ALL.len();

/// One discovery service, written by hand for the sake of its codec: that of `ResourceType::ALL[OF]`, or the aggregated
/// one. What they do not have, such as the unary methods, is unimplemented.
#[derive(Clone, Debug)]
struct Service<const OF: usize>(Discovery);

impl<const OF: usize> Service<OF> {
    const ONLY: Option<ResourceType> = if OF == ADS { None } else { Some(ResourceType::ALL[OF]) };
    const NAMES: (&'static str, &'static str, &'static str) = match Self::ONLY {
        Some(only) => only.service(),
        None => (
            "envoy.service.discovery.v3.AggregatedDiscoveryService",
            "StreamAggregatedResources",
            "DeltaAggregatedResources",
        ),
    };
}

impl<const OF: usize> NamedService for Service<OF> {
    const NAME: &'static str = Self::NAMES.0;
}

impl<const OF: usize> tonic::codegen::Service<http::Request<Body>> for Service<OF> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let discovery = self.0.clone();
        let (_, sotw, delta) = Self::NAMES;
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let protocol = |variant| Protocol { variant, only: Self::ONLY };
        let response = if method == delta {
            discovery.stream::<DeltaDiscoveryRequest>(protocol(Variant::Delta), request)
        } else if method == sotw {
            discovery.stream::<Listed>(protocol(Variant::Sotw), request)
        } else {
            Status::unimplemented("xDS is served as streams alone: there is no such method").into_http()
        };
        std::future::ready(Ok(response))
    }
}

impl Discovery {
    fn stream<R: Asks>(self, protocol: Protocol, request: http::Request<Body>) -> http::Response<Body> {
        let Self { store, config, stopping } = self;
        let (from, line) = (peer(request.extensions()), line(request.extensions()));
        let requests = Requests::<R>::new(request.into_body(), config.max_request_bytes);
        let stream = Stream::new(store, &config, protocol, from, line, requests, stopping);
        Responses::new(stream.run()).into_http()
    }
}
