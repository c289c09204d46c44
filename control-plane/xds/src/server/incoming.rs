//! Connections: accepts them, shakes hands with each in a task of its own, and counts them. A peer that is silent, slow
//! or not allowed costs a place among those that wait, never an honest client's time. Knows nothing of gRPC.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{self, Stream};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Status;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::server::ServerConfig;
use crate::server::stall::{Line, Stalls};
use crate::tls::{PeerIdentity, ServerTls, shown};

/// How long to wait after a connection could not be accepted: when files run out, trying again at once only burns the
/// processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// TLS handshakes at a time. One more ends the oldest: who shakes hands honestly is done long before a thousand others
/// have come.
const MAX_HANDSHAKES: usize = 1024;

/// What every HTTP/2 client says first (RFC 9113, 3.4), in bytes. From then on it is watched by others.
const PREFACE: usize = 24;

/// What a server counts of its connections. Clones count together: keep one beside the [`ServerConfig`] that has it.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    refused: AtomicU64,
    handshakes_failed: AtomicU64,
    denied: AtomicU64,
    stalled: AtomicU64,
    over_limit: AtomicU64,
}

impl Connections {
    /// Those that are open now, without those that still shake hands.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Those that were closed because [`ServerConfig::max_connections`] were open.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Those that ended in the TLS handshake: no certificate, a wrong one, no TLS at all, too slow.
    #[must_use]
    pub fn handshakes_failed(&self) -> u64 {
        self.0.handshakes_failed.load(Ordering::Relaxed)
    }

    /// Streams that were closed because the certificate does not name the node.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.0.denied.load(Ordering::Relaxed)
    }

    /// Streams that were closed, with their connection if need be, because the client did not answer for
    /// [`ServerConfig::stall_timeout`] or did not take what it was sent.
    #[must_use]
    pub fn stalled(&self) -> u64 {
        self.0.stalled.load(Ordering::Relaxed)
    }

    /// Streams that were closed because of a limit: requests that are too many or too long, names that are.
    #[must_use]
    pub fn over_limit(&self) -> u64 {
        self.0.over_limit.load(Ordering::Relaxed)
    }

    pub(super) fn count_stalled(&self) {
        self.0.stalled.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_over_limit(&self) {
        self.0.over_limit.fetch_add(1, Ordering::Relaxed);
    }
}

/// Who is at the other end; in the extensions of each request.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    address: SocketAddr,
    /// `None` without TLS.
    pass: Option<Pass>,
    line: Line,
}

impl Peer {
    pub(super) fn line(&self) -> &Line {
        &self.line
    }
}

/// What a client has shown; says which nodes it may be.
#[derive(Clone, Debug)]
pub(crate) struct Pass {
    identity: PeerIdentity,
    counts: Connections,
    /// Whether it was logged that this connection's certificate does not do: it will be tried again and again.
    told: Arc<AtomicBool>,
}

impl Pass {
    /// Holds the node id of a stream's first request against the certificate.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, with both, when the certificate does not name the node.
    pub(crate) fn check(&self, node_id: &str) -> Result<(), Status> {
        if self.identity.allows(node_id) {
            return Ok(());
        }
        self.counts.0.denied.fetch_add(1, Ordering::Relaxed);
        let (node_id, names) = (shown(node_id), self.identity.to_string());
        if !self.told.swap(true, Ordering::Relaxed) {
            warn!(node = node_id, certificate = names, "an xDS client is not the node that it says");
        }
        let reason = format!("the node id {node_id:?} is none that the client's certificate names: {names}");
        Err(Status::permission_denied(reason))
    }
}

/// Whose request it is, by its extensions, if it came over a [`Connection`].
pub(crate) fn peer(extensions: &http::Extensions) -> (Option<SocketAddr>, Option<Pass>) {
    match extensions.get::<Peer>() {
        Some(peer) => (Some(peer.address), peer.pass.clone()),
        None => (None, None),
    }
}

/// Where a request came in; `None` if not over a [`Connection`].
pub(super) fn line(extensions: &http::Extensions) -> Option<Line> {
    extensions.get::<Peer>().map(|peer| peer.line.clone())
}

/// Every connection that is ready to speak HTTP/2.
pub(super) fn incoming(
    listener: TcpListener,
    config: &ServerConfig,
    stalls: &Stalls,
) -> impl Stream<Item = Result<Connection, Infallible>> + use<> {
    let acceptor = Acceptor {
        listener,
        tls: config.tls.clone(),
        handshake_timeout: config.handshake_timeout,
        keepalive: (config.keepalive_interval, config.keepalive_timeout),
        stalls: stalls.clone(),
        max_connections: config.max_connections,
        slots: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
        counts: config.connections.clone(),
        handshakes: JoinSet::new(),
        pending: VecDeque::new(),
        full: false,
    };
    stream::unfold(acceptor, |mut acceptor| async move { Some((Ok(acceptor.next().await), acceptor)) })
}

struct Acceptor {
    listener: TcpListener,
    tls: Option<ServerTls>,
    handshake_timeout: Duration,
    /// The interval and the timeout.
    keepalive: (Duration, Duration),
    stalls: Stalls,
    max_connections: usize,
    slots: Arc<Semaphore>,
    counts: Connections,
    handshakes: JoinSet<Result<(TlsStream<TcpStream>, SocketAddr), Failed>>,
    /// The handshakes that may still go on, oldest first.
    pending: VecDeque<AbortHandle>,
    /// Whether it was said that there is no room.
    full: bool,
}

/// A handshake that came to nothing.
struct Failed {
    address: SocketAddr,
    error: io::Error,
}

impl Acceptor {
    async fn next(&mut self) -> Connection {
        loop {
            let admitted = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => self.accepted(stream, address),
                    Err(error) => {
                        warn!(%error, "an xDS connection was not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        None
                    }
                },
                Some(ended) = self.handshakes.join_next() => self.shaken(ended),
            };
            if let Some(connection) = admitted {
                return connection;
            }
        }
    }

    /// A connection at once if there is no handshake.
    fn accepted(&mut self, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
        let (interval, timeout) = self.keepalive;
        if let Err(error) = stream.set_nodelay(true).and_then(|()| keep_alive(&stream, interval, timeout)) {
            debug!(%error, "a connection went away before it was set up");
        }
        let Some(tls) = &self.tls else {
            return self.admit(Io::Plain(stream), address, None);
        };
        if self.pending.len() >= MAX_HANDSHAKES {
            self.pending.retain(|handshake| !handshake.is_finished());
        }
        if self.pending.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.pending.pop_front()
        {
            oldest.abort();
        }
        let handshake = TlsAcceptor::from(tls.config()).accept(stream);
        let limit = self.handshake_timeout;
        self.pending.push_back(self.handshakes.spawn(async move {
            let error = match tokio::time::timeout(limit, handshake).await {
                Ok(Ok(stream)) => return Ok((stream, address)),
                Ok(Err(error)) => error,
                Err(late) => late.into(),
            };
            Err(Failed { address, error })
        }));
        None
    }

    fn shaken(
        &mut self,
        ended: Result<Result<(TlsStream<TcpStream>, SocketAddr), Failed>, JoinError>,
    ) -> Option<Connection> {
        match ended {
            Ok(Ok((stream, address))) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                // Without a certificate no handshake comes so far; if one did, it would be nobody's.
                let identity = shown.map_or_else(PeerIdentity::nobody, PeerIdentity::of);
                let pass = Pass { identity, counts: self.counts.clone(), told: Arc::default() };
                return self.admit(Io::Tls(Box::new(stream)), address, Some(pass));
            }
            Ok(Err(Failed { address, error })) => debug!(peer = %address, %error, "a TLS handshake came to nothing"),
            Err(ended) => debug!(%ended, "a TLS handshake gave way to newer ones"),
        }
        self.counts.0.handshakes_failed.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn admit(&mut self, io: Io, address: SocketAddr, pass: Option<Pass>) -> Option<Connection> {
        let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() else {
            self.counts.0.refused.fetch_add(1, Ordering::Relaxed);
            debug!(peer = %address, "an xDS connection was refused");
            if !self.full {
                self.full = true;
                warn!(
                    limit = self.max_connections,
                    "as many xDS connections are open as may be; more are closed at once"
                );
            }
            return None;
        };
        // Said again only after there was room for a while: at the limit each leaving makes room for one.
        self.full &= self.slots.available_permits() <= self.max_connections / 10;
        let preface = Preface { missing: PREFACE, late: Box::pin(tokio::time::sleep(self.handshake_timeout)) };
        let peer = Peer { address, pass, line: self.stalls.line(address) };
        Some(Connection { io, peer, preface: Some(preface), _place: Place::take(permit, &self.counts) })
    }
}

/// Lets the kernel see whether the other end is there: it asks when the connection is idle, and gives up when nothing, a
/// probe or data, was acknowledged for `timeout`. HTTP/2 pings would cost the server something with each idle connection,
/// and a server that is too busy to read their answers would take its clients for dead.
fn keep_alive(stream: &TcpStream, interval: Duration, timeout: Duration) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    // Whole seconds, rounded up.
    sockopt::set_tcp_keepidle(stream, interval)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

/// One of the [`ServerConfig::max_connections`], for as long as it lives.
struct Place {
    counts: Connections,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit, counts: &Connections) -> Self {
        counts.0.open.fetch_add(1, Ordering::Relaxed);
        Self { counts: counts.clone(), _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that has its place. Reading fails if the client is late with its preface, for which nobody else waits;
/// reading and writing fail once it is cut.
pub(super) struct Connection {
    io: Io,
    peer: Peer,
    preface: Option<Preface>,
    _place: Place,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

struct Preface {
    missing: usize,
    late: Pin<Box<Sleep>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.peer.line.end();
    }
}

impl Connection {
    /// What is not ready waits, unless the connection is cut.
    fn unless_cut<T>(&self, polled: Poll<io::Result<T>>, cx: &Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_pending() {
            self.peer.line.check(cx)?;
        }
        polled
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(preface) = &mut this.preface
            && preface.late.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client said nothing")));
        }
        let before = buf.filled().len();
        let polled = match &mut this.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        ready!(this.unless_cut(polled, cx))?;
        if let Some(preface) = &mut this.preface {
            preface.missing = preface.missing.saturating_sub(buf.filled().len() - before);
            if preface.missing == 0 {
                this.preface = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.unless_cut(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.unless_cut(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.unless_cut(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
