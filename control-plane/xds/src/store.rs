//! What is served. One writer commits; any number of streams read. The tables stand behind one read-write lock, held
//! for the copy of a few pointers and never over an await; a commit encodes before it takes the lock. A stream that is
//! slow lags with its cursor and later gets the newest state, merged: there is no queue that it could fill.

mod listing;
pub(crate) mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clients::Clients;
use crate::commit::Commit;
use crate::resource::{ResourceType, Version};
use crate::session::Progress;
use crate::status::{Acceptance, AcceptanceState, ClientEvent, ClientStatus, Counters, Published};
use crate::store::table::Tables;

/// Withdrawals are kept until every stream has seen them; below this many it is not worth asking the streams.
const MIN_TOMBSTONES: usize = 256;

/// The resources and the streams that they go to. A cheap handle: clones share everything.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tables: RwLock<Tables>,
    clients: Clients,
    open: watch::Sender<bool>,
    started: Instant,
    started_at: SystemTime,
    counts: Counts,
}

/// What a commit did.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The number of the last change up to now. A client that has accepted it has everything of this commit that
    /// concerns it.
    pub sequence: u64,
    /// The resources that changed, withdrawals included; what was committed again unchanged is not among them.
    pub changed: Vec<(ResourceType, Arc<str>)>,
    /// How many resources were encoded: once for each upsert.
    pub encodes: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    commits: AtomicU64,
    encodes: AtomicU64,
    changes: AtomicU64,
    wakes: AtomicU64,
    responses: AtomicU64,
    response_bytes: AtomicU64,
    accepted: AtomicU64,
    rejected: AtomicU64,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty store that answers nobody until it is [opened](Self::open).
    #[expect(clippy::disallowed_methods, reason = "the one place where this crate reads the wall clock; see `status`")]
    pub fn new() -> Self {
        let shared = Shared {
            tables: RwLock::default(),
            clients: Clients::default(),
            open: watch::Sender::new(false),
            started: Instant::now(),
            started_at: SystemTime::now(),
            counts: Counts::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes a commit and wakes the streams that want something of it. Meant for one writer: commits of two are
    /// each applied whole, in an order that nobody chose.
    pub fn commit(&self, commit: Commit) -> Committed {
        let encodes = commit.upserts();
        let now = self.now();
        let shared = &*self.shared;
        let (applied, crowded) = {
            let mut tables = shared.tables.write().unwrap_or_else(PoisonError::into_inner);
            let applied = tables.apply(commit, now);
            let crowded = ResourceType::ALL.into_iter().filter(|it| tables.table(*it).tombstones() >= MIN_TOMBSTONES);
            (applied, crowded.collect::<Vec<_>>())
        };
        shared.counts.commits.fetch_add(1, Ordering::Relaxed);
        shared.counts.encodes.fetch_add(encodes as u64, Ordering::Relaxed);
        shared.counts.changes.fetch_add(applied.changed.len() as u64, Ordering::Relaxed);
        let types = applied.changed.iter().fold(0, |set, (resource_type, _)| set | resource_type.bit());
        if types != 0 {
            let woken = shared.clients.wake(types);
            shared.counts.wakes.fetch_add(woken, Ordering::Relaxed);
        }
        if !crowded.is_empty() {
            self.forget_tombstones(&crowded);
        }
        Committed { sequence: applied.sequence, changed: applied.changed, encodes }
    }

    /// Lets streams be answered: the first full set is committed. Until then they are held, for an empty first answer
    /// would wipe a client that knows better.
    pub fn open(&self) {
        self.shared.open.send_replace(true);
    }

    pub fn is_open(&self) -> bool {
        *self.shared.open.borrow()
    }

    /// The version of a published resource.
    pub fn version(&self, resource_type: ResourceType, name: &str) -> Option<Version> {
        self.tables().table(resource_type).get(name).map(table::Entry::version)
    }

    /// A published resource: which change carries it, since when.
    pub fn published(&self, resource_type: ResourceType, name: &str) -> Option<Published> {
        let tables = self.tables();
        tables.table(resource_type).get(name).map(|entry| Published {
            sequence: entry.sequence,
            version: entry.version(),
            bytes: entry.encoded.message().len(),
            committed_at: self.wall(entry.committed),
        })
    }

    /// The encoded message of a published resource, as clients get it.
    pub fn content(&self, resource_type: ResourceType, name: &str) -> Option<Vec<u8>> {
        self.tables().table(resource_type).get(name).map(|entry| entry.encoded.message().to_vec())
    }

    /// How many resources of a type are published.
    pub fn len(&self, resource_type: ResourceType) -> usize {
        self.tables().table(resource_type).len()
    }

    /// Whether nothing is published at all.
    pub fn is_empty(&self) -> bool {
        ResourceType::ALL.into_iter().all(|resource_type| self.len(resource_type) == 0)
    }

    /// The number of the last change; 1 while there was none.
    pub fn sequence(&self) -> u64 {
        self.tables().sequence()
    }

    /// Every client that is connected, oldest first.
    pub fn clients(&self) -> Vec<ClientStatus> {
        let clients = self.shared.clients.all();
        clients.iter().map(|client| client.status(&self.tables(), |at| self.wall(at))).collect()
    }

    /// Whether each client has accepted the newest version of a resource; empty if the resource is not published.
    pub fn acceptance(&self, resource_type: ResourceType, name: &str) -> Vec<Acceptance> {
        let clients = self.shared.clients.all();
        let of_client = |client: &Arc<crate::clients::Client>| {
            let (node_id, progress) = client.progress(resource_type, name, &self.tables());
            let state = match progress? {
                Progress::Unsubscribed => {
                    return Some(Acceptance {
                        client: client.id,
                        node_id,
                        subscribed: false,
                        state: AcceptanceState::NotSent,
                    });
                }
                Progress::NotSent => AcceptanceState::NotSent,
                Progress::Sent => AcceptanceState::Sent,
                Progress::Accepted { at } => AcceptanceState::Accepted { at: self.wall(at) },
                Progress::Rejected { message, at } => AcceptanceState::Rejected { message, at: self.wall(at) },
            };
            Some(Acceptance { client: client.id, node_id, subscribed: true, state })
        };
        clients.iter().filter_map(of_client).collect()
    }

    /// The news about clients from now on. There is one taker: a later call ends the earlier one's receiver.
    pub fn events(&self) -> mpsc::Receiver<ClientEvent> {
        self.shared.clients.subscribe()
    }

    pub fn counters(&self) -> Counters {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counters {
            commits: read(&counts.commits),
            encodes: read(&counts.encodes),
            changes: read(&counts.changes),
            wakes: read(&counts.wakes),
            responses: read(&counts.responses),
            response_bytes: read(&counts.response_bytes),
            accepted: read(&counts.accepted),
            rejected: read(&counts.rejected),
            events_dropped: self.shared.clients.events_dropped(),
        }
    }

    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.shared.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn streams(&self) -> &Clients {
        &self.shared.clients
    }

    pub(crate) fn opened(&self) -> watch::Receiver<bool> {
        self.shared.open.subscribe()
    }

    /// The time since the store was made: what the sessions call now.
    pub(crate) fn now(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// The instant of a time that the sessions speak of.
    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.shared.started + at
    }

    pub(crate) fn count_response(&self, bytes: usize) {
        self.shared.counts.responses.fetch_add(1, Ordering::Relaxed);
        self.shared.counts.response_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_verdict(&self, accepted: bool) {
        let counts = &self.shared.counts;
        if accepted { &counts.accepted } else { &counts.rejected }.fetch_add(1, Ordering::Relaxed);
    }

    fn wall(&self, at: Duration) -> SystemTime {
        self.shared.started_at + at
    }

    fn forget_tombstones(&self, types: &[ResourceType]) {
        for resource_type in types {
            let upto = self.shared.clients.min_removal_cursor(*resource_type);
            let mut tables = self.shared.tables.write().unwrap_or_else(PoisonError::into_inner);
            let upto = upto.min(tables.sequence());
            tables.forget_tombstones(*resource_type, upto);
        }
    }
}

#[cfg(test)]
mod tests;
