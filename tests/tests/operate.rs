//! What operators do at run time: drain a container, and wait for a deployment. Real Docker, real Envoy.

use std::fs;

use anyhow::{Context, Result, ensure};
use http::Method;
use tidegate_tests::{
    client::Request,
    edge::{Edge, backend, host},
    engine::Engine,
    load::Load,
    poll::{SOON, until},
};
use tokio::task::JoinSet;

#[tokio::test]
async fn a_drained_container_ends_what_it_has_and_gets_nothing_new_until_it_is_undrained() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("drain");
    let cluster = format!("{service}/v1");
    let edge = Edge::start(&engine, "{}").await?;
    let leaving = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&cluster, 1).await?;
    let id = leaving.id[..12].to_owned();

    let refused = edge.cli().run(["drain", &id]).await?;
    assert_eq!(refused.code, 1);
    let said = format!("is the last that takes requests of {cluster}\n  help: start another one first");
    assert!(refused.stderr.contains(&said), "{}", refused.stderr);

    // One request is under way there when it is drained.
    let (listener, slow_host) = (edge.listener, host(&service));
    let slow = async move { Request::get(listener, "/slow?ms=2000").host(&slow_host).send().await };
    let slow = JoinSet::from_iter([slow]);
    let active = format!("cluster.{cluster}.upstream_rq_active");
    until(SOON, "the slow request to arrive", async || {
        let active = edge.envoy.stat(&active).await?;
        ensure!(active == 1, "{active} active");
        Ok(())
    })
    .await?;
    let staying = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&cluster, 2).await?;
    let load = Load::get(edge.listener, &host(&service), "/").rate(100.0, 8).duration(10 * SOON).start();

    let short = edge.cli().run(["drain", &id, "--wait", "--timeout", "300ms"]).await?;
    assert_eq!(short.code, 1);
    assert!(short.stderr.contains("is not done after 300ms: 1 under way"), "{}", short.stderr);
    let drained = edge.cli().run(["drain", &id, "--wait", "--timeout", "20s"]).await?.ok()?;
    assert!(drained.stdout.contains("has nothing under way"), "{}", drained.stdout);
    let answer = slow.join_all().await.remove(0)?;
    assert_eq!(answer.status, 200, "what was under way has ended");
    edge.healthy(&cluster, 1).await?;
    let explained = edge.cli().run(["explain", &id]).await?;
    assert!(explained.stdout.contains("an operator drains it"), "{}", explained.stdout);
    let events = edge.cli().run(["events", &id]).await?.ok()?.stdout;
    assert!(events.contains("tidegate drain") && events.contains("draining"), "{events}");

    // A restart does not forget it.
    let edge = edge.restart_control_plane().await?;
    edge.cli().run(["deploy", "wait", &service, "--version", "v1", "--timeout", "20s"]).await?.ok()?;
    edge.healthy(&cluster, 1).await?;
    let report = Load::get(edge.listener, &host(&service), "/").requests(100).run().await?;
    report.all_succeeded()?;
    for sample in &report.samples {
        let by = sample.served_by.as_deref().unwrap_or_default();
        ensure!(by.ends_with(&staying.id[..12]), "answered by {by}");
    }

    edge.cli().run(["undrain", &id]).await?.ok()?;
    edge.healthy(&cluster, 2).await?;
    load.stop().await?.all_succeeded()
}

#[tokio::test]
async fn only_who_shows_the_token_changes_anything() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("token");
    let edge = Edge::start(&engine, "{}").await?;
    let (first, _second) = (engine.run(backend(&service, "v1")).await?, engine.run(backend(&service, "v1")).await?);
    edge.healthy(&format!("{service}/v1"), 2).await?;
    let ask = |token: &str| {
        let request = Request::post(edge.api(), "/v1/drain", format!("{{\"container\":\"{}\"}}", first.id));
        request.header("content-type", "application/json").header("authorization", token).send()
    };
    let refused = ask("Bearer 0").await?;
    assert_eq!(refused.status, 401, "{}", refused.text());
    edge.healthy(&format!("{service}/v1"), 2).await?;

    let file = edge.tidegate.directory().join("tidegate-state/api-token");
    let token = fs::read_to_string(&file)?;
    assert!(!edge.tidegate.process.log().contains(token.trim()), "it is in the log");
    let taken = ask(&format!("Bearer {}", token.trim())).await?;
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert!(taken.json()?["since"].is_u64(), "{}", taken.text());
    edge.healthy(&format!("{service}/v1"), 1).await?;
    let other = Request::new(Method::DELETE, edge.api(), "/v1/drain").send().await?;
    assert_eq!(other.status, 405);

    fs::remove_file(&file)?;
    let unreadable = edge.cli().run(["undrain", &first.id]).await?;
    assert_eq!(unreadable.code, 2);
    assert!(unreadable.stderr.contains("`--state-dir`"), "{}", unreadable.stderr);
    let unknown = edge.cli().run(["drain", "nobody", "--state-dir", "elsewhere"]).await?;
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
    Ok(())
}

#[tokio::test]
async fn a_deployment_is_waited_for_until_every_edge_has_it_or_with_what_is_missing() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("wait");
    let edge = Edge::start(&engine, "{}").await?;
    let wait = async |replicas: &str, timeout: &str| {
        let words = ["deploy", "wait", &service, "--version", "v2", "--replicas", replicas, "--timeout", timeout];
        edge.cli().run(words).await
    };
    let nobody = wait("1", "300ms").await?;
    assert_eq!(nobody.code, 1);
    assert!(nobody.stderr.contains(&format!("there is no service `{service}`")), "{}", nobody.stderr);

    let _old = engine.run(backend(&service, "v1")).await?;
    edge.answers(&host(&service), 200).await?;
    let late = engine.run(backend(&service, "v2").env("READY_AFTER_MS", "2000")).await?;
    let short = wait("1", "300ms").await?;
    assert_eq!(short.code, 1);
    let missing = [&format!("0 of 1 instance(s) of {service}/v2 are ready"), &late.id[..12], "HTTP 503"];
    for word in missing {
        assert!(short.stderr.contains(word), "no {word:?} in {}", short.stderr);
    }
    let done = wait("1", "20s").await?.ok()?;
    assert!(done.stdout.contains(&format!("{service}/v2: 1 ready, accepted by 1 edge(s)")), "{}", done.stdout);
    // What it says is in effect for whoever asks now.
    let versions = edge.envoy.endpoints(&format!("{service}/v2")).await?.context("its endpoints")?;
    assert!(versions.iter().any(|endpoint| endpoint.healthy), "{versions:?}");
    let more = wait("2", "500ms").await?;
    assert!(more.code == 1 && more.stderr.contains("1 of 2 instance(s)"), "{}", more.stderr);
    Ok(())
}
