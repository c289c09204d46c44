//! What befalls a rollout from outside its steps: nobody declares it any more, or what was known of it is lost.

use super::Record;
use super::engine::{Cause, Hold, Phase, Rollout};
use super::history::{What, note};
use crate::Timestamp;

impl Record {
    /// The same, begun by an operator of this name.
    #[must_use]
    pub fn begun_by(mut self, name: &str) -> Self {
        if let Some(event) = self.rollout.untold.last_mut() {
            event.by = format!("operator {name}");
        }
        self
    }

    /// Nobody declares it any more: the canary gets nothing.
    pub fn end(&mut self, by: &str, reason: &str, now: Timestamp) {
        self.rollout.tick(now);
        self.rollout.abort(Cause { by: by.to_owned(), reason: reason.to_owned(), evidence: None }, now);
        for event in self.rollout.untold.drain(..) {
            note(&mut self.history, event);
        }
    }
}

impl Phase {
    /// As screens name it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Progressing => "progressing",
            Self::Paused { .. } => "paused",
            Self::Aborted { .. } => "aborted",
            Self::Promoted => "promoted",
        }
    }
}

impl Rollout {
    /// It keeps this share, in basis points, until an operator says how it goes on.
    pub fn stand_still(&mut self, weight: u32, reason: &str, now: Timestamp) {
        let cause = Cause { by: "tidegate".to_owned(), reason: reason.to_owned(), evidence: None };
        self.change(What::Paused, cause, now, |rollout, reason| {
            rollout.give(weight, 0);
            rollout.overridden = Some(weight);
            rollout.phase = Phase::Paused { by: Hold::Operator, reason };
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::VersionName;
    use crate::config::Canary;
    use crate::rollout::{Census, Command, Facts, Origin, Plan};

    fn plan() -> Plan {
        let name = |version: &str| VersionName::new(version).unwrap();
        Plan { stable: name("v1"), canary: Arc::new(Canary::at(name("v2"), 1_000)), origin: Origin::File }
    }

    const NOW: Timestamp = Timestamp::from_millis(1);

    #[test]
    fn what_nobody_declares_any_more_gets_nothing_and_its_history_says_so() {
        let plan = plan();
        let mut record = Record::begin(&plan, None, NOW);
        let ready = Census { instances: 1, ready: 1 };
        record.advance(&plan, &Facts { canary: ready, stable: ready }, NOW);
        assert_eq!(record.rollout.share(&plan).weight, 1_000);
        record.end("tidegate.yaml", "nobody declares it any more", NOW);
        assert_eq!(record.rollout.share(&plan).weight, 0);
        let last = record.history.back().unwrap();
        assert_eq!((last.what, last.from, last.to), (What::Aborted, 1_000, 0));
    }

    #[test]
    fn what_is_lost_stands_still_where_it_was_until_somebody_resumes_it() {
        let plan = plan();
        let mut record = Record::begin(&plan, None, NOW);
        record.rollout.stand_still(2_500, "lost", NOW);
        let ready = Census { instances: 1, ready: 1 };
        record.advance(&plan, &Facts { canary: ready, stable: ready }, NOW);
        assert_eq!(record.rollout.share(&plan).weight, 2_500);
        record.rollout.operate(&plan, &Command::Resume, "somebody", NOW).unwrap();
        record.advance(&plan, &Facts { canary: ready, stable: ready }, NOW);
        assert_eq!(record.rollout.share(&plan).weight, 1_000);
    }
}
