//! What the Docker provider counts. Shared with whoever renders `/metrics`.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_core::{ProviderName, Timestamp};

/// Counters of one engine. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct DockerStats {
    /// Events read.
    pub events: Counter,
    /// Containers inspected.
    pub inspects: Counter,
    /// Full lists.
    pub lists: Counter,
    /// Connections made after the first.
    pub reconnects: Counter,
    /// Changes that a list found and no event had told.
    pub drift: Counter,
    /// When the engine last answered, in seconds since the Unix epoch.
    pub answered: Gauge<f64, AtomicU64>,
    /// When all that was told was last known to hold, in seconds since the Unix epoch.
    pub confirmed: Gauge<f64, AtomicU64>,
    /// Containers known.
    pub containers: Gauge,
}

/// The counters of all engines, by provider.
#[derive(Debug, Default)]
pub struct DockerMetrics {
    events: Family<ByProvider, Counter>,
    inspects: Family<ByProvider, Counter>,
    lists: Family<ByProvider, Counter>,
    reconnects: Family<ByProvider, Counter>,
    drift: Family<ByProvider, Counter>,
    answered: Family<ByProvider, Gauge<f64, AtomicU64>>,
    confirmed: Family<ByProvider, Gauge<f64, AtomicU64>>,
    containers: Family<ByProvider, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProvider {
    provider: String,
}

impl DockerMetrics {
    /// Those of one engine.
    #[must_use]
    pub fn of(&self, provider: &ProviderName) -> DockerStats {
        let by = ByProvider { provider: provider.to_string() };
        DockerStats {
            events: self.events.get_or_create(&by).clone(),
            inspects: self.inspects.get_or_create(&by).clone(),
            lists: self.lists.get_or_create(&by).clone(),
            reconnects: self.reconnects.get_or_create(&by).clone(),
            drift: self.drift.get_or_create(&by).clone(),
            answered: self.answered.get_or_create(&by).clone(),
            confirmed: self.confirmed.get_or_create(&by).clone(),
            containers: self.containers.get_or_create(&by).clone(),
        }
    }

    /// Registers everything as `docker_…`; the registry's prefix comes before it.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("docker_events", "Docker events read", &self.events),
            ("docker_inspects", "Containers inspected", &self.inspects),
            ("docker_lists", "Full lists of containers", &self.lists),
            ("docker_reconnects", "Connections to an engine after the first", &self.reconnects),
            ("docker_drift_repaired", "Changes found by a list that no event had told", &self.drift),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "docker_last_answer_timestamp_seconds",
            "When a Docker engine last answered",
            self.answered.clone(),
        );
        registry.register(
            "docker_view_confirmed_timestamp_seconds",
            "When everything told of the containers was last known to hold; the time since is the age of the view",
            self.confirmed.clone(),
        );
        registry.register("docker_containers", "Containers known, enabled or not", self.containers.clone());
    }
}

impl DockerStats {
    pub(super) fn answered(&self, now: Timestamp) {
        self.answered.set(seconds(now));
    }

    pub(super) fn confirmed(&self, now: Timestamp) {
        self.confirmed.set(seconds(now));
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds fit a double until the year 287396")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_after_docker() {
        let metrics = DockerMetrics::default();
        let stats = metrics.of(&ProviderName::docker());
        let mut registry = Registry::with_prefix("tidegate");
        metrics.register(&mut registry);
        stats.events.inc();
        stats.answered(Timestamp::from_millis(1_500));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("\ntidegate_docker_events_total{provider=\"docker\"} 1\n"), "{text}");
        assert!(text.contains("\ntidegate_docker_last_answer_timestamp_seconds{provider=\"docker\"} 1.5\n"), "{text}");
    }
}
