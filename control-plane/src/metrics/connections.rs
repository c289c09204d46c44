//! What the xDS server counts of its connections, read off it with each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tidegate_xds::Connections;

/// Registers everything as `xds_connections…` and `xds_…`; the registry's prefix comes before it.
pub fn connections(connections: &Connections, registry: &mut Registry) {
    registry.register_collector(Box::new(Collected(connections.clone())));
}

#[derive(Debug)]
struct Collected(Connections);

impl Collector for Collected {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Self(connections) = self;
        let open = ConstGauge::new(i64::try_from(connections.open()).unwrap_or(i64::MAX));
        open.encode(encoder.encode_descriptor("xds_connections", "Open connections", None, open.metric_type())?)?;
        for (name, help, value) in [
            ("xds_connections_refused", "Connections closed because of the limit", connections.refused()),
            ("xds_handshakes_failed", "Connections that ended in the TLS handshake", connections.handshakes_failed()),
            ("xds_streams_denied", "Streams whose certificate does not name the node", connections.denied()),
            ("xds_streams_stalled", "Streams closed because the client did not answer or read", connections.stalled()),
            ("xds_streams_over_limit", "Streams closed because of a limit", connections.over_limit()),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::metrics::registry;

    #[test]
    fn all_that_is_counted_is_told() {
        let mut registry = registry();
        connections(&Connections::default(), &mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "tidegate_xds_connections 0",
            "tidegate_xds_connections_refused_total 0",
            "tidegate_xds_handshakes_failed_total 0",
            "tidegate_xds_streams_denied_total 0",
            "tidegate_xds_streams_stalled_total 0",
            "tidegate_xds_streams_over_limit_total 0",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
        }
    }
}
