//! Responses that say all there is: clusters and listeners in state of the world. What such a response leaves out, the
//! client removes. So it repeats what the client has and may not lose yet, and in place of what the client must not get
//! now, what it got before. What the client has accepted as it is stands in every response, and is to blame for none,
//! whether or not it is owed once more.

use std::collections::HashSet;
use std::sync::Arc;

use crate::session::draft::Draft;
use crate::session::watch::owing::Owing;
use crate::session::watch::{Scene, Watch};
use crate::store::table::{Entry, Table, Tombstone};

/// What is due.
struct Due {
    /// Something that does not wait for more to come.
    now: bool,
    /// Something that changed.
    changes: bool,
}

impl Watch {
    pub(super) fn compose_whole(&mut self, scene: Scene<'_>) -> Option<Draft> {
        // A whole response cannot leave out what is to come later, or bring it early: all of it waits.
        let upserts_blocked = self.waits_for_another_type(scene);
        let (removable, removals_blocked) = self.removable(scene);
        let trial = if upserts_blocked { None } else { self.next_trial(scene.table()) };
        let due = self.due(scene, trial.is_some() || !self.suspects.is_empty(), removable);
        self.note_blocked((upserts_blocked && (due.now || due.changes)) || removals_blocked, scene.now);
        let held = !due.now && due.changes && self.holds_changes(scene);
        if upserts_blocked || held || !(due.now || due.changes) {
            if !upserts_blocked && !held {
                self.cursor = scene.tables.sequence();
                self.has_let_go(removable);
                self.settle(scene.limits, scene.now);
            }
            return None;
        }
        if !due.now {
            self.pace.take(scene.limits.changes, scene.now);
        }

        let mut draft = Draft::new(scene.variant);
        let table = scene.table();
        // Newcomers alone have so little behind them that others are likely to be where they are.
        let is_newcomer = self.cursor == 0 && self.acks.sequence() == 0;
        let position = self.position(scene).filter(|_| is_newcomer);
        if let Some(parcel) = position.and_then(|position| table.parcels().get(&position)) {
            draft.says_more = self.tally.sent == 0;
            self.cursor = parcel.cursor;
            self.has_told(removable);
            draft.parcel = Some(parcel);
            return Some(draft);
        }
        let mut in_trial: HashSet<Arc<str>> = trial.into_iter().flatten().collect();
        if !in_trial.is_empty() {
            // What an overdue response brought may still be what is wrong.
            let overdue = self.unanswered.iter().flat_map(|sent| sent.upserts.iter());
            in_trial.extend(overdue.map(|upsert| Arc::clone(&upsert.name)));
        }
        let suspected: HashSet<Arc<str>> = self.suspects.iter().flatten().cloned().collect();
        if self.subscription.is_wildcard() {
            for (name, entry) in table.changes_after(0) {
                self.put_whole(&mut draft, name, entry, &in_trial, &suspected);
            }
        } else {
            let named: Vec<Arc<str>> = self.subscription.names().cloned().collect();
            for name in named {
                if let Some(entry) = table.get(&name) {
                    self.put_whole(&mut draft, &name, entry, &in_trial, &suspected);
                }
            }
        }
        // What nobody accepted the client can hardly have, and might refuse once more.
        for (_, Tombstone { name, entry, .. }) in self.held_until_later(table, removable) {
            let kept = entry.last_accepted().filter(|kept| !self.refused.contains(name, kept.version));
            if let Some(kept) = kept.filter(|_| self.subscription.covers(name)) {
                draft.repeat(name, kept);
            }
        }
        draft.says_more = self.tally.sent == 0 || self.lets_go(table, removable) || self.repeats_what_is_owed(&draft);
        self.owed = Owing::default();
        self.cursor = scene.tables.sequence();
        self.has_told(removable);
        if let Some(position) = position
            && self.held_back.is_empty()
        {
            draft.share(table.parcels(), position, self.cursor, 0);
        }
        Some(draft)
    }

    /// Whether something that is owed is in a response as if the client had it.
    fn repeats_what_is_owed(&self, draft: &Draft) -> bool {
        if self.owed.is_empty() {
            // As it nearly always is: then there is nothing to compare with all that the response brings.
            return false;
        }
        let upserted: HashSet<&Arc<str>> = draft.upserts.iter().map(|upsert| &upsert.name).collect();
        self.owed.iter().any(|name| !upserted.contains(name))
    }

    /// The next group of suspects that holds any of which it is still open whether the client takes it.
    fn next_trial(&mut self, table: &Table) -> Option<Vec<Arc<str>>> {
        while let Some(mut group) = self.suspects.pop_front() {
            group.retain(|name| {
                let is_open = |entry| !self.has_refused(name, entry) && !self.has_accepted(name, entry);
                self.subscription.covers(name) && table.get(name).is_some_and(is_open)
            });
            if !group.is_empty() {
                return Some(group);
            }
        }
        None
    }

    /// Whether the client has accepted what it was given of an entry.
    fn has_accepted(&self, name: &str, entry: &Entry) -> bool {
        entry.sequence <= self.acks.sequence()
            && self.acks.reach(entry.sequence, self.subscription.since(name))
            && !self.released.contains_key(name)
    }

    fn waits_for_another_type(&self, scene: Scene<'_>) -> bool {
        let table = scene.table();
        let owed = self.owed.iter().filter_map(|name| table.get(name));
        let changed = table.changes_after(self.cursor).filter(|(name, _)| self.subscription.covers(name));
        owed.chain(changed.map(|(_, entry)| entry)).any(|entry| entry.after > scene.gates.upserts)
    }

    /// Up to which number withdrawals may take effect now, and whether some that the client would see have to wait.
    fn removable(&self, scene: Scene<'_>) -> (u64, bool) {
        for (sequence, tombstone) in scene.table().removals_after(self.removal_cursor) {
            if tombstone.after > scene.gates.removals && self.subscription.covers(&tombstone.name) {
                return (sequence - 1, true);
            }
        }
        (scene.tables.sequence(), false)
    }

    fn due(&self, scene: Scene<'_>, is_trial: bool, removable: u64) -> Due {
        let table = scene.table();
        let mut changed = table
            .changes_after(self.cursor)
            .filter(|(name, entry)| self.subscription.covers(name) && !self.has_refused(name, entry));
        Due {
            now: is_trial || self.must_answer || !self.owed.is_empty(),
            changes: changed.next().is_some() || self.lets_go(table, removable),
        }
    }

    /// Whether the next response takes something away from the client.
    fn lets_go(&self, table: &Table, removable: u64) -> bool {
        let mut gone = table.removals_after(self.removal_cursor).take_while(|(sequence, _)| *sequence <= removable);
        gone.any(|(sequence, it)| self.may_hold(sequence, it) && self.subscription.covers(&it.name))
    }

    /// What is gone, and may not go from the client yet.
    fn held_until_later<'a>(&self, table: &'a Table, removable: u64) -> impl Iterator<Item = (u64, &'a Tombstone)> {
        table.removals_after(removable).filter(|(sequence, it)| self.may_hold(*sequence, it))
    }

    /// Whether the client may hold what was withdrawn with that change: it was told of it between its last change and
    /// its end.
    fn may_hold(&self, sequence: u64, tombstone: &Tombstone) -> bool {
        let before = self.told.partition_point(|told| *told < sequence);
        before.checked_sub(1).is_some_and(|last| tombstone.entry.may_be_held(self.told[last]))
    }

    /// Notes that the response says all there is, but for withdrawals after that number.
    fn has_told(&mut self, removable: u64) {
        self.told.push(self.cursor);
        self.has_let_go(removable);
    }

    /// Notes that withdrawals up to that number are with the client.
    fn has_let_go(&mut self, removable: u64) {
        self.removal_cursor = self.removal_cursor.max(removable);
        let past = self.told.partition_point(|told| *told <= self.removal_cursor);
        self.told.drain(..past.saturating_sub(1));
    }

    fn put_whole(
        &mut self,
        draft: &mut Draft,
        name: &Arc<str>,
        entry: &Entry,
        in_trial: &HashSet<Arc<str>>,
        suspected: &HashSet<Arc<str>>,
    ) {
        let is_accepted = self.has_accepted(name, entry);
        if (suspected.contains(name) && !is_accepted) || self.has_refused(name, entry) {
            if let Some(fallback) = self.refused.fallback(name, entry) {
                draft.repeat(name, fallback);
            }
            return;
        }
        let is_owed = self.owed.contains(name);
        let offer = self.offer(name, entry);
        let is_withheld = offer.version != entry.version();
        let is_newcomer = is_owed || (entry.sequence > self.cursor && entry.sequence <= self.newcomer_upto);
        if is_newcomer && is_withheld {
            self.held_back.insert(Arc::clone(name), entry.version());
        }
        let encoded = if is_withheld && self.held_back.contains_key(name) { offer } else { &entry.encoded };
        // In a trial only what is tried or new can be at fault; else whatever the client has not accepted.
        let is_doubtful = in_trial.is_empty() || in_trial.contains(name) || is_owed || entry.sequence > self.cursor;
        if is_doubtful && !is_accepted {
            draft.upsert(Arc::clone(name), entry.sequence, encoded);
        } else {
            draft.repeat(name, encoded);
        }
    }
}
