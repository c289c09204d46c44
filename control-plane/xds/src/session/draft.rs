//! A response in the making: which resources it carries, in which order, and whether there is room for one more.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use crate::commit::field_len;
use crate::resource::Version;
use crate::session::Limits;
use crate::store::table::Entry;

/// A response in the making. It cannot hold a name twice.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) names: HashSet<Arc<str>>,
    pub(super) upserts: Vec<SentUpsert>,
    pub(super) fragments: Vec<Bytes>,
    pub(super) removed: Vec<Arc<str>>,
    size: usize,
}

/// A resource in a response, without its content.
#[derive(Debug)]
pub(super) struct SentUpsert {
    pub(super) name: Arc<str>,
    pub(super) sequence: u64,
    pub(super) version: Version,
}

impl Draft {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn upsert(&mut self, name: Arc<str>, entry: &Entry) {
        if self.names.insert(Arc::clone(&name)) {
            self.size += entry.encoded.fragment.len();
            self.fragments.push(entry.encoded.fragment.clone());
            self.upserts.push(SentUpsert { name, sequence: entry.sequence, version: entry.version() });
        }
    }

    pub(super) fn remove(&mut self, name: Arc<str>) {
        if self.names.insert(Arc::clone(&name)) {
            self.size += field_len(1, name.len());
            self.removed.push(name);
        }
    }

    /// Whether one more would make the response longer than it should be. A single resource may be.
    pub(super) fn is_full(&self, name: &str, entry: Option<&Entry>, limits: &Limits) -> bool {
        let more = entry.map_or(field_len(1, name.len()), |entry| entry.encoded.fragment.len());
        !self.is_empty() && self.size + more > limits.max_response_bytes
    }
}
