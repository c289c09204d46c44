//! What a caller hands to the store at once: resources to publish and names to withdraw. A resource is encoded here,
//! once, into the very bytes that every stream will carry; nothing after this encodes it again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::group::{Group, Grouping};
use crate::resource::{ResourceType, Version};

/// A set of changes that belong together. Within one commit, streams get clusters before the routes that name them, and
/// lose clusters only after those routes are gone; see the crate's documentation for the order.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// By type and name; what is said for one group follows, and so overrides, what is said for everyone.
    changes: BTreeMap<(ResourceType, Arc<str>, Option<Group>), Change>,
    grouping: Option<Grouping>,
    urgent: bool,
    encodes: usize,
}

impl Commit {
    /// Publishes a resource under a name, or replaces what was published under it. Content that equals what the store
    /// holds changes nothing and reaches no stream.
    ///
    /// Protobuf maps have no order, and `prost` writes a `HashMap` in any order. The store sees through that: the same
    /// entries in another order are no change. Only the version may then differ between two processes, which costs a
    /// reconnecting client one repeat.
    pub fn upsert<M>(&mut self, resource_type: ResourceType, name: impl Into<String>, message: &M)
    where
        M: Message + Default + PartialEq,
    {
        let name = Arc::<str>::from(name.into());
        let encoded = self.encode(resource_type, &name, message);
        self.changes.insert((resource_type, name, None), Change::Upsert(encoded));
    }

    /// Withdraws a resource. Withdrawing what was never published changes nothing.
    pub fn remove(&mut self, resource_type: ResourceType, name: impl Into<String>) {
        self.changes.insert((resource_type, Arc::from(name.into()), None), Change::Remove);
    }

    /// Publishes a resource to the clients of some [groups](Grouping) alone. It is encoded once all the same. Where the
    /// commit also says something for everyone about this name, this is what holds for these groups.
    pub fn upsert_for<'a, M>(
        &mut self,
        groups: impl IntoIterator<Item = &'a Group>,
        resource_type: ResourceType,
        name: impl Into<String>,
        message: &M,
    ) where
        M: Message + Default + PartialEq,
    {
        let name = Arc::<str>::from(name.into());
        let encoded = self.encode(resource_type, &name, message);
        for group in groups {
            let key = (resource_type, Arc::clone(&name), Some(group.clone()));
            self.changes.insert(key, Change::Upsert(encoded.clone()));
        }
    }

    /// Withdraws a resource from the clients of some groups alone.
    pub fn remove_for<'a>(
        &mut self,
        groups: impl IntoIterator<Item = &'a Group>,
        resource_type: ResourceType,
        name: impl Into<String>,
    ) {
        let name = Arc::<str>::from(name.into());
        for group in groups {
            self.changes.insert((resource_type, Arc::clone(&name), Some(group.clone())), Change::Remove);
        }
    }

    /// Divides the clients into other groups. A group that is new starts with what this commit publishes to it or to
    /// everyone; one that is not in the new grouping ends. Streams whose client is now in another group end with
    /// UNAVAILABLE; their clients keep what they have, come back, and get what their group has.
    pub fn regroup(&mut self, grouping: Grouping) {
        self.grouping = Some(grouping);
    }

    /// Marks the commit as one that must not wait: it is sent at once also to clients that were sent something of the
    /// same types a moment ago. For what takes something unhealthy out; removals need no mark.
    pub fn mark_urgent(&mut self) {
        self.urgent = true;
    }

    /// Whether the commit says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.grouping.is_none()
    }

    /// Adds a change that was made elsewhere.
    pub(crate) fn put(&mut self, group: Option<Group>, resource_type: ResourceType, name: Arc<str>, change: Change) {
        self.changes.insert((resource_type, name, group), change);
    }

    /// Whether it says anything of a resource to a group.
    pub(crate) fn names(&self, group: &Group, resource_type: ResourceType, name: &Arc<str>) -> bool {
        let key = |group| (resource_type, Arc::clone(name), group);
        self.changes.contains_key(&key(None)) || self.changes.contains_key(&key(Some(group.clone())))
    }

    /// How many resources were encoded for it.
    pub(crate) fn encodes(&self) -> usize {
        self.encodes
    }

    pub(crate) fn take_grouping(&mut self) -> Option<Grouping> {
        self.grouping.take()
    }

    /// What it says to one group, in order of delivery.
    pub(crate) fn changes_for(&self, group: &Group) -> Changes {
        let of_group = self.changes.iter().filter(|((.., of), _)| of.as_ref().is_none_or(|of| of == group));
        let urgent = self.urgent;
        let changes =
            of_group.map(|((resource_type, name, _), change)| ((*resource_type, Arc::clone(name)), change.clone()));
        Changes { changes: changes.collect(), urgent }
    }

    fn encode<M>(&mut self, resource_type: ResourceType, name: &str, message: &M) -> Encoded
    where
        M: Message + Default + PartialEq,
    {
        self.encodes += 1;
        Encoded::new(resource_type, name, message)
    }
}

/// What a commit says to one group.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) changes: BTreeMap<(ResourceType, Arc<str>), Change>,
    /// It must not wait for more.
    pub(crate) urgent: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Change {
    Upsert(Encoded),
    Remove,
}

/// What is known of one version of one resource, whichever clients it went to.
#[derive(Debug, Default)]
pub(crate) struct Standing(AtomicU8);

impl Standing {
    const ACCEPTED: u8 = 1;
    const REFUSED: u8 = 2;
    const SENT: u8 = 4;

    /// Notes that a response has it.
    pub(crate) fn send(&self) {
        if !self.is_sent() {
            self.0.fetch_or(Self::SENT, Ordering::AcqRel);
        }
    }

    /// Whether any client may have it, or may have refused it.
    pub(crate) fn is_sent(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Notes that a client accepted it. `true` if one had refused it and this is the first to accept it.
    pub(crate) fn accept(&self) -> bool {
        // Most of the time it is known already, by another client: no write then, which would be shared by all cores.
        self.0.load(Ordering::Relaxed) & Self::ACCEPTED == 0
            && self.0.fetch_or(Self::ACCEPTED, Ordering::AcqRel) & Self::REFUSED != 0
    }

    pub(crate) fn refuse(&self) {
        self.0.fetch_or(Self::REFUSED, Ordering::AcqRel);
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.0.load(Ordering::Acquire) & Self::ACCEPTED != 0
    }

    /// Refused by some client and accepted by none.
    pub(crate) fn is_quarantined(&self) -> bool {
        self.0.load(Ordering::Acquire) & (Self::ACCEPTED | Self::REFUSED) == Self::REFUSED
    }
}

/// A resource as it travels: field 2 of `DeltaDiscoveryResponse`, tag and length included, so that a response is a
/// concatenation. The `Any` inside is again field 2 and comes last, so the tail of the fragment is also field 2 of a
/// state-of-the-world `DiscoveryResponse`.
#[derive(Clone)]
pub(crate) struct Encoded {
    pub(crate) version: Version,
    pub(crate) fragment: Bytes,
    /// Shared by all copies.
    pub(crate) standing: Arc<Standing>,
    /// How many bytes at the end of the fragment are the `Any`, with tag and length.
    any_field_len: usize,
    /// How many are the message itself.
    message_len: usize,
    /// Whether two encodings are the same message; see [`Commit::upsert`] on maps.
    same: fn(&[u8], &[u8]) -> bool,
}

/// The field that carries resources, in `DeltaDiscoveryResponse`, in `DiscoveryResponse`, and the `Any` in `Resource`.
const RESOURCES: u32 = 2;
const RESOURCE_VERSION: u32 = 1;
const RESOURCE_NAME: u32 = 3;
const ANY_TYPE_URL: u32 = 1;
const ANY_VALUE: u32 = 2;

impl Encoded {
    fn new<M>(resource_type: ResourceType, name: &str, message: &M) -> Self
    where
        M: Message + Default + PartialEq,
    {
        Self::envelop(resource_type, name, message.encoded_len(), same::<M>, |out| message.encode_raw(out))
    }

    /// A message that was encoded before, and whose type nobody knows here.
    pub(crate) fn of_bytes(resource_type: ResourceType, name: &str, message: &[u8]) -> Self {
        Self::envelop(resource_type, name, message.len(), |left, right| left == right, |out| out.put_slice(message))
    }

    fn envelop(
        resource_type: ResourceType,
        name: &str,
        message_len: usize,
        same: fn(&[u8], &[u8]) -> bool,
        write: impl FnOnce(&mut BytesMut),
    ) -> Self {
        let type_url = resource_type.type_url();
        let any_len = field_len(ANY_TYPE_URL, type_url.len()) + field_len(ANY_VALUE, message_len);
        let resource_len = field_len(RESOURCE_VERSION, Version::WIRE_LEN)
            + field_len(RESOURCE_NAME, name.len())
            + field_len(RESOURCES, any_len);

        let mut fragment = BytesMut::with_capacity(field_len(RESOURCES, resource_len));
        put_header(RESOURCES, resource_len, &mut fragment);
        put_header(RESOURCE_VERSION, Version::WIRE_LEN, &mut fragment);
        let version_at = fragment.len();
        fragment.put_bytes(b'0', Version::WIRE_LEN);
        put_field(RESOURCE_NAME, name.as_bytes(), &mut fragment);
        put_header(RESOURCES, any_len, &mut fragment);
        put_field(ANY_TYPE_URL, type_url.as_bytes(), &mut fragment);
        put_header(ANY_VALUE, message_len, &mut fragment);
        let message_at = fragment.len();
        write(&mut fragment);

        let version = Version::of(&fragment[message_at..]);
        fragment[version_at..version_at + Version::WIRE_LEN].copy_from_slice(&version.wire());
        let standing = Arc::default();
        let any_field_len = field_len(RESOURCES, any_len);
        Self { version, fragment: fragment.freeze(), standing, any_field_len, message_len, same }
    }

    /// The resource as a state-of-the-world response carries it.
    pub(crate) fn any_field(&self) -> Bytes {
        self.fragment.slice(self.fragment.len() - self.any_field_len..)
    }

    /// The encoded message, without its envelope.
    pub(crate) fn message(&self) -> &[u8] {
        &self.fragment[self.fragment.len() - self.message_len..]
    }

    /// Whether this says the same as another encoding. Equal versions say so; so may two orders of one map, which have
    /// the same bytes in another order.
    pub(crate) fn says_the_same_as(&self, other: &Self) -> bool {
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        self.version == other.version
            || (self.message_len == other.message_len
                && sum(self.message()) == sum(other.message())
                && (self.same)(self.message(), other.message()))
    }
}

impl fmt::Debug for Encoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Encoded({}, {} bytes)", self.version, self.fragment.len())
    }
}

/// Writes one length-delimited field.
pub(crate) fn put_field(tag: u32, content: &[u8], out: &mut impl BufMut) {
    put_header(tag, content.len(), out);
    out.put_slice(content);
}

/// How long [`put_field`] makes content of this length.
pub(crate) fn field_len(tag: u32, content_len: usize) -> usize {
    key_len(tag) + encoded_len_varint(content_len as u64) + content_len
}

fn put_header(tag: u32, content_len: usize, out: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(content_len as u64, out);
}

fn same<M: Message + Default + PartialEq>(left: &[u8], right: &[u8]) -> bool {
    matches!((M::decode(left), M::decode(right)), (Ok(left), Ok(right)) if left == right)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
    use envoy_types::pb::envoy::service::runtime::v3::Runtime;
    use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

    use super::*;

    fn cluster(name: &str) -> Cluster {
        Cluster { name: name.to_owned(), alt_stat_name: "x".repeat(300), ..Default::default() }
    }

    #[test]
    fn a_fragment_is_the_resources_field_of_a_response() {
        let encoded = Encoded::new(ResourceType::Cluster, "shop/v1", &cluster("shop/v1"));
        let response = DeltaDiscoveryResponse::decode(encoded.fragment.as_ref()).unwrap();
        let [resource] = response.resources.as_slice() else { panic!("one resource: {response:?}") };
        assert_eq!(resource.name, "shop/v1");
        assert_eq!(resource.version, encoded.version.to_string());
        let any = resource.resource.as_ref().unwrap();
        assert_eq!(any.type_url, ResourceType::Cluster.type_url());
        assert_eq!(Cluster::decode(any.value.as_slice()).unwrap(), cluster("shop/v1"));
    }

    #[test]
    fn the_tail_of_a_fragment_is_the_resources_field_of_a_state_of_the_world_response() {
        let encoded = Encoded::new(ResourceType::Cluster, "shop/v1", &cluster("shop/v1"));
        let response = DiscoveryResponse::decode(encoded.any_field()).unwrap();
        assert_eq!(Cluster::decode(response.resources[0].value.as_slice()).unwrap(), cluster("shop/v1"));
    }

    #[test]
    fn a_map_in_another_order_says_the_same() {
        let layer = |keys: [u32; 12]| Runtime {
            name: "layer".to_owned(),
            layer: Some(Struct {
                fields: keys
                    .map(|key| (key.to_string(), Value { kind: Some(Kind::NumberValue(f64::from(key))) }))
                    .into_iter()
                    .collect(),
            }),
        };
        let keys = std::array::from_fn(|key| u32::try_from(key).unwrap());
        let first = Encoded::new(ResourceType::Runtime, "layer", &layer(keys));
        for _ in 0..8 {
            assert!(Encoded::new(ResourceType::Runtime, "layer", &layer(keys)).says_the_same_as(&first));
        }
        let mut other = keys;
        other[3] = 100;
        assert!(!Encoded::new(ResourceType::Runtime, "layer", &layer(other)).says_the_same_as(&first));
    }
}
