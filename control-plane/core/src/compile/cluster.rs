//! Clusters and their endpoints: one EDS cluster `SERVICE/VERSION` for each version, and for a canary the aggregate
//! `SERVICE/VERSION+spill` that serves its share from stable while it has too few ready. Readiness holds here, in plain xDS,
//! whatever the filter does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use envoy_types::pb::envoy::config::cluster::v3::circuit_breakers::thresholds::RetryBudget;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, CustomClusterType, DiscoveryType, EdsClusterConfig, LbConfig, LbPolicy,
    LeastRequestLbConfig, SlowStartConfig,
};
use envoy_types::pb::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, OutlierDetection, UpstreamConnectionOptions,
};
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::socket_option::Value as OptionValue;
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, HealthStatus, Http2ProtocolOptions, KeepaliveSettings, Metadata, SocketOption, TcpKeepalive,
};
use envoy_types::pb::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::envoy::extensions::clusters::aggregate::v3::ClusterConfig as Aggregate;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
};
use envoy_types::pb::envoy::r#type::v3::Percent;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use envoy_types::util::pack_any;

use super::message::{address, ads, bool, duration, uint32};
use super::{MIRROR, SPILL, TIDEGATE, tls};
use crate::VersionName;
use crate::config::Canary;
use crate::config::canary::{Step, WhenNotReady};
use crate::name::cluster_name;
use crate::rollout::Split;
use crate::service::{InstanceView, ServiceView, VersionView};
use crate::traffic::Protocol;

/// A connection that takes longer is retried elsewhere: a container on this host's bridges answers within a millisecond.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A host that acknowledges nothing for so long is gone, however long its answers may take: the connection ends, and what may be
/// repeated is asked elsewhere. Linux sends again four times meanwhile, so a lossy network does not look like one.
const SILENT_FOR: Duration = Duration::from_secs(3);
/// Seconds after which a connection that waits for an answer is asked whether it is still there, and from one such question to
/// the next.
const KEEPALIVE_S: u32 = 1;

/// Streams of a connection: what servers allow at least, as their protocol recommends (RFC 9113, 6.5.2). How many one really allows is
/// known only after the first streams were opened, and it refuses those beyond.
const STREAMS: u32 = 100;

/// From one HTTP/2 PING to the next.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// How long its answer may take.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Envoy holds every CDS ACK until EDS is answered; the server answers at once, so this only bounds a fault.
const EDS_TIMEOUT: Duration = Duration::from_secs(2);

/// With Envoy's default of 140, an aggregate spills as soon as fewer than 72 % of a priority's hosts are healthy: one of two
/// canary hosts that drains would move users. A thousandfold of the hosts' weight spills only when none is left.
const OVERPROVISIONING: u32 = 100_000;

/// So the last host is never ejected (a share of 100 % is over it), and every other may be.
const MAX_EJECTION_PERCENT: u32 = 99;

/// The key of an endpoint's metadata that names its version.
pub(super) const VERSION_KEY: &str = "version";

pub(super) type Clusters = (BTreeMap<String, Cluster>, BTreeMap<String, ClusterLoadAssignment>);

pub(super) fn clusters(view: &ServiceView) -> Clusters {
    let mut clusters = BTreeMap::new();
    let mut assignments = BTreeMap::new();
    let nothing = VersionView::default();
    for version in view.split.versions() {
        let name = cluster_name(&view.name, version);
        let canary = match &view.split {
            Split::Rollout { canary, .. } if canary.version == *version => Some(canary),
            _ => None,
        };
        let spills = canary.is_some_and(|canary| spills(canary));
        let too_few = canary.is_some() && view.below_min_ready().is_some();
        let members = view.versions.get(version).unwrap_or(&nothing);
        let copies = canary.filter(|canary| mirrors(canary)).map(|_| mirror_name(view, version));
        for name in [name].into_iter().chain(copies) {
            clusters.insert(name.clone(), eds_cluster(&name, members.protocol, view));
            assignments.insert(name.clone(), assignment(&name, version, members, spills, too_few));
        }
    }
    if let Split::Rollout { stable, canary, .. } = &view.split
        && spills(canary)
    {
        let name = canary_name(view, canary);
        let members = [&canary.version, stable].map(|version| cluster_name(&view.name, version));
        clusters.insert(name.clone(), aggregate(&name, members));
    }
    (clusters, assignments)
}

/// Whether its clients get the stable version while it is not ready.
fn spills(canary: &Canary) -> bool {
    canary.when_not_ready == WhenNotReady::Stable
}

/// Whether it is ever sent copies of requests.
pub(super) fn mirrors(canary: &Canary) -> bool {
    canary.steps.iter().any(|step| matches!(step, Step::Mirror(_)))
}

/// Where a canary's clients are sent: its aggregate, or to it alone.
pub(super) fn canary_name(view: &ServiceView, canary: &Canary) -> String {
    let name = cluster_name(&view.name, &canary.version);
    if spills(canary) { name + SPILL } else { name }
}

/// Where copies of requests are sent: the canary's instances once more, so that what becomes of copies is not counted as what
/// becomes of requests. Envoy counts both alike, by cluster.
pub(super) fn mirror_name(view: &ServiceView, canary: &VersionName) -> String {
    cluster_name(&view.name, canary) + MIRROR
}

fn eds_cluster(name: &str, protocol: Protocol, view: &ServiceView) -> Cluster {
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads(EDS_TIMEOUT)), service_name: String::new() }),
        connect_timeout: duration(CONNECT_TIMEOUT),
        lb_policy: LbPolicy::LeastRequest as i32,
        lb_config: view.traffic.slow_start.map(slowly),
        typed_extension_protocol_options: http_options(protocol).into_iter().collect(),
        transport_socket: (protocol == Protocol::Https).then(|| tls::upstream(view.tls.as_deref())),
        common_lb_config: Some(no_panic()),
        outlier_detection: Some(outlier_detection()),
        circuit_breakers: Some(circuit_breakers()),
        upstream_bind_config: Some(BindConfig { socket_options: vec![user_timeout()], ..BindConfig::default() }),
        upstream_connection_options: Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(TcpKeepalive {
                keepalive_time: uint32(KEEPALIVE_S),
                keepalive_interval: uint32(KEEPALIVE_S),
                keepalive_probes: uint32(3),
            }),
            ..UpstreamConnectionOptions::default()
        }),
        ..Cluster::default()
    }
}

/// A newcomer's share grows from a tenth to the whole within the window.
fn slowly(window: Duration) -> LbConfig {
    LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
        slow_start_config: Some(SlowStartConfig { slow_start_window: duration(window), ..SlowStartConfig::default() }),
        ..LeastRequestLbConfig::default()
    })
}

/// HTTP/1.1 is Envoy's own default.
fn http_options(protocol: Protocol) -> Option<(String, Any)> {
    let options = match protocol {
        Protocol::Http1 => return None,
        Protocol::H2c | Protocol::Grpc => UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(http2())),
        }),
        Protocol::Https => UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http2_protocol_options: Some(http2()),
            ..AutoHttpConfig::default()
        }),
    };
    let options = HttpProtocolOptions { upstream_protocol_options: Some(options), ..HttpProtocolOptions::default() };
    Some(("envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(), pack_any(options)))
}

/// One connection has all requests, so that it may end is noticed by more than silence: a process that is frozen, whose kernel
/// goes on acknowledging, answers no PING.
fn http2() -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        max_concurrent_streams: uint32(STREAMS),
        connection_keepalive: Some(KeepaliveSettings {
            interval: duration(PING_INTERVAL),
            timeout: duration(PING_TIMEOUT),
            ..KeepaliveSettings::default()
        }),
        ..Http2ProtocolOptions::default()
    }
}

/// `TCP_USER_TIMEOUT`, which bounds how long sent data and keepalive probes stay unacknowledged; Linux's numbers (tcp(7)).
fn user_timeout() -> SocketOption {
    const IPPROTO_TCP: i64 = 6;
    const TCP_USER_TIMEOUT: i64 = 18;
    SocketOption {
        description: "TCP_USER_TIMEOUT".to_owned(),
        level: IPPROTO_TCP,
        name: TCP_USER_TIMEOUT,
        value: Some(OptionValue::IntValue(i64::try_from(SILENT_FOR.as_millis()).unwrap_or(i64::MAX))),
        ..SocketOption::default()
    }
}

fn aggregate(name: &str, members: [String; 2]) -> Cluster {
    let config = Aggregate { clusters: members.into() };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::ClusterType(CustomClusterType {
            name: "envoy.clusters.aggregate".to_owned(),
            typed_config: Some(pack_any(config)),
        })),
        connect_timeout: duration(CONNECT_TIMEOUT),
        lb_policy: LbPolicy::ClusterProvided as i32,
        common_lb_config: Some(no_panic()),
        circuit_breakers: Some(circuit_breakers()),
        ..Cluster::default()
    }
}

/// No traffic to what is not ready, not even when nothing is.
fn no_panic() -> CommonLbConfig {
    CommonLbConfig { healthy_panic_threshold: Some(Percent { value: 0.0 }), ..CommonLbConfig::default() }
}

/// Only what the network says counts (refused, reset, timed out, gateway errors): if the application's own 500s did, anyone
/// who finds one URL that fails could empty a service.
fn outlier_detection() -> OutlierDetection {
    OutlierDetection {
        split_external_local_origin_errors: true,
        consecutive_local_origin_failure: uint32(5),
        enforcing_consecutive_local_origin_failure: uint32(100),
        consecutive_gateway_failure: uint32(5),
        enforcing_consecutive_gateway_failure: uint32(100),
        enforcing_consecutive_5xx: uint32(0),
        enforcing_success_rate: uint32(0),
        enforcing_local_origin_success_rate: uint32(0),
        enforcing_failure_percentage: uint32(0),
        enforcing_failure_percentage_local_origin: uint32(0),
        interval: duration(Duration::from_secs(1)),
        base_ejection_time: duration(Duration::from_secs(2)),
        max_ejection_time: duration(Duration::from_secs(10)),
        max_ejection_percent: uint32(MAX_EJECTION_PERCENT),
        always_eject_one_host: bool(false),
        ..OutlierDetection::default()
    }
}

/// Limits of an edge: far above what a host's containers serve, so that they only stop a runaway. Retries have a budget, not a
/// number: when a replica of two dies, half of all requests in flight need one.
fn circuit_breakers() -> CircuitBreakers {
    CircuitBreakers {
        thresholds: vec![Thresholds {
            max_connections: uint32(10_000),
            max_pending_requests: uint32(10_000),
            max_requests: uint32(50_000),
            retry_budget: Some(RetryBudget {
                budget_percent: Some(Percent { value: 50.0 }),
                budget_interval: None,
                min_retry_concurrency: uint32(100),
            }),
            ..Thresholds::default()
        }],
        ..CircuitBreakers::default()
    }
}

/// `too_few`: those that would serve are kept from new requests, and end what they have.
fn assignment(
    name: &str,
    version: &VersionName,
    members: &VersionView,
    spills: bool,
    too_few: bool,
) -> ClusterLoadAssignment {
    // As in Kubernetes: when all that is left is being stopped, it goes on serving. A canary need not: it has stable behind it.
    let all_stopping = !spills && !members.instances.iter().any(InstanceView::is_serving);
    let endpoints: Vec<LbEndpoint> = members
        .instances
        .iter()
        .filter_map(|instance| {
            let is_stopping = instance.is_leaving();
            let status = if too_few && instance.is_serving() {
                HealthStatus::Unhealthy
            } else if instance.is_serving() || (all_stopping && is_stopping && instance.readiness.is_ready()) {
                HealthStatus::Healthy
            } else if is_stopping {
                HealthStatus::Draining
            } else {
                return None;
            };
            Some(endpoint(instance, version, status))
        })
        .collect();
    let locality = LocalityLbEndpoints { lb_endpoints: endpoints, ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: if locality.lb_endpoints.is_empty() { Vec::new() } else { vec![locality] },
        policy: Some(Policy { overprovisioning_factor: uint32(OVERPROVISIONING), ..Policy::default() }),
        ..ClusterLoadAssignment::default()
    }
}

fn endpoint(instance: &InstanceView, version: &VersionName, status: HealthStatus) -> LbEndpoint {
    let endpoint = Endpoint { address: Some(address(instance.id.address)), ..Endpoint::default() };
    LbEndpoint {
        metadata: Some(named(version)),
        host_identifier: Some(HostIdentifier::Endpoint(endpoint)),
        health_status: status as i32,
        ..LbEndpoint::default()
    }
}

/// An answer can say by this which version gave it.
fn named(version: &VersionName) -> Metadata {
    let value = Value { kind: Some(Kind::StringValue(version.as_str().to_owned())) };
    let fields = Struct { fields: [(VERSION_KEY.to_owned(), value)].into() };
    Metadata { filter_metadata: [(TIDEGATE.to_owned(), fields)].into(), ..Metadata::default() }
}

/// Whether an endpoint that was healthy is not, or is gone.
pub(super) fn loses_an_endpoint(
    old: &BTreeMap<String, ClusterLoadAssignment>,
    new: &BTreeMap<String, ClusterLoadAssignment>,
) -> bool {
    old.iter().filter(|(name, before)| new.get(*name) != Some(before)).any(|(name, before)| {
        let after = new.get(name).map(healthy).unwrap_or_default();
        !healthy(before).is_subset(&after)
    })
}

fn healthy(assignment: &ClusterLoadAssignment) -> BTreeSet<(&str, u32)> {
    let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    let healthy = endpoints.filter(|endpoint| endpoint.health_status == HealthStatus::Healthy as i32);
    healthy.filter_map(|endpoint| place(endpoint.host_identifier.as_ref()?)).collect()
}

fn place(host: &HostIdentifier) -> Option<(&str, u32)> {
    let HostIdentifier::Endpoint(endpoint) = host else { return None };
    let Some(AddressKind::SocketAddress(socket)) = endpoint.address.as_ref()?.address.as_ref() else { return None };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { return None };
    Some((&socket.address, port))
}
