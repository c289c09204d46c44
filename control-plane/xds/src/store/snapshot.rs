//! Everything that a store publishes, as one value: taken in a moment, for it shares the bytes that streams carry, and
//! written in a form that a reader can trust or refuse. It does no IO beyond the writer it is given; where it is kept, and
//! when, is the caller's business.
//!
//! ```text
//! "xdsstore"            8 bytes
//! format version        u32, little endian, as all numbers
//! taken at              u64, milliseconds since the Unix epoch
//! for each group, type  length (u32) and name of the group, length and type URL, number of resources (u32)
//!   for each resource   length and name, length and encoded message
//! xxh3-128 of the above 16 bytes; at the end of every format, so that damage is told from another format
//! ```

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Buf;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use crate::commit::{Change, Commit, Encoded};
use crate::group::Group;
use crate::resource::{ResourceType, Version};
use crate::store::{Committed, Store};

const MAGIC: [u8; 8] = *b"xdsstore";
const FORMAT: u32 = 1;
const SUM: usize = size_of::<u128>();

/// What a store published at one moment. Cheap to take and to clone.
#[derive(Clone, Debug)]
pub struct Snapshot {
    taken_at: SystemTime,
    /// In order of group, type and name, each once.
    resources: Vec<Stored>,
}

#[derive(Clone, Debug)]
struct Stored {
    group: Group,
    resource_type: ResourceType,
    name: Arc<str>,
    encoded: Encoded,
}

/// Why bytes are no snapshot. Nothing of them is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// It does not begin as one.
    #[error("it is no snapshot of an xDS store")]
    Foreign,
    /// It is cut off, or some of its bits are others than were written.
    #[error("it is damaged: its checksum does not match its {len} bytes")]
    Damaged {
        /// How long it is.
        len: usize,
    },
    /// It is whole, but of a format that this version does not know.
    #[error("its format is {found}, and {FORMAT} is the only one known here")]
    Format {
        /// That format.
        found: u32,
    },
    /// It is whole, but a type in it is not served by this version.
    #[error("it has resources of a type that is not known here: {type_url}")]
    Type {
        /// That type.
        type_url: String,
    },
    /// Its checksum is right, and yet it does not hold together: whoever wrote it erred.
    #[error("its checksum is right, but it ends in the middle or goes on after its end")]
    Inconsistent,
}

impl Snapshot {
    /// When it was taken, to the millisecond.
    pub fn taken_at(&self) -> SystemTime {
        self.taken_at
    }

    /// How many resources it has.
    pub fn len(&self) -> usize {
        self.resources.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// Type, name, version and encoded message of each resource of a group, in order of type and name.
    pub fn resources(&self, group: &Group) -> impl Iterator<Item = (ResourceType, &str, Version, &[u8])> {
        self.resources
            .iter()
            .filter(move |stored| stored.group == *group)
            .map(|stored| (stored.resource_type, &*stored.name, stored.encoded.version, stored.encoded.message()))
    }

    /// Writes it whole, in many small pieces: give it a buffered writer.
    ///
    /// # Errors
    /// Those of the writer, and a name or message of 4 GiB or more.
    pub fn write_to(&self, out: impl Write) -> io::Result<()> {
        let mut out = Summing { out, sum: Xxh3::new() };
        out.put(&MAGIC)?;
        out.put(&FORMAT.to_le_bytes())?;
        out.put(&millis(self.taken_at).to_le_bytes())?;
        let together =
            |one: &Stored, next: &Stored| (&one.group, one.resource_type) == (&next.group, next.resource_type);
        for of_type in self.resources.chunk_by(together) {
            let Some(first) = of_type.first() else { continue };
            out.put_sized(first.group.name().as_bytes())?;
            out.put_sized(first.resource_type.type_url().as_bytes())?;
            out.put_len(of_type.len())?;
            for stored in of_type {
                out.put_sized(stored.name.as_bytes())?;
                out.put_sized(stored.encoded.message())?;
            }
        }
        let sum = out.sum.digest128();
        out.out.write_all(&sum.to_le_bytes())?;
        out.out.flush()
    }

    /// Reads what [`write_to`](Self::write_to) wrote, all or nothing.
    ///
    /// # Errors
    /// [`SnapshotError`] says what is wrong with the bytes. No bytes make it panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(SnapshotError::Foreign);
        }
        let damaged = SnapshotError::Damaged { len: bytes.len() };
        let (content, sum) = bytes.split_last_chunk::<SUM>().ok_or_else(|| damaged.clone())?;
        if xxh3_128(content) != u128::from_le_bytes(*sum) {
            return Err(damaged);
        }
        let mut rest = content.get(MAGIC.len()..).ok_or(SnapshotError::Inconsistent)?;
        let format = rest.try_get_u32_le().map_err(inconsistent)?;
        if format != FORMAT {
            return Err(SnapshotError::Format { found: format });
        }
        let taken_at = UNIX_EPOCH
            .checked_add(Duration::from_millis(rest.try_get_u64_le().map_err(inconsistent)?))
            .ok_or(SnapshotError::Inconsistent)?;
        let mut resources = Vec::new();
        while !rest.is_empty() {
            let group = Group::new(text(&mut rest)?);
            let type_url = text(&mut rest)?;
            let resource_type = ResourceType::from_type_url(type_url)
                .ok_or_else(|| SnapshotError::Type { type_url: type_url.to_owned() })?;
            for _ in 0..rest.try_get_u32_le().map_err(inconsistent)? {
                let name = text(&mut rest)?;
                let encoded = Encoded::of_bytes(resource_type, name, sized(&mut rest)?);
                let group = group.clone();
                resources.push(Stored { group, resource_type, name: Arc::from(name), encoded });
            }
        }
        let ordered = resources.is_sorted_by(|one, next| one.key() < next.key());
        if ordered { Ok(Self { taken_at, resources }) } else { Err(SnapshotError::Inconsistent) }
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        let each = |stored: &Stored| {
            (stored.group.clone(), stored.resource_type, Arc::clone(&stored.name), stored.encoded.version)
        };
        self.taken_at == other.taken_at && self.resources.iter().map(each).eq(other.resources.iter().map(each))
    }
}

impl Stored {
    fn key(&self) -> (&Group, ResourceType, &str) {
        (&self.group, self.resource_type, &self.name)
    }
}

impl Store {
    /// Everything that is published now; of what a client refused and none accepted, the last accepted version. Streams
    /// are held up for the copy of a few pointers a resource, not for its bytes.
    pub fn snapshot(&self) -> Snapshot {
        let mut resources = Vec::new();
        for view in self.views().iter() {
            let tables = view.tables();
            for resource_type in ResourceType::ALL {
                resources.extend(tables.table(resource_type).published().map(|(name, encoded)| Stored {
                    group: view.group.clone(),
                    resource_type,
                    name: Arc::clone(name),
                    encoded: encoded.clone(),
                }));
            }
        }
        resources.sort_unstable_by(|one: &Stored, other| one.key().cmp(&other.key()));
        // To the millisecond, which is what is written.
        let taken_at = UNIX_EPOCH + Duration::from_millis(millis(self.wall(self.now())));
        Snapshot { taken_at, resources }
    }

    /// Publishes what a snapshot holds, as one commit, to the groups that there are. The types of the messages need not be
    /// known for it.
    pub fn restore(&self, snapshot: Snapshot) -> Committed {
        let mut commit = Commit::default();
        for Stored { group, resource_type, name, encoded } in snapshot.resources {
            // It was taken for good when it was written.
            encoded.standing.accept();
            commit.put(Some(group), resource_type, name, Change::Upsert(encoded));
        }
        self.commit(commit)
    }

    /// Publishes a commit that is the whole picture: what it does not name is withdrawn with it, in the usual order (what
    /// refers goes before what it refers to). What it says again costs nothing.
    pub fn replace(&self, mut commit: Commit) -> Committed {
        for view in self.views().iter() {
            let tables = view.tables();
            for resource_type in ResourceType::ALL {
                let unnamed = tables.table(resource_type).published().map(|(name, _)| name);
                let unnamed: Vec<_> =
                    unnamed.filter(|name| !commit.names(&view.group, resource_type, name)).cloned().collect();
                for name in unnamed {
                    commit.put(Some(view.group.clone()), resource_type, name, Change::Remove);
                }
            }
        }
        self.commit(commit)
    }
}

/// A writer that keeps the checksum of what went through.
struct Summing<W> {
    out: W,
    sum: Xxh3,
}

impl<W: Write> Summing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sum.update(bytes);
        self.out.write_all(bytes)
    }

    fn put_len(&mut self, len: usize) -> io::Result<()> {
        let len = u32::try_from(len).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "4 GiB or more"))?;
        self.put(&len.to_le_bytes())
    }

    fn put_sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.put_len(bytes.len())?;
        self.put(bytes)
    }
}

fn sized<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], SnapshotError> {
    let len = rest.try_get_u32_le().map_err(inconsistent)? as usize;
    let (bytes, after) = rest.split_at_checked(len).ok_or(SnapshotError::Inconsistent)?;
    *rest = after;
    Ok(bytes)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, SnapshotError> {
    std::str::from_utf8(sized(rest)?).map_err(|_| SnapshotError::Inconsistent)
}

fn inconsistent(_: bytes::TryGetError) -> SnapshotError {
    SnapshotError::Inconsistent
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
