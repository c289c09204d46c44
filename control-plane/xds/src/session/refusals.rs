//! Which versions a client has refused, so that none of them is sent to it again. Pure and bounded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::commit::Encoded;
use crate::resource::Version;
use crate::store::table::Entry;

/// How many names are remembered; one that is pushed out would be tried once more. Far above what a sound committer
/// causes, and a bound on what a client that refuses everything can make the server keep.
const MAX_NAMES: usize = 4096;
/// How many versions of one name: the newest and those that it may fall back to.
const MAX_VERSIONS: usize = 5;

/// A version that a client refused.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) version: Version,
    /// The client's words.
    pub(super) message: Arc<str>,
    pub(super) at: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Arc<str>, Vec<Refusal>>);

impl Refusals {
    pub(super) fn insert(&mut self, name: Arc<str>, refusal: Refusal) {
        let of_name = self.0.entry(name).or_default();
        of_name.retain(|it| it.version != refusal.version);
        if of_name.len() == MAX_VERSIONS {
            of_name.remove(0);
        }
        of_name.push(refusal);
        if self.0.len() > MAX_NAMES {
            let last_of = |of_name: &[Refusal]| of_name.last().map(|it| it.at);
            let oldest = self.0.iter().min_by_key(|(_, of_name)| last_of(of_name)).map(|(name, _)| Arc::clone(name));
            if let Some(oldest) = oldest {
                self.0.remove(&oldest);
            }
        }
    }

    /// The refusal of this version, if it was refused.
    pub(super) fn get(&self, name: &str, version: Version) -> Option<&Refusal> {
        self.0.get(name)?.iter().find(|it| it.version == version)
    }

    pub(super) fn contains(&self, name: &str, version: Version) -> bool {
        !self.0.is_empty() && self.get(name, version).is_some()
    }

    /// The version that a client gets which refuses the newest: the last accepted one, unless it refuses that, too.
    pub(super) fn fallback<'a>(&self, name: &str, entry: &'a Entry) -> Option<&'a Encoded> {
        entry.fallback().filter(|fallback| !self.contains(name, fallback.version))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.0.keys()
    }
}
