//! The timeline: what happened to each instance, why, and what the edges said of it. An entry is written when a round of deriving
//! is committed; where that changed something at the edges, a second one follows when all edges that see the service have
//! acknowledged it, or after [`AWAITED`] with the number of those that have. Nothing is written that was not observed.
//!
//! Memory is bounded by count and by size, overall and for each container, so that one that never rests does not push out what
//! is known of the others. Pure: told the time of everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::instance::{Hint, InstanceId, is_entry, noun, short_id};
use crate::problem::printable;
use crate::{ServiceName, Timestamp, VersionName};

/// Entries that are kept.
const MOST: usize = 8_192;
/// Bytes that they take, roughly.
const MOST_BYTES: usize = 4 << 20;
/// Entries that are kept of one container.
const MOST_OF_ONE: usize = 64;
/// Changes whose acknowledgement is awaited at once; those of a first sync with more are not followed.
const MOST_OPEN: usize = 1_024;
/// Longer texts are cut off.
const MOST_TEXT: usize = 512;
/// How long acknowledgements are awaited.
pub const AWAITED: Duration = Duration::from_secs(2);

/// One thing that happened. Keys may be added, never renamed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Counts up from 1 with the control plane's start.
    pub id: u64,
    /// When it was seen.
    pub at: Timestamp,
    /// The name of the container or entry.
    pub container: String,
    /// The id of it, twelve characters of a container's.
    pub container_id: String,
    /// Service.
    pub service: String,
    /// Version.
    pub version: String,
    /// Where the instance listens.
    pub address: String,
    /// What made it happen; `None`: only time passed, or edges answered.
    pub cause: Option<Cause>,
    /// What happened.
    pub what: What,
    /// Why, in words.
    pub detail: String,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The commit that told the edges; `None`: it changed nothing there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Whether an entry will follow that says what the edges answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaited: bool,
    /// The entry that this one follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<u64>,
    /// Who has acknowledged it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<Edges>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// It is there, and not ready yet.
    Discovered,
    /// It gets requests.
    Ready,
    /// It gets none.
    NotReady,
    /// It was told to stop, or an operator drains it: it gets no new ones.
    Draining,
    /// It waits until nobody takes its address for another's.
    HeldBack,
    /// It falls too often.
    Damped,
    /// That run is over.
    Gone,
    /// The edges answered, or did not.
    Accepted,
}

/// What made something happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// `docker kill SIGTERM`, `check`, `tidegate drain`, `tidegate.yaml`.
    pub what: String,
    /// When that was seen.
    pub at: Timestamp,
}

/// How many edges have acknowledged a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edges {
    /// So many have.
    pub accepted: usize,
    /// So many that see the service are connected.
    pub of: usize,
}

/// A connected edge, and the change up to which it has accepted all that concerns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeProgress {
    /// Its node's id; a node with several streams is one edge.
    pub node: String,
    /// Its group.
    pub group: String,
    /// That change.
    pub accepted: u64,
}

/// What is to be written of one instance when its round is committed.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: InstanceId,
    pub(crate) container: String,
    pub(crate) service: ServiceName,
    pub(crate) version: VersionName,
    pub(crate) cause: Option<Cause>,
    pub(crate) what: What,
    pub(crate) detail: String,
    pub(crate) until: Option<Timestamp>,
    /// Whether edges are told.
    pub(crate) published: bool,
}

/// The newest entries.
#[derive(Debug, Default)]
pub struct Journal {
    entries: BTreeMap<u64, Kept>,
    of_container: BTreeMap<String, VecDeque<u64>>,
    bytes: usize,
    last: u64,
    pending: Vec<(Timestamp, Event)>,
    open: BTreeMap<u64, Vec<Open>>,
    opened: usize,
}

#[derive(Debug)]
struct Kept {
    /// The full id.
    container: String,
    entry: Entry,
}

/// A change that edges have not all acknowledged.
#[derive(Debug)]
struct Open {
    container: String,
    entry: u64,
    /// Of the first entry, for the one that follows.
    about: Entry,
    service: ServiceName,
    until: Timestamp,
    seen: Edges,
}

impl Cause {
    /// What a provider's hint says.
    pub(crate) fn of(hint: &Hint, id: &str) -> Self {
        let what = if is_entry(id) { hint.action.clone() } else { format!("docker {}", hint.action) };
        Self { what, at: hint.at }
    }

    /// An operator's command.
    pub(crate) fn operator(command: &str, at: Timestamp) -> Self {
        Self { what: format!("tidegate {command}"), at }
    }

    pub(crate) fn check(at: Timestamp) -> Self {
        Self { what: "check".to_owned(), at }
    }
}

impl Journal {
    /// Something happened in this round.
    pub(crate) fn note(&mut self, event: Event, now: Timestamp) {
        self.pending.push((now, event));
    }

    /// The round is over, and is in this commit; `None`: it changed nothing at the edges.
    pub(crate) fn committed(&mut self, sequence: Option<u64>, now: Timestamp) {
        for (at, event) in std::mem::take(&mut self.pending) {
            let sequence = sequence.filter(|_| event.published);
            let awaited = sequence.filter(|_| self.opened < MOST_OPEN);
            let Event { id, container, service, version, cause, what, detail, until, published: _ } = event;
            let entry = Entry {
                id: 0,
                at,
                container: text(&container),
                container_id: text(short_id(&id.container)),
                service: service.to_string(),
                version: version.to_string(),
                address: id.address.to_string(),
                cause: cause.map(|cause| Cause { what: text(&cause.what), at: cause.at }),
                what,
                detail: text(&detail),
                until,
                sequence,
                awaited: awaited.is_some(),
                follows: None,
                edges: None,
            };
            let number = self.write(id.container.clone(), entry.clone());
            if let Some(sequence) = awaited {
                let about = Entry { sequence: Some(sequence), ..entry };
                let seen = Edges { accepted: 0, of: 0 };
                let until = now.after(AWAITED);
                let open = Open { container: id.container, entry: number, about, service, until, seen };
                self.open.entry(sequence).or_default().push(open);
                self.opened += 1;
            }
        }
    }

    /// What the connected edges have accepted, seen `at` a moment at which `sequence` was the newest commit. `sees` says whether
    /// the edges of a group see a service.
    pub(crate) fn accepted(
        &mut self,
        edges: &[EdgeProgress],
        sequence: u64,
        sees: impl Fn(&str, &ServiceName) -> bool,
        at: Timestamp,
    ) {
        let committed: Vec<u64> = self.open.range(..=sequence).map(|(sequence, _)| *sequence).collect();
        for commit in committed {
            let Some(all) = self.open.remove(&commit) else { continue };
            let mut left = Vec::new();
            for mut open in all {
                let seeing = || edges.iter().filter(|edge| sees(&edge.group, &open.service));
                // A node that has several streams has accepted it when all of them have.
                let behind: BTreeSet<&str> =
                    seeing().filter(|edge| edge.accepted < commit).map(|edge| edge.node.as_str()).collect();
                let nodes: BTreeSet<&str> = seeing().map(|edge| edge.node.as_str()).collect();
                open.seen = Edges { accepted: nodes.len() - behind.len(), of: nodes.len() };
                if behind.is_empty() {
                    self.close(open, at);
                } else {
                    left.push(open);
                }
            }
            if !left.is_empty() {
                self.open.insert(commit, left);
            }
        }
    }

    /// Gives up on what has been awaited long enough.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        while self.deadline().is_some_and(|until| until <= now) {
            let Some((_, all)) = self.open.pop_first() else { return };
            for open in all {
                self.close(open, now);
            }
        }
    }

    /// When [`Self::expire`] has something to do although nothing happened: commits are in the order of time.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.open.first_key_value()?.1.first().map(|open| open.until)
    }

    fn close(&mut self, open: Open, at: Timestamp) {
        self.opened -= 1;
        let Open { container, entry, about, seen, .. } = open;
        let detail = match seen {
            Edges { of: 0, .. } => "no edge is connected that sees it".to_owned(),
            Edges { accepted, of } if accepted < of => {
                format!("{} of {of} edge(s) have not answered within {} s", of - accepted, AWAITED.as_secs())
            }
            Edges { .. } => String::new(),
        };
        let entry = Entry {
            at,
            what: What::Accepted,
            detail,
            until: None,
            awaited: false,
            follows: Some(entry),
            edges: Some(seen),
            ..about
        };
        self.write(container, entry);
    }

    fn write(&mut self, container: String, entry: Entry) -> u64 {
        self.last += 1;
        let entry = Entry { id: self.last, ..entry };
        self.bytes += size(&entry);
        let own = self.of_container.entry(container.clone()).or_default();
        own.push_back(entry.id);
        let surplus = if own.len() > MOST_OF_ONE { own.front().copied() } else { None };
        self.entries.insert(entry.id, Kept { container, entry });
        if let Some(id) = surplus {
            self.drop(id);
        }
        while self.entries.len() > MOST || self.bytes > MOST_BYTES {
            let Some(id) = self.entries.first_key_value().map(|(id, _)| *id) else { break };
            self.drop(id);
        }
        self.last
    }

    fn drop(&mut self, id: u64) {
        let Some(Kept { container, entry }) = self.entries.remove(&id) else { return };
        self.bytes -= size(&entry);
        if let Some(own) = self.of_container.get_mut(&container) {
            // The oldest overall is the oldest of its container, too.
            own.pop_front();
            if own.is_empty() {
                self.of_container.remove(&container);
            }
        }
    }

    /// The number of the newest entry; 0: there is none.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The entries after the one with this number, oldest first.
    pub fn after(&self, id: u64) -> impl Iterator<Item = &Entry> {
        self.entries.range(id.saturating_add(1)..).map(|(_, kept)| &kept.entry)
    }

    /// How many entries after the one with this number have been dropped for want of room, those before `until` counted.
    #[must_use]
    pub fn missed(&self, id: u64, until: u64) -> u64 {
        let between = until.saturating_sub(id).saturating_sub(1);
        let kept = self.entries.range(id.saturating_add(1)..until.max(id.saturating_add(1))).count();
        between.saturating_sub(u64::try_from(kept).unwrap_or(u64::MAX))
    }

    /// The newest entries of a container by its full id, oldest first.
    #[must_use]
    pub fn newest_of(&self, container: &str, count: usize) -> Vec<&Entry> {
        let own = self.of_container.get(container).into_iter().flatten().rev().take(count);
        let mut newest: Vec<&Entry> = own.filter_map(|id| self.entries.get(id)).map(|kept| &kept.entry).collect();
        newest.reverse();
        newest
    }
}

impl Entry {
    /// Whether it is about a service, or a container by its name or the beginning of its id.
    #[must_use]
    pub fn is_about(&self, subject: &str) -> bool {
        !subject.is_empty()
            && (self.service == subject
                || self.container == subject
                || self.container_id.starts_with(subject)
                || subject.starts_with(&self.container_id))
    }

    /// How it names its container or entry.
    #[must_use]
    pub fn subject(&self) -> String {
        if self.container == self.container_id {
            return format!("entry {}", self.container);
        }
        format!("{} {} ({})", noun(&self.container_id), self.container, self.container_id)
    }
}

/// Fit for a terminal, and not too long.
fn text(from: &str) -> String {
    let end = from.char_indices().nth(MOST_TEXT).map_or(from.len(), |(end, _)| end);
    let text = printable(&from[..end]).replace('\n', " ");
    if end < from.len() { format!("{text}…") } else { text }
}

/// What an entry takes, roughly.
fn size(entry: &Entry) -> usize {
    let Entry { container, container_id, service, version, address, cause, detail, .. } = entry;
    let texts = [container, container_id, service, version, address, detail].map(String::len).iter().sum::<usize>();
    let cause = cause.as_ref().map_or(0, |cause| cause.what.len());
    size_of::<Kept>() + texts + cause + 64
}

#[cfg(test)]
mod tests;
