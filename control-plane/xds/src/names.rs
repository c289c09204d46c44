//! Lists of names that several streams ask for in the same words, as the edges of one fleet do: each is kept once, whoever
//! asked for it. A list never changes; what a stream wants beyond it or lets go of is the stream's own.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// From how many names on a list is looked for among those that others have: below, it costs a stream little to keep
/// its own. The tests, whose streams have few, share all they can.
const WORTHWHILE: usize = if cfg!(test) { 1 } else { 64 };

/// Of how many lists one remembers that they have nothing in common with it.
const APART: usize = 8;

/// How many lists are looked through, of each type. One that is pushed out stays with those who have it.
const LISTS: usize = 64;

/// Names in the order in which they were asked for, each once.
#[derive(Debug)]
pub(crate) struct NameList {
    /// No other list of the same [`NameLists`] has or had it.
    id: u64,
    names: Box<[Arc<str>]>,
    /// The hash of each name, and where it stands, in order of the hashes.
    by_hash: Box<[(u32, u32)]>,
    digest: u64,
    bytes: usize,
    /// Lists that are known to have no name with this one in common, by number: the newest of them.
    apart: Mutex<Vec<u64>>,
}

/// The lists that streams have now.
#[derive(Debug, Default)]
pub(crate) struct NameLists(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    last_id: u64,
    lists: Vec<Weak<NameList>>,
}

/// Numbers are compared faster than texts. The lower half is as good as the whole.
pub(crate) fn hash(name: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(name.as_bytes()) as u32
}

impl NameList {
    /// `None` if a name stands there twice.
    fn new(names: Box<[Arc<str>]>, digest: u64) -> Option<Self> {
        let at = |at: usize| u32::try_from(at).ok();
        let by_hash: Option<Box<[_]>> =
            names.iter().enumerate().map(|(nth, name)| Some((hash(name), at(nth)?))).collect();
        let mut by_hash = by_hash?;
        by_hash.sort_unstable();
        let bytes = names.iter().map(|name| name.len()).sum();
        let list = Self { id: 0, names, by_hash, digest, bytes, apart: Mutex::default() };
        // Of two that are the same the second is not found.
        let is_first = |(nth, name): (usize, &Arc<str>)| list.find(hash(name), name) == at(nth);
        list.names.iter().enumerate().all(is_first).then_some(list)
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// How long the names are together.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, at: u32) -> &Arc<str> {
        &self.names[at as usize]
    }

    /// Where a name stands, given its hash.
    pub(crate) fn find(&self, hash: u32, name: &str) -> Option<u32> {
        let first = self.by_hash.partition_point(|(it, _)| *it < hash);
        let same = self.by_hash[first..].iter().take_while(|(it, _)| *it == hash);
        same.map(|(_, at)| *at).find(|at| **self.get(*at) == *name)
    }

    /// Whether the two have no name in common.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        let apart = || self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        if apart().contains(&other.id) {
            return true;
        }
        let is_apart = other.by_hash.iter().all(|(hash, at)| self.find(*hash, other.get(*at)).is_none());
        if is_apart {
            let mut apart = apart();
            if apart.len() == APART {
                apart.remove(0);
            }
            apart.push(other.id);
        }
        is_apart
    }

    fn is_of(&self, names: &[&str]) -> bool {
        self.names.len() == names.len() && self.names.iter().zip(names).all(|(one, other)| **one == **other)
    }
}

impl NameLists {
    /// The list of these names, as another stream has it or made for those to come; `None` if it is not worth it, or if
    /// they are not just names, each once.
    pub(crate) fn share(&self, names: &[&str], intern: impl Fn(&str) -> Arc<str>) -> Option<Arc<NameList>> {
        if names.len() < WORTHWHILE || names.iter().any(|name| name.is_empty() || *name == "*") {
            return None;
        }
        let digest = names.iter().fold(0_u64, |digest, name| {
            (digest.rotate_left(5) ^ xxhash_rust::xxh3::xxh3_64(name.as_bytes())).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        let found = self.shelf().lists.iter().filter_map(Weak::upgrade).find(|list| list.digest == digest);
        if let Some(list) = found {
            // Who has the hash of a list does not have the list.
            return list.is_of(names).then_some(list);
        }
        let mut list = NameList::new(names.iter().map(|name| intern(name)).collect(), digest)?;
        let mut shelf = self.shelf();
        shelf.last_id += 1;
        list.id = shelf.last_id;
        let list = Arc::new(list);
        shelf.lists.retain(|it| it.strong_count() > 0);
        if shelf.lists.len() == LISTS {
            shelf.lists.remove(0);
        }
        shelf.lists.push(Arc::downgrade(&list));
        Some(list)
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_the_same_has_the_same_list() {
        let lists = NameLists::default();
        let share = |names: &[&str]| lists.share(names, |name| Arc::from(name));
        let first = share(&["b", "a", "c"]).unwrap();
        assert!(Arc::ptr_eq(&first, &share(&["b", "a", "c"]).unwrap()));
        assert_ne!(first.id(), share(&["a", "b", "c"]).unwrap().id());
        for (at, name) in (0..).zip(["b", "a", "c"]) {
            assert_eq!((first.find(hash(name), name), &**first.get(at)), (Some(at), name));
        }
        assert_eq!(first.find(hash("d"), "d"), None);
        let id = first.id();
        drop(first);
        assert_ne!(share(&["b", "a", "c"]).unwrap().id(), id, "nobody had it any more");
    }

    #[test]
    fn what_is_more_or_less_than_a_list_of_names_is_not_shared() {
        let lists = NameLists::default();
        for names in [&[][..], &["a", ""], &["a", "*"], &["a", "b", "a"]] {
            assert!(lists.share(names, |name| Arc::from(name)).is_none(), "{names:?}");
        }
    }

    #[test]
    fn lists_that_nobody_has_are_forgotten() {
        let lists = NameLists::default();
        let kept: Vec<_> =
            (0..=LISTS).map(|n| lists.share(&[&n.to_string()], |name| Arc::from(name)).unwrap()).collect();
        assert_eq!(lists.shelf().lists.len(), LISTS);
        drop(kept);
        lists.share(&["a"], |name| Arc::from(name)).unwrap();
        assert_eq!(lists.shelf().lists.len(), 1);
    }

    #[test]
    fn lists_with_a_name_in_common_are_told_from_others_whichever_is_asked() {
        let lists = NameLists::default();
        let share = |names: &[&str]| lists.share(names, |name| Arc::from(name)).unwrap();
        let (one, other, both) = (share(&["a", "b"]), share(&["c", "d", "e"]), share(&["e", "a"]));
        for _ in 0..2 {
            assert!(one.is_apart_from(&other) && other.is_apart_from(&one));
            assert!(!one.is_apart_from(&both) && !both.is_apart_from(&other));
        }
        assert_eq!(*one.apart.lock().unwrap(), [other.id]);
    }
}
