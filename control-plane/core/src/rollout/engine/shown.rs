//! What is shown of a rollout.

use std::time::Duration;

use super::super::judge::{Evidence, Sample};
use super::super::plan::Plan;
use super::{Asked, Phase, Rollout, word};
use crate::VersionName;

impl Rollout {
    /// What it belongs to: see [`Plan::generation`].
    #[must_use]
    pub fn generation(&self) -> &str {
        &self.generation
    }

    /// The version that the canary is compared with.
    #[must_use]
    pub const fn stable(&self) -> &VersionName {
        &self.stable
    }

    /// The version under trial.
    #[must_use]
    pub const fn canary(&self) -> &VersionName {
        &self.canary
    }

    /// How far it is.
    #[must_use]
    pub const fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The stage that it is in, from 0; `None`: the first one is still to come.
    #[must_use]
    pub const fn step(&self) -> Option<usize> {
        self.step
    }

    /// How long it has been in its stage, as time is counted.
    #[must_use]
    pub const fn spent(&self) -> Duration {
        self.spent
    }

    /// The share that an operator chose.
    #[must_use]
    pub const fn overridden(&self) -> Option<u32> {
        self.overridden
    }

    /// How often it began.
    #[must_use]
    pub const fn attempt(&self) -> u64 {
        self.attempt
    }

    /// What was seen of both versions in this stage.
    #[must_use]
    pub const fn seen(&self) -> &Sample {
        self.trial.seen()
    }

    /// What was found at the last look; `None`: there was none in this stage.
    #[must_use]
    pub const fn evidence(&self) -> Option<&Evidence> {
        self.trial.evidence()
    }

    /// Looks of this stage at which the canary's own figures were out of range.
    #[must_use]
    pub const fn failed_looks(&self) -> u32 {
        self.trial.failed()
    }

    /// What it waits for, in a sentence without its end.
    #[must_use]
    pub fn reason(&self, plan: &Plan) -> String {
        match &self.phase {
            Phase::Aborted { reason } | Phase::Paused { reason, .. } => return reason.clone(),
            Phase::Promoted => return "the canary gets everything".to_owned(),
            Phase::Waiting | Phase::Progressing if !self.ready => {
                return "too few of the canary's instances are ready".to_owned();
            }
            Phase::Waiting | Phase::Progressing => {}
        }
        if let Some(Asked { kind, agreed: false, refusal, .. }) = &self.asked {
            return match refusal {
                Some(refusal) => format!("{} does not agree: {refusal}", word(*kind)),
                None => format!("{} has not answered yet", word(*kind)),
            };
        }
        match self.stage(plan) {
            Some(stage) if self.spent < stage.bake => {
                format!(
                    "{} of {} passed",
                    humantime::format_duration(whole(self.spent)),
                    humantime::format_duration(stage.bake)
                )
            }
            Some(_) => self.trial.undecided().to_owned(),
            None => "the first step is about to begin".to_owned(),
        }
    }
}

/// To the second.
const fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
