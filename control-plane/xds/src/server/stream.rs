//! One ADS stream: waits for what comes first of a request, a commit, a time-out and the shutdown, lets the session
//! decide, and yields what it has to say. It has no task and no queue of its own: it runs when the connection can take
//! more, so a client that does not read is not written for.

use std::net::SocketAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use tracing::{Instrument, Span, debug, debug_span, warn};

use crate::clients::Client;
use crate::server::incoming::Pass;
use crate::session::{Limits, Outcome, Response, Verdict};
use crate::store::Store;

pub(super) struct Stream {
    store: Store,
    limits: Limits,
    peer: Option<SocketAddr>,
    /// What the first request's node is held against; `None` without TLS.
    pass: Option<Pass>,
    requests: Streaming<DeltaDiscoveryRequest>,
    stopping: watch::Receiver<bool>,
    opened: watch::Receiver<bool>,
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

enum Event {
    Stop,
    /// The client is done, or gone.
    Left,
    Request(Box<DeltaDiscoveryRequest>),
    /// The session may have something to say.
    Due,
    /// The store changed, or time passed.
    Woken,
}

impl Stream {
    pub(super) fn new(
        store: Store,
        limits: Limits,
        peer: Option<SocketAddr>,
        pass: Option<Pass>,
        requests: Streaming<DeltaDiscoveryRequest>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let span = debug_span!("ads", client = tracing::field::Empty, ?peer);
        let opened = store.opened();
        Self { store, limits, peer, pass, requests, stopping, opened, connection: None, due: false, ended: false, span }
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
            () = flagged(&mut self.opened) => {}
        }
        loop {
            match self.wait().await {
                Event::Stop => return Some(Err(unavailable())),
                Event::Request(request) => match self.on_request(&request) {
                    Ok(None) => self.due = true,
                    answer => return answer.transpose(),
                },
                Event::Left => return None,
                Event::Due => match self.next_response() {
                    Some(response) => return Some(Ok(response)),
                    None => self.due = false,
                },
                Event::Woken => self.due = true,
            }
        }
    }

    /// What comes first. Requests outrank pushes: what a client asks for comes before what the server would tell it.
    async fn wait(&mut self) -> Event {
        let client = self.connection.as_ref().map(|connection| Arc::clone(&connection.client));
        let deadline = client.as_ref().and_then(|client| client.session().deadline(self.store.now()));
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

    /// Hands a request to the session and tells what became of it.
    fn on_request(&mut self, request: &DeltaDiscoveryRequest) -> Result<Option<Response>, Status> {
        let now = self.store.now();
        let first = self.connection.is_none();
        if first && let Some(pass) = &self.pass {
            pass.check(request.node.as_ref().map_or("", |node| &node.id))?;
        }
        let (store, limits, peer) = (&self.store, self.limits, self.peer);
        let connection = self.connection.get_or_insert_with(|| Connection {
            store: store.clone(),
            client: store.streams().connect(peer, limits, now),
        });
        let client = &connection.client;
        let outcome = {
            // The order of the two locks is the same everywhere: tables, then session.
            let tables = store.tables();
            let mut session = client.session();
            let outcome = session.on_request(request, &tables, now);
            client.publish(&session);
            outcome
        };
        if first {
            self.span.record("client", client.id.0);
            let node = request.node.as_ref().map_or("", |node| &node.id);
            debug!(client = %client.id, node, ?peer, "an xDS client connected");
            store.streams().tell_connected(client);
        }
        let Outcome { reply, verdict } = outcome.map_err(|error| {
            warn!(client = %client.id, %error, "an xDS client broke the protocol");
            Status::invalid_argument(error.to_string())
        })?;
        debug!(
            r#type = request.type_url,
            subscribe = request.resource_names_subscribe.len(),
            unsubscribe = request.resource_names_unsubscribe.len(),
            nonce = request.response_nonce,
            "request"
        );
        if let Some((resource_type, verdict)) = verdict {
            store.count_verdict(matches!(verdict, Verdict::Accepted { .. }));
            if let Verdict::Rejected { resources, message } = &verdict {
                let r#type = resource_type.label();
                warn!(client = %client.id, r#type, ?resources, reason = %message, "an xDS client rejected a response");
            }
            store.streams().tell_verdict(client, resource_type, verdict);
        }
        if let Some(reply) = &reply {
            warn!(client = %client.id, type_url = %reply.type_url, "an xDS client asks for a type that is not served");
            store.count_response(reply.encoded_len());
        }
        Ok(reply)
    }

    fn next_response(&self) -> Option<Response> {
        let client = &self.connection.as_ref()?.client;
        client.looks();
        let response = {
            let tables = self.store.tables();
            let mut session = client.session();
            let response = session.next_response(&tables, self.store.now());
            client.publish(&session);
            response
        }?;
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
