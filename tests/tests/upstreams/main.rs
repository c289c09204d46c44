//! How an edge speaks to instances, and what it does about those that do not answer: a real Envoy, files of instances, backends on
//! loopback and beyond a cable that is cut.

mod server;

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tidegate_tests::{
    client::Request,
    edge::{Edge, Local, host},
    load::{Ask, Load},
    namespace::Namespace,
    poll::{SOON, outage, until},
};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};

use self::server::{Authority, Upstream, Wire};

/// An edge over these entries; they are gone with the directory.
async fn edge_over(entries: &str, services: &str) -> Result<(Edge, TempDir)> {
    let files = tempfile::tempdir()?;
    fs::write(files.path().join("instances.yaml"), entries)?;
    Ok((Edge::on_files(files.path(), services).await?, files))
}

/// Checked so rarely that Envoy is alone with it.
fn entry(local: &Local, service: &str) -> String {
    local.entry(service, "v1").replace("200ms", "60s")
}

#[tokio::test]
async fn a_host_that_falls_silent_is_left_by_envoy_itself_and_costs_no_request() -> Result<()> {
    let namespace = Namespace::create()?;
    let (near, far) = (Local::start("shop", "v1").await?, Local::start_in(&namespace, "shop", "v1").await?);
    let files = tempfile::tempdir()?;
    fs::write(files.path().join("shop.yaml"), entry(&near, "shop") + &entry(&far, "shop"))?;
    let edge = Edge::on_files(files.path(), "{}").await?;
    edge.healthy("shop/v1", 2).await?;

    // So many at once that the host that answers is always the busier one, to which least-request does not turn.
    let load =
        Load::get(edge.listener, &host("shop"), "/slow?ms=20").closed(64).duration(Duration::from_secs(5)).start();
    until(SOON, "some answers", async || {
        ensure!(load.done() > 100, "{}", load.done());
        Ok(())
    })
    .await?;
    namespace.cut()?;
    edge.healthy("shop/v1", 1).await?;
    let report = load.wait().await?;
    ensure!(report.count() > 1_000, "it was hardly asked: {report}");
    report.all_succeeded()?;
    let load = Load::get(edge.listener, &host("shop"), "/").rate(200.0, 16).duration(outage(Duration::from_secs(1))?);
    load.run().await?.all_succeeded()
}

/// With checks as they are by default, every 2 s.
#[tokio::test]
async fn a_network_that_loses_packets_costs_no_get_and_hardly_a_flip() -> Result<()> {
    let namespace = Namespace::create()?;
    let (near, far) = (Local::start("shop", "v1").await?, Local::start_in(&namespace, "shop", "v1").await?);
    let entries = [&near, &far].map(|local| local.entry("shop", "v1").replace("200ms", "2s")).concat();
    let (edge, _files) = edge_over(&entries, "{}").await?;
    edge.healthy("shop/v1", 2).await?;
    namespace.degrade()?;
    let long = outage(Duration::from_secs(30))?;
    let load = Load::get(edge.listener, &host("shop"), "/").rate(20.0, 16).duration(long);
    let report = load.timeout(SOON).run().await?;
    report.all_succeeded()?;
    let events =
        edge.cli().run(["events", "shop", "--since", &format!("{}s", long.as_secs() + 30)]).await?.ok()?.stdout;
    let fell =
        events.lines().filter(|line| line.contains("not ready") && line.contains(&far.address.to_string())).count();
    let allowed = usize::try_from(long.as_secs().div_ceil(60))?;
    ensure!(fell <= allowed, "it fell {fell} times within {long:?}:\n{events}");
    Ok(())
}

#[tokio::test]
async fn each_service_is_spoken_to_in_its_own_protocol() -> Result<()> {
    let plain = Local::start("plain", "v1").await?;
    let h2c = Upstream::start(Wire::H2c).await?;
    let both = Upstream::start(Wire::Tls(&["h2", "http/1.1"])).await?;
    let old = Upstream::start(Wire::Tls(&["http/1.1"])).await?;
    let entries = [
        plain.entry("plain", "v1"),
        h2c.entry("h2c", "protocol: h2c"),
        both.entry("both", "protocol: https"),
        old.entry("old", "protocol: https"),
    ];
    let (edge, _files) = edge_over(&entries.concat(), "{}").await?;
    edge.answers("plain.localhost", 200).await?;
    for (host, spoken) in [("h2c.localhost", "h2"), ("both.localhost", "h2"), ("old.localhost", "http1")] {
        let answer = edge.answers(host, 200).await?;
        assert_eq!(answer.header("x-spoken"), Some(spoken), "{host}");
    }
    let explained = edge.cli().run(["explain", "both"]).await?.ok()?.stdout;
    assert!(explained.contains("https; an answer may take its time"), "{explained}");
    Ok(())
}

/// What the check does not look at, Envoy does, and the other way round.
#[tokio::test]
async fn whom_the_operators_authority_did_not_certify_gets_no_request_and_no_check_passes() -> Result<()> {
    const SKIP: &str = "type: https, path: /, tls: skip, interval: 200ms";
    const VERIFY: &str = "type: https, path: /, interval: 200ms";
    let (ours, theirs) = (Authority::new()?, Authority::new()?);
    let right = Upstream::start(Wire::Certified(ours.sign("shop.internal")?)).await?;
    let forged = Upstream::start(Wire::Certified(theirs.sign("shop.internal")?)).await?;
    let renamed = Upstream::start(Wire::Certified(ours.sign("cart.internal")?)).await?;
    let entries = [
        right.checked("right", "protocol: https", VERIFY),
        forged.checked("forged", "protocol: https", SKIP),
        renamed.checked("renamed", "protocol: https", SKIP),
        forged.checked("refused", "protocol: https", VERIFY),
    ];
    let directory = tempfile::tempdir()?;
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, &ours.pem)?;
    let declared = ["right", "forged", "renamed", "refused"]
        .map(|service| format!("{service}: {{ tls: {{ ca: \"{}\", serverName: shop.internal }} }}", ca.display()));
    let (edge, _files) = edge_over(&entries.concat(), &format!("{{ {} }}", declared.join(", "))).await?;
    edge.answers(&host("right"), 200).await?;
    for (service, counted) in [("forged", "fail_verify_error"), ("renamed", "fail_verify_san")] {
        edge.healthy(&format!("{service}/default"), 1).await?;
        edge.answers(&host(service), 503).await?;
        let refused = edge.envoy.stat(&format!("cluster.{service}/default.ssl.{counted}")).await?;
        ensure!(refused > 0, "Envoy counts nothing as {counted} of {service}");
    }
    until(SOON, "what is said of it", async || {
        let explained = edge.cli().run(["explain", "refused"]).await?.stdout;
        ensure!(explained.contains("(issuer), and no authority of "), "{explained}");
        Ok(())
    })
    .await?;
    edge.answers(&host("refused"), 503).await?;

    // What cannot be used changes nothing and is told of; what can is in force soon, in Envoy as in the checks.
    fs::write(&ca, "no PEM")?;
    until(SOON, "the problem", async || {
        let status = edge.cli().run(["status"]).await?.stdout;
        ensure!(status.contains("TG0505") && status.contains("it holds no certificate"), "{status}");
        Ok(())
    })
    .await?;
    edge.answers(&host("right"), 200).await?;
    fs::write(&ca, &theirs.pem)?;
    edge.answers(&host("forged"), 200).await?;
    edge.answers(&host("refused"), 200).await?;
    edge.answers(&host("right"), 503).await?;
    Ok(())
}

/// A server says how many streams it allows when the first are open already.
#[tokio::test]
async fn a_burst_over_new_connections_is_no_more_than_a_server_allows() -> Result<()> {
    let upstream = Upstream::start(Wire::H2c).await?;
    let (edge, _files) = edge_over(&upstream.entry("burst", "protocol: h2c"), "{}").await?;
    edge.healthy("burst/default", 1).await?;
    let load = Load::get(edge.listener, &host("burst"), "/stream").closed(600).requests(600).timeout(SOON);
    load.run().await?.all_succeeded()
}

/// What came of one gRPC call: its status, from the trailers or the head, and how long it took.
async fn call(edge: &Edge, host: &str, path: &str, deadline: &str) -> Result<(String, Duration)> {
    let began = Instant::now();
    let stream = TcpStream::connect(edge.listener).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let request = http::Request::post(format!("http://{host}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", deadline)
        .body(Empty::<Bytes>::new())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = body.collect().await?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).or(head.headers.get("grpc-status"));
    let status = status.context("it has no status")?.to_str()?.to_owned();
    Ok((status, began.elapsed()))
}

#[tokio::test]
async fn grpc_keeps_its_trailers_its_streams_and_its_clients_deadlines() -> Result<()> {
    let upstream = Upstream::start(Wire::H2c).await?;
    let (edge, _files) = edge_over(&upstream.entry("rpc", "protocol: grpc, timeout: 500ms"), "{}").await?;
    edge.answers("rpc.localhost", 200).await?;
    assert_eq!(call(&edge, "rpc.localhost", "/unary", "5S").await?.0, "0");
    let (status, took) = call(&edge, "rpc.localhost", "/stream", "5S").await?;
    assert_eq!(status, "0", "a stream lasts longer than an answer may take to begin");
    ensure!(took > Duration::from_millis(800), "it took {took:?}");
    let (status, took) = call(&edge, "rpc.localhost", "/never", "200m").await?;
    assert_eq!(status, "4", "DEADLINE_EXCEEDED");
    ensure!(took < Duration::from_secs(5), "it took {took:?}");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_does_not_begin_in_time_is_asked_for_elsewhere() -> Result<()> {
    let (frozen, alive) = (Local::start("shop", "v1").await?, Local::start("shop", "v1").await?);
    let entries = entry(&frozen, "shop") + &entry(&alive, "shop");
    let (edge, files) = edge_over(&entries, "{ shop: { timeout: 300ms } }").await?;
    edge.healthy("shop/v1", 2).await?;
    // Its kernel goes on accepting connections and acknowledging what is sent.
    frozen.process.freeze().await?;
    let load = Load::get(edge.listener, &host("shop"), "/").closed(8).requests(200);
    let report = load.run().await?;
    report.all_succeeded()?;
    let slowest = report.samples.iter().map(|sample| sample.latency).max().unwrap_or_default();
    ensure!(slowest > Duration::from_millis(300), "nobody asked the frozen one: {report}");

    let alone = Local::start("alone", "v1").await?;
    fs::write(files.path().join("alone.yaml"), entry(&alone, "alone"))?;
    edge.answers(&host("alone"), 200).await?;
    edge.declare("{ shop: { timeout: 300ms }, alone: { timeout: 200ms } }")?;
    until(SOON, "the answer that takes too long", async || {
        let request = Request::new(Method::POST, edge.listener, "/slow?ms=1000").host(&host("alone"));
        let late = request.send().await?;
        ensure!(late.status == 504 && late.header("x-tidegate-reason") == Some("timeout"), "{late:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_is_tried_elsewhere_where_that_is_off() -> Result<()> {
    let (failing, alive) = (Local::start("shop", "v1").await?, Local::start("shop", "v1").await?);
    let entries = entry(&failing, "shop") + &entry(&alive, "shop");
    let (edge, _files) = edge_over(&entries, "{ shop: { retry: off } }").await?;
    edge.healthy("shop/v1", 2).await?;
    drop(failing);
    let report = Load::get(edge.listener, &host("shop"), "/").requests(40).run().await?;
    let failed = report.samples.iter().filter(|sample| sample.outcome != tidegate_tests::load::Outcome::Status(200));
    ensure!(failed.count() > 0, "it was tried elsewhere: {report}");

    edge.declare("{ shop: { retry: all } }")?;
    let posts = || Load::get(edge.listener, &host("shop"), "/").requests(40);
    let posts = || posts().asking(|_| Ask { method: Method::POST, ..Ask::get("/") });
    until(SOON, "a round without a failure", async || posts().run().await?.all_succeeded()).await
}

#[tokio::test]
async fn who_was_ready_last_answers_on_where_that_is_wanted() -> Result<()> {
    let (shop, cart) = (Local::start("shop", "v1").await?, Local::start("cart", "v1").await?);
    let entries = shop.entry("shop", "v1") + &cart.entry("cart", "v1");
    let (edge, _files) = edge_over(&entries, "{ shop: { whenNoneReady: serveLast } }").await?;
    for service in ["shop", "cart"] {
        edge.answers(&host(service), 200).await?;
    }
    for local in [&shop, &cart] {
        local.control("ready=false").await?;
    }
    let refused = edge.answers(&host("cart"), 503).await?;
    assert_eq!(refused.header("x-tidegate-reason"), Some("no-ready-instance"));
    until(SOON, "what is said of it", async || {
        let status = edge.cli().run(["status"]).await?.stdout;
        ensure!(status.contains("the 1 that were ready last are asked all the same"), "{status}");
        Ok(())
    })
    .await?;
    assert_eq!(edge.get(&host("shop")).await?.status, 200);
    Ok(())
}
