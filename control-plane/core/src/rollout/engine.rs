//! The state machine of one rollout: which share its canary has, and what moves it. Told `now`, facts and samples; it has no clock and
//! asks nobody, but says in [`Effect`]s whom to ask.
//!
//! Time counts as it is seen to pass: each call adds what passed since the one before, but at most [`LONGEST_GAP`], so that neither a
//! jump of the clock nor a night in which nobody watched makes a pause shorter; a step backwards adds nothing. What is not counted only
//! prolongs. A stage's own time counts only while it is under way and enough of the canary's instances are ready.

mod steps;
mod shown;
#[cfg(test)]
mod properties;
#[cfg(test)]
pub(super) mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_filter_core::Trip;

use super::Evidence;
use super::history::{Event, MOST_EVENTS, What};
use super::judge::{Sample, Trial};
use super::plan::{Plan, Stage};
use super::split::{Census, Share};
use crate::config::canary::{Analysis, MetricKind, OnFailure, WebhookKind};
use crate::config::percent;
use crate::{Timestamp, VersionName};

/// The most that counts between two calls.
pub const LONGEST_GAP: Duration = Duration::from_secs(20);
/// How often [`Rollout::deadline`] asks to be called while time counts; half of [`LONGEST_GAP`], so that a late call loses nothing.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long after a refusal a webhook is asked again where no analysis says it.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// No interval is taken for shorter.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// Characters that are kept of what others answer.
const LONGEST_ANSWER: usize = 200;

/// A trial under way, or over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    pub(super) generation: String,
    pub(super) stable: VersionName,
    pub(super) canary: VersionName,
    pub(super) phase: Phase,
    /// The stage; `None`: the first one is still to come.
    pub(super) step: Option<usize>,
    /// Basis points, as of the last change.
    pub(super) weight: u32,
    mirror: u32,
    /// What an operator chose instead of the stage's.
    pub(super) overridden: Option<u32>,
    /// Rises with each beginning, so that no breaker stays open from one to the next.
    attempt: u64,
    /// Whether an edge's breaker is open: then the canary gets nothing before the next attempt.
    pub(super) tripped: bool,
    /// Whether enough of the canary's instances are ready, as of the last call.
    pub(super) ready: bool,
    /// Whether any of the stable version's is.
    stable_ready: bool,
    /// Up to when time is counted.
    at: Timestamp,
    /// What was counted since it began.
    elapsed: Duration,
    /// What was counted in this stage.
    spent: Duration,
    asked: Option<Asked>,
    trial: Trial,
    /// What the next [`advance`](Rollout::advance) tells.
    pub(super) untold: Vec<Event>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Phase {
    /// Before the first stage: too few instances are ready, or somebody has not agreed yet. The canary gets nothing, or what it got
    /// under another declaration of the same versions.
    Waiting,
    /// It goes by its steps.
    Progressing,
    /// It stands still.
    Paused {
        /// What for.
        by: Hold,
        /// Why.
        reason: String,
    },
    /// The canary gets nothing any more.
    Aborted {
        /// Why.
        reason: String,
    },
    /// The canary gets everything.
    Promoted,
}

/// What a rollout that stands still waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hold {
    /// The operator who paused it.
    Operator,
    /// Anyone: a stage stayed undecided for too long.
    Inconclusive,
    /// Anyone: the canary failed, and is to stay where it is. Nothing is decided meanwhile.
    Frozen,
    /// `promote`: the pause has no end.
    Promotion,
}

/// A webhook that has been asked whether the share may grow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    kind: WebhookKind,
    /// When to ask again, as time is counted.
    again: Duration,
    agreed: bool,
    /// What it said instead.
    refusal: Option<String>,
}

/// What a rollout needs to know of its versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The canary's instances.
    pub canary: Census,
    /// The stable version's. While none is ready, nothing is compared with it.
    pub stable: Census,
}

/// What is to be done for a rollout.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Ask the webhooks of this kind whether the share may grow; one that refuses is enough for a refusal. The answer goes to
    /// [`Rollout::answered`].
    Ask(WebhookKind),
    /// Ask Prometheus for this metric. The result goes to [`Rollout::measured`].
    Measure(String),
    /// Keep this in the history, and tell those who want to be notified.
    Tell(Event),
}

/// Why something is done.
#[derive(Clone, Debug, Default)]
pub(super) struct Cause {
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) evidence: Option<Evidence>,
}

impl Rollout {
    /// The beginning of what is declared now. Another canary, or another stable version, starts from nothing; the same ones, declared
    /// otherwise, keep their share until the first stage begins, and a canary that is promoted stays so.
    #[must_use]
    pub fn begin(plan: &Plan, before: Option<&Self>, now: Timestamp) -> Self {
        let version = &plan.canary.version;
        let same = before.filter(|before| before.stable == plan.stable && before.canary == *version);
        let promoted = same.is_some_and(|same| same.phase == Phase::Promoted);
        let reason = match (before, same) {
            _ if promoted => format!("{version} is declared otherwise, and stays promoted"),
            (_, Some(_)) => format!("{version} is declared otherwise: from the first step again"),
            (Some(before), None) if before.canary != *version => format!("{version} instead of {}", before.canary),
            (_, None) => format!("{version} beside {}", plan.stable),
        };
        let mut rollout = Self {
            generation: plan.generation(),
            stable: plan.stable.clone(),
            canary: version.clone(),
            phase: if promoted { Phase::Promoted } else { Phase::Waiting },
            step: None,
            weight: same.map_or(0, |same| same.weight),
            mirror: 0,
            overridden: None,
            attempt: before.map_or(0, |before| before.attempt).saturating_add(1),
            tripped: false,
            ready: false,
            stable_ready: false,
            at: now,
            elapsed: Duration::ZERO,
            spent: Duration::ZERO,
            asked: None,
            trial: same.map(|same| same.trial.next(Duration::ZERO)).unwrap_or_default(),
            untold: before.map(|before| before.untold.clone()).unwrap_or_default(),
        };
        let from = before.map_or(0, |before| before.weight);
        let cause = Cause { by: plan.origin.as_str().to_owned(), reason, evidence: None };
        rollout.note(What::Began, from, cause, now);
        rollout
    }

    /// Does what is due. To be called when facts changed, after every other call that changes a rollout, and at its
    /// [`deadline`](Self::deadline). Called again at the same moment it does nothing.
    pub fn advance(&mut self, plan: &Plan, facts: &Facts, now: Timestamp) -> Vec<Effect> {
        self.tick(now);
        self.ready = facts.canary.ready >= plan.canary.min_ready.of(facts.canary.instances);
        self.stable_ready = facts.stable.ready > 0;
        let mut effects = Vec::new();
        self.look(plan, now, &mut effects);
        while self.go(plan, now, &mut effects) {}
        effects.extend(self.untold.drain(..).map(Effect::Tell));
        effects
    }

    /// Counts what was seen of both versions since the last sample. What is seen while the canary gets nothing counts only for the
    /// stable version.
    pub fn observe(&mut self, sample: &Sample) {
        if matches!(self.phase, Phase::Aborted { .. } | Phase::Promoted) {
            return;
        }
        self.trial.observe(sample, self.weight > 0);
    }

    /// What Prometheus said of one metric, or why it said nothing.
    pub fn measured(&mut self, plan: &Plan, metric: &str, result: Result<f64, String>, now: Timestamp) {
        self.tick(now);
        let metrics = plan.canary.analysis.iter().flat_map(|analysis| &analysis.metrics);
        let known = metrics.filter(|known| matches!(known.kind, MetricKind::Prometheus { .. }));
        if self.is_watched() && known.into_iter().any(|known| known.name == metric) {
            self.trial.measured(metric, result.map_err(|reason| shortened(&reason)));
        }
    }

    /// What the webhooks of a kind said. What nobody was asked is nothing.
    pub fn answered(&mut self, plan: &Plan, kind: WebhookKind, answer: Result<(), String>, now: Timestamp) {
        self.tick(now);
        let again = self.elapsed.saturating_add(ask_again(plan));
        let Some(asked) = self.asked.as_mut().filter(|asked| asked.kind == kind && !asked.agreed) else { return };
        let refusal = answer.err().map(|reason| shortened(&reason));
        asked.agreed = refusal.is_none();
        asked.again = again;
        if asked.refusal == refusal {
            return;
        }
        asked.refusal.clone_from(&refusal);
        if let Some(reason) = refusal {
            let reason = format!("{} does not agree: {reason}", word(kind));
            self.note(What::Held, self.weight, Cause { by: "webhook".to_owned(), reason, evidence: None }, now);
        }
    }

    /// An edge's breaker is open. One of an attempt that is over is nothing.
    pub fn tripped(&mut self, plan: &Plan, edge: &str, trip: &Trip, now: Timestamp) {
        if self.tripped || trip.epoch.is_empty() || trip.epoch != self.epoch(plan) {
            return;
        }
        self.tick(now);
        // As the edge calls itself.
        let edge = shortened(edge);
        let reason = format!(
            "the breaker at {edge} opened: {} of {} answers failed, to {} clients, while stable fails {}",
            trip.failures,
            trip.answers,
            trip.distinct_keys,
            percent(trip.stable_rate)
        );
        let evidence = Some(Evidence { findings: Vec::new(), trip: Some(trip.clone()) });
        let cause = Cause { by: format!("breaker at {edge}"), reason, evidence };
        self.tripped = true;
        if plan.canary.analysis.as_ref().is_some_and(|analysis| analysis.on_failure == OnFailure::Freeze) {
            self.change(What::Frozen, cause, now, |rollout, reason| {
                rollout.give(0, 0);
                rollout.phase = Phase::Paused { by: Hold::Frozen, reason };
            });
        } else {
            self.abort(cause, now);
        }
    }

    /// What the canary gets.
    #[must_use]
    pub fn share(&self, plan: &Plan) -> Share {
        Share { weight: self.weight, mirror: self.mirror, epoch: self.epoch(plan) }
    }

    /// When [`advance`](Self::advance) has something to do although nothing happened; `None`: never.
    #[must_use]
    pub fn deadline(&self, plan: &Plan) -> Option<Timestamp> {
        if !self.untold.is_empty() {
            return Some(self.at);
        }
        let mut left = Vec::new();
        if self.is_watched() && plan.canary.analysis.is_some() {
            left.push(self.trial.next_look().saturating_sub(self.elapsed));
        }
        if self.phase == Phase::Progressing
            && self.ready
            && let Some(stage) = self.stage(plan)
        {
            let bake = stage.bake.saturating_sub(self.spent);
            if !bake.is_zero() {
                left.push(bake);
            } else if let Some(analysis) = gate(plan, stage).filter(|_| !self.trial.has_passed()) {
                left.push(stage.bake.saturating_add(analysis.max_step_duration).saturating_sub(self.spent));
            }
        }
        if let Some(asked) = &self.asked
            && !asked.agreed
            && self.ready
            && self.moves()
        {
            left.push(asked.again.saturating_sub(self.elapsed));
        }
        // Longer, and not all of it would count.
        left.into_iter().min().map(|left| self.at.after(left.min(HEARTBEAT)))
    }

    /// To be called once after a restart, before anything else: nobody watched for `away`, as far as that is known.
    pub fn resumed(&mut self, away: Duration, now: Timestamp) {
        self.count(away.min(LONGEST_GAP));
        self.at = now;
        if let Some(asked) = &mut self.asked {
            asked.again = asked.again.min(self.elapsed);
        }
    }

    /// A share; what an operator chose before is over, and so is what was asked about the next one.
    pub(super) fn give(&mut self, weight: u32, mirror: u32) {
        self.asked = None;
        self.weight = weight;
        self.mirror = mirror;
        self.overridden = None;
    }

    /// Forgets what was seen under another share.
    pub(super) fn start_counting(&mut self, plan: &Plan) {
        let interval = plan.canary.analysis.as_ref().map(interval).unwrap_or_default();
        self.trial = self.trial.next(self.elapsed.saturating_add(interval));
    }

    /// Counts the time since the last call.
    pub(super) fn tick(&mut self, now: Timestamp) {
        self.count(now.since(self.at).min(LONGEST_GAP));
        self.at = now;
    }

    fn count(&mut self, passed: Duration) {
        self.elapsed = self.elapsed.saturating_add(passed);
        if self.phase == Phase::Progressing && self.ready {
            self.spent = self.spent.saturating_add(passed);
        }
    }

    /// Makes a change, and notes it.
    pub(super) fn change(&mut self, what: What, cause: Cause, now: Timestamp, change: impl FnOnce(&mut Self, String)) {
        let from = self.weight;
        change(self, cause.reason.clone());
        self.note(what, from, cause, now);
    }

    fn note(&mut self, what: What, from: u32, cause: Cause, now: Timestamp) {
        let Cause { by, reason, evidence } = cause;
        let event = Event { at: now, by, what, from, to: self.weight, step: self.step, reason, evidence };
        if self.untold.len() >= MOST_EVENTS {
            self.untold.remove(0);
        }
        self.untold.push(event);
    }

    fn stage(&self, plan: &Plan) -> Option<Stage> {
        plan.stage(self.step?)
    }

    /// Whether it goes by itself.
    const fn moves(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Progressing)
    }

    /// Whether it is looked at: the canary gets something, and what is found counts.
    fn is_watched(&self) -> bool {
        let counts = match &self.phase {
            Phase::Progressing => true,
            Phase::Paused { by, .. } => *by != Hold::Frozen,
            Phase::Waiting | Phase::Aborted { .. } | Phase::Promoted => false,
        };
        counts && self.weight > 0
    }

    /// See [`Share::epoch`].
    fn epoch(&self, plan: &Plan) -> String {
        match &self.phase {
            // One that is open stays so: edges may hear of the weight a moment after they hear of the breaker.
            Phase::Aborted { .. } if !self.tripped => String::new(),
            Phase::Promoted => String::new(),
            _ if plan.canary.breaker.is_none() => String::new(),
            _ => format!("{}-{}", self.generation, self.attempt),
        }
    }
}

/// What a stage has to pass before it is left.
fn gate(plan: &Plan, stage: Stage) -> Option<&Analysis> {
    plan.canary.analysis.as_ref().filter(|analysis| !analysis.dry_run && stage.weight > 0)
}

fn interval(analysis: &Analysis) -> Duration {
    analysis.interval.max(SHORTEST_INTERVAL)
}

fn ask_again(plan: &Plan) -> Duration {
    plan.canary.analysis.as_ref().map_or(ASK_AGAIN, interval)
}

/// As the configuration names it.
const fn word(kind: WebhookKind) -> &'static str {
    match kind {
        WebhookKind::ConfirmTrafficIncrease => "confirm-traffic-increase",
        WebhookKind::ConfirmPromotion => "confirm-promotion",
        WebhookKind::Notify => "notify",
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_ANSWER).collect()
}
