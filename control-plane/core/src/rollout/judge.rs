//! From what was seen of both versions to verdicts: whether the canary failed, and whether a stage is passed. Each verdict keeps the
//! numbers it was made from. What follows from a verdict is the engine's business.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_filter_core::{Histogram, Trip};

use crate::config::canary::Analysis;

/// What was seen of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Requests that were answered, or failed.
    pub requests: u64,
    /// Those of them that failed.
    pub errors: u64,
    /// How long answers took; need not be of the same requests.
    pub latency: Histogram,
}

/// What was seen of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// The version under trial.
    pub canary: Counts,
    /// The one that it is compared with.
    pub stable: Counts,
}

/// What a decision was made from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Of each metric, in the order in which they are declared.
    pub findings: Vec<Finding>,
    /// The breaker that opened.
    pub trip: Option<Trip>,
}

/// What was found of one metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Its name.
    pub metric: String,
    /// What it says of the canary.
    pub verdict: Verdict,
    /// Why, in a sentence without its end.
    pub reason: String,
}

/// What a metric says of the canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It passes.
    Good,
    /// Nothing yet.
    Undecided,
    /// Its own figure is out of range: a failed look.
    Bad,
    /// It is surely worse than the stable version: it has failed.
    Worse,
}

/// What is known of the canary in one stage, and how often that was judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trial {
    seen: Sample,
    /// What the stable version did in the last stage in which it got something.
    baseline: Counts,
    /// As the engine counts time.
    next_look: Duration,
    failed: u32,
    readings: BTreeMap<String, Result<f64, String>>,
    passed: bool,
    warned: bool,
    evidence: Option<Evidence>,
}

impl Counts {
    fn add(&mut self, more: &Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.errors = self.errors.saturating_add(more.errors).min(self.requests);
        self.latency.add(&more.latency);
    }
}

impl Trial {
    pub(super) fn next(&self, next_look: Duration) -> Self {
        let stable = &self.seen.stable;
        let baseline = if stable.requests > 0 { stable } else { &self.baseline };
        Self { baseline: baseline.clone(), next_look, ..Self::default() }
    }

    pub(super) fn observe(&mut self, sample: &Sample, in_traffic: bool) {
        self.seen.stable.add(&sample.stable);
        if in_traffic {
            self.seen.canary.add(&sample.canary);
        }
    }

    pub(super) fn measured(&mut self, metric: &str, result: Result<f64, String>) {
        self.readings.insert(metric.to_owned(), result);
    }

    /// Why the canary failed, if it did.
    pub(super) fn look(&mut self, _analysis: &Analysis, _stable_ready: bool, next_look: Duration) -> Option<String> {
        self.next_look = next_look;
        None
    }

    pub(super) fn gate(&mut self, _analysis: &Analysis, _stable_ready: bool) -> bool {
        self.passed
    }

    /// Whether a failure has not been told in this stage; it is now.
    pub(super) const fn warn(&mut self) -> bool {
        !std::mem::replace(&mut self.warned, true)
    }

    pub(super) const fn next_look(&self) -> Duration {
        self.next_look
    }

    pub(super) const fn has_passed(&self) -> bool {
        self.passed
    }

    pub(super) const fn seen(&self) -> &Sample {
        &self.seen
    }

    pub(super) const fn evidence(&self) -> Option<&Evidence> {
        self.evidence.as_ref()
    }

    pub(super) const fn failed(&self) -> u32 {
        self.failed
    }

    pub(super) fn undecided(&self) -> &str {
        "too little is known"
    }
}
