//! What was in effect when, and what the users saw of it. A stage begins when its cause was given (a file renamed, a container
//! told) and is settled when Envoy was seen to hold it; between the two, and for whoever was under way, the stage before
//! counts as well. Pure: durations are since the load started.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use serde::Serialize;
use tidegate_figures::percentile;
use tidegate_filter_core::{BUCKETS, bucket, pick};

use crate::load::Sample;

pub const STABLE: &str = "v1";
pub const CANARY: &str = "v2";

/// Where users belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The canary's weight, in basis points.
    Canary(u32),
    /// The canary is served by stable, whatever its weight.
    Stable,
}

#[derive(Debug, Clone)]
struct Stage {
    name: String,
    placement: Placement,
    from: Duration,
    /// None: not yet.
    settled: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Timeline {
    buckets: HashMap<String, u16>,
    stages: Vec<Stage>,
}

/// What came of the requests of one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Observed {
    pub name: String,
    pub seconds: f64,
    pub requests: usize,
    /// Whatever is no 2xx.
    pub failed: usize,
    /// The canary's part of the answers, 0 to 1.
    pub canary_share: f64,
    /// Users that asked once the stage was settled, those of them that met the canary, and those that should have.
    pub users: usize,
    pub canary_users: usize,
    pub canary_users_expected: usize,
    /// Answers by a version that no stage in effect allows.
    pub answers_elsewhere: usize,
    /// Users that met both versions once the stage was settled.
    pub users_on_two_versions: usize,
    pub p99_ms: f64,
}

impl Timeline {
    /// Of these users of the service, whose canary is salted with its own name.
    pub fn new(service: &str, users: impl IntoIterator<Item = String>) -> Self {
        let buckets = users.into_iter().map(|user| (user.clone(), bucket(service, CANARY, user.as_bytes())));
        Self { buckets: buckets.collect(), stages: Vec::new() }
    }

    pub fn begin(&mut self, name: &str, placement: Placement, from: Duration) {
        self.stages.push(Stage { name: name.to_owned(), placement, from, settled: None });
    }

    /// The last stage is in effect everywhere from now on.
    pub fn settle(&mut self, at: Duration) {
        if let Some(stage) = self.stages.last_mut() {
            stage.settled = Some(at);
        }
    }

    /// Of every stage; the last one ended at `end`.
    pub fn observe(&self, samples: &[Sample], end: Duration) -> Vec<Observed> {
        (0..self.stages.len()).map(|stage| self.observe_stage(stage, samples, end)).collect()
    }

    /// Users that were seen on the canary, and after it had grown on another version.
    pub fn left_as_it_grew(&self, samples: &[Sample], end: Duration) -> usize {
        let met = |stage| self.met(stage, samples, end);
        let grew = |stages: &[Stage]| match (stages[0].placement, stages[1].placement) {
            (Placement::Canary(before), Placement::Canary(after)) => before < after,
            _ => false,
        };
        let growths = self.stages.windows(2).enumerate().filter(|(_, stages)| grew(stages));
        let left = growths.map(|(stage, _)| {
            let after = met(stage + 1);
            let canaries = met(stage).into_iter().filter(|(_, versions)| versions.contains(CANARY));
            canaries.filter(|(user, _)| after.get(user).is_some_and(|versions| !versions.iter().eq([&CANARY]))).count()
        });
        left.sum()
    }

    fn observe_stage(&self, stage: usize, samples: &[Sample], end: Duration) -> Observed {
        let (from, until) = (self.stages[stage].from, self.until(stage, end));
        let samples_of_it: Vec<_> = samples.iter().filter(|sample| (from..until).contains(&sample.at)).collect();
        let answered: Vec<_> = samples_of_it.iter().filter_map(|sample| sample.version()).collect();
        let met = self.met(stage, samples, end);
        let placement = self.stages[stage].placement;
        let expected = met.keys().filter(|user| self.version(user, placement) == Some(CANARY));
        let successes = samples_of_it.iter().filter(|sample| sample.outcome.is_success());
        let mut latencies: Vec<_> = successes.map(|sample| sample.latency).collect();
        latencies.sort_unstable();
        Observed {
            name: self.stages[stage].name.clone(),
            seconds: (until - from).as_secs_f64(),
            requests: samples_of_it.len(),
            failed: samples_of_it.iter().filter(|sample| !sample.outcome.is_success()).count(),
            canary_share: ratio(answered.iter().filter(|version| **version == CANARY).count(), answered.len()),
            users: met.len(),
            canary_users: met.values().filter(|versions| versions.contains(CANARY)).count(),
            canary_users_expected: expected.count(),
            answers_elsewhere: samples_of_it.iter().filter(|sample| !self.allows(sample)).count(),
            users_on_two_versions: met.values().filter(|versions| versions.len() > 1).count(),
            p99_ms: percentile(&latencies, 99.0).as_secs_f64() * 1e3,
        }
    }

    /// Which versions each user met while the stage, and nothing else, was in effect.
    fn met<'a>(&self, stage: usize, samples: &'a [Sample], end: Duration) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let until = self.until(stage, end);
        let mut met: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let Some(settled) = self.stages[stage].settled else { return met };
        for sample in samples.iter().filter(|sample| settled <= sample.at && sample.at + sample.latency <= until) {
            if let (Some(user), Some(version)) = (&sample.key, sample.version()) {
                met.entry(user).or_default().insert(version);
            }
        }
        met
    }

    /// Whether a stage that may have been in effect during the request puts its user where it was answered.
    fn allows(&self, sample: &Sample) -> bool {
        let (Some(user), Some(version)) = (&sample.key, sample.version()) else { return true };
        self.stages.iter().enumerate().any(|(index, stage)| {
            let replaced = self.stages.get(index + 1).map_or(Some(Duration::MAX), |next| next.settled);
            stage.from <= sample.at + sample.latency
                && replaced.is_none_or(|replaced| sample.at <= replaced)
                && self.version(user, stage.placement) == Some(version)
        })
    }

    fn version(&self, user: &str, placement: Placement) -> Option<&'static str> {
        match placement {
            Placement::Stable => Some(STABLE),
            Placement::Canary(weight) => {
                let index = pick(&[BUCKETS - weight, weight], *self.buckets.get(user)?)?;
                [STABLE, CANARY].get(index).copied()
            }
        }
    }

    fn until(&self, stage: usize, end: Duration) -> Duration {
        self.stages.get(stage + 1).map_or(end, |next| next.from).max(self.stages[stage].from)
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "far fewer requests than 2^52")]
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Outcome;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn sample(at: u64, user: &str, version: &str) -> Sample {
        Sample {
            at: MS(at),
            latency: MS(5),
            outcome: Outcome::Status(200),
            served_by: Some(format!("{version}/box")),
            key: Some(user.to_owned()),
        }
    }

    /// 0 % from the start, 100 % asked for at 1 s and in effect at 1.1 s.
    fn timeline() -> Timeline {
        let mut timeline = Timeline::new("shop", ["a".to_owned(), "b".to_owned()]);
        timeline.begin("0 %", Placement::Canary(0), MS(0));
        timeline.settle(MS(0));
        timeline.begin("100 %", Placement::Canary(10_000), MS(1_000));
        timeline.settle(MS(1_100));
        timeline
    }

    #[test]
    fn between_two_stages_either_is_right() {
        let samples = [
            sample(10, "a", STABLE),
            sample(997, "a", CANARY), // under way when the weight changed
            sample(1_050, "a", STABLE),
            sample(1_060, "b", CANARY),
            sample(1_200, "a", CANARY),
        ];
        let observed = timeline().observe(&samples, MS(2_000));
        assert_eq!(observed.iter().map(|stage| stage.requests).collect::<Vec<_>>(), [2, 3]);
        assert!(observed.iter().all(|stage| stage.answers_elsewhere == 0 && stage.users_on_two_versions == 0));
        assert_eq!((observed[1].users, observed[1].canary_users, observed[1].canary_users_expected), (1, 1, 1));
    }

    #[test]
    fn who_is_elsewhere_or_wanders_or_fails_is_counted() {
        let mut failure = sample(1_400, "b", STABLE);
        (failure.outcome, failure.served_by) = (Outcome::BeforeHeaders, None);
        let samples = [sample(500, "b", CANARY), sample(1_200, "a", CANARY), sample(1_300, "a", STABLE), failure];
        let observed = timeline().observe(&samples, MS(2_000));
        assert_eq!(
            (observed[0].answers_elsewhere, observed[0].canary_users, observed[0].canary_users_expected),
            (1, 1, 0)
        );
        assert_eq!((observed[1].answers_elsewhere, observed[1].users_on_two_versions, observed[1].failed), (1, 1, 1));
        assert!((observed[1].canary_share - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_canary_that_is_served_by_stable_has_nobody() {
        let mut timeline = timeline();
        timeline.begin("not ready", Placement::Stable, MS(2_000));
        timeline.settle(MS(2_100));
        let samples = [sample(2_050, "a", CANARY), sample(2_200, "a", STABLE), sample(2_300, "b", CANARY)];
        let observed = timeline.observe(&samples, MS(3_000));
        assert_eq!((observed[2].answers_elsewhere, observed[2].canary_users_expected), (1, 0));
    }

    #[test]
    fn leaving_a_growing_canary_is_noticed() {
        let stayed = [sample(10, "a", STABLE), sample(1_200, "a", CANARY)];
        assert_eq!(timeline().left_as_it_grew(&stayed, MS(2_000)), 0);
        let left = [sample(10, "a", CANARY), sample(1_200, "a", STABLE)];
        assert_eq!(timeline().left_as_it_grew(&left, MS(2_000)), 1);
    }
}
