//! What is shown of rollouts.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_filter_core::Trip;

use super::{API_VERSION, EdgeAcceptance, VersionStatus};
use crate::config::HashOn;
use crate::rollout::{
    Event, Evidence, Origin, Plan, Record, Sample, Share, Split, Stage, canary_buckets, share_interval,
};
use crate::service::{ServiceView, VersionView};
use crate::state::trials::{Point, Trials};
use crate::{ServiceName, State, Timestamp, VersionName};

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
    /// How far its rollout is, and why.
    pub rollout: RolloutStatus,
    /// Which edges have accepted the weight, and what each reports.
    pub edges: Vec<CanaryEdge>,
}

/// How far a rollout is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Who declared it.
    pub origin: Origin,
    /// What its run-time state belongs to: another text of the declaration is another generation.
    pub generation: String,
    /// How often it began.
    pub attempt: u64,
    /// `waiting`, `progressing`, `paused`, `aborted` or `promoted`.
    pub phase: String,
    /// Why, or what it waits for.
    pub reason: String,
    /// Its stages, in order; after the last one the canary gets everything.
    pub stages: Vec<StageStatus>,
    /// The one that it is in, from 0; `None`: the first is still to come, or all are over.
    pub stage: Option<usize>,
    /// How long it has been in that, in milliseconds, as far as time was counted.
    pub spent_millis: u64,
    /// The share that an operator chose, in basis points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<u32>,
    /// The share of requests that are sent to the canary besides, in basis points.
    pub mirror: u32,
    /// What edges reported in this stage.
    pub observed: Observed,
    /// Looks of this stage that failed, and how many end it; `None`: nothing is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks: Option<Looks>,
    /// What the last look found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What happened last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Event>,
    /// What edges reported lately, oldest first.
    pub chart: Vec<Point>,
}

/// A stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageStatus {
    /// The canary's share in basis points.
    pub weight: u32,
    /// The share of requests that are sent to it besides, in basis points.
    pub mirror: u32,
    /// How long it stays at least, in milliseconds.
    pub bake_millis: u64,
    /// Whether it is left only by `promote`.
    pub until_promoted: bool,
}

/// What edges reported of both versions, tries of requests counted one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Requests that the canary had.
    pub canary: u64,
    /// Requests that the stable version had.
    pub stable: u64,
    /// The canary's share of them, in percent; `None`: there were none.
    pub share: Option<f64>,
    /// The 95 % interval of that, in percent.
    pub interval: Option<[f64; 2]>,
}

/// Looks that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Looks {
    /// So many did.
    pub failed: u32,
    /// So many end the rollout.
    pub threshold: u32,
}

/// What is known of one edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryEdge {
    /// Whether it has accepted the weight.
    #[serde(flatten)]
    pub weight: EdgeAcceptance,
    /// When it last reported its load; `None`: it does not, and counts as nothing.
    pub reported_at: Option<Timestamp>,
    /// Its open breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trip: Option<Trip>,
}

/// What happened to the rollouts of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryHistory {
    /// [`API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// The service.
    pub service: String,
    /// The version that was promoted last.
    pub promoted: Option<String>,
    /// Oldest first; the newest 64.
    pub events: Vec<Event>,
}

impl CanaryStatus {
    /// The rollout of this service, if it has one; whoever knows the edges fills in what they accepted and report.
    #[must_use]
    pub fn of(view: &ServiceView, trials: &Trials) -> Option<Self> {
        let Split::Rollout { stable, canary, share, stable_gone } = &view.split else { return None };
        let (plan, record) = trials.get(&view.name)?;
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
            rollout: RolloutStatus::of(plan, record, share, trials.chart(&view.name).copied().collect()),
            edges: Vec::new(),
        })
    }
}

impl RolloutStatus {
    fn of(plan: &Plan, record: &Record, share: &Share, chart: Vec<Point>) -> Self {
        let rollout = &record.rollout;
        let analysis = plan.canary.analysis.as_ref();
        let stages = plan.stages();
        Self {
            origin: plan.origin,
            generation: rollout.generation().to_owned(),
            attempt: rollout.attempt(),
            phase: rollout.phase().as_str().to_owned(),
            reason: rollout.reason(plan),
            stage: rollout.step().filter(|step| *step < stages.len()),
            stages: stages.iter().map(StageStatus::of).collect(),
            spent_millis: millis(rollout.spent()),
            overridden: rollout.overridden(),
            mirror: share.mirror,
            observed: Observed::of(rollout.seen()),
            looks: analysis.map(|analysis| Looks { failed: rollout.failed_looks(), threshold: analysis.threshold }),
            evidence: rollout.evidence().cloned(),
            last: record.history.back().cloned(),
            chart,
        }
    }
}

impl StageStatus {
    fn of(stage: &Stage) -> Self {
        let Stage { weight, mirror, bake, until_promoted } = *stage;
        Self { weight, mirror, bake_millis: millis(bake), until_promoted }
    }
}

impl Observed {
    fn of(seen: &Sample) -> Self {
        let (canary, stable) = (seen.canary.requests, seen.stable.requests);
        let all = canary.saturating_add(stable);
        let interval = share_interval(canary, all).map(|ends| ends.map(|end| 100.0 * end));
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
        let share = (all > 0).then(|| 100.0 * canary as f64 / all as f64);
        Self { canary, stable, share, interval }
    }
}

impl CanaryHistory {
    /// What is known of a service's rollouts; `None`: it never had one, as far as is known.
    #[must_use]
    pub fn of(state: &State, service: &ServiceName, now: Timestamp) -> Option<Self> {
        let record = state.trials().rollouts().get(service)?;
        Some(Self {
            api_version: API_VERSION.to_owned(),
            at: now,
            service: service.to_string(),
            promoted: record.promoted.as_ref().map(ToString::to_string),
            events: record.history.iter().cloned().collect(),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A source of a client's key, as people write it.
fn key_source(source: &HashOn) -> String {
    match source {
        HashOn::Header(name) => format!("header {name}"),
        HashOn::Cookie(name) => format!("cookie {name}"),
        HashOn::SourceIp => "source IP".to_owned(),
    }
}
