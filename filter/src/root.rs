//! One policy as one worker's VM holds it. Envoy makes a new root context for each policy, in the same VM, and never
//! configures one twice; requests under way keep the policy they began with.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType};
use tidegate_filter_core::{
    Answers, Counter, Failure, Policy, PolicyError, ServicePolicy, UNKNOWN_SCHEMA_COUNTER, counter_name,
    version_counter_name,
};

use crate::breaker::{self, Breaker};
use crate::counters::Count;
use crate::figures;
use crate::heartbeat::Heartbeat;
use crate::parked;
use crate::request::Request;

/// From one look at requests that wait and at breakers to the next, where a policy has any.
const TICK_MS: u64 = 100;

pub(crate) struct Root {
    context_id: u32,
    services: Rc<BTreeMap<String, Rc<Service>>>,
    heartbeat: Option<Heartbeat>,
}

/// A service's policy with what is counted for it.
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) policy: ServicePolicy,
    /// In the policy's order.
    pub(crate) versions: Vec<Version>,
    pub(crate) breaker: Option<Breaker>,
    /// Whether it has to be told whether an answer is gRPC's, and how that ended.
    pub(crate) reads_grpc: bool,
    pub(crate) bucketed: Count,
    pub(crate) unkeyed: Count,
    pub(crate) refused: Count,
    pub(crate) held: Count,
    pub(crate) given: Count,
    pub(crate) shielded: Count,
}

/// A version whose answers are counted.
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) answered: Count,
    /// What is told the control plane of them; `None`: nothing.
    pub(crate) seen: Option<Rc<RefCell<Answers>>>,
}

impl Root {
    pub(crate) fn new(context_id: u32) -> Self {
        Self { context_id, services: Rc::default(), heartbeat: None }
    }
}

impl Service {
    fn new(name: String, policy: ServicePolicy) -> Self {
        let count = |counter| Count::define(counter_name(&name, counter));
        let version = |version: &String| Version {
            name: version.clone(),
            answered: Count::define(version_counter_name(&name, version)),
            seen: policy.report.then(|| figures::of(&name, version)),
        };
        let of_grpc = [Failure::Unavailable, Failure::Internal, Failure::Unknown, Failure::DeadlineExceeded];
        Self {
            bucketed: count(Counter::Bucketed),
            unkeyed: count(Counter::Unkeyed),
            refused: count(Counter::Refused),
            held: count(Counter::Held),
            given: count(Counter::Given),
            shielded: count(Counter::Shielded),
            versions: policy.versions.iter().map(version).collect(),
            breaker: policy.breaker.clone().map(|breaker| Breaker::begin(&name, breaker)),
            reads_grpc: policy.grpc || policy.fail_on().iter().any(|failure| of_grpc.contains(failure)),
            name,
            policy,
        }
    }

    /// Whether its policy wants to know which version answered.
    pub(crate) fn counts_answers(&self) -> bool {
        !self.versions.is_empty()
    }

    /// Whether it wants to know how they answered, too.
    pub(crate) fn judges_answers(&self) -> bool {
        self.breaker.is_some() || self.policy.report
    }

    pub(crate) fn is_shielded(&self) -> bool {
        self.breaker.as_ref().is_some_and(Breaker::is_open)
    }
}

impl Context for Root {}

impl RootContext for Root {
    /// False refuses the policy: Envoy answers with a NACK and the policy before it stays. At start-up Envoy would exit
    /// instead, which cannot happen: the listener starts with the empty policy. A policy of another schema is nobody's
    /// mistake: it is taken and is neutral, for a filter that half understands a policy must not act on it, and one that
    /// refused it would go on acting on what no longer holds.
    fn on_configure(&mut self, size: usize) -> bool {
        self.heartbeat = Some(Heartbeat::start(self.context_id));
        let bytes = hostcalls::get_buffer(BufferType::PluginConfiguration, 0, size).ok().flatten().unwrap_or_default();
        let policy = match Policy::parse(&bytes) {
            Ok(policy) => policy,
            Err(error @ PolicyError::Schema(_)) => {
                log::warn!("{error}; taken as neutral");
                Count::define(UNKNOWN_SCHEMA_COUNTER.to_owned()).add_one();
                Policy::default()
            }
            Err(error) => {
                log::warn!("{error}; refused");
                return false;
            }
        };
        let services = policy.services.into_iter();
        self.services =
            Rc::new(services.map(|(name, policy)| (name.clone(), Rc::new(Service::new(name, policy)))).collect());
        if let Some(heartbeat) = &mut self.heartbeat
            && self.services.values().any(|service| service.policy.hold_ms > 0 || service.breaker.is_some())
        {
            heartbeat.hurry(TICK_MS);
        }
        breaker::retain(|name| self.services.get(name).is_some_and(|service| service.breaker.is_some()));
        figures::retain(&self.services);
        parked::reconsider(self.context_id, &self.services);
        true
    }

    fn on_tick(&mut self) {
        let Some(passed_ms) = self.heartbeat.as_mut().and_then(Heartbeat::tick) else { return };
        parked::tick(self.context_id, passed_ms);
        let breakers = self.services.values().filter_map(|service| service.breaker.as_ref());
        // Each, whatever another one said.
        if breakers.filter(|breaker| breaker.tick()).count() > 0 {
            figures::tell(&self.services);
        }
        figures::tick(passed_ms, &self.services);
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request::new(context_id, Rc::clone(&self.services))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
