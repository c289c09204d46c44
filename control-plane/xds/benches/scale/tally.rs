//! What a fleet has seen so far, shared between its thread and the case that waits for it, and the load that it is measured
//! against. Counts and times only.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::plan::Held;
use crate::wire;

#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) responses: AtomicU64,
    pub(crate) resources: AtomicU64,
    pub(crate) synced: AtomicUsize,
    /// When the last stream became synced, and when the last news came.
    pub(crate) synced_at: AtomicU64,
    pub(crate) news: AtomicUsize,
    pub(crate) news_at: AtomicU64,
    /// Streams that ended by themselves, and responses that could not be read.
    pub(crate) broken: AtomicUsize,
    load: OnceLock<Load>,
    /// Of each stream, one more than the newest commit of the load that it has.
    pub(crate) newest: Vec<AtomicU64>,
    lags: Mutex<Vec<(u32, Duration)>>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) held: Held,
}

/// Commits at a steady rate, each of the endpoints of one service. When a commit is due does not depend on when the server
/// got to it: a server that falls behind is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Load {
    /// When the first commit is due, in nanoseconds of the monotonic clock.
    pub(crate) start: u64,
    pub(crate) interval: u64,
    /// The services that are changed, in a fixed order that jumps.
    pub(crate) from: usize,
    pub(crate) of: usize,
}

/// A prime that has no common factor with the number of services, so that all have their turn.
const JUMP: u64 = 7919;
/// A commit's number is the weight of its first endpoint, after this.
const FIRST_WEIGHT: u64 = 1000;

impl Load {
    pub(crate) fn due(&self, commit: u64) -> u64 {
        self.start + commit * self.interval
    }

    pub(crate) fn service(&self, commit: u64) -> usize {
        self.from + usize::try_from(commit * JUMP % self.of as u64).unwrap_or(0)
    }

    pub(crate) fn weight(commit: u64) -> u32 {
        u32::try_from(FIRST_WEIGHT + commit).unwrap_or(u32::MAX)
    }

    /// The commit that an `Any` of a `ClusterLoadAssignment` comes from: the weight of the first endpoint.
    pub(crate) fn commit(&self, any: &[u8]) -> Option<u64> {
        let assignment = wire::bytes(any, 2)?;
        let endpoint = wire::bytes(wire::bytes(assignment, 2)?, 2)?;
        wire::number(wire::bytes(endpoint, 4)?, 1)?.checked_sub(FIRST_WEIGHT)
    }
}

impl Tally {
    pub(crate) fn new(streams: usize) -> Self {
        Self {
            received: AtomicU64::default(),
            sent: AtomicU64::default(),
            responses: AtomicU64::default(),
            resources: AtomicU64::default(),
            synced: AtomicUsize::default(),
            synced_at: AtomicU64::default(),
            news: AtomicUsize::default(),
            news_at: AtomicU64::default(),
            broken: AtomicUsize::default(),
            load: OnceLock::new(),
            newest: (0..streams).map(|_| AtomicU64::new(0)).collect(),
            lags: Mutex::default(),
            recorded: Mutex::default(),
        }
    }

    pub(crate) fn response(&self, resources: u64) {
        self.responses.fetch_add(1, Relaxed);
        self.resources.fetch_add(resources, Relaxed);
    }

    pub(crate) fn synced(&self) {
        self.synced_at.fetch_max(now(), Relaxed);
        self.synced.fetch_add(1, Relaxed);
    }

    pub(crate) fn news(&self, now: u64) {
        self.news_at.fetch_max(now, Relaxed);
        self.news.fetch_add(1, Relaxed);
    }

    pub(crate) fn broken(&self) {
        self.broken.fetch_add(1, Relaxed);
    }

    pub(crate) fn load(&self) -> Option<Load> {
        self.load.get().copied()
    }

    /// From now on news is measured against a load. There is one load in a fleet's life.
    pub(crate) fn expect(&self, load: Load) {
        let _ = self.load.set(load);
    }

    pub(crate) fn lag(&self, stream: usize, newest: u64, nanoseconds: u64) {
        self.newest[stream].store(newest + 1, Relaxed);
        let lag = Duration::from_nanos(nanoseconds);
        self.lags.lock().unwrap_or_else(PoisonError::into_inner).push((u32::try_from(stream).unwrap_or(0), lag));
    }

    pub(crate) fn take_lags(&self) -> Vec<(u32, Duration)> {
        std::mem::take(&mut self.lags.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The monotonic clock, which all processes of this machine share, in nanoseconds.
pub(crate) fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// The processor time that this process has used.
pub(crate) fn processor() -> Duration {
    Duration::from_nanos(nanoseconds(ClockId::ProcessCPUTime))
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}
