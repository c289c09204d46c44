//! A response in the making: which resources it carries, in which order, and whether there is room for one more.

use std::sync::Arc;

use bytes::Bytes;

use crate::commit::{Encoded, Standing, field_len};
use crate::resource::{Variant, Version};
use crate::session::Limits;

/// A response in the making. That it holds no name twice is for its maker to see to.
#[derive(Debug)]
pub(super) struct Draft {
    variant: Variant,
    /// What the client is not known to have: what it accuses, if it refuses the response, is among these.
    pub(super) upserts: Vec<SentUpsert>,
    pub(super) fragments: Vec<Bytes>,
    pub(super) removed: Vec<Arc<str>>,
    size: usize,
    digest: u64,
}

/// A resource in a response, without its content.
#[derive(Clone, Debug)]
pub(super) struct SentUpsert {
    pub(super) name: Arc<str>,
    pub(super) sequence: u64,
    pub(super) version: Version,
    pub(super) standing: Arc<Standing>,
}

impl Draft {
    pub(super) fn new(variant: Variant) -> Self {
        Self { variant, upserts: Vec::new(), fragments: Vec::new(), removed: Vec::new(), size: 0, digest: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fragments.is_empty() && self.removed.is_empty()
    }

    /// Puts a resource in that came with this change of the store.
    pub(super) fn upsert(&mut self, name: Arc<str>, sequence: u64, encoded: &Encoded) {
        self.repeat(&name, encoded);
        let (version, standing) = (encoded.version, Arc::clone(&encoded.standing));
        self.upserts.push(SentUpsert { name, sequence, version, standing });
    }

    /// Puts a resource in that the client has, because the response has to be whole.
    pub(super) fn repeat(&mut self, name: &Arc<str>, encoded: &Encoded) {
        let fragment = match self.variant {
            Variant::Delta => encoded.fragment.clone(),
            Variant::Sotw => {
                self.digest = self.digest.wrapping_add(encoded.version.with_name(name));
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
        Version::of(&self.digest.to_le_bytes())
    }
}
