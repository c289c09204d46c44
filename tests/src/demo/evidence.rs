//! The second act: a rollout that goes by evidence. A good canary is promoted because it was shown not to be worse; a bad one, whose every
//! answer fails, is stopped by the filter, and the users who saw an error are counted.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use super::{report::Row, screen::Screen};
use crate::{
    edge::{Edge, backend, host},
    engine::{Engine, Network},
    load::{Ask, Load, Report, Running},
    poll::{SOON, until},
};

/// The service of this act, beside the one of the first.
const SERVICE: &str = "checkout";
const USERS: u64 = 2_000;
const PER_SECOND: f64 = 500.0;
/// A rollout by evidence takes its time.
const LONG: Duration = Duration::from_secs(60);
/// Of a canary that fails always, at 10 %: the theory says 7, and what is under way when the breaker opens.
const FEW: usize = 20;

/// What is declared: a canary of `stable` that goes by evidence.
pub(super) fn declared(stable: &str, canary: &str) -> String {
    format!(
        "{SERVICE}: {{ stable: {{ version: {stable} }}, canary: {{ version: {canary}, \
         sessionAffinity: {{ hashOn: [ {{ header: X-User }} ] }}, \
         steps: [ {{ setWeight: 10 }}, {{ pause: {{ duration: 4s }} }}, {{ setWeight: 50 }}, {{ pause: {{ duration: 4s }} }} ], \
         analysis: {{ interval: 1s, minSamples: 300, metrics: [ {{ name: request-success-rate, maxDegradation: 2 }} ] }}, \
         breaker: {{}} }} }}"
    )
}

/// Tells the act on this edge; `others` is what else is declared there.
pub(super) async fn tell(
    engine: &Engine,
    network: &Network,
    edge: &Edge,
    others: &str,
    screen: &Screen,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let declare = |stable, canary| edge.declare(&format!("{{ {others}, {} }}", declared(stable, canary)));
    // Undeclared, all versions would share the requests, the bad one among them.
    declare("v1", "v2")?;
    let mut containers = Vec::new();
    for version in ["v1", "v2", "v3"] {
        let errors = if version == "v3" { "100" } else { "0" };
        containers.push(engine.run(backend(SERVICE, version).network(network).env("ERRORS", errors)).await?);
    }
    edge.healthy(&format!("{SERVICE}/v1"), 1).await?;
    edge.weighs(SERVICE, "v2", 1_000).await?;
    edge.answers(&host(SERVICE), 200).await?;

    let name = "a good canary";
    let load = load(edge);
    let began = Instant::now();
    screen.say(&format!("  {name}: 10 %, then 50 %, each for 4 s, and only if it is shown not to be worse"));
    phase(edge, "promoted").await?;
    let took = began.elapsed().as_secs_f64();
    let evidence = evidence(&last(edge, "promoted").await?);
    screen.say(&format!("  {name}: promoted after {took:.1} s: {evidence}"));
    let report = load.stop().await?;
    let promoted = !evidence.is_empty();
    rows.push(Row::new(name, "is promoted by evidence", "a verdict with its numbers", evidence, promoted));
    rows.push(failed(name, "no request fails", &report, 0));

    let name = "a bad canary";
    declare("v2", "v3")?;
    let load = self::load(edge);
    screen.say(&format!("  {name}: every answer of it fails"));
    phase(edge, "aborted").await?;
    let stopped = last(edge, "aborted").await?;
    let by = stopped["by"].as_str().unwrap_or_default().to_owned();
    screen.say(&format!("  {name}: stopped by the {by}: {}", stopped["reason"].as_str().unwrap_or_default()));
    let report = load.stop().await?;
    let users: BTreeSet<&str> = report.failures().filter_map(|sample| sample.key.as_deref()).collect();
    let seen = format!("{} of {USERS} users, {} of {} requests", users.len(), report.failed(), report.count());
    screen.say(&format!("  {name}: an error was seen by {seen}"));
    rows.push(Row::new(name, "is stopped by the filter", "breaker", by.clone(), by.starts_with("breaker")));
    rows.push(Row::new(
        name,
        "few users see an error",
        format!("{FEW} requests at most"),
        seen,
        report.failed() <= FEW,
    ));
    Ok(rows)
}

fn load(edge: &Edge) -> Running {
    let load = Load::get(edge.listener, &host(SERVICE), "/").rate(PER_SECOND, 16).requests(100_000);
    let load = load.duration(2 * LONG).asking(|n| {
        let user = format!("user-{}", n % USERS);
        Ask::get("/").header("x-user", &user).key(&user)
    });
    load.start()
}

fn failed(phase: &str, promise: &str, report: &Report, most: usize) -> Row {
    let (failed, all) = (report.failed(), report.count());
    Row::new(phase, promise, format!("{most} failed"), format!("{failed} of {all}"), failed <= most)
}

async fn phase(edge: &Edge, phase: &str) -> Result<()> {
    until(LONG.max(SOON), &format!("the canary to be {phase}"), async || {
        let rollout = &edge.cli().canary(SERVICE).await?["rollout"];
        ensure!(rollout["phase"] == phase, "it is {}: {}", rollout["phase"], rollout["reason"]);
        Ok(())
    })
    .await
}

/// The last event of this kind.
async fn last(edge: &Edge, what: &str) -> Result<Value> {
    let history = edge.cli().json(["canary", "history", SERVICE]).await?;
    let events = history["events"].as_array().context("no events")?;
    events.iter().rev().find(|event| event["what"] == what).cloned().with_context(|| format!("nothing was {what}"))
}

/// What a decision was made from, in its words.
fn evidence(event: &Value) -> String {
    let findings = event["evidence"]["findings"].as_array().into_iter().flatten();
    findings.filter_map(|finding| finding["reason"].as_str()).collect::<Vec<_>>().join("; ")
}
