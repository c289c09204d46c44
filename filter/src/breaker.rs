//! A service's breaker in one worker. Its state is one value that all workers share; each of the canary's answers changes it by
//! compare-and-swap, and a tick looks at it, so that a worker learns of what another one saw. What a swap did not take is kept
//! for the next one. An open breaker is known here without asking, and closed by another epoch alone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use proxy_wasm::hostcalls;
use proxy_wasm::types::Status;
use tidegate_filter_core::{
    BreakerPolicy, BreakerState, CanaryAnswer, Counter, StableAnswers, Trip, breaker_gauge_name, counter_name,
};

use crate::counters::{Count, Gauge};

/// Swaps that are tried before what was seen has to wait for the next answer or tick.
const TRIES: usize = 4;

/// Answers that may wait for it; those beyond are forgotten, the oldest first.
const MOST: usize = 64;

thread_local! {
    /// The gauges that this VM has defined: one whose service has no breaker any more shows none that is open.
    static GAUGES: RefCell<BTreeMap<String, Gauge>> = const { RefCell::new(BTreeMap::new()) };
}

pub(crate) struct Breaker {
    pub(crate) policy: BreakerPolicy,
    /// Of the shared state.
    key: String,
    open: Cell<bool>,
    stable: Cell<StableAnswers>,
    canary: RefCell<Vec<CanaryAnswer>>,
    /// What is told of it once it is open.
    trip: RefCell<Option<Trip>>,
    failures: Count,
    trips: Count,
    gauge: Gauge,
}

impl Breaker {
    /// Begins the policy's epoch, unless another worker, or a policy before, has begun it.
    pub(crate) fn begin(service: &str, policy: BreakerPolicy) -> Self {
        let name = breaker_gauge_name(service);
        let gauge =
            GAUGES.with_borrow_mut(|gauges| *gauges.entry(service.to_owned()).or_insert_with(|| Gauge::define(name)));
        let breaker = Self {
            policy,
            key: format!("breaker/{service}"),
            open: Cell::new(false),
            stable: Cell::default(),
            canary: RefCell::default(),
            trip: RefCell::default(),
            failures: Count::define(counter_name(service, Counter::BreakerFailures)),
            trips: Count::define(counter_name(service, Counter::BreakerTrips)),
            gauge,
        };
        for _ in 0..TRIES {
            let (known, cas) = breaker.read();
            if let Some(known) = known.filter(|known| known.epoch == breaker.policy.epoch) {
                breaker.take_note(&known);
                break;
            }
            // Without a number for the swap there is nothing yet, and writing is unconditional.
            if breaker.write(&BreakerState::begin(&breaker.policy.epoch), cas) {
                break;
            }
        }
        breaker.gauge.set(breaker.open.get().into());
        breaker
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.get()
    }

    /// How it came to be open.
    pub(crate) fn trip(&self) -> Option<Trip> {
        self.trip.borrow().clone()
    }

    /// The stable version answered. Told with the next swap.
    pub(crate) fn stable_answered(&self, failed: bool) {
        let StableAnswers { answers, failures } = self.stable.get();
        let failures = failures.saturating_add(failed.into());
        self.stable.set(StableAnswers { answers: answers.saturating_add(1), failures });
    }

    /// The canary answered; true: that opened it.
    pub(crate) fn canary_answered(&self, answer: CanaryAnswer) -> bool {
        if self.open.get() {
            return false;
        }
        {
            let mut waiting = self.canary.borrow_mut();
            if waiting.len() >= MOST {
                waiting.remove(0);
            }
            waiting.push(answer);
        }
        self.settle()
    }

    /// Tells what is untold, and learns what others have told; true: that opened it.
    pub(crate) fn tick(&self) -> bool {
        !self.open.get() && self.settle()
    }

    fn settle(&self) -> bool {
        for _ in 0..TRIES {
            let (Some(mut state), cas) = self.read() else { return false };
            if state.epoch != self.policy.epoch {
                // Of a policy that has another one after it.
                self.forget();
                return false;
            }
            if state.open {
                self.take_note(&state);
                return false;
            }
            let (stable, before) = (self.stable.get(), state.failures);
            if stable == StableAnswers::default() && self.canary.borrow().is_empty() {
                return false;
            }
            state.measure(stable);
            let opened = self.canary.borrow().iter().any(|answer| state.observe(&self.policy, *answer));
            if !self.write(&state, cas) {
                continue;
            }
            self.failures.add(state.failures.saturating_sub(before));
            self.forget();
            if opened {
                self.trips.add(1);
                self.take_note(&state);
                log::warn!("{} opened: {} of {} answers failed", self.key, state.failures, state.answers);
            }
            return opened;
        }
        false
    }

    fn take_note(&self, state: &BreakerState) {
        if !state.open {
            return;
        }
        self.forget();
        self.open.set(true);
        self.gauge.set(1);
        self.trip.replace(Some(Trip {
            epoch: state.epoch.clone(),
            failures: state.failures,
            answers: state.answers,
            distinct_keys: state.distinct_keys(),
            stable_rate: (state.stable_rate() * 10_000.0) as u32,
        }));
    }

    fn forget(&self) {
        self.stable.take();
        self.canary.take();
    }

    fn read(&self) -> (Option<BreakerState>, Option<u32>) {
        let (bytes, cas) = hostcalls::get_shared_data(&self.key).unwrap_or_default();
        (bytes.and_then(|bytes| BreakerState::read(&bytes)), cas)
    }

    fn write(&self, state: &BreakerState, cas: Option<u32>) -> bool {
        hostcalls::set_shared_data(&self.key, Some(&state.to_bytes()), cas) != Err(Status::CasMismatch)
    }
}

/// Breakers of services that have none any more are not open.
pub(crate) fn retain(is_armed: impl Fn(&str) -> bool) {
    GAUGES.with_borrow(|gauges| gauges.iter().filter(|(name, _)| !is_armed(name)).for_each(|(_, gauge)| gauge.set(0)));
}
