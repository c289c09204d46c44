//! One connection to the engine, from the subscription to its loss. The reader of events only fills [`Heard`]; everything
//! else (looks, lists, pings, what to send) is decided in [`Session::turn`], one wake-up at a time.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tidegate_core::container::Container;
use tidegate_core::instance::Hint;
use tidegate_core::{Problem, Timestamp, Update};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::engine::{Engine, EngineError, Events};
use super::facts::Inspected;
use super::fate::Moment;
use super::hints::{Dirty, Pending};
use super::problems;
use super::queue::Queue;
use super::stats::DockerStats;
use super::view::{Again, Consequences, Look, View};
use super::{DockerSettings, jittered};
use crate::clock::Clock;

/// Looks under way at once. A look waits for the container's lock, which a start holds: enough that those do not keep others
/// waiting, few enough for an engine's file descriptors.
const MAX_LOOKS: usize = 64;
/// Pings prove that the engine is there; together with their timeout they bound how long a dead one is believed.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The first list after the one that came with the connection. The engine answers the request for events a moment before it
/// subscribes (moby `getEvents`), so a list well after that closes the gap for good.
const FIRST_RESYNC: Duration = Duration::from_secs(1);
/// A created container is started in a moment, which is another event; only one that is not is looked at as it is.
const CREATED_LOOK: Duration = Duration::from_secs(2);
/// A stream that keeps events to itself is opened anew, but not again and again.
const SUSPECT_AFTER: Duration = Duration::from_secs(60);

/// A time that is waited for no longer than this, and then again.
const FAR: Duration = Duration::from_secs(86_400);

/// What the reader of events leaves for the session: bounded by the number of containers, and never in the reader's way.
#[derive(Debug, Default)]
pub(super) struct Heard {
    dirty: Mutex<Dirty>,
    wake: Notify,
}

impl Heard {
    fn with<T>(&self, look: impl FnOnce(&mut Dirty) -> T) -> T {
        look(&mut self.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The engine's time of the newest event.
    pub(super) fn newest(&self) -> Option<i64> {
        self.with(|dirty| dirty.newest())
    }
}

/// Reads events until the stream ends, and says why it did.
async fn read(mut events: Events, heard: Arc<Heard>, stats: DockerStats, clock: Clock) -> EngineError {
    loop {
        match events.next().await {
            Ok(event) => {
                stats.events.inc();
                heard.with(|dirty| dirty.insert(event, clock.now()));
                heard.wake.notify_one();
            }
            Err(error) => return error,
        }
    }
}

/// A connection that is in use.
#[derive(Debug)]
pub(super) struct Session {
    engine: Arc<Engine>,
    heard: Arc<Heard>,
    stats: DockerStats,
    clock: Clock,
    resync: Duration,
    jitter: u64,
    /// Everything that is under way; the reader is one of them.
    jobs: JoinSet<Done>,
    queue: Queue,
    /// The enabled containers that the first full set waits for; `None` once it is sent.
    awaited: Option<HashSet<String>>,
    failed: BTreeMap<String, Problem>,
    opened: i64,
    since: Instant,
    next_ping: Instant,
    next_resync: Instant,
    listing: bool,
    pinging: bool,
}

/// What one wake-up came to.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// To send, in order.
    pub(super) updates: Vec<Update>,
    /// The problems changed.
    pub(super) problems: bool,
    /// The first full set is complete.
    pub(super) complete: bool,
    /// A list found what no event had told: the stream keeps things to itself.
    pub(super) suspect: bool,
    /// Everything that was told holds: the engine has answered, its stream of events is open, and a full set was told.
    pub(super) confirmed: bool,
}

/// What ended.
#[derive(Debug)]
enum Done {
    Reader(EngineError),
    Pinged(Result<(), EngineError>),
    Listed { asked: Timestamp, list: Result<Vec<Container>, EngineError> },
    Looked { id: String, hint: Hint, look: Result<Option<Box<Inspected>>, EngineError> },
}

impl Session {
    /// Starts reading `events`. Nothing is listed yet.
    pub(super) fn new(
        engine: Engine,
        events: Events,
        opened: i64,
        heard: Arc<Heard>,
        stats: DockerStats,
        clock: Clock,
        settings: &DockerSettings,
    ) -> Self {
        let mut jobs = JoinSet::new();
        let reader = read(events, Arc::clone(&heard), stats.clone(), clock);
        jobs.spawn(async move { Done::Reader(reader.await) });
        let now = Instant::now();
        Self {
            engine: Arc::new(engine),
            heard,
            stats,
            clock,
            resync: settings.resync,
            jitter: settings.jitter,
            jobs,
            queue: Queue::default(),
            awaited: Some(HashSet::new()),
            failed: BTreeMap::new(),
            opened,
            since: now,
            next_ping: now + PING_INTERVAL,
            next_resync: now + FIRST_RESYNC,
            listing: false,
            pinging: false,
        }
    }

    /// How long it has lasted.
    pub(super) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// The problems of single containers.
    pub(super) fn problems(&self) -> Vec<Problem> {
        self.failed.values().cloned().collect()
    }

    /// The list that begins a session. Every enabled container in it is going to be looked at.
    pub(super) async fn list(&mut self, view: &mut View) -> Result<Turn, EngineError> {
        self.stats.lists.inc();
        let containers = self.engine.list().await?;
        let now = self.clock.now();
        self.stats.answered(now);
        let hint = Hint { action: "list".to_owned(), at: now };
        let looks = view.list_all(containers, &hint, now);
        for id in &looks {
            self.queue.now(id, hint.clone());
        }
        self.awaited = Some(looks.into_iter().collect());
        let mut turn = Turn::default();
        self.conclude(view, &mut turn);
        self.start_looks();
        Ok(turn)
    }

    /// Waits for something to happen, and takes it.
    pub(super) async fn turn(&mut self, view: &mut View) -> Result<Turn, EngineError> {
        let mut turn = Turn::default();
        let heard = Arc::clone(&self.heard);
        // A stop timeout may be longer than any clock runs.
        let deadline = view.next_deadline().map(|at| Instant::now() + at.since(self.clock.now()).min(FAR));
        tokio::select! {
            // The reader never ends by itself without a result, so the set is never empty.
            Some(done) = self.jobs.join_next() => match done {
                Ok(done) => self.take(done, view, &mut turn)?,
                Err(error) if error.is_cancelled() => {}
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
            () = heard.wake.notified() => self.hear(view, &mut turn),
            () = at(self.queue.next_due()) => self.queue.wake(Instant::now()),
            () = at(deadline) => {
                let now = self.clock.now();
                for id in view.overdue(now) {
                    self.queue.now(&id, Hint { action: "stop timeout passed".to_owned(), at: now });
                }
            }
            () = sleep_until(self.next_ping), if !self.pinging => {
                self.pinging = true;
                let engine = Arc::clone(&self.engine);
                self.jobs.spawn(async move { Done::Pinged(engine.ping().await) });
            }
            () = sleep_until(self.next_resync), if !self.listing && self.awaited.is_none() => {
                self.listing = true;
                self.stats.lists.inc();
                let (engine, asked) = (Arc::clone(&self.engine), self.clock.now());
                self.jobs.spawn(async move { Done::Listed { asked, list: engine.list().await } });
            }
        }
        self.conclude(view, &mut turn);
        self.start_looks();
        Ok(turn)
    }

    /// Takes everything heard since the last time.
    fn hear(&mut self, view: &mut View, turn: &mut Turn) {
        let moment = Moment { now: self.clock.now(), engine: self.engine.now(), opened: self.opened };
        let pending: BTreeMap<String, Pending> = self.heard.with(Dirty::take);
        for (id, pending) in pending {
            tracing::debug!(container = id, action = pending.action, "heard of a container");
            let heard = view.hear(&id, &pending, moment);
            turn.updates.extend(heard.update);
            match heard.look {
                Look::No if pending.destroyed => {
                    self.queue.forget(&id);
                    self.settle(&id, turn);
                }
                Look::No => {}
                Look::Now => self.queue.now(&id, pending.hint()),
                Look::Later => self.queue.later(&id, pending.hint(), Instant::now() + CREATED_LOOK),
            }
        }
    }

    fn take(&mut self, done: Done, view: &mut View, turn: &mut Turn) -> Result<(), EngineError> {
        let now = self.clock.now();
        match done {
            Done::Reader(error) => return Err(error),
            Done::Pinged(result) => {
                result?;
                self.stats.answered(now);
                turn.confirmed = self.awaited.is_none();
                self.pinging = false;
                self.next_ping = Instant::now() + PING_INTERVAL;
            }
            Done::Listed { asked, list } => {
                let list = list?;
                self.stats.answered(now);
                turn.confirmed = true;
                self.listing = false;
                self.next_resync = Instant::now() + self.resync;
                let hint = Hint { action: RESYNC.to_owned(), at: now };
                let heard = |id: &str| self.queue.contains(id) || self.heard.with(|dirty| dirty.contains(id));
                let listing = view.list_again(list, asked, heard, &hint, now);
                for id in listing.inspect {
                    self.queue.now(&id, hint.clone());
                }
                if !listing.updates.is_empty() {
                    self.stats.drift.inc_by(listing.updates.len() as u64);
                    tracing::info!(containers = listing.updates.len(), "repaired what no event had told");
                }
                turn.updates.extend(listing.updates);
            }
            Done::Looked { id, hint, look } => {
                let counts = self.queue.done(&id);
                if counts {
                    self.looked(&id, hint, look, view, turn);
                }
            }
        }
        Ok(())
    }

    fn looked(
        &mut self,
        id: &str,
        hint: Hint,
        look: Result<Option<Box<Inspected>>, EngineError>,
        view: &mut View,
        turn: &mut Turn,
    ) {
        let now = self.clock.now();
        let update = match look {
            Ok(Some(inspected)) => {
                self.stats.answered(now);
                let looked = view.look(*inspected, hint.clone(), now);
                let soon = Instant::now();
                let again = match looked.again {
                    Some(Again::NoAddress) => self.queue.again(id, hint.clone(), soon, address_pause),
                    Some(Again::Stale) => self.queue.again(id, hint.clone(), soon, stale_pause),
                    None => false,
                };
                if !again {
                    self.queue.settled(id);
                }
                self.settle(id, turn);
                looked.update
            }
            Ok(None) => {
                self.stats.answered(now);
                self.queue.forget(id);
                self.settle(id, turn);
                view.gone(id)
            }
            Err(error) => {
                tracing::debug!(container = id, %error, "a container could not be inspected");
                let problem = problems::inspect_failed(&view.subject(id), &error);
                turn.problems |= self.failed.get(id) != Some(&problem);
                self.failed.insert(id.to_owned(), problem);
                self.await_no_more(id);
                let pause = |attempt| Some(jittered(failure_pause(attempt), (self.jitter, id, attempt)));
                self.queue.again(id, hint, Instant::now(), pause);
                return;
            }
        };
        let Some(update) = update else { return };
        turn.updates.push(update);
        if hint.action == RESYNC && !self.heard.with(|dirty| dirty.contains(id)) {
            self.stats.drift.inc();
            tracing::info!(container = id, "repaired what no event had told");
            turn.suspect = self.age() > SUSPECT_AFTER;
        }
    }

    /// `id` is in order again.
    fn settle(&mut self, id: &str, turn: &mut Turn) {
        turn.problems |= self.failed.remove(id).is_some();
        self.await_no_more(id);
    }

    fn await_no_more(&mut self, id: &str) {
        if let Some(awaited) = &mut self.awaited {
            awaited.remove(id);
        }
    }

    /// Whether the first full set is complete now; until then it stands for every update.
    fn conclude(&mut self, view: &mut View, turn: &mut Turn) {
        let Consequences { updates, inspect } = view.consequences();
        turn.updates.extend(updates);
        for id in inspect {
            self.queue.now(&id, Hint { action: "network of another".to_owned(), at: self.clock.now() });
        }
        if self.awaited.as_ref().is_some_and(HashSet::is_empty) {
            self.awaited = None;
            (turn.complete, turn.confirmed) = (true, true);
            turn.updates.push(view.reset());
        }
        self.stats.containers.set(i64::try_from(view.len()).unwrap_or(i64::MAX));
    }

    fn start_looks(&mut self) {
        while self.queue.running() < MAX_LOOKS {
            let Some((id, hint)) = self.queue.next() else { break };
            self.stats.inspects.inc();
            let engine = Arc::clone(&self.engine);
            self.jobs.spawn(async move {
                let look = engine.inspect(&id).await.map(|found| found.map(Box::new));
                Done::Looked { id, hint, look }
            });
        }
    }
}

/// The action of looks that a list between events asked for.
const RESYNC: &str = "resync";

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Networks are attached within milliseconds of a start; eight looks in a second and a third, and then events and lists.
fn address_pause(attempt: u32) -> Option<Duration> {
    (attempt < 8).then(|| Duration::from_millis(5 << attempt))
}

/// An engine that shows a run that is over catches up within milliseconds, or not at all.
fn stale_pause(attempt: u32) -> Option<Duration> {
    Some(Duration::from_millis(10 << attempt.min(7)))
}

/// From 200 ms doubling to 10 s, less up to half of it.
fn failure_pause(attempt: u32) -> Duration {
    Duration::from_millis(200 << attempt.min(6)).min(Duration::from_secs(10))
}
