//! Serves one cluster with one endpoint to any Envoy that asks: `cargo run -p tidegate-xds --example static_cluster`. It
//! listens on the address that it is given, or on 127.0.0.1:18000.

use std::env;
use std::error::Error;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use tidegate_xds::{Commit, ResourceType, ServerConfig, Store, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Cluster, "shop", &cluster("shop", "127.0.0.1", 9001));

    let store = Store::new();
    store.commit(commit);
    store.open();

    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:18000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    let shutdown = async {
        // Without a signal handler the default one ends the process, which is as good.
        let _ = tokio::signal::ctrl_c().await;
    };
    serve(store, listener, ServerConfig::default(), shutdown).await?;
    Ok(())
}

/// A cluster of the type that is the default: static, its endpoints in it.
fn cluster(name: &str, host: &str, port: u32) -> Cluster {
    let socket = SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    let endpoint = HostIdentifier::Endpoint(Endpoint { address: Some(address), ..Default::default() });
    let hosts = vec![LbEndpoint { host_identifier: Some(endpoint), ..Default::default() }];
    Cluster {
        name: name.to_owned(),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: hosts, ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}
