//! What is served. One writer commits; any number of streams read. The tables of a view stand behind one read-write lock,
//! held for the copy of a few pointers and never over an await; a commit encodes before it takes the lock. A stream that
//! is slow lags with its cursor and later gets the newest state, merged: there is no queue that it could fill.

pub(crate) mod index;
mod listing;
mod snapshot;
pub(crate) mod table;
pub(crate) mod view;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::clients::{Client, Clients, Ended};
use crate::commit::Commit;
use crate::group::Group;
use crate::load::LoadReports;
use crate::node::Node;
use crate::resource::{ResourceType, Version};
use crate::session::Progress;
use crate::status::{Acceptance, AcceptanceState, ClientEvent, ClientStatus, Counters, Published};
use crate::store::view::{View, Views};
pub use snapshot::{Snapshot, SnapshotError};

/// The resources and the streams that they go to. A cheap handle: clones share everything.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    views: RwLock<Arc<Views>>,
    /// The number of the last change, and who may make the next.
    writer: Mutex<u64>,
    clients: Clients,
    load: LoadReports,
    open: watch::Sender<Opening>,
    started: Instant,
    started_at: SystemTime,
    counts: Counts,
}

/// Who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Opening {
    Nobody,
    /// Those that have nothing yet.
    Newcomers,
    Everyone,
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
        let (started, started_at) = (Instant::now(), SystemTime::now());
        let shared = Shared {
            views: RwLock::default(),
            // As in tables that nothing was written to.
            writer: Mutex::new(table::EMPTY),
            clients: Clients::default(),
            load: LoadReports::new(started, started_at),
            open: watch::Sender::new(Opening::Nobody),
            started,
            started_at,
            counts: Counts::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Publishes a commit and wakes the streams that want something of it. Meant for one writer: commits of two are
    /// each applied whole, in an order that nobody chose.
    pub fn commit(&self, mut commit: Commit) -> Committed {
        let now = self.now();
        let shared = &*self.shared;
        let mut sequence = shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let grouping = commit.take_grouping();
        let (views, regrouped) = match grouping {
            Some(grouping) => (Arc::new(self.views().regrouped(grouping)), true),
            None => (self.views(), false),
        };

        // Groups count together: each goes on from the same number, and all end with the highest.
        let before = *sequence;
        let mut changed = Vec::new();
        for view in views.iter() {
            let changes = commit.changes_for(&view.group);
            let applied = {
                let mut tables = view.tables_mut();
                tables.catch_up(before);
                tables.apply(changes, now)
            };
            *sequence = applied.sequence.max(*sequence);
            changed.push(applied.changed);
        }
        let behind = |view: &&Arc<View>| view.tables().sequence() < *sequence;
        for view in views.iter().filter(behind) {
            view.tables_mut().catch_up(*sequence);
        }
        if regrouped {
            self.install(&views);
        }
        let woken = views.iter().zip(&changed).map(|(view, changed)| view.index().wake(changed)).sum();
        for view in views.iter() {
            view.forget_tombstones(&shared.clients);
        }

        let changed = if let [_] = changed.as_slice() {
            changed.remove(0)
        } else {
            changed.into_iter().flatten().collect::<BTreeSet<_>>().into_iter().collect()
        };
        let counts = &shared.counts;
        counts.commits.fetch_add(1, Ordering::Relaxed);
        counts.encodes.fetch_add(commit.encodes() as u64, Ordering::Relaxed);
        counts.changes.fetch_add(changed.len() as u64, Ordering::Relaxed);
        counts.wakes.fetch_add(woken, Ordering::Relaxed);
        Committed { sequence: *sequence, changed, encodes: commit.encodes() }
    }

    /// Puts another grouping in force, and ends the streams of clients that are now in another group.
    fn install(&self, views: &Arc<Views>) {
        *self.shared.views.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(views);
        for client in self.shared.clients.all() {
            let node = client.session().node().clone();
            if !Arc::ptr_eq(views.of(&node), &client.view) {
                client.end(Ended::Regrouped);
            }
        }
    }

    /// Lets streams be answered: the first full set is committed. Until then they are held, for an empty first answer
    /// would wipe a client that knows better.
    pub fn open(&self) {
        self.shared.open.send_replace(Opening::Everyone);
    }

    /// Lets those streams be answered whose client says that it has nothing yet. What is committed is better than
    /// nothing, but may be older than what other clients have: those are held until the store is [open](Self::open).
    pub fn open_to_newcomers(&self) {
        self.shared.open.send_if_modified(|open| {
            let opens = *open == Opening::Nobody;
            if opens {
                *open = Opening::Newcomers;
            }
            opens
        });
    }

    /// Whether any stream is answered.
    pub fn is_open(&self) -> bool {
        *self.shared.open.borrow() != Opening::Nobody
    }

    /// The version of a resource that is published to the default group.
    pub fn version(&self, resource_type: ResourceType, name: &str) -> Option<Version> {
        self.views().default_view().tables().table(resource_type).get(name).map(table::Entry::version)
    }

    /// A resource that is published to the default group: which change carries it, since when.
    pub fn published(&self, resource_type: ResourceType, name: &str) -> Option<Published> {
        self.published_to(&Group::default(), resource_type, name)
    }

    /// The same for another group.
    pub fn published_to(&self, group: &Group, resource_type: ResourceType, name: &str) -> Option<Published> {
        let views = self.views();
        let tables = views.get(group)?.tables();
        tables.table(resource_type).get(name).map(|entry| Published {
            sequence: entry.sequence,
            version: entry.version(),
            bytes: entry.encoded.message().len(),
            committed_at: self.wall(entry.committed),
        })
    }

    /// The encoded message of a resource that is published to the default group, as clients get it.
    pub fn content(&self, resource_type: ResourceType, name: &str) -> Option<Vec<u8>> {
        self.content_for(&Group::default(), resource_type, name)
    }

    /// The same for another group.
    pub fn content_for(&self, group: &Group, resource_type: ResourceType, name: &str) -> Option<Vec<u8>> {
        let views = self.views();
        let tables = views.get(group)?.tables();
        tables.table(resource_type).get(name).map(|entry| entry.encoded.message().to_vec())
    }

    /// How many resources of a type are published to the default group.
    pub fn len(&self, resource_type: ResourceType) -> usize {
        self.views().default_view().tables().table(resource_type).len()
    }

    /// Whether nothing is published to the default group.
    pub fn is_empty(&self) -> bool {
        ResourceType::ALL.into_iter().all(|resource_type| self.len(resource_type) == 0)
    }

    /// The number of the last change; 1 while there was none.
    pub fn sequence(&self) -> u64 {
        *self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every client that is connected, oldest first. A client that keeps a stream for each type is one for each.
    pub fn clients(&self) -> Vec<ClientStatus> {
        let clients = self.shared.clients.all();
        clients.iter().map(|client| client.status(&client.view.tables(), |at| self.wall(at))).collect()
    }

    /// Whether each client has accepted the newest version of a resource; a client whose group does not have the
    /// resource is not among them.
    pub fn acceptance(&self, resource_type: ResourceType, name: &str) -> Vec<Acceptance> {
        let of_client = |client: &Arc<Client>| {
            let progress = client.progress(resource_type, name, &client.view.tables())?;
            let subscribed = !matches!(progress, Progress::Unsubscribed);
            let state = match progress {
                Progress::Unsubscribed | Progress::NotSent => AcceptanceState::NotSent,
                Progress::Sent => AcceptanceState::Sent,
                Progress::Accepted { at } => AcceptanceState::Accepted { at: self.wall(at) },
                Progress::Rejected { message, at } => AcceptanceState::Rejected { message, at: self.wall(at) },
                Progress::HeldBack => AcceptanceState::HeldBack,
            };
            let group = client.view.group.clone();
            Some(Acceptance { client: client.id, node_id: client.node_id(), group, subscribed, state })
        };
        self.shared.clients.all().iter().filter_map(of_client).collect()
    }

    /// The news about clients from now on. There is one taker: a later call ends the earlier one's receiver.
    pub fn events(&self) -> mpsc::Receiver<ClientEvent> {
        self.shared.clients.subscribe()
    }

    /// What clients report of the load they carry.
    pub fn load_reports(&self) -> &LoadReports {
        &self.shared.load
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

    fn views(&self) -> Arc<Views> {
        Arc::clone(&self.shared.views.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The names of a type that are published to any group.
    pub(crate) fn every_name(&self, resource_type: ResourceType) -> BTreeSet<Arc<str>> {
        self.views().iter().flat_map(|view| view.tables().table(resource_type).names()).collect()
    }

    /// Whether a name is published to any group.
    pub(crate) fn is_published(&self, resource_type: ResourceType, name: &str) -> bool {
        self.views().iter().any(|view| view.tables().table(resource_type).get(name).is_some())
    }

    /// The view of the group that a node belongs to.
    pub(crate) fn view_of(&self, node: &Node) -> Arc<View> {
        Arc::clone(self.views().of(node))
    }

    pub(crate) fn streams(&self) -> &Clients {
        &self.shared.clients
    }

    pub(crate) fn opened(&self) -> watch::Receiver<Opening> {
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
}

#[cfg(test)]
mod tests;
