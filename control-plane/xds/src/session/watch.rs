//! One type of resource on one stream: what was asked, how far it has been served, what is in flight, what was refused. It
//! holds cursors into the store's numbering, not a list of what the client has; the only names it keeps are those still owed,
//! in flight or refused. Which type may speak when is the session's business; it arrives here as [`Gates`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::commit::field_len;
use crate::resource::{ResourceType, Version};
use crate::session::Limits;
use crate::session::acks::Acks;
use crate::session::blame::{Blame, blame};
use crate::store::table::{Entry, Table, Tables};
use crate::subscription::{Owed, Subscription};

/// How many refusals are remembered; a name that is pushed out would be tried once more. Far above what a sound committer causes, and
/// a bound on what a client that refuses everything can make the server keep.
const MAX_REFUSED: usize = 4096;

/// How many responses may stay unanswered, each overdue but the last, before the oldest is forgotten.
const MAX_UNANSWERED: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) subscription: Subscription,
    /// Whether the client has asked for this type at all.
    pub(super) requested: bool,
    /// Changes up to here are sent, but for what is in `owed`, `suspects` or refused.
    cursor: u64,
    /// Withdrawals up to here are sent.
    removal_cursor: u64,
    /// What the other types may rely on: the cursors as of the last time that nothing was owed or in flight.
    confirmed: u64,
    confirmed_removals: u64,
    /// Names to answer whatever the cursor says: asked for, refused together with a bad one, or to be warmed again.
    owed: BTreeSet<Arc<str>>,
    /// A refused response without a culprit, in parts that are sent one at a time until the culprit stands alone.
    suspects: VecDeque<Vec<Arc<str>>>,
    /// Names that a reconnecting client holds and that are gone, with the number that their referrers must have confirmed.
    leaving: BTreeSet<Arc<str>>,
    leaving_after: u64,
    /// An empty response is owed if there is nothing to put into it: the client waits for one to finish its start.
    must_answer: bool,
    unanswered: VecDeque<Sent>,
    /// Since when something that is due waits for another type.
    blocked_since: Option<Duration>,
    /// The version of each name that the client has refused: never sent again, even when the store returns to it.
    refused: BTreeMap<Arc<str>, Refusal>,
    acks: Acks,
    sent_sequence: u64,
}

/// How far the types that this one leans on have got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gates {
    pub(super) upserts: u64,
    pub(super) removals: u64,
}

impl Gates {
    pub(super) const OPEN: u64 = u64::MAX;
}

#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) version: Version,
    pub(super) message: Arc<str>,
    pub(super) at: Duration,
}

/// A response that the client has not answered.
#[derive(Debug)]
struct Sent {
    number: u64,
    at: Duration,
    /// What the client has once it accepts this.
    upto: u64,
    upserts: Vec<SentUpsert>,
    removed: Vec<Arc<str>>,
}

#[derive(Debug)]
struct SentUpsert {
    name: Arc<str>,
    sequence: u64,
    version: Version,
}

/// A response in the making. It cannot hold a name twice.
#[derive(Debug, Default)]
pub(super) struct Draft {
    names: HashSet<Arc<str>>,
    upserts: Vec<SentUpsert>,
    pub(super) fragments: Vec<Bytes>,
    pub(super) removed: Vec<Arc<str>>,
    size: usize,
}

/// What a NACK led to.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) quarantined: Vec<(Arc<str>, Version)>,
    pub(super) message: Arc<str>,
}

/// What a client has of one resource.
#[derive(Debug)]
pub(super) enum Held {
    Not,
    InFlight,
    Accepted(Duration),
    Refused(Refusal),
}

impl Watch {
    /// Starts the watch at the first request of its type. `held` is what a reconnecting client says that it has.
    pub(super) fn start(&mut self, tables: &Tables, held: Option<&HashMap<String, String>>, owed: Owed, table: &Table) {
        self.requested = true;
        self.cursor = tables.sequence();
        self.removal_cursor = tables.sequence();
        self.must_answer = owed.everything;
        let everything = owed.everything;
        self.owe(owed, table);
        if let (true, Some(held)) = (everything, held) {
            for (name, version) in held {
                match table.get(name) {
                    Some(entry) if Version::parse(version) == Some(entry.version()) => {
                        self.owed.remove(name.as_str());
                    }
                    Some(_) => {}
                    None => {
                        self.leaving.insert(Arc::from(name.as_str()));
                    }
                }
            }
            self.leaving_after = tables.sequence();
        }
    }

    /// Notes what a request is owed.
    pub(super) fn owe(&mut self, owed: Owed, table: &Table) {
        let subscription = &self.subscription;
        self.owed.retain(|name| subscription.covers(name));
        if owed.everything {
            self.owed.append(&mut table.names());
        }
        self.owed.extend(owed.names);
    }

    /// Makes sure that a name is sent again although it has not changed.
    pub(super) fn refresh(&mut self, name: &Arc<str>, table: &Table) {
        if self.subscription.names_it(name) || (self.subscription.is_wildcard() && table.get(name).is_some()) {
            self.owed.insert(Arc::clone(name));
        }
    }

    /// The next response of this type, or `None` while there is nothing to say or an answer is awaited.
    pub(super) fn compose(
        &mut self,
        resource_type: ResourceType,
        tables: &Tables,
        gates: Gates,
        limits: &Limits,
        now: Duration,
    ) -> Option<Draft> {
        if !self.requested || self.awaits_answer(limits, now) {
            return None;
        }
        let table = tables.table(resource_type);
        let mut draft = Draft::default();
        while let Some(group) = self.suspects.pop_front() {
            for name in group.into_iter().filter(|name| self.subscription.covers(name)) {
                self.put(&mut draft, name, table);
            }
            if !draft.is_empty() {
                return Some(draft);
            }
        }

        let upserts_blocked = self.put_owed(&mut draft, table, gates, limits)
            | self.put_changes(&mut draft, tables, table, gates, limits);
        let removals_blocked = self.put_removals(&mut draft, resource_type, tables, gates);
        self.blocked_since = (upserts_blocked || removals_blocked).then(|| self.blocked_since.unwrap_or(now));

        if draft.is_empty() {
            self.settle(limits, now);
            // An empty first answer says "there is nothing": not while there is something that waits.
            return (self.must_answer && !upserts_blocked).then_some(draft);
        }
        Some(draft)
    }

    /// Puts what is owed into a response; answers whether some of it waits for another type.
    fn put_owed(&mut self, draft: &mut Draft, table: &Table, gates: Gates, limits: &Limits) -> bool {
        let mut blocked = false;
        for name in std::mem::take(&mut self.owed) {
            let entry = table.get(&name);
            let waits = entry.is_some_and(|entry| entry.after > gates.upserts);
            if waits || draft.is_full(&name, entry, limits) {
                blocked |= waits;
                self.owed.insert(name);
            } else {
                self.put(draft, name, table);
            }
        }
        blocked
    }

    /// Puts what changed since the cursor into a response; answers whether some of it waits for another type.
    fn put_changes(
        &mut self,
        draft: &mut Draft,
        tables: &Tables,
        table: &Table,
        gates: Gates,
        limits: &Limits,
    ) -> bool {
        for (name, entry) in table.changes_after(self.cursor) {
            if !self.subscription.covers(name) || draft.names.contains(name) || self.has_refused(name, entry) {
                continue;
            }
            let waits = entry.after > gates.upserts;
            if waits || draft.is_full(name, Some(entry), limits) {
                self.cursor = entry.sequence - 1;
                return waits;
            }
            draft.upsert(Arc::clone(name), entry);
        }
        self.cursor = tables.sequence();
        false
    }

    /// Puts what is gone into a response; answers whether some of it waits for another type.
    fn put_removals(&mut self, draft: &mut Draft, resource_type: ResourceType, tables: &Tables, gates: Gates) -> bool {
        let table = tables.table(resource_type);
        for (sequence, tombstone) in table.removals_after(self.removal_cursor) {
            // An assignment whose cluster is still there ends with its cluster: to remove it alone would drop its hosts.
            let referenced = resource_type == ResourceType::Endpoint
                && tables.table(ResourceType::Cluster).get(&tombstone.name).is_some();
            if self.subscription.covers(&tombstone.name) && !referenced {
                if tombstone.after > gates.removals {
                    self.removal_cursor = sequence - 1;
                    return true;
                }
                draft.remove(Arc::clone(&tombstone.name));
            }
        }
        self.removal_cursor = tables.sequence();
        if self.leaving.is_empty() || self.leaving_after > gates.removals {
            return !self.leaving.is_empty();
        }
        for name in std::mem::take(&mut self.leaving) {
            if table.get(&name).is_none() {
                draft.remove(name);
            }
        }
        false
    }

    /// Puts one name into a response: its resource, or the news that the client cannot have it. A version that the client
    /// has refused counts as absent, so that a client that asks for it again is not left waiting.
    fn put(&self, draft: &mut Draft, name: Arc<str>, table: &Table) {
        match table.get(&name) {
            Some(entry) if !self.has_refused(&name, entry) => draft.upsert(name, entry),
            _ => draft.remove(name),
        }
    }

    /// Notes that a response has left, and answers the names that it upserts.
    pub(super) fn sent(&mut self, number: u64, draft: Draft, now: Duration) -> Vec<Arc<str>> {
        let names = draft.upserts.iter().map(|upsert| Arc::clone(&upsert.name)).collect();
        self.must_answer = false;
        self.sent_sequence = self.cursor;
        let upto = if self.owed.is_empty() && self.suspects.is_empty() { self.cursor } else { self.confirmed };
        if self.unanswered.len() == MAX_UNANSWERED {
            self.unanswered.pop_front();
        }
        let Draft { upserts, removed, .. } = draft;
        self.unanswered.push_back(Sent { number, at: now, upto, upserts, removed });
        names
    }

    /// Takes an ACK. `false` if the response is not one that awaits an answer: a stale nonce.
    pub(super) fn accept(&mut self, number: u64, limits: &Limits, now: Duration) -> bool {
        let Some(sent) = self.answered(number) else { return false };
        self.acks.record(number, sent.upto, now);
        self.settle(limits, now);
        true
    }

    /// Takes a NACK. What it accuses is quarantined; the rest of the response is sent again if Envoy refused it too; if it
    /// accuses nobody, halves of the response are sent until the culprit stands alone. Each NACK either quarantines or
    /// halves, so this ends.
    pub(super) fn refuse(&mut self, number: u64, message: &str, limits: &Limits, now: Duration) -> Option<Refused> {
        let sent = self.answered(number)?;
        let message = Arc::<str>::from(message);
        let names: Vec<&str> = sent.upserts.iter().map(|upsert| &*upsert.name).collect();
        let (culprits, rest_is_lost) = match blame(&message, &names) {
            _ if names.len() == 1 => (vec![0], true),
            Blame::Only(culprits) => (culprits, false),
            Blame::First(culprit) => (vec![culprit], true),
            Blame::Hints(hints) if hints.len() < names.len() => {
                self.suspect(&sent, |at| hints.contains(&at));
                (Vec::new(), true)
            }
            Blame::Hints(_) | Blame::Nobody => {
                self.suspect(&sent, |at| at < names.len() / 2);
                (Vec::new(), true)
            }
        };

        let mut quarantined = Vec::with_capacity(culprits.len());
        for at in &culprits {
            let SentUpsert { name, version, .. } = &sent.upserts[*at];
            let refusal = Refusal { version: *version, message: Arc::clone(&message), at: now };
            self.refused.insert(Arc::clone(name), refusal);
            if self.refused.len() > MAX_REFUSED
                && let Some(oldest) = self.refused.iter().min_by_key(|(_, it)| it.at).map(|(name, _)| Arc::clone(name))
            {
                self.refused.remove(&oldest);
            }
            self.owed.remove(name);
            quarantined.push((Arc::clone(name), *version));
        }
        if rest_is_lost && !names.is_empty() {
            if !culprits.is_empty() {
                let rest = sent.upserts.iter().enumerate().filter(|(at, _)| !culprits.contains(at));
                self.owed.extend(rest.map(|(_, upsert)| Arc::clone(&upsert.name)));
            }
            self.owed.extend(sent.removed.iter().cloned());
            let subscription = &self.subscription;
            self.owed.retain(|name| subscription.covers(name));
        }
        if self.owed.is_empty() && self.suspects.is_empty() {
            // All but the culprits is with the client, and no further response will say so.
            self.acks.record(number, sent.upto, now);
        }
        self.settle(limits, now);
        Some(Refused { quarantined, message })
    }

    /// Splits a response into two groups to be tried one after the other, those chosen first.
    fn suspect(&mut self, sent: &Sent, chosen: impl Fn(usize) -> bool) {
        let (first, second): (Vec<_>, Vec<_>) =
            sent.upserts.iter().map(|upsert| Arc::clone(&upsert.name)).enumerate().partition(|(at, _)| chosen(*at));
        for group in [second, first] {
            if !group.is_empty() {
                self.suspects.push_front(group.into_iter().map(|(_, name)| name).collect());
            }
        }
    }

    /// The response that an answer is for. Clients answer in order, so the ones before it will not be answered any more.
    fn answered(&mut self, number: u64) -> Option<Sent> {
        let at = self.unanswered.iter().position(|sent| sent.number == number)?;
        self.unanswered.drain(..=at).next_back()
    }

    /// Whether the last response still has time to be answered. After that the watch goes on without the answer.
    pub(super) fn awaits_answer(&self, limits: &Limits, now: Duration) -> bool {
        self.unanswered.back().is_some_and(|sent| now < sent.at + limits.ack_timeout)
    }

    /// Lets the other types rely on what this one has reached.
    pub(super) fn settle(&mut self, limits: &Limits, now: Duration) {
        if self.awaits_answer(limits, now) || !self.suspects.is_empty() || !self.owed.is_empty() {
            return;
        }
        self.confirmed = self.cursor;
        if self.leaving.is_empty() {
            self.confirmed_removals = self.removal_cursor;
        }
    }

    /// How far this type's upserts are with the client; a type that the client does not want holds nobody up.
    pub(super) fn confirmed(&self) -> u64 {
        if self.subscription.is_empty() { Gates::OPEN } else { self.confirmed }
    }

    /// The same for its removals.
    pub(super) fn confirmed_removals(&self) -> u64 {
        if self.subscription.is_empty() { Gates::OPEN } else { self.confirmed_removals }
    }

    /// How long something has been waiting for another type.
    pub(super) fn blocked_for(&self, now: Duration) -> Duration {
        self.blocked_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// When time alone will change what this watch does.
    pub(super) fn deadlines(&self, limits: &Limits) -> impl Iterator<Item = Duration> {
        let answer = self.unanswered.back().map(|sent| sent.at + limits.ack_timeout);
        let patience = [limits.upsert_patience(), limits.removal_patience()];
        let blocked = self.blocked_since.into_iter().flat_map(move |since| patience.map(|patience| since + patience));
        answer.into_iter().chain(blocked)
    }

    /// Withdrawals up to here will not be asked for again.
    pub(super) fn removal_cursor(&self) -> u64 {
        if self.requested { self.removal_cursor } else { u64::MAX }
    }

    pub(super) fn sent_sequence(&self) -> u64 {
        self.sent_sequence
    }

    pub(super) fn accepted_sequence(&self) -> u64 {
        self.acks.sequence()
    }

    pub(super) fn in_flight(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Whether the client has accepted all that it is subscribed to, as of a table.
    pub(super) fn is_synced(&self, table: &Table) -> bool {
        let up_to_date = table
            .changes_after(self.cursor)
            .all(|(name, entry)| !self.subscription.covers(name) || self.has_refused(name, entry));
        let nothing_leaves =
            table.removals_after(self.removal_cursor).all(|(_, it)| !self.subscription.covers(&it.name));
        self.requested
            && up_to_date
            && nothing_leaves
            && self.leaving.is_empty()
            && self.owed.is_empty()
            && self.suspects.is_empty()
            && self.unanswered.is_empty()
            && !self.must_answer
            && self.rejections(table).next().is_none()
    }

    /// The refusals that keep something which is published now from this client.
    pub(super) fn rejections<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = (&'a Arc<str>, &'a Refusal)> {
        self.refused
            .iter()
            .filter(|(name, refusal)| table.get(name).is_some_and(|entry| entry.version() == refusal.version))
    }

    /// What the client has of the newest version of a resource that it is subscribed to.
    pub(super) fn held(&self, name: &str, entry: &Entry) -> Held {
        if let Some(refusal) = self.refused.get(name)
            && refusal.version == entry.version()
        {
            return Held::Refused(refusal.clone());
        }
        let in_flight =
            |sent: &Sent| sent.upserts.iter().any(|upsert| &*upsert.name == name && upsert.sequence == entry.sequence);
        if self.unanswered.iter().any(in_flight) {
            return Held::InFlight;
        }
        if entry.sequence > self.cursor
            || self.owed.contains(name)
            || self.suspects.iter().flatten().any(|suspect| &**suspect == name)
        {
            return Held::Not;
        }
        self.acks.time_of(entry.sequence, self.subscription.since(name)).map_or(Held::Not, Held::Accepted)
    }

    fn has_refused(&self, name: &str, entry: &Entry) -> bool {
        self.refused.get(name).is_some_and(|refusal| refusal.version == entry.version())
    }
}

impl Draft {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn upsert(&mut self, name: Arc<str>, entry: &Entry) {
        if self.names.insert(Arc::clone(&name)) {
            self.size += entry.encoded.fragment.len();
            self.fragments.push(entry.encoded.fragment.clone());
            self.upserts.push(SentUpsert { name, sequence: entry.sequence, version: entry.version() });
        }
    }

    fn remove(&mut self, name: Arc<str>) {
        if self.names.insert(Arc::clone(&name)) {
            self.size += field_len(1, name.len());
            self.removed.push(name);
        }
    }

    /// Whether one more would make the response longer than it should be. A single resource may be.
    fn is_full(&self, name: &str, entry: Option<&Entry>, limits: &Limits) -> bool {
        let more = entry.map_or(field_len(1, name.len()), |entry| entry.encoded.fragment.len());
        !self.is_empty() && self.size + more > limits.max_response_bytes
    }
}
