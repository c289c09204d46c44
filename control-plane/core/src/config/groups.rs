//! Groups of nodes: which edges belong together by what their nodes say of themselves, and which listeners and services they
//! get. Only what the configuration says is here, and the questions that it answers; who asks decides what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::ServiceName;

/// The name of the group of all nodes that no other group takes in. It gets everything.
pub const DEFAULT_GROUP: &str = "";

/// The groups in the order in which they are tried: the first that takes a node in has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NodeGroups(Vec<NodeGroup>);

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeGroup {
    /// Its name, never that of the default group.
    pub name: String,
    /// Which nodes it takes in.
    pub nodes: NodeMatch,
    /// The listeners that its edges have; `None`: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listeners: Option<BTreeSet<String>>,
    /// The services that its edges have.
    pub services: ServiceFilter,
}

/// What a node has to say of itself. All that is named must be equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeMatch {
    /// Its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Entries of its metadata, as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// Which services: `None` is all, else those that any of the patterns matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ServiceFilter(pub Option<Vec<ServicePattern>>);

/// A service's name, or the beginning of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub enum ServicePattern {
    /// Exactly this one.
    Name(ServiceName),
    /// All whose names begin so.
    Prefix(String),
}

impl NodeGroups {
    pub(super) const fn new(groups: Vec<NodeGroup>) -> Self {
        Self(groups)
    }

    /// Every group but the default one.
    pub fn iter(&self) -> impl Iterator<Item = &NodeGroup> {
        self.0.iter()
    }

    /// Whether there is none but the default one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every group's name, the default one's too.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        std::iter::once(DEFAULT_GROUP).chain(self.0.iter().map(|group| group.name.as_str())).collect()
    }

    /// The group that takes a node in.
    #[must_use]
    pub fn of(&self, id: &str, cluster: &str, metadata: &BTreeMap<Arc<str>, Arc<str>>) -> &str {
        let takes_in = |group: &&NodeGroup| group.nodes.takes_in(id, cluster, metadata);
        self.0.iter().find(takes_in).map_or(DEFAULT_GROUP, |group| group.name.as_str())
    }

    /// The services that the edges of a group have; `None`: there is no such group.
    #[must_use]
    pub fn seen_by(&self, group: &str) -> Option<&ServiceFilter> {
        if group == DEFAULT_GROUP {
            return Some(&ServiceFilter(None));
        }
        self.0.iter().find(|of| of.name == group).map(|of| &of.services)
    }

    /// The groups whose edges have a service.
    #[must_use]
    pub fn seeing(&self, service: &ServiceName) -> BTreeSet<&str> {
        let sees = |group: &&NodeGroup| group.services.sees(service);
        std::iter::once(DEFAULT_GROUP).chain(self.0.iter().filter(sees).map(|group| group.name.as_str())).collect()
    }

    /// The groups whose edges have a listener of the configuration.
    #[must_use]
    pub fn with_listener(&self, listener: &str) -> BTreeSet<&str> {
        let has = |group: &&NodeGroup| group.listeners.as_ref().is_none_or(|listeners| listeners.contains(listener));
        std::iter::once(DEFAULT_GROUP).chain(self.0.iter().filter(has).map(|group| group.name.as_str())).collect()
    }

    /// The groups by which services their edges have.
    #[must_use]
    pub fn by_services(&self) -> BTreeMap<ServiceFilter, BTreeSet<&str>> {
        let mut all = BTreeMap::from([(ServiceFilter::default(), BTreeSet::from([DEFAULT_GROUP]))]);
        for group in &self.0 {
            all.entry(group.services.clone()).or_default().insert(group.name.as_str());
        }
        all
    }
}

impl NodeMatch {
    fn takes_in(&self, id: &str, cluster: &str, metadata: &BTreeMap<Arc<str>, Arc<str>>) -> bool {
        self.id.as_ref().is_none_or(|wanted| wanted == id)
            && self.cluster.as_ref().is_none_or(|wanted| wanted == cluster)
            && self.metadata.iter().all(|(key, wanted)| metadata.get(key.as_str()).is_some_and(|is| **is == **wanted))
    }

    /// Whether every node that `other` takes in is taken in by this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.id.as_ref().is_none_or(|id| other.id.as_ref() == Some(id))
            && self.cluster.as_ref().is_none_or(|cluster| other.cluster.as_ref() == Some(cluster))
            && self.metadata.iter().all(|(key, value)| other.metadata.get(key) == Some(value))
    }
}

impl ServiceFilter {
    /// Whether a service is among them.
    #[must_use]
    pub fn sees(&self, service: &ServiceName) -> bool {
        self.0.as_ref().is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(service)))
    }
}

impl ServicePattern {
    /// Whether it matches a service.
    #[must_use]
    pub fn matches(&self, service: &ServiceName) -> bool {
        match self {
            Self::Name(name) => name == service,
            Self::Prefix(prefix) => service.as_str().starts_with(prefix.as_str()),
        }
    }
}

impl From<ServicePattern> for String {
    fn from(pattern: ServicePattern) -> Self {
        match pattern {
            ServicePattern::Name(name) => name.as_str().to_owned(),
            ServicePattern::Prefix(prefix) => format!("{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const TEXT: &str = "
edge:
  listeners: [ { name: web, address: \"127.0.0.1:1\" }, { name: internal, address: \"127.0.0.1:2\" } ]
  groups:
    - { name: one, nodes: { id: edge-1, cluster: inner } }
    - { name: inner, nodes: { cluster: inner, metadata: { tier: 1, canary: true } }, listeners: [ internal ], services: [ \"admin-*\", shop ] }
    - { name: tier, nodes: { metadata: { tier: 1 } }, services: [ shop ] }
";

    fn groups() -> NodeGroups {
        parse("f", TEXT).unwrap().edge.groups
    }

    #[test]
    fn the_first_group_whose_every_word_is_equal_takes_a_node_in() {
        let groups = groups();
        for (id, cluster, metadata, group) in [
            ("edge-1", "inner", &[("tier", "1"), ("canary", "true")][..], "one"),
            ("edge-2", "inner", &[("tier", "1"), ("canary", "true"), ("more", "x")], "inner"),
            ("edge-2", "inner", &[("tier", "1")], "tier"),
            ("edge-2", "inner", &[("tier", "1.0")], DEFAULT_GROUP),
            ("edge-1", "outer", &[("tier", "1"), ("canary", "true")], "tier"),
            ("edge-1", "Inner", &[], DEFAULT_GROUP),
            ("", "", &[], DEFAULT_GROUP),
        ] {
            let metadata = metadata.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect();
            assert_eq!(groups.of(id, cluster, &metadata), group, "{id} {cluster} {metadata:?}");
        }
    }

    #[test]
    fn what_is_not_named_is_everything() {
        let groups = groups();
        let seeing = |name: &str| groups.seeing(&ServiceName::new(name).unwrap()).into_iter().collect::<Vec<_>>();
        assert_eq!(seeing("shop"), ["", "inner", "one", "tier"]);
        assert_eq!(seeing("admin-ui"), ["", "inner", "one"]);
        assert_eq!(seeing("admin"), ["", "one"]);
        let with = |name: &str| groups.with_listener(name).into_iter().collect::<Vec<_>>();
        assert_eq!(with("internal"), ["", "inner", "one", "tier"]);
        assert_eq!(with("web"), ["", "one", "tier"]);
        let shares: Vec<_> = groups.by_services().into_values().collect();
        assert_eq!(shares, [BTreeSet::from(["", "one"]), BTreeSet::from(["tier"]), BTreeSet::from(["inner"])]);
    }
}
