//! `canary status [SERVICE]`: what is set and what was seen, where the rollout is and why, and which edges accepted it.

use std::time::Duration;

use tidegate_core::config::percent;
use tidegate_core::rollout::Verdict;
use tidegate_core::state::trials::Point;
use tidegate_core::status::{
    AcceptanceState, Canaries, CanaryEdge, CanaryStatus, Observed, RolloutStatus, StageStatus, VersionStatus,
};

use super::super::ask::{Api, AskError, Shown, get};
use super::super::draw::{Drawn, Mood, plain};
use super::super::{Outcome, Output, moment};

/// Columns of a chart.
const COLUMNS: usize = 60;
/// The heights of a bar.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

pub(in super::super) async fn status(api: &Api, output: Output, service: Option<&str>) -> Shown {
    let answer = get::<Canaries>(api, "/v1/canary").await?;
    let wanted = |canary: &&CanaryStatus| service.is_none_or(|service| canary.service == service);
    let canaries: Vec<&CanaryStatus> = answer.value.canaries.iter().filter(wanted).collect();
    if let (Some(service), true) = (service, canaries.is_empty()) {
        let others: Vec<&str> = answer.value.canaries.iter().map(|canary| canary.service.as_str()).collect();
        let cure = if others.is_empty() {
            "declare one under `services` in tidegate.yaml; no service has a canary".to_owned()
        } else {
            format!("services with a canary: {}", others.join(", "))
        };
        return Err(AskError::Refused { error: format!("the service `{service}` has no canary"), cure });
    }
    let refused = |canary: &CanaryStatus| canary.edges.iter().any(|e| e.weight.state == AcceptanceState::Rejected);
    let unready = |canary: &CanaryStatus| canary.canary.ready == 0 && canary.canary.weight > 0;
    let ended = |canary: &CanaryStatus| canary.rollout.phase == "aborted";
    let is_bad = canaries.iter().any(|canary| refused(canary) || unready(canary) || ended(canary));
    let outcome = if is_bad { Outcome::ProblemFound } else { Outcome::Well };
    let text = answer.print(output, |seen| {
        if canaries.is_empty() {
            return "no service has a canary\n".to_owned();
        }
        let drawn: Vec<String> = canaries.iter().map(|canary| screen(seen, canary)).collect();
        drawn.join("\n")
    });
    Ok((text, outcome))
}

fn screen(seen: &Canaries, canary: &CanaryStatus) -> String {
    let CanaryStatus { service, stable, canary: trial, rollout, .. } = canary;
    let mut text = format!("service {service}: {}\n", headline(rollout));
    text.push_str(&versions(canary));
    text.push_str(&format!("stages: {}\n", stages(rollout)));
    text.push_str(&metrics(rollout));
    text.push_str(&chart(&rollout.chart));
    let affinity = if canary.affinity.is_empty() {
        "none, each request is drawn anew".to_owned()
    } else {
        canary.affinity.join(", then ")
    };
    text.push_str(&format!("affinity: {affinity}\n"));
    if canary.stable_gone {
        text.push_str("the stable version has no instance: the canary serves everything\n");
    } else if trial.ready == 0 && trial.weight > 0 {
        text.push_str("the canary has no ready instance: the stable version serves its share\n");
    }
    if rollout.phase == "promoted" {
        let cure = format!("declare `stable: {{ version: {} }}`, and stop {}", trial.name, stable.name);
        text.push_str(&format!("to end it: {cure}\n"));
    }
    if let Some(last) = &rollout.last {
        let ago = moment::ago(seen.at, last.at);
        let because = if last.reason.is_empty() { String::new() } else { format!(": {}", last.reason) };
        text.push_str(&format!("last: {} {ago} by {}{because}\n", last.what.as_str(), last.by));
    }
    if canary.edges.is_empty() {
        text.push_str("edges: no Envoy is connected\n");
    }
    for edge in &canary.edges {
        text.push_str(&format!("edge `{}`: {}; {}\n", edge.weight.node, accepted(seen, edge), reports(seen, edge)));
    }
    text
}

fn headline(rollout: &RolloutStatus) -> String {
    let by_hand = rollout.overridden.map_or("", |_| ", its share set by hand");
    format!("{}{by_hand}: {}", rollout.phase, rollout.reason)
}

fn versions(canary: &CanaryStatus) -> String {
    let mut table = Drawn::new(&["VERSION", "ROLE", "SET", "SEEN", "BUCKETS", "READY"]);
    let [from, to] = canary.buckets;
    let [stable, trial] = seen(&canary.rollout.observed);
    for (version, role, seen, buckets) in [
        (&canary.stable, "stable", stable, format!("[0, {from})")),
        (&canary.canary, "canary", trial, format!("[{from}, {to})")),
    ] {
        let mood = if version.ready == 0 { Mood::Bad } else { Mood::Good };
        table.row([
            plain(&version.name),
            plain(role),
            plain(percent(version.weight)),
            plain(seen),
            plain(buckets),
            (ready(version), mood),
        ]);
    }
    table.text()
}

/// The observed shares of the stable version and of the canary, with what the second is known by.
fn seen(observed: &Observed) -> [String; 2] {
    let (Some(share), Some([low, high])) = (observed.share, observed.interval) else {
        return ["-", "-"].map(str::to_owned);
    };
    let all = observed.canary.saturating_add(observed.stable);
    [format!("{:.2} %", 100.0 - share), format!("{share:.2} % ({low:.2} to {high:.2}, n={all})")]
}

fn stages(rollout: &RolloutStatus) -> String {
    let of = |(number, stage): (usize, &StageStatus)| {
        let what = if stage.mirror > 0 { format!("mirror {}", percent(stage.mirror)) } else { percent(stage.weight) };
        let pause = match (stage.until_promoted, stage.bake_millis) {
            (true, _) => " until promoted".to_owned(),
            (false, 0) => String::new(),
            (false, millis) => format!(" for {}", whole(millis)),
        };
        match rollout.stage {
            Some(now) if now == number => format!("[{what}{pause}, {} passed]", whole(rollout.spent_millis)),
            _ => format!("{what}{pause}"),
        }
    };
    let stages: Vec<String> = rollout.stages.iter().enumerate().map(of).chain(["100 %".to_owned()]).collect();
    stages.join(" → ")
}

fn whole(millis: u64) -> String {
    humantime::format_duration(Duration::from_secs(millis / 1_000)).to_string()
}

fn metrics(rollout: &RolloutStatus) -> String {
    let Some(evidence) = &rollout.evidence else { return String::new() };
    let mut table = Drawn::new(&["METRIC", "VERDICT", "WHY"]);
    for finding in &evidence.findings {
        let (verdict, mood) = match finding.verdict {
            Verdict::Good => ("good", Mood::Good),
            Verdict::Undecided => ("undecided", Mood::Unsure),
            Verdict::Bad => ("bad", Mood::Bad),
            Verdict::Worse => ("worse", Mood::Bad),
        };
        table.row([plain(&finding.metric), (verdict.to_owned(), mood), plain(&finding.reason)]);
    }
    let mut text = if evidence.findings.is_empty() { String::new() } else { table.text() };
    if let Some(looks) = rollout.looks {
        text.push_str(&format!("failed looks: {} of {}\n", looks.failed, looks.threshold));
    }
    text
}

/// The canary's share as it was set and as edges reported it, one column a report, to the larger of both.
fn chart(points: &[Point]) -> String {
    let newest = &points[points.len().saturating_sub(COLUMNS)..];
    let set: Vec<f64> = newest.iter().map(|point| f64::from(point.set) / 100.0).collect();
    let seen: Vec<Option<f64>> = newest.iter().map(share).collect();
    let highest = set.iter().copied().chain(seen.iter().copied().flatten()).fold(0.0, f64::max);
    if newest.len() < 2 || highest <= 0.0 {
        return String::new();
    }
    let row = |values: &mut dyn Iterator<Item = Option<f64>>| -> String {
        values.map(|value| value.map_or('·', |value| bar(value / highest))).collect()
    };
    let set = row(&mut set.into_iter().map(Some));
    let seen = row(&mut seen.into_iter());
    format!("set   {set}\nseen  {seen}  to {highest:.1} %\n")
}

/// In percent.
fn share(point: &Point) -> Option<f64> {
    let all = point.canary.saturating_add(point.stable);
    #[expect(clippy::cast_precision_loss, reason = "a bar has eight heights")]
    let share = (all > 0).then(|| 100.0 * point.canary as f64 / all as f64);
    share
}

fn bar(part: f64) -> char {
    let height = (part * 8.0).ceil().clamp(0.0, 8.0);
    let mut heights = BARS.iter().zip(0_u8..);
    heights.find(|(_, at)| f64::from(*at) >= height).map_or('█', |(bar, _)| *bar)
}

fn accepted(seen: &Canaries, edge: &CanaryEdge) -> String {
    let edge = &edge.weight;
    let ago = edge.at.map(|at| format!(" {}", moment::ago(seen.at, at))).unwrap_or_default();
    match edge.state {
        AcceptanceState::NotSent => "the weight was not sent yet".to_owned(),
        AcceptanceState::Sent => "the weight was sent, and it has not answered yet".to_owned(),
        AcceptanceState::Accepted => format!("accepted the weight{ago}"),
        AcceptanceState::Rejected => {
            format!("refused the weight{ago}: {}", edge.message.as_deref().unwrap_or_default())
        }
        AcceptanceState::HeldBack => {
            "the weight was not sent, because another edge refused it: it has what was last accepted".to_owned()
        }
    }
}

fn reports(seen: &Canaries, edge: &CanaryEdge) -> String {
    let load = match edge.reported_at {
        Some(at) => format!("reported {}", moment::ago(seen.at, at)),
        None => "reports nothing, and counts as nothing".to_owned(),
    };
    match &edge.trip {
        Some(trip) => format!("{load}; its breaker is open: {} of {} answers failed", trip.failures, trip.answers),
        None => load,
    }
}

fn ready(version: &VersionStatus) -> String {
    format!("{}/{}", version.ready, version.total)
}

#[cfg(test)]
mod tests {
    use tidegate_core::Timestamp;

    use super::*;

    #[test]
    fn a_chart_shows_what_was_set_beside_what_was_seen() {
        let point = |set, canary, stable| Point { at: Timestamp::from_millis(0), set, canary, stable };
        let points = [point(0, 0, 100), point(1_000, 5, 95), point(1_000, 0, 0), point(2_000, 20, 80)];
        assert_eq!(chart(&points), "set    ▄▄█\nseen   ▂·█  to 20.0 %\n");
        assert_eq!(chart(&points[..1]), "", "one point is no chart");
        assert_eq!(chart(&[point(0, 0, 9), point(0, 0, 9)]), "", "nobody has the canary");
    }
}
