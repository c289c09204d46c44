//! From views to Envoy's resources: one pure function per service, and a [`Compiler`] that keeps what it compiled so that a
//! touched service costs itself alone. Only here are Envoy's messages built, always typed, never from text.
//!
//! The contract is that of weights by RTDS, readiness in plain xDS and a filter that is optional to survive: see
//! `compile/route.rs`, `compile/cluster.rs` and `compile/edge.rs`.

mod cluster;
mod edge;
mod message;
mod route;

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration};
use tidegate_filter_core::{Policy, ServicePolicy};

pub use self::edge::filter_code;
pub use self::message::RuntimeLayer;
use crate::service::ServiceView;
use crate::{ServiceName, State};

/// The name of the RTDS layer, of the ECDS resource and of the HTTP filter.
pub const TIDEGATE: &str = "tidegate";

/// What stands between a canary's name and its aggregate's: `SERVICE/VERSION+spill`.
pub const SPILL: &str = "+spill";

/// A resource, ready to be encoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// CDS.
    Cluster(Box<Cluster>),
    /// EDS.
    Endpoint(ClusterLoadAssignment),
    /// LDS.
    Listener(Box<Listener>),
    /// RDS.
    Route(Box<RouteConfiguration>),
    /// ECDS.
    ExtensionConfig(TypedExtensionConfig),
    /// RTDS.
    Runtime(RuntimeLayer),
}

/// A kind of resource, to name one that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
}

/// What a round changes in Envoy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// New and changed resources by name.
    pub upserts: Vec<(String, Resource)>,
    /// Resources that go.
    pub removals: Vec<(Kind, String)>,
    /// Whether they must not wait for more to come: an endpoint gets no more requests, or weights change.
    pub urgent: bool,
}

impl Changes {
    /// Whether there is nothing to commit.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty()
    }
}

/// What one service compiles to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Compiled {
    clusters: BTreeMap<String, Cluster>,
    assignments: BTreeMap<String, ClusterLoadAssignment>,
    hosts: Vec<String>,
    path: String,
    routes: Vec<Route>,
    weights: BTreeMap<String, u32>,
    policy: Option<ServicePolicy>,
}

impl Compiled {
    fn of(view: &ServiceView) -> Self {
        let (clusters, assignments) = cluster::clusters(view);
        Self {
            clusters,
            assignments,
            hosts: view.hosts.clone(),
            path: view.path.clone(),
            routes: route::routes(view),
            weights: route::weights(view),
            policy: route::policy(view),
        }
    }
}

/// Compiles what changed, and remembers what it compiled.
#[derive(Debug)]
pub struct Compiler {
    filter_code: String,
    services: BTreeMap<ServiceName, Compiled>,
    /// Which service answers for a host and a path, longest path first.
    hosts: BTreeMap<String, BTreeMap<std::cmp::Reverse<String>, ServiceName>>,
    listeners: BTreeMap<String, Listener>,
    runtime: Option<RuntimeLayer>,
    policy: Option<Policy>,
}

impl Compiler {
    /// `filter_code` is the absolute path under which Envoy finds the filter's `.wasm`.
    #[must_use]
    pub const fn new(filter_code: String) -> Self {
        Self {
            filter_code,
            services: BTreeMap::new(),
            hosts: BTreeMap::new(),
            listeners: BTreeMap::new(),
            runtime: None,
            policy: None,
        }
    }

    /// Compiles the changed services and what follows from them. `edge` says that listeners or the filter's generation may
    /// have changed, too.
    pub fn update(&mut self, state: &State, changed: &BTreeSet<ServiceName>, edge: bool) -> Changes {
        let mut changes = Changes::default();
        let (mut routes, mut runtime, mut policy) = (edge, edge, edge);
        for name in changed {
            let new = state.service(name).map(Compiled::of);
            let old = self.services.remove(name).unwrap_or_default();
            let new_or_empty = new.clone().unwrap_or_default();
            diff(
                &old.clusters,
                &new_or_empty.clusters,
                Kind::Cluster,
                |c| Resource::Cluster(Box::new(c)),
                &mut changes,
            );
            diff(&old.assignments, &new_or_empty.assignments, Kind::Endpoint, Resource::Endpoint, &mut changes);
            changes.urgent |= cluster::loses_an_endpoint(&old.assignments, &new_or_empty.assignments);
            let reached = !(old.hosts.is_empty() && new_or_empty.hosts.is_empty());
            if reached
                && (&old.hosts, &old.path, &old.routes)
                    != (&new_or_empty.hosts, &new_or_empty.path, &new_or_empty.routes)
            {
                routes = true;
                self.move_hosts(name, &old, &new_or_empty);
            }
            runtime |= old.weights != new_or_empty.weights;
            policy |= old.policy != new_or_empty.policy;
            if let Some(new) = new {
                self.services.insert(name.clone(), new);
            }
        }
        changes.urgent |= runtime || policy;
        if policy {
            self.compile_policy(state.filter_generation(), &mut changes);
        }
        if runtime {
            let weights = self.services.values().flat_map(|service| service.weights.clone()).collect();
            let layer = RuntimeLayer::new(TIDEGATE, &weights);
            if self.runtime.as_ref() != Some(&layer) {
                self.runtime = Some(layer.clone());
                changes.upserts.push((TIDEGATE.to_owned(), Resource::Runtime(layer)));
            }
        }
        if edge {
            self.compile_listeners(state, &mut changes);
        }
        if routes {
            let hosts = self.virtual_hosts();
            for name in self.listeners.keys() {
                let configuration = route::configuration(name, hosts.clone());
                changes.upserts.push((name.clone(), Resource::Route(Box::new(configuration))));
            }
        }
        changes
    }

    fn move_hosts(&mut self, name: &ServiceName, old: &Compiled, new: &Compiled) {
        for host in &old.hosts {
            if let Some(paths) = self.hosts.get_mut(host) {
                if paths.get(&std::cmp::Reverse(old.path.clone())) == Some(name) {
                    paths.remove(&std::cmp::Reverse(old.path.clone()));
                }
                if paths.is_empty() {
                    self.hosts.remove(host);
                }
            }
        }
        for host in &new.hosts {
            self.hosts.entry(host.clone()).or_default().insert(std::cmp::Reverse(new.path.clone()), name.clone());
        }
    }

    fn virtual_hosts(&self) -> Vec<(String, Vec<Route>)> {
        self.hosts
            .iter()
            .map(|(host, paths)| {
                let mut paths: Vec<_> = paths.iter().collect();
                paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.0.len()));
                let services = paths.into_iter().filter_map(|(_, name)| self.services.get(name));
                (host.clone(), services.flat_map(|service| service.routes.clone()).collect())
            })
            .collect()
    }

    fn compile_policy(&mut self, generation: u64, changes: &mut Changes) {
        let mut policy = Policy { generation, ..Policy::default() };
        for (name, service) in &self.services {
            if let Some(of_service) = &service.policy {
                policy.services.insert(name.as_str().to_owned(), of_service.clone());
            }
        }
        if self.policy.as_ref() != Some(&policy) {
            let resource = edge::filter_resource(&self.filter_code, &policy);
            changes.upserts.push((TIDEGATE.to_owned(), Resource::ExtensionConfig(resource)));
            self.policy = Some(policy);
        }
    }

    fn compile_listeners(&mut self, state: &State, changes: &mut Changes) {
        let new: BTreeMap<String, Listener> = state
            .config()
            .edge
            .listeners
            .iter()
            .map(|listener| (listener.name.clone(), edge::listener(listener, &self.filter_code)))
            .collect();
        diff(&self.listeners, &new, Kind::Listener, |l| Resource::Listener(Box::new(l)), changes);
        for gone in self.listeners.keys().filter(|name| !new.contains_key(*name)) {
            changes.removals.push((Kind::Route, gone.clone()));
        }
        self.listeners = new;
    }
}

fn diff<T: Clone + PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    kind: Kind,
    resource: impl Fn(T) -> Resource,
    changes: &mut Changes,
) {
    for (name, message) in new {
        if old.get(name) != Some(message) {
            changes.upserts.push((name.clone(), resource(message.clone())));
        }
    }
    changes.removals.extend(old.keys().filter(|name| !new.contains_key(*name)).map(|name| (kind, name.clone())));
}

#[cfg(test)]
mod tests;
