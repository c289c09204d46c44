//! From views to Envoy's resources: one pure function per service, and a [`Compiler`] that keeps what it compiled so that a
//! touched service costs itself alone. Only here are Envoy's messages built, always typed, never from text.
//!
//! The contract is that of weights by RTDS, readiness in plain xDS and a filter that is optional to survive: see
//! `compile/route.rs`, `compile/cluster.rs` and `compile/edge.rs`.

mod audience;
mod cluster;
mod edge;
mod message;
mod route;
mod tls;

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration};
use tidegate_filter_core::{Policy, ServicePolicy};

pub use self::audience::Audience;
use self::audience::{PerGroup, Turn};
pub use self::edge::filter_code;
pub use self::message::RuntimeLayer;
use self::message::RuntimeValue;
use crate::config::{Edge, NodeGroups, ServiceFilter};
use crate::service::ServiceView;
use crate::{ServiceName, State};

/// The name of the RTDS layer, of the ECDS resource and of the HTTP filter.
pub const TIDEGATE: &str = "tidegate";

/// What stands between a canary's name and its aggregate's: `SERVICE/VERSION+spill`.
pub const SPILL: &str = "+spill";

/// What stands between a canary's name and that of the cluster for copies of requests: `SERVICE/VERSION+mirror`.
pub const MIRROR: &str = "+mirror";

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
    /// New and changed resources. None is named twice for the same group.
    pub upserts: Vec<Upsert>,
    /// Resources that go.
    pub removals: Vec<Removal>,
    /// The groups of nodes from now on, where they changed; a group that is new has nothing but what this round gives it.
    pub groups: Option<NodeGroups>,
    /// Whether they must not wait for more to come: an endpoint gets no more requests, or weights change.
    pub urgent: bool,
}

/// A resource that is new, or has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Upsert {
    /// Who gets it.
    pub audience: Audience,
    /// Its name.
    pub name: String,
    /// It.
    pub resource: Resource,
}

/// A resource that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Who loses it.
    pub audience: Audience,
    /// What kind it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
}

impl Changes {
    /// Whether there is nothing to commit.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removals.is_empty() && self.groups.is_none()
    }

    fn upsert(&mut self, audience: Option<Audience>, name: &str, resource: impl FnOnce() -> Resource) {
        if let Some(audience) = audience {
            self.upserts.push(Upsert { audience, name: name.to_owned(), resource: resource() });
        }
    }

    fn remove(&mut self, audience: Option<Audience>, kind: Kind, name: &str) {
        if let Some(audience) = audience {
            self.removals.push(Removal { audience, kind, name: name.to_owned() });
        }
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
    runtime: BTreeMap<String, RuntimeValue>,
    policy: Option<ServicePolicy>,
}

impl Compiled {
    fn of(view: &ServiceView) -> Self {
        let (clusters, assignments) = cluster::clusters(view);
        let policy = route::policy(view);
        Self {
            clusters,
            assignments,
            hosts: view.hosts.clone(),
            path: view.path.clone(),
            routes: route::routes(view, policy.as_ref()),
            runtime: route::runtime(view),
            policy,
        }
    }
}

/// Compiles what changed, and remembers what it compiled.
///
/// A service is compiled once, whoever sees it. What joins services (routes, weights, policy) is joined once for all groups
/// that see the same of them.
#[derive(Debug)]
pub struct Compiler {
    filter_code: String,
    /// `None` before the first round.
    groups: Option<NodeGroups>,
    services: BTreeMap<ServiceName, Compiled>,
    /// Which service answers for a host and a path, longest path first.
    hosts: BTreeMap<String, BTreeMap<std::cmp::Reverse<String>, ServiceName>>,
    listeners: BTreeMap<String, Listener>,
    runtime: PerGroup<RuntimeLayer>,
    policy: PerGroup<Policy>,
}

impl Compiler {
    /// `filter_code` is the absolute path under which Envoy finds the filter's `.wasm`.
    #[must_use]
    pub fn new(filter_code: String) -> Self {
        Self {
            filter_code,
            groups: None,
            services: BTreeMap::new(),
            hosts: BTreeMap::new(),
            listeners: BTreeMap::new(),
            runtime: PerGroup::default(),
            policy: PerGroup::default(),
        }
    }

    /// Compiles the changed services and what follows from them. `edge` says that listeners, groups of nodes or the filter's
    /// generation may have changed, too.
    pub fn update(&mut self, state: &State, changed: &BTreeSet<ServiceName>, edge: bool) -> Changes {
        let mut changes = Changes::default();
        let groups = &state.config().edge.groups;
        let before = match &self.groups {
            Some(same) if same == groups => None,
            _ => {
                changes.groups = Some(groups.clone());
                self.runtime.retain(groups);
                self.policy.retain(groups);
                Some(self.groups.replace(groups.clone()).unwrap_or_default())
            }
        };
        let before = before.as_ref();

        // Whose services are others now.
        let mut routes = match before {
            Some(before) => {
                groups.names().into_iter().filter(|name| before.seen_by(name) != groups.seen_by(name)).collect()
            }
            None => BTreeSet::new(),
        };
        let all = || if edge { groups.names() } else { routes.clone() };
        let (mut runtime, mut policy) = (all(), all());
        for name in changed {
            let new = state.service(name).map(Compiled::of);
            let old = self.services.remove(name).unwrap_or_default();
            let new_or_empty = new.clone().unwrap_or_default();
            let turn = turn(before, groups, |groups| groups.seeing(name));
            publish(&old, &new_or_empty, &turn, &mut changes);
            changes.urgent |= cluster::loses_an_endpoint(&old.assignments, &new_or_empty.assignments);
            let reached = !(old.hosts.is_empty() && new_or_empty.hosts.is_empty());
            if reached
                && (&old.hosts, &old.path, &old.routes)
                    != (&new_or_empty.hosts, &new_or_empty.path, &new_or_empty.routes)
            {
                routes.extend(groups.seeing(name));
                self.move_hosts(name, &old, &new_or_empty);
            }
            if old.runtime != new_or_empty.runtime {
                runtime.extend(groups.seeing(name));
            }
            if old.policy != new_or_empty.policy {
                policy.extend(groups.seeing(name));
            }
            if let Some(new) = new {
                self.services.insert(name.clone(), new);
            }
        }
        if before.is_some() {
            for (name, service) in self.services.iter().filter(|(name, _)| !changed.contains(*name)) {
                let turn = turn(before, groups, |groups| groups.seeing(name));
                if !turn.is_of_the_same() {
                    publish(service, service, &turn, &mut changes);
                }
            }
        }
        changes.urgent |= !(runtime.is_empty() && policy.is_empty());
        self.compile_policy(groups, &policy, state.filter_generation(), &mut changes);
        self.compile_runtime(groups, &runtime, &mut changes);
        let gained =
            if edge { self.compile_listeners(&state.config().edge, before, &mut changes) } else { BTreeMap::new() };
        self.compile_routes(groups, &routes, &gained, &mut changes);
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

    fn virtual_hosts(&self, seen: &ServiceFilter) -> Vec<(String, Vec<Route>)> {
        let of_host = |(host, paths): (&String, &BTreeMap<std::cmp::Reverse<String>, ServiceName>)| {
            let mut paths: Vec<_> = paths.iter().filter(|(_, name)| seen.sees(name)).collect();
            if paths.is_empty() {
                return None;
            }
            paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.0.len()));
            let services = paths.into_iter().filter_map(|(_, name)| self.services.get(name));
            Some((host.clone(), services.flat_map(|service| service.routes.clone()).collect()))
        };
        self.hosts.iter().filter_map(of_host).collect()
    }

    /// The services that these see, with their names.
    fn seen<'a>(&'a self, seen: &'a ServiceFilter) -> impl Iterator<Item = (&'a ServiceName, &'a Compiled)> {
        self.services.iter().filter(|(name, _)| seen.sees(name))
    }

    /// For groups whose routes changed, and for those that gained a listener.
    fn compile_routes(
        &self,
        groups: &NodeGroups,
        of: &BTreeSet<&str>,
        gained: &BTreeMap<&str, BTreeSet<&str>>,
        changes: &mut Changes,
    ) {
        let any = gained.values().flatten().chain(of).copied().collect();
        let classes = classes(groups, &any, |seen| self.virtual_hosts(seen));
        for name in self.listeners.keys() {
            let mut those = of & &groups.with_listener(name);
            those.extend(gained.get(name.as_str()).into_iter().flatten());
            for (hosts, members) in &classes {
                let audience = Audience::of(&(members & &those), groups);
                changes.upsert(audience, name, || Resource::Route(Box::new(route::configuration(name, hosts.clone()))));
            }
        }
    }

    fn compile_runtime(&mut self, groups: &NodeGroups, of: &BTreeSet<&str>, changes: &mut Changes) {
        let layer = |seen: &ServiceFilter| {
            let values = self.seen(seen).flat_map(|(_, service)| service.runtime.clone()).collect();
            RuntimeLayer::new(TIDEGATE, &values)
        };
        for (layer, members) in classes(groups, of, layer) {
            let (layer, differing) = self.runtime.give(&members, layer);
            let audience = Audience::of(&differing, groups);
            changes.upsert(audience, TIDEGATE, || Resource::Runtime((*layer).clone()));
        }
    }

    fn compile_policy(&mut self, groups: &NodeGroups, of: &BTreeSet<&str>, generation: u64, changes: &mut Changes) {
        let policy = |seen: &ServiceFilter| {
            let of_service = |(name, service): (&ServiceName, &Compiled)| {
                service.policy.clone().map(|policy| (name.as_str().to_owned(), policy))
            };
            Policy { generation, services: self.seen(seen).filter_map(of_service).collect(), ..Policy::default() }
        };
        for (policy, members) in classes(groups, of, policy) {
            let (policy, differing) = self.policy.give(&members, policy);
            let resource = || Resource::ExtensionConfig(edge::filter_resource(&self.filter_code, &policy));
            changes.upsert(Audience::of(&differing, groups), TIDEGATE, resource);
        }
    }

    /// Returns which groups gained which listener.
    fn compile_listeners<'a>(
        &mut self,
        edge: &'a Edge,
        before: Option<&'a NodeGroups>,
        changes: &mut Changes,
    ) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let new: BTreeMap<String, Listener> = edge
            .listeners
            .iter()
            .map(|listener| (listener.name.clone(), edge::listener(listener, &self.filter_code)))
            .collect();
        for name in self.listeners.keys() {
            let turn = turn(before, &edge.groups, |groups| groups.with_listener(name));
            for kind in [Kind::Listener, Kind::Route] {
                changes.remove(turn.taken(!new.contains_key(name)), kind, name);
            }
        }
        let mut gained = BTreeMap::new();
        for listener in &edge.listeners {
            let name = listener.name.as_str();
            let turn = turn(before, &edge.groups, |groups| groups.with_listener(name));
            let (had, has) = (self.listeners.get(name), new.get(name));
            if let Some(listener) = has {
                changes.upsert(turn.given(had != has), name, || Resource::Listener(Box::new(listener.clone())));
            }
            gained.insert(name, turn.gained(had.is_none()));
        }
        self.listeners = new;
        gained
    }
}

/// Who had and who has what `who` says; `before` is where the groups changed.
fn turn<'a>(
    before: Option<&'a NodeGroups>,
    groups: &'a NodeGroups,
    who: impl Fn(&'a NodeGroups) -> BTreeSet<&'a str>,
) -> Turn<'a> {
    let has = who(groups);
    Turn::new(before.map_or_else(|| has.clone(), who), has, groups)
}

/// What some groups get of what depends on the services that they see: each content once, and who gets it.
fn classes<'a, T: PartialEq>(
    groups: &'a NodeGroups,
    of: &BTreeSet<&str>,
    content: impl Fn(&ServiceFilter) -> T,
) -> Vec<(T, BTreeSet<&'a str>)> {
    let mut classes: Vec<(T, BTreeSet<&str>)> = Vec::new();
    if of.is_empty() {
        return classes;
    }
    for (seen, mut members) in groups.by_services() {
        members.retain(|name| of.contains(name));
        if members.is_empty() {
            continue;
        }
        let content = content(&seen);
        match classes.iter_mut().find(|(same, _)| *same == content) {
            Some((_, all)) => all.append(&mut members),
            None => classes.push((content, members)),
        }
    }
    classes
}

/// The clusters and endpoints of one service.
fn publish(old: &Compiled, new: &Compiled, turn: &Turn<'_>, changes: &mut Changes) {
    let cluster = |cluster: &Cluster| Resource::Cluster(Box::new(cluster.clone()));
    diff(&old.clusters, &new.clusters, turn, Kind::Cluster, cluster, changes);
    let assignment = |assignment: &ClusterLoadAssignment| Resource::Endpoint(assignment.clone());
    diff(&old.assignments, &new.assignments, turn, Kind::Endpoint, assignment, changes);
}

fn diff<T: PartialEq>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    turn: &Turn<'_>,
    kind: Kind,
    resource: impl Fn(&T) -> Resource,
    changes: &mut Changes,
) {
    for (name, message) in new {
        changes.upsert(turn.given(old.get(name) != Some(message)), name, || resource(message));
    }
    for name in old.keys() {
        changes.remove(turn.taken(!new.contains_key(name)), kind, name);
    }
}

#[cfg(test)]
mod tests;
