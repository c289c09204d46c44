//! The filter's counters and gauges in Envoy's stats. Envoy makes a new metric for each definition, even of a name it knows, and
//! makes a new root context for each policy; so their ids are kept per VM and each name is defined once. Their number is
//! bounded by the names of services that policies have held.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

thread_local! {
    static IDS: RefCell<BTreeMap<String, u32>> = const { RefCell::new(BTreeMap::new()) };
}

/// A counter of Envoy's; without one, where Envoy refused to make it, counting does nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count(Option<u32>);

impl Count {
    pub(crate) fn define(name: String) -> Self {
        Self(define(MetricType::Counter, name))
    }

    pub(crate) fn add_one(self) {
        self.add(1);
    }

    pub(crate) fn add(self, more: u64) {
        if let Some(id) = self.0.filter(|_| more > 0) {
            let _ = hostcalls::increment_metric(id, i64::try_from(more).unwrap_or(i64::MAX));
        }
    }
}

/// A gauge of Envoy's, one for all workers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauge(Option<u32>);

impl Gauge {
    pub(crate) fn define(name: String) -> Self {
        Self(define(MetricType::Gauge, name))
    }

    pub(crate) fn set(self, value: u64) {
        if let Some(id) = self.0 {
            let _ = hostcalls::record_metric(id, value);
        }
    }
}

fn define(kind: MetricType, name: String) -> Option<u32> {
    IDS.with_borrow_mut(|ids| {
        if let Some(&id) = ids.get(&name) {
            return Some(id);
        }
        let id = hostcalls::define_metric(kind, &name).ok();
        ids.extend(id.map(|id| (name, id)));
        id
    })
}
