//! A response in the making: which resources it carries, in which order, and whether there is room for one more.

use std::sync::Arc;

use bytes::Bytes;

use crate::commit::{Encoded, field_len};
use crate::resource::{Digest, Variant, Version};
use crate::session::Limits;
use crate::session::parcel::{Parcel, Parcels, Position, SentUpsert, WORTHWHILE};

/// A response in the making. That it holds no name twice is for its maker to see to.
#[derive(Debug)]
pub(super) struct Draft {
    variant: Variant,
    /// What the client is not known to have: what it accuses, if it refuses the response, is among these.
    pub(super) upserts: Vec<SentUpsert>,
    pub(super) fragments: Vec<Bytes>,
    pub(super) removed: Vec<Arc<str>>,
    /// What is shared with other streams, in place of upserts and fragments.
    pub(super) parcel: Option<Arc<Parcel>>,
    /// Whether it says more than its upserts; see there where it is kept.
    pub(super) says_more: bool,
    size: usize,
    digest: Digest,
}

impl Draft {
    pub(super) fn new(variant: Variant) -> Self {
        Self {
            variant,
            upserts: Vec::new(),
            fragments: Vec::new(),
            removed: Vec::new(),
            parcel: None,
            says_more: false,
            size: 0,
            digest: Digest::default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fragments.is_empty() && self.removed.is_empty() && self.parcel.is_none()
    }

    /// Puts a resource in that came with this change of the store.
    pub(super) fn upsert(&mut self, name: Arc<str>, sequence: u64, encoded: &Encoded) {
        self.repeat(&name, encoded);
        self.upserts.push(SentUpsert::new(name, sequence, encoded));
    }

    /// Puts a resource in that the client has, because the response has to be whole.
    pub(super) fn repeat(&mut self, name: &Arc<str>, encoded: &Encoded) {
        let fragment = match self.variant {
            Variant::Delta => encoded.fragment.clone(),
            Variant::Sotw => {
                self.digest.insert(name, encoded.version);
                encoded.any_field()
            }
        };
        self.size += fragment.len();
        self.fragments.push(fragment);
    }

    /// Says that a resource is gone; state of the world has no words for that.
    pub(super) fn remove(&mut self, name: Arc<str>) {
        if self.variant == Variant::Delta {
            self.size += field_len(1, name.len());
            self.removed.push(name);
        }
    }

    /// Whether one more would make the response longer than it should be. A single resource may be.
    pub(super) fn is_full(&self, name: &str, encoded: Option<&Encoded>, limits: &Limits) -> bool {
        let more = encoded.map_or(field_len(1, name.len()), |encoded| encoded.fragment.len());
        !self.is_empty() && self.size + more > limits.max_response_bytes
    }

    /// The version of the whole, for a variant that has one: a hash of the names and versions in it, in any order.
    pub(super) fn version(&self) -> Version {
        self.parcel.as_ref().map_or_else(|| self.digest.version(), |parcel| parcel.version)
    }

    /// Makes what is in it ready to be shared with streams in the same position, if that is worth it.
    pub(super) fn share(&mut self, parcels: &Parcels, position: Position, cursor: u64, answered: usize) {
        if self.fragments.len() < WORTHWHILE || !self.removed.is_empty() {
            return;
        }
        let upserts = Arc::from(std::mem::take(&mut self.upserts));
        let parcel = Arc::new(Parcel::new(position, &self.fragments, upserts, self.version(), cursor, answered));
        self.fragments = Vec::new();
        parcels.add(&parcel);
        self.parcel = Some(parcel);
    }

    /// What the client is not known to have, once the draft is done.
    pub(super) fn take_upserts(&mut self) -> Arc<[SentUpsert]> {
        match &self.parcel {
            Some(parcel) => Arc::clone(&parcel.upserts),
            None => Arc::from(std::mem::take(&mut self.upserts)),
        }
    }
}
