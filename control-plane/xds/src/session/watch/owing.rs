//! The names that a stream is owed, each once and in the order in which they came to be owed. Of a list that it shares with
//! others it only notes how far it has got.

use std::sync::Arc;

use indexmap::IndexSet;

use crate::names::{NameList, hash};
use crate::session::parcel::hash_of;

#[derive(Debug, Default)]
pub(super) struct Owing {
    /// What is left of a list comes first.
    list: Option<Tail>,
    others: IndexSet<Arc<str>, foldhash::fast::RandomState>,
}

/// A list from a place on; never empty.
#[derive(Debug)]
struct Tail {
    list: Arc<NameList>,
    from: usize,
}

/// Which names are owed, as far as it takes to tell whether another stream is owed the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::session) struct OwedKey {
    /// The list, and from where on.
    list: Option<(u64, usize)>,
    /// A hash of where the others are: all are the table's own.
    others: u128,
}

impl Tail {
    fn names(&self) -> &[Arc<str>] {
        &self.list.names()[self.from..]
    }

    fn find(&self, name: &str) -> Option<usize> {
        let at = self.list.find(hash(name), name)?;
        (at as usize).checked_sub(self.from)
    }
}

impl Owing {
    fn of_list(&self) -> &[Arc<str>] {
        self.list.as_ref().map_or(&[], Tail::names)
    }

    pub(super) fn len(&self) -> usize {
        self.of_list().len() + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_none() && self.others.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.of_list().iter().chain(&self.others)
    }

    pub(super) fn get(&self, at: usize) -> Option<&Arc<str>> {
        let of_list = self.of_list();
        of_list.get(at).or_else(|| self.others.get_index(at - of_list.len()))
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let in_list = self.list.as_ref().and_then(|list| list.find(name));
        in_list.or_else(|| Some(self.of_list().len() + self.others.get_index_of(name)?))
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    pub(super) fn key(&self) -> OwedKey {
        let list = self.list.as_ref().map(|tail| (tail.list.id(), tail.from));
        OwedKey { list, others: hash_of(self.others.iter()) }
    }

    pub(super) fn insert(&mut self, name: Arc<str>) {
        if self.list.as_ref().is_none_or(|list| list.find(&name).is_none()) {
            self.others.insert(name);
        }
    }

    pub(super) fn extend(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        names.into_iter().for_each(|name| self.insert(name));
    }

    /// All of a list, beside what is owed already.
    pub(super) fn insert_list(&mut self, list: &Arc<NameList>) {
        if self.is_empty() {
            self.list = Some(Tail { list: Arc::clone(list), from: 0 });
        } else {
            self.extend(list.names().iter().cloned());
        }
    }

    /// Takes names off the front; what is empty keeps no room, for most streams are owed nothing most of the time.
    pub(super) fn drop_front(&mut self, count: usize) {
        if count >= self.len() {
            *self = Self::default();
            return;
        }
        let of_list = self.of_list().len();
        if let Some(tail) = self.list.as_mut().filter(|_| count < of_list) {
            tail.from += count;
        } else {
            self.list = None;
            self.others.drain(..count - of_list);
        }
    }

    /// Takes one name out, and may change the order of the others.
    pub(super) fn take(&mut self, name: &str) -> Option<Arc<str>> {
        self.own_all();
        self.others.swap_take(name)
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(&Arc<str>) -> bool) {
        if !self.of_list().iter().all(&keeps) {
            self.own_all();
        }
        self.others.retain(keeps);
    }

    /// Lets go of the list: its names are like the others.
    fn own_all(&mut self) {
        if let Some(tail) = self.list.take() {
            let others = std::mem::take(&mut self.others);
            self.others.extend(tail.names().iter().cloned());
            self.others.extend(others);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NameLists;

    fn owing(list: &[&str], others: &[&str]) -> Owing {
        let names: Vec<String> = list.iter().copied().map(str::to_owned).collect();
        let mut owing = Owing::default();
        owing.insert_list(&NameLists::default().share(&names, |name| Arc::from(name)).unwrap());
        owing.extend(others.iter().copied().map(Arc::from));
        owing
    }

    fn all(owing: &Owing) -> Vec<&str> {
        let all: Vec<&str> = owing.iter().map(|name| &**name).collect();
        assert_eq!((all.len(), all.is_empty()), (owing.len(), owing.is_empty()));
        for (at, name) in all.iter().enumerate() {
            assert_eq!((owing.get(at).map(|it| &**it), owing.find(name)), (Some(*name), Some(at)));
        }
        assert_eq!(owing.get(all.len()), None);
        all
    }

    #[test]
    fn a_list_and_other_names_are_one_row() {
        for dropped in 0..=5 {
            let mut owing = owing(&["c", "a", "b"], &["d", "a", "e"]);
            assert_eq!(all(&owing), ["c", "a", "b", "d", "e"]);
            owing.drop_front(dropped);
            assert_eq!(all(&owing), ["c", "a", "b", "d", "e"][dropped..]);
        }
        let mut owing = owing(&["c", "a", "b"], &["d"]);
        owing.drop_front(1);
        owing.insert(Arc::from("c"));
        assert_eq!(all(&owing), ["a", "b", "d", "c"], "what was taken off may come again");
    }

    #[test]
    fn a_list_of_which_something_goes_is_a_list_no_more() {
        let mut owing = owing(&["c", "a", "b"], &["d"]);
        owing.drop_front(1);
        owing.retain(|_| true);
        assert!(owing.list.is_some());
        owing.retain(|name| **name != *"d");
        assert_eq!((all(&owing), owing.list.is_some()), (vec!["a", "b"], true));
        assert_eq!(owing.take("a").as_deref(), Some("a"));
        assert_eq!((all(&owing), owing.list.is_some()), (vec!["b"], false));
        owing.retain(|_| false);
        assert!(owing.is_empty());
    }
}
