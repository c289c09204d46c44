//! What is published: clusters and endpoints as tidegate's compiler makes them, in size and in shape, and the one runtime
//! layer that carries weights.

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::{Duration, Struct, UInt32Value, Value, value::Kind};

use crate::plan::{RUNTIME_LAYER, name};

pub(crate) fn cluster(service: usize) -> Cluster {
    let limit = |value| Some(UInt32Value { value });
    Cluster {
        name: name(service),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ConfigSource {
                resource_api_version: ApiVersion::V3 as i32,
                config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
                ..Default::default()
            }),
            ..Default::default()
        }),
        connect_timeout: Some(Duration { seconds: 0, nanos: 500_000_000 }),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![Thresholds {
                max_connections: limit(10_000),
                max_pending_requests: limit(10_000),
                max_requests: limit(50_000),
                ..Default::default()
            }],
            ..Default::default()
        }),
        common_lb_config: Some(CommonLbConfig {
            healthy_panic_threshold: Some(Percent { value: 0.0 }),
            ..Default::default()
        }),
        outlier_detection: Some(OutlierDetection { split_external_local_origin_errors: true, ..Default::default() }),
        ..Default::default()
    }
}

/// So many endpoints, the first with this weight.
pub(crate) fn assignment(service: usize, endpoints: usize, weight: u32) -> ClusterLoadAssignment {
    let endpoint = |nth: usize| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(Address {
                address: Some(address::Address::SocketAddress(SocketAddress {
                    address: format!("10.{}.{}.{}", service / 250, service % 250, nth + 2),
                    port_specifier: Some(PortSpecifier::PortValue(8080)),
                    ..Default::default()
                })),
            }),
            ..Default::default()
        })),
        load_balancing_weight: Some(UInt32Value { value: if nth == 0 { weight } else { 1 } }),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: name(service),
        endpoints: vec![LocalityLbEndpoints {
            lb_endpoints: (0..endpoints).map(endpoint).collect(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub(crate) fn weights(canary: u32) -> Runtime {
    let weight = Value { kind: Some(Kind::NumberValue(f64::from(canary))) };
    Runtime {
        name: RUNTIME_LAYER.to_owned(),
        layer: Some(Struct { fields: [("tidegate.weight.shop.v2".to_owned(), weight)].into() }),
    }
}
