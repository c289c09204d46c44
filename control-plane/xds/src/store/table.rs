//! What is published, by type and name, and in which order it changed. Pure: no lock, no clock, no stream. A change
//! costs what changed; "what is new since N" costs what is new since N.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::commit::{Change, Changes, Encoded};
use crate::names::{NameList, NameLists};
use crate::resource::{Digest, PerType, ResourceType, Version};
use crate::session::Parcels;

/// The number of the empty store: not 0, which means "nothing yet" for a stream.
pub(crate) const EMPTY: u64 = 1;

/// All tables and the one counter of changes.
#[derive(Debug)]
pub(crate) struct Tables {
    /// The number of the last change. Every change of a resource takes the next number.
    sequence: u64,
    tables: PerType<Table>,
}

/// What a commit changed.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    pub(crate) sequence: u64,
    pub(crate) changed: Vec<(ResourceType, Arc<str>)>,
}

/// Faster than the standard one; only the committer can put names in.
type Hasher = foldhash::fast::RandomState;

/// The published resources of one type.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<Arc<str>, Entry, Hasher>,
    /// The name that each change made newest. An entry stands here once, under its newest change.
    by_sequence: BTreeMap<u64, Arc<str>>,
    /// Withdrawn names by the number of their withdrawal, until every stream is past it.
    tombstones: BTreeMap<u64, Tombstone>,
    withdrawn: HashMap<Arc<str>, u64, Hasher>,
    last_upsert: u64,
    last_removal: u64,
    /// The last change that must not wait for more: every removal, and what an urgent commit brought.
    last_urgent: u64,
    /// All that is published, and what it was after the last changes, newest last: so that a client that comes back with
    /// the version of the whole is known to have had just that. Kept for the types that are sent whole.
    digest: Digest,
    states: VecDeque<(Version, u64)>,
    /// What streams share of responses; the streams' own business.
    parcels: Parcels,
    lists: NameLists,
}

/// How many earlier states are known by their version: 16 bytes each.
const MAX_STATES: usize = 1024;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) sequence: u64,
    /// A stream may get this once it has confirmed the clusters up to this number; 0: at once.
    pub(crate) after: u64,
    pub(crate) committed: Duration,
    pub(crate) encoded: Encoded,
    /// Earlier versions that went to any client, newest first, down to the first that one accepted: each once, and at most
    /// [`MAX_PAST`].
    past: Vec<Past>,
}

/// An earlier version of a resource.
#[derive(Debug)]
struct Past {
    encoded: Encoded,
    /// The name was withdrawn since: some streams may not have seen that, but nobody is to get this any more.
    is_gone: bool,
}

/// How many of the last withdrawals are kept of the types that are sent whole.
const KEPT_TOMBSTONES: usize = 256;

/// How many versions that nobody has accepted yet are remembered before the last accepted one is. A client that is late
/// with its answers must not make it forgotten.
const MAX_PAST: usize = 8;

impl Entry {
    pub(crate) fn version(&self) -> Version {
        self.encoded.version
    }

    /// The last version but the newest that some client accepted.
    pub(crate) fn fallback(&self) -> Option<&Encoded> {
        self.past.iter().filter(|past| !past.is_gone).map(|past| &past.encoded).find(|it| it.standing.is_accepted())
    }

    /// Whether a client that was told everything as of this number may have it, or a version before it.
    pub(crate) fn may_be_held(&self, told: u64) -> bool {
        self.sequence <= told || !self.past.is_empty()
    }

    /// The last version that some client accepted.
    pub(crate) fn last_accepted(&self) -> Option<&Encoded> {
        let past = self.past.iter().map(|past| &past.encoded);
        std::iter::once(&self.encoded).chain(past).find(|it| it.standing.is_accepted())
    }

    /// What a client gets that has none yet: the newest version, but while that one is refused by some client and
    /// accepted by none, the last accepted one.
    pub(crate) fn offered(&self) -> &Encoded {
        let fallback = if self.encoded.standing.is_quarantined() { self.fallback() } else { None };
        fallback.unwrap_or(&self.encoded)
    }

    /// What the next version has to remember.
    fn into_past(mut self) -> Vec<Past> {
        let replaced = Past { encoded: self.encoded, is_gone: false };
        if replaced.encoded.standing.is_accepted() {
            return vec![replaced];
        }
        if let Some(accepted) = self.past.iter().position(|past| past.encoded.standing.is_accepted()) {
            self.past.truncate(accepted + 1);
        }
        self.past.retain(|past| past.encoded.version != replaced.encoded.version);
        if replaced.encoded.standing.is_sent() {
            self.past.insert(0, replaced);
        }
        if self.past.len() > MAX_PAST {
            // The oldest is the accepted one, if any is.
            self.past.remove(MAX_PAST - 1);
        }
        self.past
    }
}

#[derive(Debug)]
pub(crate) struct Tombstone {
    pub(crate) name: Arc<str>,
    /// A stream may lose this once it has confirmed the referring types up to this number; 0: at once.
    pub(crate) after: u64,
    /// What was withdrawn: a response that has to be whole holds it until it may go.
    pub(crate) entry: Entry,
}

impl Default for Tables {
    fn default() -> Self {
        Self { sequence: EMPTY, tables: PerType::default() }
    }
}

impl Tables {
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(crate) fn table(&self, resource_type: ResourceType) -> &Table {
        &self.tables[resource_type]
    }

    /// Applies a commit. Upserts take their numbers before removals and in order of delivery, so a route's number is
    /// above those of the clusters it came with, and a cluster's removal above that of the route that let go of it.
    pub(crate) fn apply(&mut self, changes: Changes, now: Duration) -> Applied {
        let Changes { changes, urgent } = changes;
        let mut changed = Vec::new();
        let mut removals = Vec::new();
        let clusters_before = self.tables[ResourceType::Cluster].last_upsert;
        for ((resource_type, name), change) in changes {
            let Change::Upsert(encoded) = change else {
                removals.push((resource_type, name));
                continue;
            };
            let clusters = self.tables[ResourceType::Cluster].last_upsert;
            let after = match resource_type {
                ResourceType::Cluster | ResourceType::Endpoint => 0,
                // A route may name a cluster of any earlier commit that is still on its way.
                ResourceType::Listener | ResourceType::Route => clusters,
                // These name clusters only through routes: alone they go straight out.
                ResourceType::ExtensionConfig | ResourceType::Runtime if clusters == clusters_before => 0,
                ResourceType::ExtensionConfig | ResourceType::Runtime => clusters,
            };
            let table = &mut self.tables[resource_type];
            if table.holds(&name, &encoded) {
                continue;
            }
            self.sequence += 1;
            if urgent {
                table.last_urgent = self.sequence;
            }
            let name = table.upsert(self.sequence, name, encoded, after, now);
            changed.push((resource_type, name));
        }
        // A stream may say the whole with what is still to be removed.
        self.note_states();

        removals.sort_by_key(|(resource_type, _)| (removal_rank(*resource_type), *resource_type));
        for (resource_type, name) in removals {
            let after = match resource_type {
                ResourceType::Listener | ResourceType::Runtime => 0,
                ResourceType::Route | ResourceType::ExtensionConfig => self.last_change(ResourceType::Listener),
                ResourceType::Cluster => {
                    self.last_change(ResourceType::Listener).max(self.last_change(ResourceType::Route))
                }
                ResourceType::Endpoint => self.tables[ResourceType::Cluster].last_removal,
            };
            if let Some(name) = self.tables[resource_type].remove(self.sequence + 1, &name, after) {
                self.sequence += 1;
                changed.push((resource_type, name));
            }
        }
        self.note_states();
        if !changed.is_empty() {
            self.tables.iter().for_each(|(_, table)| table.parcels.let_go());
        }
        Applied { sequence: self.sequence, changed }
    }

    fn note_states(&mut self) {
        for resource_type in ResourceType::ALL.into_iter().filter(|it| it.is_sent_whole()) {
            self.tables[resource_type].note_state(self.sequence);
        }
    }

    /// Goes on counting from a number that is not below the own: groups count together.
    pub(crate) fn catch_up(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Forgets withdrawals that every stream is past, but for the last ones: a client that comes back may still need
    /// what went meanwhile.
    pub(crate) fn forget_tombstones(&mut self, resource_type: ResourceType, upto: u64) {
        let table = &mut self.tables[resource_type];
        let spared = if resource_type.is_sent_whole() { KEPT_TOMBSTONES } else { 0 };
        let Some(last) = table.tombstones.keys().nth_back(spared) else { return };
        let upto = upto.min(*last);
        let kept = table.tombstones.split_off(&(upto.saturating_add(1)));
        for tombstone in std::mem::replace(&mut table.tombstones, kept).into_values() {
            table.withdrawn.remove(&tombstone.name);
        }
    }

    fn last_change(&self, resource_type: ResourceType) -> u64 {
        let table = &self.tables[resource_type];
        table.last_upsert.max(table.last_removal)
    }
}

impl Table {
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The same with the name as the table holds it.
    pub(crate) fn get_with_name(&self, name: &str) -> Option<(&Arc<str>, &Entry)> {
        self.entries.get_key_value(name)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Every published name.
    pub(crate) fn names(&self) -> BTreeSet<Arc<str>> {
        self.entries.keys().cloned().collect()
    }

    /// The number of the last change that published something.
    pub(crate) fn last_upsert(&self) -> u64 {
        self.last_upsert
    }

    /// The number of the last withdrawal.
    pub(crate) fn last_removal(&self) -> u64 {
        self.last_removal
    }

    pub(crate) fn parcels(&self) -> &Parcels {
        &self.parcels
    }

    /// The number of the last change that must not wait for more.
    pub(crate) fn last_urgent(&self) -> u64 {
        self.last_urgent
    }

    /// Everything published, in no order, as a client gets it that has nothing yet.
    pub(crate) fn published(&self) -> impl Iterator<Item = (&Arc<str>, &Encoded)> {
        self.entries.iter().map(|(name, entry)| (name, entry.offered()))
    }

    /// The name as the table holds it, so that streams share its memory.
    pub(crate) fn intern(&self, name: &str) -> Arc<str> {
        self.entries.get_key_value(name).map_or_else(|| Arc::from(name), |(held, _)| Arc::clone(held))
    }

    /// The list of these names, if streams share it.
    pub(crate) fn share(&self, names: &[&str]) -> Option<Arc<NameList>> {
        self.lists.share(names, |name| self.intern(name))
    }

    /// What changed after a number, in order.
    pub(crate) fn changes_after(&self, sequence: u64) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        self.by_sequence
            .range(sequence.saturating_add(1)..)
            .filter_map(|(_, name)| self.entries.get(name).map(|entry| (name, entry)))
    }

    /// What was withdrawn after a number, in order.
    pub(crate) fn removals_after(&self, sequence: u64) -> impl Iterator<Item = (u64, &Tombstone)> {
        self.tombstones.range(sequence.saturating_add(1)..).map(|(sequence, tombstone)| (*sequence, tombstone))
    }

    /// The number of the withdrawal of a name that is not published, as long as some stream needs it.
    pub(crate) fn withdrawal(&self, name: &str) -> Option<u64> {
        self.withdrawn.get(name).copied()
    }

    fn note_state(&mut self, sequence: u64) {
        let version = self.digest.version();
        if self.states.back().is_some_and(|(last, _)| *last == version) {
            return;
        }
        if self.states.len() == MAX_STATES {
            self.states.pop_front();
        }
        self.states.push_back((version, sequence));
    }

    /// The last change after which all that was published had this version, if that is known.
    pub(crate) fn state(&self, version: &str) -> Option<u64> {
        let version = Version::parse(version)?;
        self.states.iter().rev().find(|(state, _)| *state == version).map(|(_, sequence)| *sequence)
    }

    fn holds(&self, name: &str, encoded: &Encoded) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.encoded.says_the_same_as(encoded))
    }

    fn upsert(&mut self, sequence: u64, name: Arc<str>, encoded: Encoded, after: u64, now: Duration) -> Arc<str> {
        let name = self.entries.get_key_value(&name).map_or(name, |(held, _)| Arc::clone(held));
        let mut entry = Entry { sequence, after, committed: now, encoded, past: Vec::new() };
        if let Some(tombstone) = self.withdrawn.remove(&name).and_then(|it| self.tombstones.remove(&it)) {
            // Some streams have not seen it go.
            entry.past = tombstone.entry.into_past();
            entry.past.iter_mut().for_each(|past| past.is_gone = true);
        }
        if let Some(replaced) = self.entries.remove(&name) {
            self.by_sequence.remove(&replaced.sequence);
            self.digest.remove(&name, replaced.version());
            // What the replaced content waited for, this waits for too: it may still name the same clusters.
            entry.after = after.max(replaced.after);
            entry.past = replaced.into_past();
        }
        if let Some(same) = entry.past.iter().find(|past| past.encoded.version == entry.encoded.version) {
            // It has been here before, and what is known of it still holds.
            entry.encoded.standing = Arc::clone(&same.encoded.standing);
        }
        self.digest.insert(&name, entry.version());
        self.entries.insert(Arc::clone(&name), entry);
        self.by_sequence.insert(sequence, Arc::clone(&name));
        self.last_upsert = sequence;
        name
    }

    fn remove(&mut self, sequence: u64, name: &str, after: u64) -> Option<Arc<str>> {
        let (name, entry) = self.entries.remove_entry(name)?;
        self.by_sequence.remove(&entry.sequence);
        self.digest.remove(&name, entry.version());
        self.tombstones.insert(sequence, Tombstone { name: Arc::clone(&name), after, entry });
        self.withdrawn.insert(Arc::clone(&name), sequence);
        self.last_removal = sequence;
        self.last_urgent = sequence;
        Some(name)
    }
}

/// Referring types let go before what they refer to.
fn removal_rank(resource_type: ResourceType) -> u8 {
    match resource_type {
        ResourceType::Cluster => 1,
        ResourceType::Endpoint => 2,
        _ => 0,
    }
}
