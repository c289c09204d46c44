//! What the analysis promises, kept by a few hundred seeded rollouts; docs/canary-simulation.md has ten thousand of each.

#[path = "../examples/simulate/simulation.rs"]
mod simulation;

use simulation::{End, How, SMALL, Setting, plan, rollout};

const ROLLOUTS: u64 = 300;

fn ends(canary: f64) -> Vec<End> {
    let setting = Setting { rate: 1_000, canary, stable: 0.005 };
    let plan = plan(SMALL);
    (0..ROLLOUTS).map(|seed| rollout(&plan, setting, seed)).collect()
}

fn count(ends: &[End], how: How) -> usize {
    ends.iter().filter(|end| end.how == how).count()
}

/// The test's false alarms are at most 0.1 % of each of three stages, before the condition that it be worse by more than is tolerated.
#[test]
fn a_healthy_canary_is_promoted() {
    let ends = ends(0.005);
    assert!(count(&ends, How::RolledBack) <= 1, "{} of {ROLLOUTS} rolled back", count(&ends, How::RolledBack));
    assert!(count(&ends, How::Promoted) >= 290, "{} of {ROLLOUTS} promoted", count(&ends, How::Promoted));
}

/// Of canaries that are worse by more than is tolerated each stage passes at most 5 %, so that three pass hardly any.
#[test]
fn no_bad_canary_is_promoted() {
    for canary in [0.02, 0.05, 0.2] {
        let ends = ends(canary);
        assert_eq!(count(&ends, How::Promoted), 0, "{canary}");
        assert!(count(&ends, How::RolledBack) >= 270, "{canary}: {} rolled back", count(&ends, How::RolledBack));
    }
}

/// Four failures of a canary, and none of stable's, are enough where it gets a tenth; reports come every five seconds.
#[test]
fn a_broken_canary_ends_within_seconds() {
    let mut ends = ends(1.0);
    ends.sort_by_key(|end| end.failed);
    assert_eq!(count(&ends, How::RolledBack), ends.len());
    let median = ends[ends.len() / 2];
    assert!(median.failed <= 50 && median.after.as_secs() <= 10, "{median:?}");
}
