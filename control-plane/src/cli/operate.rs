//! `drain`, `undrain` and `deploy wait`: what they ask for, and how they wait. What is waited for is looked at in short steps; when the
//! time is over, what is missing is said.

use std::time::Duration;

use tidegate_core::status::{
    AcceptanceState, DeployStatus, DrainStatus, EdgeAcceptance, InstanceState, InstanceStatus,
};
use tokio::time::Instant;

use super::ask::{Answer, Api, AskError, get, post};
use super::{DrainArgs, Outcome, Output, draw, token};
use crate::api::operate::Asked;
use crate::http::escaped;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(200);
/// Instances whose reasons are told.
const TOLD: usize = 10;

pub(super) async fn drain(api: &Api, output: Output, of: &DrainArgs, wait: bool, timeout: Duration) -> Outcome {
    let deadline = Instant::now() + timeout;
    let mut answer = match change(api, "/v1/drain", of).await {
        Ok(answer) => answer,
        Err(outcome) => return outcome,
    };
    if !wait {
        return ended(&answer.print(output, |status| said(status, &drained(status))), Outcome::Well);
    }
    let path = format!("/v1/drain/{}", escaped(&answer.value.id));
    // What was handed to a connection just before the edge knew shows in the next figure.
    let mut idle = 0;
    loop {
        let missing = missing(&answer.value);
        idle = if missing.is_none() { idle + 1 } else { 0 };
        if idle == 2 {
            return ended(&answer.print(output, |status| said(status, "has nothing under way")), Outcome::Well);
        }
        if Instant::now() >= deadline {
            let missing = missing.unwrap_or_else(|| "it was idle for a moment only".to_owned());
            draw::say(&format!("error: {} is not done after {timeout:?}: {missing}", answer.value.container));
            return ended(&answer.print(output, |_| String::new()), Outcome::ProblemFound);
        }
        tokio::time::sleep(LOOK).await;
        answer = match get(api, &path).await {
            Ok(answer) => answer,
            Err(error) => return failed(&error),
        };
    }
}

pub(super) async fn undrain(api: &Api, output: Output, of: &DrainArgs) -> Outcome {
    match change(api, "/v1/undrain", of).await {
        Ok(answer) => ended(&answer.print(output, |status| said(status, &drained(status))), Outcome::Well),
        Err(outcome) => outcome,
    }
}

pub(super) async fn deployed(
    api: &Api,
    output: Output,
    (service, version): (&str, &str),
    replicas: u32,
    timeout: Duration,
) -> Outcome {
    let deadline = Instant::now() + timeout;
    let path = format!("/v1/deploy/{}/{}", escaped(service), escaped(version));
    loop {
        let answer: Result<Answer<DeployStatus>, AskError> = get(api, &path).await;
        let late = Instant::now() >= deadline;
        match &answer {
            Ok(answer) => {
                let status = &answer.value;
                let is_accepted = !status.edges.is_empty() && unaccepted(&status.edges).is_empty();
                if status.ready >= replicas && is_accepted {
                    return ended(&answer.print(output, deployment), Outcome::Well);
                }
                if late {
                    draw::say(&format!("error: {}", incomplete(status, replicas, timeout)));
                    return ended(&answer.print(output, |_| String::new()), Outcome::ProblemFound);
                }
            }
            // Its first container may be still to come.
            Err(AskError::Refused { .. }) if !late => {}
            Err(error) => return failed(error),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn change(api: &Api, path: &str, of: &DrainArgs) -> Result<Answer<DrainStatus>, Outcome> {
    let token = token::of(of.state_dir.clone())?;
    post(api, path, &token, &Asked { container: of.container.clone() }).await.map_err(|error| failed(&error))
}

/// What a drained container still waits for.
fn missing(status: &DrainStatus) -> Option<String> {
    let unaccepted = unaccepted(&status.edges);
    if !unaccepted.is_empty() {
        return Some(format!("not accepted by {}", unaccepted.join(", ")));
    }
    match status.in_flight {
        None => Some("the local Envoy does not say what is under way".to_owned()),
        Some(0) => None,
        Some(count) => Some(format!("{count} under way")),
    }
}

fn unaccepted(edges: &[EdgeAcceptance]) -> Vec<&str> {
    edges.iter().filter(|edge| edge.state != AcceptanceState::Accepted).map(|edge| edge.node.as_str()).collect()
}

fn said(status: &DrainStatus, what: &str) -> String {
    let mut text = format!("{} ({}) {what}\n", status.container, status.id);
    if !status.unobserved.is_empty() {
        let others = status.unobserved.join(", ");
        text.push_str(&format!("what is under way from {others} is not known here\n"));
    }
    text
}

fn drained(status: &DrainStatus) -> String {
    let accepted = status.edges.len() - unaccepted(&status.edges).len();
    let under_way = status.in_flight.map_or_else(String::new, |count| format!("; {count} under way"));
    match status.since {
        Some(_) => format!("is drained: accepted by {accepted} of {} edge(s){under_way}", status.edges.len()),
        None => "is not drained".to_owned(),
    }
}

fn deployment(status: &DeployStatus) -> String {
    let DeployStatus { service, version, ready, edges, .. } = status;
    format!("{service}/{version}: {ready} ready, accepted by {} edge(s)\n", edges.len())
}

/// What is missing, and why.
fn incomplete(status: &DeployStatus, replicas: u32, timeout: Duration) -> String {
    let DeployStatus { service, version, ready, .. } = status;
    let mut text = format!("{ready} of {replicas} instance(s) of {service}/{version} are ready after {timeout:?}");
    if status.edges.is_empty() {
        text.push_str("\n  no edge that sees the service is connected");
    }
    for edge in unaccepted(&status.edges) {
        text.push_str(&format!("\n  the edge {edge} has not accepted them"));
    }
    let not_ready = |instance: &&InstanceStatus| instance.state != InstanceState::Ready;
    for instance in status.instances.iter().filter(not_ready).take(TOLD) {
        text.push_str(&format!("\n  {} ({}): {}", instance.container, instance.id, instance.reason));
    }
    if status.instances.is_empty() {
        text.push_str(&format!("\n  no container of the version {version} runs"));
    }
    text.push_str(&format!("\n  help: `tidegate explain {service}` says why"));
    text
}

fn ended(text: &str, outcome: Outcome) -> Outcome {
    draw::page(text, false);
    outcome
}

fn failed(error: &AskError) -> Outcome {
    draw::fail(&error.to_string(), error.outcome())
}
