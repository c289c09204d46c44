//! What the API says and every screen shows: plain values with stable names, made from the state by [`Status::of`]. They are a
//! contract (`tidegate/v1`): keys may be added, never renamed. Times are milliseconds since the Unix epoch, weights are basis
//! points. Nothing here is a guess: what an edge has *accepted* is not said to be in effect.

mod canary;
mod envoy;
mod operate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::canary::{
    Canaries, CanaryEdge, CanaryHistory, CanaryStatus, Looks, Observed, RolloutStatus, StageStatus,
};
pub use self::envoy::{DiffState, EnvoyConfig, EnvoyDiff, HeldResource, HeldState, ResourceDiff};
pub use self::operate::{DeployStatus, DrainStatus};
use crate::instance::{Confirmed, short_id};
use crate::rollout::Split;
use crate::service::{Condition, ConditionKind, InstanceView, ServiceView, VersionView};
use crate::{Code, Problem, Severity, State, Timestamp, VersionName};

/// The version of every JSON document of the API.
pub const API_VERSION: &str = "tidegate/v1";

/// Everything on one screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// [`API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// Whether the first full picture was published.
    pub synced: bool,
    /// What the first picture still waits for.
    pub awaiting: Option<String>,
    /// When that was kept which the edges get until then; `None`: they get nothing until then, or it is done.
    #[serde(default)]
    pub last_known_good: Option<Timestamp>,
    /// The sources of instances.
    pub providers: Vec<ProviderStatus>,
    /// The Envoys that are connected.
    pub edges: Vec<EdgeStatus>,
    /// Every service, by name.
    pub services: Vec<ServiceStatus>,
    /// Everything that is wrong, worst first.
    pub problems: Vec<Problem>,
}

/// One source of instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// Its name.
    pub name: String,
    /// When it last told anything, or confirmed what it had told; `None`: never. A Docker engine confirms every few seconds, so
    /// the time since is the age of the view.
    pub last_heard: Option<Timestamp>,
    /// Containers (or entries) that it knows.
    pub containers: usize,
    /// Those of them that asked to be routed.
    pub enabled: usize,
    /// How many problems it has itself.
    pub problems: usize,
    /// Whether what it told was not confirmed for a while (TG0112).
    pub stale: bool,
    /// Connections to its source after the first.
    pub reconnects: u64,
    /// Changes that it found although no event had told of them.
    pub repaired: u64,
}

/// The connected Envoys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edges {
    /// [`API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// Every one, oldest connection first.
    pub edges: Vec<EdgeStatus>,
}

/// One connected Envoy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeStatus {
    /// The id that its bootstrap gives it.
    pub node: String,
    /// The node's cluster, as its bootstrap says.
    pub cluster: String,
    /// Its group in `edge.groups`; `None`: none takes it in, and it gets everything.
    #[serde(default)]
    pub group: Option<String>,
    /// Name and version of its software, as it says.
    pub version: String,
    /// Where it connected from.
    pub peer: Option<String>,
    /// When it connected.
    pub connected_at: Timestamp,
    /// Whether it has accepted all that is published and concerns it.
    pub synced: bool,
    /// How far it is with each kind of resource that it wants.
    pub types: Vec<EdgeType>,
}

/// How far an edge is with one kind of resource.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeType {
    /// `CDS`, `EDS`, `LDS`, `RDS`, `ECDS`, `RTDS`.
    pub kind: String,
    /// How far it is.
    pub state: EdgeState,
    /// What it wants of this kind.
    pub subscribed: EdgeSubscription,
    /// Changes up to this number were taken into account when it was last sent something.
    pub sent_sequence: u64,
    /// The newest change that it has acknowledged, with all before it that concern it.
    pub accepted_sequence: u64,
    /// Whether it was sent something that it has not answered yet.
    pub in_flight: bool,
    /// Whether it has acknowledged all that is published and concerns it.
    pub synced: bool,
    /// What it refused, in its own words.
    pub rejected: Vec<EdgeRejection>,
}

/// The words of [`EdgeType::progress`].
pub const EDGE_PROGRESS: [&str; 5] = ["synced", "in_flight", "stale", "rejected", "unwanted"];

impl EdgeType {
    /// How far it is, in one word: its state, where what is on its way and what is not yet are told apart.
    #[must_use]
    pub const fn progress(&self) -> &'static str {
        match self.state {
            EdgeState::Synced => "synced",
            EdgeState::Stale if self.in_flight => "in_flight",
            EdgeState::Stale => "stale",
            EdgeState::Rejected => "rejected",
            EdgeState::Unwanted => "unwanted",
        }
    }
}

/// What an edge wants of one kind of resource: `"everything"`, or `{"names": 3}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EdgeSubscription {
    /// Whatever there is.
    Everything,
    /// So many resources, by name.
    Names(usize),
}

/// How far an edge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EdgeState {
    /// It has accepted all that is published.
    Synced,
    /// Something newer is on its way.
    Stale,
    /// It refused something.
    Rejected,
    /// It does not want this kind.
    Unwanted,
}

/// A resource that an edge refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeRejection {
    /// The resource.
    pub name: String,
    /// The version that it refused.
    pub version: String,
    /// The edge's own words.
    pub message: String,
    /// When it refused.
    pub at: Timestamp,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// The hosts that are its own.
    pub hosts: Vec<String>,
    /// Path prefix.
    pub path: String,
    /// `single`, `pool` or `rollout`.
    pub split: String,
    /// Instances that get new requests.
    pub ready: u32,
    /// Instances.
    pub total: u32,
    /// Its versions, by name.
    pub versions: Vec<VersionStatus>,
    /// What keeps some of its containers from requests for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// How many problems it has.
    pub problems: usize,
}

/// One version of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionStatus {
    /// Its name.
    pub name: String,
    /// Its part in the split.
    pub role: Role,
    /// Its share in basis points.
    pub weight: u32,
    /// Instances that get new requests.
    pub ready: u32,
    /// Instances.
    pub total: u32,
    /// The instances themselves; left out of a summary.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceStatus>,
}

/// The part of a version in the split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// The only one.
    Single,
    /// One of several that share by their ready instances.
    Pool,
    /// Gets what the canary does not.
    Stable,
    /// Under trial.
    Canary,
    /// The configuration gives it nothing.
    Unrouted,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// The container's name.
    pub container: String,
    /// The container's id, twelve characters.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// The network on which that holds.
    pub network: String,
    /// What it is.
    pub state: InstanceState,
    /// Why.
    pub reason: String,
    /// Since when it is ready, or is not.
    pub since: Timestamp,
    /// The three things that it is or is not, as of an endpoint in Kubernetes.
    pub conditions: InstanceConditions,
    /// When that ends by itself, at the latest; only of what is held back or damped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What an instance is and is not, each with its reason and since when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceConditions {
    /// It runs, and its checks pass.
    pub ready: InstanceCondition,
    /// It gets new requests.
    pub serving: InstanceCondition,
    /// It is left to end what it has.
    pub terminating: InstanceCondition,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceCondition {
    /// Whether it is so.
    pub is: bool,
    /// Why.
    pub reason: String,
    /// Since when; `None`: it never was otherwise.
    pub since: Option<Timestamp>,
}

/// What an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum InstanceState {
    /// It gets new requests.
    Ready,
    /// It gets none.
    NotReady,
    /// It was told to stop: requests in flight may end.
    Terminating,
    /// An operator drains it: requests in flight may end.
    Drained,
    /// Ready, but its address was another's a moment ago.
    HeldBack,
    /// Ready, but it falls too often.
    Damped,
}

/// All services, with their instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    /// [`API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// Every service, by name.
    pub services: Vec<ServiceStatus>,
}

/// Whether an edge has accepted something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeAcceptance {
    /// The edge's node id.
    pub node: String,
    /// `notSent`, `sent`, `accepted`, `rejected` or `heldBack`.
    pub state: AcceptanceState,
    /// When it answered.
    pub at: Option<Timestamp>,
    /// What it said, when it refused.
    pub message: Option<String>,
}

/// How far one edge is with one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AcceptanceState {
    /// Not sent yet.
    NotSent,
    /// Sent, not answered.
    Sent,
    /// Acknowledged, which is not "in effect".
    Accepted,
    /// Refused.
    Rejected,
    /// Not sent, because another edge refused it and none has accepted it: this one has the last accepted version.
    HeldBack,
}

impl Status {
    /// The state as of `now`, with the edges that the caller sees connected.
    #[must_use]
    pub fn of(state: &State, edges: Vec<EdgeStatus>, now: Timestamp) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            at: now,
            synced: state.is_synced(),
            awaiting: state.awaiting(),
            last_known_good: state.serves_kept(),
            providers: providers(state),
            edges,
            services: state.services().map(|view| ServiceStatus::of(view, false)).collect(),
            problems: state.problems(),
        }
    }

    /// Whether something is wrong that its owner has to mend.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

impl Services {
    /// Every service with its instances, as of `now`.
    #[must_use]
    pub fn of(state: &State, now: Timestamp) -> Self {
        let services = state.services().map(|view| ServiceStatus::of(view, true)).collect();
        Self { api_version: API_VERSION.to_owned(), at: now, services }
    }
}

impl ServiceStatus {
    /// One service; `instances` says whether to list them.
    #[must_use]
    pub fn of(view: &ServiceView, instances: bool) -> Self {
        // A declared version without containers is part of the split all the same.
        let empty = VersionView::default();
        let mut versions: BTreeMap<&VersionName, &VersionView> = view.versions.iter().collect();
        for name in view.split.versions() {
            versions.entry(name).or_insert(&empty);
        }
        let versions: Vec<VersionStatus> =
            versions.into_iter().map(|(name, version)| VersionStatus::of(view, name, version, instances)).collect();
        Self {
            name: view.name.to_string(),
            hosts: view.hosts.clone(),
            path: view.path.clone(),
            split: match view.split {
                Split::Single { .. } => "single",
                Split::Pool { .. } => "pool",
                Split::Rollout { .. } => "rollout",
            }
            .to_owned(),
            ready: versions.iter().map(|version| version.ready).sum(),
            total: versions.iter().map(|version| version.total).sum(),
            versions,
            conditions: view
                .conditions
                .iter()
                .map(|condition| Condition { id: short_id(&condition.id).to_owned(), ..condition.clone() })
                .collect(),
            problems: view.problems.len(),
        }
    }
}

impl VersionStatus {
    fn of(view: &ServiceView, name: &VersionName, version: &VersionView, instances: bool) -> Self {
        let census = version.census();
        let instances = if instances { version.instances.iter().map(InstanceStatus::of).collect() } else { Vec::new() };
        Self {
            name: name.to_string(),
            role: role(&view.split, name),
            weight: view.split.weight(name),
            ready: census.ready,
            total: census.instances,
            instances,
        }
    }
}

impl InstanceStatus {
    /// One instance.
    #[must_use]
    pub fn of(view: &InstanceView) -> Self {
        let condition = view.condition.as_ref().filter(|_| !view.is_leaving() && view.readiness.is_ready());
        let state = match (view.terminating, view.readiness.is_ready(), condition.map(|condition| condition.kind)) {
            (Some(_), _, _) => InstanceState::Terminating,
            (None, _, _) if view.drained.is_some() => InstanceState::Drained,
            (None, false, _) => InstanceState::NotReady,
            (None, true, None) => InstanceState::Ready,
            (None, true, Some(ConditionKind::HeldBack)) => InstanceState::HeldBack,
            (None, true, Some(ConditionKind::Damped)) => InstanceState::Damped,
        };
        Self {
            container: view.container.clone(),
            id: view.id.short().to_owned(),
            address: view.id.address.to_string(),
            network: view.id.network.clone(),
            state,
            conditions: InstanceConditions::of(view),
            reason: condition.map_or_else(|| view.readiness.to_string(), |condition| condition.reason.clone()),
            since: view.since,
            until: condition.map(|condition| condition.until),
        }
    }
}

impl InstanceConditions {
    fn of(view: &InstanceView) -> Self {
        let leaving = match (view.terminating, view.drained) {
            (Some(until), _) => format!("it was told to stop, and counts as having survived at {until}"),
            (None, Some(_)) => "an operator drains it".to_owned(),
            (None, None) => "nobody told it to stop".to_owned(),
        };
        let serving = match &view.condition {
            _ if view.is_leaving() => leaving.clone(),
            _ if view.serves_as_last => "nobody is ready, and it was among the last who were".to_owned(),
            _ if !view.readiness.is_ready() => "it is not ready".to_owned(),
            Some(condition) => condition.reason.clone(),
            None => "it is ready".to_owned(),
        };
        Self {
            ready: InstanceCondition {
                is: view.readiness.is_ready(),
                reason: view.readiness.to_string(),
                since: Some(view.since),
            },
            serving: InstanceCondition { is: view.is_serving(), reason: serving, since: Some(view.serving_since) },
            terminating: InstanceCondition { is: view.is_leaving(), reason: leaving, since: view.leaving_since },
        }
    }
}

fn role(split: &Split, version: &VersionName) -> Role {
    match split {
        Split::Single { version: only } if only == version => Role::Single,
        Split::Pool { weights } if weights.contains_key(version) => Role::Pool,
        Split::Rollout { stable, .. } if stable == version => Role::Stable,
        Split::Rollout { canary, .. } if canary.version == *version => Role::Canary,
        Split::Single { .. } | Split::Pool { .. } | Split::Rollout { .. } => Role::Unrouted,
    }
}

fn providers(state: &State) -> Vec<ProviderStatus> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (key, container) in state.catalog().entries() {
        let (containers, enabled) = counts.entry(key.provider.as_str()).or_default();
        *containers += 1;
        *enabled += usize::from(container.enabled);
    }
    state
        .providers()
        .map(|(name, last_heard)| {
            let (containers, enabled) = counts.get(name.as_str()).copied().unwrap_or_default();
            let problems = state.catalog().provider_problems(name);
            let Confirmed { reconnects, repaired } = state.confirmed(name);
            ProviderStatus {
                name: name.to_string(),
                last_heard,
                containers,
                enabled,
                problems: problems.len(),
                stale: problems.iter().any(|problem| problem.code == Code::StaleView),
                reconnects,
                repaired,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
