//! Active checks. One task holds every target and its schedule; a check under way is a job in its `JoinSet`, and what lasts
//! long has sockets of its own, so that a slow target delays no other. It runs best on a thread of its own: on several, each check would
//! wake two of them. Single results become verdicts in [`Streak`]; only a verdict that flipped, became known, or fails for a new reason
//! is told to the inbox. Which instance is checked is decided elsewhere and arrives as [`ProbeChange`]s.

mod check;
mod metrics;
mod schedule;

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tidegate_core::health::{Streak, Verdict};
use tidegate_core::instance::Check;
use tidegate_core::state::ProbeChange;
use tidegate_core::{Input, InstanceId, Timestamp};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::check::Outcome;
pub use self::metrics::ProbeMetrics;
use self::schedule::{Key, Run, Schedule, Start};
use crate::clock::Clock;

/// A failing instance whose reason changes is told of again after this long at the earliest.
const NEW_REASON_AFTER: Duration = Duration::from_secs(1);
/// The same, when the reason only goes back to the one before: an address that is gone alternates between two.
const OLD_REASON_AFTER: Duration = Duration::from_secs(30);
/// By how much a regular interval may be shorter or longer, so that checks which began together spread out.
const JITTER: f64 = 0.1;

/// The prober.
#[derive(Debug)]
pub struct Prober {
    clock: Clock,
    metrics: ProbeMetrics,
    targets: HashMap<Key, Target>,
    keys: HashMap<InstanceId, Key>,
    next_key: Key,
    schedule: Schedule,
    running: JoinSet<(Key, Run, Outcome)>,
    /// To give them up by.
    handles: HashMap<Key, AbortHandle>,
    /// Verdicts on their way to the inbox: each target at most once, whatever happens to it meanwhile.
    outbox: VecDeque<Key>,
}

#[derive(Debug)]
struct Target {
    id: InstanceId,
    check: Arc<Check>,
    streak: Streak,
    /// What the inbox knows, or is about to.
    verdict: Option<Verdict>,
    /// What the verdict before said.
    before: Option<String>,
    /// The verdict waits in the outbox.
    unsent: bool,
    /// When the inbox was last told something.
    told: Timestamp,
    /// When it was first watched.
    since: Timestamp,
}

impl Prober {
    /// A prober that does nothing until it runs.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            metrics: ProbeMetrics::default(),
            targets: HashMap::new(),
            keys: HashMap::new(),
            next_key: 0,
            schedule: Schedule::default(),
            running: JoinSet::new(),
            handles: HashMap::new(),
            outbox: VecDeque::new(),
        }
    }

    /// What it counts.
    #[must_use]
    pub fn metrics(&self) -> ProbeMetrics {
        self.metrics.clone()
    }

    /// Checks until `shutdown`, or until nobody says what to check or reads `inbox` any more.
    ///
    /// It never waits for the inbox while changes are to be read: whoever reads the inbox may be the one who sends changes.
    #[tracing::instrument(name = "probe", skip_all)]
    pub async fn run(
        mut self,
        mut changes: mpsc::Receiver<ProbeChange>,
        inbox: mpsc::Sender<Input>,
        shutdown: CancellationToken,
    ) {
        let mut alarm = pin!(sleep_until(Instant::now()));
        let mut stopped = pin!(shutdown.cancelled());
        loop {
            let due = self.schedule.next_due();
            if let Some(at) = due.filter(|at| *at != alarm.deadline()) {
                alarm.as_mut().reset(at);
            }
            tokio::select! {
                () = &mut stopped => return,
                change = changes.recv() => match change {
                    Some(ProbeChange::Watch { id, check }) => self.watch(id, check.into()),
                    Some(ProbeChange::Forget(id)) => self.forget(&id),
                    None => return,
                },
                permit = inbox.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => if let Some(input) = self.next_input() { permit.send(input) },
                    Err(_) => return,
                },
                Some(done) = self.running.join_next() => {
                    self.ended(done);
                    while let Some(done) = self.running.try_join_next() {
                        self.ended(done);
                    }
                }
                () = &mut alarm, if due.is_some() => {
                    for key in self.schedule.wake(Instant::now()) {
                        if let Some(handle) = self.handles.remove(&key) {
                            handle.abort();
                        }
                    }
                }
            }
            self.start();
        }
    }

    fn watch(&mut self, id: InstanceId, check: Arc<Check>) {
        if !check.kind.is_active() {
            self.forget(&id);
            return;
        }
        if let Some(key) = self.keys.get(&id)
            && let Some(target) = self.targets.get_mut(key)
        {
            if target.check.kind == check.kind && target.check.address == check.address {
                target.check = check;
                self.schedule.at_once(*key);
                return;
            }
            self.forget(&id);
        }
        let key = self.next_key;
        self.next_key += 1;
        let target = Target {
            id: id.clone(),
            check,
            streak: Streak::default(),
            verdict: None,
            before: None,
            unsent: false,
            told: Timestamp::default(),
            since: self.clock.now(),
        };
        self.targets.insert(key, target);
        self.keys.insert(id, key);
        self.schedule.at_once(key);
        self.metrics.targets.set(i64::try_from(self.targets.len()).unwrap_or(i64::MAX));
    }

    fn forget(&mut self, id: &InstanceId) {
        if let Some(key) = self.keys.remove(id) {
            self.targets.remove(&key);
            self.schedule.forget(key);
            self.metrics.targets.set(i64::try_from(self.targets.len()).unwrap_or(i64::MAX));
        }
    }

    fn start(&mut self) {
        while let Some(Start { key, run, late }) = self.schedule.start() {
            let Some(target) = self.targets.get(&key) else {
                self.schedule.forget(key);
                self.schedule.ended(key, run);
                continue;
            };
            self.metrics.lateness.observe(late.as_secs_f64());
            let (address, check) = (target.check.target(&target.id), Arc::clone(&target.check));
            let handle = self.running.spawn(async move { (key, run, check::perform(address, &check).await) });
            self.handles.insert(key, handle);
        }
    }

    fn ended(&mut self, done: Result<(Key, Run, Outcome), JoinError>) {
        match done {
            Ok((key, run, outcome)) => self.take(key, run, outcome),
            Err(error) if error.is_cancelled() => {}
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn take(&mut self, key: Key, run: Run, outcome: Outcome) {
        if !self.schedule.ended(key, run) {
            return;
        }
        self.handles.remove(&key);
        let Some(target) = self.targets.get_mut(&key) else { return };
        self.metrics.count(&target.check.kind, &outcome);
        let now = self.clock.now();
        let (passed, detail) = match outcome {
            Outcome::Passed(detail) => (true, detail),
            Outcome::Failed(detail) | Outcome::TimedOut(detail) => (false, detail),
            Outcome::Inconclusive(detail) => {
                tracing::warn!(instance = %target.id, reason = detail, "a check could not be made");
                self.schedule.after(key, target.check.interval);
                return;
            }
        };
        tracing::trace!(instance = %target.id, passed, detail, "checked");
        let flipped = target.streak.observe(passed, &target.check);
        let pause = target.streak.pause(&target.check);
        // A newcomer's pauses stay as they are: it is waited for.
        let regular = pause >= target.check.interval;
        let pause = if regular { jittered(pause) } else { pause };
        let grace = target.grace(now);
        self.schedule.after(key, grace.map_or(pause, |left| pause.min(left)));

        match flipped {
            Some(passing) => target.log_flip(passing, &detail),
            None if !passed && (target.has_news(&detail, now) || target.is_out_of(grace)) => {}
            None => return,
        }
        let verdict = Verdict { passing: passed, starting: !passed && grace.is_some(), detail, since: now };
        target.before = target.verdict.replace(verdict).map(|verdict| verdict.detail);
        target.told = now;
        if !target.unsent {
            target.unsent = true;
            self.outbox.push_back(key);
        }
    }

    fn next_input(&mut self) -> Option<Input> {
        while let Some(key) = self.outbox.pop_front() {
            if let Some(target) = self.targets.get_mut(&key) {
                target.unsent = false;
                let verdict = target.verdict.clone()?;
                return Some(Input::Checked { id: target.id.clone(), verdict });
            }
        }
        None
    }
}

impl Target {
    /// Whether whoever asks why this fails should hear of `reason`, which is not what was said last.
    fn has_news(&self, reason: &str, now: Timestamp) -> bool {
        let rest = if self.before.as_deref() == Some(reason) { OLD_REASON_AFTER } else { NEW_REASON_AFTER };
        self.verdict.as_ref().is_some_and(|known| !known.passing && known.detail != reason)
            && now.since(self.told) >= rest
    }

    /// How long it may go on not to pass; `None`: it passed already, or should have.
    fn grace(&self, now: Timestamp) -> Option<Duration> {
        let left = self.check.grace.saturating_sub(now.since(self.since));
        (!left.is_zero() && !self.streak.ever_passed()).then_some(left)
    }

    /// Whether its grace ended, and nobody knows.
    fn is_out_of(&self, grace: Option<Duration>) -> bool {
        grace.is_none() && self.verdict.as_ref().is_some_and(|known| known.starting)
    }

    fn log_flip(&self, passing: bool, reason: &str) {
        let address = self.id.address;
        match (passing, &self.verdict) {
            (true, _) => tracing::debug!(instance = %self.id, %address, reason, "checks pass"),
            (false, Some(_)) => tracing::debug!(instance = %self.id, %address, reason, "checks fail"),
            // It has only just started.
            (false, None) => tracing::debug!(instance = %self.id, %address, reason, "checks do not pass yet"),
        }
    }
}

fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(1.0 - JITTER..=1.0 + JITTER))
}

#[cfg(test)]
mod tests;
