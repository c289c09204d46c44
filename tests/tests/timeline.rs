//! `tidegate events`: what happened, why, and what the edges said of it. Real dockerd, two real Envoys.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{
    client::Request,
    edge::{Edge, backend, host},
    engine::Engine,
    poll::{SOON, until},
    process::Process,
    tidegate,
};

/// The parts of `WHAT (N ms)` in a line.
fn millis<'a>(line: &'a str, what: &str) -> Result<(u64, &'a str)> {
    let rest = line.split_once(&format!("{what} (")).with_context(|| format!("no {what} in {line:?}"))?.1;
    let (number, rest) = rest.split_once(" ms)").with_context(|| format!("no time of {what} in {line:?}"))?;
    Ok((number.parse()?, rest))
}

#[tokio::test]
async fn a_stop_is_followed_from_dockers_signal_to_the_edges_acknowledgement() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("told");
    let edge = Edge::start(&engine, "{}").await?;
    let two = edge.second_envoy().await?;
    let _other = engine.run(backend(&service, "v1")).await?;
    edge.answers(&host(&service), 200).await?;

    // Someone follows it from the beginning, with a pipe.
    let directory = tempfile::tempdir()?;
    let mut command = std::process::Command::new(tidegate::locate()?);
    command.args(["events", "--follow", &service]).env("TIDEGATE_API", edge.cli().api.context("an address")?);
    command.stdin(Stdio::null());
    let mut following = Process::spawn("events", &mut command, directory.path())?;

    let slow = backend(&service, "v1").env("TERM", "graceful").env("TERM_DELAY_MS", "1000");
    let container = engine.run(slow).await?;
    edge.healthy(&format!("{service}/v1"), 2).await?;
    until(SOON, "both edges to have it", async || {
        let endpoints = two.endpoints(&format!("{service}/v1")).await?.unwrap_or_default();
        ensure!(endpoints.len() == 2, "{}", endpoints.len());
        Ok(())
    })
    .await?;
    container.stop(Duration::from_secs(10)).await?;

    let cli = edge.cli();
    let line = until(SOON, "the line of the stop", async || {
        let shown = cli.run(["events", &container.name, "--since", "10m"]).await?.ok()?.stdout;
        let line = shown.lines().find(|line| line.contains("→ draining (") && line.contains("accepted by"));
        line.map(str::to_owned).with_context(|| shown.clone())
    })
    .await?;
    let id = &container.id[..12];
    let head = format!("  container {} ({id})  {service}/v1  docker kill SIGTERM → draining (", container.name);
    ensure!(line.contains(&head), "{line}");
    let (draining, rest) = millis(&line, "→ draining")?;
    let (accepted, rest) = millis(rest, " → accepted by 2 edges")?;
    ensure!(rest.is_empty() && draining <= accepted && accepted < 2_000, "{line}");

    // Its whole life, in order.
    let shown = cli.run(["events", id]).await?.ok()?.stdout;
    let mut rest = shown.as_str();
    for step in ["docker start → discovered", "check → ready", "docker kill SIGTERM → draining", "→ gone"] {
        rest = rest.split_once(step).with_context(|| format!("{step} is not in its place:\n{shown}"))?.1;
    }
    // As it was shown to who followed; and nobody else's.
    following
        .until(SOON, "the same line", async || {
            let shown = std::fs::read_to_string(directory.path().join("events.log"))?;
            ensure!(shown.contains(&line) && shown.contains("→ gone"), "{shown}");
            ensure!(shown.lines().all(|line| line.contains(&service)), "{shown}");
            Ok(())
        })
        .await?;
    // And where one asks why.
    let explained = cli.run(["explain", &container.name]).await?.stdout;
    let told = explained.split_once("what happened last:").with_context(|| explained.clone())?.1;
    ensure!(told.contains("docker kill SIGTERM → draining") && told.contains("accepted by 2 edges"), "{explained}");

    let unknown = cli.run(["events", "nobody-has-this-name"]).await?;
    ensure!(unknown.code == 1 && unknown.stderr.contains("there is no service, container or entry"), "{unknown:?}");
    Ok(())
}

#[tokio::test]
async fn lines_for_programs_are_versioned_and_a_query_that_cannot_be_is_refused() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("lines");
    let edge = Edge::start(&engine, "{}").await?;
    let container = engine.run(backend(&service, "v1")).await?;
    edge.answers(&host(&service), 200).await?;
    let cli = edge.cli();
    let lines = until(SOON, "the answer of the edge", async || {
        let shown = cli.run(["events", &service, "-o", "json"]).await?.ok()?.stdout;
        let lines: Vec<serde_json::Value> = shown.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(lines.iter().any(|line| line["what"] == "accepted"), "{shown}");
        Ok(lines)
    })
    .await?;
    ensure!(lines.iter().all(|line| line["apiVersion"] == "tidegate/v1"), "{lines:?}");
    let ready = lines.iter().find(|line| line["what"] == "ready").context("it is ready")?;
    assert_eq!(ready["containerId"], container.id[..12]);
    let accepted = lines.iter().find(|line| line["follows"] == ready["id"]).context("its acknowledgement")?;
    assert_eq!(accepted["edges"], serde_json::json!({ "accepted": 1, "of": 1 }));
    assert_eq!(accepted["sequence"], ready["sequence"]);

    let api = cli.api.clone().context("an address")?;
    for (query, reason) in [("after=x", "no number"), ("follow=maybe", "follow"), ("sicne=1", "sicne")] {
        let answer = Request::url(http::Method::GET, &format!("{api}/v1/events?{query}"))?.send().await?;
        ensure!(answer.status == 400 && answer.text().contains(reason), "{query}: {} {}", answer.status, answer.text());
    }
    Ok(())
}
