//! What the Docker provider counts. Shared with whoever renders `/metrics`.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_core::Timestamp;

/// Counters of the Docker provider. Clones count together.
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
    /// When the engine last answered, in seconds since the Unix epoch: the age of the view is the time since.
    pub answered: Gauge<f64, AtomicU64>,
    /// Containers known.
    pub containers: Gauge,
}

impl DockerStats {
    /// Registers everything as `docker_…`; the registry's prefix comes before it.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            ("docker_events", "Docker events read", &self.events),
            ("docker_inspects", "Containers inspected", &self.inspects),
            ("docker_lists", "Full lists of containers", &self.lists),
            ("docker_reconnects", "Connections to the engine after the first", &self.reconnects),
            ("docker_drift_repaired", "Changes found by a list that no event had told", &self.drift),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "docker_last_answer_timestamp_seconds",
            "When the Docker engine last answered",
            self.answered.clone(),
        );
        registry.register("docker_containers", "Containers known, enabled or not", self.containers.clone());
    }

    pub(super) fn answered(&self, now: Timestamp) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds fit a double until the year 287396")]
        self.answered.set(now.as_millis() as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_after_docker() {
        let stats = DockerStats::default();
        let mut registry = Registry::with_prefix("tidegate");
        stats.register(&mut registry);
        stats.events.inc();
        stats.answered(Timestamp::from_millis(1_500));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("\ntidegate_docker_events_total 1\n"), "{text}");
        assert!(text.contains("\ntidegate_docker_last_answer_timestamp_seconds 1.5\n"), "{text}");
    }
}
