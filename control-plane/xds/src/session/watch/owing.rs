//! The names that a stream is owed, each once: those of lists that it shares with others, of which it only notes how far it
//! has got, and then the rest, in the order in which they came to be owed.

use std::collections::VecDeque;
use std::sync::Arc;

use indexmap::IndexSet;
use xxhash_rust::xxh3::Xxh3;

use crate::names::{NameList, hash};

#[derive(Debug, Default)]
pub(super) struct Owing {
    /// What is left of lists comes first.
    lists: VecDeque<Tail>,
    others: IndexSet<Arc<str>, foldhash::fast::RandomState>,
}

/// A list from a place on; never empty.
#[derive(Debug)]
struct Tail {
    list: Arc<NameList>,
    from: usize,
}

impl Tail {
    fn names(&self) -> &[Arc<str>] {
        &self.list.names()[self.from..]
    }

    fn len(&self) -> usize {
        self.names().len()
    }

    fn find(&self, name: &str) -> Option<usize> {
        let at = self.list.find(hash(name), name)?;
        (at as usize).checked_sub(self.from)
    }
}

impl Owing {
    fn of_lists(&self) -> impl Iterator<Item = &Arc<str>> {
        self.lists.iter().flat_map(Tail::names)
    }

    pub(super) fn len(&self) -> usize {
        self.lists.iter().map(Tail::len).sum::<usize>() + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.others.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.of_lists().chain(&self.others)
    }

    pub(super) fn get(&self, mut at: usize) -> Option<&Arc<str>> {
        for tail in &self.lists {
            match at.checked_sub(tail.len()) {
                Some(beyond) => at = beyond,
                None => return tail.names().get(at),
            }
        }
        self.others.get_index(at)
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let mut before = 0;
        for tail in &self.lists {
            if let Some(at) = tail.find(name) {
                return Some(before + at);
            }
            before += tail.len();
        }
        Some(before + self.others.get_index_of(name)?)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A hash of which names these are: of the lists and how far they were gone through, and of where the others are, for
    /// those are the table's own.
    pub(super) fn digest(&self) -> u128 {
        let mut hash = Xxh3::new();
        for tail in &self.lists {
            hash.update(&tail.list.id().to_ne_bytes());
            hash.update(&tail.from.to_ne_bytes());
        }
        hash.update(&self.lists.len().to_ne_bytes());
        for name in &self.others {
            hash.update(&name.as_ptr().addr().to_ne_bytes());
        }
        hash.digest128()
    }

    pub(super) fn insert(&mut self, name: Arc<str>) {
        if self.lists.iter().all(|tail| tail.find(&name).is_none()) {
            self.others.insert(name);
        }
    }

    pub(super) fn extend(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        names.into_iter().for_each(|name| self.insert(name));
    }

    /// All of a list, beside what is owed already.
    pub(super) fn insert_list(&mut self, list: &Arc<NameList>) {
        let is_apart = self.lists.iter().all(|tail| tail.list.is_apart_from(list))
            && self.others.iter().all(|name| list.find(hash(name), name).is_none());
        if is_apart {
            self.lists.push_back(Tail { list: Arc::clone(list), from: 0 });
        } else {
            self.extend(list.names().iter().cloned());
        }
    }

    /// Takes names off the front; what is empty keeps no room, for most streams are owed nothing most of the time.
    pub(super) fn drop_front(&mut self, mut count: usize) {
        if count >= self.len() {
            *self = Self::default();
            return;
        }
        while let Some(tail) = self.lists.front_mut() {
            if count < tail.len() {
                tail.from += count;
                return;
            }
            count -= tail.len();
            self.lists.pop_front();
        }
        self.others.drain(..count);
    }

    /// Takes one name out, and may change the order of the others.
    pub(super) fn take(&mut self, name: &str) -> Option<Arc<str>> {
        self.own_all();
        self.others.swap_take(name)
    }

    pub(super) fn retain(&mut self, keeps: impl Fn(&Arc<str>) -> bool) {
        if !self.of_lists().all(&keeps) {
            self.own_all();
        }
        self.others.retain(keeps);
    }

    /// Lets go of the lists: their names are like the others.
    fn own_all(&mut self) {
        if !self.lists.is_empty() {
            let others = std::mem::take(&mut self.others);
            let lists = std::mem::take(&mut self.lists);
            self.others.extend(lists.iter().flat_map(Tail::names).cloned());
            self.others.extend(others);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NameLists;

    fn owing(lists: &[&[&str]], others: &[&str]) -> Owing {
        let shelf = NameLists::default();
        let mut owing = Owing::default();
        for list in lists {
            owing.insert_list(&shelf.share(list, |name| Arc::from(name)).unwrap());
        }
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
    fn lists_and_other_names_are_one_row() {
        let row = ["c", "a", "b", "f", "g", "d", "e"];
        for dropped in 0..=row.len() {
            let mut owing = owing(&[&["c", "a", "b"], &["f", "g"]], &["d", "a", "e", "g"]);
            assert_eq!(all(&owing), row);
            owing.drop_front(dropped);
            assert_eq!(all(&owing), row[dropped..]);
        }
        let mut owing = owing(&[&["c", "a", "b"]], &["d"]);
        owing.drop_front(1);
        owing.insert(Arc::from("c"));
        assert_eq!(all(&owing), ["a", "b", "d", "c"], "what was taken off may come again");
    }

    #[test]
    fn a_list_with_a_name_that_is_owed_already_brings_the_others() {
        assert_eq!(all(&owing(&[&["c", "a"], &["b", "a"]], &[])), ["c", "a", "b"]);
        let mut owing = owing(&[], &["d", "a"]);
        owing.insert_list(&NameLists::default().share(&["b", "a"], |name| Arc::from(name)).unwrap());
        assert_eq!(all(&owing), ["d", "a", "b"]);
    }

    #[test]
    fn a_list_of_which_something_goes_is_a_list_no_more() {
        let mut owing = owing(&[&["c", "a", "b"]], &["d"]);
        owing.drop_front(1);
        owing.retain(|_| true);
        assert_eq!(owing.lists.len(), 1);
        owing.retain(|name| **name != *"d");
        assert_eq!((all(&owing), owing.lists.len()), (vec!["a", "b"], 1));
        assert_eq!(owing.take("a").as_deref(), Some("a"));
        assert_eq!((all(&owing), owing.lists.len()), (vec!["b"], 0));
        owing.retain(|_| false);
        assert!(owing.is_empty());
    }

    #[test]
    fn what_is_owed_is_told_from_what_another_stream_is_owed() {
        let shelf = NameLists::default();
        let lists = [&["a", "b"][..], &["c"]].map(|names| shelf.share(names, |name| Arc::from(name)).unwrap());
        let other: Arc<str> = Arc::from("d");
        let mut digests = Vec::new();
        for (of_lists, dropped, others) in
            [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 0, 0), (2, 1, 0), (2, 2, 0), (0, 0, 1), (1, 0, 1), (2, 2, 1)]
        {
            let mut owing = Owing::default();
            lists[..of_lists].iter().for_each(|list| owing.insert_list(list));
            owing.extend(std::iter::repeat_n(Arc::clone(&other), others));
            owing.drop_front(dropped);
            digests.push(owing.digest());
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 9);
    }
}
