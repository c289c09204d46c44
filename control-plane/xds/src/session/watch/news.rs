//! Responses that say what is new: all of delta, and the types of state of the world of which a part may be sent.

use std::sync::Arc;

use crate::resource::{ResourceType, Variant};
use crate::session::draft::Draft;
use crate::session::watch::{Scene, Watch};
use crate::store::table::Table;

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
                    self.put(&mut draft, name, table);
                }
            }
            if !draft.is_empty() {
                return Some(draft);
            }
        }

        let mut upserts_blocked = self.put_owed(&mut draft, scene);
        let answers = !draft.is_empty();
        let mut removals_blocked = false;
        // What is sent anyway may take along what is new.
        if answers || !self.holds_changes(scene) {
            upserts_blocked |= self.put_changes(&mut draft, scene);
            removals_blocked = self.put_removals(&mut draft, scene);
            if !draft.is_empty() && !answers {
                self.pace.take(scene.limits.changes, scene.now);
            }
        }
        self.note_blocked(upserts_blocked || removals_blocked, scene.now);

        if draft.is_empty() {
            self.settle(scene.limits, scene.now);
            // An empty first answer says "there is nothing": not while there is something that waits.
            return (self.must_answer && !upserts_blocked).then_some(draft);
        }
        Some(draft)
    }

    /// Puts what is owed into a response; answers whether some of it waits for another type.
    fn put_owed(&mut self, draft: &mut Draft, scene: Scene<'_>) -> bool {
        let table = scene.table();
        let mut blocked = false;
        for name in std::mem::take(&mut self.owed) {
            let entry = table.get(&name);
            let waits = entry.is_some_and(|entry| entry.after > scene.gates.upserts);
            if waits || draft.is_full(&name, entry.map(|entry| &entry.encoded), scene.limits) {
                blocked |= waits;
                self.owed.insert(name);
            } else {
                self.put(draft, name, table);
            }
        }
        blocked
    }

    /// Puts what changed since the cursor into a response; answers whether some of it waits for another type.
    fn put_changes(&mut self, draft: &mut Draft, scene: Scene<'_>) -> bool {
        for (name, entry) in scene.table().changes_after(self.cursor) {
            if !self.subscription.covers(name) || draft.names.contains(name) || self.has_refused(name, entry) {
                continue;
            }
            let waits = entry.after > scene.gates.upserts;
            if waits || draft.is_full(name, Some(&entry.encoded), scene.limits) {
                self.cursor = entry.sequence - 1;
                return waits;
            }
            draft.upsert(Arc::clone(name), entry.sequence, &entry.encoded);
        }
        self.cursor = scene.tables.sequence();
        false
    }

    /// Puts what is gone into a response; answers whether some of it waits for another type.
    fn put_removals(&mut self, draft: &mut Draft, scene: Scene<'_>) -> bool {
        let table = scene.table();
        if scene.variant == Variant::Sotw {
            // "there is no explicit deletion" of these types: they end with what refers to them.
            self.removal_cursor = scene.tables.sequence();
            return false;
        }
        for (sequence, tombstone) in table.removals_after(self.removal_cursor) {
            // An assignment whose cluster is still there ends with its cluster: to remove it alone would drop its
            // hosts.
            let referenced = scene.resource_type == ResourceType::Endpoint
                && scene.tables.table(ResourceType::Cluster).get(&tombstone.name).is_some();
            if self.subscription.covers(&tombstone.name) && !referenced {
                if tombstone.after > scene.gates.removals {
                    self.removal_cursor = sequence - 1;
                    return true;
                }
                draft.remove(Arc::clone(&tombstone.name));
            }
        }
        self.removal_cursor = scene.tables.sequence();
        if self.leaving.is_empty() || self.leaving_after > scene.gates.removals {
            return !self.leaving.is_empty();
        }
        for name in std::mem::take(&mut self.leaving) {
            if table.get(&name).is_none() {
                draft.remove(name);
            }
        }
        false
    }

    /// Puts one name into a response: its resource, or the news that the client cannot have it. Of a version that the
    /// client has refused it gets the last accepted one instead, or hears that there is none, so that a client that
    /// asks for it again is not left waiting.
    fn put(&mut self, draft: &mut Draft, name: Arc<str>, table: &Table) {
        let Some(entry) = table.get(&name) else {
            // Under a wildcard its withdrawal is told when the types that may refer to it have let go.
            let is_told = table.withdrawal(&name).is_some_and(|withdrawal| withdrawal > self.removal_cursor);
            if !is_told || self.subscription.names_it(&name) {
                draft.remove(name);
            }
            return;
        };
        if self.has_refused(&name, entry) {
            match self.refused.fallback(&name, entry) {
                Some(fallback) => draft.upsert(name, entry.sequence, fallback),
                None => draft.remove(name),
            }
            return;
        }
        let offer = self.offer(&name, entry);
        if offer.version != entry.version() {
            self.held_back.insert(Arc::clone(&name), entry.version());
        }
        draft.upsert(name, entry.sequence, offer);
    }
}
