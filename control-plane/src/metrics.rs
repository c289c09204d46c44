//! `tidegate_*` in OpenMetrics. Gauges are read off the state when someone scrapes, so they never lag or drift; counters
//! belong to the parts that count, which register them once, at the start. Labels come from validated names alone, never from a
//! request (threats T11).

mod connections;
mod figures;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tidegate_core::Timestamp;
use tidegate_core::status::EDGE_PROGRESS;
use tidegate_xds::{Counters, Store};

pub use self::connections::connections;
pub use self::figures::Figures;
use crate::api::{edges, load};

/// The prefix of every name.
pub const PREFIX: &str = "tidegate";
/// The content type of an answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where parts register what they count. Shared with the API once every part has.
#[must_use]
pub fn registry() -> Registry {
    Registry::with_prefix(PREFIX)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByProvider {
    provider: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByVersion {
    service: String,
    version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    service: String,
    version: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    service: String,
    version: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: &'static str,
    severity: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByType {
    r#type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTypeAndState {
    r#type: String,
    state: &'static str,
}

/// One scrape: what the state says, what the store says, and what the parts have counted.
///
/// # Errors
/// None that is known: writing to a string does not fail.
pub fn encode(figures: &Figures, store: &Store, counted: &Registry) -> Result<String, std::fmt::Error> {
    let mut scrape = Scrape(Registry::with_prefix(PREFIX));
    scrape.state(figures);
    scrape.store(store);
    scrape.load(figures, store);
    let mut text = String::new();
    encode_registry(&mut text, &scrape.0)?;
    encode_registry(&mut text, counted)?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// A registry that lives for one answer.
struct Scrape(Registry);

impl Scrape {
    fn gauge(&mut self, name: &str, help: &str, value: i64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }

    fn family<L>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (L, i64)>)
    where
        L: Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
    {
        let family: Family<L, Gauge> = Family::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    fn state(&mut self, figures: &Figures) {
        self.gauge("synced", "Whether the first full picture was published", i64::from(figures.synced));
        self.gauge("services", "Services that have a container", figures.services);
        self.family(
            "containers",
            "Containers that a provider knows",
            figures.containers.iter().map(|(provider, n)| (ByProvider { provider: provider.clone() }, *n)),
        );
        let age: Family<ByProvider, Gauge<f64, AtomicU64>> = Family::default();
        for (provider, seconds) in &figures.provider_age {
            age.get_or_create(&ByProvider { provider: provider.clone() }).set(*seconds);
        }
        self.0.register_with_unit("provider_age", "Time since a provider last told anything", Unit::Seconds, age);
        self.family(
            "instances",
            "Instances by what they are",
            figures.instances.iter().map(|((service, version, state), n)| {
                (ByState { service: service.clone(), version: version.clone(), state }, *n)
            }),
        );
        self.family(
            "weight_basis_points",
            "Share of a version of its service's traffic, of 10000",
            figures.weights.iter().map(|((service, version), weight)| {
                (ByVersion { service: service.clone(), version: version.clone() }, *weight)
            }),
        );
        self.family(
            "problems",
            "Problems by code",
            figures
                .problems
                .iter()
                .map(|((code, severity), n)| (ByCode { code: code.as_str(), severity: severity.to_string() }, *n)),
        );
        self.gauge(
            "filter_policy_services",
            "Services that the filter decides for, by the state",
            figures.policy_services,
        );
        self.gauge("filter_generation", "Counted up to heal a crashed filter", figures.filter_generation);
        self.gauge(
            "filter_policy_schema",
            "The schema that policy and filter agree on",
            i64::from(tidegate_filter_core::SCHEMA),
        );
    }

    /// What edges report, of services and versions that there are.
    fn load(&mut self, figures: &Figures, store: &Store) {
        let requests: Family<ByOutcome, Counter> = Family::default();
        let in_progress: Family<ByVersion, Gauge> = Family::default();
        for service in load::report(store, figures.versions.clone(), Timestamp::default()).services {
            for version in service.versions {
                let (service, version, load) = (service.name.clone(), version.name, version.load);
                let total = load.total;
                for (outcome, count) in
                    [("successful", total.successful), ("error", total.error), ("dropped", total.dropped)]
                {
                    let labels = ByOutcome { service: service.clone(), version: version.clone(), outcome };
                    requests.get_or_create(&labels).inc_by(count);
                }
                let now = i64::try_from(load.in_progress).unwrap_or(i64::MAX);
                in_progress.get_or_create(&ByVersion { service, version }).set(now);
            }
        }
        self.0.register("upstream_requests", "Requests that edges report to have ended, each try counted", requests);
        self.0.register("upstream_requests_in_progress", "Requests that edges reported to be under way", in_progress);
    }

    fn store(&mut self, store: &Store) {
        let edges = edges::edges(store);
        self.gauge("xds_edges", "Connected edges", size(edges.len()));
        self.gauge(
            "xds_edges_synced",
            "Connected edges that accepted all that is published",
            size(edges.iter().filter(|edge| edge.synced).count()),
        );
        let kinds = tidegate_xds::ResourceType::ALL;
        self.family(
            "xds_resources",
            "Published resources",
            kinds.iter().map(|kind| (ByType { r#type: kind.label().to_owned() }, size(store.len(*kind)))),
        );
        let types = || edges.iter().flat_map(|edge| &edge.types);
        let in_state = |kind: &str, state: &str| types().filter(|of| of.kind == kind && of.progress() == state).count();
        self.family(
            "edges",
            "Connected edges by how far they are with a type of resource",
            kinds
                .iter()
                .flat_map(|kind| EDGE_PROGRESS.map(|state| (kind.label(), state)))
                .map(|(kind, state)| (ByTypeAndState { r#type: kind.to_owned(), state }, size(in_state(kind, state)))),
        );
        let rejected = |kind: &str| {
            let types = edges.iter().flat_map(|edge| &edge.types).filter(|of| of.kind == kind);
            size(types.map(|of| of.rejected.len()).sum())
        };
        self.family(
            "xds_refused_resources",
            "Published resources that an edge refused, summed over edges",
            kinds.iter().map(|kind| (ByType { r#type: kind.label().to_owned() }, rejected(kind.label()))),
        );
        let policy = store.published(tidegate_xds::ResourceType::ExtensionConfig, tidegate_core::compile::TIDEGATE);
        self.gauge("filter_policy_bytes", "Size of the filter's configuration", policy.map_or(0, |p| size(p.bytes)));
        let Counters {
            commits,
            encodes,
            changes,
            wakes,
            responses,
            response_bytes,
            accepted,
            rejected,
            events_dropped,
        } = store.counters();
        for (name, help, value) in [
            ("xds_commits", "Commits", commits),
            ("xds_encodes", "Resources encoded", encodes),
            ("xds_changes", "Resources whose content changed", changes),
            ("xds_wakes", "Streams woken by commits", wakes),
            ("xds_responses", "Responses sent", responses),
            ("xds_response_bytes", "Bytes of responses", response_bytes),
            ("xds_accepted", "Responses that an edge acknowledged", accepted),
            ("xds_rejected", "Responses that an edge refused", rejected),
            ("xds_events_dropped", "News about edges that found no room", events_dropped),
        ] {
            self.counter(name, help, value);
        }
    }
}

fn size(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The registry as the API holds it.
pub type Counted = Arc<Registry>;
