//! The rollouts as a part of the state: whose word holds for a service, what moves its rollout, what its canary gets, and what is to be
//! asked outside. The rules of a rollout are the engine's; that a share grows only once that is on disk is kept here.

mod errands;
mod orders;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_filter_core::{Report, Trip};

use self::errands::errands;
pub use self::errands::{About, Errand, Job};
pub use self::orders::{Order, OrderError};
use crate::config::canary::WebhookKind;
use crate::config::{Canary, ServiceConfig};
use crate::rollout::{
    Census, Counts, Declared, Effect, Facts, Origin, Phase, Plan, Record, Rollouts, Sample, Share, weight_keys,
};
use crate::{ServiceName, Timestamp, VersionName};

/// Points of a chart: some minutes of reports.
const MOST_POINTS: usize = 120;
/// Services whose past rollouts are remembered although nothing of them is left.
const MOST_PAST: usize = 1_000;
/// Edges whose open breakers are remembered, of each service.
const MOST_EDGES: usize = 1_000;

/// What was reported of a trial between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// The share that was set, in basis points.
    pub set: u32,
    /// Requests that the canary had.
    pub canary: u64,
    /// Requests that the stable version had.
    pub stable: u64,
}

/// The rollouts, and what is known of them beside what is kept.
#[derive(Debug, Default)]
pub struct Trials {
    rollouts: Rollouts,
    of: BTreeMap<ServiceName, Trial>,
    errands: Vec<Errand>,
    revision: u64,
    decided: u64,
    /// Up to which revision they are on disk; `None`: nobody keeps them, and nobody is waited for.
    kept: Option<u64>,
    /// What edges have, by runtime key, of rollouts whose state was lost; `None`: nothing was, or all of them stand still by now.
    lost: Option<BTreeMap<String, u32>>,
}

/// One that is declared now.
#[derive(Debug)]
struct Trial {
    plan: Plan,
    given: Share,
    /// The revision that has to be on disk before more is given.
    asked: u64,
    /// When its rollout has something to do although nothing happens.
    due: Option<Timestamp>,
    chart: VecDeque<Point>,
    /// By edge, breakers that are open.
    trips: BTreeMap<String, Trip>,
}

impl Trials {
    /// Those that were kept, after nobody watched for so long. From now on a share grows only once that is kept.
    #[must_use]
    pub fn restored(mut rollouts: Rollouts, away: Duration, now: Timestamp) -> Self {
        for (_, record) in rollouts.iter_mut() {
            record.rollout.resumed(away, now);
        }
        Self { rollouts, kept: Some(0), ..Self::default() }
    }

    /// What was kept is lost: those that are declared stand still at what edges have of them, by runtime key.
    #[must_use]
    pub fn lost(weights: BTreeMap<String, u32>) -> Self {
        Self { kept: Some(0), lost: Some(weights), ..Self::default() }
    }

    /// All that is to be kept.
    #[must_use]
    pub const fn rollouts(&self) -> &Rollouts {
        &self.rollouts
    }

    /// Counts changes of [`rollouts`](Self::rollouts).
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Counts those of them that were decided, not only counted.
    #[must_use]
    pub const fn decided(&self) -> u64 {
        self.decided
    }

    /// The plan of a service's rollout, and its record.
    #[must_use]
    pub fn get(&self, service: &ServiceName) -> Option<(&Plan, &Record)> {
        Some((&self.of.get(service)?.plan, self.rollouts.get(service)?))
    }

    /// What was reported of it lately.
    pub fn chart(&self, service: &ServiceName) -> impl Iterator<Item = &Point> {
        self.of.get(service).into_iter().flat_map(|trial| &trial.chart)
    }

    /// The breakers that are open, by edge.
    pub fn trips(&self, service: &ServiceName) -> impl Iterator<Item = (&str, &Trip)> {
        let trips = self.of.get(service).into_iter().flat_map(|trial| &trial.trips);
        trips.map(|(edge, trip)| (edge.as_str(), trip))
    }

    /// The services with a trial, their stable versions, and their canaries.
    pub fn versions(&self) -> impl Iterator<Item = (ServiceName, VersionName, VersionName)> {
        let of = |(service, trial): (&ServiceName, &Trial)| {
            (service.clone(), trial.plan.stable.clone(), trial.plan.canary.version.clone())
        };
        self.of.iter().map(of)
    }

    /// How often what edges report is looked at, at most; `None`: nobody needs it.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.of.values().filter_map(|trial| Some(trial.plan.canary.analysis.as_ref()?.interval)).min()
    }

    pub(super) fn take_errands(&mut self) -> Vec<Errand> {
        std::mem::take(&mut self.errands)
    }

    /// Every service there was at start has been [led](Self::lead): a rollout that begins from now on was not lost.
    pub(super) fn all_known(&mut self) {
        self.lost = None;
    }

    /// Moves a service's rollout, if it has one, and says what follows for its versions. Without a census nothing is known of their
    /// instances yet: it stays as it is.
    pub(super) fn lead(
        &mut self,
        service: &ServiceName,
        file: Option<&ServiceConfig>,
        labelled: Option<(VersionName, Arc<Canary>)>,
        census: Option<&BTreeMap<VersionName, Census>>,
        now: Timestamp,
    ) -> Declared {
        let stable = file.and_then(|file| file.stable.clone());
        let Some(plan) = self.plan(service, file, labelled) else {
            self.end(service, stable.as_ref(), now);
            return Declared { stable, canary: None };
        };
        let before = self.rollouts.get(service).cloned();
        let goes_on = |record: &&Record| !record.over && record.rollout.generation() == plan.generation();
        let same = before.as_ref().filter(goes_on).cloned();
        let begins = same.is_none();
        let mut record = same.unwrap_or_else(|| Record::begin(&plan, before.as_ref(), now));
        record.declared = (plan.origin == Origin::Operator).then(|| plan.clone());
        if let Some(lost) = self.lost.as_ref().filter(|_| before.is_none()) {
            let keys = weight_keys(service, &plan.canary.version);
            let weight = keys.iter().find_map(|key| lost.get(key)).copied().unwrap_or(0);
            record.rollout.stand_still(weight, "what was kept of it is lost", now);
        }
        let held = record.rollout.share(&plan);
        let effects = census.map_or_else(Vec::new, |census| {
            let of = |version: &VersionName| census.get(version).copied().unwrap_or_default();
            let facts = Facts { canary: of(&plan.canary.version), stable: of(&plan.stable) };
            record.advance(&plan, &facts, now)
        });
        let share = record.rollout.share(&plan);
        let due = record.rollout.deadline(&plan).filter(|_| census.is_some());
        self.decided += u64::from(begins || effects.iter().any(|effect| matches!(effect, Effect::Tell(_))));
        if before.as_ref() != Some(&record) {
            self.revision += 1;
        }
        self.errands.extend(errands(service, &plan, &share, &effects));
        self.rollouts.insert(service.clone(), record);
        let known = self.of.remove(service).filter(|trial| trial.plan.canary.version == plan.canary.version);
        // What is from an earlier life is what edges have.
        let known = known.unwrap_or_else(|| Trial::new(plan.clone(), held));
        let trial = self.of.entry(service.clone()).or_insert(Trial { plan, due, ..known });
        let grows = share.weight > trial.given.weight || share.mirror > trial.given.mirror;
        if share != trial.given {
            if !grows || self.kept.is_none_or(|kept| trial.asked > 0 && kept >= trial.asked) {
                trial.given = share;
                trial.asked = 0;
            } else if trial.asked == 0 {
                trial.asked = self.revision;
            }
        }
        if trial.given.epoch.is_empty() {
            trial.trips.clear();
        } else {
            trial.trips.retain(|_, trip| trip.epoch == trial.given.epoch);
        }
        let canary = Some((Arc::clone(&trial.plan.canary), trial.given.clone()));
        Declared { stable: Some(trial.plan.stable.clone()), canary }
    }

    /// Whose word holds: the file's, then an operator's, then a label's.
    fn plan(
        &self,
        service: &ServiceName,
        file: Option<&ServiceConfig>,
        labelled: Option<(VersionName, Arc<Canary>)>,
    ) -> Option<Plan> {
        let stable = file.and_then(|file| file.stable.clone());
        if let Some((stable, canary)) = stable.clone().zip(file.and_then(|file| file.canary.clone())) {
            return Some(Plan { stable, canary, origin: Origin::File });
        }
        let ordered = self.rollouts.get(service).and_then(|record| record.declared.clone());
        let ordered =
            ordered.map(|plan| Plan { stable: stable.clone().unwrap_or_else(|| plan.stable.clone()), ..plan });
        // Once the file calls it stable, it is under trial no more.
        let ordered = ordered.filter(|plan| plan.stable != plan.canary.version);
        ordered.or_else(|| labelled.map(|(stable, canary)| Plan { stable, canary, origin: Origin::Label }))
    }

    /// Nothing of the service is left for now; what is known of its rollout stays.
    pub(super) fn gone(&mut self, service: &ServiceName) {
        self.of.remove(service);
    }

    /// Nobody declares it any more.
    fn end(&mut self, service: &ServiceName, stable: Option<&VersionName>, now: Timestamp) {
        let was = self.of.remove(service);
        if let Some(record) = self.rollouts.get_mut(service).filter(|record| !record.over) {
            let is_stable_now = stable == Some(record.rollout.canary());
            if !is_stable_now && !matches!(record.rollout.phase(), Phase::Aborted { .. }) {
                record.end("tidegate.yaml", "nobody declares it any more", now);
            }
            record.over = true;
            record.declared = None;
            self.revision += 1;
            self.decided += 1;
        }
        if was.is_some() {
            self.forget_the_past();
        }
    }

    fn forget_the_past(&mut self) {
        let past = |service: &&ServiceName| !self.of.contains_key(*service);
        let surplus = self.rollouts.iter().count().saturating_sub(MOST_PAST + self.of.len());
        let gone: Vec<ServiceName> =
            self.rollouts.iter().map(|(service, _)| service).filter(past).take(surplus).cloned().collect();
        for service in gone {
            self.rollouts.remove(&service);
        }
    }

    /// Whose rollout has something to do now although nothing happened.
    pub(super) fn due(&self, now: Timestamp) -> Vec<ServiceName> {
        let due = |(_, trial): &(&ServiceName, &Trial)| trial.due.is_some_and(|at| at <= now);
        self.of.iter().filter(due).map(|(service, _)| service.clone()).collect()
    }

    /// When the first one has.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.of.values().filter_map(|trial| trial.due).min()
    }

    /// They are on disk up to this revision, or cannot be; returns who waits for that.
    pub(super) fn kept(&mut self, revision: u64) -> Vec<ServiceName> {
        self.kept = Some(revision);
        let waits = |trial: &Trial| trial.asked > 0 && trial.asked <= revision;
        self.of.iter().filter(|(_, trial)| waits(trial)).map(|(service, _)| service.clone()).collect()
    }

    /// What edges' load reports say.
    pub(super) fn sampled(&mut self, service: &ServiceName, sample: &Sample, now: Timestamp) -> bool {
        let Some((trial, record)) = self.both(service) else { return false };
        record.rollout.observe(sample);
        if trial.chart.len() >= MOST_POINTS {
            trial.chart.pop_front();
        }
        let (canary, stable) = (sample.canary.requests, sample.stable.requests);
        trial.chart.push_back(Point { at: now, set: trial.given.weight, canary, stable });
        self.revision += 1;
        true
    }

    /// What the filter of an edge says; returns whom it concerns.
    pub(super) fn told(&mut self, report: &Report, now: Timestamp) -> Vec<ServiceName> {
        let mut concerned = Vec::new();
        for (name, said) in &report.services {
            let Ok(service) = ServiceName::new(name) else { continue };
            let Some((trial, record)) = self.both(&service) else { continue };
            let latency = |version: &VersionName| {
                let latency = said.versions.get(version.as_str()).map(|answers| answers.latency.clone());
                Counts { latency: latency.unwrap_or_default(), ..Counts::default() }
            };
            let sample = Sample { canary: latency(&trial.plan.canary.version), stable: latency(&trial.plan.stable) };
            record.rollout.observe(&sample);
            if let Some(trip) = &said.trip
                && trip.epoch == trial.given.epoch
                && !trip.epoch.is_empty()
                && (trial.trips.len() < MOST_EDGES || trial.trips.contains_key(&report.node))
            {
                trial.trips.insert(report.node.clone(), trip.clone());
                record.rollout.tripped(&trial.plan, &report.node, trip, now);
            }
            self.revision += 1;
            concerned.push(service);
        }
        concerned
    }

    /// What webhooks said of a rollout.
    pub(super) fn answered(
        &mut self,
        service: &ServiceName,
        generation: &str,
        kind: WebhookKind,
        answer: Result<(), String>,
        now: Timestamp,
    ) {
        if let Some((trial, record)) = self.both(service)
            && record.rollout.generation() == generation
        {
            record.rollout.answered(&trial.plan, kind, answer, now);
        }
    }

    /// What Prometheus said of a metric.
    pub(super) fn measured(
        &mut self,
        service: &ServiceName,
        generation: &str,
        metric: &str,
        result: Result<f64, String>,
        now: Timestamp,
    ) {
        if let Some((trial, record)) = self.both(service)
            && record.rollout.generation() == generation
        {
            record.rollout.measured(&trial.plan, metric, result, now);
        }
    }

    /// Carries out an order. `versions` are those that the service has, and `declared` what the file calls stable.
    pub(super) fn order<'a>(
        &mut self,
        service: &ServiceName,
        order: Order,
        by: &str,
        declared: Option<&VersionName>,
        versions: impl Iterator<Item = &'a VersionName>,
        now: Timestamp,
    ) -> Result<(), OrderError> {
        let (stable, canary) = match order {
            Order::Start { stable, canary } => (stable, canary),
            Order::Lead(command) => {
                let none = || OrderError::NoTrial(service.clone());
                let (trial, record) = self.both(service).ok_or_else(none)?;
                record.rollout.operate(&trial.plan, &command, by, now)?;
                self.revision += 1;
                return Ok(());
            }
        };
        if let Some((plan, record)) = self.get(service)
            && (plan.origin != Origin::Operator
                || !matches!(record.rollout.phase(), Phase::Aborted { .. } | Phase::Promoted))
        {
            let (canary, by) = (plan.canary.version.clone(), plan.origin.as_str());
            return Err(OrderError::UnderWay { service: service.clone(), canary, by });
        }
        let versions: Vec<&VersionName> = versions.collect();
        let listed = || versions.iter().map(|version| version.as_str()).collect::<Vec<_>>().join(", ");
        if !versions.contains(&&canary.version) {
            return Err(OrderError::UnknownVersion(service.clone(), canary.version.clone(), listed()));
        }
        let promoted = || self.rollouts.get(service).and_then(|record| record.promoted.clone());
        let only_other = || match versions.iter().filter(|version| ***version != canary.version).collect::<Vec<_>>()[..]
        {
            [only] => Some((*only).clone()),
            _ => None,
        };
        let stable = stable.or_else(|| declared.cloned()).or_else(promoted).or_else(only_other);
        let stable = stable.ok_or_else(|| OrderError::UnclearStable(service.clone(), listed()))?;
        if stable == canary.version {
            return Err(OrderError::Itself(service.clone(), stable));
        }
        if !versions.contains(&&stable) {
            return Err(OrderError::UnknownVersion(service.clone(), stable, listed()));
        }
        let plan = Plan { stable, canary, origin: Origin::Operator };
        let mut record = Record::begin(&plan, self.rollouts.get(service), now).begun_by(by);
        record.declared = Some(plan);
        self.rollouts.insert(service.clone(), record);
        self.of.remove(service);
        self.revision += 1;
        Ok(())
    }

    fn both(&mut self, service: &ServiceName) -> Option<(&mut Trial, &mut Record)> {
        Some((self.of.get_mut(service)?, self.rollouts.get_mut(service)?))
    }
}

impl Trial {
    fn new(plan: Plan, given: Share) -> Self {
        Self { plan, given, asked: 0, due: None, chart: VecDeque::new(), trips: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests;
