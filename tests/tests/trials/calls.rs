//! What the filter asks Envoy for, request by request: each call costs about a microsecond, so each one is meant.

use anyhow::{Result, ensure};
use tidegate_tests::{
    edge::{Edge, backend, host},
    engine::Engine,
    envoy::Options,
    poll::{SOON, until},
};

use crate::{BY_USER, Trial, declared};

/// The calls of one `GET /`, in order and without their arguments. Ticks call, too, but nothing that a request does.
async fn calls(trial: &Trial, headers: &[(&str, &str)]) -> Result<Vec<String>> {
    let log = || trial.edge.envoy.process.log();
    let before = log().len();
    let ask = headers.iter().fold(trial.get("/"), |ask, (name, value)| ask.header(name, value));
    ensure!(ask.send().await?.status == 200);
    until(SOON, "the whole request in Envoy's log", async || {
        let log = log();
        let said = &log[before..];
        ensure!(said.contains("[host->vm] proxy_on_delete"), "not yet");
        // One thread has the request: what others say meanwhile is their ticks'.
        let mut calls = Vec::new();
        let begun = said.lines().find(|line| line.contains("[host->vm] proxy_on_request_headers"));
        let thread = begun.and_then(thread).unwrap_or_default();
        let mut in_request = false;
        for line in said.lines().filter(|line| self::thread(line) == Some(thread)) {
            // Within one, the host asks for memory, too.
            in_request |= line.contains("[host->vm] proxy_on_re");
            in_request &= !line.contains("[host<-vm] proxy_on_re");
            if let Some((_, call)) = line.split_once("[vm->host] ")
                && in_request
            {
                let (name, _) = call.split_once('(').unwrap_or((call, ""));
                calls.extend(name.rsplit('.').next().map(ToOwned::to_owned));
            }
        }
        Ok(calls)
    })
    .await
}

/// `[TIME][THREAD][LEVEL]…`
fn thread(line: &str) -> Option<&str> {
    line.split_once("][")?.1.split_once(']').map(|(thread, _)| thread)
}

#[tokio::test]
async fn a_request_costs_the_calls_that_it_must() -> Result<()> {
    const ROUTE: &str = "proxy_get_property";
    const READ: &str = "proxy_get_header_map_value";
    const SET: &str = "proxy_replace_header_map_value";
    const COUNT: &str = "proxy_increment_metric";
    const TIME: &str = "proxy_get_current_time_nanoseconds";

    let trial = traced("calls", &format!("weight: 10, {BY_USER}")).await?;
    let (stable, canary) = ("key-0".to_owned(), trial.canarys(1, 1_000).remove(0));
    let stable = if trial.is_canarys(&stable, 1_000) { "key-1".to_owned() } else { stable };
    // Nobody judges the answer, and nothing is asked for when it comes.
    let sticky = [ROUTE, READ, SET, COUNT];
    for key in [&stable, &canary] {
        ensure!(
            calls(&trial, &[("x-user", key)]).await? == sticky,
            "sticky: {:?}",
            calls(&trial, &[("x-user", key)]).await?
        );
    }

    trial.declare(&format!("weight: 10, {BY_USER}, match: {{ header: {{ name: X-Canary }} }}, breaker: {{}}"))?;
    until(SOON, "the breaker's policy", async || {
        let seen = calls(&trial, &[("x-user", &stable)]).await?;
        ensure!(seen == [ROUTE, READ, SET, COUNT, TIME, READ, COUNT, READ, TIME], "stable: {seen:?}");
        Ok(())
    })
    .await?;
    let seen = calls(&trial, &[("x-user", &canary)]).await?;
    let shared = ["proxy_get_shared_data", "proxy_set_shared_data"];
    let expected = [&[ROUTE, READ, SET, COUNT, TIME, READ, COUNT, READ, TIME][..], &shared].concat();
    ensure!(seen == expected, "canary: {seen:?}");
    // Who chooses costs nothing, for the filter is off there.
    let contexts = || trial.edge.envoy.process.log().matches("[host->vm] proxy_on_context_create").count();
    let before = contexts();
    ensure!(trial.with("x-canary", "always").await?.version() == Some("v2"));
    ensure!(contexts() == before, "a wasm context was made");
    Ok(())
}

/// A trial whose Envoy logs each call.
async fn traced(name: &str, canary: &str) -> Result<Trial> {
    let engine = Engine::connect().await?;
    let service = engine.unique(name);
    let arguments = ["--component-log-level", "wasm:trace"].map(ToOwned::to_owned).to_vec();
    let options = Options { concurrency: 1, arguments, ..Options::default() };
    let edge = Edge::start_told(&engine, &declared(&service, canary), &[], options).await?;
    let (_stable, canary) = (engine.run(backend(&service, "v1")).await?, engine.run(backend(&service, "v2")).await?);
    let trial = Trial { edge, engine, service, _stable, canary };
    for version in ["v1", "v2"] {
        trial.edge.healthy(&trial.cluster(version), 1).await?;
    }
    trial.weighs(1_000).await?;
    trial.edge.answers(&host(&trial.service), 200).await?;
    Ok(trial)
}
