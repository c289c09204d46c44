//! One type of resource on one stream: what was asked, how far it has been served, what is in flight, what was refused.
//! It holds cursors into the store's numbering, not a list of what the client has; the only names it keeps are those
//! still owed, in flight or refused. Which type may speak when is the session's business; it arrives here as [`Gates`].

mod nack;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(super) use view::Held;

use crate::resource::{ResourceType, Version};
use crate::session::Limits;
use crate::session::acks::Acks;
use crate::session::draft::{Draft, SentUpsert};
use crate::store::table::{Entry, Table, Tables};
use crate::subscription::{Owed, Subscription};

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
    /// Names that a reconnecting client holds and that are gone, with the number that their referrers must have
    /// confirmed.
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
    /// The last answered response, as long as what it answers is not all decided.
    unmarked: Option<u64>,
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
    /// What the client has once it accepts this; `None` if some of that is still owed.
    upto: Option<u64>,
    upserts: Vec<SentUpsert>,
    removed: Vec<Arc<str>>,
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
            // An assignment whose cluster is still there ends with its cluster: to remove it alone would drop its
            // hosts.
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

    /// Puts one name into a response: its resource, or the news that the client cannot have it. A version that the
    /// client has refused counts as absent, so that a client that asks for it again is not left waiting.
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
        let upto = (self.owed.is_empty() && self.suspects.is_empty()).then_some(self.cursor);
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
        match sent.upto {
            Some(upto) => self.mark(number, upto, now),
            None => self.unmarked = Some(number),
        }
        self.settle(limits, now);
        true
    }

    /// The response that an answer is for. Clients answer in order, so the ones before it will not be answered any
    /// more.
    fn answered(&mut self, number: u64) -> Option<Sent> {
        let at = self.unanswered.iter().position(|sent| sent.number == number)?;
        self.unanswered.drain(..=at).next_back()
    }

    /// Whether the last response still has time to be answered. After that the watch goes on without the answer.
    pub(super) fn awaits_answer(&self, limits: &Limits, now: Duration) -> bool {
        self.unanswered.back().is_some_and(|sent| now < sent.at + limits.ack_timeout)
    }

    fn mark(&mut self, number: u64, upto: u64, now: Duration) {
        self.acks.record(number, upto, now);
        self.unmarked = None;
    }

    /// Lets the other types rely on what this one has reached.
    pub(super) fn settle(&mut self, limits: &Limits, now: Duration) {
        if self.awaits_answer(limits, now) || !self.suspects.is_empty() || !self.owed.is_empty() {
            return;
        }
        self.confirmed = self.cursor;
        if let Some(number) = self.unmarked {
            self.mark(number, self.cursor, now);
        }
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

    fn has_refused(&self, name: &str, entry: &Entry) -> bool {
        self.refused.get(name).is_some_and(|refusal| refusal.version == entry.version())
    }
}
