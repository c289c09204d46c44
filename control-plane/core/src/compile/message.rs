//! Small pieces that Envoy's messages are made of.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress,
};
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
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

/// A header that is set, replacing what is there; an empty value sets none.
pub(super) fn header(key: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd as i32,
        ..HeaderValueOption::default()
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

/// What a runtime key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuntimeValue {
    /// The weight of a cluster.
    Weight(u32),
    /// A share in basis points, where Envoy asks for a fraction: it would take a plain number for whole percent.
    Fraction(u32),
}

impl RuntimeValue {
    fn encoded(self) -> prost_types::Value {
        use prost_types::value::Kind;
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let number = |number: u32| value(Kind::NumberValue(f64::from(number)));
        match self {
            Self::Weight(weight) => number(weight),
            Self::Fraction(basis_points) => {
                let denominator = value(Kind::StringValue("TEN_THOUSAND".to_owned()));
                let fields =
                    [("numerator".to_owned(), number(basis_points)), ("denominator".to_owned(), denominator)].into();
                value(Kind::StructValue(prost_types::Struct { fields }))
            }
        }
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
    pub(super) fn new(name: &str, values: &BTreeMap<String, RuntimeValue>) -> Self {
        let fields = values.iter().map(|(key, value)| (key.clone(), value.encoded())).collect();
        Self { name: name.to_owned(), layer: Some(prost_types::Struct { fields }) }
    }

    /// Its values that are whole and not negative, as all that tidegate writes are.
    #[must_use]
    pub fn values(&self) -> BTreeMap<String, u32> {
        let whole = |value: &prost_types::Value| match value.kind {
            Some(prost_types::value::Kind::NumberValue(number)) => format!("{number}").parse().ok(),
            _ => None,
        };
        let fields = self.layer.iter().flat_map(|layer| &layer.fields);
        fields.filter_map(|(key, value)| Some((key.clone(), whole(value)?))).collect()
    }
}

/// The part of `envoy.extensions.filters.http.wasm.v3.Wasm` that holds `config.vm_config.capability_restriction_config`, with
/// its map in order, for the reason above. Bytes that follow those of the rest are merged with it: so says protobuf.
pub(super) fn restricted_to(capabilities: &[&str]) -> RestrictedWasm {
    let allowed = capabilities.iter().map(|name| ((*name).to_owned(), Sanitation {})).collect();
    let vm = RestrictedVm { capabilities: Some(Capabilities { allowed }) };
    RestrictedWasm { plugin: Some(RestrictedPlugin { vm: Some(vm) }) }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RestrictedWasm {
    #[prost(message, optional, tag = "1")]
    plugin: Option<RestrictedPlugin>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RestrictedPlugin {
    #[prost(message, optional, tag = "3")]
    vm: Option<RestrictedVm>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RestrictedVm {
    #[prost(message, optional, tag = "8")]
    capabilities: Option<Capabilities>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Capabilities {
    #[prost(btree_map = "string, message", tag = "1")]
    allowed: BTreeMap<String, Sanitation>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct Sanitation {}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
    use envoy_types::pb::envoy::extensions::wasm::v3::plugin_config::Vm;
    use envoy_types::pb::envoy::extensions::wasm::v3::{PluginConfig, VmConfig};
    use prost::Message;

    use super::*;

    #[test]
    fn the_restriction_is_merged_into_what_precedes_it() {
        let vm = VmConfig { vm_id: "x".to_owned(), ..VmConfig::default() };
        let plugin = PluginConfig { name: "y".to_owned(), vm: Some(Vm::VmConfig(vm)), ..PluginConfig::default() };
        let mut bytes = Wasm { config: Some(plugin) }.encode_to_vec();
        bytes.extend(restricted_to(&["b", "a"]).encode_to_vec());
        let plugin = Wasm::decode(bytes.as_slice()).unwrap().config.unwrap();
        let Some(Vm::VmConfig(vm)) = plugin.vm else { panic!("no VM") };
        assert_eq!((plugin.name.as_str(), vm.vm_id.as_str()), ("y", "x"));
        let mut allowed: Vec<String> =
            vm.capability_restriction_config.unwrap().allowed_capabilities.into_keys().collect();
        allowed.sort();
        assert_eq!(allowed, ["a", "b"]);
    }
}
