//! What was published outlives the control plane: real Envoy, and a Docker engine that is away, slow, or had its containers
//! changed meanwhile; a file that is damaged, and a disk that is full.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{
    client::Request,
    disk::Disk,
    docker_proxy::DockerProxy,
    edge::{Edge, Variant, backend, host},
    engine::Engine,
    load::{Load, Running},
    poll::{SOON, until},
    ports,
    tidegate::{Cli, Tidegate},
};
use tokio::time::Instant;

const KEPT: &str = "tidegate-state/last-known-good";

/// The codes of the problems there are.
async fn codes(cli: &Cli) -> Result<BTreeSet<String>> {
    let answer = Request::url(http::Method::GET, &format!("{}/v1/status", cli.api.as_deref().unwrap_or_default()))?;
    let status = answer.send().await?.json()?;
    let problems = status["problems"].as_array().context("problems")?;
    Ok(problems.iter().filter_map(|problem| problem["code"].as_str().map(ToOwned::to_owned)).collect())
}

async fn until_told(cli: &Cli, code: &str) -> Result<()> {
    until(SOON, code, async || {
        let codes = codes(cli).await?;
        ensure!(codes.contains(code), "{codes:?}");
        Ok(())
    })
    .await
}

async fn until_untold(cli: &Cli, code: &str) -> Result<()> {
    until(SOON, &format!("the end of {code}"), async || {
        let codes = codes(cli).await?;
        ensure!(!codes.contains(code), "{codes:?}");
        Ok(())
    })
    .await
}

/// Status and body.
async fn readyz(cli: &Cli) -> Result<(u16, String)> {
    let url = format!("{}/readyz", cli.api.as_deref().unwrap_or_default());
    let answer = Request::url(http::Method::GET, &url)?.send().await?;
    Ok((answer.status, answer.text()))
}

async fn until_ready(cli: &Cli) -> Result<()> {
    until(SOON, "the first sync", async || {
        let (status, text) = readyz(cli).await?;
        ensure!(status == 200, "{text}");
        Ok(())
    })
    .await
}

/// Waits until the file holds what Envoy has of a cluster, so that SIGKILL finds nothing unkept.
async fn until_kept(file: &Path, edge: &Edge, cluster: &str) -> Result<()> {
    let endpoints = edge.envoy.endpoints(cluster).await?.context("no such cluster")?;
    until(SOON, "the endpoints to be kept", async || {
        let kept = fs::read(file)?;
        for endpoint in &endpoints {
            let (ip, _) = endpoint.address.rsplit_once(':').context("ip:port")?;
            ensure!(kept.windows(ip.len()).any(|window| window == ip.as_bytes()), "{ip} is not in the file");
        }
        Ok(())
    })
    .await
}

/// GETs for as long as the test goes on.
fn load(edge: &Edge, service: &str) -> Running {
    Load::get(edge.listener, &host(service), "/").rate(200.0, 16).duration(Duration::from_secs(120)).start()
}

async fn a_hundred_more(load: &Running) -> Result<()> {
    let so_far = load.done();
    until(SOON, "a hundred requests more", async || {
        ensure!(load.done() > so_far + 100, "{}", load.done());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_new_envoy_is_served_while_docker_is_away() -> Result<()> {
    let engine = Engine::connect().await?;
    let mut proxy = DockerProxy::start(&engine)?;
    let service = engine.unique("lkg");
    let cluster = format!("{service}/v1");
    let edge = Edge::start_at(&proxy.endpoint(), "{}", &[], 2).await?;
    let _first = engine.run(backend(&service, "v1")).await?;
    let _second = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&cluster, 2).await?;
    until_kept(&edge.tidegate.directory().join(KEPT), &edge, &cluster).await?;

    proxy.away().await?;
    let edge = edge.restart_control_plane().await?.with_new_envoy().await?;
    edge.answers(&host(&service), 200).await?;
    let load = load(&edge, &service);
    until_told(&edge.cli(), "TG0303").await?;
    until_told(&edge.cli(), "TG0110").await?;
    let (status, text) = readyz(&edge.cli()).await?;
    ensure!(status == 503 && text.contains("is served meanwhile"), "{status}: {text}");
    let screen = edge.cli().run(["status"]).await?;
    ensure!(screen.code == 1 && screen.stdout.contains("TG0303"), "{screen:?}");
    a_hundred_more(&load).await?;
    edge.healthy(&cluster, 2).await?;
    let changes = edge.envoy.stat(&format!("cluster.{cluster}.membership_change")).await?;

    proxy.back()?;
    until_ready(&edge.cli()).await?;
    until_untold(&edge.cli(), "TG0303").await?;
    // And it follows the engine again.
    let _third = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&cluster, 3).await?;
    let changes = edge.envoy.stat(&format!("cluster.{cluster}.membership_change")).await? - changes;
    assert_eq!(changes, 1, "only the third came, and nothing went with the sync");
    load.stop().await?.all_succeeded()
}

#[tokio::test]
async fn a_start_with_a_slow_list_removes_no_endpoint() -> Result<()> {
    start_with_a_slow_list(Variant::Delta).await
}

#[tokio::test]
async fn a_start_with_a_slow_list_removes_no_endpoint_in_state_of_the_world() -> Result<()> {
    start_with_a_slow_list(Variant::Sotw).await
}

async fn start_with_a_slow_list(variant: Variant) -> Result<()> {
    const SLOW: Duration = Duration::from_secs(5);
    let engine = Engine::connect().await?;
    let proxy = DockerProxy::start(&engine)?;
    let service = engine.unique("slow");
    let cluster = format!("{service}/v1");
    let edge = Edge::start_at(&proxy.endpoint(), "{}", &[], 2).await?.speaking(variant).await?;
    let _first = engine.run(backend(&service, "v1")).await?;
    let _second = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&cluster, 2).await?;
    until_kept(&edge.tidegate.directory().join(KEPT), &edge, &cluster).await?;

    let load = load(&edge, &service);
    a_hundred_more(&load).await?;
    let stat = |name: &str| format!("cluster.{cluster}.{name}");
    let before = edge.envoy.stat(&stat("membership_change")).await?;
    proxy.delay_lists(SLOW)?;
    let killed = Instant::now();
    let edge = edge.restart_control_plane().await?;
    // It is back, and told nothing: what it has may be newer than what was kept.
    until(SOON, "Envoy to be back before the list is there", async || {
        let seen = Request::url(http::Method::GET, &format!("{}/v1/status", edge.cli().api.unwrap_or_default()))?;
        let status = seen.send().await?.json()?;
        ensure!(status["synced"] == false, "the list was not slow");
        ensure!(status["edges"].as_array().is_some_and(Vec::is_empty), "{}", status["edges"]);
        ensure!(edge.envoy.stat("control_plane.connected_state").await? == 1, "it is not");
        Ok(())
    })
    .await?;
    assert_eq!(readyz(&edge.cli()).await?.0, 503);
    until_ready(&edge.cli()).await?;
    assert!(killed.elapsed() >= SLOW, "the list was not slow");
    a_hundred_more(&load).await?;
    assert_eq!(edge.envoy.stat(&stat("membership_total")).await?, 2);
    assert_eq!(edge.envoy.stat(&stat("membership_change")).await?, before, "nobody came or went");
    load.stop().await?.all_succeeded()
}

#[tokio::test]
async fn what_was_removed_meanwhile_is_withdrawn_after_the_sync_without_a_failed_request() -> Result<()> {
    let engine = Engine::connect().await?;
    // Of their own, so that nobody else gets the addresses that become free.
    let network = engine.network("gone").await?;
    let (service, gone) = (engine.unique("stays"), engine.unique("goes"));
    let cluster = format!("{service}/v1");
    let edge = Edge::start(&engine, "{}").await?;
    let _first = engine.run(backend(&service, "v1").network(&network)).await?;
    let second = engine.run(backend(&service, "v1").network(&network)).await?;
    let other = engine.run(backend(&gone, "v1").network(&network)).await?;
    edge.healthy(&cluster, 2).await?;
    edge.answers(&host(&gone), 200).await?;

    let load = load(&edge, &service);
    a_hundred_more(&load).await?;
    let mut removed = Ok(());
    let edge = edge
        .without_control_plane(async {
            removed = async {
                second.remove().await?;
                other.remove().await
            }
            .await;
        })
        .await?;
    removed?;
    until_ready(&edge.cli()).await?;
    edge.healthy(&cluster, 1).await?;
    edge.answers(&host(&gone), 404).await?;
    until(SOON, "the cluster to go", async || {
        ensure!(edge.envoy.endpoints(&format!("{gone}/v1")).await?.is_none(), "it is still there");
        Ok(())
    })
    .await?;
    a_hundred_more(&load).await?;
    assert_eq!(edge.get(&host(&service)).await?.status, 200);
    load.stop().await?.all_succeeded()
}

#[tokio::test]
async fn a_damaged_file_is_kept_aside_and_the_start_goes_on() -> Result<()> {
    let engine = Engine::connect().await?;
    let (xds, api) = (ports::free()?, ports::free()?);
    let configuration = format!(
        "xds: {{ address: \"{xds}\" }}\napi: {{ address: \"{api}\" }}\n\
         providers: {{ docker: {{ endpoint: \"{}\" }} }}\n",
        engine.endpoint()
    );
    let mut tidegate = Tidegate::run(&configuration)?;
    let file = tidegate.directory().join(KEPT);
    let cli = tidegate.cli(&format!("http://{api}"));
    let whole = tidegate.process.until(SOON, "something to be kept", async || Ok(fs::read(&file)?)).await?;
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let damages =
        [flipped(whole.len() / 2), flipped(whole.len() - 1), flipped(8), whole[..whole.len() / 2].to_vec(), Vec::new()];
    for (number, damage) in damages.into_iter().enumerate() {
        tidegate.process.terminate(SOON).await?;
        fs::write(&file, &damage)?;
        tidegate = tidegate.again(&["run"], &[])?;
        tidegate.process.until(SOON, "the first sync", async || until_ready(&cli).await).await?;
        until_told(&cli, "TG0302").await?;
        let aside = file.with_extension(format!("damaged-{}", number + 1));
        assert_eq!(fs::read(&aside)?, damage);
        // What was synced is kept in its place.
        tidegate.process.until(SOON, "a new file", async || Ok(fs::read(&file)?)).await?;
    }
    for number in 1..=5 {
        fs::remove_file(file.with_extension(format!("damaged-{number}")))?;
    }
    until_untold(&cli, "TG0302").await
}

#[tokio::test]
async fn a_full_disk_costs_no_request_and_leaves_the_old_file() -> Result<()> {
    let engine = Engine::connect().await?;
    let disk = Disk::new("1m")?;
    let service = engine.unique("full");
    let cluster = format!("{service}/v1");
    let state_dir = disk.path().to_str().context("UTF-8")?;
    let edge = Edge::start_with(&engine, "{}", &["--state-dir", state_dir]).await?;
    let _first = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&cluster, 1).await?;
    let file = disk.path().join("last-known-good");
    until_kept(&file, &edge, &cluster).await?;

    let load = load(&edge, &service);
    a_hundred_more(&load).await?;
    let filler = disk.fill()?;
    let old = fs::read(&file)?;
    let _second = engine.run(backend(&service, "v1")).await?;
    edge.healthy(&cluster, 2).await?;
    until_told(&edge.cli(), "TG0301").await?;
    assert_eq!(fs::read(&file)?, old, "the old file is intact");
    a_hundred_more(&load).await?;

    fs::remove_file(filler)?;
    until_untold(&edge.cli(), "TG0301").await?;
    until_kept(&file, &edge, &cluster).await?;
    load.stop().await?.all_succeeded()
}
