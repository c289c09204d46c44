//! What each kind of metric says of a canary.

use tidegate_filter_core::Histogram;

use super::super::stats::{Errors, difference_at_most, ln_e, tail, z};
use super::{Counts, FALSE_ALARM, Finding, Numbers, Trial, Verdict};
use crate::config::canary::{Figure, Metric, MetricKind};

/// Durations beyond a percentile that it takes to know it.
const BEYOND: u64 = 10;
/// Compared in place of a higher percentile while there are too few samples for that.
const FALLBACK: u32 = 90;

/// What is judged, and how sure one has to be.
pub(super) struct Judging<'a> {
    pub(super) trial: &'a Trial,
    /// While no instance of it is ready, the stable version is no measure.
    pub(super) stable_ready: bool,
    /// The chance of passing what should not pass.
    pub(super) alpha: f64,
}

/// A finding, and whether all that it takes was there.
pub(super) struct Judged {
    pub(super) finding: Finding,
    pub(super) known: bool,
}

impl Judging<'_> {
    pub(super) fn of(&self, metric: &Metric) -> Judged {
        let (verdict, reason, numbers) = match &metric.kind {
            MetricKind::SuccessRate => self.success_rate(metric),
            MetricKind::Duration { percentile } => self.duration(metric, *percentile),
            MetricKind::Prometheus { .. } => self.reading(metric),
        };
        let known = verdict.is_some();
        let verdict = verdict.unwrap_or(Verdict::Undecided);
        Judged { finding: Finding { metric: metric.name.clone(), verdict, reason, numbers }, known }
    }

    fn success_rate(&self, metric: &Metric) -> (Option<Verdict>, String, Numbers) {
        let canary = errors(&self.trial.seen.canary);
        // At a share of 100 % stable is not asked any more, so it is what it was before.
        let at_once = self.trial.seen.stable.requests > 0;
        let stable = errors(if at_once { &self.trial.seen.stable } else { &self.trial.baseline });
        let both = canary.of > 0 && stable.of > 0;
        let difference = canary.rate() - stable.rate();
        let at_most = difference_at_most(canary, stable, z(self.alpha));
        let share = canary.of as f64 / (canary.of as f64 + stable.of as f64);
        let ln_e = ln_e(canary.errors, stable.errors, share);
        let limit = -FALSE_ALARM.ln();
        let success = |of: Errors| (of.of > 0).then(|| rounded(100.0 * (1.0 - of.rate())));
        let numbers = Numbers::Rates {
            requests: canary.of,
            errors: canary.errors,
            stable_requests: stable.of,
            stable_errors: stable.errors,
            success_rate: success(canary),
            stable_success_rate: success(stable),
            difference: both.then(|| rounded(100.0 * difference)),
            difference_at_most: both.then(|| rounded(100.0 * at_most)),
            confidence: rounded(100.0 * (1.0 - self.alpha)),
            ln_e: (both && at_once).then(|| rounded(ln_e)),
            ln_e_limit: rounded(limit),
        };
        let compares = both && (self.stable_ready || !at_once);
        let counts = format!("{} of {} requests failed", canary.errors, canary.of);
        let stables = format!("{} of {} of stable's", stable.errors, stable.of);
        let tolerated = metric.max_degradation.map(Figure::get);
        let worse = tolerated.is_some_and(|tolerated| 100.0 * difference > tolerated) && ln_e >= limit;
        let (verdict, reason) = if compares && at_once && worse {
            let tolerated = tolerated.unwrap_or_default();
            let reason = format!(
                "{counts}, and {stables}: {:.2} points worse where {tolerated} is tolerated, and by chance in less than one of {:.0} trials",
                100.0 * difference,
                1.0 / FALSE_ALARM
            );
            (Some(Verdict::Worse), reason)
        } else if let Some(reason) = beyond(metric, canary) {
            (Some(Verdict::Bad), format!("{counts}: {reason}"))
        } else if canary.of == 0 {
            (None, "no requests".to_owned())
        } else if let Some(reason) = out_of_range(metric, 100.0 * (1.0 - canary.rate()), "%") {
            (Some(Verdict::Undecided), format!("{counts}: {reason}, but that may be chance"))
        } else if let Some(tolerated) = tolerated {
            let confidence = 100.0 * (1.0 - self.alpha);
            let at_most = 100.0 * at_most;
            if stable.of == 0 {
                (None, "stable had no requests to compare with".to_owned())
            } else if !compares {
                (None, "no instance of stable is ready, so there is nothing to compare with".to_owned())
            } else if at_most <= tolerated {
                let reason = format!(
                    "{counts}, and {stables}: at most {at_most:.2} points worse with {confidence:.2} % confidence, where {tolerated} is tolerated"
                );
                (Some(Verdict::Good), reason)
            } else {
                let reason = format!(
                    "{counts}, and {stables}: may be {at_most:.2} points worse with {confidence:.2} % confidence, where {tolerated} is tolerated"
                );
                (Some(Verdict::Undecided), reason)
            }
        } else {
            (Some(Verdict::Good), counts)
        };
        (verdict, reason, numbers)
    }

    fn duration(&self, metric: &Metric, percentile: u32) -> (Option<Verdict>, String, Numbers) {
        let canary = &self.trial.seen.canary.latency;
        let at_once = !self.trial.seen.stable.latency.is_empty();
        let stable = if at_once { &self.trial.seen.stable.latency } else { &self.trial.baseline.latency };
        let fallback = percentile > FALLBACK && canary.count() < needed(percentile);
        let percentile = if fallback { FALLBACK } else { percentile };
        let needed = needed(percentile);
        let of = |histogram: &Histogram| {
            let micros = histogram.percentile(percentile).filter(|_| histogram.count() >= needed);
            micros.map(|micros| rounded(micros as f64 / 1_000.0))
        };
        let (ours, theirs) = (of(canary), of(stable));
        let ratio = ours.zip(theirs).filter(|(_, theirs)| *theirs > 0.0).map(|(ours, theirs)| rounded(ours / theirs));
        let numbers = Numbers::Durations {
            percentile,
            samples: canary.count(),
            stable_samples: stable.count(),
            needed,
            canary: ours,
            stable: theirs,
            ratio,
        };
        let Some(ours) = ours else {
            return (None, format!("{} of at least {needed} answers for p{percentile}", canary.count()), numbers);
        };
        let (verdict, reason) = if let Some(reason) = out_of_range(metric, ours, "ms") {
            (Some(Verdict::Bad), format!("p{percentile}: {reason}"))
        } else if let Some(tolerated) = metric.max_degradation {
            let reason = |ratio| {
                format!("p{percentile} is {ours:.1} ms, {ratio:.2} times stable's, where {tolerated} is tolerated")
            };
            match ratio {
                _ if at_once && !self.stable_ready => {
                    (None, "no instance of stable is ready, so there is nothing to compare with".to_owned())
                }
                None => (None, format!("{} of at least {needed} answers of stable for p{percentile}", stable.count())),
                Some(ratio) if ratio <= tolerated.get() => (Some(Verdict::Good), reason(ratio)),
                Some(ratio) => (Some(Verdict::Undecided), reason(ratio)),
            }
        } else {
            (Some(Verdict::Good), format!("p{percentile} is {ours:.1} ms"))
        };
        (verdict, reason, numbers)
    }

    fn reading(&self, metric: &Metric) -> (Option<Verdict>, String, Numbers) {
        let reading = self.trial.readings.get(&metric.name);
        let value = reading.and_then(|reading| reading.value);
        let (verdict, reason) = match (reading, value) {
            (None, _) => (None, "not measured yet".to_owned()),
            (Some(reading), None) => (None, format!("not measured: {}", reading.reason)),
            (_, Some(value)) => match out_of_range(metric, value, "") {
                Some(reason) => (Some(Verdict::Bad), reason),
                None => (Some(Verdict::Good), format!("it is {value}")),
            },
        };
        (verdict, reason, Numbers::Reading { value })
    }
}

fn errors(counts: &Counts) -> Errors {
    Errors { errors: counts.errors, of: counts.requests }
}

/// Durations that it takes to know this percentile.
fn needed(percentile: u32) -> u64 {
    (100 * BEYOND).div_ceil(u64::from(100_u32.saturating_sub(percentile)).max(1))
}

/// Whether the canary's success rate is surely below its floor: were it just there, so many errors had less than the chance of a false
/// alarm. A few errors among few requests are not.
fn beyond(metric: &Metric, canary: Errors) -> Option<String> {
    let floor = metric.min?;
    let chance = tail(canary, (1.0 - floor.get() / 100.0).clamp(0.0, 1.0));
    (chance <= FALSE_ALARM).then(|| format!("surely below {floor} %"))
}

fn out_of_range(metric: &Metric, value: f64, unit: &str) -> Option<String> {
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    match (metric.min, metric.max) {
        (Some(min), _) if value < min.get() => Some(format!("{value:.2}{unit} is below {min}{unit}")),
        (_, Some(max)) if value > max.get() => Some(format!("{value:.2}{unit} is above {max}{unit}")),
        _ => None,
    }
}

/// To six decimals, which are kept exactly in a text; what is too large for that is cut off.
fn rounded(number: f64) -> f64 {
    (number.clamp(-1e9, 1e9) * 1e6).round() / 1e6
}
