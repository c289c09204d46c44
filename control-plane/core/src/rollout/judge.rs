//! From what was seen of both versions to verdicts: whether the canary failed, and whether a stage is passed. Each verdict keeps the
//! numbers it was made from. What follows from a verdict is the engine's business.
//!
//! Two questions, two tests. *Has it failed?* is asked at every look, so its test may be: an e-process of the errors, and besides the
//! canary has to be worse by more than is tolerated. *Is it good?* is asked at the end of a pause, and again only when there is half as
//! much more to go by; the k-th time with the error 5 % / 2^k, so that all of them together err no more than 5 %.

mod findings;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_filter_core::{Histogram, Trip};

use self::findings::{Judged, Judging};
use crate::config::canary::Analysis;

/// The chance of a false alarm, of a canary that is as good as stable, in one stage.
const FALSE_ALARM: f64 = 0.001;
/// The chance of passing a canary that is worse by just more than is tolerated, in one stage.
const FALSE_PASS: f64 = 0.05;

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
    /// The numbers.
    pub numbers: Numbers,
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

/// The numbers of a finding. Rates and differences are in percent and percentage points, durations in milliseconds; all are rounded to
/// six decimals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Numbers {
    /// Of a success rate.
    Rates {
        /// The canary's requests in this stage.
        requests: u64,
        /// Those of them that failed.
        errors: u64,
        /// The stable version's requests in this stage, or in the last one in which it got some.
        stable_requests: u64,
        /// Those of them that failed.
        stable_errors: u64,
        /// The canary's success rate; `None`: there was no request.
        success_rate: Option<f64>,
        /// The stable version's.
        stable_success_rate: Option<f64>,
        /// How much larger the canary's error rate is.
        difference: Option<f64>,
        /// How much larger it is at most, with this `confidence`.
        difference_at_most: Option<f64>,
        /// One-sided.
        confidence: f64,
        /// The natural logarithm of the evidence E that the canary is the worse one; `None`: nothing to compare with at the same time.
        ln_e: Option<f64>,
        /// From which on it has failed.
        ln_e_limit: f64,
    },
    /// Of a duration.
    Durations {
        /// Which one was compared: 90 while there are too few samples for a higher one.
        percentile: u32,
        /// Of the canary.
        samples: u64,
        /// Of the stable version.
        stable_samples: u64,
        /// How many it takes.
        needed: u64,
        /// The canary's.
        canary: Option<f64>,
        /// The stable version's.
        stable: Option<f64>,
        /// The canary's as a multiple of the stable version's.
        ratio: Option<f64>,
    },
    /// What a server answered; `None`: nothing that counts.
    Reading {
        /// The number.
        value: Option<f64>,
    },
}

/// What a Prometheus server said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reading {
    /// `None`: it did not say it.
    value: Option<f64>,
    /// Why not.
    reason: String,
    /// Whether no look has counted it yet.
    fresh: bool,
}

/// What is known of the canary in one stage, and how often that was judged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trial {
    seen: Sample,
    /// What the stable version did in the last stage in which it got something.
    baseline: Counts,
    readings: BTreeMap<String, Reading>,
    /// As the engine counts time.
    next_look: Duration,
    /// The canary's requests and durations at the last look.
    looked_at: (u64, u64),
    failed: u32,
    gate: Gate,
    /// Whether a failure was told.
    warned: bool,
    evidence: Option<Evidence>,
}

/// How often it was asked whether the canary is good.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Gate {
    times: u32,
    /// The canary's requests the last time.
    at: u64,
    passed: bool,
    /// Why it is not.
    undecided: String,
}

impl Counts {
    fn add(&mut self, more: &Self) {
        self.requests = self.requests.saturating_add(more.requests);
        self.errors = self.errors.saturating_add(more.errors).min(self.requests);
        self.latency.add(&more.latency);
    }
}

impl Trial {
    /// That of the next stage.
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
        let (value, reason) = match result {
            Ok(value) if value.is_finite() => (Some(value), String::new()),
            Ok(value) => (None, format!("the answer is no number: {value}")),
            Err(reason) => (None, reason),
        };
        self.readings.insert(metric.to_owned(), Reading { value, reason, fresh: true });
    }

    /// Why the canary failed, if it did.
    pub(super) fn look(&mut self, analysis: &Analysis, stable_ready: bool, next_look: Duration) -> Option<String> {
        self.next_look = next_look;
        let judged = self.judge(analysis, stable_ready);
        let seen = (self.seen.canary.requests, self.seen.canary.latency.count());
        // What was not seen since the last look cannot fail another one.
        let news = |judged: &Judged| match &judged.finding.numbers {
            Numbers::Rates { .. } => seen.0 > self.looked_at.0,
            Numbers::Durations { .. } => seen.1 > self.looked_at.1,
            Numbers::Reading { .. } => self.readings.get(&judged.finding.metric).is_some_and(|reading| reading.fresh),
        };
        let found = |verdict| judged.iter().find(|judged| judged.finding.verdict == verdict && news(judged));
        let reason = |judged: &Judged| format!("{}: {}", judged.finding.metric, judged.finding.reason);
        let (worse, bad) = (found(Verdict::Worse).map(reason), found(Verdict::Bad).map(reason));
        self.looked_at = seen;
        self.readings.values_mut().for_each(|reading| reading.fresh = false);
        self.keep(judged);
        if worse.is_some() {
            return worse;
        }
        let bad = bad?;
        self.failed = self.failed.saturating_add(1);
        (self.failed >= analysis.threshold).then(|| format!("{bad}; {} looks failed", self.failed))
    }

    /// Whether the stage is passed. Asked anew only when there is enough more to go by.
    pub(super) fn gate(&mut self, analysis: &Analysis, stable_ready: bool) -> bool {
        if self.gate.passed {
            return true;
        }
        let seen = self.seen.canary.requests;
        let needed = match self.gate.times {
            0 => analysis.min_samples.max(1),
            _ => self.gate.at.saturating_add(self.gate.at.div_ceil(2)),
        };
        if seen < needed {
            if self.gate.times == 0 {
                self.gate.undecided = format!("{seen} of at least {needed} requests");
            }
            return false;
        }
        let judged = self.judge(analysis, stable_ready);
        let doubtful = judged.iter().find(|judged| judged.finding.verdict != Verdict::Good);
        self.gate.passed = doubtful.is_none();
        let reason = doubtful.map(|judged| format!("{}: {}", judged.finding.metric, judged.finding.reason));
        self.gate.undecided = reason.unwrap_or_default();
        // Where something is missing or settles it alone, the chance to err was not taken.
        let taken = |judged: &Judged| match judged.finding.numbers {
            Numbers::Reading { .. } => judged.finding.verdict == Verdict::Good,
            Numbers::Rates { .. } | Numbers::Durations { .. } => judged.known,
        };
        if judged.iter().all(taken) {
            self.gate.times = self.gate.times.saturating_add(1);
            self.gate.at = seen;
        }
        self.keep(judged);
        self.gate.passed
    }

    fn judge(&self, analysis: &Analysis, stable_ready: bool) -> Vec<Judged> {
        let next = i32::try_from(self.gate.times).unwrap_or(i32::MAX).saturating_add(1);
        let judging = Judging { trial: self, stable_ready, alpha: FALSE_PASS / 2_f64.powi(next) };
        analysis.metrics.iter().map(|metric| judging.of(metric)).collect()
    }

    fn keep(&mut self, judged: Vec<Judged>) {
        let findings = judged.into_iter().map(|judged| judged.finding).collect();
        self.evidence = Some(Evidence { findings, trip: None });
    }

    /// Whether a failure has not been told in this stage; it is now.
    pub(super) const fn warn(&mut self) -> bool {
        !std::mem::replace(&mut self.warned, true)
    }

    pub(super) const fn next_look(&self) -> Duration {
        self.next_look
    }

    pub(super) const fn has_passed(&self) -> bool {
        self.gate.passed
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

    /// Why the stage is not passed yet.
    pub(super) fn undecided(&self) -> &str {
        &self.gate.undecided
    }
}
