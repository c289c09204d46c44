//! What the local Envoy says it has, and how that differs from what is published: the documents of `/v1/envoy/config` and
//! `/v1/envoy/diff`. Envoy's texts are its own words.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Timestamp;

/// What the local Envoy says it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyConfig {
    /// [`API_VERSION`](super::API_VERSION).
    pub api_version: String,
    /// When it was asked.
    pub at: Timestamp,
    /// Where its admin interface listens, as `edge.admin` is written.
    pub admin: String,
    /// The id that its bootstrap gives it.
    pub node: String,
    /// Name and version of its software, as it says.
    pub version: String,
    /// Its dynamic resources, by kind and name; what its bootstrap holds is left out.
    pub resources: Vec<HeldResource>,
}

/// One state of one resource in Envoy. A resource may have several: an active one, and one that was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldResource {
    /// `CDS`, `EDS`, `LDS`, `RDS`, `ECDS`, `RTDS`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its version, as Envoy says; Envoy says none of EDS and RTDS, nor of what it refused.
    pub version: Option<String>,
    /// When Envoy last took it, or refused it: RFC 3339, by Envoy's clock.
    pub updated: Option<String>,
    /// What it is in Envoy.
    pub state: HeldState,
    /// Why Envoy refused it, in its own words.
    pub error: Option<String>,
    /// The resource itself, as Envoy prints it; only where one was asked for by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
}

/// What a resource is in Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HeldState {
    /// Envoy works with it.
    Active,
    /// Envoy still waits for what it needs.
    Warming,
    /// It was replaced or removed, and its connections may end.
    Draining,
    /// Envoy refused it.
    Error,
}

/// What is published, against what the local Envoy says it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyDiff {
    /// [`API_VERSION`](super::API_VERSION).
    pub api_version: String,
    /// When both were looked at.
    pub at: Timestamp,
    /// Where its admin interface listens, as `edge.admin` is written.
    pub admin: String,
    /// The id that its bootstrap gives it.
    pub node: String,
    /// Name and version of its software, as it says.
    pub version: String,
    /// Whether an edge of this node id is connected.
    pub connected: bool,
    /// Whether no resource differs.
    pub same: bool,
    /// What could not be compared, and why.
    pub notes: Vec<String>,
    /// Every resource that is published or that Envoy has, by kind and name.
    pub resources: Vec<ResourceDiff>,
}

/// One resource, as published and in Envoy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceDiff {
    /// `CDS`, `EDS`, `LDS`, `RDS`, `ECDS`, `RTDS`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Whether and how it differs.
    pub state: DiffState,
    /// The version that is published.
    pub intended: Option<String>,
    /// The version that Envoy works with, where it says.
    pub envoy: Option<String>,
    /// What differs, for people.
    pub detail: Option<String>,
    /// Why Envoy refused it, as its configuration dump says.
    pub envoy_error: Option<String>,
    /// Why Envoy refused it, as it answered over xDS.
    pub refusal: Option<String>,
}

/// Whether and how a resource differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DiffState {
    /// Envoy works with what is published.
    Same,
    /// It is not in Envoy.
    Missing,
    /// Envoy has it, and it is not published.
    Extra,
    /// Envoy works with another version.
    OtherVersion,
    /// Envoy works with something else; where it says no version, the content is compared.
    OtherContent,
    /// Envoy has it, but still waits for what it needs.
    Warming,
    /// Envoy refused it.
    Refused,
    /// It is not in Envoy, which has not asked for it; no difference.
    Unwanted,
}

impl DiffState {
    /// Whether it is a difference.
    #[must_use]
    pub const fn is_difference(self) -> bool {
        !matches!(self, Self::Same | Self::Unwanted)
    }
}
