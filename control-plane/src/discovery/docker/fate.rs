//! What only events tell of a container, and what therefore outlives every list: that it was told to stop (inspect never shows
//! it), and that a run is over (a look may still show that run). Both hold for runs that began before the event, by the
//! engine's own clock, so neither touches the run that follows. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::Timestamp;

use super::facts::{self, Stop};
use super::hints::Pending;
use super::signal;

/// Beyond the stop timeout, Docker needs a moment to kill and to say so; after that the container evidently goes on.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// For this long a look that shows a run from before a `die` is taken for a stale one. Longer, the engine's clock went back.
const STALE_FOR: Duration = Duration::from_secs(5);

/// When something is heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// By our clock.
    pub(super) now: Timestamp,
    /// By the engine's clock, in nanoseconds.
    pub(super) engine: i64,
    /// When the stream of events was opened, by the engine's clock: what is older is a replay.
    pub(super) opened: i64,
}

/// What only events tell.
#[derive(Debug, Default)]
pub(super) struct Fate {
    signals: BTreeMap<u8, Sent>,
    died: Option<Died>,
    /// The end of the grace was noticed, and a look is under way.
    pub(super) overdue: bool,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    /// By the engine's clock.
    engine: i64,
    /// By ours.
    at: Timestamp,
}

#[derive(Clone, Debug)]
struct Died {
    /// By the engine's clock.
    engine: i64,
    /// When it was heard, by ours.
    heard: Timestamp,
    /// The run that was known then.
    run: Option<String>,
}

impl Fate {
    /// Takes what events told; `run` is the one that is known.
    pub(super) fn hear(&mut self, pending: &Pending, run: Option<&str>, moment: Moment) {
        for (&signal, &engine) in &pending.signals {
            if self.signals.get(&signal).is_some_and(|sent| sent.engine >= engine) {
                continue;
            }
            let age = u64::try_from(moment.engine.saturating_sub(engine) / 1_000_000).unwrap_or(0);
            let at = Timestamp::from_millis(moment.now.as_millis().saturating_sub(age));
            self.signals.insert(signal, Sent { engine, at });
            self.overdue = false;
        }
        if let Some((engine, _)) = pending.died
            && self.died.as_ref().is_none_or(|died| died.engine < engine)
        {
            let run = run.filter(|run| began_before(run, engine)).map(str::to_owned);
            self.died = Some(Died { engine, heard: moment.now, run });
        }
    }

    /// Until when the run is given to end; `None` when it was not told to, or has outlived that.
    pub(super) fn terminating(&self, run: &str, stop: Stop, now: Timestamp) -> Option<Timestamp> {
        self.signals
            .iter()
            .filter(|(number, _)| matches!(**number, signal::KILL | signal::TERM) || **number == stop.signal)
            .filter(|(_, sent)| began_before(run, sent.engine))
            .map(|(_, sent)| sent.at.after(stop.timeout + STOP_GRACE))
            .max()
            .filter(|until| *until > now)
    }

    /// Whether a look that shows `run` alive shows what is over.
    pub(super) fn is_over(&self, run: &str, now: Timestamp) -> bool {
        self.died.as_ref().is_some_and(|died| {
            died.run.as_deref() == Some(run) || (began_before(run, died.engine) && now.since(died.heard) < STALE_FOR)
        })
    }

    /// A look saw `run` alive: forgets what is about runs before it, and signals it outlived.
    pub(super) fn prune(&mut self, run: &str, stop: Stop, now: Timestamp) {
        self.signals.retain(|_, sent| began_before(run, sent.engine) && sent.at.after(stop.timeout + STOP_GRACE) > now);
        self.died = self.died.take().filter(|died| began_before(run, died.engine));
        self.overdue = false;
    }

    /// Whether it tells nothing any more.
    pub(super) fn is_empty(&self) -> bool {
        self.signals.is_empty() && self.died.is_none()
    }
}

/// Whether a run began before (or at) the engine's time `at`. An unreadable start counts as long ago.
pub(super) fn began_before(run: &str, at: i64) -> bool {
    facts::nanos(run).is_none_or(|began| began <= at)
}
