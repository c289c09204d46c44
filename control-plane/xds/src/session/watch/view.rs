//! What can be seen of a watch from outside. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::session::refusals::Refusal;
use crate::session::watch::{Sent, Watch};
use crate::store::table::{Entry, Table};

/// What a client has of one resource.
#[derive(Debug)]
pub(in crate::session) enum Held {
    Not,
    InFlight,
    Accepted(Duration),
    Refused(Refusal),
    /// Another version: this one was refused elsewhere and accepted by nobody.
    Another,
}

/// How many responses were sent, accepted and rejected.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::session) struct Tally {
    pub(in crate::session) sent: u64,
    pub(in crate::session) accepted: u64,
    pub(in crate::session) rejected: u64,
}

impl Watch {
    pub(in crate::session) fn sent_sequence(&self) -> u64 {
        self.sent_sequence
    }

    pub(in crate::session) fn accepted_sequence(&self) -> u64 {
        self.acks.sequence()
    }

    pub(in crate::session) fn in_flight(&self) -> bool {
        !self.unanswered.is_empty()
    }

    pub(in crate::session) fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether the client has accepted all that it is subscribed to, as of a table.
    pub(in crate::session) fn is_synced(&self, table: &Table) -> bool {
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
            && self.held_back.is_empty()
            && !self.must_answer
            && self.rejections(table).next().is_none()
    }

    /// The refusals that keep something which is published now from this client.
    pub(in crate::session) fn rejections<'a>(
        &'a self,
        table: &'a Table,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Refusal)> {
        self.refused.names().filter_map(|name| Some((name, self.refused.get(name, table.get(name)?.version())?)))
    }

    /// What the client has of the newest version of a resource that it is subscribed to.
    pub(in crate::session) fn held(&self, name: &str, entry: &Entry) -> Held {
        if let Some(refusal) = self.refused.get(name, entry.version()) {
            return Held::Refused(refusal.clone());
        }
        if self.held_back.get(name) == Some(&entry.version()) {
            return Held::Another;
        }
        let in_flight =
            |sent: &Sent| sent.upserts.iter().any(|upsert| &*upsert.name == name && upsert.sequence == entry.sequence);
        if self.unanswered.iter().any(in_flight) {
            return Held::InFlight;
        }
        if entry.sequence > self.cursor
            || self.owed.contains(name)
            || self.released.contains_key(name)
            || self.suspects.iter().flatten().any(|suspect| &**suspect == name)
        {
            return Held::Not;
        }
        self.acks.time_of(entry.sequence, self.subscription.since(name)).map_or(Held::Not, Held::Accepted)
    }
}
