//! `canary status [SERVICE]`: what is set, what is ready, and which edges accepted it.

use tidegate_core::config::percent;
use tidegate_core::status::{AcceptanceState, Canaries, CanaryStatus, EdgeAcceptance, VersionStatus};

use super::ask::{Api, AskError, Shown, get};
use super::draw::{Drawn, Mood, plain};
use super::{Outcome, Output, moment};

pub(super) async fn status(api: &Api, output: Output, service: Option<&str>) -> Shown {
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
    let refused = canaries.iter().any(|canary| canary.edges.iter().any(|e| e.state == AcceptanceState::Rejected));
    let unready = canaries.iter().any(|canary| canary.canary.ready == 0 && canary.canary.weight > 0);
    let outcome = if refused || unready { Outcome::ProblemFound } else { Outcome::Well };
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
    let mut text = format!("service {}\n", canary.service);
    let mut table = Drawn::new(&["VERSION", "ROLE", "WEIGHT", "BUCKETS", "READY"]);
    let [from, to] = canary.buckets;
    for (version, role, buckets) in
        [(&canary.stable, "stable", format!("[0, {from})")), (&canary.canary, "canary", format!("[{from}, {to})"))]
    {
        let mood = if version.ready == 0 { Mood::Bad } else { Mood::Good };
        table.row([
            plain(&version.name),
            plain(role),
            plain(percent(version.weight)),
            plain(buckets),
            (ready(version), mood),
        ]);
    }
    text.push_str(&table.text());
    let affinity = if canary.affinity.is_empty() {
        "none, each request is drawn anew".to_owned()
    } else {
        canary.affinity.join(", then ")
    };
    text.push_str(&format!("affinity: {affinity}\n"));
    if canary.stable_gone {
        text.push_str("the stable version has no instance: the canary serves everything\n");
    } else if canary.canary.ready == 0 {
        text.push_str("the canary has no ready instance: the stable version serves its share\n");
    }
    if canary.edges.is_empty() {
        text.push_str("weights: no Envoy is connected\n");
    }
    for edge in &canary.edges {
        text.push_str(&format!("weights: {}\n", accepted(seen, edge)));
    }
    text
}

fn accepted(seen: &Canaries, edge: &EdgeAcceptance) -> String {
    let ago = edge.at.map(|at| format!(" {}", moment::ago(seen.at, at))).unwrap_or_default();
    let node = &edge.node;
    match edge.state {
        AcceptanceState::NotSent => format!("not sent to edge `{node}` yet"),
        AcceptanceState::Sent => format!("sent to edge `{node}`, which has not answered yet"),
        AcceptanceState::Accepted => format!("accepted by edge `{node}`{ago}"),
        AcceptanceState::Rejected => {
            format!("refused by edge `{node}`{ago}: {}", edge.message.as_deref().unwrap_or_default())
        }
        AcceptanceState::HeldBack => {
            format!("not sent to edge `{node}`, because another refused it: it has what was last accepted")
        }
    }
}

fn ready(version: &VersionStatus) -> String {
    format!("{}/{}", version.ready, version.total)
}
