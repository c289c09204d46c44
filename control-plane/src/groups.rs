//! Groups of nodes, from the configuration's words to the xDS store's. Who belongs where is decided by the configuration; nothing
//! here decides anything.

use tidegate_core::compile::Audience;
use tidegate_core::config::{DEFAULT_GROUP, NodeGroups};
use tidegate_xds::{Commit, Group, Grouping, Node, Store};

/// The store's grouping by the configuration's groups.
pub(crate) fn grouping(groups: &NodeGroups) -> Grouping {
    let names: Vec<Group> = groups.names().into_iter().map(Group::new).collect();
    let groups = groups.clone();
    Grouping::new(names, move |node: &Node| Group::new(groups.of(&node.id, &node.cluster, &node.metadata)))
}

/// Puts them in force before anything is published. The compiler's first round says them again, which changes nothing.
pub(crate) fn put_in_force(groups: &NodeGroups, store: &Store) {
    let mut commit = Commit::default();
    commit.regroup(grouping(groups));
    store.commit(commit);
}

/// The groups that something is for; `None`: all.
pub(crate) fn audience(audience: &Audience) -> Option<Vec<Group>> {
    match audience {
        Audience::Everyone => None,
        Audience::Groups(names) => Some(names.iter().map(|name| Group::new(name)).collect()),
    }
}

/// A group's name, for people and programs; `None` for the default one.
pub(crate) fn shown(group: &Group) -> Option<String> {
    (group.name() != DEFAULT_GROUP).then(|| group.name().to_owned())
}
