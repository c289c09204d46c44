//! The streams that are connected: their sessions, how to wake them, and the news about them. A session's lock is taken
//! by its own stream and by those who look at it, for moments; the writer of the store takes none of them, it reads
//! atomics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc};

use crate::resource::{PerType, ResourceType};
use crate::session::{Identity, Limits, Progress, Session, Verdict};
use crate::status::{ClientEvent, ClientId, ClientStatus, Rejection, TypeStatus};
use crate::store::table::Tables;

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
    peer: Option<SocketAddr>,
    connected: Duration,
    session: Mutex<Session>,
    /// What the writer needs to know, copied from the session after each step of the stream.
    interest: AtomicU8,
    removal_cursors: PerType<AtomicU64>,
    /// Set by a commit that concerns the stream, cleared when the stream looks. A stream that has not looked is not
    /// woken again.
    dirty: AtomicBool,
    wake: Notify,
}

impl Clients {
    pub(crate) fn connect(&self, peer: Option<SocketAddr>, limits: Limits, now: Duration) -> Arc<Client> {
        let id = ClientId(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        let client = Arc::new(Client {
            id,
            peer,
            connected: now,
            session: Mutex::new(Session::new(id, limits)),
            interest: AtomicU8::new(0),
            removal_cursors: PerType::default(),
            dirty: AtomicBool::new(false),
            wake: Notify::new(),
        });
        self.connected.write().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(&client));
        client
    }

    pub(crate) fn disconnect(&self, client: &Client) {
        self.connected.write().unwrap_or_else(PoisonError::into_inner).remove(&client.id);
    }

    /// Every connected client, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Client>> {
        self.connected.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Wakes the streams that want something of these types, and answers how many that were.
    pub(crate) fn wake(&self, types: u8) -> u64 {
        let mut woken = 0;
        for client in self.connected.read().unwrap_or_else(PoisonError::into_inner).values() {
            if client.interest.load(Ordering::Acquire) & types != 0 && !client.dirty.swap(true, Ordering::AcqRel) {
                client.wake.notify_one();
                woken += 1;
            }
        }
        woken
    }

    /// Withdrawals of a type up to here are of no more use to any stream.
    pub(crate) fn min_removal_cursor(&self, resource_type: ResourceType) -> u64 {
        let clients = self.connected.read().unwrap_or_else(PoisonError::into_inner);
        let cursors = clients.values().map(|client| client.removal_cursors[resource_type].load(Ordering::Acquire));
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
        let Identity { node_id, node_cluster, user_agent } = client.identity();
        let event =
            || ClientEvent::Connected { client: client.id, node_id, node_cluster, user_agent, peer: client.peer };
        self.tell(event, true);
    }

    pub(crate) fn tell_disconnected(&self, client: &Client) {
        self.tell(|| ClientEvent::Disconnected { client: client.id, node_id: client.identity().node_id }, true);
    }

    pub(crate) fn tell_verdict(&self, client: &Client, resource_type: ResourceType, verdict: Verdict) {
        let id = client.id;
        let node_id = client.identity().node_id;
        match verdict {
            Verdict::Accepted { sequence } => {
                self.tell(|| ClientEvent::Accepted { client: id, node_id, resource_type, sequence }, false);
            }
            Verdict::Rejected { resources, message } => {
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

    /// Shows the writer where the session has got to. Call after each step, with the session's lock held.
    pub(crate) fn publish(&self, session: &Session) {
        self.interest.store(session.interest(), Ordering::Release);
        for resource_type in ResourceType::ALL {
            self.removal_cursors[resource_type].store(session.removal_cursor(resource_type), Ordering::Release);
        }
    }

    /// Waits until a commit concerns the stream.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Call before looking at the store: a commit from now on wakes the stream again.
    pub(crate) fn looks(&self) {
        self.dirty.store(false, Ordering::Release);
    }

    pub(crate) fn status(&self, tables: &Tables, wall: impl Fn(Duration) -> SystemTime) -> ClientStatus {
        let session = self.session();
        let Identity { node_id, node_cluster, user_agent } = session.identity().cloned().unwrap_or_default();
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
                rejected: rejected
                    .map(|(name, version, message, at)| Rejection { name, version, message, at: wall(at) })
                    .collect(),
            }
        });
        ClientStatus {
            client: self.id,
            node_id,
            node_cluster,
            user_agent,
            peer: self.peer,
            connected_at: wall(self.connected),
            types: types.collect(),
        }
    }

    pub(crate) fn progress(
        &self,
        resource_type: ResourceType,
        name: &str,
        tables: &Tables,
    ) -> (Arc<str>, Option<Progress>) {
        let session = self.session();
        let node_id = session.identity().map(|identity| Arc::clone(&identity.node_id)).unwrap_or_default();
        (node_id, session.progress(resource_type, name, tables))
    }

    fn identity(&self) -> Identity {
        self.session().identity().cloned().unwrap_or_default()
    }
}
