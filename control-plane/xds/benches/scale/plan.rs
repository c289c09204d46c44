//! What the streams of a fleet ask for, as the bytes of their requests. Decides nothing about what comes back.

use std::borrow::Cow;
use std::sync::OnceLock;

use tidegate_xds::ResourceType;

use crate::wire::put;

/// Which protocol a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Delta,
    StateOfTheWorld,
}

impl Variant {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::StateOfTheWorld => "SotW",
        }
    }

    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Delta => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            Self::StateOfTheWorld => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        }
    }
}

/// How a stream asks for endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoints {
    /// By an explicit `*`.
    Wildcard,
    /// As Envoy: by the name of each cluster that it was given.
    OfClusters,
    /// Without clusters: stream by stream, each so many of `of` names that begin at `from`, in turn.
    Some { from: usize, of: usize, each: usize },
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) variant: Variant,
    /// Whether clusters are asked for, by the legacy wildcard, as Envoy does.
    pub(crate) clusters: bool,
    pub(crate) endpoints: Endpoints,
    /// Whether the one runtime layer is asked for.
    pub(crate) runtime: bool,
    /// How many services are published.
    pub(crate) services: usize,
    /// What the streams state that they have, from a connection before.
    pub(crate) held: Option<Held>,
    /// The type whose responses count as news once a stream is synced.
    pub(crate) news: ResourceType,
    /// Whether messages and versions are kept.
    pub(crate) record: bool,
    /// The names of all services, written once.
    pub(crate) all: OnceLock<Vec<u8>>,
}

/// Name and version of each resource, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) clusters: Vec<(String, String)>,
    pub(crate) endpoints: Vec<(String, String)>,
}

/// The name of a service's cluster and of its endpoints. The number can be found again by [`number`].
pub(crate) fn name(service: usize) -> String {
    format!("s{service:05}/v1")
}

/// Which service a name belongs to; 0 for names without one.
pub(crate) fn number(name: &[u8]) -> usize {
    let digits = name.get(1..6).unwrap_or_default();
    let known = digits.iter().all(u8::is_ascii_digit);
    digits.iter().filter(|_| known).fold(0, |number, digit| 10 * number + usize::from(digit - b'0'))
}

pub(crate) const RUNTIME_LAYER: &str = "weights";

impl Plan {
    /// Edges that ask for everything that an Envoy of tidegate's asks for that the case is about.
    pub(crate) fn new(variant: Variant, services: usize, endpoints: Endpoints) -> Self {
        Self {
            variant,
            clusters: matches!(endpoints, Endpoints::OfClusters | Endpoints::Wildcard),
            endpoints,
            runtime: false,
            services,
            held: None,
            news: ResourceType::Endpoint,
            record: false,
            all: OnceLock::new(),
        }
    }

    /// Whether a stream asks for the endpoints of a service.
    pub(crate) fn concerns(&self, stream: usize, service: usize) -> bool {
        match self.endpoints {
            Endpoints::Wildcard | Endpoints::OfClusters => true,
            Endpoints::Some { from, of, each } => {
                service >= from && service < from + of && (service - from + of - stream * each % of) % of < each
            }
        }
    }

    /// How many resources of each type a stream has once it is synced: clusters, endpoints, runtime.
    pub(crate) fn expected(&self) -> [usize; 3] {
        if self.held.is_some() {
            return [0; 3];
        }
        let endpoints = match self.endpoints {
            Endpoints::Wildcard | Endpoints::OfClusters => self.services,
            Endpoints::Some { each, .. } => each,
        };
        [if self.clusters { self.services } else { 0 }, endpoints, usize::from(self.runtime)]
    }

    /// The requests that a stream begins with, the first with the node.
    pub(crate) fn opening(&self, stream: usize) -> Vec<Vec<u8>> {
        let mut requests = Vec::new();
        if self.clusters {
            requests.push((ResourceType::Cluster, Vec::new()));
        }
        match self.endpoints {
            Endpoints::OfClusters if self.held.is_none() => {}
            _ => requests.push((ResourceType::Endpoint, self.names(stream).into_owned())),
        }
        if self.runtime {
            requests.push((ResourceType::Runtime, name_field(RUNTIME_LAYER)));
        }
        let request = |(at, (resource_type, names)): (usize, (ResourceType, Vec<u8>))| {
            let mut request = Vec::new();
            if at == 0 {
                put(if self.variant == Variant::Delta { 1 } else { 2 }, &node(stream), &mut request);
            }
            self.put_request(resource_type, &names, None, &mut request);
            if let Some(held) = &self.held {
                let versions = match resource_type {
                    ResourceType::Cluster => held.clusters.as_slice(),
                    ResourceType::Endpoint => &held.endpoints,
                    _ => &[],
                };
                for (name, version) in versions {
                    let mut entry = Vec::new();
                    put(1, name.as_bytes(), &mut entry);
                    put(2, version.as_bytes(), &mut entry);
                    put(5, &entry, &mut request);
                }
            }
            request
        };
        requests.into_iter().enumerate().map(request).collect()
    }

    /// All names of endpoints that a stream asks for, as fields of a request: number 3 in both variants.
    pub(crate) fn names(&self, stream: usize) -> Cow<'_, [u8]> {
        match self.endpoints {
            Endpoints::Wildcard => name_field("*").into(),
            Endpoints::OfClusters => {
                let names = || (0..self.services).flat_map(|service| name_field(&name(service))).collect();
                self.all.get_or_init(names).into()
            }
            Endpoints::Some { from, of, each } => {
                let services = (0..each).map(|nth| from + (stream * each + nth) % of);
                services.flat_map(|service| name_field(&name(service))).collect::<Vec<_>>().into()
            }
        }
    }

    /// A request for names, and with `answered` (nonce and, for state of the world, version) the ACK of a response.
    pub(crate) fn put_request(
        &self,
        resource_type: ResourceType,
        names: &[u8],
        answered: Option<(&[u8], &[u8])>,
        request: &mut Vec<u8>,
    ) {
        let (type_url, nonce) = match self.variant {
            Variant::Delta => (2, 6),
            Variant::StateOfTheWorld => (4, 5),
        };
        put(type_url, resource_type.type_url().as_bytes(), request);
        request.extend_from_slice(names);
        if let Some((answered, version)) = answered {
            put(nonce, answered, request);
            if self.variant == Variant::StateOfTheWorld {
                put(1, version, request);
            }
        }
    }
}

pub(crate) fn name_field(name: &str) -> Vec<u8> {
    let mut field = Vec::new();
    put(3, name.as_bytes(), &mut field);
    field
}

fn node(stream: usize) -> Vec<u8> {
    let mut node = Vec::new();
    put(1, format!("edge-{stream}").as_bytes(), &mut node);
    put(2, b"edge", &mut node);
    node
}
