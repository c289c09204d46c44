//! The one task that owns the state. Everything enters by its inbox; it applies, derives, compiles and commits, and answers
//! those who want to look. Nobody else changes the state or writes to the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tidegate_core::compile::{Changes, Compiler, Kind, Removal, Resource, Upsert};
use tidegate_core::state::trials::{Errand, Order, OrderError};
use tidegate_core::state::{ProbeChange, Settled};
use tidegate_core::{Input, ServiceName, State, Timestamp};
use tidegate_xds::{Commit, Group, ResourceType, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::groups;
use crate::rollouts::Held;

/// Inputs applied before a round of deriving: enough that a storm of events costs few rounds, small enough that looks are
/// answered meanwhile.
const BATCH: usize = 256;

/// Instances whose flips one round logs one by one: with 100,000 at start, the log would take longer than the rest.
const LOGGED: usize = 1_000;

/// When a service's newest resources were committed to the xDS store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The store's sequence after that commit.
    pub sequence: u64,
    /// When it was committed.
    pub at: Timestamp,
}

/// What a look at the state sees.
pub struct Look<'a> {
    /// The state.
    pub state: &'a State,
    /// What was committed, by service.
    pub published: &'a BTreeMap<ServiceName, Publication>,
    /// Now.
    pub now: Timestamp,
}

type Looker = Box<dyn FnOnce(&Look<'_>) + Send>;

/// What somebody orders, and how they hear what became of it.
#[derive(Debug)]
struct Ordered {
    service: ServiceName,
    order: Order,
    by: String,
    answer: oneshot::Sender<Result<u64, OrderError>>,
}

/// Lets operators lead rollouts.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Ordered>);

impl Orders {
    /// Has it carried out; the revision of the rollouts in which it is, which is not on disk yet.
    ///
    /// # Errors
    /// [`Gone`] when the reconcile task has ended.
    pub async fn give(&self, service: ServiceName, order: Order, by: String) -> Result<Result<u64, OrderError>, Gone> {
        let (answer, carried_out) = oneshot::channel();
        self.0.send(Ordered { service, order, by, answer }).await.map_err(|_| Gone)?;
        carried_out.await.map_err(|_| Gone)
    }
}

/// Lets others look at the state, between two rounds of the task that owns it.
#[derive(Clone, Debug)]
pub struct Observer {
    lookers: mpsc::Sender<Looker>,
    news: watch::Receiver<u64>,
}

/// The reconcile task is gone: the process is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane is shutting down")]
pub struct Gone;

impl Observer {
    /// Runs `look` on the state as it is between two rounds. It must be quick: nothing is reconciled meanwhile.
    ///
    /// # Errors
    /// [`Gone`] when the reconcile task has ended.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Look<'_>) -> T + Send + 'static) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        let looker: Looker = Box::new(move |seen| {
            // The asker may have gone away; then nobody wants the answer.
            let _ = reply.send(look(seen));
        });
        self.lookers.send(looker).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// The number of the newest entry of the timeline, as it changes.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.clone()
    }
}

/// The task.
pub struct Reconcile {
    state: State,
    compiler: Compiler,
    store: Store,
    clock: Clock,
    inbox: mpsc::Receiver<Input>,
    outlets: Outlets,
    lookers: mpsc::Receiver<Looker>,
    orders: mpsc::Receiver<Ordered>,
    /// Services that changed since the last commit; they pile up until the first sync.
    pending: BTreeSet<ServiceName>,
    pending_edge: bool,
    published: BTreeMap<ServiceName, Publication>,
    /// Whether the first full picture was committed.
    synced: bool,
    /// The newest entry of the timeline.
    news: watch::Sender<u64>,
}

/// Whom the task tells what.
#[derive(Debug)]
pub struct Outlets {
    /// What is to be checked.
    pub probes: mpsc::Sender<ProbeChange>,
    /// The store's sequence after each commit; the first is the first sync.
    pub commits: watch::Sender<u64>,
    /// The rollouts, for whoever keeps them.
    pub rollouts: watch::Sender<Held>,
    /// What rollouts want asked and told outside. What finds no room is asked for again.
    pub errands: mpsc::Sender<Errand>,
}

impl Reconcile {
    /// The task that owns `state`, the way to look at it, and the way to give orders.
    #[must_use]
    pub fn new(
        state: State,
        compiler: Compiler,
        store: Store,
        clock: Clock,
        inbox: mpsc::Receiver<Input>,
        outlets: Outlets,
    ) -> (Self, Observer, Orders) {
        // People and scrapers look; sixteen at once are answered within one round.
        let (observer, lookers) = mpsc::channel(16);
        let (news, newest) = watch::channel(0);
        // Operators order by hand, or by a script that waits for each answer.
        let (orders, ordered) = mpsc::channel(16);
        let task = Self {
            state,
            compiler,
            store,
            clock,
            inbox,
            outlets,
            lookers,
            orders: ordered,
            pending: BTreeSet::new(),
            pending_edge: false,
            published: BTreeMap::new(),
            synced: false,
            news,
        };
        (task, Observer { lookers: observer, news: newest }, Orders(orders))
    }

    /// Runs until `shutdown`, or until nobody can send an input any more.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.state.deadline().map(|at| at.since(self.clock.now()));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                received = self.inbox.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                    for input in batch.drain(..) {
                        if !self.apply(input).await {
                            return;
                        }
                    }
                    self.round();
                }
                Some(ordered) = self.orders.recv() => {
                    let Ordered { service, order, by, answer } = ordered;
                    let carried_out = self.state.order(&service, order, &by, self.clock.now());
                    self.round();
                    // Who ordered may have gone away; it is done all the same.
                    let _ = answer.send(carried_out.map(|()| self.state.trials().revision()));
                }
                Some(look) = self.lookers.recv() => {
                    look(&Look { state: &self.state, published: &self.published, now: self.clock.now() });
                }
                () = tokio::time::sleep(deadline.unwrap_or(Duration::MAX)), if deadline.is_some() => self.round(),
            }
        }
    }

    /// False when the prober is gone: the process is shutting down.
    async fn apply(&mut self, input: Input) -> bool {
        tracing::debug!(?input, "input");
        for change in self.state.apply(input, self.clock.now()) {
            if self.outlets.probes.send(change).await.is_err() {
                return false;
            }
        }
        true
    }

    fn round(&mut self) {
        let now = self.clock.now();
        let committed = self.publish(now);
        self.state.committed(committed, now);
        let newest = self.state.journal().last();
        self.news.send_if_modified(|last| std::mem::replace(last, newest) != newest);
        self.store.load_reports().set_interval(self.state.load_report_interval());
        let trials = self.state.trials();
        let (revision, decided) = (trials.revision(), trials.decided());
        self.outlets.rollouts.send_if_modified(|held| {
            let is_new = held.revision != revision;
            if is_new {
                *held = Held { revision, decided, rollouts: Arc::new(trials.rollouts().clone()) };
            }
            is_new
        });
    }

    /// Derives, compiles and commits what was touched; the number of the commit, if there was anything to commit.
    fn publish(&mut self, now: Timestamp) -> Option<u64> {
        let Settled { services, edge, flips, errands } = self.state.settle(now);
        for errand in errands {
            if self.outlets.errands.try_send(errand).is_err() {
                tracing::warn!("too many webhooks and queries wait; one is put off");
            }
        }
        if flips.len() > LOGGED {
            tracing::info!(
                flips = flips.len(),
                "many instances became ready or not; the first {LOGGED} of them follow"
            );
        }
        for flip in flips.into_iter().take(LOGGED) {
            tracing::info!(
                service = %flip.service,
                version = %flip.version,
                container = flip.container,
                instance = %flip.id,
                reason = flip.reason,
                "{}",
                if flip.ready { "ready" } else { "not ready" },
            );
        }
        self.pending.extend(services);
        self.pending_edge |= edge;
        if !self.state.is_synced() {
            return None;
        }
        let services = std::mem::take(&mut self.pending);
        let edge = std::mem::take(&mut self.pending_edge);
        let changes = self.compiler.update(&self.state, &services, edge);
        let committed = if !self.synced {
            // The whole picture: of what was served from an earlier life, what is gone is withdrawn, and what is equal stays.
            let committed = self.store.replace(commit(&changes));
            tracing::info!(
                services = services.len(),
                changed = committed.changed.len(),
                "first sync done, serving xDS"
            );
            self.store.open();
            self.synced = true;
            Some(committed.sequence)
        } else if !changes.is_empty() {
            let committed = self.store.commit(commit(&changes));
            tracing::debug!(sequence = committed.sequence, resources = committed.changed.len(), "committed");
            Some(committed.sequence)
        } else {
            None
        };
        if let Some(sequence) = committed {
            self.outlets.commits.send_replace(sequence);
        }
        for service in services {
            if self.state.service(&service).is_none() {
                self.published.remove(&service);
            } else {
                self.published.insert(service, Publication { sequence: self.store.sequence(), at: now });
            }
        }
        committed
    }
}

fn commit(changes: &Changes) -> Commit {
    let mut commit = Commit::default();
    if let Some(groups) = &changes.groups {
        commit.regroup(groups::grouping(groups));
    }
    for Upsert { audience, name, resource } in &changes.upserts {
        let audience = groups::audience(audience);
        match resource {
            Resource::Cluster(message) => put(&mut commit, audience, ResourceType::Cluster, name, &**message),
            Resource::Endpoint(message) => put(&mut commit, audience, ResourceType::Endpoint, name, message),
            Resource::Listener(message) => put(&mut commit, audience, ResourceType::Listener, name, &**message),
            Resource::Route(message) => put(&mut commit, audience, ResourceType::Route, name, &**message),
            Resource::ExtensionConfig(message) => {
                put(&mut commit, audience, ResourceType::ExtensionConfig, name, message);
            }
            Resource::Runtime(message) => put(&mut commit, audience, ResourceType::Runtime, name, message),
        }
    }
    for Removal { audience, kind, name } in &changes.removals {
        let resource_type = match kind {
            Kind::Cluster => ResourceType::Cluster,
            Kind::Endpoint => ResourceType::Endpoint,
            Kind::Listener => ResourceType::Listener,
            Kind::Route => ResourceType::Route,
        };
        match groups::audience(audience) {
            None => commit.remove(resource_type, name),
            Some(groups) => commit.remove_for(&groups, resource_type, name),
        }
    }
    if changes.urgent {
        commit.mark_urgent();
    }
    commit
}

/// Publishes to some groups, or to everyone.
fn put<M>(commit: &mut Commit, groups: Option<Vec<Group>>, resource_type: ResourceType, name: &str, message: &M)
where
    M: Message + Default + PartialEq,
{
    match groups {
        None => commit.upsert(resource_type, name, message),
        Some(groups) => commit.upsert_for(&groups, resource_type, name, message),
    }
}

#[cfg(test)]
mod tests;
