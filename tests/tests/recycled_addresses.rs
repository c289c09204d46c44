//! An address goes from one service to another: real dockerd, which has one address to give away, and real Envoys.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidegate_tests::{
    edge::{Edge, backend, host},
    engine::{Container, Engine, Network},
    load::{Load, Report},
    poll::{SOON, until},
};

/// Two services that take turns at one address.
struct Turns {
    edge: Edge,
    network: Network,
    engine: Engine,
}

impl Turns {
    async fn start(name: &str) -> Result<Self> {
        let engine = Engine::connect().await?;
        let network = engine.network_of_one(name).await?;
        Ok(Self { edge: Edge::start(&engine, "{}").await?, network, engine })
    }

    /// A container that says of itself that it is of this service, as its version.
    async fn next(&self, service: &str) -> Result<Container> {
        let spec = backend(service, service).network(&self.network);
        self.engine.create(spec).await
    }

    /// The address goes to `next` as soon as it is free.
    async fn hand_over(&self, last: &Container, next: &Container) -> Result<()> {
        last.kill("SIGKILL").await?;
        until(SOON, "the address to be free", async || next.start().await).await
    }

    async fn events(&self, container: &Container) -> Result<Vec<Value>> {
        let output = self.edge.cli().run(["events", &container.name, "-o", "json"]).await?.ok()?;
        output.stdout.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
    }
}

/// When a container was first seen to be this.
fn at(events: &[Value], what: &str) -> Option<u64> {
    events.iter().find(|event| event["what"] == what).and_then(|event| event["at"].as_u64())
}

/// Only `service` answered, whenever anybody did.
fn only(report: &Report, service: &str) -> Result<()> {
    let strangers: Vec<_> = report.by_version().into_iter().filter(|(version, _)| version != service).collect();
    ensure!(strangers.is_empty(), "requests for {service} were answered by {strangers:?}: {report}");
    Ok(())
}

#[tokio::test]
async fn no_request_for_a_service_is_answered_by_who_has_its_address_now() -> Result<()> {
    let turns = Turns::start("turns").await?;
    let (left, right) = (turns.engine.unique("left"), turns.engine.unique("right"));
    let mut last = turns.next(&left).await?;
    last.start().await?;
    turns.edge.answers(&host(&left), 200).await?;
    let address = last.address().await?;
    let load =
        |service: &str| Load::get(turns.edge.listener, &host(service), "/").rate(150.0, 8).duration(4 * SOON).start();
    let loads = [load(&left), load(&right)];
    let mut handed_over = 0;
    while handed_over < 4 || loads.iter().any(|load| load.done() < 2_000) {
        let (service, other) = if handed_over % 2 == 0 { (&right, &left) } else { (&left, &right) };
        let next = turns.next(service).await?;
        turns.hand_over(&last, &next).await?;
        assert_eq!(next.address().await?, address, "the network has no other");
        turns.edge.answers(&host(service), 200).await?;
        let status = turns.edge.get(&host(other)).await?.status;
        assert_eq!(status, 503, "{other} has nothing");
        last.remove().await?;
        last = next;
        handed_over += 1;
    }
    for (load, service) in loads.into_iter().zip([&left, &right]) {
        let report = load.stop().await?;
        ensure!(report.count() >= 2_000, "{report}");
        ensure!(report.by_version().contains_key(service), "{report}");
        only(&report, service)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_newcomer_at_an_old_address_waits_for_an_edge_that_is_silent_and_not_for_long() -> Result<()> {
    let turns = Turns::start("silent").await?;
    let (left, right) = (turns.engine.unique("old"), turns.engine.unique("new"));
    let two = turns.edge.second_envoy().await?;
    let first = turns.next(&left).await?;
    first.start().await?;
    turns.edge.answers(&host(&left), 200).await?;

    // While both edges answer, the newcomer waits for nothing that a client would notice.
    let second = turns.next(&right).await?;
    turns.hand_over(&first, &second).await?;
    turns.edge.answers(&host(&right), 200).await?;
    let events = turns.events(&second).await?;
    if let (Some(held), Some(ready)) = (at(&events, "heldBack"), at(&events, "ready")) {
        ensure!(ready - held < 1_500, "held back for {} ms by edges that answer: {events:?}", ready - held);
    }

    two.process.freeze().await?;
    let third = turns.next(&left).await?;
    turns.hand_over(&second, &third).await?;
    let seen = until(SOON, "the hold-back", async || {
        let shown = turns.edge.cli().run(["ps"]).await?.ok()?.stdout;
        ensure!(shown.contains("is held back for"), "{shown}");
        turns.edge.cli().json(["explain", &third.name]).await
    })
    .await?;
    let stages = seen["parts"][0]["stages"].as_array().context("stages")?;
    let stage = stages.iter().find(|stage| stage["name"] == "hold-back").with_context(|| format!("{seen}"))?;
    let detail = stage["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains(&format!("was that of {right}/{right}")), "{detail}");
    // Not asked by a request: both edges listen at one port, and the kernel gives some connections to the silent one.
    turns.edge.healthy(&format!("{left}/{left}"), 1).await?;
    let events = turns.events(&third).await?;
    let (held, ready) = (at(&events, "heldBack"), at(&events, "ready"));
    let (held, ready) = held.zip(ready).with_context(|| format!("{events:?}"))?;
    let event = events.iter().find(|event| event["what"] == "heldBack").context("it was held back")?;
    ensure!(ready >= event["until"].as_u64().unwrap_or(u64::MAX), "it did not wait to the end: {events:?}");
    ensure!(ready - held < 4_000, "it waited {} ms: {events:?}", ready - held);

    // Who is not connected is not waited for.
    drop(two);
    until(SOON, "one edge", async || {
        let edges = turns.edge.cli().json(["envoy", "ls"]).await?["edges"].as_array().map_or(0, Vec::len);
        ensure!(edges == 1, "{edges}");
        Ok(())
    })
    .await?;
    let fourth = turns.next(&right).await?;
    turns.hand_over(&third, &fourth).await?;
    turns.edge.answers(&host(&right), 200).await?;
    let events = turns.events(&fourth).await?;
    let (held, ready) = (at(&events, "heldBack"), at(&events, "ready").context("it is ready")?);
    ensure!(held.is_none_or(|held| ready - held < 1_500), "{events:?}");
    Ok(())
}
