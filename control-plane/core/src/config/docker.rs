//! Which Docker engines are sources of instances.

use serde::Serialize;

use super::DEFAULT_DOCKER;
use crate::ProviderName;

/// The Docker engines as sources of instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Docker {
    /// Whether they are; never false without a file of instances.
    pub enabled: bool,
    /// One without a name, or some with one each.
    pub engines: Vec<DockerEngine>,
    /// Labels that a container has from its image count as its own.
    pub trust_image_labels: bool,
}

/// One engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerEngine {
    /// `None`: it is the only one.
    pub name: Option<String>,
    /// `unix:///PATH` or `tcp://HOST:PORT`.
    pub endpoint: String,
    /// How to reach it over TLS; `None`: in plain text.
    pub tls: Option<DockerTls>,
    /// Whether the first full picture waits for it.
    pub required: bool,
}

/// The files of TLS to an engine, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DockerTls {
    /// The authorities of the engine's certificate.
    pub ca: String,
    /// What this side shows: its certificate and its private key.
    pub shown: Option<(String, String)>,
}

impl DockerEngine {
    /// The name of its provider: `docker`, or `docker:NAME`.
    #[must_use]
    pub fn provider(&self) -> ProviderName {
        self.name.as_deref().map_or_else(ProviderName::docker, ProviderName::docker_engine)
    }
}

impl Default for DockerEngine {
    fn default() -> Self {
        Self { name: None, endpoint: DEFAULT_DOCKER.to_owned(), tls: None, required: true }
    }
}

impl Default for Docker {
    fn default() -> Self {
        Self { enabled: true, engines: vec![DockerEngine::default()], trust_image_labels: false }
    }
}

impl Docker {
    /// The key of what differs from `other`.
    pub(super) fn changed(&self, other: &Self) -> Option<&'static str> {
        if self.enabled != other.enabled {
            return Some("providers.docker.enabled");
        }
        if self.trust_image_labels != other.trust_image_labels {
            return Some("providers.docker.trustImageLabels");
        }
        match (self.engines.as_slice(), other.engines.as_slice()) {
            (before, after) if before == after => None,
            ([before @ DockerEngine { name: None, .. }], [after @ DockerEngine { name: None, .. }]) => {
                Some(if before.endpoint == after.endpoint {
                    "providers.docker.tls"
                } else {
                    "providers.docker.endpoint"
                })
            }
            _ => Some("providers.docker.engines"),
        }
    }
}
