//! Requests that wait at the edge for a ready instance: real Docker, real Envoy, the real filter.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use tidegate_tests::{
    client::{Answer, Request},
    edge::{Edge, backend, host},
    engine::{Container, Engine},
    load::{Ask, Load},
    poll::{SOON, until},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::Instant};

/// A service that has a container which does not run.
struct Stopped {
    edge: Edge,
    service: String,
    container: Container,
}

impl Stopped {
    async fn start(name: &str, hold: &str, services: &str) -> Result<Self> {
        let engine = Engine::connect().await?;
        let service = engine.unique(name);
        let edge = Edge::start(&engine, &services.replace("SERVICE", &service)).await?;
        let container = engine.run(backend(&service, "v1").label("tidegate.ready.hold", hold)).await?;
        edge.answers(&host(&service), 200).await?;
        container.stop(Duration::from_secs(1)).await?;
        edge.healthy(&format!("{service}/v1"), 0).await?;
        Ok(Self { edge, service, container })
    }

    fn get(&self) -> JoinSet<Result<(Answer, Duration)>> {
        let request = Request::get(self.edge.listener, "/").host(&host(&self.service)).timeout(SOON);
        let began = Instant::now();
        JoinSet::from_iter([async move { Ok((request.send().await?, began.elapsed())) }])
    }

    /// How many requests have waited, or wait, in all workers.
    async fn held(&self) -> Result<u64> {
        self.edge.envoy.stat(&format!("wasmcustom.tidegate.service.{}.held_total", self.service)).await
    }

    /// Waits until there are so many more.
    async fn parked(&self, before: u64, count: u64) -> Result<()> {
        until(SOON, &format!("{count} to wait"), async || {
            let held = self.held().await? - before;
            ensure!(held == count, "{held}");
            Ok(())
        })
        .await
    }
}

async fn only(mut asked: JoinSet<Result<(Answer, Duration)>>) -> Result<(Answer, Duration)> {
    asked.join_next().await.context("it was asked")??
}

#[tokio::test]
async fn a_client_that_comes_before_the_service_waits_for_it_and_gets_one_answer() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("first");
    let edge = Edge::start(&engine, "{}").await?;
    let spec = backend(&service, "v1").label("tidegate.ready.hold", "20s").env("READY_AFTER_MS", "3000");
    let container = engine.create(spec).await?;
    until(SOON, "the edge to know the service, which was never started", async || {
        let dump = edge.envoy.get("/config_dump").await?.text();
        ensure!(dump.contains("holdMs") && dump.contains(&host(&service)), "it does not know it");
        Ok(())
    })
    .await?;
    let world = Stopped { edge, service, container };
    let (before, asked) = (world.held().await?, world.get());
    world.parked(before, 1).await?;
    world.container.start().await?;
    let (answer, took) = only(asked).await?;
    assert_eq!((answer.status, answer.version()), (200, Some("v1")), "{}", answer.text());
    ensure!(took > Duration::from_secs(3), "it took {took:?}");
    Ok(())
}

#[tokio::test]
async fn a_body_that_waited_arrives_whole_and_a_client_that_left_is_forgotten() -> Result<()> {
    let world = Stopped::start("body", "20s", "{}").await?;
    let before = world.held().await?;
    let body = "tide".repeat(20_000);
    let post = Request::post(world.edge.listener, "/echo", body.clone()).host(&host(&world.service)).timeout(SOON);
    let posted = JoinSet::from_iter([async move { post.send().await }]);
    world.parked(before, 1).await?;
    let mut leaving = TcpStream::connect(world.edge.listener).await?;
    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(&world.service));
    leaving.write_all(head.as_bytes()).await?;
    world.parked(before, 2).await?;
    drop(leaving);
    let left = "http.web.downstream_rq_rx_reset";
    let active = "http.web.downstream_rq_active";
    until(SOON, "the client to be gone", async || {
        let active = world.edge.envoy.stat(active).await?;
        ensure!(active == 1, "{active} active, {} gone", world.edge.envoy.stat(left).await?);
        Ok(())
    })
    .await?;
    world.container.start().await?;
    let answer = posted.join_all().await.remove(0)?;
    assert_eq!(answer.status, 200);
    ensure!(answer.text().contains(&format!("{} bytes of body", body.len())), "{}", answer.text());
    world.edge.answers(&host(&world.service), 200).await?;
    Ok(())
}

#[tokio::test]
async fn who_waited_long_enough_is_told_why_though_the_control_plane_is_gone() -> Result<()> {
    let mut world = Stopped::start("late", "700ms", "{}").await?;
    world.edge.tidegate.process.kill()?;
    let (refused, took) = only(world.get()).await?;
    assert_eq!((refused.status, refused.header("x-tidegate-reason")), (503, Some("no-ready-instance")));
    assert_eq!(refused.header("retry-after"), Some("1"));
    ensure!(took >= Duration::from_millis(600), "it took {took:?}");
    // Where it does not hold any more, nobody waits.
    let world = Stopped { edge: world.edge.restart_control_plane().await?, ..world };
    let (before, asked) = (world.held().await?, world.get());
    world.parked(before, 1).await?;
    world.edge.declare(&format!("{{ {}: {{ hold: 10ms }} }}", world.service))?;
    assert_eq!(only(asked).await?.0.status, 503);
    Ok(())
}

#[tokio::test]
async fn hundreds_that_wait_are_all_answered_and_a_sticky_canary_keeps_its_clients() -> Result<()> {
    let services = "{ SERVICE: { stable: { version: v1 }, canary: { version: v2, weight: 50, \
                    sessionAffinity: { hashOn: [ { header: X-User } ] } } } }";
    let world = Stopped::start("many", "30s", services).await?;
    let before = world.held().await?;
    let load = Load::get(world.edge.listener, &host(&world.service), "/").closed(400).requests(400).timeout(SOON);
    let load = load.asking(|n| Ask::get("/").header("x-user", &format!("key-{n}"))).start();
    world.parked(before, 400).await?;
    world.container.start().await?;
    let report = load.wait().await?;
    report.all_succeeded()?;
    let versions = report.samples.iter().filter_map(|sample| sample.served_by.as_deref());
    ensure!(versions.count() == 400, "{report}");
    // Their buckets were given when they went on.
    let bucketed = format!("wasmcustom.tidegate.service.{}.bucketed_total", world.service);
    ensure!(world.edge.envoy.stat(&bucketed).await? >= 400, "{report}");
    let posts = Load::get(world.edge.listener, &host(&world.service), "/").requests(20);
    posts.asking(|_| Ask { method: Method::POST, ..Ask::get("/") }).run().await?.all_succeeded()
}
