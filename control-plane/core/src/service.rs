//! What is derived of one service: who belongs to it, what is ready, how its traffic is split and what is wrong. A view is a pure
//! function of facts; it is what `compile` and every screen read.

mod labelled;
mod problems;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::labelled::{Labelled, labelled};
use self::problems::{
    disagreement, flapping, no_host, other_protocol, readiness_problems, routing_problems, settings_differ,
};
use crate::addresses::Addresses;
use crate::catalog::Catalog;
use crate::claims::Claims;
use crate::config::{Canary, ServiceConfig, ServiceTls, WhenNoneReady, WhenStarting};
use crate::drains::Drains;
use crate::flaps::Flaps;
use crate::health::{Readiness, Verdict, is_starting, readiness};
use crate::instance::{Check, Claim, Discovered, Hint, Instance, InstanceId, Membership, Phase, is_entry, short_id};
use crate::ownership::Ownership;
use crate::rollout::{Census, Declared, Split, split};
use crate::traffic::{Protocol, Traffic};
use crate::{Code, Problem, ServiceName, Timestamp, VersionName};

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// The hosts that are its own, sorted.
    pub hosts: Vec<String>,
    /// Path prefix.
    pub path: String,
    /// Its versions, also those whose containers are all stopped.
    pub versions: BTreeMap<VersionName, VersionView>,
    /// How its traffic is split.
    pub split: Split,
    /// How its instances are asked.
    #[serde(skip)]
    pub traffic: Traffic,
    /// Who issues the certificates of its instances; `None`: anybody.
    #[serde(skip)]
    pub tls: Option<Arc<ServiceTls>>,
    /// The services that it needs, as its oldest container says.
    pub depends_on: Vec<ServiceName>,
    /// What keeps some of its containers from their requests for a while, ready or not.
    pub conditions: Vec<Condition>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// One version of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VersionView {
    /// What they understand.
    pub protocol: Protocol,
    /// Its instances, by id.
    pub instances: Vec<InstanceView>,
}

/// What keeps a container, or a run of it, from requests for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is.
    pub kind: ConditionKind,
    /// The container's name.
    pub container: String,
    /// Its full id; on screens the short one.
    pub id: String,
    /// Why.
    pub reason: String,
    /// When it ends by itself, at the latest.
    pub until: Timestamp,
    /// Whether it is in force. What flaps gets its requests all the same while too few others would.
    pub in_force: bool,
}

/// A kind of [`Condition`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConditionKind {
    /// Its address was another's a moment ago, and not every edge knows that it is not any more.
    HeldBack,
    /// It falls too often.
    Damped,
}

/// One instance, judged.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceView {
    /// Its identity.
    pub id: InstanceId,
    /// The container's name.
    pub container: String,
    /// Whether it is ready, and why.
    pub readiness: Readiness,
    /// Since when it is (or is not) ready.
    pub since: Timestamp,
    /// When it was first known.
    pub first_seen: Timestamp,
    /// It was told to stop.
    pub terminating: Option<Timestamp>,
    /// Since when an operator wants it drained.
    pub drained: Option<Timestamp>,
    /// Since when it gets new requests, or does not.
    pub serving_since: Timestamp,
    /// Since when it is left to end what it has: it was told to stop, or is drained.
    pub leaving_since: Option<Timestamp>,
    /// What keeps it from requests although it may be ready.
    pub condition: Option<Condition>,
    /// It is not ready, and gets requests all the same: nobody of its service is, and it was among the last who were.
    pub serves_as_last: bool,
    /// How it is checked.
    pub check: Check,
    /// What the container is doing.
    pub phase: Phase,
    /// What made the provider look last.
    pub hint: Hint,
    /// When its facts were read.
    pub observed_at: Timestamp,
    /// What its checks said last, and when.
    pub verdict: Option<Verdict>,
}

impl InstanceView {
    /// Ready (or the last who was), not leaving, and not kept back: it gets new requests.
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        (self.readiness.is_ready() || self.serves_as_last) && !self.is_leaving() && self.condition.is_none()
    }

    /// Whether edges know it: it gets new requests, or is left to end those it has.
    #[must_use]
    pub const fn is_published(&self) -> bool {
        self.is_serving() || self.is_leaving()
    }

    /// Told to stop, or drained: it is left to end what it has.
    #[must_use]
    pub const fn is_leaving(&self) -> bool {
        self.terminating.is_some() || self.drained.is_some()
    }
}

impl VersionView {
    /// How many instances there are, and how many get new requests.
    #[must_use]
    pub fn census(&self) -> Census {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Census {
            instances: count(self.instances.len()),
            ready: count(self.instances.iter().filter(|instance| instance.is_serving()).count()),
        }
    }
}

impl ServiceView {
    /// Whether some version that the split names has an instance that gets new requests.
    #[must_use]
    pub fn has_ready_instance(&self) -> bool {
        self.split.versions().iter().filter_map(|v| self.versions.get(*v)).any(|v| v.census().ready > 0)
    }
}

impl ServiceView {
    /// How many of the canary's instances get new requests and how many have to, where that is too few for it to get any.
    #[must_use]
    pub fn below_min_ready(&self) -> Option<(u32, u32)> {
        let Split::Rollout { canary, .. } = &self.split else { return None };
        let census = self.versions.get(&canary.version)?.census();
        let needed = canary.min_ready.of(census.instances);
        (census.ready < needed).then_some((census.ready, needed))
    }
}

/// The version whose requests nobody would take without this container, although it takes some now.
#[must_use]
pub fn left_to_nobody<'a>(
    view: &'a ServiceView,
    declared: Option<&ServiceConfig>,
    container: &str,
) -> Option<&'a VersionName> {
    let serves = |version: &VersionName, who: &dyn Fn(&str) -> bool| {
        let others = view.versions.iter().filter(|(other, _)| takes(declared, version, other));
        others.flat_map(|(_, others)| &others.instances).any(|i| i.is_serving() && who(&i.id.container))
    };
    let own = view.versions.iter().find(|(_, own)| own.instances.iter().any(|i| i.id.container == container))?.0;
    (view.split.versions().contains(&own)
        && serves(own, &|who| who == container)
        && !serves(own, &|who| who != container))
    .then_some(own)
}

/// The claim of a service is that of its oldest container.
pub(crate) fn claim_of<'a>(members: &[(&'a Discovered, &'a Membership)]) -> Option<(&'a Claim, Timestamp)> {
    members.first().map(|(container, membership)| (&membership.claim, container.created))
}

/// The facts that a view is made from.
pub(crate) struct Facts<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) claims: &'a Claims,
    pub(crate) ownership: &'a Ownership,
    pub(crate) verdicts: &'a BTreeMap<InstanceId, Verdict>,
    pub(crate) addresses: &'a Addresses,
    pub(crate) flaps: &'a Flaps,
    pub(crate) drains: &'a Drains,
    pub(crate) declared: Option<&'a ServiceConfig>,
    pub(crate) before: Option<&'a ServiceView>,
    pub(crate) now: Timestamp,
}

impl Facts<'_> {
    /// The instance in the view before; those of a version are sorted by their ids.
    fn known(&self, version: &VersionName, id: &InstanceId) -> Option<&InstanceView> {
        let instances = &self.before?.versions.get(version)?.instances;
        instances.binary_search_by(|known| known.id.cmp(id)).ok().and_then(|place| instances.get(place))
    }
}

/// Who belongs to a service and what each of them is, before it is said how its traffic is split over them.
pub(crate) struct Gathered<'a> {
    name: &'a ServiceName,
    facts: &'a Facts<'a>,
    members: Vec<(&'a Discovered, &'a Membership)>,
    claim: &'a Claim,
    versions: BTreeMap<VersionName, VersionView>,
    conditions: Vec<Condition>,
    problems: Vec<Problem>,
    /// What a split needs to know of each version.
    pub(crate) census: BTreeMap<VersionName, Census>,
    /// The canary that its containers' labels declare, and the stable version beside it.
    pub(crate) labelled: Option<(VersionName, Arc<Canary>)>,
}

/// Who belongs to a service; `None` when nothing does any more.
pub(crate) fn gather<'a>(name: &'a ServiceName, facts: &'a Facts<'a>) -> Option<Gathered<'a>> {
    let members = facts.ownership.members(facts.catalog, name);
    let (claim, _) = claim_of(&members)?;
    let mut problems = Vec::new();
    let mut versions: BTreeMap<VersionName, VersionView> = BTreeMap::new();
    for (container, membership) in &members {
        if membership.claim != *claim {
            problems.push(disagreement(name, container, membership, claim, members[0].0));
            continue;
        }
        let version = versions
            .entry(membership.version.clone())
            .or_insert_with(|| VersionView { protocol: membership.protocol, instances: Vec::new() });
        if membership.protocol != version.protocol {
            problems.push(other_protocol(name, container, membership, version.protocol));
            continue;
        }
        let own = container.instances.iter().filter(|i| i.service == *name && i.version == membership.version);
        version.instances.extend(own.map(|instance| judge(container, instance, facts)));
    }
    for version in versions.values_mut() {
        version.instances.sort_by(|a, b| a.id.cmp(&b.id));
    }
    let damped = damp(&mut versions, &members, facts);
    let held = versions.values().flat_map(|version| &version.instances).filter_map(|i| i.condition.clone());
    let held = held.filter(|condition| condition.kind == ConditionKind::HeldBack);
    let conditions: Vec<Condition> = held.chain(damped).collect();
    if facts.declared.is_some_and(|declared| declared.when_none_ready == WhenNoneReady::ServeLast) {
        serve_last(&mut versions, facts);
    }
    since_when(&mut versions, facts);
    let census = versions.iter().map(|(name, version)| (name.clone(), version.census())).collect();
    let agree: Vec<_> = members.iter().filter(|(_, membership)| membership.claim == *claim).copied().collect();
    let Labelled { canary, problem } = labelled(name, &agree, facts.declared);
    problems.extend(problem);
    Some(Gathered { name, facts, members, claim, versions, conditions, problems, census, labelled: canary })
}

impl Gathered<'_> {
    /// The view, with the traffic split as is declared.
    pub(crate) fn view(self, declared: &Declared) -> Option<ServiceView> {
        let split = split(declared, &self.census)?;
        let Self { name, facts, members, claim, versions, conditions, mut problems, .. } = self;
        let (hosts, lost) = hosts(name, claim, facts.claims, is_entry(&members[0].0.id));
        problems.extend(lost);
        let view = ServiceView {
            name: name.clone(),
            hosts,
            path: claim.path.clone(),
            versions,
            split,
            traffic: facts.declared.map(|declared| declared.traffic).unwrap_or_default().or(members[0].1.traffic),
            tls: facts.declared.and_then(|declared| declared.tls.clone()),
            depends_on: members[0].1.depends_on.clone(),
            conditions,
            problems: Vec::new(),
        };
        problems.extend(no_host(&view, claim, members[0].0));
        problems.extend(settings_differ(name, &members, facts.declared));
        problems.extend(routing_problems(&view));
        problems.extend(readiness_problems(&view));
        problems.extend(view.conditions.iter().filter_map(flapping));
        Some(ServiceView { problems, ..view })
    }
}

fn judge(container: &Discovered, instance: &Instance, facts: &Facts<'_>) -> InstanceView {
    let before = facts.known(&instance.version, &instance.id);
    let verdict = facts.verdicts.get(&instance.id);
    let readiness = match facts.addresses.successor(&instance.id) {
        // Whatever a check says, it is the newcomer who says it.
        Some(successor) => {
            let reason = format!("its address belongs to a newer run, of the container {}", successor.short());
            Readiness::NotReady { reason }
        }
        None => {
            let judged = readiness(&container.phase, container.health, &instance.check, verdict);
            let routes = facts.declared.is_some_and(|declared| declared.when_starting == WhenStarting::Route);
            match judged {
                Readiness::NotReady { reason }
                    if routes && is_starting(&container.phase, container.health, &instance.check, verdict) =>
                {
                    Readiness::Ready { detail: format!("routed while it starts: {reason}") }
                }
                judged => judged,
            }
        }
    };
    let since = before
        .filter(|known| known.readiness.is_ready() == readiness.is_ready())
        .map_or(facts.now, |known| known.since);
    InstanceView {
        id: instance.id.clone(),
        container: container.name.clone(),
        readiness,
        since,
        first_seen: before.map_or(facts.now, |known| known.first_seen),
        terminating: container.terminating,
        condition: facts.addresses.held(&instance.id).map(|held| Condition {
            kind: ConditionKind::HeldBack,
            container: container.name.clone(),
            id: instance.id.container.clone(),
            reason: format!(
                "its address {} was that of {}/{} ({}) a moment ago, and not every edge has acknowledged that it left",
                instance.id.address,
                held.old.service,
                held.old.version,
                short_id(&held.old.container),
            ),
            until: held.until,
            in_force: true,
        }),
        serves_as_last: false,
        drained: facts.drains.since(&instance.id),
        serving_since: facts.now,
        leaving_since: None,
        check: instance.check.clone(),
        phase: container.phase.clone(),
        hint: container.hint.clone(),
        observed_at: container.observed_at,
        verdict: verdict.cloned(),
    }
}

/// Since when each serves or does not, and leaves.
fn since_when(versions: &mut BTreeMap<VersionName, VersionView>, facts: &Facts<'_>) {
    for (name, version) in versions {
        for instance in &mut version.instances {
            let known = facts.known(name, &instance.id);
            if let Some(known) = known.filter(|known| known.is_serving() == instance.is_serving()) {
                instance.serving_since = known.serving_since;
            }
            if instance.is_leaving() {
                instance.leaving_since = known.and_then(|known| known.leaving_since).or(Some(facts.now));
            }
        }
    }
}

/// Where nobody serves, those go on who served last and still run.
fn serve_last(versions: &mut BTreeMap<VersionName, VersionView>, facts: &Facts<'_>) {
    if versions.values().flat_map(|version| &version.instances).any(InstanceView::is_serving) {
        return;
    }
    for (name, version) in versions {
        for instance in &mut version.instances {
            let served = facts.known(name, &instance.id).is_some_and(InstanceView::is_serving);
            instance.serves_as_last = instance.phase == Phase::Running && served;
        }
    }
}

/// Keeps out what flaps, and says so of every container that does, running or not. What flaps is not kept out while too few
/// others would take its requests: none, or fewer than those that would be kept out with it. Others are, for a version that the
/// configuration names, the instances of that version (for a canary those of stable, too); for a pool all. A restless instance
/// is better than none, and a check that fails everywhere for a moment must not leave all load to the few it missed.
fn damp(
    versions: &mut BTreeMap<VersionName, VersionView>,
    members: &[(&Discovered, &Membership)],
    facts: &Facts<'_>,
) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for (container, membership) in members {
        let Some((flap, until)) = facts.flaps.damped(&container.id) else { continue };
        let others = versions.iter().filter(|(version, _)| takes(facts.declared, &membership.version, version));
        let fit = others
            .flat_map(|(_, others)| &others.instances)
            .filter(|other| other.readiness.is_ready() && !other.is_leaving());
        let (restless, steady): (Vec<_>, Vec<_>) =
            fit.partition(|other| facts.flaps.damped(&other.id.container).is_some());
        let steady = steady.into_iter().filter(|other| other.is_serving()).count();
        let in_force = steady > 0 && steady >= restless.len();
        conditions.push(Condition {
            kind: ConditionKind::Damped,
            container: container.name.clone(),
            id: container.id.clone(),
            reason: format!("it ended or failed its check {} times lately", flap.falls),
            until,
            in_force,
        });
        let Some(version) = versions.get_mut(&membership.version).filter(|_| in_force) else { continue };
        for instance in version.instances.iter_mut().filter(|instance| instance.id.container == container.id) {
            instance.condition = instance.condition.take().or_else(|| conditions.last().cloned());
        }
    }
    conditions
}

/// Whether requests that `version` does not take are taken by `other`, or by another instance of it.
fn takes(declared: Option<&ServiceConfig>, version: &VersionName, other: &VersionName) -> bool {
    match declared {
        Some(ServiceConfig { stable: Some(stable), canary, .. }) => {
            other == version || (other == stable && canary.as_ref().is_some_and(|canary| canary.version == *version))
        }
        _ => true,
    }
}

fn hosts(name: &ServiceName, claim: &Claim, claims: &Claims, of_file: bool) -> (Vec<String>, Vec<Problem>) {
    let mut own = Vec::new();
    let mut lost = Vec::new();
    for host in &claim.hosts {
        match claims.owner(host, &claim.path) {
            Some(owner) if owner != name => lost.push(Problem::error(
                Code::HostClaimed,
                format!("service {name}"),
                format!("`{host}{}` belongs to the service `{owner}`, which had it first", claim.path),
                format!("requests for it go on reaching `{owner}`; `{name}` gets none there"),
                if of_file {
                    "use another `host` or `path`, or remove the other service's entries or containers"
                } else {
                    "use another `tidegate.host` or `tidegate.path`, or remove the other service's containers"
                },
            )),
            Some(_) | None => own.push(host.clone()),
        }
    }
    (own, lost)
}
