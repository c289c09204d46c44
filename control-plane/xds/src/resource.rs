//! The words of the crate: which types of resource it serves and what a version is. Knows no store, no stream, no IO.

use std::fmt;
use std::ops::{Index, IndexMut};

/// A type of resource that Envoy can subscribe to. The order of the variants is the order of delivery: what a stream
/// lacks is sent in this order (make before break: clusters, their endpoints, listeners, routes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster`, served by CDS.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`, served by EDS.
    Endpoint,
    /// `envoy.config.listener.v3.Listener`, served by LDS.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`, served by RDS.
    Route,
    /// `envoy.config.core.v3.TypedExtensionConfig`, served by ECDS.
    ExtensionConfig,
    /// `envoy.service.runtime.v3.Runtime`, served by RTDS.
    Runtime,
}

impl ResourceType {
    /// Every type, in order of delivery.
    pub const ALL: [Self; 6] =
        [Self::Cluster, Self::Endpoint, Self::Listener, Self::Route, Self::ExtensionConfig, Self::Runtime];

    /// The URL that names this type on the wire.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
        }
    }

    /// The type of a URL, or `None` for a type that this crate does not serve.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource_type| resource_type.type_url() == url)
    }

    /// The name operators know the type by: the discovery service that carries it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Cluster => "CDS",
            Self::Endpoint => "EDS",
            Self::Listener => "LDS",
            Self::Route => "RDS",
            Self::ExtensionConfig => "ECDS",
            Self::Runtime => "RTDS",
        }
    }

    /// The gRPC service that serves this type alone, and its state-of-the-world and delta methods.
    pub(crate) const fn service(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Cluster => ("envoy.service.cluster.v3.ClusterDiscoveryService", "StreamClusters", "DeltaClusters"),
            Self::Endpoint => {
                ("envoy.service.endpoint.v3.EndpointDiscoveryService", "StreamEndpoints", "DeltaEndpoints")
            }
            Self::Listener => {
                ("envoy.service.listener.v3.ListenerDiscoveryService", "StreamListeners", "DeltaListeners")
            }
            Self::Route => ("envoy.service.route.v3.RouteDiscoveryService", "StreamRoutes", "DeltaRoutes"),
            Self::ExtensionConfig => (
                "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
                "StreamExtensionConfigs",
                "DeltaExtensionConfigs",
            ),
            Self::Runtime => ("envoy.service.runtime.v3.RuntimeDiscoveryService", "StreamRuntime", "DeltaRuntime"),
        }
    }

    /// Whether a state-of-the-world response must hold everything that the client is to have: "For Listener and Cluster
    /// resource types, [...] the server must include the complete state of the world". Of the other types it may hold
    /// what changed.
    pub(crate) const fn is_sent_whole(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The two ways in which a client and a server may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// Incremental: requests say what is wanted more or less, responses what changed.
    Delta,
    /// State of the world: requests list all that is wanted; responses of clusters and listeners hold all there is.
    Sotw,
}

impl Variant {
    /// The name operators know it by.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Sotw => "state of the world",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A set of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeSet(u8);

impl TypeSet {
    /// The set of these types.
    pub const fn of(types: &[ResourceType]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < types.len() {
            bits |= types[at].bit();
            at += 1;
        }
        Self(bits)
    }

    /// Whether a type is in it.
    pub const fn contains(self, resource_type: ResourceType) -> bool {
        self.0 & resource_type.bit() != 0
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The version of one resource: the hash of its encoded content, so equal content has an equal version, also after a
/// restart and on another replica. Written as 16 hexadecimal digits, on the wire too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// How many bytes a version takes on the wire.
    pub(crate) const WIRE_LEN: usize = 16;

    pub(crate) fn of(content: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_64(content))
    }

    /// The version that a client states, or `None` if it is not one of ours.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == Self::WIRE_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }

    pub(crate) fn wire(self) -> [u8; Self::WIRE_LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        std::array::from_fn(|at| DIGITS[(self.0 >> (60 - 4 * at)) as usize & 0xf])
    }
}

/// What a set of resources amounts to: a hash of their names and versions, in any order, kept up to date as the set
/// changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn insert(&mut self, name: &str, version: Version) {
        self.0 = self.0.wrapping_add(Self::of(name, version));
    }

    pub(crate) fn remove(&mut self, name: &str, version: Version) {
        self.0 = self.0.wrapping_sub(Self::of(name, version));
    }

    fn of(name: &str, version: Version) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(name.as_bytes(), version.0)
    }

    /// The version of the whole.
    pub(crate) fn version(self) -> Version {
        Version::of(&self.0.to_le_bytes())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One value for each type of resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct PerType<T>([T; ResourceType::ALL.len()]);

impl<T> PerType<T> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ResourceType, &T)> {
        ResourceType::ALL.into_iter().zip(&self.0)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }
}

impl<T> Index<ResourceType> for PerType<T> {
    type Output = T;

    fn index(&self, resource_type: ResourceType) -> &T {
        &self.0[resource_type as usize]
    }
}

impl<T> IndexMut<ResourceType> for PerType<T> {
    fn index_mut(&mut self, resource_type: ResourceType) -> &mut T {
        &mut self.0[resource_type as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_urls_are_those_of_the_messages() {
        use envoy_types::pb::envoy::{config, service};
        use prost::Name;
        assert_eq!(ResourceType::Cluster.type_url(), config::cluster::v3::Cluster::type_url());
        assert_eq!(ResourceType::Endpoint.type_url(), config::endpoint::v3::ClusterLoadAssignment::type_url());
        assert_eq!(ResourceType::Listener.type_url(), config::listener::v3::Listener::type_url());
        assert_eq!(ResourceType::Route.type_url(), config::route::v3::RouteConfiguration::type_url());
        assert_eq!(ResourceType::ExtensionConfig.type_url(), config::core::v3::TypedExtensionConfig::type_url());
        assert_eq!(ResourceType::Runtime.type_url(), service::runtime::v3::Runtime::type_url());
        for resource_type in ResourceType::ALL {
            assert_eq!(ResourceType::from_type_url(resource_type.type_url()), Some(resource_type));
        }
    }

    #[test]
    fn a_version_survives_the_wire() {
        let version = Version::of(b"content");
        let wire = String::from_utf8(version.wire().to_vec()).unwrap();
        assert_eq!(wire, version.to_string());
        assert_eq!(Version::parse(&wire), Some(version));
        assert_eq!(Version::parse("+123456789abcdef"), None);
        assert_eq!(Version::parse("v1"), None);
    }
}
