//! The filter's counters in Envoy's stats. Envoy makes a new metric for each definition, even of a name it knows, and
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
        IDS.with_borrow_mut(|ids| {
            if let Some(&id) = ids.get(&name) {
                return Self(Some(id));
            }
            let id = hostcalls::define_metric(MetricType::Counter, &name).ok();
            ids.extend(id.map(|id| (name, id)));
            Self(id)
        })
    }

    pub(crate) fn add_one(self) {
        if let Some(id) = self.0 {
            let _ = hostcalls::increment_metric(id, 1);
        }
    }
}
