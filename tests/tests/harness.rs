//! The harness proves itself: with a real engine, a private one, the sample backend and a real Envoy.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidegate_tests::{
    client::{Request, get},
    engine::{Engine, Spec},
    envoy::{self, Envoy},
    load::{Ask, Load, Outcome},
    poll::{SOON, until},
    private_engine::PrivateEngine,
    process::{Process, Signal},
    run::LABEL,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

#[tokio::test]
async fn a_container_lives_through_its_life_cycle() -> Result<()> {
    let engine = Engine::connect().await?;
    let container = engine.create(Spec::sample("life").label("some.label", "yes").version("v7")).await?;
    assert!(!container.is_running().await?);

    container.start().await?;
    container.ready().await?;
    assert_eq!(container.get("/").await?.version(), Some("v7"));
    let labels = container.inspect().await?.config.and_then(|config| config.labels).context("labels")?;
    assert_eq!(labels["some.label"], "yes");
    assert_eq!(labels[LABEL], engine.run_id());

    container.pause().await?;
    let slow = Request::get(container.address().await?, "/").timeout(Duration::from_millis(200)).send().await;
    assert!(slow.is_err(), "a paused container answered");
    container.unpause().await?;
    container.ready().await?;

    container.restart(Duration::from_secs(10)).await?;
    container.ready().await?;
    container.kill("SIGKILL").await?;
    assert_eq!(container.exit_code(SOON).await?, 137);
    container.remove().await?;
    assert!(container.inspect().await.is_err());
    container.remove().await
}

#[tokio::test]
async fn containers_join_and_leave_networks() -> Result<()> {
    let engine = Engine::connect().await?;
    let (front, back) = (engine.network("front").await?, engine.network("back").await?);
    let container = engine.run(Spec::sample("joiner").network(&front).network_as(&back, &["joiner"])).await?;
    let addresses = (container.address_in(&front).await?, container.address_in(&back).await?);
    assert_ne!(addresses.0, addresses.1);
    container.ready().await?;
    for address in [addresses.0, addresses.1] {
        assert_eq!(get(&format!("http://{address}/version")).await?.text(), "v1\n");
    }
    back.disconnect(&container).await?;
    assert!(container.address_in(&back).await.is_err());
    back.remove().await?;
    assert!(front.remove().await.is_err(), "a network with a container was removed");
    Ok(())
}

#[tokio::test]
async fn what_a_run_made_is_gone_after_its_last_handle() -> Result<()> {
    let engine = Engine::connect().await?;
    let run = {
        let other = Engine::connect().await?;
        let network = other.network("gone").await?;
        let container = other.run(Spec::sample("gone").network(&network)).await?;
        let run = other.run_id().to_owned();
        drop((other, network));
        // The container's handle still holds it.
        assert!(container.is_running().await?);
        run
    };
    let filters = std::collections::HashMap::from([("label".to_owned(), vec![format!("{LABEL}={run}")])]);
    let containers = bollard::query_parameters::ListContainersOptions {
        all: true,
        filters: Some(filters.clone()),
        ..Default::default()
    };
    assert_eq!(engine.docker().list_containers(Some(containers)).await?, []);
    let networks = bollard::query_parameters::ListNetworksOptions { filters: Some(filters) };
    assert_eq!(engine.docker().list_networks(Some(networks)).await?, []);
    Ok(())
}

#[tokio::test]
async fn the_sample_backend_misbehaves_as_told() -> Result<()> {
    let engine = Engine::connect().await?;
    let sample = engine.run(Spec::sample("told").version("v2").env("READY_AFTER_MS", "300")).await?;
    until(SOON, "its listening", async || {
        let answer = sample.get("/ready").await?;
        ensure!(answer.status == 503, "status {}", answer.status);
        Ok(())
    })
    .await?;
    sample.ready().await?;

    sample.control("ready=false").await?;
    assert_eq!(sample.get("/ready").await?.status, 503);
    sample.control("ready=true&health=false").await?;
    assert_eq!(sample.get("/ready").await?.status, 200);
    assert_eq!(sample.get("/health").await?.status, 503);
    assert!(sample.control("errors=lots").await.is_err());

    sample.control("health=true&errors=30").await?;
    let address = sample.address().await?;
    let report = Load::get(address, "shop", "/").requests(1000).closed(4).run().await?;
    let failed = report.outcomes().get(&Outcome::Status(500)).copied().unwrap_or_default();
    assert!((200..=400).contains(&failed), "{report}");
    assert_eq!(report.by_version()["v2"], 1000);

    sample.control("errors=0").await?;
    let echo = Request::post(address, "/echo?a=b", "hello").host("shop.localhost").header("x-tg-a", "1").send().await?;
    let text = echo.text();
    for line in ["POST /echo?a=b\n", "host: shop.localhost\n", "x-tg-a: 1\n", "5 bytes of body\n"] {
        assert!(text.contains(line), "{text}");
    }

    let started = Instant::now();
    assert_eq!(sample.get("/slow?ms=150").await?.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(150));

    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nping").await?;
    let mut received = Vec::new();
    until(SOON, "the echo", async || {
        stream.read_buf(&mut received).await?;
        ensure!(received.ends_with(b"\r\n\r\nping"), "{}", String::from_utf8_lossy(&received));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_sample_backend_ends_as_told() -> Result<()> {
    let engine = Engine::connect().await?;

    // Graceful: what is in flight is answered, and PID 1 has seen the signal.
    let graceful = engine.run(Spec::sample("graceful")).await?;
    graceful.ready().await?;
    let load = Load::get(graceful.address().await?, "a", "/slow?ms=600").requests(4).closed(4).start();
    until(SOON, "the requests to arrive", async || {
        let control = graceful.get("/control").await?.json()?;
        ensure!(control["requests"] == 4, "{control}");
        Ok(())
    })
    .await?;
    graceful.kill("SIGTERM").await?;
    load.wait().await?.all_succeeded()?;
    assert_eq!(graceful.exit_code(SOON).await?, 0);
    assert!(graceful.logs().await?.contains("drained"));

    let now = engine.run(Spec::sample("now").env("TERM", "now")).await?;
    now.ready().await?;
    now.kill("SIGTERM").await?;
    assert_eq!(now.exit_code(SOON).await?, 143);

    let ignoring = engine.run(Spec::sample("ignoring").env("TERM", "ignore")).await?;
    ignoring.ready().await?;
    ignoring.stop(Duration::from_secs(1)).await?;
    assert_eq!(ignoring.exit_code(SOON).await?, 137);
    Ok(())
}

#[tokio::test]
async fn a_healthcheck_follows_the_backends_health() -> Result<()> {
    let engine = Engine::connect().await?;
    let sample = engine.run(Spec::sample("checked").healthcheck(Duration::from_millis(200))).await?;
    sample.healthy().await?;
    sample.control("health=false").await?;
    sample.unhealthy().await?;
    sample.control("health=true").await?;
    sample.healthy().await
}

#[tokio::test]
async fn envoy_serves_a_container() -> Result<()> {
    let engine = Engine::connect().await?;
    let sample = engine.run(Spec::sample("behind-envoy").version("v3")).await?;
    sample.ready().await?;
    let bootstrap = static_bootstrap(&sample.address().await?.to_string());
    envoy::validate(&bootstrap).await?;
    let refused = envoy::validate("static_resources: { listeners: [ {} ], nonsense: 1 }").await.unwrap_err();
    assert!(format!("{refused:#}").contains("nonsense"), "{refused:#}");

    let mut envoy = Envoy::start(&bootstrap).await?;
    envoy.ready(SOON).await?;
    let edge = envoy.listener("edge").await?;
    assert_eq!(Request::get(edge, "/").host("shop.localhost").send().await?.version(), Some("v3"));
    assert_eq!(Request::get(edge, "/").host("nobody.localhost").send().await?.status, 404);

    let load = Load::get(edge, "shop.localhost", "/").rate(200.0, 4).duration(Duration::from_secs(1));
    let report = load.asking(|n| Ask::get("/").key(&format!("user-{}", n % 10))).run().await?;
    report.all_succeeded()?;
    assert_eq!(report.count(), 200, "{report}");
    assert_eq!(report.versions_by_key().len(), 10);

    let endpoints = envoy.endpoints("shop").await?.context("the cluster")?;
    assert_eq!(endpoints.iter().map(|endpoint| endpoint.healthy).collect::<Vec<_>>(), [true]);
    assert_eq!(envoy.endpoints("nobody").await?, None);
    assert!(envoy.stat("cluster.shop.upstream_rq_total").await? >= 201);
    assert!(envoy.config_dump().await?.to_string().contains("shop.localhost"));

    // A backend that dies takes the requests of its connections with it, and the load says so.
    let load = Load::get(edge, "shop.localhost", "/slow?ms=5000").requests(2).closed(2).start();
    until(SOON, "requests in flight", async || {
        let active = envoy.stat("cluster.shop.upstream_rq_active").await?;
        ensure!(active == 2, "{active} active");
        Ok(())
    })
    .await?;
    sample.kill("SIGKILL").await?;
    assert_eq!(load.wait().await?.outcomes()[&Outcome::Status(503)], 2);

    assert!(envoy.process.terminate(SOON).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_private_engine_is_killed_and_comes_back() -> Result<()> {
    let mut private = PrivateEngine::start().await?;
    let engine = private.connect().await?;
    let network = engine.network("inside").await?;
    let container = engine.run(Spec::sample("survivor").network(&network)).await?;
    let on_default = engine.run(Spec::sample("default-bridge")).await?;
    container.ready().await?;
    on_default.ready().await?;
    let address = container.address().await?;

    private.kill()?;
    assert!(container.inspect().await.is_err());
    assert_eq!(get(&format!("http://{address}/version")).await?.text(), "v1\n", "live-restore");
    private.restart().await?;
    assert!(container.is_running().await?);

    private.freeze().await?;
    let hung = tokio::time::timeout(Duration::from_millis(300), container.inspect()).await;
    assert!(hung.is_err(), "a frozen engine answered: {hung:?}");
    private.thaw()?;
    assert!(container.is_running().await?);

    private.stop().await?;
    assert_eq!(get(&format!("http://{address}/version")).await?.status, 200);
    private.restart().await?;
    container.ready().await?;

    // Dropped while dead, it must still leave nothing.
    let state = container.inspect().await?.state.context("state")?;
    let process = std::path::Path::new("/proc").join(state.pid.context("pid")?.to_string());
    assert!(process.exists());
    private.kill()?;
    let bridge = format!("br-{}", &network.id[..12]);
    assert!(std::path::Path::new("/sys/class/net").join(&bridge).exists());
    let socket = private.socket();
    let home = socket.parent().context("a folder")?;
    drop(private);
    assert!(!process.exists());
    assert!(!home.exists());
    assert!(!std::path::Path::new("/sys/class/net").join(&bridge).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    assert!(!mounts.contains(&*home.to_string_lossy()), "{mounts}");
    Ok(())
}

#[tokio::test]
async fn a_process_is_watched_signalled_and_quoted() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "echo started; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"]);
    let mut process = Process::spawn("shell", &mut command, directory.path())?;
    let log = directory.path().join("shell.log");
    let started = async || {
        ensure!(std::fs::read_to_string(&log)?.contains("started"), "nothing yet");
        Ok(())
    };
    process.until(SOON, "its first line", started).await?;
    process.freeze().await?;
    process.signal(Signal::TERM)?;
    assert!(process.is_running());
    process.thaw()?;
    assert_eq!(process.exited(SOON).await?.code(), Some(3));
    let error = process.until::<()>(SOON, "anything more", async || anyhow::bail!("no")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("before anything more") && text.contains("bye"), "{text}");
    Ok(())
}

/// What a test run that was killed leaves behind: nothing of ours outlives the next run.
#[tokio::test]
async fn leftovers_of_a_dead_run_are_swept() -> Result<()> {
    let engine = Engine::connect().await?;
    let mut dead = std::process::Command::new("true").spawn()?;
    let id = format!("{}-1-0", dead.id());
    dead.wait()?;
    let mut spec = Spec::sample("leftover");
    spec.body.image = Some(engine.sample_image().await?);
    spec.body.labels = Some(std::collections::HashMap::from([(LABEL.to_owned(), id)]));
    let created = engine.docker().create_container(None, spec.body).await?;
    let _other = Engine::connect().await?;
    assert!(engine.docker().inspect_container(&created.id, None).await.is_err());
    Ok(())
}

fn static_bootstrap(upstream: &str) -> String {
    let (ip, port) = upstream.split_once(':').unwrap_or((upstream, "80"));
    format!(
        r#"
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
  - name: edge
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          http_filters:
          - name: router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - {{ name: shop, domains: [shop.localhost], routes: [ {{ match: {{ prefix: / }}, route: {{ cluster: shop }} }} ] }}
  clusters:
  - name: shop
    connect_timeout: 1s
    load_assignment:
      cluster_name: shop
      endpoints:
      - lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }} }} ]
"#
    )
}
