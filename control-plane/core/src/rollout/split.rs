//! How a service's traffic is split over its versions: one version, a pool, or a declared stable version with a canary. The
//! arithmetic of buckets is `tidegate-filter-core`'s; here it is decided which weights apply.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::compile::SPILL;
use crate::config::canary::Step;
use crate::config::{Canary, Salt, WHOLE};
use crate::name::cluster_name;
use crate::{ServiceName, VersionName};

/// What a split needs to know of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Instances that run.
    pub instances: u32,
    /// Instances that are ready and not being stopped.
    pub ready: u32,
}

/// What a canary gets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Its share in basis points, at most [`WHOLE`].
    pub weight: u32,
    /// The share of the requests that are sent to it besides, in basis points.
    pub mirror: u32,
    /// The trial that its breaker belongs to: one that opened stays open as long as this is the same. Empty: no breaker is armed.
    pub epoch: String,
}

/// What is declared of a service's versions, by whomever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The version that gets what no canary gets; ends the pool.
    pub stable: Option<VersionName>,
    /// The version under trial, and what it gets. Never without a stable one.
    pub canary: Option<(Arc<Canary>, Share)>,
}

impl Share {
    /// What a canary gets by its first step.
    #[must_use]
    pub fn first(canary: &Canary) -> Self {
        match canary.steps.first() {
            Some(Step::SetWeight(weight)) => Self { weight: *weight, ..Self::default() },
            Some(Step::Mirror(mirror)) => Self { mirror: *mirror, ..Self::default() },
            Some(Step::Pause(_)) | None => Self::default(),
        }
    }
}

/// How the traffic of a service is split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Split {
    /// All traffic goes to one version.
    Single {
        /// That version.
        version: VersionName,
    },
    /// Several versions and nothing declared: each gets its share by its number of ready instances.
    Pool {
        /// Basis points by version, in the order of the names; they sum to [`WHOLE`].
        weights: BTreeMap<VersionName, u32>,
    },
    /// A stable version and a canary.
    Rollout {
        /// The stable version.
        stable: VersionName,
        /// The canary, as it is declared.
        canary: Arc<Canary>,
        /// What it gets now.
        share: Share,
        /// Whether the stable version has no instance at all, so that the safe default is the canary.
        stable_gone: bool,
    },
}

impl Split {
    /// The versions that a route names, in the order of the weighted clusters.
    #[must_use]
    pub fn versions(&self) -> Vec<&VersionName> {
        match self {
            Self::Single { version } => vec![version],
            Self::Pool { weights } => weights.keys().collect(),
            Self::Rollout { stable, canary, .. } => vec![stable, &canary.version],
        }
    }

    /// The share of a version in basis points; zero for one that the split does not name.
    #[must_use]
    pub fn weight(&self, version: &VersionName) -> u32 {
        match self {
            Self::Single { version: only } if only == version => WHOLE,
            Self::Single { .. } => 0,
            Self::Pool { weights } => weights.get(version).copied().unwrap_or(0),
            Self::Rollout { stable, share, .. } if stable == version => WHOLE.saturating_sub(share.weight),
            Self::Rollout { canary, share, .. } if canary.version == *version => share.weight,
            Self::Rollout { .. } => 0,
        }
    }
}

/// The split that follows from what is declared and what runs; `None` when there is no version at all.
#[must_use]
pub fn split(declared: &Declared, versions: &BTreeMap<VersionName, Census>) -> Option<Split> {
    if versions.is_empty() {
        return None;
    }
    if let Declared { stable: Some(stable), canary } = declared {
        return Some(match canary {
            None => Split::Single { version: stable.clone() },
            Some((canary, share)) => Split::Rollout {
                stable: stable.clone(),
                canary: Arc::clone(canary),
                share: share.clone(),
                stable_gone: versions.get(stable).is_none_or(|census| census.instances == 0),
            },
        });
    }
    Some(pool(versions))
}

/// By ready instances; by instances while none is ready, so that the weights never sum to zero (Envoy refuses that).
fn pool(versions: &BTreeMap<VersionName, Census>) -> Split {
    let anything_runs = versions.values().any(|census| census.instances > 0);
    let anything_ready = versions.values().any(|census| census.ready > 0);
    let shares: Vec<(&VersionName, u64)> = versions
        .iter()
        .filter(|(_, census)| census.instances > 0 || !anything_runs)
        .map(|(version, census)| {
            let share = if anything_ready { census.ready } else { census.instances.max(1) };
            (version, u64::from(share))
        })
        .collect();
    if let [(version, _)] = shares.as_slice() {
        return Split::Single { version: (*version).clone() };
    }
    Split::Pool { weights: apportion(&shares) }
}

/// Whole basis points in proportion to `shares`, summing to [`WHOLE`] exactly: the largest remainders get what is left.
fn apportion(shares: &[(&VersionName, u64)]) -> BTreeMap<VersionName, u32> {
    let total: u64 = shares.iter().map(|(_, share)| share).sum::<u64>().max(1);
    let whole = u64::from(WHOLE);
    let mut parts: Vec<(u64, u64, &VersionName)> =
        shares.iter().map(|(version, share)| (share * whole / total, share * whole % total, *version)).collect();
    let mut left = whole - parts.iter().map(|(part, _, _)| part).sum::<u64>();
    parts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.2.cmp(b.2)));
    for (part, _, _) in &mut parts {
        if left == 0 {
            break;
        }
        *part += 1;
        left -= 1;
    }
    parts.into_iter().map(|(part, _, version)| (version.clone(), u32::try_from(part).unwrap_or(WHOLE))).collect()
}

/// What the hash of a client is mixed with, besides the service.
#[must_use]
pub fn salt(canary: &Canary) -> &str {
    match canary.salt {
        Salt::Rollout => canary.version.as_str(),
        Salt::Service => "",
    }
}

/// The bucket range of the canary, `[from, 10000)`; what lies below is stable's.
#[must_use]
pub fn canary_buckets(weight: u32) -> std::ops::Range<u32> {
    WHOLE.saturating_sub(weight)..WHOLE
}

/// The runtime keys that a canary's weight may have: where its share spills over, and where it does not.
#[must_use]
pub fn weight_keys(service: &ServiceName, canary: &VersionName) -> [String; 2] {
    let plain = format!("{}.{}", runtime_prefix(service), cluster_name(service, canary));
    [format!("{plain}{SPILL}"), plain]
}

/// The name of a service's split in Envoy: the runtime keys' common prefix.
#[must_use]
pub fn runtime_prefix(service: &ServiceName) -> String {
    format!("tg.{service}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(name: &str) -> VersionName {
        VersionName::new(name).unwrap()
    }

    fn census(versions: &[(&str, u32, u32)]) -> BTreeMap<VersionName, Census> {
        versions
            .iter()
            .map(|(name, instances, ready)| (version(name), Census { instances: *instances, ready: *ready }))
            .collect()
    }

    fn weights(split: Option<Split>) -> Vec<u32> {
        match split {
            Some(Split::Pool { weights }) => weights.into_values().collect(),
            Some(Split::Single { .. }) => vec![WHOLE],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pool_gives_each_version_its_share_of_ready_instances() {
        for (versions, expected) in [
            (census(&[("v1", 3, 3)]), vec![10_000]),
            (census(&[("v1", 3, 3), ("v2", 3, 1)]), vec![7_500, 2_500]),
            (census(&[("v1", 1, 1), ("v2", 1, 1), ("v3", 1, 1)]), vec![3_334, 3_333, 3_333]),
            (census(&[("v1", 2, 0), ("v2", 2, 2)]), vec![0, 10_000]),
            (census(&[("v1", 1, 0), ("v2", 3, 0)]), vec![2_500, 7_500]),
            (census(&[("v1", 0, 0), ("v2", 1, 1)]), vec![10_000]),
            (census(&[("v1", 0, 0), ("v2", 0, 0)]), vec![5_000, 5_000]),
        ] {
            let got = weights(split(&Declared::default(), &versions));
            assert_eq!(got, expected, "{versions:?}");
            assert_eq!(got.iter().sum::<u32>(), WHOLE);
        }
    }

    #[test]
    fn a_declared_stable_version_ends_the_pool() {
        let declared = Declared { stable: Some(version("v1")), canary: None };
        let split = split(&declared, &census(&[("v1", 3, 3), ("v2", 3, 3)]));
        assert_eq!(split, Some(Split::Single { version: version("v1") }));
    }

    #[test]
    fn readiness_never_changes_a_rollouts_weights() {
        let canary = Canary::at(version("v2"), 1_000);
        let share = Share::first(&canary);
        let declared = Declared { stable: Some(version("v1")), canary: Some((Arc::new(canary), share)) };
        for (v1, v2) in [((3, 3), (3, 3)), ((3, 0), (3, 3)), ((3, 3), (0, 0))] {
            let split = split(&declared, &census(&[("v1", v1.0, v1.1), ("v2", v2.0, v2.1)])).unwrap();
            assert_eq!((split.weight(&version("v1")), split.weight(&version("v2"))), (9_000, 1_000));
        }
    }
}
