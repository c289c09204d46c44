//! `services.NAME.canary.analysis` and `.breaker`: what is measured of a canary, and what stops it.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::WHOLE;
use super::super::canary::{Analysis, Breaker, Failure, Figure, Metric, MetricKind, OnFailure, OnInconclusive};
use super::super::tree::{Node, Value};
use super::Reader;
use super::values::figure;
use crate::suggest;

/// How often both versions are looked at.
const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);

/// How long a step may stay undecided.
const UNDECIDED: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(720);

/// Looks that may fail.
const THRESHOLDS: RangeInclusive<u32> = 1..=1_000;

/// Requests of a step.
const SAMPLES: RangeInclusive<u64> = 1..=1_000_000_000;

/// From how many clients failures must come.
const DISTINCT_KEYS: RangeInclusive<u32> = 1..=64;

/// The CUSUM's h: below the first a single failure stops a canary, above the last nothing does.
const SENSITIVITIES: RangeInclusive<f64> = 1.0..=1_000.0;

/// Bytes of a query.
const MAX_QUERY: usize = 4_096;

/// The metrics that tidegate measures itself.
const SUCCESS_RATE: &str = "request-success-rate";
const DURATION: &str = "request-duration";

/// The percentile of a metric that names none.
const PERCENTILE: u32 = 99;

const FAILURES: [(&str, Failure); 8] = [
    ("5xx", Failure::ServerError),
    ("reset", Failure::Reset),
    ("connect-failure", Failure::ConnectFailure),
    ("timeout", Failure::Timeout),
    ("unavailable", Failure::Unavailable),
    ("internal", Failure::Internal),
    ("unknown", Failure::Unknown),
    ("deadline-exceeded", Failure::DeadlineExceeded),
];

impl Reader<'_> {
    pub(super) fn analysis(&mut self, path: &str, node: &Node) -> Option<Analysis> {
        const KEYS: [&str; 8] = [
            "interval",
            "threshold",
            "minSamples",
            "maxStepDuration",
            "onInconclusive",
            "onFailure",
            "dryRun",
            "metrics",
        ];
        let before = self.problems.len();
        let keys = self.keys(path, node, &KEYS);
        let at = |key: &str| keys.get(key).map(|node| (format!("{path}.{key}"), *node));
        let mut analysis = Analysis::default();
        if let Some(interval) = at("interval").and_then(|(path, node)| self.duration(&path, node, &INTERVALS, "5s")) {
            analysis.interval = interval;
        }
        if let Some(threshold) = at("threshold").and_then(|(path, node)| self.whole(&path, node, &THRESHOLDS)) {
            analysis.threshold = threshold;
        }
        if let Some(samples) = at("minSamples").and_then(|(path, node)| self.whole(&path, node, &SAMPLES)) {
            analysis.min_samples = samples;
        }
        if let Some((path, node)) = at("maxStepDuration")
            && let Some(longest) = self.duration(&path, node, &UNDECIDED, "30m")
        {
            if longest < analysis.interval {
                let reason = format!("`{path}` is shorter than `interval`, so that nothing would ever be looked at");
                self.report(node.place, &reason, "write a longer duration, such as 30m");
            }
            analysis.max_step_duration = longest;
        }
        let inconclusive = [("pause", OnInconclusive::Pause), ("rollback", OnInconclusive::Rollback)];
        analysis.on_inconclusive =
            self.one_of("way", &format!("{path}.onInconclusive"), keys.get("onInconclusive").copied(), &inconclusive);
        let failed = [("rollback", OnFailure::Rollback), ("freeze", OnFailure::Freeze)];
        analysis.on_failure = self.one_of("way", &format!("{path}.onFailure"), keys.get("onFailure").copied(), &failed);
        if let Some(dry) = at("dryRun").and_then(|(path, node)| self.truth(&path, node)) {
            analysis.dry_run = dry;
        }
        if let Some((path, node)) = at("metrics") {
            analysis.metrics = self.metrics(&path, node);
        }
        (self.problems.len() == before).then_some(analysis)
    }

    fn metrics(&mut self, path: &str, node: &Node) -> Vec<Metric> {
        let mut metrics: Vec<Metric> = Vec::new();
        for item in self.some_items(path, node) {
            let Some(metric) = self.metric(path, item) else { continue };
            if metrics.iter().any(|other| other.name == metric.name) {
                let reason = format!("`{path}`: another metric before this one is named `{}`", metric.name);
                self.report(item.place, &reason, "name each once, with all of its bounds");
                continue;
            }
            metrics.push(metric);
        }
        metrics
    }

    fn metric(&mut self, path: &str, node: &Node) -> Option<Metric> {
        let known = ["name", "percentile", "prometheus", "thresholdRange", "maxDegradation"];
        let keys = self.keys(path, node, &known);
        let at = |key: &str| keys.get(key).map(|node| (format!("{path}.{key}"), *node));
        let name = match keys.get("name") {
            Some(node) => self.token("metric", &format!("{path}.name"), node, SUCCESS_RATE),
            None => {
                self.report(
                    node.place,
                    &format!("an item of `{path}` has no `name`"),
                    "add `name: request-success-rate`",
                );
                None
            }
        };
        let percentile = at("percentile").map(|(path, node)| self.whole(&path, node, &(1..=99)));
        let asked = at("prometheus").map(|(path, node)| self.prometheus(&path, node));
        let (min, max) = at("thresholdRange").map(|(path, node)| self.threshold_range(&path, node)).unwrap_or_default();
        let name = name?;
        let kind = match (name, asked) {
            (SUCCESS_RATE | DURATION, Some(_)) => {
                let reason = format!("`{path}`: `{name}` is measured by tidegate itself, and not asked of Prometheus");
                self.report(node.place, &reason, "give the query another name");
                None
            }
            (SUCCESS_RATE, None) => Some(MetricKind::SuccessRate),
            (DURATION, None) => {
                percentile.unwrap_or(Some(PERCENTILE)).map(|percentile| MetricKind::Duration { percentile })
            }
            (_, Some(asked)) => asked,
            (_, None) => {
                let cure = suggest::did_you_mean(name, [SUCCESS_RATE, DURATION], || {
                    "add `prometheus: { address: \"http://prometheus:9090\", query: … }`, which says where it comes from"
                        .to_owned()
                });
                self.report(node.place, &format!("`{path}`: there is no metric {name:?}"), &cure);
                None
            }
        }?;
        if let (Some((path, node)), false) = (at("percentile"), matches!(kind, MetricKind::Duration { .. })) {
            self.report(node.place, &format!("`{path}`: `{name}` has none, only `{DURATION}`"), "leave it out");
        }
        let max_degradation = at("maxDegradation").and_then(|(path, node)| self.max_degradation(&path, node, &kind));
        let bounded = ["thresholdRange", "maxDegradation"].iter().any(|key| keys.contains_key(key));
        match kind {
            _ if !bounded => {
                let cure = match kind {
                    MetricKind::SuccessRate => "add `maxDegradation: 1`, in percentage points",
                    MetricKind::Duration { .. } => "add `maxDegradation: \"1.25x\"`",
                    MetricKind::Prometheus { .. } => "add `thresholdRange: { max: … }`",
                };
                self.report(node.place, &format!("`{path}`: nothing says what `{name}` may be"), cure);
            }
            MetricKind::SuccessRate | MetricKind::Duration { .. } => {
                let range = if kind == MetricKind::SuccessRate { 0.0..=100.0 } else { 0.0..=3_600_000.0 };
                if let Some((path, node)) = at("thresholdRange")
                    && [min, max].into_iter().flatten().any(|bound| !range.contains(&bound.get()))
                {
                    let unit = if kind == MetricKind::SuccessRate { "percent" } else { "milliseconds" };
                    let reason = format!("`{path}` has a bound that `{name}` never comes to");
                    self.report(node.place, &reason, &format!("write {unit}, from 0 to {}", range.end()));
                }
            }
            MetricKind::Prometheus { .. } => {}
        }
        Some(Metric { name: name.to_owned(), kind, min, max, max_degradation })
    }

    fn threshold_range(&mut self, path: &str, node: &Node) -> (Option<Figure>, Option<Figure>) {
        let keys = self.keys(path, node, &["min", "max"]);
        let all = &(-1e15..=1e15);
        let mut bound = |key: &str| keys.get(key).and_then(|node| self.figure(&format!("{path}.{key}"), node, all));
        let (min, max) = (bound("min"), bound("max"));
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            let reason = format!("`{path}`: its `min` {min} is above its `max` {max}, so that nothing would pass");
            self.report(node.place, &reason, "swap them, or leave one out");
        }
        if let (Value::Map(_) | Value::Null, None, None) = (&node.value, keys.get("min"), keys.get("max")) {
            self.report(node.place, &format!("`{path}` has neither `min` nor `max`"), "add one, or leave the key out");
        }
        (min, max)
    }

    fn max_degradation(&mut self, path: &str, node: &Node, kind: &MetricKind) -> Option<Figure> {
        let text = self.text(path, node)?;
        let (digits, is_factor) = text.strip_suffix('x').map_or((text, false), |digits| (digits, true));
        let number = figure(digits);
        let within = |from: f64, to: f64| number.filter(|n| n.get() > from && n.get() <= to);
        let (found, reason, cure) = match kind {
            MetricKind::SuccessRate => (
                within(0.0, 100.0).filter(|_| !is_factor),
                "is not a number of percentage points above 0",
                "write such as `1`: 1 percentage point worse than the stable version",
            ),
            MetricKind::Duration { .. } => (
                within(1.0, 100.0).filter(|_| is_factor),
                "is not a factor above 1",
                "write such as \"1.25x\": a quarter longer than the stable version",
            ),
            MetricKind::Prometheus { .. } => (
                None,
                "has no meaning for a query, which has one answer and not one for each version",
                "compare in the query, and write `thresholdRange`",
            ),
        };
        if found.is_none() {
            self.report(node.place, &format!("`{path}`: {text:?} {reason}"), cure);
        }
        found
    }

    fn prometheus(&mut self, path: &str, node: &Node) -> Option<MetricKind> {
        let keys = self.keys(path, node, &["address", "query"]);
        let (Some(address), Some(query)) = (keys.get("address"), keys.get("query")) else {
            let cure = "write { address: \"http://prometheus:9090\", query: … }";
            self.report(node.place, &format!("`{path}` needs `address` and `query`"), cure);
            return None;
        };
        let place = query.place;
        let query = self.text(&format!("{path}.query"), query).filter(|query| {
            let fits = !query.trim().is_empty() && query.len() <= MAX_QUERY;
            if !fits {
                let reason = format!("`{path}.query` is empty, or has more than {MAX_QUERY} bytes");
                self.report(place, &reason, "write a query that answers one number");
            }
            fits
        });
        let example = "http://prometheus:9090";
        let address_path = format!("{path}.address");
        let place = address.place;
        let address = self.url(&address_path, address, example)?;
        if address.contains('?') {
            let reason = format!("`{address_path}`: {address:?} has a query of its own");
            self.report(place, &reason, &format!("write such as \"{example}\""));
            return None;
        }
        Some(MetricKind::Prometheus { address, query: query?.to_owned() })
    }

    pub(super) fn breaker(&mut self, path: &str, node: &Node) -> Option<Breaker> {
        const KEYS: [&str; 6] =
            ["failOn", "baselineErrorRate", "trippedErrorRate", "sensitivity", "minDistinctKeys", "latch"];
        let before = self.problems.len();
        let keys = self.keys(path, node, &KEYS);
        let at = |key: &str| keys.get(key).map(|node| (format!("{path}.{key}"), *node));
        let mut breaker = Breaker::default();
        if let Some((path, node)) = at("failOn") {
            let items = self.some_items(&path, node);
            breaker.fail_on = items.iter().filter_map(|item| self.word("failure", &path, item, &FAILURES)).collect();
            breaker.fail_on.sort_unstable();
            breaker.fail_on.dedup();
        }
        // At 0 the first failure would be infinitely unlikely, and at 100 every success.
        let rates = &(1..=WHOLE - 1);
        if let Some((path, node)) = at("baselineErrorRate")
            && let Some(rate) = self.percent("share of failures", &path, node, rates)
        {
            breaker.baseline_error_rate = rate;
        }
        if let Some((path, node)) = at("trippedErrorRate")
            && let Some(rate) = self.percent("share of failures", &path, node, rates)
        {
            breaker.tripped_error_rate = rate;
        }
        if breaker.tripped_error_rate <= breaker.baseline_error_rate && self.problems.len() == before {
            let (tripped, baseline) = (breaker.tripped_error_rate, breaker.baseline_error_rate);
            let reason = format!(
                "`{path}`: `trippedErrorRate` ({}) is not above `baselineErrorRate` ({}), so that it would stop what is normal",
                super::super::percent(tripped),
                super::super::percent(baseline)
            );
            let place = at("trippedErrorRate").or(at("baselineErrorRate")).map_or(node.place, |(_, node)| node.place);
            self.report(place, &reason, "let it be a few times as much");
        }
        if let Some((path, node)) = at("sensitivity")
            && let Some(sensitivity) = self.figure(&path, node, &SENSITIVITIES)
        {
            breaker.sensitivity = sensitivity;
        }
        if let Some(keys) = at("minDistinctKeys").and_then(|(path, node)| self.whole(&path, node, &DISTINCT_KEYS)) {
            breaker.min_distinct_keys = keys;
        }
        if let Some((path, node)) = at("latch") {
            self.word("latch", &path, node, &[("until-reset", ())]);
        }
        (self.problems.len() == before).then_some(breaker)
    }
}
