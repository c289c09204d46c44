//! What the filter tells the control plane: the JSON of a POST to [`REPORT_PATH`] of the xDS server, over the connection that xDS itself
//! goes by. Each worker reports for itself, what it counted since its last report; sums are the receiver's business.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Histogram;

/// Where reports are sent.
pub const REPORT_PATH: &str = "/tidegate.v1.Reports/Report";

/// One worker's report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The edge's node id.
    pub node: String,
    /// By service name; only services of which there is something to tell.
    pub services: BTreeMap<String, ServiceReport>,
}

/// What a worker tells of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// The breaker that is open at this edge. Told again with each report until another epoch begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trip: Option<Trip>,
    /// By version, what its answers were since the last report.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, Answers>,
}

/// An edge stopped sending clients to a canary.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trip {
    /// Of the policy whose breaker it was: a trip of another epoch is over.
    pub epoch: String,
    /// The canary's answers that counted as failures, since the epoch began at this edge.
    pub failures: u64,
    /// Its answers that counted at all.
    pub answers: u64,
    /// How many clients the failures came from, as far as they were told apart.
    pub distinct_keys: u32,
    /// The stable version's rate of failures by which the canary was judged, in basis points.
    pub stable_rate: u32,
}

/// Answers of one version to requests that were not sent there on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// All of them but those that say that the client was wrong (4xx).
    pub answered: u64,
    /// Those that count as failures.
    pub failed: u64,
    /// How long they took, from the request's head to the answer's.
    #[serde(default, skip_serializing_if = "Histogram::is_empty")]
    pub latency: Histogram,
}
