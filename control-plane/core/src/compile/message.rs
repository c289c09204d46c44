//! Small pieces that Envoy's messages are made of.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress,
};
use envoy_types::pb::google::protobuf::{BoolValue, Duration as ProtoDuration, UInt32Value};

pub(super) const fn uint32(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

pub(super) const fn bool(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

pub(super) fn duration(duration: Duration) -> Option<ProtoDuration> {
    Some(ProtoDuration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    })
}

pub(super) fn address(address: SocketAddr) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(u32::from(address.port()))),
            ..SocketAddress::default()
        })),
    }
}

/// The ADS stream that Envoy already has. The time-out bounds how long a missing answer holds up what waits for it (an EDS
/// that is never answered blocks every CDS ACK).
pub(super) fn ads(initial_fetch_timeout: Duration) -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        initial_fetch_timeout: duration(initial_fetch_timeout),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// `envoy.service.runtime.v3.Runtime`, with its fields in order: the generated type keeps them in a hash map, whose bytes
/// differ from run to run, and a version is the hash of the bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RuntimeLayer {
    /// The layer's name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its keys and values.
    #[prost(message, optional, tag = "2")]
    pub layer: Option<prost_types::Struct>,
}

impl RuntimeLayer {
    pub(super) fn new(name: &str, values: &BTreeMap<String, u32>) -> Self {
        let number =
            |value: u32| prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(f64::from(value))) };
        let fields = values.iter().map(|(key, value)| (key.clone(), number(*value))).collect();
        Self { name: name.to_owned(), layer: Some(prost_types::Struct { fields }) }
    }
}
