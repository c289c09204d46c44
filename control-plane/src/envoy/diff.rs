//! What is published against what an Envoy says it has, resource by resource. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidegate_core::problem::printable;
use tidegate_core::status::{DiffState, HeldState, ResourceDiff};
use tidegate_xds::ResourceType;

use super::dump::{Dump, Held, Host};

/// Differences of one resource that are named; more are counted.
const NAMED: usize = 5;

/// A published resource.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) kind: ResourceType,
    pub(crate) name: Arc<str>,
    pub(crate) version: String,
    pub(crate) content: Content,
    /// How Envoy refused this version over xDS, in its own words.
    pub(crate) refusal: Option<Arc<str>>,
    /// Whether Envoy has asked for it, where it does not have it; not known of one that is not connected.
    pub(crate) subscribed: Option<bool>,
}

/// What is compared of a resource of which Envoy says no version.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Nothing: its version says it all.
    Version,
    /// Endpoints by address, with their health as EDS says it.
    Hosts(BTreeMap<String, &'static str>),
    /// The values of a runtime layer; `None` for one that is no number, which Envoy prints as it likes.
    Values(BTreeMap<String, Option<f64>>),
}

/// Compares every resource that is published or that Envoy has; by kind and name, when `published` is.
pub(crate) fn compare(published: &[Published], dump: &Dump) -> Vec<ResourceDiff> {
    let mut held: BTreeMap<(ResourceType, &str), States<'_>> = BTreeMap::new();
    for resource in &dump.held {
        held.entry((resource.kind, &resource.name)).or_default().add(resource);
    }
    let known: BTreeSet<(ResourceType, &str)> = published.iter().map(|of| (of.kind, &*of.name)).collect();
    let nothing = States::default();
    let mut diffs: Vec<ResourceDiff> = published
        .iter()
        .map(|of| of.against(held.get(&(of.kind, &*of.name)).unwrap_or(&nothing), &held, dump))
        .chain(held.iter().filter(|(key, _)| !known.contains(*key)).filter_map(|((kind, name), states)| {
            // What drains is on its way out, and what was refused never came in.
            let resource = states.active.or(states.warming)?;
            let mut diff = diff(*kind, name, DiffState::Extra);
            diff.envoy.clone_from(&resource.version);
            Some(diff)
        }))
        .collect();
    let rank = |diff: &ResourceDiff| ResourceType::ALL.iter().position(|kind| kind.label() == diff.kind);
    diffs.sort_by(|a, b| (rank(a), &a.name).cmp(&(rank(b), &b.name)));
    diffs
}

/// What cannot be compared, and why; for these kinds alone.
pub(crate) fn notes(dump: &Dump, kinds: &[ResourceType]) -> Vec<String> {
    let by_version =
        [ResourceType::Cluster, ResourceType::Listener, ResourceType::Route, ResourceType::ExtensionConfig];
    let blind: Vec<&str> = by_version
        .into_iter()
        .filter(|kind| kinds.contains(kind) && !dump.has_versions(*kind))
        .map(ResourceType::label)
        .collect();
    if blind.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "this Envoy takes {} by state-of-the-world xDS, where it knows the version of a whole response only: presence is \
         compared, versions cannot be",
        blind.join(", ")
    )]
}

/// The states that one resource has in Envoy.
#[derive(Clone, Copy, Default)]
struct States<'a> {
    active: Option<&'a Held>,
    warming: Option<&'a Held>,
    error: Option<&'a Held>,
}

impl<'a> States<'a> {
    fn add(&mut self, held: &'a Held) {
        match held.state {
            HeldState::Active => self.active = Some(held),
            HeldState::Warming => self.warming = Some(held),
            HeldState::Error => self.error = Some(held),
            HeldState::Draining => {}
        }
    }
}

impl Published {
    fn against(
        &self,
        states: &States<'_>,
        held: &BTreeMap<(ResourceType, &str), States<'_>>,
        dump: &Dump,
    ) -> ResourceDiff {
        let mut diff = diff(self.kind, &self.name, DiffState::Same);
        diff.intended = Some(self.version.clone());
        diff.envoy = states.active.and_then(|active| active.version.clone());
        let (state, detail) = match &self.content {
            Content::Version => (self.by_version(states, dump), None),
            Content::Hosts(hosts) => match dump.hosts.get(&*self.name).filter(|_| states.active.is_some()) {
                Some(theirs) => by_hosts(hosts, theirs),
                None => (self.absent(held.get(&(ResourceType::Cluster, &*self.name))), None),
            },
            Content::Values(values) => match dump.layers.get(&*self.name) {
                Some(theirs) => by_values(values, theirs),
                None => (self.absent(None), None),
            },
        };
        diff.state = state;
        diff.detail = detail;
        if state == DiffState::Same {
            return diff;
        }
        diff.envoy_error = states.error.and_then(|error| error.error.as_deref()).map(printable);
        diff.refusal = self.refusal.as_deref().map(printable);
        if diff.envoy_error.is_some() || diff.refusal.is_some() {
            diff.state = DiffState::Refused;
        }
        diff
    }

    fn by_version(&self, states: &States<'_>, dump: &Dump) -> DiffState {
        let has_versions = dump.has_versions(self.kind);
        let is_ours = |held: &Held| !has_versions || held.version.as_deref() == Some(&self.version);
        // Where versions tell nothing, a refusal of what is published does: Envoy works with something older.
        let refused = !has_versions && (self.refusal.is_some() || states.error.is_some());
        match (states.active, states.warming) {
            (Some(active), _) if is_ours(active) && !refused => DiffState::Same,
            (_, Some(warming)) if is_ours(warming) => DiffState::Warming,
            (None, None) => self.absent(None),
            _ => DiffState::OtherVersion,
        }
    }

    /// What is not there. `cluster` is the one whose endpoints it would be.
    fn absent(&self, cluster: Option<&States<'_>>) -> DiffState {
        match (cluster, self.subscribed) {
            (Some(States { active: None, warming: Some(_), .. }), _) => DiffState::Warming,
            (_, Some(false)) => DiffState::Unwanted,
            _ => DiffState::Missing,
        }
    }
}

fn by_hosts(ours: &BTreeMap<String, &'static str>, theirs: &BTreeMap<String, Host>) -> (DiffState, Option<String>) {
    let mut differences = Vec::new();
    for (address, health) in ours {
        match theirs.get(address).map(|host| health_of(&host.health)) {
            None => differences.push(format!("{address} is missing")),
            Some(other) if other != *health => differences.push(format!("{address} is {other}, intended {health}")),
            Some(_) => {}
        }
    }
    differences.extend(
        theirs.keys().filter(|address| !ours.contains_key(*address)).map(|address| format!("{address} is extra")),
    );
    if !differences.is_empty() {
        return (DiffState::OtherContent, Some(some_of(&differences)));
    }
    let ejected = theirs.iter().filter(|(_, host)| host.ejected);
    let ejected: Vec<String> = ejected.map(|(address, _)| format!("{address} is put out by Envoy itself")).collect();
    (DiffState::Same, (!ejected.is_empty()).then(|| some_of(&ejected)))
}

/// Envoy takes an unknown health for a good one.
pub(crate) fn health_of(said: &str) -> &str {
    if matches!(said, "" | "UNKNOWN") { "HEALTHY" } else { said }
}

fn by_values(ours: &BTreeMap<String, Option<f64>>, theirs: &BTreeMap<String, String>) -> (DiffState, Option<String>) {
    let mut differences = Vec::new();
    for (key, value) in ours {
        match (theirs.get(key), value) {
            (None, _) => differences.push(format!("`{key}` is missing")),
            // Envoy prints a number as it likes.
            (Some(other), Some(value)) if other.parse() != Ok(*value) => {
                differences.push(format!("`{key}` is {}, intended {value}", printable(other)));
            }
            (Some(_), _) => {}
        }
    }
    let extra = theirs.keys().filter(|key| !ours.contains_key(*key));
    differences.extend(extra.map(|key| format!("`{}` is extra", printable(key))));
    if differences.is_empty() {
        (DiffState::Same, None)
    } else {
        (DiffState::OtherContent, Some(some_of(&differences)))
    }
}

fn some_of(differences: &[String]) -> String {
    let named = differences.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    match differences.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}

fn diff(kind: ResourceType, name: &str, state: DiffState) -> ResourceDiff {
    ResourceDiff {
        kind: kind.label().to_owned(),
        name: printable(name),
        state,
        intended: None,
        envoy: None,
        detail: None,
        envoy_error: None,
        refusal: None,
    }
}

#[cfg(test)]
mod tests;
