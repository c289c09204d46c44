//! What a caller hands to the store at once: resources to publish and names to withdraw. A resource is encoded here,
//! once, into the very bytes that every stream will carry; nothing after this encodes it again.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::resource::{ResourceType, Version};

/// A set of changes that belong together. Within one commit, streams get clusters before the routes that name them, and
/// lose clusters only after those routes are gone; see the crate's documentation for the order.
#[derive(Debug, Default)]
pub struct Commit {
    changes: BTreeMap<(ResourceType, Arc<str>), Change>,
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
        let encoded = Encoded::new(resource_type, &name, message);
        self.changes.insert((resource_type, name), Change::Upsert(encoded));
    }

    /// Withdraws a resource. Withdrawing what was never published changes nothing.
    pub fn remove(&mut self, resource_type: ResourceType, name: impl Into<String>) {
        self.changes.insert((resource_type, Arc::from(name.into())), Change::Remove);
    }

    /// Whether the commit says nothing at all.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a change that was made elsewhere.
    pub(crate) fn put(&mut self, resource_type: ResourceType, name: Arc<str>, change: Change) {
        self.changes.insert((resource_type, name), change);
    }

    /// Whether it says anything of a resource.
    pub(crate) fn names(&self, resource_type: ResourceType, name: &Arc<str>) -> bool {
        self.changes.contains_key(&(resource_type, Arc::clone(name)))
    }

    /// How many resources it publishes, and thus how often it encoded.
    pub(crate) fn upserts(&self) -> usize {
        self.changes.values().filter(|change| matches!(change, Change::Upsert(_))).count()
    }

    pub(crate) fn into_changes(self) -> BTreeMap<(ResourceType, Arc<str>), Change> {
        self.changes
    }
}

#[derive(Debug)]
pub(crate) enum Change {
    Upsert(Encoded),
    Remove,
}

/// A resource as it travels: field 2 of `DeltaDiscoveryResponse`, tag and length included, so that a response is a
/// concatenation. The `Any` inside is again field 2 and comes last, so the tail of the fragment is also field 2 of a
/// state-of-the-world `DiscoveryResponse`.
#[derive(Clone)]
pub(crate) struct Encoded {
    pub(crate) version: Version,
    pub(crate) fragment: Bytes,
    /// How many bytes at the end of the fragment are the message itself.
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
        Self { version, fragment: fragment.freeze(), message_len, same }
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
        let any_len =
            field_len(ANY_TYPE_URL, ResourceType::Cluster.type_url().len()) + field_len(ANY_VALUE, encoded.message_len);
        let tail = encoded.fragment.slice(encoded.fragment.len() - field_len(RESOURCES, any_len)..);
        let response = DiscoveryResponse::decode(tail).unwrap();
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
