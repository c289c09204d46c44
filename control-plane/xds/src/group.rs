//! Which clients get which resources: a client says who it is, a caller's function says to which group it belongs. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::node::Node;

/// The name of a group of clients that get the same resources. The default is the group of all clients that no
/// [`Grouping`] puts elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(Arc<str>);

impl Group {
    /// A group of this name; the empty name is the default group's.
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

type Assign = dyn Fn(&Node) -> Group + Send + Sync;

/// How clients are divided into groups.
#[derive(Clone)]
pub struct Grouping {
    groups: BTreeSet<Group>,
    assign: Arc<Assign>,
}

impl Grouping {
    /// These groups beside the default one, and the function that says where a client belongs. A client that is put
    /// into a group that is not among them is in the default one.
    pub fn new(
        groups: impl IntoIterator<Item = Group>,
        assign: impl Fn(&Node) -> Group + Send + Sync + 'static,
    ) -> Self {
        Self {
            groups: groups.into_iter().filter(|group| *group != Group::default()).collect(),
            assign: Arc::new(assign),
        }
    }

    pub(crate) fn groups(&self) -> &BTreeSet<Group> {
        &self.groups
    }

    pub(crate) fn of(&self, node: &Node) -> Group {
        let group = (self.assign)(node);
        if self.groups.contains(&group) { group } else { Group::default() }
    }
}

impl Default for Grouping {
    fn default() -> Self {
        Self { groups: BTreeSet::new(), assign: Arc::new(|_| Group::default()) }
    }
}

impl fmt::Debug for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grouping").field("groups", &self.groups).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_is_not_among_them_is_the_default_one() {
        let grouping = Grouping::new([Group::new("inner")], |node: &Node| Group::new(&node.cluster));
        let node = |cluster: &str| Node { cluster: Arc::from(cluster), ..Node::default() };
        assert_eq!(grouping.of(&node("inner")), Group::new("inner"));
        assert_eq!(grouping.of(&node("other")), Group::default());
    }
}
