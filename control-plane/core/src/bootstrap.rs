//! The bootstrap that an Envoy starts with: where its xDS comes from, how fast it comes back after a cut, where it reports
//! its load, where its admin interface listens, and how many connections it takes. Everything else comes over xDS. It is a value; nothing is put
//! together from text.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use crate::config::{Admin, Config};

/// The static cluster that leads to the control plane.
pub const XDS_CLUSTER: &str = "tidegate-xds";
/// The RTDS layer that carries the weights.
pub const RUNTIME_LAYER: &str = "tidegate";
/// The node id of an edge that is given none.
pub const NODE_ID: &str = "edge";
/// The node cluster of an edge that is given none.
pub const NODE_CLUSTER: &str = "tidegate";

/// Downstream connections an edge takes before it refuses new ones: some 2 GiB of buffers at the worst, and below the usual
/// hard limit of open files (65,536 and more) together with as many connections upstream.
pub const MAX_CONNECTIONS: u32 = 25_000;

/// How long an Envoy waits for its first runtime layer. The routes' own weights are safe without it.
const RUNTIME_TIMEOUT: &str = "5s";

/// What the configuration does not say of one Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapOptions {
    /// What the node says of itself.
    pub node: EdgeNode,
    /// Where its admin interface listens.
    pub admin: Admin,
    /// Where it reaches xDS; `None`: where the configuration serves it, on this machine.
    pub xds: Option<SocketAddr>,
    /// What it shows, and wants to see, where xDS is served over TLS.
    pub tls: Option<EdgeTls>,
}

/// What an edge says of itself: by it the control plane knows it, and finds the [group](crate::config::NodeGroups) that it
/// belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeNode {
    /// The node's id.
    pub id: String,
    /// The node's cluster.
    pub cluster: String,
    /// The node's metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Default for EdgeNode {
    fn default() -> Self {
        Self { id: NODE_ID.to_owned(), cluster: NODE_CLUSTER.to_owned(), metadata: BTreeMap::new() }
    }
}

/// An edge's side of mutual TLS. The files are Envoy's to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgeTls {
    /// The edge's certificate, and after it the intermediate ones.
    pub cert: String,
    /// Its private key.
    pub key: String,
    /// The authorities that may have signed the control plane's certificate.
    pub ca: String,
    /// The DNS name in that certificate; `None`: the address of xDS, as an IP address.
    pub server_name: Option<String>,
}

/// The bootstrap of an edge of this configuration.
#[must_use]
pub fn bootstrap(config: &Config, options: &BootstrapOptions) -> Value {
    // For ever: an Envoy without its first clusters and listeners is not ready, whatever the time.
    let for_ever = "0s";
    let xds = options.xds.unwrap_or_else(|| on_this_machine(config.xds.address));
    let mut node = json!({ "id": options.node.id, "cluster": options.node.cluster });
    if !options.node.metadata.is_empty() {
        node["metadata"] = json!(options.node.metadata);
    }
    json!({
        "node": node,
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
        "static_resources": { "clusters": [xds_cluster(xds, options.tls.as_ref())] },
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

/// All addresses of this machine are one from within.
fn on_this_machine(served: SocketAddr) -> SocketAddr {
    let ip = match served.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, served.port())
}

fn xds_cluster(address: SocketAddr, tls: Option<&EdgeTls>) -> Value {
    let mut cluster = json!({
        "name": XDS_CLUSTER,
        "type": "STATIC",
        // The same machine answers at once or not at all; the next try comes the sooner. With TLS it may be another one,
        // and the handshake is a part of it.
        "connect_timeout": if tls.is_some() { "0.5s" } else { "0.25s" },
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
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = transport_socket(address, tls);
    }
    cluster
}

fn transport_socket(address: SocketAddr, tls: &EdgeTls) -> Value {
    // Without it any certificate of the same authority would do, another edge's, too.
    let (san_type, name) = match &tls.server_name {
        Some(name) => ("DNS", name.clone()),
        None => ("IP_ADDRESS", address.ip().to_string()),
    };
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificates": [{
                "certificate_chain": { "filename": tls.cert },
                "private_key": { "filename": tls.key },
            }],
            "validation_context": {
                "trusted_ca": { "filename": tls.ca },
                "match_typed_subject_alt_names": [{ "san_type": san_type, "matcher": { "exact": name } }],
            },
        },
    });
    if let Some(name) = &tls.server_name {
        context["sni"] = json!(name);
    }
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": context })
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
    use crate::config::Xds;

    fn serving(address: &str) -> Config {
        Config { xds: Xds { address: address.parse().unwrap(), tls: None }, ..Config::default() }
    }

    fn options(admin: Admin) -> BootstrapOptions {
        let node = EdgeNode { id: "edge-7".to_owned(), ..EdgeNode::default() };
        BootstrapOptions { node, admin, xds: None, tls: None }
    }

    /// Where it goes for xDS.
    fn xds(bootstrap: &Value) -> Value {
        let cluster = &bootstrap["static_resources"]["clusters"][0];
        let endpoint = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        endpoint["address"]["socket_address"].clone()
    }

    #[test]
    fn addresses_come_from_the_configuration() {
        let value = bootstrap(&serving("[::1]:7000"), &options(Admin::Tcp("127.0.0.1:9901".parse().unwrap())));
        assert_eq!(value["node"], json!({ "id": "edge-7", "cluster": "tidegate" }));
        assert_eq!(value["admin"]["address"]["socket_address"]["port_value"], 9901);
        assert_eq!(xds(&value), json!({ "address": "::1", "port_value": 7000 }));
    }

    #[test]
    fn all_addresses_are_reached_by_loopback_unless_one_is_named() {
        let mut options = options(Admin::Unix("/run/a.sock".to_owned()));
        for (served, reached) in [("0.0.0.0:7", "127.0.0.1"), ("[::]:7", "::1"), ("10.0.0.1:7", "10.0.0.1")] {
            assert_eq!(xds(&bootstrap(&serving(served), &options)), json!({ "address": reached, "port_value": 7 }));
        }
        options.xds = Some("192.0.2.7:8".parse().unwrap());
        assert_eq!(
            xds(&bootstrap(&serving("0.0.0.0:7"), &options)),
            json!({ "address": "192.0.2.7", "port_value": 8 })
        );
    }

    #[test]
    fn the_control_plane_is_held_against_a_name_whatever_signed_it() {
        let mut options = options(Admin::Unix("/run/a.sock".to_owned()));
        let mut tls = EdgeTls {
            cert: "c.pem".to_owned(),
            key: "k.pem".to_owned(),
            ca: "ca.pem".to_owned(),
            server_name: Some("tidegate.example".to_owned()),
        };
        let context = |options: &BootstrapOptions| {
            let value = bootstrap(&serving("10.0.0.1:7"), options);
            value["static_resources"]["clusters"][0]["transport_socket"]["typed_config"].clone()
        };
        let names = |context: &Value| {
            context["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"].clone()
        };
        assert_eq!(context(&options), Value::Null);
        options.tls = Some(tls.clone());
        let named = context(&options);
        assert_eq!(named["sni"], "tidegate.example");
        assert_eq!(names(&named), json!([{ "san_type": "DNS", "matcher": { "exact": "tidegate.example" } }]));
        tls.server_name = None;
        options.tls = Some(tls);
        let by_address = context(&options);
        assert_eq!(by_address["sni"], Value::Null);
        assert_eq!(names(&by_address), json!([{ "san_type": "IP_ADDRESS", "matcher": { "exact": "10.0.0.1" } }]));
    }

    #[test]
    fn yaml_and_value_are_the_same() {
        let metadata = [("tier: 1".to_owned(), "yes".to_owned())].into();
        let node = EdgeNode { id: "1.0".to_owned(), cluster: "{}".to_owned(), metadata };
        let options = BootstrapOptions { node, ..options(Admin::Unix("/run/a: b.sock".to_owned())) };
        let value = bootstrap(&Config::default(), &options);
        let read: Value = serde_saphyr::from_str(&to_yaml(&value).unwrap()).unwrap();
        assert_eq!(read, value);
    }
}
