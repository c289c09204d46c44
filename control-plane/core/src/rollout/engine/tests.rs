//! What moves a rollout, one transition at a time.

use std::time::Duration;

use super::*;
use crate::config::Canary;
use crate::config::canary::Step;
use crate::rollout::{Command, Origin, Refused};

fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

/// 0.5 % for two minutes, 10 % for ten, 50 % for ten.
fn steps() -> Vec<Step> {
    [(50, 2), (1_000, 10), (5_000, 10)]
        .into_iter()
        .flat_map(|(weight, minutes)| [Step::SetWeight(weight), Step::Pause(Some(Duration::from_mins(minutes)))])
        .collect()
}

fn plan(change: impl FnOnce(&mut Canary)) -> Plan {
    let mut canary = Canary { steps: steps(), ..Canary::at(version("v2"), 0) };
    change(&mut canary);
    Plan { stable: version("v1"), canary: canary.into(), origin: Origin::File }
}

fn ready(canary: u32) -> Facts {
    Facts { canary: Census { instances: 1, ready: canary }, stable: Census { instances: 1, ready: 1 } }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_000_000 + seconds * 1_000)
}

/// Calls it as often as it wants, until `until`; returns the weights it had, in order.
fn run(rollout: &mut Rollout, plan: &Plan, facts: Facts, until: Timestamp) -> Vec<u32> {
    let mut weights = vec![rollout.share(plan).weight];
    loop {
        let due = rollout.deadline(plan).unwrap_or(until).min(until);
        rollout.advance(plan, &facts, due);
        let weight = rollout.share(plan).weight;
        if weights.last() != Some(&weight) {
            weights.push(weight);
        }
        if due == until {
            return weights;
        }
    }
}

#[test]
fn time_alone_takes_it_through_its_steps() {
    let plan = plan(|_| {});
    let mut rollout = Rollout::begin(&plan, None, at(0));
    assert_eq!(run(&mut rollout, &plan, ready(0), at(1_000)), [0]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(1_000)), [0, 50]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(1_119)), [50]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(1_120)), [50, 1_000]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(1_719)), [1_000]);
    assert_eq!(run(&mut rollout, &plan, ready(1), at(2_320)), [1_000, 5_000, WHOLE]);
    assert_eq!((rollout.phase(), rollout.deadline(&plan)), (&Phase::Promoted, None));
}

#[test]
fn a_pause_without_an_end_waits_for_promote() {
    let plan = plan(|canary| canary.steps = vec![Step::SetWeight(1_000), Step::Pause(None)]);
    let mut rollout = Rollout::begin(&plan, None, at(0));
    assert_eq!(run(&mut rollout, &plan, ready(1), at(100_000)), [0, 1_000]);
    assert_eq!(rollout.operate(&plan, &Command::Resume, "ann", at(100_000)), Err(Refused::UntilPromoted));
    rollout.operate(&plan, &Command::Promote { full: false }, "ann", at(100_000)).unwrap();
    assert_eq!((rollout.phase(), rollout.share(&plan).weight), (&Phase::Promoted, WHOLE));
}
