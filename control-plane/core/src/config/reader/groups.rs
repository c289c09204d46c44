//! `edge.groups`: groups of nodes, and what can be wrong with them.

use std::collections::{BTreeMap, BTreeSet};

use super::super::groups::{NodeGroup, NodeGroups, NodeMatch, ServiceFilter, ServicePattern};
use super::super::tree::Node;
use super::{Listener, Reader};
use crate::{ServiceName, VersionName, suggest};

/// Where they stand.
const GROUPS: &str = "edge.groups";
/// So much of a text is kept of what a node says; a longer one is equal to none.
const MAX_TEXT: usize = 256;

impl Reader<'_> {
    pub(super) fn groups(&mut self, node: &Node, listeners: &[Listener]) -> NodeGroups {
        let mut groups: Vec<NodeGroup> = Vec::new();
        for item in self.items(GROUPS, node) {
            let Some(group) = self.group(item, listeners) else { continue };
            if groups.iter().any(|other| other.name == group.name) {
                let reason = format!("another group before this one is named `{}`", group.name);
                self.report(item.place, &reason, "give each group its own name");
            } else if let Some(first) = groups.iter().find(|other| other.nodes.covers(&group.nodes)) {
                let reason = format!(
                    "no node comes to the group `{}`: `{}` before it takes in every one that it would",
                    group.name, first.name
                );
                let cure = format!("write `{}` before `{}`, or let its nodes differ", group.name, first.name);
                self.report(item.place, &reason, &cure);
            } else {
                groups.push(group);
            }
        }
        NodeGroups::new(groups)
    }

    fn group(&mut self, node: &Node, listeners: &[Listener]) -> Option<NodeGroup> {
        let keys = self.keys(GROUPS, node, &["name", "nodes", "listeners", "services"]);
        let (Some(name), Some(nodes)) = (keys.get("name"), keys.get("nodes")) else {
            let cure = "write { name: inner, nodes: { cluster: inner }, services: [ shop ] }";
            self.report(node.place, "a group needs `name` and `nodes`", cure);
            return None;
        };
        let place = name.place;
        let name = self.text("edge.groups.name", name)?;
        let name = self.name(place, "a group", name, VersionName::new);
        let nodes = self.node_match(nodes);
        let listeners = keys.get("listeners").map(|node| self.listeners_of_group(node, listeners));
        let services = keys.get("services").map(|node| self.services_of_group(node));
        Some(NodeGroup { name: name?.as_str().to_owned(), nodes: nodes?, listeners, services: ServiceFilter(services) })
    }

    fn node_match(&mut self, node: &Node) -> Option<NodeMatch> {
        const NODES: &str = "edge.groups.nodes";
        let before = self.problems.len();
        let keys = self.keys(NODES, node, &["id", "cluster", "metadata"]);
        let mut text = |key: &str| self.said(&format!("{NODES}.{key}"), keys.get(key)?);
        let (id, cluster) = (text("id"), text("cluster"));
        let mut metadata = BTreeMap::new();
        if let Some(node) = keys.get("metadata") {
            for (_, key, node) in self.entries("edge.groups.nodes.metadata", node) {
                let value = self.said(&format!("edge.groups.nodes.metadata.{key}"), node);
                metadata.extend(value.map(|value| (key.clone(), value)));
            }
        }
        if self.problems.len() > before {
            return None;
        }
        if cluster.is_none() && metadata.is_empty() {
            let cure = "add `cluster: NAME`, or `metadata: { KEY: VALUE }`, as the node of the edge has them";
            self.report(node.place, "`edge.groups.nodes` names neither a cluster nor metadata", cure);
            return None;
        }
        Some(NodeMatch { id, cluster, metadata })
    }

    /// What a node can say.
    fn said(&mut self, path: &str, node: &Node) -> Option<String> {
        let text = self.text(path, node)?;
        let reason = match text.len() {
            0 => format!("`{path}` is empty"),
            1..=MAX_TEXT => return Some(text.to_owned()),
            len => format!("`{path}` has {len} bytes, and of what a node says {MAX_TEXT} are kept"),
        };
        self.report(node.place, &reason, "write what the node of the edge has there");
        None
    }

    fn listeners_of_group(&mut self, node: &Node, listeners: &[Listener]) -> BTreeSet<String> {
        let known = || listeners.iter().map(|listener| listener.name.as_str());
        let mut named = BTreeSet::new();
        for item in self.items_of_group("edge.groups.listeners", node) {
            let Some(name) = self.text("edge.groups.listeners", item) else { continue };
            if known().any(|known| known == name) {
                named.insert(name.to_owned());
                continue;
            }
            let cure = suggest::did_you_mean(name, known(), || {
                format!("the listeners are {}", known().collect::<Vec<_>>().join(", "))
            });
            self.report(item.place, &format!("there is no listener {name:?}"), &cure);
        }
        named
    }

    fn services_of_group(&mut self, node: &Node) -> Vec<ServicePattern> {
        let mut patterns = BTreeSet::new();
        for item in self.items_of_group("edge.groups.services", node) {
            let Some(text) = self.text("edge.groups.services", item) else { continue };
            let pattern = match text.strip_suffix('*') {
                Some("") => Ok(ServicePattern::Prefix(String::new())),
                Some(prefix) => {
                    ServiceName::new(prefix).map(|prefix| ServicePattern::Prefix(prefix.as_str().to_owned()))
                }
                None => ServiceName::new(text).map(ServicePattern::Name),
            };
            match pattern {
                Ok(pattern) => {
                    patterns.insert(pattern);
                }
                Err(error) => self.report(
                    item.place,
                    &format!("{text:?} can match no service: {error}"),
                    "write a service's name, or the beginning of one with `*` after it",
                ),
            }
        }
        // In one order, whatever that of the file: groups with the same services share what follows from them.
        patterns.into_iter().collect()
    }

    /// The items of a list that may be left out, but not be empty.
    fn items_of_group<'n>(&mut self, path: &str, node: &'n Node) -> &'n [Node] {
        let before = self.problems.len();
        let items = self.items(path, node);
        if items.is_empty() && self.problems.len() == before {
            self.report(node.place, &format!("`{path}` is empty"), "leave the key out for all of them, or name some");
        }
        items
    }
}
