//! One type of resource on one stream: what was asked, how far it has been served, what is in flight, what was refused.
//! It holds cursors into the store's numbering, not a list of what the client has; the only names it keeps are those
//! still owed, in flight, held back or refused. Which type may speak when is the session's business; it arrives here as
//! [`Gates`].

mod held_back;
mod nack;
mod news;
mod owing;
mod view;
mod whole;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(super) use nack::Refused;
use owing::Owing;
pub(super) use view::{Held, Tally};

use crate::pace::Pace;
use crate::resource::{ResourceType, Variant, Version};
use crate::session::Limits;
use crate::session::acks::Acks;
use crate::session::draft::Draft;
use crate::session::parcel::{Position, SentUpsert};
use crate::session::refusals::Refusals;
use crate::store::table::{Entry, Table, Tables};
use crate::subscription::{Owed, Subscription};

/// How many responses may stay unanswered, each overdue but the last, before the oldest is forgotten.
const MAX_UNANSWERED: usize = 4;

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) subscription: Subscription,
    /// Whether the client has asked for this type at all.
    pub(super) requested: bool,
    /// Changes up to here are sent, but for what is in `owed`, `suspects`, `held_back` or refused.
    cursor: u64,
    /// Withdrawals up to here are sent.
    removal_cursor: u64,
    /// As of which numbers the client was told everything there was, where responses are whole: the last one up to the
    /// removal cursor and all after it, in order. Removals wait a bounded time, and so these are bounded, too.
    told: Vec<u64>,
    /// What the other types may rely on: the cursors as of the last time that nothing was owed or in flight.
    confirmed: u64,
    confirmed_removals: u64,
    /// Names to answer whatever the cursor says: asked for, refused together with a bad one, or to be warmed again. In
    /// the order in which they came to be owed.
    owed: Owing,
    /// Changes up to here were there when the client asked for everything: it gets them as a newcomer does.
    newcomer_upto: u64,
    /// A refused response without a culprit, in parts that are sent one at a time until the culprit stands alone.
    suspects: VecDeque<Vec<Arc<str>>>,
    /// Names of which the client got the last accepted version, because this one was refused elsewhere and accepted by
    /// nobody.
    held_back: BTreeMap<Arc<str>, Version>,
    /// Names that were held back, and that the client has yet to accept in the version that another has accepted
    /// meanwhile, whatever `acks` say. Kept where responses are whole.
    released: BTreeMap<Arc<str>, Version>,
    /// Names that a reconnecting client holds and that are gone, with the number that their referrers must have
    /// confirmed.
    leaving: BTreeSet<Arc<str>>,
    leaving_after: u64,
    /// Names that were to be warmed before the client asked for this type: what it then says that it holds does not
    /// count for them. `None`: all names.
    unwarmed: Option<BTreeSet<Arc<str>>>,
    /// Whether the client said nothing of what it holds.
    began_with_nothing: bool,
    /// An empty response is owed if there is nothing to put into it: the client waits for one to finish its start.
    must_answer: bool,
    /// Responses that said more than their upserts were not accepted, and none after them was.
    unsaid: bool,
    unanswered: VecDeque<Sent>,
    /// Since when something that is due waits for another type.
    blocked_since: Option<Duration>,
    pace: Pace,
    /// When changes that are held for more to come go out.
    held_until: Option<Duration>,
    refused: Refusals,
    acks: Acks,
    /// The last answered response, as long as what it answers is not all decided.
    unmarked: Option<u64>,
    sent_sequence: u64,
    tally: Tally,
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

/// What a watch looks at when it makes a response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    pub(super) resource_type: ResourceType,
    pub(super) variant: Variant,
    pub(super) tables: &'a Tables,
    pub(super) gates: Gates,
    pub(super) limits: &'a Limits,
    pub(super) now: Duration,
}

impl<'a> Scene<'a> {
    fn table(&self) -> &'a Table {
        self.tables.table(self.resource_type)
    }

    /// Whether a response has to say all there is.
    fn is_whole(&self) -> bool {
        self.variant == Variant::Sotw && self.resource_type.is_sent_whole()
    }
}

/// A response that the client has not answered.
#[derive(Debug)]
struct Sent {
    number: u64,
    at: Duration,
    /// What the client has once it accepts this; `None` if some of that is still owed.
    upto: Option<u64>,
    upserts: Arc<[SentUpsert]>,
    removed: Vec<Arc<str>>,
    /// It had to be whole, and said more than its upserts: what it left out is to go, or what it repeated was owed. A
    /// client that refuses all of it has to hear it again.
    says_more: bool,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            subscription: Subscription::default(),
            requested: false,
            cursor: 0,
            removal_cursor: 0,
            told: Vec::new(),
            confirmed: 0,
            confirmed_removals: 0,
            owed: Owing::default(),
            newcomer_upto: 0,
            suspects: VecDeque::new(),
            held_back: BTreeMap::new(),
            released: BTreeMap::new(),
            leaving: BTreeSet::new(),
            leaving_after: 0,
            unwarmed: Some(BTreeSet::new()),
            began_with_nothing: false,
            must_answer: false,
            unsaid: false,
            unanswered: VecDeque::new(),
            blocked_since: None,
            pace: Pace::default(),
            held_until: None,
            refused: Refusals::default(),
            acks: Acks::default(),
            unmarked: None,
            sent_sequence: 0,
            tally: Tally::default(),
        }
    }
}

impl Sent {
    /// The places of those upserts that some client has accepted.
    fn accepted_elsewhere(&self) -> impl Iterator<Item = usize> {
        self.upserts.iter().enumerate().filter(|(_, upsert)| upsert.standing.is_accepted()).map(|(at, _)| at)
    }
}

impl Watch {
    /// Starts the watch at the first request of its type. `held` is what a reconnecting client says that it has.
    /// `next` is the number that the next response will bear.
    pub(super) fn start(
        &mut self,
        tables: &Tables,
        table: &Table,
        held: Option<&HashMap<String, String>>,
        owed: Owed,
        next: u64,
        now: Duration,
    ) {
        self.requested = true;
        self.cursor = tables.sequence();
        self.removal_cursor = tables.sequence();
        // It may hold what was in force, from an earlier stream.
        self.told = vec![tables.sequence()];
        self.must_answer = owed.everything;
        let held = held.filter(|held| !held.is_empty());
        self.began_with_nothing = held.is_none();
        let everything = owed.everything;
        let Some(held) = held else {
            self.owe(owed, tables.sequence());
            return;
        };
        // The cursor cannot say what the client lacks: it is counted up.
        self.owe(Owed { everything: false, ..owed }, tables.sequence());
        if everything {
            self.owed.extend(table.names());
        }
        for (name, version) in held {
            match table.get(name) {
                Some(entry) if self.has(name, version, entry) => {
                    // It accepted that, perhaps before there was this process to note it.
                    entry.offered().standing.accept();
                    let is_withheld = entry.offered().version != entry.version();
                    if let Some(name) = self.owed.take(name).filter(|_| is_withheld) {
                        self.held_back.insert(name, entry.version());
                    }
                }
                Some(_) => {}
                // What it names and does not exist, it is told with the rest.
                None if everything => {
                    self.leaving.insert(Arc::from(name.as_str()));
                }
                None => {}
            }
        }
        self.leaving_after = tables.sequence();
        self.unwarmed = Some(BTreeSet::new());
        if !self.must_answer && self.owed.is_empty() {
            // There is nothing to send, and so nothing to wait for: what it states is as good as an ACK.
            self.acks.record(next, self.cursor, now);
        }
    }

    /// Takes note that a client comes back with what was in force at a number of the store, and hardly anything else.
    /// What went since, it still holds.
    pub(super) fn go_on_from(&mut self, state: u64, table: &Table) {
        self.removal_cursor = state;
        self.told.insert(0, state);
        for (_, gone) in table.removals_after(state).filter(|(_, gone)| gone.entry.sequence <= state) {
            gone.entry.encoded.standing.accept();
        }
    }

    /// Whether a client that states this version lacks nothing.
    fn has(&self, name: &str, version: &str, entry: &Entry) -> bool {
        let is_warm = self.unwarmed.as_ref().is_some_and(|unwarmed| !unwarmed.contains(name));
        is_warm && Version::parse(version) == Some(entry.offered().version)
    }

    /// Notes what a request is owed, as of a number of the store.
    pub(super) fn owe(&mut self, owed: Owed, sequence: u64) {
        let subscription = &self.subscription;
        if !subscription.is_wildcard() {
            self.owed.retain(|name| subscription.covers(name));
            self.held_back.retain(|name, _| subscription.covers(name));
            self.released.retain(|name, _| subscription.covers(name));
        }
        if owed.everything {
            // Everything is all that changed since the beginning.
            self.cursor = 0;
            self.newcomer_upto = sequence;
            self.must_answer = true;
        }
        if let Some(list) = &owed.list {
            self.owed.insert_list(list);
        }
        self.owed.extend(owed.names);
    }

    /// Makes sure that names are sent again although they have not changed. `all` says that these are among all there
    /// are, for a client that has nothing yet.
    pub(super) fn refresh(&mut self, clusters: &[SentUpsert], all: bool, table: &Table) {
        if self.requested && self.tally.sent == 0 && self.began_with_nothing {
            // All that it wants is still to come.
            return;
        }
        let mut names = clusters.iter().map(|upsert| &upsert.name);
        if self.requested {
            for name in names {
                // What the cursor has not reached will come anyway.
                let comes = table.get(name).is_some_and(|entry| entry.sequence > self.cursor);
                let wanted =
                    self.subscription.names_it(name) || (self.subscription.is_wildcard() && table.get(name).is_some());
                if wanted && !comes {
                    self.owed.insert(Arc::clone(name));
                }
            }
        } else if all && !clusters.is_empty() {
            self.unwarmed = None;
        } else if let Some(unwarmed) = &mut self.unwarmed {
            unwarmed.extend(names.by_ref().filter(|name| table.get(name).is_some()).cloned());
            if unwarmed.len() > table.len() {
                unwarmed.retain(|name| table.get(name).is_some());
            }
        }
    }

    /// Whether the client had nothing of this type when it came.
    pub(super) fn began_with_nothing(&self) -> bool {
        self.began_with_nothing
    }

    /// The next response of this type, or `None` while there is nothing to say or an answer is awaited.
    pub(super) fn compose(&mut self, scene: Scene<'_>) -> Option<Draft> {
        if !self.requested || self.awaits_answer(scene.limits, scene.now) {
            return None;
        }
        self.release_held_back(scene);
        self.held_until = None;
        if scene.is_whole() { self.compose_whole(scene) } else { self.compose_news(scene) }
    }

    /// Where the watch is, if that alone decides what is to be sent.
    fn position(&self, scene: Scene<'_>) -> Option<Position> {
        let table = scene.table();
        let ordinary = scene.gates.upserts == Gates::OPEN
            && self.refused.is_empty()
            && self.held_back.is_empty()
            && self.suspects.is_empty()
            && self.leaving.is_empty()
            && table.last_removal() <= self.removal_cursor;
        let changed = table.last_upsert() > self.cursor;
        // Everything, or names and nothing else.
        let plain = if self.owed.is_empty() { self.subscription.is_wildcard() && changed } else { !changed };
        (ordinary && plain).then(|| Position {
            variant: scene.variant,
            from: self.cursor,
            newcomer_upto: self.newcomer_upto,
            sequence: scene.tables.sequence(),
            owed: self.owed.digest(),
            max_bytes: scene.limits.max_response_bytes,
        })
    }

    /// What changed since the cursor and is wanted, in order. Where fewer names are wanted than may have changed, those
    /// are looked up.
    fn changes<'a>(&self, tables: &Tables, table: &'a Table) -> Vec<(&'a Arc<str>, &'a Entry)> {
        let subscription = &self.subscription;
        let most = usize::try_from(tables.sequence().saturating_sub(self.cursor)).unwrap_or(usize::MAX);
        if subscription.is_wildcard() || subscription.len() >= most {
            return table.changes_after(self.cursor).filter(|(name, _)| subscription.covers(name)).collect();
        }
        let mut changes: Vec<_> = subscription.names().filter_map(|name| table.get_with_name(name)).collect();
        changes.retain(|(_, entry)| entry.sequence > self.cursor);
        changes.sort_unstable_by_key(|(_, entry)| entry.sequence);
        changes
    }

    /// Whether changes are to wait for more to come, and notes until when. Only where nothing else is to be sent.
    fn holds_changes(&mut self, scene: Scene<'_>) -> bool {
        let next = self.pace.next(scene.limits.changes, scene.now);
        let waits = next > scene.now && scene.table().last_urgent() <= self.cursor.min(self.removal_cursor);
        if waits {
            self.held_until = Some(next);
        }
        waits
    }

    /// Notes that a response has left, and answers what it upserts.
    pub(super) fn sent(&mut self, number: u64, mut draft: Draft, now: Duration) -> Arc<[SentUpsert]> {
        let upserts = draft.take_upserts();
        self.must_answer = false;
        self.sent_sequence = self.cursor;
        self.tally.sent += 1;
        let upto = (self.owed.is_empty() && self.suspects.is_empty()).then_some(self.cursor);
        if self.unanswered.len() == MAX_UNANSWERED {
            self.unsaid |= self.unanswered.pop_front().is_some_and(|sent| sent.says_more);
        }
        let Draft { removed, says_more, .. } = draft;
        let sent = Sent { number, at: now, upto, upserts: Arc::clone(&upserts), removed, says_more };
        self.unanswered.push_back(sent);
        upserts
    }

    /// Takes an ACK: `None` if the response is not one that awaits an answer (a stale nonce), else the names that had
    /// been refused by another client and are now accepted for the first time.
    pub(super) fn accept(&mut self, number: u64, limits: &Limits, now: Duration) -> Option<Vec<Arc<str>>> {
        let sent = self.answered(number)?;
        self.tally.accepted += 1;
        self.unsaid = false;
        self.clear_of_suspicion(&sent);
        self.take_accepted(sent.upserts.iter());
        match sent.upto {
            Some(upto) => self.mark(number, upto, now),
            None => self.unmarked = Some(number),
        }
        self.settle(limits, now);
        let released = sent.upserts.iter().filter(|upsert| upsert.standing.accept());
        Some(released.map(|upsert| Arc::clone(&upsert.name)).collect())
    }

    /// The response that an answer is for. Clients answer in order, so the ones before it will not be answered any
    /// more.
    fn answered(&mut self, number: u64) -> Option<Sent> {
        let at = self.unanswered.iter().position(|sent| sent.number == number)?;
        self.unsaid |= self.unanswered.range(..=at).any(|sent| sent.says_more);
        self.unanswered.drain(..=at).next_back()
    }

    /// Whether the last response still has time to be answered. After that the watch goes on without the answer.
    pub(super) fn awaits_answer(&self, limits: &Limits, now: Duration) -> bool {
        self.unanswered.back().is_some_and(|sent| now < sent.at + limits.ack_timeout)
    }

    /// Since when the oldest response waits for its answer.
    pub(super) fn unanswered_since(&self) -> Option<Duration> {
        self.unanswered.front().map(|sent| sent.at)
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
        // One that is overdue may yet be refused.
        if let Some(number) = self.unmarked.filter(|_| self.unanswered.is_empty()) {
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

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.is_some()
    }

    fn note_blocked(&mut self, is_blocked: bool, now: Duration) {
        self.blocked_since = is_blocked.then(|| self.blocked_since.unwrap_or(now));
    }

    /// When time alone will change what this watch does.
    pub(super) fn deadlines(&self, limits: &Limits) -> impl Iterator<Item = Duration> {
        let answer = self.unanswered.back().map(|sent| sent.at + limits.ack_timeout);
        let patience = [limits.upsert_patience(), limits.removal_patience()];
        let blocked = self.blocked_since.into_iter().flat_map(move |since| patience.map(|patience| since + patience));
        answer.into_iter().chain(self.held_until).chain(blocked)
    }

    /// Withdrawals up to here will not be asked for again.
    pub(super) fn removal_cursor(&self) -> u64 {
        if self.requested { self.removal_cursor } else { u64::MAX }
    }

    /// Whether the client has refused the newest version. Then this is not only the news of this client: another that
    /// has yet to get it is better served with the last accepted one.
    fn has_refused(&self, name: &str, entry: &Entry) -> bool {
        let refused = self.refused.contains(name, entry.version());
        if refused {
            entry.encoded.standing.refuse();
        }
        refused
    }
}
