//! Serves one cluster with one endpoint to any Envoy that asks: `cargo run -p tidegate-xds --example static_cluster`.

use std::error::Error;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use tidegate_xds::{Commit, ResourceType, ServerConfig, Store, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Cluster, "shop", &cluster("shop"));
    commit.upsert(ResourceType::Endpoint, "shop", &assignment("shop", "127.0.0.1", 9001));

    let store = Store::new();
    store.commit(commit);
    store.open();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:18000").await?;
    let shutdown = async {
        // Without a signal handler the default one ends the process, which is as good.
        let _ = tokio::signal::ctrl_c().await;
    };
    serve(store, listener, ServerConfig::default(), shutdown).await?;
    Ok(())
}

fn cluster(name: &str) -> Cluster {
    let ads = ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        ..Default::default()
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads), ..Default::default() }),
        ..Default::default()
    }
}

fn assignment(cluster_name: &str, host: &str, port: u32) -> ClusterLoadAssignment {
    let socket = SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    let endpoint = Endpoint {
        address: Some(Address { address: Some(address::Address::SocketAddress(socket)) }),
        ..Default::default()
    };
    let host = LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
    ClusterLoadAssignment {
        cluster_name: cluster_name.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![host], ..Default::default() }],
        ..Default::default()
    }
}
