//! Who gets what: which groups of nodes a change is for, and what each group has of a resource that is not the same for all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::NodeGroups;

/// The groups of nodes that a change is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All of them.
    Everyone,
    /// These, by name; [`DEFAULT_GROUP`](crate::config::DEFAULT_GROUP) may be among them.
    Groups(BTreeSet<String>),
}

impl Audience {
    /// `None` if nobody is among them.
    pub(super) fn of(some: &BTreeSet<&str>, all: &NodeGroups) -> Option<Self> {
        if some.is_empty() {
            return None;
        }
        let everyone = some.len() == all.iter().count() + 1;
        let named = || Self::Groups(some.iter().map(|name| (*name).to_owned()).collect());
        Some(if everyone { Self::Everyone } else { named() })
    }
}

/// Who had something before a round, and who is to have it now. Groups that are gone are in neither.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    had: BTreeSet<&'a str>,
    has: BTreeSet<&'a str>,
    groups: &'a NodeGroups,
}

impl<'a> Turn<'a> {
    /// `groups` are all that there are now.
    pub(super) fn new(had: BTreeSet<&'a str>, has: BTreeSet<&'a str>, groups: &'a NodeGroups) -> Self {
        let there_are = groups.names();
        Self { had: had.into_iter().filter(|name| there_are.contains(name)).collect(), has, groups }
    }

    pub(super) fn is_of_the_same(&self) -> bool {
        self.had == self.has
    }

    /// Who has it now and had not; nobody had it if it is `new`.
    pub(super) fn gained(&self, new: bool) -> BTreeSet<&'a str> {
        if new { self.has.clone() } else { &self.has - &self.had }
    }

    /// Who is to be given something that may have changed.
    pub(super) fn given(&self, changed: bool) -> Option<Audience> {
        Audience::of(&self.gained(changed), self.groups)
    }

    /// From whom something is to be taken that may be gone for all.
    pub(super) fn taken(&self, gone: bool) -> Option<Audience> {
        let lost = if gone { self.had.clone() } else { &self.had - &self.has };
        Audience::of(&lost, self.groups)
    }
}

/// What each group has of a resource that depends on which services it sees.
#[derive(Debug)]
pub(super) struct PerGroup<T>(BTreeMap<String, Arc<T>>);

impl<T> Default for PerGroup<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: PartialEq> PerGroup<T> {
    pub(super) fn retain(&mut self, groups: &NodeGroups) {
        let there_are = groups.names();
        self.0.retain(|name, _| there_are.contains(name.as_str()));
    }

    /// Gives these groups this; returns those that had something else.
    pub(super) fn give<'a>(&mut self, groups: &BTreeSet<&'a str>, content: T) -> (Arc<T>, BTreeSet<&'a str>) {
        let content = Arc::new(content);
        let differs = |name: &&str| self.0.get(*name).is_none_or(|had| **had != *content);
        let changed: BTreeSet<&str> = groups.iter().copied().filter(differs).collect();
        self.0.extend(changed.iter().map(|name| ((*name).to_owned(), Arc::clone(&content))));
        (content, changed)
    }
}
