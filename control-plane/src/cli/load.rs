//! `envoy load`: what the edges say of their traffic.

use tidegate_core::Timestamp;

use super::ask::{Api, Shown, get};
use super::draw::{Drawn, Mood, plain};
use super::{Outcome, Output, moment};
use crate::api::load::{Figures, LoadReport, LocalityLoad};

pub(super) async fn load(api: &Api, output: Output) -> Shown {
    let answer = get::<LoadReport>(api, "/v1/load").await?;
    let outcome = if answer.value.silent.is_empty() { Outcome::Well } else { Outcome::ProblemFound };
    Ok((answer.print(output, screen), outcome))
}

fn screen(seen: &LoadReport) -> String {
    let mut text = edges(seen);
    text.push('\n');
    if seen.services.is_empty() {
        text.push_str("no services\n");
    } else {
        text.push_str(&versions(seen));
        text.push_str(&format!("\nTotals since {}; each try of a request counts.\n", moment::utc(seen.since)));
    }
    text
}

fn edges(seen: &LoadReport) -> String {
    let mut text = String::new();
    if seen.edges.is_empty() && seen.silent.is_empty() {
        text.push_str("no Envoy is connected\n");
    }
    if !seen.edges.is_empty() {
        let mut table = Drawn::new(&["EDGE", "REPORTS", "LAST"]);
        for edge in &seen.edges {
            // Two reports are missing: what is shown of it is old.
            let late = |at| seen.at.since(at).as_millis() > u128::from(seen.interval_millis.saturating_mul(3));
            let mood = match edge.reported_at {
                Some(at) if !late(at) => Mood::Good,
                _ => Mood::Unsure,
            };
            table.row([plain(&edge.node), plain(edge.reports.to_string()), (ago(seen.at, edge.reported_at), mood)]);
        }
        text.push_str(&table.text());
    }
    for node in &seen.silent {
        text.push_str(&format!(
            "edge {node} is connected and reports no load yet\n  help: if that stays so, its bootstrap has no \
             `load_stats_config`: print it again with `tidegate envoy bootstrap`\n"
        ));
    }
    text
}

fn versions(seen: &LoadReport) -> String {
    let mut table = Drawn::new(&[
        "SERVICE",
        "VERSION",
        "LOCALITY",
        "EDGES",
        "REPORTED",
        "ISSUED",
        "OK",
        "ERRORS",
        "DROPPED",
        "NOW",
        "PER SECOND",
    ]);
    for service in &seen.services {
        for version in &service.versions {
            let several = version.localities.len() > 1;
            let place = match version.localities.as_slice() {
                [] => "-".to_owned(),
                [one] => named(one),
                _ => "all".to_owned(),
            };
            let head = [plain(&service.name), plain(&version.name), plain(place), plain(version.edges.to_string())];
            let reported = plain(ago(seen.at, version.oldest_report_at));
            table.row(head.into_iter().chain([reported]).chain(cells(&version.load)));
            for of in version.localities.iter().filter(|_| several) {
                let head = [plain(""), plain(""), plain(named(of)), plain(""), plain("")];
                table.row(head.into_iter().chain(cells(&of.load)));
            }
        }
    }
    table.text()
}

fn cells(of: &Figures) -> [(String, Mood); 6] {
    let errors = if of.last.error > 0 { Mood::Bad } else { Mood::Plain };
    [
        plain(of.total.issued.to_string()),
        plain(of.total.successful.to_string()),
        (of.total.error.to_string(), errors),
        plain(of.total.dropped.to_string()),
        plain(of.in_progress.to_string()),
        plain(format!("{:.1}", of.per_second)),
    ]
}

fn named(of: &LocalityLoad) -> String {
    let parts = [&of.region, &of.zone, &of.sub_zone].map(String::as_str).into_iter().filter(|part| !part.is_empty());
    let name = parts.collect::<Vec<_>>().join("/");
    match (name.as_str(), of.priority) {
        ("", 0) => "-".to_owned(),
        ("", priority) => format!("priority {priority}"),
        (name, 0) => name.to_owned(),
        (name, priority) => format!("{name}, priority {priority}"),
    }
}

fn ago(now: Timestamp, at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| moment::ago(now, at))
}

#[cfg(test)]
mod tests {
    use tidegate_core::Timestamp;

    use super::*;
    use crate::api::load::{Counted, EdgeReports, ServiceLoad, VersionLoad};

    #[test]
    fn one_screen() {
        let at = Timestamp::from_millis;
        let figures = |issued, error| Figures {
            total: Counted { issued, successful: issued - error, error, dropped: 2 },
            last: Counted { issued: 25, successful: 25, error: 0, dropped: 0 },
            per_second: 2.54,
            in_progress: 3,
            ..Figures::default()
        };
        let locality = |zone: &str, priority, issued| LocalityLoad {
            region: "eu".to_owned(),
            zone: zone.to_owned(),
            sub_zone: String::new(),
            priority,
            load: figures(issued, 0),
        };
        let version = |name: &str, edges, reported: Option<u64>, load, localities| VersionLoad {
            name: name.to_owned(),
            edges,
            oldest_report_at: reported.map(at),
            newest_report_at: reported.map(at),
            load,
            localities,
        };
        let localities = vec![locality("a", 0, 90), locality("b", 1, 10)];
        let seen = LoadReport {
            api_version: "tidegate/v1".to_owned(),
            at: at(100_000),
            since: at(0),
            interval_millis: 10_000,
            edges: vec![EdgeReports {
                node: "edge".to_owned(),
                connected_at: at(1),
                reported_at: Some(at(97_000)),
                reports: 9,
            }],
            silent: vec!["old".to_owned()],
            services: vec![ServiceLoad {
                name: "shop".to_owned(),
                versions: vec![
                    version("v1", 1, Some(97_000), figures(100, 4), localities),
                    version("v2", 0, None, Figures::default(), vec![]),
                ],
            }],
            other: Counted::default(),
        };
        assert_eq!(
            screen(&seen),
            "\
EDGE  REPORTS  LAST
edge  9        3 s ago
edge old is connected and reports no load yet
  help: if that stays so, its bootstrap has no `load_stats_config`: print it again with `tidegate envoy bootstrap`

SERVICE  VERSION  LOCALITY          EDGES  REPORTED  ISSUED  OK  ERRORS  DROPPED  NOW  PER SECOND
shop     v1       all               1      3 s ago   100     96  4       2        3    2.5
                  eu/a                               90      90  0       2        3    2.5
                  eu/b, priority 1                   10      10  0       2        3    2.5
shop     v2       -                 0      never     0       0   0       0        0    0.0

Totals since 1970-01-01T00:00:00.000Z; each try of a request counts.
"
        );
    }
}
