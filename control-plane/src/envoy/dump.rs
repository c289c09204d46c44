//! What an Envoy says it has, read from three answers of its admin interface: `/config_dump?include_eds`, `/clusters?format=json`
//! and `/runtime?format=json`. Pure. What the bootstrap holds is left out, and secrets are struck out.
//!
//! As measured with Envoy 1.40: over delta xDS the dump of CDS, LDS, RDS and ECDS carries each resource's own version, over
//! state-of-the-world xDS that of the whole response. EDS carries none, and says of a draining endpoint only that it is not
//! healthy, so endpoints are taken from `/clusters`; RTDS is in no dump, but its values are in `/runtime`. A refused listener is
//! listed twice, once without its name; a refused cluster is not listed.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tidegate_core::status::HeldState;
use tidegate_xds::ResourceType;

const REDACTED: &str = "[redacted]";
/// Keys whose values are secret wherever they stand.
const SECRETS: [&str; 4] = ["private_key", "password", "session_ticket_keys", "generic_secret"];
/// Keys below which inlined data is struck out.
const TLS: [&str; 4] = ["tls_certificate", "tls_certificates", "validation_context", "trusted_ca"];
const INLINE: [&str; 2] = ["inline_string", "inline_bytes"];

/// What an Envoy has.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    /// The node's id.
    pub(crate) node: String,
    /// Name and version of the software.
    pub(crate) software: String,
    /// By kind and name.
    pub(crate) held: Vec<Held>,
    /// The endpoints of each active cluster.
    pub(crate) hosts: BTreeMap<String, BTreeMap<String, Host>>,
    /// The values of each runtime layer that comes over RTDS.
    pub(crate) layers: BTreeMap<String, BTreeMap<String, String>>,
    /// The kinds whose versions are those of single resources.
    versioned: BTreeSet<ResourceType>,
}

/// One state of one resource.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) kind: ResourceType,
    pub(crate) name: String,
    pub(crate) version: Option<String>,
    pub(crate) updated: Option<String>,
    pub(crate) state: HeldState,
    /// Envoy's own words.
    pub(crate) error: Option<String>,
    /// The resource as JSON, as text: a tree of ten thousand would be ten times as large.
    pub(crate) json: String,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// What EDS said of it: `HEALTHY`, `DRAINING`.
    pub(crate) health: String,
    /// Whether Envoy itself has put it out of service.
    pub(crate) ejected: bool,
}

/// Which of Envoy's answers is none.
#[derive(Debug, thiserror::Error)]
#[error("its answer to {path} cannot be read: {source}")]
pub(crate) struct DumpError {
    path: &'static str,
    source: serde_json::Error,
}

pub(crate) const CONFIG_DUMP: &str = "/config_dump?include_eds";
pub(crate) const CLUSTERS: &str = "/clusters?format=json";
pub(crate) const RUNTIME: &str = "/runtime?format=json";

impl Dump {
    /// From Envoy's answers to [`CONFIG_DUMP`], [`CLUSTERS`] and [`RUNTIME`].
    pub(crate) fn read(config: &[u8], clusters: &[u8], runtime: &[u8]) -> Result<Self, DumpError> {
        let config: ConfigDump = read(CONFIG_DUMP, config)?;
        let clusters: Clusters = read(CLUSTERS, clusters)?;
        let runtime: Runtime = read(RUNTIME, runtime)?;
        let mut dump = Self::default();
        let mut eds = BTreeSet::new();
        let mut endpoints = Vec::new();
        for section in config.configs {
            if let Some(bootstrap) = section.bootstrap {
                dump.bootstrap(&bootstrap, &runtime);
            }
            for (clusters, state) in [
                (section.dynamic_active_clusters, HeldState::Active),
                (section.dynamic_warming_clusters, HeldState::Warming),
            ] {
                eds.extend(clusters.iter().filter_map(|cluster| cluster.body.as_ref()?.eds_name()));
                clusters.into_iter().for_each(|cluster| dump.hold(ResourceType::Cluster, state, cluster));
            }
            endpoints.extend(section.dynamic_endpoint_configs);
            section.dynamic_listeners.into_iter().for_each(|listener| dump.listener(listener));
            for route in section.dynamic_route_configs {
                dump.hold(ResourceType::Route, HeldState::Active, route);
            }
            for filter in section.ecds_filters {
                dump.hold(ResourceType::ExtensionConfig, HeldState::Active, filter);
            }
        }
        // An aggregate has an empty entry among the endpoints, but no EDS.
        endpoints.retain(|entry| entry.body.as_ref().is_some_and(|body| eds.contains(&body.name)));
        endpoints.into_iter().for_each(|entry| dump.hold(ResourceType::Endpoint, HeldState::Active, entry));
        dump.hosts = clusters.cluster_statuses.into_iter().map(|of| (of.name, hosts(of.host_statuses))).collect();
        dump.held.sort_by(|a, b| (a.kind, &a.name, a.state).cmp(&(b.kind, &b.name, b.state)));
        // A refused listener is listed twice; the entry with its time comes first.
        dump.held.dedup_by(|b, a| {
            a.state == HeldState::Error && (a.kind, &a.name, a.state, &a.error) == (b.kind, &b.name, b.state, &b.error)
        });
        Ok(dump)
    }

    /// Whether the versions of this kind are those of single resources, as over delta xDS.
    pub(crate) fn has_versions(&self, kind: ResourceType) -> bool {
        self.versioned.contains(&kind)
    }

    fn bootstrap(&mut self, bootstrap: &Bootstrap, runtime: &Runtime) {
        let Bootstrap { node, dynamic_resources: sources, layered_runtime } = bootstrap;
        self.node.clone_from(&node.id);
        let Number { major_number, minor_number, patch } = node.user_agent_build_version.version;
        self.software = format!("{} {major_number}.{minor_number}.{patch}", node.user_agent_name);
        let is_delta = |source: &Source| match &source.api_config_source {
            Some(own) => own.is_delta(),
            None => sources.ads_config.is_delta(),
        };
        let of = |kinds: &[ResourceType], delta: bool| if delta { kinds.to_vec() } else { Vec::new() };
        self.versioned.extend(of(&[ResourceType::Cluster], is_delta(&sources.cds_config)));
        self.versioned.extend(of(&[ResourceType::Listener], is_delta(&sources.lds_config)));
        // Those that tidegate's own resources ask for over the aggregated stream.
        self.versioned.extend(of(&[ResourceType::Route, ResourceType::ExtensionConfig], sources.ads_config.is_delta()));
        for layer in &layered_runtime.layers {
            let Some(rtds) = &layer.rtds_layer else { continue };
            let Some(index) = runtime.layers.iter().position(|name| *name == layer.name) else { continue };
            let values = runtime.entries.iter().filter_map(|(key, entry)| {
                let value = entry.layer_values.get(index).filter(|value| !value.is_empty())?;
                Some((key.clone(), value.clone()))
            });
            let values: BTreeMap<String, String> = values.collect();
            self.held.push(Held {
                kind: ResourceType::Runtime,
                name: rtds.name.clone(),
                version: None,
                updated: None,
                state: HeldState::Active,
                error: None,
                json: serde_json::to_string(&values).unwrap_or_default(),
            });
            self.layers.insert(rtds.name.clone(), values);
        }
    }

    fn listener(&mut self, listener: DynamicListener) {
        let DynamicListener { active_state, warming_state, draining_state, error_state, .. } = listener;
        for (entry, state) in [
            (active_state, HeldState::Active),
            (warming_state, HeldState::Warming),
            (draining_state, HeldState::Draining),
        ] {
            if let Some(mut entry) = entry {
                // A listener's name stands beside its states, too; the resource's own may be left out.
                if let Some(body) = entry.body.as_mut().filter(|body| body.name.is_empty()) {
                    body.name.clone_from(&listener.name);
                }
                self.hold(ResourceType::Listener, state, entry);
            }
        }
        self.refused(ResourceType::Listener, &listener.name, error_state);
    }

    fn hold(&mut self, kind: ResourceType, state: HeldState, entry: Entry) {
        let Entry { version_info, last_updated, body, error_state } = entry;
        let name = body.as_ref().map(|body| body.name.clone()).unwrap_or_default();
        if let Some(Body { name, json, .. }) = body {
            let version = Some(version_info).filter(|version| !version.is_empty());
            self.held.push(Held { kind, name, version, updated: last_updated, state, error: None, json });
        }
        self.refused(kind, &name, error_state);
    }

    fn refused(&mut self, kind: ResourceType, name: &str, error: Option<ErrorState>) {
        let Some(ErrorState { failed_configuration, last_update_attempt: updated, details, version_info }) = error
        else {
            return;
        };
        let (named, json) =
            failed_configuration.map_or_else(|| (String::new(), "null".to_owned()), |body| (body.name, body.json));
        let name = if name.is_empty() { named } else { name.to_owned() };
        let version = Some(version_info).filter(|version| !version.is_empty());
        self.held.push(Held { kind, name, version, updated, state: HeldState::Error, error: Some(details), json });
    }
}

fn read<'a, T: Deserialize<'a>>(path: &'static str, answer: &'a [u8]) -> Result<T, DumpError> {
    serde_json::from_slice(answer).map_err(|source| DumpError { path, source })
}

fn hosts(statuses: Vec<HostStatus>) -> BTreeMap<String, Host> {
    let host = |status: HostStatus| {
        let HostStatus { address: Address { socket_address: at }, health_status: health } = status;
        let ejected = health.failed_outlier_check || health.failed_active_health_check;
        (endpoint(&at.address, at.port_value), Host { health: health.eds_health_status, ejected })
    };
    statuses.into_iter().map(host).collect()
}

/// `ADDRESS:PORT`, with an IPv6 address in brackets.
pub(crate) fn endpoint(address: &str, port: u32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Strikes out what is secret. Envoy does so itself for what it knows to be sensitive.
fn redact(value: &mut Value, in_tls: bool) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| redact(value, in_tls)),
        Value::Object(fields) => {
            let is_secret = fields.get("@type").and_then(Value::as_str).is_some_and(|of| of.ends_with(".Secret"));
            for (key, value) in fields {
                let key = key.as_str();
                if SECRETS.contains(&key) || ((in_tls || is_secret) && INLINE.contains(&key)) {
                    *value = Value::from(REDACTED);
                } else {
                    redact(value, in_tls || is_secret || TLS.contains(&key));
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

// --- Envoy's JSON, as far as it is of interest -----------------------------------------------------------------------

#[derive(Deserialize)]
struct ConfigDump {
    configs: Vec<Section>,
}

/// Any of the dump's sections: their members have names of their own.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Section {
    bootstrap: Option<Bootstrap>,
    dynamic_active_clusters: Vec<Entry>,
    dynamic_warming_clusters: Vec<Entry>,
    dynamic_endpoint_configs: Vec<Entry>,
    dynamic_listeners: Vec<DynamicListener>,
    dynamic_route_configs: Vec<Entry>,
    ecds_filters: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    version_info: String,
    last_updated: Option<String>,
    #[serde(
        alias = "cluster",
        alias = "listener",
        alias = "route_config",
        alias = "ecds_filter",
        alias = "endpoint_config"
    )]
    body: Option<Body>,
    error_state: Option<ErrorState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DynamicListener {
    name: String,
    active_state: Option<Entry>,
    warming_state: Option<Entry>,
    draining_state: Option<Entry>,
    error_state: Option<ErrorState>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorState {
    failed_configuration: Option<Body>,
    last_update_attempt: Option<String>,
    details: String,
    version_info: String,
}

/// A resource.
struct Body {
    name: String,
    is_eds: bool,
    json: String,
}

impl Body {
    fn eds_name(&self) -> Option<String> {
        self.is_eds.then(|| self.name.clone())
    }
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        redact(&mut value, false);
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let name = text("name").or_else(|| text("cluster_name")).unwrap_or_default().to_owned();
        let is_eds = text("type") == Some("EDS");
        let json = serde_json::to_string(&value).map_err(D::Error::custom)?;
        Ok(Self { name, is_eds, json })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Bootstrap {
    node: Node,
    dynamic_resources: DynamicResources,
    layered_runtime: LayeredRuntime,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Node {
    id: String,
    user_agent_name: String,
    user_agent_build_version: BuildVersion,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BuildVersion {
    version: Number,
}

/// What is zero is left out.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Number {
    major_number: u32,
    minor_number: u32,
    patch: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DynamicResources {
    ads_config: ApiSource,
    cds_config: Source,
    lds_config: Source,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    api_config_source: Option<ApiSource>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiSource {
    api_type: String,
}

impl ApiSource {
    fn is_delta(&self) -> bool {
        matches!(self.api_type.as_str(), "DELTA_GRPC" | "AGGREGATED_DELTA_GRPC")
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LayeredRuntime {
    layers: Vec<Layer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Layer {
    name: String,
    rtds_layer: Option<RtdsLayer>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RtdsLayer {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Runtime {
    layers: Vec<String>,
    entries: BTreeMap<String, RuntimeEntry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeEntry {
    layer_values: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Clusters {
    cluster_statuses: Vec<ClusterStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ClusterStatus {
    name: String,
    host_statuses: Vec<HostStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HostStatus {
    address: Address,
    health_status: Health,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Address {
    socket_address: SocketAddress,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SocketAddress {
    address: String,
    port_value: u32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Health {
    eds_health_status: String,
    failed_outlier_check: bool,
    failed_active_health_check: bool,
}

#[cfg(test)]
pub(in crate::envoy) mod tests;
