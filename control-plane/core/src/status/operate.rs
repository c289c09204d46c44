//! What commands that change something, or wait for something, are told.

use serde::{Deserialize, Serialize};

use super::{EdgeAcceptance, InstanceStatus};
use crate::Timestamp;

/// How far a container is from having nothing to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// [`super::API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// The container's (or entry's) name.
    pub container: String,
    /// Its id, twelve characters of a container's.
    pub id: String,
    /// Since when it is drained; `None`: it is not.
    pub since: Option<Timestamp>,
    /// Its instances.
    pub instances: Vec<InstanceStatus>,
    /// Whether each edge has accepted that it gets no more; the least advanced of its clusters counts.
    pub edges: Vec<EdgeAcceptance>,
    /// Requests and upgraded connections that it has from the local Envoy, as that Envoy says; `None`: it does not answer.
    pub in_flight: Option<u64>,
    /// Edges that nobody here can ask what is under way from them.
    pub unobserved: Vec<String>,
}

/// How far a version of a service is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeployStatus {
    /// [`super::API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// The service.
    pub service: String,
    /// The version.
    pub version: String,
    /// Instances that get new requests.
    pub ready: u32,
    /// The instances.
    pub instances: Vec<InstanceStatus>,
    /// Whether each edge has accepted the newest endpoints of the version.
    pub edges: Vec<EdgeAcceptance>,
}
