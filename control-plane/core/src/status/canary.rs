//! What is shown of rollouts.

use serde::{Deserialize, Serialize};

use super::{API_VERSION, EdgeAcceptance, VersionStatus};
use crate::config::HashOn;
use crate::rollout::{Split, canary_buckets};
use crate::service::{ServiceView, VersionView};
use crate::{State, Timestamp, VersionName};

/// The rollouts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canaries {
    /// [`API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// Every service with a canary, by name.
    pub canaries: Vec<CanaryStatus>,
}

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// The service.
    pub service: String,
    /// The stable version.
    pub stable: VersionStatus,
    /// The canary.
    pub canary: VersionStatus,
    /// The canary's buckets, `[from, to)` of 10,000.
    pub buckets: [u32; 2],
    /// What a client's key is taken from, in order of preference; empty: the split is not sticky.
    pub affinity: Vec<String>,
    /// Whether the stable version has no instance at all.
    pub stable_gone: bool,
    /// Which edges have accepted the weight.
    pub edges: Vec<EdgeAcceptance>,
}

impl Canaries {
    /// Every rollout as of `now`; whoever knows the edges fills in what they accepted.
    #[must_use]
    pub fn of(state: &State, now: Timestamp) -> Self {
        let canaries = state.services().filter_map(CanaryStatus::of).collect();
        Self { api_version: API_VERSION.to_owned(), at: now, canaries }
    }
}

impl CanaryStatus {
    fn of(view: &ServiceView) -> Option<Self> {
        let Split::Rollout { stable, canary, share, stable_gone } = &view.split else { return None };
        let buckets = canary_buckets(share.weight);
        let version = |name: &VersionName| {
            let empty = VersionView::default();
            VersionStatus::of(view, name, view.versions.get(name).unwrap_or(&empty), true)
        };
        Some(Self {
            service: view.name.to_string(),
            stable: version(stable),
            canary: version(&canary.version),
            buckets: [buckets.start, buckets.end],
            affinity: canary.hash_on.iter().map(key_source).collect(),
            stable_gone: *stable_gone,
            edges: Vec::new(),
        })
    }
}

/// A source of a client's key, as people write it.
fn key_source(source: &HashOn) -> String {
    match source {
        HashOn::Header(name) => format!("header {name}"),
        HashOn::Cookie(name) => format!("cookie {name}"),
        HashOn::SourceIp => "source IP".to_owned(),
    }
}
