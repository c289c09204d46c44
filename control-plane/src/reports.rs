//! What the filters report, on its way into the inbox. A report is a client's word: of what it says, only that is passed on which
//! can be, of versions that there are, from a node that the client may be. A full inbox drops it, for the next one comes within a
//! second.

use std::collections::BTreeMap;

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tidegate_core::Input;
use tidegate_filter_core::{Answers, REPORT_PATH, Report, ServiceReport};
use tidegate_xds::{Beside, Posted, ResourceType, Store};
use tokio::sync::mpsc;

/// The longest report; the filter keeps well below it.
const MAX_BODY: usize = 64 << 10;

/// More answers than a worker gives in the second that a report is of, whatever the machine.
const MAX_ANSWERS: u64 = 10_000_000;

/// The longest name of a node and of an epoch.
const MAX_NAME: usize = 256;

/// What became of reports. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct ReportStats {
    taken: Counter,
    refused: Counter,
    dropped: Counter,
}

impl ReportStats {
    /// Registers everything as `edge_reports…`; the registry's prefix comes before it.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("edge_reports_taken", "Reports of filters that were taken", self.taken.clone());
        registry.register(
            "edge_reports_refused",
            "Reports of filters that cannot be, or whose sender's certificate does not name the node",
            self.refused.clone(),
        );
        registry.register(
            "edge_reports_dropped",
            "Reports of filters that came when too much else was waiting",
            self.dropped.clone(),
        );
    }
}

/// Where filters send their reports: whatever is sound in them goes to `inbox`. Which versions there are is what `store` publishes.
#[must_use]
pub fn beside(store: Store, inbox: mpsc::Sender<Input>, stats: ReportStats) -> Beside {
    Beside::new(REPORT_PATH, MAX_BODY, move |posted| take(&posted, &store, &inbox, &stats))
}

fn take(posted: &Posted, store: &Store, inbox: &mpsc::Sender<Input>, stats: &ReportStats) -> StatusCode {
    let is_known =
        |service: &str, version: &str| store.version(ResourceType::Cluster, &format!("{service}/{version}")).is_some();
    let Some(report) = sound(&posted.body, is_known) else {
        stats.refused.inc();
        tracing::debug!(from = ?posted.from(), "a report that cannot be is refused");
        return StatusCode::BAD_REQUEST;
    };
    if !posted.may_be(&report.node) {
        stats.refused.inc();
        return StatusCode::FORBIDDEN;
    }
    if report.services.is_empty() {
        return StatusCode::OK;
    }
    match inbox.try_send(Input::EdgeReport(Box::new(report))) {
        Ok(()) => {
            stats.taken.inc();
            StatusCode::OK
        }
        Err(_) => {
            stats.dropped.inc();
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// A report without what is not known; `None`: it is none, or says what cannot be.
fn sound(body: &[u8], is_known: impl Fn(&str, &str) -> bool) -> Option<Report> {
    let Report { node, services } = serde_json::from_slice(body).ok()?;
    if node.is_empty() || node.len() > MAX_NAME {
        return None;
    }
    let mut known = BTreeMap::new();
    for (service, ServiceReport { trip, versions }) in services {
        if !versions.values().all(can_be) {
            return None;
        }
        if let Some(trip) = &trip
            && (trip.epoch.is_empty() || trip.epoch.len() > MAX_NAME || trip.failures > trip.answers)
        {
            return None;
        }
        let versions: BTreeMap<String, Answers> =
            versions.into_iter().filter(|(version, _)| is_known(&service, version)).collect();
        if trip.is_some() || !versions.is_empty() {
            known.insert(service, ServiceReport { trip, versions });
        }
    }
    Some(Report { node, services: known })
}

fn can_be(answers: &Answers) -> bool {
    let Answers { answered, failed, latency } = answers;
    *answered <= MAX_ANSWERS && failed <= answered && latency.count() <= *answered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(services: &str) -> Option<Report> {
        let body = format!("{{\"node\":\"edge-1\",\"services\":{services}}}");
        sound(body.as_bytes(), |service, version| service == "shop" && ["v1", "v2"].contains(&version))
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let answers = r#"{"answered":3,"failed":1,"latency":{"40":2}}"#;
        let report = read(&format!(
            r#"{{"shop":{{"versions":{{"v1":{answers},"v9":{answers}}}}},"cart":{{"versions":{{"v1":{answers}}}}}}}"#
        ));
        let services = report.unwrap().services;
        assert_eq!(services.keys().collect::<Vec<_>>(), ["shop"]);
        assert_eq!(services["shop"].versions.keys().collect::<Vec<_>>(), ["v1"]);
        assert_eq!(services["shop"].versions["v1"].failed, 1);
    }

    #[test]
    fn what_cannot_be_is_refused_as_a_whole() {
        assert!(read("{}").is_some());
        for wrong in [
            r#"{"shop":{"versions":{"v1":{"answered":1,"failed":2}}}}"#,
            r#"{"shop":{"versions":{"v1":{"answered":1,"failed":0,"latency":{"7":2}}}}}"#,
            r#"{"shop":{"versions":{"v1":{"answered":99999999999,"failed":0}}}}"#,
            r#"{"shop":{"versions":{"v1":{"answered":-1,"failed":0}}}}"#,
            r#"{"shop":{"trip":{"epoch":"","failures":1,"answers":1,"distinctKeys":1,"stableRate":0}}}"#,
            r#"{"shop":{"trip":{"epoch":"e","failures":2,"answers":1,"distinctKeys":1,"stableRate":0}}}"#,
            "[]",
            "7",
        ] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
        for body in
            ["", "{", r#"{"node":"","services":{}}"#, &format!(r#"{{"node":"{}","services":{{}}}}"#, "n".repeat(257))]
        {
            assert!(sound(body.as_bytes(), |_, _| true).is_none(), "{body}");
        }
    }

    #[test]
    fn a_trip_is_passed_on() {
        let trip = r#"{"epoch":"e1","failures":7,"answers":9,"distinctKeys":7,"stableRate":0}"#;
        let services = read(&format!(r#"{{"shop":{{"trip":{trip}}}}}"#)).unwrap().services;
        assert_eq!(services["shop"].trip.as_ref().unwrap().failures, 7);
    }
}
