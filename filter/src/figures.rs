//! What this VM has seen of the answers of versions since it last told the control plane, and the telling: one call a second at
//! most, where there is something to tell, and one when a breaker opens. It outlives policies, as its VM does. A report that
//! does not arrive is lost: what was true a while ago must not be judged as of now.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use tidegate_filter_core::{Answers, REPORT_PATH, Report, ServiceReport};

use crate::heartbeat;
use crate::host;
use crate::root::Service;

/// From one report to the next.
const PERIOD_MS: u64 = 1_000;

/// The bootstrap's way to the control plane.
const CONTROL_PLANE: &str = "tidegate-xds";

const TIMEOUT: Duration = Duration::from_secs(1);

/// The bytes of a report, nearly: what is more waits for the next one.
const MOST: usize = 48 * 1024;

type Seen = Rc<RefCell<Answers>>;

thread_local! {
    /// By service and version.
    static SEEN: RefCell<BTreeMap<(String, String), Seen>> = const { RefCell::new(BTreeMap::new()) };
    /// Since the last report.
    static PASSED_MS: Cell<u64> = const { Cell::new(0) };
    static NODE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Where answers of this version are counted.
pub(crate) fn of(service: &str, version: &str) -> Seen {
    SEEN.with_borrow_mut(|seen| Rc::clone(seen.entry((service.to_owned(), version.to_owned())).or_default()))
}

/// Only what is reported is counted.
pub(crate) fn retain(services: &BTreeMap<String, Rc<Service>>) {
    let is_reported = |(service, version): &(String, String)| {
        services.get(service).is_some_and(|of| of.policy.report && of.policy.versions.contains(version))
    };
    SEEN.with_borrow_mut(|seen| seen.retain(|version, _| is_reported(version)));
}

/// So much time has passed.
pub(crate) fn tick(passed_ms: u64, services: &BTreeMap<String, Rc<Service>>) {
    let passed = PASSED_MS.get().saturating_add(passed_ms);
    PASSED_MS.set(passed);
    if passed >= PERIOD_MS {
        tell(services);
    }
}

/// Tells it now. The call is the root context's: a request's own would end with it.
pub(crate) fn tell(services: &BTreeMap<String, Rc<Service>>) {
    PASSED_MS.set(0);
    let Some(report) = report(services) else { return };
    let Some(body) = serde_json::to_vec(&report).ok().filter(|body| body.len() <= MOST + MOST / 4) else { return };
    let Some(root) = heartbeat::youngest() else { return };
    if hostcalls::set_effective_context(root).is_err() {
        return;
    }
    let headers = vec![
        (":method", "POST"),
        (":path", REPORT_PATH),
        (":authority", CONTROL_PLANE),
        ("content-type", "application/json"),
    ];
    let _ = hostcalls::dispatch_http_call(CONTROL_PLANE, headers, Some(&body), Vec::new(), TIMEOUT);
}

/// `None`: there is nothing to tell.
fn report(services: &BTreeMap<String, Rc<Service>>) -> Option<Report> {
    let mut report = Report { node: node()?, ..Report::default() };
    for (name, service) in services {
        if let Some(trip) = service.breaker.as_ref().and_then(|breaker| breaker.trip()) {
            report.services.entry(name.clone()).or_default().trip = Some(trip);
        }
    }
    let mut bytes = 0_usize;
    SEEN.with_borrow(|seen| {
        for ((service, version), answers) in seen {
            if answers.borrow().answered == 0 || bytes >= MOST {
                continue;
            }
            let answers = answers.take();
            // A bucket is a number of at most four digits, and a count.
            bytes = bytes.saturating_add(256).saturating_add(answers.latency.buckets().saturating_mul(16));
            let service: &mut ServiceReport = report.services.entry(service.clone()).or_default();
            service.versions.insert(version.clone(), answers);
        }
    });
    (!report.services.is_empty()).then_some(report)
}

fn node() -> Option<String> {
    NODE.with_borrow_mut(|node| {
        if node.is_none() {
            *node = host::node_id();
        }
        node.clone()
    })
}
