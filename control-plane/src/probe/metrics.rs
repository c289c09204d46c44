//! What the prober counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_core::instance::CheckKind;

use super::check::Outcome;

/// Counters of the prober. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct ProbeMetrics {
    /// Checks that ended.
    pub checks: Family<CheckLabels, Counter>,
    /// Instances being checked.
    pub targets: Gauge,
}

/// What checks are counted by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckLabels {
    /// `tcp` or `http`.
    pub check: &'static str,
    /// `passed`, `failed`, `timed_out` or `inconclusive`.
    pub result: &'static str,
}

impl ProbeMetrics {
    /// Registers everything as `check…`; the registry's prefix comes before it.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("checks", "Checks of instances that ended", self.checks.clone());
        registry.register("checked_instances", "Instances being checked", self.targets.clone());
    }

    pub(super) fn count(&self, kind: &CheckKind, outcome: &Outcome) {
        let check = if matches!(kind, CheckKind::Http { .. }) { "http" } else { "tcp" };
        let result = match outcome {
            Outcome::Passed(_) => "passed",
            Outcome::Failed(_) => "failed",
            Outcome::TimedOut(_) => "timed_out",
            Outcome::Inconclusive(_) => "inconclusive",
        };
        self.checks.get_or_create(&CheckLabels { check, result }).inc();
    }
}
