//! How messages are on the wire. Responses: the resources are copied as they are, encoded long ago; only the few bytes
//! around them are written per stream. Requests of the state of the world: the names, which most requests repeat, are read
//! only when they are others than before.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use prost::{DecodeError, Message};
use xxhash_rust::xxh3::Xxh3;

use crate::commit::{field_len, put_field};
use crate::resource::{PerType, ResourceType};
use crate::session::{Request, Resources, Response};

// The fields of `DeltaDiscoveryResponse`, and of `DiscoveryResponse`, which has the same but for the last. Field 2 of
// both, the resources, is part of the fragments.
const VERSION: u32 = 1;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
const REMOVED_RESOURCES: u32 = 6;

/// gRPC's frame of a message: whether it is compressed, and its length.
pub(crate) const FRAME: usize = 5;

/// The field of `DiscoveryRequest` that repeats the names.
const RESOURCE_NAMES: u32 = 3;

impl Response {
    /// How long the response is on the wire, without gRPC's frame.
    pub(crate) fn encoded_len(&self) -> usize {
        field_len(VERSION, self.version.len())
            + self.resources.pieces().iter().map(Bytes::len).sum::<usize>()
            + field_len(TYPE_URL, self.type_url.len())
            + field_len(NONCE, self.nonce.len())
            + self.removed.iter().map(|name| field_len(REMOVED_RESOURCES, name.len())).sum::<usize>()
    }

    /// The response in gRPC's frame, in pieces: what is shared is not copied.
    pub(crate) fn framed(&self) -> Vec<Bytes> {
        let len = self.encoded_len();
        let shared = match &self.resources {
            Resources::Shared(parcel) => parcel.resources.len(),
            Resources::Own(_) => 0,
        };
        let mut out = BytesMut::with_capacity(FRAME + len - shared);
        out.put_u8(0);
        // A response is cut long before 4 GiB, and a single resource is not that long.
        out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
        put_field(VERSION, self.version.as_bytes(), &mut out);
        let mut pieces = Vec::new();
        match &self.resources {
            Resources::Own(fragments) => fragments.iter().for_each(|fragment| out.put_slice(fragment)),
            Resources::Shared(parcel) => pieces.extend([out.split().freeze(), parcel.resources.clone()]),
        }
        put_field(TYPE_URL, self.type_url.as_bytes(), &mut out);
        put_field(NONCE, self.nonce.as_bytes(), &mut out);
        for name in &self.removed {
            put_field(REMOVED_RESOURCES, name.as_bytes(), &mut out);
        }
        pieces.push(out.freeze());
        pieces
    }

    /// The response as it is on the wire, without the frame.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn message(&self) -> Vec<u8> {
        self.framed().concat().split_off(FRAME)
    }
}

/// The request of one of the two variants.
pub(crate) trait Asks: Sized + Send + 'static {
    /// Reads a message. `seen` is what the stream has said before.
    fn read(message: &[u8], seen: &mut Seen) -> Result<Self, DecodeError>;

    fn request(&self) -> Request<'_>;
}

/// The names that a stream has listed last, as a hash.
#[derive(Debug, Default)]
pub(crate) struct Seen(PerType<Option<u128>>);

impl Asks for DeltaDiscoveryRequest {
    fn read(message: &[u8], _: &mut Seen) -> Result<Self, DecodeError> {
        Self::decode(message)
    }

    fn request(&self) -> Request<'_> {
        self.into()
    }
}

/// A state-of-the-world request.
#[derive(Debug)]
pub(crate) struct Listed {
    message: DiscoveryRequest,
    /// The names are those of the last request for this type, and were not read.
    same_names: bool,
}

impl Asks for Listed {
    fn read(message: &[u8], seen: &mut Seen) -> Result<Self, DecodeError> {
        let (names, rest) = split(message)?;
        let head = DiscoveryRequest::decode(rest.as_slice())?;
        // A stream of one type may leave it out: then there is nothing to know it by, and the names are read.
        let Some(resource_type) = ResourceType::from_type_url(&head.type_url) else {
            return Ok(Self { message: DiscoveryRequest::decode(message)?, same_names: false });
        };
        if seen.0[resource_type].replace(names) == Some(names) {
            return Ok(Self { message: head, same_names: true });
        }
        Ok(Self { message: DiscoveryRequest::decode(message)?, same_names: false })
    }

    fn request(&self) -> Request<'_> {
        let request = Request::from(&self.message);
        if self.same_names { request.with_names_of_before() } else { request }
    }
}

/// A hash of the fields that are names, and the message without them.
fn split(message: &[u8]) -> Result<(u128, Vec<u8>), DecodeError> {
    let mut names = Xxh3::new();
    let mut others = Vec::new();
    let mut rest = message;
    // Where a run of fields of one kind began, and which kind.
    let (mut run, mut in_names) = (message, false);
    let mut end_run = |run: &[u8], rest: &[u8], in_names: bool| {
        let run = &run[..run.len() - rest.len()];
        if in_names { names.update(run) } else { others.extend_from_slice(run) }
    };
    while rest.has_remaining() {
        let field = rest;
        let (tag, wire_type) = decode_key(&mut rest)?;
        let is_name = tag == RESOURCE_NAMES && wire_type == WireType::LengthDelimited;
        if is_name != in_names {
            end_run(run, field, in_names);
            (run, in_names) = (field, is_name);
        }
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
    }
    end_run(run, rest, in_names);
    Ok((names.digest128(), others))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_response_is_what_prost_reads() {
        let resources = vec![Resource { name: "a".to_owned(), ..Default::default() }];
        let fragments = DeltaDiscoveryResponse { resources: resources.clone(), ..Default::default() }.encode_to_vec();
        let response = Response {
            type_url: Arc::from("type.googleapis.com/x"),
            nonce: "1-CDS-1".to_owned(),
            version: "1234".to_owned(),
            resources: Resources::Own(vec![Bytes::from(fragments)]),
            removed: vec![Arc::from("b"), Arc::from("")],
        };
        let framed = response.framed().concat();
        assert_eq!(framed[0], 0);
        assert_eq!(u32::from_be_bytes(framed[1..FRAME].try_into().unwrap()) as usize, framed.len() - FRAME);
        let decoded = DeltaDiscoveryResponse::decode(&framed[FRAME..]).unwrap();
        assert_eq!(decoded.resources, resources);
        assert_eq!(decoded.system_version_info, "1234");
        assert_eq!(decoded.type_url, "type.googleapis.com/x");
        assert_eq!(decoded.nonce, "1-CDS-1");
        assert_eq!(decoded.removed_resources, ["b", ""]);
    }

    fn listed(resource_type: ResourceType, names: &[String], nonce: &str) -> Vec<u8> {
        let names = names.to_vec();
        let type_url = resource_type.type_url().to_owned();
        let response_nonce = nonce.to_owned();
        DiscoveryRequest { type_url, resource_names: names, response_nonce, ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn names_are_read_when_they_are_others_than_before() {
        let mut seen = Seen::default();
        let mut same = |resource_type, names: &[&str], nonce: &str| {
            let names: Vec<_> = names.iter().copied().map(str::to_owned).collect();
            let read = Listed::read(&listed(resource_type, &names, nonce), &mut seen).unwrap();
            assert_eq!(read.message.response_nonce, nonce);
            assert_eq!(read.message.resource_names, if read.same_names { vec![] } else { names });
            read.same_names
        };
        assert!(!same(ResourceType::Endpoint, &["a", "b"], ""));
        assert!(same(ResourceType::Endpoint, &["a", "b"], "1"));
        assert!(!same(ResourceType::Route, &["a", "b"], "1"));
        assert!(!same(ResourceType::Endpoint, &["ab"], "2"));
        assert!(!same(ResourceType::Endpoint, &["a", "b"], "3"));
        assert!(!same(ResourceType::Endpoint, &[], "4"));
        assert!(same(ResourceType::Endpoint, &[], "5"));
    }

    proptest! {
        #[test]
        fn what_is_split_is_what_was_there(names in prop::collection::vec(".{0,9}", 0..5), bytes: Vec<u8>) {
            let message = listed(ResourceType::Cluster, &names, "n");
            let (hash, rest) = split(&message).unwrap();
            prop_assert_eq!(rest, listed(ResourceType::Cluster, &[], "n"));
            prop_assert_eq!(hash, split(&listed(ResourceType::Cluster, &names, "other")).unwrap().0);
            let _ = Listed::read(&bytes, &mut Seen::default());
        }
    }
}
