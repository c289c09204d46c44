//! The bootstrap that an Envoy starts with: where its xDS comes from, how fast it comes back after a cut, where it reports
//! its load, where its admin interface listens, and how many connections it takes. Everything else comes over xDS. It is a value; nothing is put
//! together from text.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::config::{Admin, Config};

/// The static cluster that leads to the control plane.
pub const XDS_CLUSTER: &str = "tidegate-xds";
/// The RTDS layer that carries the weights.
pub const RUNTIME_LAYER: &str = "tidegate";
/// The node id of an edge that is given none.
pub const NODE_ID: &str = "edge";
/// The node cluster of every edge.
pub const NODE_CLUSTER: &str = "tidegate";

/// Downstream connections an edge takes before it refuses new ones: some 2 GiB of buffers at the worst, and below the usual
/// hard limit of open files (65,536 and more) together with as many connections upstream.
pub const MAX_CONNECTIONS: u32 = 25_000;

/// How long an Envoy waits for its first runtime layer. The routes' own weights are safe without it.
const RUNTIME_TIMEOUT: &str = "5s";

/// What the configuration does not say of one Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapOptions {
    /// The node's id.
    pub node_id: String,
    /// Where its admin interface listens.
    pub admin: Admin,
}

/// The bootstrap of an edge of this configuration.
#[must_use]
pub fn bootstrap(config: &Config, options: &BootstrapOptions) -> Value {
    // For ever: an Envoy without its first clusters and listeners is not ready, whatever the time.
    let for_ever = "0s";
    json!({
        "node": { "id": options.node_id, "cluster": NODE_CLUSTER },
        "admin": {
            "address": admin_address(&options.admin),
            // Those who look why it refuses connections must not be refused.
            "ignore_global_conn_limit": true,
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{
                    "envoy_grpc": {
                        "cluster_name": XDS_CLUSTER,
                        // Envoy's defaults (0.5 s to 30 s) would leave it alone for long after a restart of the control plane.
                        "retry_policy": { "retry_back_off": { "base_interval": "0.05s", "max_interval": "0.3s" } },
                    },
                }],
            },
            "cds_config": ads(for_ever),
            "lds_config": ads(for_ever),
        },
        // Load reports. The server sets interval and clusters, and after a cut Envoy waits 5 s, whatever is said here.
        "cluster_manager": {
            "load_stats_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER } }],
            },
        },
        "static_resources": { "clusters": [xds_cluster(config.xds)] },
        "layered_runtime": {
            "layers": [{
                "name": RUNTIME_LAYER,
                "rtds_layer": { "name": RUNTIME_LAYER, "rtds_config": ads(RUNTIME_TIMEOUT) },
            }],
        },
        "overload_manager": {
            "resource_monitors": [{
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": MAX_CONNECTIONS,
                },
            }],
        },
        // Statistics of a cluster that nobody has asked anything cost memory and say nothing.
        "deferred_stat_options": { "enable_deferred_creation_stats": true },
    })
}

/// The bootstrap as YAML.
///
/// # Errors
/// None that is known: every part of a bootstrap can be written.
pub fn to_yaml(bootstrap: &Value) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(bootstrap)
}

fn ads(initial_fetch_timeout: &str) -> Value {
    json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": initial_fetch_timeout })
}

fn xds_cluster(address: SocketAddr) -> Value {
    json!({
        "name": XDS_CLUSTER,
        "type": "STATIC",
        // The same machine answers at once or not at all; the next try comes the sooner.
        "connect_timeout": "0.25s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {
                        // A peer that vanished without a word is noticed after 10 s.
                        "connection_keepalive": { "interval": "5s", "timeout": "5s" },
                    },
                },
            },
        },
        "upstream_connection_options": {
            "tcp_keepalive": { "keepalive_time": 5, "keepalive_interval": 2, "keepalive_probes": 3 },
        },
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket_address(address) } }] }],
        },
    })
}

fn admin_address(admin: &Admin) -> Value {
    match admin {
        Admin::Tcp(address) => socket_address(*address),
        // Only the user that runs Envoy may connect.
        Admin::Unix(path) => json!({ "pipe": { "path": path, "mode": 0o600 } }),
    }
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_from_the_configuration() {
        let config = Config { xds: "[::1]:7000".parse().unwrap(), ..Config::default() };
        let options =
            BootstrapOptions { node_id: "edge-7".to_owned(), admin: Admin::Tcp("127.0.0.1:9901".parse().unwrap()) };
        let value = bootstrap(&config, &options);
        assert_eq!(value["node"]["id"], "edge-7");
        assert_eq!(value["admin"]["address"]["socket_address"]["port_value"], 9901);
        let endpoint = &value["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0];
        assert_eq!(endpoint["endpoint"]["address"]["socket_address"], json!({ "address": "::1", "port_value": 7000 }));
    }

    #[test]
    fn yaml_and_value_are_the_same() {
        let options = BootstrapOptions { node_id: "1.0".to_owned(), admin: Admin::Unix("/run/a: b.sock".to_owned()) };
        let value = bootstrap(&Config::default(), &options);
        let read: Value = serde_saphyr::from_str(&to_yaml(&value).unwrap()).unwrap();
        assert_eq!(read, value);
    }
}
