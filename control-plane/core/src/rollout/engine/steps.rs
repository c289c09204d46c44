//! How a rollout goes on: what a look finds, whether a stage may be left, and what the next one begins with.

use std::time::Duration;

use super::super::history::What;
use super::super::plan::{Plan, Stage};
use super::{Asked, Cause, Effect, Hold, Phase, Rollout, ask_again, gate, interval};
use crate::Timestamp;
use crate::config::WHOLE;
use crate::config::canary::{Analysis, MetricKind, OnFailure, OnInconclusive};

impl Rollout {
    /// The looks that are due, and what follows from them.
    pub(super) fn look(&mut self, plan: &Plan, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(analysis) = &plan.canary.analysis else { return };
        if !self.is_watched() || self.elapsed < self.trial.next_look() {
            return;
        }
        for metric in &analysis.metrics {
            if matches!(metric.kind, MetricKind::Prometheus { .. }) {
                effects.push(Effect::Measure(metric.name.clone()));
            }
        }
        let next = self.elapsed.saturating_add(interval(analysis));
        if let Some(reason) = self.trial.look(analysis, self.stable_ready, next) {
            self.fail(analysis, reason, now);
        }
    }

    /// The next step, if nothing is in its way; says whether it was taken.
    pub(super) fn go(&mut self, plan: &Plan, now: Timestamp, effects: &mut Vec<Effect>) -> bool {
        if !self.moves() || !self.ready {
            return false;
        }
        let (next, cause) = match self.step {
            None => (
                0,
                Cause { by: "readiness".to_owned(), reason: "enough instances are ready".to_owned(), evidence: None },
            ),
            Some(step) => match self.leave(plan, now) {
                Some(cause) => (step.saturating_add(1), cause),
                None => return false,
            },
        };
        let weight = plan.stage(next).map_or(WHOLE, |stage| stage.weight);
        if let Some(kind) = plan.confirmation(self.weight, weight) {
            let due = match &self.asked {
                Some(asked) if asked.agreed => None,
                Some(asked) if asked.again > self.elapsed => return false,
                Some(Asked { refusal, .. }) => Some(refusal.clone()),
                None => Some(None),
            };
            if let Some(refusal) = due {
                let again = self.elapsed.saturating_add(plan.patience(kind)).saturating_add(ask_again(plan));
                self.asked = Some(Asked { kind, again, agreed: false, refusal });
                effects.push(Effect::Ask(kind));
                return false;
            }
        }
        self.enter(plan, next, cause, now);
        true
    }

    /// Why the stage may be left; `None`: it may not.
    fn leave(&mut self, plan: &Plan, now: Timestamp) -> Option<Cause> {
        let stage = self.stage(plan).unwrap_or_default();
        if self.spent < stage.bake {
            return None;
        }
        if stage.until_promoted {
            let reason = "its pause has no end: `promote` goes on".to_owned();
            let cause = Cause { by: "timer".to_owned(), reason, evidence: None };
            self.change(What::Paused, cause, now, |rollout, reason| {
                rollout.phase = Phase::Paused { by: Hold::Promotion, reason };
            });
            return None;
        }
        let timer = |reason: &str, evidence| Cause { by: "timer".to_owned(), reason: reason.to_owned(), evidence };
        let analysis = match (gate(plan, stage), &plan.canary.analysis) {
            (Some(analysis), _) => analysis,
            (None, Some(analysis)) if analysis.dry_run && stage.weight > 0 => {
                let passed = self.trial.gate(analysis, self.stable_ready);
                let reason = if passed {
                    "the pause is over; it would have passed"
                } else {
                    "the pause is over; it would have waited"
                };
                return Some(timer(reason, self.trial.evidence().cloned()));
            }
            (None, _) => return Some(timer("the pause is over", None)),
        };
        if self.trial.gate(analysis, self.stable_ready) {
            let reason = "not worse than stable by more than is tolerated".to_owned();
            return Some(Cause { by: "analysis".to_owned(), reason, evidence: self.trial.evidence().cloned() });
        }
        if self.spent.saturating_sub(stage.bake) >= analysis.max_step_duration {
            let reason = format!(
                "still undecided {} after its pause: {}",
                humantime::format_duration(analysis.max_step_duration),
                self.trial.undecided()
            );
            let cause = Cause { by: "analysis".to_owned(), reason, evidence: self.trial.evidence().cloned() };
            match analysis.on_inconclusive {
                OnInconclusive::Rollback => self.abort(cause, now),
                OnInconclusive::Pause => self.change(What::Paused, cause, now, |rollout, reason| {
                    rollout.phase = Phase::Paused { by: Hold::Inconclusive, reason };
                }),
            }
        }
        None
    }

    /// The canary failed.
    fn fail(&mut self, analysis: &Analysis, reason: String, now: Timestamp) {
        let cause = Cause { by: "analysis".to_owned(), reason, evidence: self.trial.evidence().cloned() };
        match analysis.on_failure {
            _ if analysis.dry_run => {
                if self.trial.warn() {
                    self.note(What::WouldAct, self.weight, cause, now);
                }
            }
            OnFailure::Rollback => self.abort(cause, now),
            OnFailure::Freeze => self.change(What::Frozen, cause, now, |rollout, reason| {
                rollout.phase = Phase::Paused { by: Hold::Frozen, reason };
            }),
        }
    }

    /// Begins a stage; one that there is not is the whole.
    pub(in super::super) fn enter(&mut self, plan: &Plan, next: usize, cause: Cause, now: Timestamp) {
        let stage = plan.stage(next);
        let what = if stage.is_some() { What::Advanced } else { What::Promoted };
        self.change(what, cause, now, |rollout, _| {
            let Stage { weight, mirror, .. } = stage.unwrap_or(Stage { weight: WHOLE, ..Stage::default() });
            rollout.step = Some(next);
            rollout.give(weight, mirror);
            rollout.phase = if stage.is_some() { Phase::Progressing } else { Phase::Promoted };
            rollout.spent = Duration::ZERO;
            rollout.start_counting(plan);
        });
    }

    pub(in super::super) fn abort(&mut self, cause: Cause, now: Timestamp) {
        self.change(What::Aborted, cause, now, |rollout, reason| {
            rollout.give(0, 0);
            rollout.phase = Phase::Aborted { reason };
        });
    }

    /// As at the beginning, as another attempt.
    pub(in super::super) fn start_over(&mut self) {
        self.give(0, 0);
        self.attempt = self.attempt.saturating_add(1);
        self.phase = Phase::Waiting;
        self.step = None;
        self.tripped = false;
        self.spent = Duration::ZERO;
        self.trial = self.trial.next(self.elapsed);
    }

    /// By its steps, from where it stands.
    pub(in super::super) fn go_on(&mut self, plan: &Plan) {
        let stage = self.stage(plan);
        let Stage { weight, mirror, bake, .. } = stage.unwrap_or_default();
        // What made it fail must not do so again at once; what is seen under another share counts no more.
        if self.overridden.is_some() || matches!(self.phase, Phase::Paused { by: Hold::Frozen, .. }) {
            self.give(weight, mirror);
            self.start_counting(plan);
        }
        self.phase = if stage.is_some() { Phase::Progressing } else { Phase::Waiting };
        // One that was undecided for too long gets the same time again.
        self.spent = self.spent.min(bake);
    }
}
