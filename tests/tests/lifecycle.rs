//! Containers are followed through their lives: real dockerd, real Envoy. Asserted on what a client sees.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidegate_tests::{
    client::Request,
    edge::{Edge, backend, host},
    engine::{Container, Engine},
    load::{Ask, Load, Report},
    poll::{SOON, until},
};

#[tokio::test]
async fn a_container_is_followed_from_start_to_removal() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("life");
    let network = engine.network("life").await?;
    let edge = Edge::start(&engine, "{}").await?;
    let host = host(&service);
    assert_eq!(edge.get(&host).await?.status, 404, "nobody has the host yet");

    let container = engine.run(backend(&service, "v1").network(&network)).await?;
    edge.answers(&host, 200).await?;

    container.pause().await?;
    let refused = edge.answers(&host, 503).await?;
    assert_eq!(refused.header("x-tidegate-reason"), Some("no-ready-instance"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    container.unpause().await?;
    edge.answers(&host, 200).await?;

    container.restart(Duration::from_secs(5)).await?;
    edge.answers(&host, 200).await?;

    network.disconnect(&container).await?;
    edge.answers(&host, 503).await?;
    network.connect(&container).await?;
    edge.answers(&host, 200).await?;

    container.stop(Duration::from_secs(5)).await?;
    edge.answers(&host, 503).await?;
    container.start().await?;
    edge.answers(&host, 200).await?;

    container.kill("SIGHUP").await?;
    assert_eq!(edge.answers(&host, 200).await?.version(), Some("v1"), "a signal that does not end it changes nothing");
    container.kill("SIGKILL").await?;
    edge.answers(&host, 503).await?;
    container.remove().await?;
    edge.answers(&host, 404).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_routed_before_it_is_ready() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("ready");
    let edge = Edge::start(&engine, "{}").await?;
    let first = engine.run(backend(&service, "v1")).await?;
    edge.answers(&host(&service), 200).await?;

    let late = engine.run(backend(&service, "v2").env("READY_AFTER_MS", "3000")).await?;
    let mut judged = 0;
    loop {
        let report = served(&edge, &service, 200).await?;
        // On a busy machine it may give no answer at all, which tells nothing of the requests before.
        match late.get("/ready").await.map(|answer| answer.status) {
            Ok(200) => break,
            Ok(_) => only_by(&report, &first)?,
            Err(_) => continue,
        }
        judged += 1;
    }
    ensure!(judged > 0, "it was ready before it was looked at");
    until(SOON, "an answer of the late one", async || {
        let version = edge.get(&host(&service)).await?.version().map(ToOwned::to_owned);
        ensure!(version.as_deref() == Some("v2"), "{version:?}");
        Ok(())
    })
    .await?;

    late.control("ready=false").await?;
    edge.healthy(&format!("{service}/v2"), 0).await?;
    only_by(&served(&edge, &service, 500).await?, &first)
}

async fn served(edge: &Edge, service: &str, requests: u64) -> Result<Report> {
    let report = Load::get(edge.listener, &host(service), "/").closed(4).requests(requests).run().await?;
    report.all_succeeded()?;
    Ok(report)
}

fn only_by(report: &Report, container: &Container) -> Result<()> {
    for sample in &report.samples {
        let by = sample.served_by.as_deref().unwrap_or_default();
        ensure!(by.ends_with(&container.id[..12]), "answered by {by}");
    }
    Ok(())
}

#[tokio::test]
async fn docker_healthcheck_is_a_second_input() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("hc");
    let edge = Edge::start(&engine, "{}").await?;
    let spec = backend(&service, "v1").healthcheck(Duration::from_millis(300));
    let container = engine.run(spec).await?;
    edge.answers(&host(&service), 200).await?;
    // `/ready`, which tidegate checks, stays true; only Docker's HEALTHCHECK turns.
    container.control("health=false").await?;
    edge.answers(&host(&service), 503).await?;
    container.control("health=true").await?;
    edge.answers(&host(&service), 200).await?;
    Ok(())
}

#[tokio::test]
async fn one_of_two_replicas_killed_under_load_costs_no_get() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("kill");
    let edge = Edge::start(&engine, "{}").await?;
    let first = engine.run(backend(&service, "v1")).await?;
    let second = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&format!("{service}/v1"), 2).await?;

    let load = Load::get(edge.listener, &host(&service), "/").rate(400.0, 16).requests(2_000).start();
    until(SOON, "a quarter of the load", async || {
        ensure!(load.done() > 500, "{}", load.done());
        Ok(())
    })
    .await?;
    second.kill("SIGKILL").await?;
    edge.healthy(&format!("{service}/v1"), 1).await?;
    let report = load.wait().await?;
    report.all_succeeded()?;
    let survivor = format!("v1/{}", &first.id[..12]);
    let last = report.samples.last().and_then(|sample| sample.served_by.clone());
    assert_eq!(last, Some(survivor));
    Ok(())
}

#[tokio::test]
async fn stopping_a_replica_lets_requests_in_flight_finish() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("drain");
    let edge = Edge::start(&engine, "{}").await?;
    let graceful = backend(&service, "v1").env("TERM", "graceful").env("TERM_DELAY_MS", "300");
    let stopping = engine.run(graceful).await?;
    edge.healthy(&format!("{service}/v1"), 1).await?;
    let listener = edge.listener;
    let slow_host = host(&service);
    let slow = async move { Request::get(listener, "/slow?ms=1500").host(&slow_host).send().await };
    let slow = tokio::task::JoinSet::from_iter([slow]);
    until(SOON, "the slow request to arrive", async || {
        let active = edge.envoy.stat(&format!("cluster.{service}/v1.upstream_rq_active")).await?;
        ensure!(active == 1, "{active} active");
        Ok(())
    })
    .await?;
    let _other = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&format!("{service}/v1"), 2).await?;
    stopping.stop(Duration::from_secs(10)).await?;
    let answer = slow.join_all().await.remove(0)?;
    assert_eq!((answer.status, answer.version()), (200, Some("v1")));
    Ok(())
}

#[tokio::test]
async fn replacing_every_replica_costs_no_get_however_the_old_ones_take_sigterm() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("deploy");
    let cluster = format!("{service}/v1");
    let edge = Edge::start(&engine, "{}").await?;
    // At once, after a while, and not at all: then Docker kills it.
    let spec = |number: usize| {
        let of_kind = |term: &str| backend(&service, "v1").env("TERM", term);
        match number % 3 {
            0 => of_kind("now"),
            1 => of_kind("graceful").env("TERM_DELAY_MS", "500"),
            _ => of_kind("ignore"),
        }
    };
    let mut replicas = Vec::new();
    for number in 0..3 {
        replicas.push(engine.run(spec(number)).await?);
    }
    edge.healthy(&cluster, 3).await?;
    let load = Load::get(edge.listener, &host(&service), "/").rate(200.0, 16).duration(20 * SOON).start();
    for number in 0..6 {
        replicas.push(engine.run(spec(number)).await?);
        edge.healthy(&cluster, 4).await?;
        let old = replicas.remove(0);
        old.stop(Duration::from_secs(1)).await?;
        old.remove().await?;
        edge.healthy(&cluster, 3).await?;
    }
    let report = load.stop().await?;
    ensure!(report.count() > 500, "it was hardly asked: {report}");
    report.all_succeeded()
}

#[tokio::test]
async fn the_control_plane_killed_and_back_costs_no_request_and_no_endpoint() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("crash");
    let cluster = format!("{service}/v1");
    let edge = Edge::start(&engine, "{}").await?;
    let _first = engine.run(backend(&service, "v1")).await?;
    let second = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&cluster, 2).await?;

    let load = Load::get(edge.listener, &host(&service), "/").rate(400.0, 16).requests(4_000).duration(SOON).start();
    let updates = |name: &str| format!("cluster.{cluster}.{name}");
    let before = edge.envoy.stat(&updates("membership_change")).await?;
    let edge = edge.restart_control_plane().await?;
    until(SOON, "the edge to be connected again", async || {
        let connected = edge.envoy.stat("control_plane.connected_state").await?;
        ensure!(connected == 1, "{connected}");
        let ready =
            Request::url(http::Method::GET, &format!("{}/readyz", edge.cli().api.unwrap_or_default()))?.send().await?;
        ensure!(ready.status == 200, "{}", ready.status);
        Ok(())
    })
    .await?;
    assert_eq!(edge.envoy.stat(&updates("membership_healthy")).await?, 2);
    assert_eq!(edge.envoy.stat(&updates("membership_change")).await?, before, "nobody came or went");
    // And the new process is in charge.
    second.kill("SIGKILL").await?;
    edge.healthy(&cluster, 1).await?;
    load.wait().await?.all_succeeded()
}

#[tokio::test]
async fn upgrades_pass_and_other_methods_arrive_once() -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let engine = Engine::connect().await?;
    let service = engine.unique("upgrade");
    let edge = Edge::start(&engine, "{}").await?;
    let _container = engine.run(backend(&service, "v1")).await?;
    edge.answers(&host(&service), 200).await?;

    let mut socket = tokio::net::TcpStream::connect(edge.listener).await?;
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        host(&service)
    );
    socket.write_all(handshake.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
    socket.write_all(b"tide").await?;
    let mut echo = [0; 4];
    socket.read_exact(&mut echo).await?;
    assert_eq!(&echo, b"tide");

    let posts = Load::get(edge.listener, &host(&service), "/").closed(2).requests(100);
    posts.asking(|_| Ask { method: http::Method::POST, ..Ask::get("/") }).run().await?.all_succeeded()
}

#[tokio::test]
async fn a_signal_that_ends_nothing_changes_no_endpoint() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("hup");
    let edge = Edge::start(&engine, "{}").await?;
    let container = engine.run(backend(&service, "v1")).await?;
    let other = engine.run(backend(&service, "v2")).await?;
    for version in ["v1", "v2"] {
        edge.healthy(&format!("{service}/{version}"), 1).await?;
    }
    let changes = format!("cluster.{service}/v1.update_success");
    let before = edge.envoy.stat(&changes).await?;
    for signal in ["SIGHUP", "SIGWINCH"] {
        container.kill(signal).await?;
    }
    // What is told of later has been heard later.
    other.kill("SIGTERM").await?;
    edge.healthy(&format!("{service}/v2"), 0).await?;
    assert_eq!(edge.envoy.stat(&changes).await?, before, "updates of its endpoints");
    edge.healthy(&format!("{service}/v1"), 1).await
}

#[tokio::test]
async fn a_paused_replica_costs_no_get_and_is_back_when_it_passes_its_check_again() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("pause");
    let cluster = format!("{service}/v1");
    let edge = Edge::start(&engine, "{}").await?;
    let spec = || backend(&service, "v1").label("tidegate.timeout", "1s");
    let (_staying, paused) = (engine.run(spec()).await?, engine.run(spec()).await?);
    edge.healthy(&cluster, 2).await?;
    let load = Load::get(edge.listener, &host(&service), "/slow?ms=50").rate(100.0, 16).duration(10 * SOON).start();
    let more = async |load: &tidegate_tests::load::Running, what: &str| {
        let enough = load.done() + 150;
        until(SOON, what, async || {
            ensure!(load.done() > enough, "{}", load.done());
            Ok(())
        })
        .await
    };
    more(&load, "some load before").await?;
    paused.pause().await?;
    edge.healthy(&cluster, 1).await?;
    // Longer than an answer may take to begin.
    more(&load, "some load meanwhile").await?;
    paused.unpause().await?;
    edge.healthy(&cluster, 2).await?;
    more(&load, "some load after").await?;
    load.stop().await?.all_succeeded()
}

#[tokio::test]
async fn a_replica_that_runs_out_of_memory_costs_no_get_and_the_reason_is_said() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("oom");
    let cluster = format!("{service}/v1");
    let edge = Edge::start(&engine, "{}").await?;
    let spec = || backend(&service, "v1");
    let small = spec().host_config(|config| {
        (config.memory, config.memory_swap) = (Some(16 << 20), Some(16 << 20));
    });
    let (_staying, small) = (engine.run(spec()).await?, engine.run(small).await?);
    edge.healthy(&cluster, 2).await?;
    let load = Load::get(edge.listener, &host(&service), "/").rate(200.0, 16).duration(10 * SOON).start();
    // It does not live to answer.
    let eaten = Request::post(small.address().await?, "/control?eat_mib=64", "").send().await;
    ensure!(eaten.is_err(), "it has eaten more than it has");
    edge.healthy(&cluster, 1).await?;
    until(SOON, "the reason", async || {
        let explained = edge.cli().run(["explain", &small.id[..12]]).await?.stdout;
        ensure!(explained.contains("exited with 137, out of memory"), "{explained}");
        Ok(())
    })
    .await?;
    load.stop().await?.all_succeeded()
}
