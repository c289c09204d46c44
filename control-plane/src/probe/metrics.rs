//! What the prober counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tidegate_core::instance::CheckKind;

use super::check::Outcome;

/// Bounds of how late checks begin, in seconds.
const LATENESS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Counters of the prober. Clones count together.
#[derive(Clone, Debug)]
pub struct ProbeMetrics {
    /// Checks that ended.
    pub checks: Family<CheckLabels, Counter>,
    /// Instances being checked.
    pub targets: Gauge,
    /// By how much checks began later than they were due, in seconds.
    pub lateness: Histogram,
}

impl Default for ProbeMetrics {
    fn default() -> Self {
        Self { checks: Family::default(), targets: Gauge::default(), lateness: Histogram::new(LATENESS) }
    }
}

/// What checks are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckLabels {
    /// The type of check, as its label says it.
    pub check: &'static str,
    /// `passed`, `failed`, `timed_out` or `inconclusive`.
    pub result: &'static str,
}

impl ProbeMetrics {
    /// Registers everything as `check…`; the registry's prefix comes before it.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("checks", "Checks of instances that ended", self.checks.clone());
        registry.register("checked_instances", "Instances being checked", self.targets.clone());
        let help = "By how much checks of instances began later than they were due";
        registry.register_with_unit("check_lateness", help, Unit::Seconds, self.lateness.clone());
    }

    pub(super) fn count(&self, kind: &CheckKind, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Passed(_) => "passed",
            Outcome::Failed(_) => "failed",
            Outcome::TimedOut(_) => "timed_out",
            Outcome::Inconclusive(_) => "inconclusive",
        };
        self.checks.get_or_create(&CheckLabels { check: kind.word(), result }).inc();
    }
}
