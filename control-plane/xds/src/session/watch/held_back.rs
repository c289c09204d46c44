//! What a client gets of a resource that other clients refused: the last accepted version in the place of the newest, as
//! long as nobody has accepted that one.

use std::sync::Arc;

use crate::commit::Encoded;
use crate::session::parcel::SentUpsert;
use crate::session::watch::{Scene, Watch};
use crate::store::table::Entry;

impl Watch {
    /// What was held back is owed once a client has accepted it.
    pub(super) fn release_held_back(&mut self, scene: Scene<'_>) {
        let table = scene.table();
        let (owed, released) = (&mut self.owed, &mut self.released);
        released.retain(|name, version| table.get(name).is_some_and(|entry| entry.version() == *version));
        self.held_back.retain(|name, version| {
            let entry = table.get(name).filter(|entry| entry.version() == *version);
            // If it changed meanwhile, the cursor sees to it.
            let Some(entry) = entry else { return false };
            let stays = entry.encoded.standing.is_quarantined();
            if !stays {
                owed.insert(Arc::clone(name));
                if scene.is_whole() {
                    released.insert(Arc::clone(name), *version);
                }
            }
            stays
        });
    }

    /// What of an entry goes to the client: of what was there before it asked for everything, what newcomers get, else
    /// the newest. Notes what that holds back.
    pub(super) fn part_for<'a>(&mut self, name: &Arc<str>, entry: &'a Entry) -> &'a Encoded {
        if entry.sequence > self.newcomer_upto {
            return &entry.encoded;
        }
        let offer = self.offer(name, entry);
        if offer.version != entry.version() {
            self.held_back.insert(Arc::clone(name), entry.version());
        }
        offer
    }

    /// What the client is given if it has none yet and has not refused the newest version.
    pub(super) fn offer<'a>(&self, name: &str, entry: &'a Entry) -> &'a Encoded {
        let offered = entry.offered();
        if self.refused.contains(name, offered.version) { &entry.encoded } else { offered }
    }

    /// Notes what the client has accepted of what was held back from it.
    pub(super) fn take_accepted<'a>(&mut self, upserts: impl Iterator<Item = &'a SentUpsert>) {
        if self.released.is_empty() {
            return;
        }
        for SentUpsert { name, version, .. } in upserts {
            if self.released.get(name) == Some(version) {
                self.released.remove(name);
            }
        }
    }
}
