//! Responses that say all there is: clusters and listeners in state of the world. What such a response leaves out, the
//! client removes. So it repeats what the client has and may not lose yet, and in place of what the client must not get
//! now, what it got before.

use std::collections::HashSet;
use std::sync::Arc;

use crate::session::draft::Draft;
use crate::session::watch::{Owing, Scene, Watch, withheld};
use crate::store::table::Entry;

/// What is due.
struct Due {
    /// Something that does not wait for more to come.
    now: bool,
    /// Something that changed.
    changes: bool,
}

impl Watch {
    pub(super) fn compose_whole(&mut self, scene: Scene<'_>) -> Option<Draft> {
        let trial = self.next_trial();
        // A whole response cannot leave out what is to come later, or bring it early: all of it waits.
        let upserts_blocked = self.waits_for_another_type(scene);
        let (removable, removals_blocked) = self.removable(scene);
        let due = self.due(scene, trial.is_some(), removable);
        self.note_blocked((upserts_blocked && (due.now || due.changes)) || removals_blocked, scene.now);
        let held = !due.now && due.changes && self.holds_changes(scene);
        if (trial.is_none() && upserts_blocked) || held || !(due.now || due.changes) {
            if !upserts_blocked && !held {
                self.cursor = scene.tables.sequence();
                self.removal_cursor = self.removal_cursor.max(removable);
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
        let position = self.position(scene).filter(|position| position.from == 0);
        if let Some(parcel) = position.and_then(|position| table.parcels().get(&position)) {
            self.cursor = parcel.cursor;
            self.removal_cursor = self.removal_cursor.max(removable);
            draft.parcel = Some(parcel);
            return Some(draft);
        }
        let in_trial: HashSet<Arc<str>> = trial.into_iter().flatten().collect();
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
        for (_, tombstone) in table.removals_after(removable) {
            if tombstone.had <= self.cursor && self.subscription.covers(&tombstone.name) {
                draft.repeat(&tombstone.name, &tombstone.content);
            }
        }
        self.owed = Owing::default();
        self.cursor = scene.tables.sequence();
        self.removal_cursor = self.removal_cursor.max(removable);
        if let Some(position) = position
            && self.held_back.is_empty()
        {
            draft.share(table.parcels(), position, self.cursor, 0);
        }
        Some(draft)
    }

    /// The next group of suspects of which the client still wants any.
    fn next_trial(&mut self) -> Option<Vec<Arc<str>>> {
        while let Some(mut group) = self.suspects.pop_front() {
            group.retain(|name| self.subscription.covers(name));
            if !group.is_empty() {
                return Some(group);
            }
        }
        None
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
        let mut gone = table
            .removals_after(self.removal_cursor)
            .take_while(|(sequence, _)| *sequence <= removable)
            .filter(|(_, tombstone)| tombstone.had <= self.cursor && self.subscription.covers(&tombstone.name));
        Due {
            now: is_trial || self.must_answer || !self.owed.is_empty(),
            changes: changed.next().is_some() || gone.next().is_some(),
        }
    }

    fn put_whole(
        &mut self,
        draft: &mut Draft,
        name: &Arc<str>,
        entry: &Entry,
        in_trial: &HashSet<Arc<str>>,
        suspected: &HashSet<Arc<str>>,
    ) {
        if suspected.contains(name) || self.has_refused(name, entry) {
            if let Some(fallback) = self.refused.fallback(name, entry) {
                draft.repeat(name, &fallback.encoded);
            }
            return;
        }
        let is_owed = self.owed.contains(name);
        let is_newcomer = is_owed || (entry.sequence > self.cursor && entry.sequence <= self.newcomer_upto);
        if is_newcomer && let Some(newest) = withheld(entry) {
            self.held_back.insert(Arc::clone(name), newest);
        }
        let held_back = withheld(entry).is_some() && self.held_back.contains_key(name);
        let encoded = if held_back { entry.offered() } else { &entry.encoded };
        // In a trial only what is tried can be at fault; else whatever the client has not accepted.
        let unproven = in_trial.is_empty() && entry.sequence > self.acks.sequence();
        if is_owed || in_trial.contains(name) || entry.sequence > self.cursor || unproven {
            draft.upsert(Arc::clone(name), entry.sequence, encoded);
        } else {
            draft.repeat(name, encoded);
        }
    }
}
