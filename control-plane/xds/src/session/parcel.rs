//! The resources of a long response, made once for all streams that are in the same position: those that start at the
//! same time, above all. They share the bytes and the list of what is in them. Small responses are made for each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::{Bytes, BytesMut};

use crate::commit::{Encoded, Standing};
use crate::resource::{Variant, Version};

/// From how many resources on sharing pays: below, a stream copies them as fast as it finds out that it need not. The
/// tests, whose streams have few, share all they can.
pub(super) const WORTHWHILE: usize = if cfg!(test) { 1 } else { 32 };

/// How many positions are remembered. Streams that start together are in a few; who is alone finds nobody to share with.
const POSITIONS: usize = 32;

/// How many bytes are kept for streams to come, of each type: all endpoints of 10,000 clusters, and then some.
const MAX_KEPT: usize = 8 << 20;

/// A resource in a response, without its content.
#[derive(Clone, Debug)]
pub(super) struct SentUpsert {
    pub(super) name: Arc<str>,
    pub(super) sequence: u64,
    pub(super) version: Version,
    pub(super) standing: Arc<Standing>,
}

impl SentUpsert {
    pub(super) fn new(name: Arc<str>, sequence: u64, encoded: &Encoded) -> Self {
        encoded.standing.send();
        Self { name, sequence, version: encoded.version, standing: Arc::clone(&encoded.standing) }
    }
}

/// All that decides what a response holds, for a stream to which nothing else applies: it refused nothing, nothing waits
/// for another type, and nothing is to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) variant: Variant,
    /// The cursor, and up to where the client is a newcomer.
    pub(super) from: u64,
    pub(super) newcomer_upto: u64,
    /// The store's number.
    pub(super) sequence: u64,
    /// A hash of which names are owed.
    pub(super) owed: u128,
    pub(super) max_bytes: usize,
}

/// What a response carries.
#[derive(Debug)]
pub(crate) struct Parcel {
    position: Position,
    /// The resources as they are in the response.
    pub(crate) resources: Bytes,
    pub(super) upserts: Arc<[SentUpsert]>,
    pub(super) version: Version,
    /// The cursor behind it.
    pub(super) cursor: u64,
    /// How much of what is owed it answers, from the front.
    pub(super) answered: usize,
}

impl Parcel {
    pub(super) fn new(
        position: Position,
        fragments: &[Bytes],
        upserts: Arc<[SentUpsert]>,
        version: Version,
        cursor: u64,
        answered: usize,
    ) -> Self {
        let mut resources = BytesMut::with_capacity(fragments.iter().map(Bytes::len).sum());
        fragments.iter().for_each(|fragment| resources.extend_from_slice(fragment));
        Self { position, resources: resources.freeze(), upserts, version, cursor, answered }
    }
}

/// The parcels that some stream has under way, or that the next stream may well need.
#[derive(Debug, Default)]
pub(crate) struct Parcels(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    parcels: Vec<Weak<Parcel>>,
    /// The last ones, until something changes: streams that start together are never quite at the same place.
    kept: VecDeque<Arc<Parcel>>,
}

impl Parcels {
    /// The parcel for a position, unless a client has refused something in it meanwhile: then streams differ in what they get.
    pub(super) fn get(&self, position: &Position) -> Option<Arc<Parcel>> {
        let found = {
            let shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            shelf.parcels.iter().filter_map(Weak::upgrade).find(|parcel| parcel.position == *position)
        };
        found.filter(|parcel| !parcel.upserts.iter().any(|upsert| upsert.standing.is_quarantined()))
    }

    pub(super) fn add(&self, parcel: &Arc<Parcel>) {
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.kept.push_back(Arc::clone(parcel));
        while shelf.kept.iter().map(|parcel| parcel.resources.len()).sum::<usize>() > MAX_KEPT {
            shelf.kept.pop_front();
        }
        shelf.parcels.retain(|parcel| parcel.strong_count() > 0);
        if shelf.parcels.len() == POSITIONS {
            shelf.parcels.remove(0);
        }
        shelf.parcels.push(Arc::downgrade(parcel));
    }

    /// No stream will be at one of these places again: something changed.
    pub(crate) fn let_go(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).kept.clear();
    }
}
