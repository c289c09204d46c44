//! The rollouts of all services, with their histories, and the form in which they are kept. That form carries a checksum: what was
//! damaged is told, and never acted on.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::engine::{Effect, Facts, Phase, Rollout};
use super::history::{Event, note};
use super::plan::Plan;
use crate::{ServiceName, Timestamp, VersionName};

/// Of the kept form. Another one is not read.
const SCHEMA: u32 = 1;

/// The rollouts, by service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Kept", into = "Kept")]
pub struct Rollouts(BTreeMap<ServiceName, Record>);

/// A service's rollout, and what happened to it and to those before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    /// The rollout.
    pub rollout: Rollout,
    /// What an operator declared, and no file or label does.
    pub declared: Option<Plan>,
    /// The oldest first.
    pub history: VecDeque<Event>,
    /// The version that was promoted last.
    pub promoted: Option<VersionName>,
    /// Whether nobody declares it any more: the same declaration begins anew.
    pub over: bool,
}

/// As they are kept.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    schema: u32,
    /// Of `services`, as JSON without blanks.
    sum: String,
    /// Read only when the rest is right.
    services: Value,
}

/// Why what was kept is not read.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it has the schema {0}, and this tidegate reads only {SCHEMA}")]
    Schema(u32),
    #[error("it was damaged: its checksum is another one")]
    Sum,
    #[error("it is whole, but cannot be read: {0}")]
    Content(#[from] serde_json::Error),
}

impl Record {
    /// The record of a rollout that begins, with the history of what was before.
    #[must_use]
    pub fn begin(plan: &Plan, before: Option<&Self>, now: Timestamp) -> Self {
        Self {
            rollout: Rollout::begin(plan, before.map(|before| &before.rollout), now),
            declared: None,
            history: before.map(|before| before.history.clone()).unwrap_or_default(),
            promoted: before.and_then(|before| before.promoted.clone()),
            over: false,
        }
    }

    /// [`Rollout::advance`], and keeps in the history what it tells.
    pub fn advance(&mut self, plan: &Plan, facts: &Facts, now: Timestamp) -> Vec<Effect> {
        let effects = self.rollout.advance(plan, facts, now);
        for effect in &effects {
            if let Effect::Tell(event) = effect {
                note(&mut self.history, event.clone());
            }
        }
        if *self.rollout.phase() == Phase::Promoted {
            self.promoted = Some(self.rollout.canary().clone());
        }
        effects
    }
}

impl Rollouts {
    /// A service's.
    #[must_use]
    pub fn get(&self, service: &ServiceName) -> Option<&Record> {
        self.0.get(service)
    }

    /// A service's, to be changed.
    pub fn get_mut(&mut self, service: &ServiceName) -> Option<&mut Record> {
        self.0.get_mut(service)
    }

    /// Keeps one; returns the one before.
    pub fn insert(&mut self, service: ServiceName, record: Record) -> Option<Record> {
        self.0.insert(service, record)
    }

    /// Forgets a service's.
    pub fn remove(&mut self, service: &ServiceName) -> Option<Record> {
        self.0.remove(service)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceName, &Record)> {
        self.0.iter()
    }

    /// All of them, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&ServiceName, &mut Record)> {
        self.0.iter_mut()
    }
}

impl From<Rollouts> for Kept {
    fn from(Rollouts(services): Rollouts) -> Self {
        // Plain data with names for keys, so it always has a JSON.
        let services = serde_json::to_value(services).unwrap_or_default();
        Self { schema: SCHEMA, sum: sum(&services), services }
    }
}

impl TryFrom<Kept> for Rollouts {
    type Error = Damage;

    fn try_from(kept: Kept) -> Result<Self, Damage> {
        if kept.schema != SCHEMA {
            return Err(Damage::Schema(kept.schema));
        }
        if kept.sum != sum(&kept.services) {
            return Err(Damage::Sum);
        }
        Ok(Self(serde_json::from_value(kept.services)?))
    }
}

fn sum(services: &Value) -> String {
    format!("{:016x}", xxh3_64(services.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::engine::tests::{at, plan, ready};
    use super::super::{Command, MOST_EVENTS, What};
    use super::*;

    fn shop() -> ServiceName {
        ServiceName::new("shop").unwrap()
    }

    #[test]
    fn a_history_is_bounded_and_outlives_its_rollout() {
        let first = plan(|_| {});
        let mut record = Record::begin(&first, None, at(0));
        for second in 0..100 {
            let command = if second % 2 == 0 { Command::Pause } else { Command::Resume };
            record.rollout.operate(&first, &command, "ann", at(second)).unwrap();
            record.advance(&first, &ready(1), at(second));
        }
        assert_eq!(record.history.len(), MOST_EVENTS);
        assert_eq!(record.history.back().map(|event| (event.at, event.what)), Some((at(99), What::Resumed)));

        record.rollout.operate(&first, &Command::Promote { full: true }, "ann", at(100)).unwrap();
        record.advance(&first, &ready(1), at(100));
        let next = plan(|canary| canary.version = VersionName::new("v3").unwrap());
        let mut next_record = Record::begin(&next, Some(&record), at(101));
        next_record.advance(&next, &ready(0), at(101));
        assert_eq!(next_record.promoted.as_ref().map(VersionName::as_str), Some("v2"));
        let events: Vec<_> = next_record.history.iter().rev().take(2).map(|event| (event.what, event.to)).collect();
        assert_eq!(events, [(What::Began, 0), (What::Promoted, 10_000)]);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let mut rollouts = Rollouts::default();
        rollouts.insert(shop(), Record::begin(&plan(|_| {}), None, at(0)));
        let whole = serde_json::to_string(&rollouts).unwrap();
        assert_eq!(serde_json::from_str::<Rollouts>(&whole).unwrap(), rollouts);
        // A whole one, of a form that this tidegate does not know.
        let mut strange: Value = serde_json::from_str(&whole).unwrap();
        strange["services"]["shop"]["rollout"]["phase"] = Value::from("dancing");
        strange["sum"] = Value::from(sum(&strange["services"]));
        for (text, reason) in [
            (whole.replace("\"schema\":1", "\"schema\":2"), "it has the schema 2, and this tidegate reads only 1"),
            (whole.replace("\"weight\":0", "\"weight\":9"), "it was damaged: its checksum is another one"),
            (strange.to_string(), "it is whole, but cannot be read: "),
            (whole[..whole.len() / 2].to_owned(), "EOF while parsing"),
            ("{}".to_owned(), "missing field"),
        ] {
            let error = serde_json::from_str::<Rollouts>(&text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
