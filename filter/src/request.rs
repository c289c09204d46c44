//! One request: whose it is, what the core says, and what Envoy is told. The hot path is three calls to the host and a
//! counter: the route's name, the key, the bucket. Counting which version answered takes one more and a counter, where
//! the policy asks for it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use tidegate_filter_core::{
    BUCKET_HEADER, Decision, REASON_HEADER, Refusal, RouteKind, VERSION_HEADER, service_of_route,
};

use crate::host;
use crate::parked;
use crate::root::Service;

/// Whose answer to a request that waited is to be counted.
pub(crate) type Awaited = Rc<RefCell<Option<Rc<Service>>>>;

pub(crate) struct Request {
    context_id: u32,
    services: Rc<BTreeMap<String, Rc<Service>>>,
    /// Whose answer is to be counted, once it comes.
    awaited: Option<Rc<Service>>,
    /// The same of a request that waits, or waited: who lets it go says it.
    parked: Option<Awaited>,
}

impl Request {
    pub(crate) fn new(context_id: u32, services: Rc<BTreeMap<String, Rc<Service>>>) -> Self {
        Self { context_id, services, awaited: None, parked: None }
    }

    /// Envoy's routing says whose request this is, and whether it says itself where it goes; the filter matches no hosts.
    fn service(&self) -> Option<(Rc<Service>, RouteKind)> {
        // The neutral policy costs no call.
        if self.services.is_empty() {
            return None;
        }
        let route = host::route_name()?;
        let route = std::str::from_utf8(&route).ok()?;
        let service = self.services.get(service_of_route(route))?;
        Some((Rc::clone(service), RouteKind::of(route)))
    }
}

impl Context for Request {}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        #[cfg(feature = "crash-header")]
        if host::request_header("x-crash-filter").as_deref() == Some(b"now") {
            std::process::abort();
        }
        let Some((service, route)) = self.service() else { return Action::Continue };
        match carry_out(&service, route) {
            Decision::Neutral => Action::Continue,
            Decision::Unkeyed | Decision::Bucket(_) => {
                self.awaited = service.counts_answers().then_some(service);
                Action::Continue
            }
            Decision::Refuse(_) => Action::Pause,
            Decision::Hold(hold_ms) => {
                service.held.add_one();
                let awaited = Awaited::default();
                if parked::park(self.context_id, Rc::clone(&service), route, hold_ms, Rc::clone(&awaited)) {
                    self.parked = Some(awaited);
                } else {
                    refuse(&service.policy.refusal());
                    service.refused.add_one();
                }
                Action::Pause
            }
        }
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        let parked = || self.parked.as_ref().and_then(|awaited| awaited.take());
        if let Some(service) = self.awaited.take().or_else(parked)
            && let Some(version) = host::response_header(VERSION_HEADER)
            && let Some((_, count)) = service.answered.iter().find(|(name, _)| name.as_bytes() == version)
        {
            count.add_one();
        }
        Action::Continue
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.parked.is_some() {
            parked::forget(self.context_id);
        }
    }
}

/// Tells Envoy what the policy says of the request at hand, except to wait.
pub(crate) fn carry_out(service: &Service, route: RouteKind) -> Decision {
    let decision = service.policy.decide(&service.name, route, host::fact);
    match &decision {
        Decision::Neutral | Decision::Hold(_) => {}
        Decision::Unkeyed => service.unkeyed.add_one(),
        Decision::Bucket(bucket) => {
            host::set_request_header(BUCKET_HEADER, bucket.to_string().as_bytes());
            service.bucketed.add_one();
        }
        Decision::Refuse(refusal) => {
            refuse(refusal);
            service.refused.add_one();
        }
    }
    decision
}

/// Envoy makes of this what the client understands: an HTTP answer, or for gRPC status 14 with the body as its message.
pub(crate) fn refuse(refusal: &Refusal) {
    let retry_after = refusal.retry_after_s.to_string();
    let headers =
        vec![("retry-after", retry_after.as_str()), (REASON_HEADER, refusal.reason), ("content-type", "text/plain")];
    let _ = hostcalls::send_http_response(503, headers, Some(refusal.body.as_bytes()));
}
