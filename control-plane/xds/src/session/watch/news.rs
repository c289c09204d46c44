//! Responses that say what is new: all of delta, and the types of state of the world of which a part may be sent.

use std::sync::Arc;

use crate::resource::{ResourceType, Variant};
use crate::session::draft::Draft;
use crate::session::watch::owing::Owing;
use crate::session::watch::{Scene, Watch};

/// How much of what is owed a response answers: all up to a place, but for what has to wait.
#[derive(Debug, Default)]
struct Answered {
    upto: usize,
    /// In order.
    waiting: Vec<usize>,
    /// What is told elsewhere, in order.
    passed_over: Vec<usize>,
}

impl Answered {
    fn contains(&self, at: usize) -> bool {
        at < self.upto && self.waiting.binary_search(&at).is_err() && self.passed_over.binary_search(&at).is_err()
    }
}

impl Watch {
    pub(super) fn compose_news(&mut self, scene: Scene<'_>) -> Option<Draft> {
        let table = scene.table();
        let mut draft = Draft::new(scene.variant);
        while let Some(group) = self.suspects.pop_front() {
            for name in group {
                if !self.subscription.covers(&name) {
                    continue;
                }
                // What has changed since may have to wait for another type now.
                if table.get(&name).is_some_and(|entry| entry.after > scene.gates.upserts) {
                    self.owed.insert(name);
                } else {
                    self.put(&mut draft, name, scene);
                }
            }
            if !draft.is_empty() {
                return Some(draft);
            }
        }

        let position = self.position(scene);
        if let Some(parcel) = position.and_then(|position| table.parcels().get(&position))
            && (!self.owed.is_empty() || !self.holds_changes(scene))
        {
            if self.owed.is_empty() {
                self.pace.take(scene.limits.changes, scene.now);
            }
            self.note_blocked(false, scene.now);
            self.owed.drop_front(parcel.answered);
            self.cursor = parcel.cursor;
            self.removal_cursor = scene.tables.sequence();
            draft.parcel = Some(parcel);
            return Some(draft);
        }

        let mut owed = std::mem::take(&mut self.owed);
        let (answered, mut upserts_blocked) = self.put_owed(&owed, &mut draft, scene);
        let answers = !draft.is_empty();
        let is_in = |name: &Arc<str>| owed.find(name).is_some_and(|at| answered.contains(at));
        let mut removals_blocked = false;
        // What is sent anyway may take along what is new.
        if answers || !self.holds_changes(scene) {
            upserts_blocked |= self.put_changes(&mut draft, is_in, scene);
            removals_blocked = self.put_removals(&mut draft, is_in, scene);
            if !draft.is_empty() && !answers {
                self.pace.take(scene.limits.changes, scene.now);
            }
        }
        let waiting = answered.waiting.into_iter().filter_map(|at| owed.get(at).cloned()).collect::<Vec<_>>();
        owed.drop_front(answered.upto);
        owed.extend(waiting);
        self.owed = owed;
        self.note_blocked(upserts_blocked || removals_blocked, scene.now);
        if let Some(position) = position
            && self.held_back.is_empty()
            && draft.upserts.len() >= answered.upto
        {
            draft.share(table.parcels(), position, self.cursor, answered.upto);
        }

        if draft.is_empty() {
            self.settle(scene.limits, scene.now);
            // An empty first answer says "there is nothing": not while there is something that waits.
            return (self.must_answer && !upserts_blocked).then_some(draft);
        }
        Some(draft)
    }

    /// Puts what is owed into a response, as far as it goes; answers which that is, and whether some of it waits for
    /// another type.
    fn put_owed(&mut self, owed: &Owing, draft: &mut Draft, scene: Scene<'_>) -> (Answered, bool) {
        let table = scene.table();
        let mut answered = Answered::default();
        for (at, name) in owed.iter().enumerate() {
            let entry = table.get(name);
            if entry.is_some_and(|entry| entry.after > scene.gates.upserts) {
                answered.waiting.push(at);
            } else if draft.is_full(name, entry.map(|entry| &entry.encoded), scene.limits) {
                break;
            } else if !self.put(draft, Arc::clone(name), scene) {
                answered.passed_over.push(at);
            }
            answered.upto = at + 1;
        }
        let blocked = !answered.waiting.is_empty();
        (answered, blocked)
    }

    /// Puts what changed since the cursor into a response, but for what is in it; answers whether some of it waits for
    /// another type.
    fn put_changes(&mut self, draft: &mut Draft, is_in: impl Fn(&Arc<str>) -> bool, scene: Scene<'_>) -> bool {
        for (name, entry) in self.changes(scene.tables, scene.table()) {
            if is_in(name) {
                continue;
            }
            let encoded = if self.has_refused(name, entry) {
                // Of a newcomer that refused it before, as one that asks for everything again may have.
                match self.refused.fallback(name, entry).filter(|_| entry.sequence <= self.newcomer_upto) {
                    Some(fallback) => fallback,
                    None => continue,
                }
            } else {
                self.part_for(name, entry)
            };
            let waits = entry.after > scene.gates.upserts;
            if waits || draft.is_full(name, Some(encoded), scene.limits) {
                self.cursor = entry.sequence - 1;
                return waits;
            }
            draft.upsert(Arc::clone(name), entry.sequence, encoded);
        }
        self.cursor = scene.tables.sequence();
        false
    }

    /// Puts what is gone into a response; answers whether some of it waits for another type.
    fn put_removals(&mut self, draft: &mut Draft, is_in: impl Fn(&Arc<str>) -> bool, scene: Scene<'_>) -> bool {
        let table = scene.table();
        if scene.variant == Variant::Sotw {
            // "there is no explicit deletion" of these types: they end with what refers to them.
            self.removal_cursor = scene.tables.sequence();
            return false;
        }
        let before = self.removal_cursor;
        for (sequence, tombstone) in table.removals_after(before) {
            // An assignment whose cluster is still there ends with its cluster: to remove it alone would drop its
            // hosts.
            let referenced = scene.resource_type == ResourceType::Endpoint
                && scene.tables.table(ResourceType::Cluster).get(&tombstone.name).is_some();
            if self.subscription.covers(&tombstone.name) && !referenced {
                if tombstone.after > scene.gates.removals {
                    self.removal_cursor = sequence - 1;
                    return true;
                }
                if !is_in(&tombstone.name) {
                    draft.remove(Arc::clone(&tombstone.name));
                }
            }
        }
        self.removal_cursor = scene.tables.sequence();
        if self.leaving.is_empty() || self.leaving_after > scene.gates.removals {
            return !self.leaving.is_empty();
        }
        for name in std::mem::take(&mut self.leaving) {
            // Unless it was there again meanwhile, and went again.
            let is_told = table.withdrawal(&name).is_some_and(|withdrawal| withdrawal > before);
            if table.get(&name).is_none() && !is_told && !is_in(&name) {
                draft.remove(name);
            }
        }
        false
    }

    /// Puts one name into a response: its resource, or the news that the client cannot have it. Of a version that the
    /// client has refused it gets the last accepted one instead, or hears that there is none, so that a client that
    /// asks for it by name again is not left waiting. `false` if it is told elsewhere, or not at all: what the client
    /// has of that, it keeps.
    fn put(&mut self, draft: &mut Draft, name: Arc<str>, scene: Scene<'_>) -> bool {
        let table = scene.table();
        let Some(entry) = table.get(&name) else {
            // Its withdrawal is told when the types that may refer to it have let go; that of endpoints may never be.
            let is_told = table.withdrawal(&name).is_some_and(|withdrawal| withdrawal > self.removal_cursor);
            let may_not_be = scene.resource_type == ResourceType::Endpoint && self.subscription.names_it(&name);
            let tells = !is_told || may_not_be;
            if tells {
                draft.remove(name);
            }
            return tells;
        };
        if self.has_refused(&name, entry) {
            match self.refused.fallback(&name, entry) {
                Some(fallback) => draft.upsert(name, entry.sequence, fallback),
                None if self.subscription.names_it(&name) => draft.remove(name),
                None => return false,
            }
            return true;
        }
        let offer = self.offer(&name, entry);
        if offer.version != entry.version() {
            self.held_back.insert(Arc::clone(&name), entry.version());
        }
        draft.upsert(name, entry.sequence, offer);
        true
    }
}
