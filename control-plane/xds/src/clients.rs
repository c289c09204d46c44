//! The streams that are connected: their sessions, how to wake them, and the news about them. A session's lock is taken
//! by its own stream and by those who look at it, for moments; the writer of the store takes none of them, it reads
//! atomics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc};

use crate::node::Node;
use crate::resource::{PerType, ResourceType};
use crate::session::{Limits, Outcome, Progress, Protocol, ProtocolError, Request, Response, Session, Verdict};
use crate::status::{ClientEvent, ClientId, ClientStatus, Rejection, TypeStatus};
use crate::store::index::Place;
use crate::store::table::Tables;
use crate::store::view::View;

/// Room for a thousand clients that connect at once and are answered by as many events again, at some 100 bytes each.
const EVENTS: usize = 2048;

#[derive(Debug, Default)]
pub(crate) struct Clients {
    connected: RwLock<BTreeMap<ClientId, Arc<Client>>>,
    last_id: AtomicU64,
    events: RwLock<Option<mpsc::Sender<ClientEvent>>>,
    events_dropped: AtomicU64,
}

/// One connected stream.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    pub(crate) view: Arc<View>,
    place: OnceLock<Place>,
    peer: Option<SocketAddr>,
    connected: Duration,
    session: Mutex<Session>,
    /// What the writer needs to know, copied from the session after each step of the stream.
    removal_cursors: PerType<AtomicU64>,
    /// Set by a commit that concerns the stream, cleared when the stream looks. A stream that has not looked is not
    /// woken again.
    dirty: AtomicBool,
    wake: Notify,
    ended: OnceLock<Ended>,
}

/// Why the server ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The client belongs to another group now.
    Regrouped,
}

impl Clients {
    pub(crate) fn connect(
        &self,
        view: Arc<View>,
        node: Node,
        protocol: Protocol,
        peer: Option<SocketAddr>,
        limits: Limits,
        now: Duration,
    ) -> Arc<Client> {
        let id = ClientId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let client = Arc::new(Client {
            id,
            view,
            place: OnceLock::new(),
            peer,
            connected: now,
            session: Mutex::new(Session::new(id, node, protocol, limits)),
            removal_cursors: PerType::default(),
            dirty: AtomicBool::new(false),
            wake: Notify::new(),
            ended: OnceLock::new(),
        });
        let place = client.view.index_mut().join(Arc::clone(&client));
        client.place.get_or_init(|| place);
        self.connected.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&client));
        client
    }

    pub(crate) fn disconnect(&self, client: &Client) {
        self.connected.write().unwrap_or_else(PoisonError::into_inner).remove(&client.id);
        if let Some(place) = client.place.get() {
            let session = client.session();
            client.view.index_mut().leave(*place, &session);
        }
    }

    /// Every connected client, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.connected.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Withdrawals of a type up to here are of no more use to any stream of a view.
    pub(crate) fn min_removal_cursor(&self, view: &View, resource_type: ResourceType) -> u64 {
        let clients = self.connected.read().unwrap_or_else(PoisonError::into_inner);
        let of_view = clients.values().filter(|client| std::ptr::eq(&*client.view, view));
        let cursors = of_view.map(|client| client.removal_cursors[resource_type].load(Ordering::Acquire));
        cursors.min().unwrap_or(u64::MAX)
    }

    pub(crate) fn subscribe(&self) -> mpsc::Receiver<ClientEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS);
        *self.events.write().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        receiver
    }

    pub(crate) fn events_dropped(&self) -> u64 {
        self.events_dropped.load(Ordering::Relaxed)
    }

    /// Tells the taker of events. A stream never waits for it: what finds no room is dropped and counted, and
    /// acceptances leave half of the room to the rarer news.
    pub(crate) fn tell(&self, event: impl FnOnce() -> ClientEvent, rare: bool) {
        let events = self.events.read().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = events.as_ref().filter(|sender| !sender.is_closed()) else { return };
        let has_room = rare || sender.capacity() > EVENTS / 2;
        if !has_room || sender.try_send(event()).is_err() {
            self.events_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn tell_connected(&self, client: &Client) {
        let node = client.session().node().clone();
        self.tell(|| ClientEvent::Connected { client: client.id, node, peer: client.peer }, true);
    }

    pub(crate) fn tell_disconnected(&self, client: &Client) {
        self.tell(|| ClientEvent::Disconnected { client: client.id, node_id: client.node_id() }, true);
    }

    pub(crate) fn tell_verdict(&self, client: &Client, resource_type: ResourceType, verdict: Verdict) {
        let id = client.id;
        let node_id = client.node_id();
        match verdict {
            Verdict::Accepted { sequence, released: _ } => {
                self.tell(|| ClientEvent::Accepted { client: id, node_id, resource_type, sequence }, false);
            }
            Verdict::Rejected { resources, message, released: _ } => {
                let event = || ClientEvent::Rejected { client: id, node_id, resource_type, resources, message };
                self.tell(event, true);
            }
        }
    }
}

impl Client {
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request, and lets the view know what the stream now wants.
    pub(crate) fn take(&self, request: &Request<'_>, now: Duration) -> Result<Outcome, ProtocolError> {
        // The order of the locks is the same everywhere: tables, then session, then index. The tables are held until the
        // index knows: a commit that was not seen here wakes by the new index.
        let tables = self.view.tables();
        let mut session = self.session();
        let mut outcome = session.on_request(request, &tables, now)?;
        self.publish(&session);
        if let Some((interest, place)) = outcome.interest.take().zip(self.place.get()) {
            self.view.index_mut().change(*place, interest);
        }
        Ok(outcome)
    }

    /// What the stream should send now.
    pub(crate) fn next_response(&self, now: Duration) -> Option<Response> {
        // From here on a commit wakes the stream again.
        self.dirty.store(false, Ordering::Release);
        let tables = self.view.tables();
        let mut session = self.session();
        let response = session.next_response(&tables, now);
        self.publish(&session);
        response
    }

    /// Shows the writer where the session has got to.
    fn publish(&self, session: &Session) {
        for resource_type in ResourceType::ALL {
            self.removal_cursors[resource_type].store(session.removal_cursor(resource_type), Ordering::Release);
        }
    }

    /// Lets the stream look; `false` if it was going to.
    pub(crate) fn wake(&self) -> bool {
        let wakes = !self.dirty.swap(true, Ordering::AcqRel);
        if wakes {
            self.wake.notify_one();
        }
        wakes
    }

    /// Ends the stream.
    pub(crate) fn end(&self, why: Ended) {
        self.ended.get_or_init(|| why);
        self.wake.notify_one();
    }

    pub(crate) fn ended(&self) -> Option<Ended> {
        self.ended.get().copied()
    }

    /// Waits until a commit concerns the stream.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(crate) fn status(&self, tables: &Tables, wall: impl Fn(Duration) -> SystemTime) -> ClientStatus {
        let session = self.session();
        let types = ResourceType::ALL.into_iter().map(|resource_type| {
            let status = session.watch_status(resource_type, tables);
            let rejected = status.rejected.into_iter();
            TypeStatus {
                resource_type,
                subscribed: status.subscribed,
                sent_sequence: status.sent_sequence,
                accepted_sequence: status.accepted_sequence,
                in_flight: status.in_flight,
                synced: status.synced,
                responses: status.responses,
                acks: status.acks,
                nacks: status.nacks,
                rejected: rejected
                    .map(|(name, version, message, at)| Rejection { name, version, message, at: wall(at) })
                    .collect(),
            }
        });
        ClientStatus {
            client: self.id,
            node: session.node().clone(),
            group: self.view.group.clone(),
            variant: session.variant(),
            peer: self.peer,
            connected_at: wall(self.connected),
            types: types.collect(),
        }
    }

    pub(crate) fn progress(&self, resource_type: ResourceType, name: &str, tables: &Tables) -> Option<Progress> {
        self.session().progress(resource_type, name, tables)
    }

    pub(crate) fn node_id(&self) -> Arc<str> {
        Arc::clone(&self.session().node().id)
    }
}
