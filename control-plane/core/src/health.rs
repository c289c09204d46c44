//! Whether an instance may get traffic, and why not. [`Streak`] turns single check results into a verdict with hysteresis;
//! [`readiness`] joins that verdict with what Docker says. Unknown is not ready.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::Timestamp;
use crate::instance::{Check, DockerHealth, Phase};

/// A newcomer is checked this long after its first failure, and then ever more slowly up to its interval.
pub const NEWCOMER_INTERVAL: Duration = Duration::from_millis(50);

/// What the checks of one instance amount to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the instance passes.
    pub passing: bool,
    /// It does not, but never did, and its grace is not over.
    pub starting: bool,
    /// What the check that made the verdict said: `HTTP 200 in 3 ms`, `connection refused`.
    pub detail: String,
    /// When that check ended.
    pub since: Timestamp,
}

/// The successes or failures in a row of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    passing: Option<bool>,
    ever_passed: bool,
    against: u32,
    failures: u32,
}

impl Streak {
    /// Takes one check's result; returns the new verdict when it flipped, or became known.
    ///
    /// An instance that never passed becomes ready by one success; the first failure makes an unknown one not ready.
    pub fn observe(&mut self, ok: bool, check: &Check) -> Option<bool> {
        self.failures = if ok { 0 } else { self.failures.saturating_add(1) };
        if self.passing == Some(ok) {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = match (self.passing, ok) {
            (None, _) => 1,
            (Some(_), true) if !self.ever_passed => 1,
            (Some(_), true) => check.rise,
            (Some(_), false) => check.fall,
        };
        if self.against < needed {
            return None;
        }
        self.against = 0;
        self.passing = Some(ok);
        self.ever_passed |= ok;
        Some(ok)
    }

    /// Whether any check passed.
    #[must_use]
    pub const fn ever_passed(&self) -> bool {
        self.ever_passed
    }

    /// How long to wait before the next check: the interval, but for an instance that never passed 50 ms, growing by half
    /// with each failure up to the interval.
    #[must_use]
    pub fn pause(&self, check: &Check) -> Duration {
        if self.ever_passed {
            return check.interval;
        }
        let growth = 1.5_f64.powi(i32::try_from(self.failures.saturating_sub(1).min(20)).unwrap_or(20));
        NEWCOMER_INTERVAL.mul_f64(growth).min(check.interval)
    }
}

/// Why an instance is or is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Readiness {
    /// It gets traffic.
    Ready {
        /// What says so.
        detail: String,
    },
    /// It gets none.
    NotReady {
        /// What says so.
        reason: String,
    },
}

impl Readiness {
    /// Whether it is ready.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { detail } => f.write_str(detail),
            Self::NotReady { reason } => f.write_str(reason),
        }
    }
}

/// ready = running ∧ (no HEALTHCHECK, or it says healthy) ∧ checks passed.
#[must_use]
pub fn readiness(phase: &Phase, health: Option<DockerHealth>, check: &Check, verdict: Option<&Verdict>) -> Readiness {
    let not_ready = |reason: String| Readiness::NotReady { reason };
    if *phase != Phase::Running {
        return not_ready(format!("the container is {phase}"));
    }
    match health {
        Some(DockerHealth::Starting) => return not_ready("Docker's HEALTHCHECK has not passed yet".to_owned()),
        Some(DockerHealth::Unhealthy) => return not_ready("Docker's HEALTHCHECK says unhealthy".to_owned()),
        Some(DockerHealth::Healthy) | None => {}
    }
    if !check.kind.is_active() {
        let detail = if health.is_some() { "Docker's HEALTHCHECK says healthy" } else { "running, and not checked" };
        return Readiness::Ready { detail: detail.to_owned() };
    }
    match verdict {
        None => not_ready("no check has ended yet".to_owned()),
        Some(Verdict { passing: true, detail, .. }) => Readiness::Ready { detail: detail.clone() },
        Some(Verdict { starting: true, detail, .. }) => not_ready(format!("starting: {detail}")),
        Some(Verdict { passing: false, detail, .. }) => not_ready(detail.clone()),
    }
}

/// Whether all that is against it is that it starts: Docker's HEALTHCHECK has not said anything yet, or its check never passed and its
/// grace is not over.
#[must_use]
pub fn is_starting(phase: &Phase, health: Option<DockerHealth>, check: &Check, verdict: Option<&Verdict>) -> bool {
    let docker = match health {
        Some(DockerHealth::Unhealthy) => return false,
        Some(DockerHealth::Starting) => true,
        Some(DockerHealth::Healthy) | None => false,
    };
    let checks = match verdict {
        _ if !check.kind.is_active() => false,
        None => true,
        Some(verdict) if verdict.passing => false,
        Some(verdict) if verdict.starting => true,
        Some(_) => return false,
    };
    *phase == Phase::Running && (docker || checks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::CheckKind;

    fn check() -> Check {
        Check::default()
    }

    #[test]
    fn one_success_suffices_for_a_newcomer() {
        let mut streak = Streak::default();
        assert_eq!(streak.observe(false, &check()), Some(false));
        assert_eq!(streak.observe(false, &check()), None);
        assert_eq!(streak.observe(true, &check()), Some(true));
    }

    #[test]
    fn a_flip_needs_fall_failures_and_rise_successes_in_a_row() {
        let mut streak = Streak::default();
        let mut flips =
            |results: &[bool]| results.iter().filter_map(|ok| streak.observe(*ok, &check())).collect::<Vec<_>>();
        assert_eq!(flips(&[true]), [true]);
        assert!(flips(&[false, true, false, true]).is_empty());
        assert_eq!(flips(&[false, false, false]), [false]);
        assert!(flips(&[true, false, true, false]).is_empty());
        assert_eq!(flips(&[true, true]), [true]);
    }

    #[test]
    fn a_newcomer_is_probed_every_50_ms_with_backoff() {
        let mut streak = Streak::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            streak.observe(false, &check());
            pauses.push(streak.pause(&check()).as_millis());
        }
        assert_eq!(pauses, [50, 75, 112, 168, 253, 379, 569, 854, 1281, 1922, 2000, 2000]);
        streak.observe(true, &check());
        assert_eq!(streak.pause(&check()), check().interval);
    }

    #[test]
    fn unknown_is_not_ready() {
        let passed =
            Verdict { passing: true, starting: false, detail: "connected".to_owned(), since: Timestamp::default() };
        let docker = Check { kind: CheckKind::Docker, ..check() };
        let cases = [
            (Phase::Running, None, check(), None, false),
            (Phase::Running, None, check(), Some(&passed), true),
            (Phase::Running, Some(DockerHealth::Starting), check(), Some(&passed), false),
            (Phase::Running, Some(DockerHealth::Unhealthy), check(), Some(&passed), false),
            (Phase::Running, Some(DockerHealth::Healthy), check(), None, false),
            (Phase::Running, Some(DockerHealth::Healthy), docker, None, true),
            (Phase::Paused, None, check(), Some(&passed), false),
            (Phase::Restarting, None, check(), Some(&passed), false),
        ];
        for (phase, health, check, verdict, ready) in cases {
            let got = readiness(&phase, health, &check, verdict);
            assert_eq!(got.is_ready(), ready, "{phase:?} {health:?} {check:?} {verdict:?} gave {got:?}");
        }
    }
}
