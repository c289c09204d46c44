//! The sign of life of a wasm VM. Under `FAIL_OPEN` Envoy passes requests by a crashed VM and shows it in no stat, so
//! each VM beats once a second into one counter, and the control plane counts the beats.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use proxy_wasm::hostcalls;
use tidegate_filter_core::HEARTBEAT_COUNTER;

use crate::counters::Count;

const PERIOD_MS: u64 = 1_000;

thread_local! {
    /// The root contexts of this VM that tick. A request under way keeps an old policy's root alive, and it goes on
    /// ticking; a listener that is being added brings one for its start-up policy, which may soon be gone again.
    static TICKING: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
}

/// One root context's part in it.
pub(crate) struct Heartbeat {
    context_id: u32,
    beats: Count,
    tick_ms: u64,
    /// Since the last beat.
    passed_ms: u64,
}

impl Heartbeat {
    pub(crate) fn start(context_id: u32) -> Self {
        TICKING.with_borrow_mut(|ticking| ticking.insert(context_id));
        let _ = hostcalls::set_tick_period(Duration::from_millis(PERIOD_MS));
        let beats = Count::define(HEARTBEAT_COUNTER.to_owned());
        Self { context_id, beats, tick_ms: PERIOD_MS, passed_ms: 0 }
    }

    /// Ticks faster than it beats.
    pub(crate) fn hurry(&mut self, tick_ms: u64) {
        let _ = hostcalls::set_tick_period(Duration::from_millis(tick_ms));
        self.tick_ms = tick_ms;
    }

    /// Beats each second, if this root is the youngest: one VM, one beat. Says how much time has passed for the VM.
    pub(crate) fn tick(&mut self) -> Option<u64> {
        if TICKING.with_borrow(|ticking| ticking.last() != Some(&self.context_id)) {
            return None;
        }
        self.passed_ms = self.passed_ms.saturating_add(self.tick_ms);
        if self.passed_ms >= PERIOD_MS {
            self.passed_ms = 0;
            self.beats.add_one();
        }
        Some(self.tick_ms)
    }
}

/// The root context that is to speak for this VM.
pub(crate) fn youngest() -> Option<u32> {
    TICKING.with_borrow(|ticking| ticking.last().copied())
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        TICKING.with_borrow_mut(|ticking| ticking.remove(&self.context_id));
    }
}
