//! One stream: waits for what comes first of a request, a commit, a time-out and the shutdown, lets the session decide,
//! and yields what it has to say. It has no task and no queue of its own: it runs when the connection can take more, so a
//! client that does not read is not written for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node as NodeMessage;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use tracing::{Instrument, Span, debug, debug_span, warn};

use crate::clients::{Client, Ended};
use crate::node::Node;
use crate::pace::{Pace, Rate};
use crate::server::ServerConfig;
use crate::server::incoming::Pass;
use crate::session::{Limits, Outcome, Protocol, ProtocolError, Request, Response, Verdict};
use crate::store::{Opening, Store};

/// The request of one of the two variants.
pub(super) trait Asks: prost::Message + Default + 'static {
    fn request(&self) -> Request<'_>;
}

impl Asks for DeltaDiscoveryRequest {
    fn request(&self) -> Request<'_> {
        self.into()
    }
}

impl Asks for DiscoveryRequest {
    fn request(&self) -> Request<'_> {
        self.into()
    }
}

pub(super) struct Stream<R> {
    store: Store,
    protocol: Protocol,
    limits: Limits,
    stall_timeout: Duration,
    /// How fast requests may come, and how fast they do.
    allowed: Rate,
    pace: Pace,
    peer: Option<SocketAddr>,
    /// What the first request's node is held against; `None` without TLS.
    pass: Option<Pass>,
    requests: Streaming<R>,
    stopping: watch::Receiver<bool>,
    opened: watch::Receiver<Opening>,
    /// From the first request on.
    connection: Option<Connection>,
    /// Whether the session may have something to say.
    due: bool,
    ended: bool,
    span: Span,
}

/// A client's place in the list of those connected, for as long as its stream lives.
struct Connection {
    store: Store,
    client: Arc<Client>,
}

enum Event<R> {
    Stop,
    /// The client is done, or gone.
    Left,
    Request(Box<R>),
    /// The session may have something to say.
    Due,
    /// The store changed, or time passed.
    Woken,
}

impl<R: Asks> Stream<R> {
    pub(super) fn new(
        store: Store,
        config: &ServerConfig,
        protocol: Protocol,
        peer: Option<SocketAddr>,
        pass: Option<Pass>,
        requests: Streaming<R>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let span = debug_span!("xds", client = tracing::field::Empty, ?peer);
        let opened = store.opened();
        Self {
            store,
            protocol,
            limits: config.limits(),
            stall_timeout: config.stall_timeout,
            allowed: config.requests(),
            pace: Pace::default(),
            peer,
            pass,
            requests,
            stopping,
            opened,
            connection: None,
            due: false,
            ended: false,
            span,
        }
    }

    /// The responses, until the client leaves, breaks the protocol, or the server stops.
    pub(super) fn run(self) -> BoxStream<'static, Result<Response, Status>> {
        stream::unfold(self, |mut this| async move {
            if this.ended {
                return None;
            }
            let span = this.span.clone();
            let item = this.next().instrument(span).await?;
            this.ended = item.is_err();
            Some((item, this))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<Result<Response, Status>> {
        // The stream is held, not refused: a client that is refused backs off and comes late. Its requests wait with
        // it, for what they say is to be held against a full store.
        tokio::select! {
            () = flagged(&mut self.stopping) => return Some(Err(unavailable())),
            () = opened(&mut self.opened, Opening::Newcomers) => {}
        }
        loop {
            match self.wait().await {
                Event::Stop => return Some(Err(unavailable())),
                Event::Request(request) => {
                    let request = request.request();
                    if request.has_something() {
                        tokio::select! {
                            () = flagged(&mut self.stopping) => return Some(Err(unavailable())),
                            () = opened(&mut self.opened, Opening::Everyone) => {}
                        }
                    }
                    match self.on_request(&request) {
                        Ok(None) => self.due = true,
                        answer => return answer.transpose(),
                    }
                }
                Event::Left => return None,
                Event::Due => match self.next_response() {
                    Some(response) => return Some(Ok(response)),
                    None => self.due = false,
                },
                Event::Woken => {
                    if let Some(status) = self.has_ended() {
                        return Some(Err(status));
                    }
                    self.due = true;
                }
            }
        }
    }

    /// What comes first. Requests outrank pushes: what a client asks for comes before what the server would tell it.
    async fn wait(&mut self) -> Event<R> {
        let client = self.connection.as_ref().map(|connection| Arc::clone(&connection.client));
        let deadline = client.as_ref().and_then(|client| {
            let session = client.session();
            let stalled = session.unanswered_since().map(|since| since + self.stall_timeout);
            session.deadline(self.store.now()).into_iter().chain(stalled).min()
        });
        tokio::select! {
            biased;
            () = flagged(&mut self.stopping) => Event::Stop,
            request = self.requests.message() => match request {
                Ok(Some(request)) => Event::Request(Box::new(request)),
                Ok(None) => Event::Left,
                Err(status) => {
                    debug!(%status, "the stream broke");
                    Event::Left
                }
            },
            () = std::future::ready(()), if self.due => Event::Due,
            () = woken(client.as_deref()) => Event::Woken,
            () = reached(deadline.map(|at| self.store.instant(at))) => Event::Woken,
        }
    }

    /// Why the stream must end although the client did nothing wrong just now.
    fn has_ended(&self) -> Option<Status> {
        let client = &self.connection.as_ref()?.client;
        if let Some(Ended::Regrouped) = client.ended() {
            debug!(client = %client.id, "an xDS client belongs to another group now");
            return Some(Status::unavailable("the client belongs to another group now: connect again"));
        }
        let since = client.session().unanswered_since()?;
        let stalled = self.store.now().saturating_sub(since) >= self.stall_timeout;
        stalled.then(|| {
            warn!(client = %client.id, node = %client.node_id(), "an xDS client does not answer and is cut off");
            Status::deadline_exceeded(format!("a response was not answered for {:?}", self.stall_timeout))
        })
    }

    /// Hands a request to the session and tells what became of it.
    fn on_request(&mut self, request: &Request<'_>) -> Result<Option<Response>, Status> {
        let now = self.store.now();
        if self.pace.next(self.allowed, now) > now {
            warn!(peer = ?self.peer, "an xDS client sends too many requests and is cut off");
            return Err(Status::resource_exhausted("the stream sends too many requests"));
        }
        self.pace.take(self.allowed, now);
        if let (None, Some(pass)) = (&self.connection, &self.pass) {
            pass.check(request.node.map_or("", |node| &node.id))?;
        }
        let client = self.connect(request.node, now);
        let store = &self.store;
        let outcome = client.take(request, now);
        let Outcome { reply, verdict, interest: _ } = outcome.map_err(|error| {
            warn!(client = %client.id, %error, "an xDS client broke the protocol");
            refusal(&error)
        })?;
        let (names, dropped) = request.names.counts();
        debug!(r#type = request.type_url, names, dropped, nonce = request.nonce, "request");
        if let Some((resource_type, verdict)) = verdict {
            store.count_verdict(matches!(verdict, Verdict::Accepted { .. }));
            if let Verdict::Rejected { resources, message, .. } = &verdict {
                let r#type = resource_type.label();
                warn!(client = %client.id, r#type, ?resources, reason = %message, "an xDS client rejected a response");
            }
            // Whoever was kept from these may have them now.
            let (Verdict::Accepted { released, .. } | Verdict::Rejected { released, .. }) = &verdict;
            let released = released.iter().map(|name| (resource_type, Arc::clone(name))).collect::<Vec<_>>();
            client.view.index().wake(&released);
            store.streams().tell_verdict(&client, resource_type, verdict);
        }
        if let Some(reply) = &reply {
            warn!(client = %client.id, type_url = %reply.type_url, "an xDS client asks for a type that is not served");
            store.count_response(reply.encoded_len());
        }
        Ok(reply)
    }

    /// The client, which takes its place in the list with its first request.
    fn connect(&mut self, node: Option<&NodeMessage>, now: Duration) -> Arc<Client> {
        if let Some(connection) = &self.connection {
            return Arc::clone(&connection.client);
        }
        let store = self.store.clone();
        let node = node.map(Node::of).unwrap_or_default();
        let client =
            store.streams().connect(store.view_of(&node), node.clone(), self.protocol, self.peer, self.limits, now);
        if !Arc::ptr_eq(&store.view_of(&node), &client.view) {
            // The groups changed between the two lines.
            client.end(Ended::Regrouped);
        }
        self.span.record("client", client.id.0);
        debug!(client = %client.id, node = %node.id, peer = ?self.peer, variant = %self.protocol.variant, "an xDS client connected");
        store.streams().tell_connected(&client);
        self.connection = Some(Connection { store, client: Arc::clone(&client) });
        client
    }

    fn next_response(&self) -> Option<Response> {
        let client = &self.connection.as_ref()?.client;
        let response = client.next_response(self.store.now())?;
        self.store.count_response(response.encoded_len());
        debug!(
            type_url = %response.type_url,
            upserts = response.fragments.len(),
            removals = response.removed.len(),
            nonce = response.nonce,
            "response"
        );
        Some(response)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.store.streams().disconnect(&self.client);
        debug!(client = %self.client.id, "an xDS client left");
        self.store.streams().tell_disconnected(&self.client);
    }
}

/// Resolves once the flag is raised, or can no longer be.
async fn flagged(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|raised| *raised).await;
}

/// Resolves once the store is as open as this, or can no longer become so.
async fn opened(opening: &mut watch::Receiver<Opening>, wanted: Opening) {
    let _ = opening.wait_for(|is| *is >= wanted).await;
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn woken(client: Option<&Client>) {
    match client {
        Some(client) => client.woken().await,
        None => std::future::pending().await,
    }
}

fn unavailable() -> Status {
    Status::unavailable("the xDS server is shutting down")
}

fn refusal(error: &ProtocolError) -> Status {
    match error {
        ProtocolError::TooManyNames(_) | ProtocolError::NamesTooLong(_) => {
            Status::resource_exhausted(error.to_string())
        }
        ProtocolError::MissingTypeUrl | ProtocolError::OtherType { .. } | ProtocolError::NodeChanged { .. } => {
            Status::invalid_argument(error.to_string())
        }
    }
}
