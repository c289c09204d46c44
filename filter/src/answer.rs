//! The answer to one request: whose it is, how it went, and who is told. What it says of its version is the core's to decide;
//! most answers need the version's name and a status for that, and Envoy's flags only those that look like failures.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tidegate_filter_core::{Answer, CanaryAnswer, Outcome, VERSION_HEADER, key_hash, source_ip};

use crate::figures;
use crate::host;
use crate::root::Service;

/// A request whose answer matters.
pub(crate) struct Asked {
    service: Rc<Service>,
    /// What tells its client from others; `None`: its address does.
    key: Option<u32>,
    /// When it came, if that matters.
    at: Duration,
    /// The `set-cookie` that its client is to be given.
    given: Option<String>,
    /// Of an answer that has begun and is not over: which version's it is, and how long it took to begin.
    begun: Option<(usize, Duration)>,
}

impl Asked {
    pub(crate) fn new(service: Rc<Service>, key: Option<u32>, at: Duration, given: Option<String>) -> Self {
        Self { service, key, at, given, begun: None }
    }

    /// The answer's head is there. Returns itself if its trailers matter, too.
    pub(crate) fn answered(mut self, services: &BTreeMap<String, Rc<Service>>, end_of_stream: bool) -> Option<Self> {
        if let Some(cookie) = self.given.take() {
            host::add_response_header("set-cookie", cookie.as_bytes());
        }
        if !self.service.counts_answers() {
            return None;
        }
        let version = host::response_header(VERSION_HEADER)?;
        let index = self.service.versions.iter().position(|known| known.name.as_bytes() == version)?;
        self.service.versions.get(index)?.answered.add_one();
        if !self.service.judges_answers() {
            return None;
        }
        let status = host::number(host::response_header(":status"))?;
        let took = if self.service.policy.report { host::now().saturating_sub(self.at) } else { Duration::ZERO };
        let mut grpc = None;
        if self.service.reads_grpc {
            grpc = host::number(host::response_header("grpc-status"));
            let is_grpc =
                || host::response_header("content-type").is_some_and(|it| it.starts_with(b"application/grpc"));
            if grpc.is_none() && !end_of_stream && is_grpc() {
                self.begun = Some((index, took));
                return Some(self);
            }
        }
        self.judge(services, index, Answer { status, grpc }, took);
        None
    }

    /// The trailers are there.
    pub(crate) fn ended(self, services: &BTreeMap<String, Rc<Service>>) {
        if let Some((index, took)) = self.begun {
            let grpc = host::number(host::response_trailer("grpc-status"));
            self.judge(services, index, Answer { status: 200, grpc }, took);
        }
    }

    fn judge(&self, services: &BTreeMap<String, Rc<Service>>, index: usize, answer: Answer, took: Duration) {
        let outcome = answer.outcome(self.service.policy.fail_on(), host::response_flags);
        let failed = match outcome {
            Outcome::Nothing => return,
            Outcome::Good => false,
            Outcome::Failed => true,
        };
        let Some(version) = self.service.versions.get(index) else { return };
        if let Some(seen) = &version.seen {
            let mut seen = seen.borrow_mut();
            seen.answered = seen.answered.saturating_add(1);
            seen.failed = seen.failed.saturating_add(failed.into());
            seen.latency.record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        let Some(breaker) = &self.service.breaker else { return };
        if version.name == breaker.policy.canary {
            let key = if failed { self.key.unwrap_or_else(address) } else { 0 };
            if breaker.canary_answered(CanaryAnswer { failed, key }) {
                figures::tell(services);
            }
        } else {
            breaker.stable_answered(failed);
        }
    }
}

fn address() -> u32 {
    key_hash(source_ip(&host::source_address().unwrap_or_default()))
}
