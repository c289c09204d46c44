//! One request: whose it is, what the core says, and what Envoy is told. The hot path is three calls to the host and a
//! counter: the route's name, the key, the bucket. Counting which version answered takes one more and a counter, where
//! the policy asks for it; judging the answer two more, and the time at both ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::Action;
use tidegate_filter_core::{
    BUCKET_HEADER, CHOICE_HEADER, Decision, REASON_HEADER, Refusal, RouteKind, client_id, service_of_route,
};

use crate::answer::Asked;
use crate::host;
use crate::parked;
use crate::root::Service;

/// What is to be done with the answer to a request that waited.
pub(crate) type Awaited = Rc<RefCell<Option<Asked>>>;

pub(crate) struct Request {
    context_id: u32,
    services: Rc<BTreeMap<String, Rc<Service>>>,
    /// What is to be done with the answer, once it comes.
    asked: Option<Asked>,
    /// The same of a request that waits, or waited: who lets it go says it.
    parked: Option<Awaited>,
}

/// What becomes of a request.
pub(crate) enum Next {
    /// It goes on, and this is to be done with its answer.
    Go(Option<Asked>),
    /// It is to wait so many milliseconds.
    Wait(u64),
    /// It was refused.
    Refused,
}

impl Request {
    pub(crate) fn new(context_id: u32, services: Rc<BTreeMap<String, Rc<Service>>>) -> Self {
        Self { context_id, services, asked: None, parked: None }
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
            Next::Go(asked) => {
                self.asked = asked;
                Action::Continue
            }
            Next::Refused => Action::Pause,
            Next::Wait(hold_ms) => {
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

    fn on_http_response_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let parked = || self.parked.as_ref().and_then(|awaited| awaited.take());
        if let Some(asked) = self.asked.take().or_else(parked) {
            self.asked = asked.answered(&self.services, end_of_stream);
        }
        Action::Continue
    }

    fn on_http_response_trailers(&mut self, _num_trailers: usize) -> Action {
        if let Some(asked) = self.asked.take() {
            asked.ended(&self.services);
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
pub(crate) fn carry_out(service: &Rc<Service>, route: RouteKind) -> Next {
    let mut given = None;
    let mut decision = service.policy.decide(&service.name, route, service.is_shielded(), host::fact);
    if decision == Decision::Unkeyed
        && let Some(cookie) = &service.policy.cookie
        && let Some(random) = host::random()
    {
        let id = client_id(random);
        decision = service.policy.keyed(&service.name, id.as_bytes());
        given = Some(cookie.set(&id));
        service.given.add_one();
    }
    let key = match decision {
        Decision::Neutral => return Next::Go(None),
        Decision::Hold(hold_ms) => return Next::Wait(hold_ms),
        Decision::Refuse(refusal) => {
            refuse(&refusal);
            service.refused.add_one();
            return Next::Refused;
        }
        Decision::Stable => {
            host::set_request_header(CHOICE_HEADER, b"stable");
            service.shielded.add_one();
            None
        }
        Decision::Unkeyed => {
            service.unkeyed.add_one();
            None
        }
        Decision::Bucket { bucket, key } => {
            host::set_request_header(BUCKET_HEADER, bucket.to_string().as_bytes());
            service.bucketed.add_one();
            Some(key)
        }
    };
    if !service.counts_answers() && given.is_none() {
        return Next::Go(None);
    }
    let at = if service.policy.report { host::now() } else { Duration::ZERO };
    Next::Go(Some(Asked::new(Rc::clone(service), key, at, given)))
}

/// Envoy makes of this what the client understands: an HTTP answer, or for gRPC status 14 with the body as its message.
pub(crate) fn refuse(refusal: &Refusal) {
    let retry_after = refusal.retry_after_s.to_string();
    let headers =
        vec![("retry-after", retry_after.as_str()), (REASON_HEADER, refusal.reason), ("content-type", "text/plain")];
    let _ = hostcalls::send_http_response(503, headers, Some(refusal.body.as_bytes()));
}
