//! Requests that wait for an instance of their service to be ready. They are kept for the whole VM, because readiness comes as a new
//! policy, and so with a new root context: whoever is configured looks at all of them. Bounded in number here, in time by the
//! policy; of a request nothing is kept but its context and its service.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use tidegate_filter_core::RouteKind;

use crate::request::{self, Awaited, Next};
use crate::root::Service;

/// Of one worker; Envoy keeps some 17 KiB of each.
const MOST: usize = 2_048;

thread_local! {
    static WAITING: RefCell<BTreeMap<u32, Waiting>> = const { RefCell::new(BTreeMap::new()) };
    /// Milliseconds that ticks have counted.
    static NOW: Cell<u64> = const { Cell::new(0) };
}

#[derive(Clone)]
struct Waiting {
    service: Rc<Service>,
    route: RouteKind,
    until: u64,
    awaited: Awaited,
}

/// Keeps the request of this context for so long; false: too many wait.
pub(crate) fn park(context_id: u32, service: Rc<Service>, route: RouteKind, hold_ms: u64, awaited: Awaited) -> bool {
    WAITING.with_borrow_mut(|waiting| {
        let has_room = waiting.len() < MOST;
        if has_room {
            waiting.insert(context_id, Waiting { service, route, until: NOW.get().saturating_add(hold_ms), awaited });
        }
        has_room
    })
}

/// The request is over, whoever ended it.
pub(crate) fn forget(context_id: u32) {
    WAITING.with_borrow_mut(|waiting| waiting.remove(&context_id));
}

/// So much time has passed: those that have waited long enough are refused.
pub(crate) fn tick(root: u32, passed_ms: u64) {
    let now = NOW.get().saturating_add(passed_ms);
    NOW.set(now);
    let late = take(|waiting| waiting.until <= now);
    if late.is_empty() {
        return;
    }
    for (context_id, waiting) in &late {
        if hostcalls::set_effective_context(*context_id).is_ok() {
            request::refuse(&waiting.service.policy.refusal());
            waiting.service.refused.add_one();
        }
    }
    back(root);
}

/// What the new policy says of each: those whose service is ready, or nobody's business any more, go on.
pub(crate) fn reconsider(root: u32, services: &BTreeMap<String, Rc<Service>>) {
    let all = take(|_| true);
    if all.is_empty() {
        return;
    }
    for (context_id, waiting) in all {
        if hostcalls::set_effective_context(context_id).is_err() {
            continue;
        }
        let Some(service) = services.get(&waiting.service.name) else {
            let _ = hostcalls::resume_http_request();
            continue;
        };
        match request::carry_out(service, waiting.route) {
            Next::Wait(_) => {
                let waiting = Waiting { service: Rc::clone(service), ..waiting };
                WAITING.with_borrow_mut(|all| all.insert(context_id, waiting));
            }
            Next::Refused => {}
            Next::Go(asked) => {
                waiting.awaited.replace(asked);
                let _ = hostcalls::resume_http_request();
            }
        }
    }
    back(root);
}

/// Takes them out, so that whatever Envoy does about one finds the list free.
fn take(which: impl Fn(&Waiting) -> bool) -> Vec<(u32, Waiting)> {
    WAITING.with_borrow_mut(|waiting| {
        let taken: Vec<(u32, Waiting)> =
            waiting.iter().filter(|(_, one)| which(one)).map(|(id, one)| (*id, one.clone())).collect();
        for (id, _) in &taken {
            waiting.remove(id);
        }
        taken
    })
}

/// What follows is the root's own again.
fn back(root: u32) {
    let _ = hostcalls::set_effective_context(root);
}
