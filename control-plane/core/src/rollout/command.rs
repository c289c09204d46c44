//! What operators do to a rollout by hand, and what they cannot.

use serde::{Deserialize, Serialize};

use super::engine::{Cause, Hold, Phase, Rollout};
use super::history::What;
use super::plan::Plan;
use crate::Timestamp;
use crate::config::{WHOLE, percent};

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// This share, in basis points, until it is resumed or promoted. It stands still meanwhile.
    Set(u32),
    /// On to the next stage, whatever time, analysis and webhooks say.
    Promote {
        /// To everything.
        full: bool,
    },
    /// It stays where it is. What its analysis and its breaker find still ends it.
    Pause,
    /// It goes on by its steps.
    Resume,
    /// The canary gets nothing any more.
    Abort,
    /// After an abort or a failure: again, from nothing and the first stage.
    Retry,
    /// Takes a promotion back: the canary gets nothing any more.
    Undo,
}

/// Why a rollout cannot do what was asked, and what could be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More than everything.
    #[error("a weight is at most 100 %, not {}", percent(*.0))]
    Weight(u32),
    /// It was aborted.
    #[error("the canary was aborted ({0}): `retry` it first")]
    Aborted(String),
    /// It is promoted.
    #[error("the canary is promoted and gets everything: declare it stable, or take it back with `undo`")]
    Promoted,
    /// An edge's breaker is open, and opens again under the same attempt.
    #[error("the canary gets nothing because {0}: `retry` starts it again from the first step, `abort` ends it")]
    Tripped(String),
    /// There are too few instances to promote.
    #[error(
        "too few of the canary's instances are ready, so it gets nothing yet: start more, or `set` a weight regardless"
    )]
    NotReady,
    /// It stands already.
    #[error("it is paused already ({0}): `resume` or `promote` moves it on")]
    Paused(String),
    /// It waits for another word.
    #[error("its step has a pause without an end: `promote` goes on to the next one")]
    UntilPromoted,
    /// It moves.
    #[error("it is not paused: `pause` it first, or `promote` it to the next step")]
    NotPaused,
    /// It has not ended.
    #[error("it has neither failed nor been aborted: `abort` it first")]
    UnderWay,
    /// It is not promoted.
    #[error("only a promoted canary can be taken back: `abort` ends one that is under way")]
    NotPromoted,
}

impl Rollout {
    /// Does what an operator wants. What follows from it is for the next [`advance`](Rollout::advance) to say.
    ///
    /// # Errors
    /// When the rollout is in no state for it; nothing is changed then.
    pub fn operate(&mut self, plan: &Plan, command: &Command, by: &str, now: Timestamp) -> Result<(), Refused> {
        self.permits(*command)?;
        self.tick(now);
        let by = format!("operator {by}");
        let cause = |reason: String| Cause { by: by.clone(), reason, evidence: None };
        match *command {
            Command::Set(weight) => {
                let cause = cause(format!("set to {} by {by}", percent(weight)));
                self.change(What::Set, cause, now, |rollout, reason| {
                    rollout.give(weight, 0);
                    rollout.overridden = Some(weight);
                    rollout.phase = Phase::Paused { by: Hold::Operator, reason };
                    rollout.start_counting(plan);
                });
            }
            Command::Promote { full } => {
                let next = match self.step {
                    _ if full => plan.stages().len(),
                    Some(step) => step.saturating_add(1),
                    None => 0,
                };
                self.enter(plan, next, cause("promoted by hand".to_owned()), now);
            }
            Command::Pause => self.change(What::Paused, cause(format!("paused by {by}")), now, |rollout, reason| {
                rollout.phase = Phase::Paused { by: Hold::Operator, reason };
            }),
            Command::Resume => {
                self.change(What::Resumed, cause("resumed by hand".to_owned()), now, |rollout, _| rollout.go_on(plan));
            }
            Command::Abort => self.abort(cause(format!("aborted by {by}")), now),
            Command::Retry => {
                let cause = cause("from the first step again".to_owned());
                self.change(What::Retried, cause, now, |rollout, _| rollout.start_over());
            }
            Command::Undo => self.change(What::Undone, cause(format!("taken back by {by}")), now, |rollout, reason| {
                rollout.give(0, 0);
                rollout.phase = Phase::Aborted { reason };
            }),
        }
        Ok(())
    }

    fn permits(&self, command: Command) -> Result<(), Refused> {
        let paused = |by: Hold, reason: &str| {
            if by == Hold::Promotion { Refused::UntilPromoted } else { Refused::Paused(reason.to_owned()) }
        };
        match (command, &self.phase) {
            (Command::Set(weight), _) if weight > WHOLE => Err(Refused::Weight(weight)),
            (Command::Undo, Phase::Promoted) | (Command::Retry, Phase::Aborted { .. }) => Ok(()),
            (Command::Undo, _) => Err(Refused::NotPromoted),
            (_, Phase::Promoted) => Err(Refused::Promoted),
            (_, Phase::Aborted { reason }) => Err(Refused::Aborted(reason.clone())),
            (Command::Abort, _) | (Command::Retry, Phase::Paused { by: Hold::Frozen, .. }) => Ok(()),
            (Command::Retry, _) => Err(Refused::UnderWay),
            (_, Phase::Paused { reason, .. }) if self.tripped => Err(Refused::Tripped(reason.clone())),
            (Command::Set(_), _) => Ok(()),
            (Command::Promote { .. }, _) if self.step.is_none() && !self.ready => Err(Refused::NotReady),
            (Command::Promote { .. }, _) => Ok(()),
            (Command::Pause, Phase::Paused { by, reason }) => Err(paused(*by, reason)),
            (Command::Pause, _) => Ok(()),
            (Command::Resume, Phase::Paused { by: Hold::Promotion, .. }) => Err(Refused::UntilPromoted),
            (Command::Resume, Phase::Paused { .. }) => Ok(()),
            (Command::Resume, _) => Err(Refused::NotPaused),
        }
    }
}
