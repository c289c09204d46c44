//! How responses reach the wire: the resources are copied as they are, encoded long ago; only the few bytes around them
//! are written per stream. Requests are decoded the ordinary way.

use std::marker::PhantomData;

use bytes::BufMut;
use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

use crate::commit::{field_len, put_field};
use crate::session::Response;

// The fields of `DeltaDiscoveryResponse`, and of `DiscoveryResponse`, which has the same but for the last. Field 2 of
// both, the resources, is part of the fragments.
const VERSION: u32 = 1;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
const REMOVED_RESOURCES: u32 = 6;

/// The codec of the streams whose requests are of type `R`.
#[derive(Debug)]
pub(crate) struct XdsCodec<R>(PhantomData<R>);

impl<R> Default for XdsCodec<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + Default + 'static> Codec for XdsCodec<R> {
    type Encode = Response;
    type Decode = R;
    type Encoder = Self;
    type Decoder = ProstDecoder<R>;

    fn encoder(&mut self) -> Self::Encoder {
        Self::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl<R: Message + Default + 'static> Encoder for XdsCodec<R> {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, response: Response, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(response.encoded_len());
        response.write_to(buffer);
        Ok(())
    }
}

impl Response {
    /// How long the response is on the wire, without gRPC's frame.
    pub(crate) fn encoded_len(&self) -> usize {
        field_len(VERSION, self.version.len())
            + self.fragments.iter().map(bytes::Bytes::len).sum::<usize>()
            + field_len(TYPE_URL, self.type_url.len())
            + field_len(NONCE, self.nonce.len())
            + self.removed.iter().map(|name| field_len(REMOVED_RESOURCES, name.len())).sum::<usize>()
    }

    pub(crate) fn write_to(&self, out: &mut impl BufMut) {
        put_field(VERSION, self.version.as_bytes(), out);
        for fragment in &self.fragments {
            out.put_slice(fragment);
        }
        put_field(TYPE_URL, self.type_url.as_bytes(), out);
        put_field(NONCE, self.nonce.as_bytes(), out);
        for name in &self.removed {
            put_field(REMOVED_RESOURCES, name.as_bytes(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
    use prost::Message;

    use super::*;

    #[test]
    fn a_response_is_what_prost_reads() {
        let resources = vec![Resource { name: "a".to_owned(), ..Default::default() }];
        let fragments = DeltaDiscoveryResponse { resources: resources.clone(), ..Default::default() }.encode_to_vec();
        let response = Response {
            type_url: Arc::from("type.googleapis.com/x"),
            nonce: "1-CDS-1".to_owned(),
            version: "1234".to_owned(),
            fragments: vec![Bytes::from(fragments)],
            removed: vec![Arc::from("b"), Arc::from("")],
        };
        let mut wire = Vec::new();
        response.write_to(&mut wire);
        assert_eq!(wire.len(), response.encoded_len());
        let decoded = DeltaDiscoveryResponse::decode(wire.as_slice()).unwrap();
        assert_eq!(decoded.resources, resources);
        assert_eq!(decoded.system_version_info, "1234");
        assert_eq!(decoded.type_url, "type.googleapis.com/x");
        assert_eq!(decoded.nonce, "1-CDS-1");
        assert_eq!(decoded.removed_resources, ["b", ""]);
    }
}
