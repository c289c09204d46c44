//! Deployments, side by side: the same containers of three services behind tidegate and behind Traefik, each with the same requests
//! through it, while every container is replaced again and again. What failed, when a new container first answered, and how long
//! after an end the last error came.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, process::Command, time::Duration};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tidegate_figures::{Row, percentile};
use tokio::time::{Instant, sleep};

use crate::{
    client::Request,
    deploys::{End, Ended, Http2, Kind, REPLICAS, Script, Seen, Service, Traffic, number},
    edge::Edge,
    engine::Engine,
    load::Outcome,
    poll::{SOON, until},
    ports,
    process::Process,
};

const REPLACEMENTS: u64 = 100;
/// After an end, before the next begins: so that an error belongs to one of them.
const QUIET: Duration = Duration::from_secs(1);
/// Longer than this nobody should wait for a new container.
const LIMIT: Duration = Duration::from_secs(40);

/// One of those that are compared.
struct Rival {
    name: &'static str,
    address: SocketAddr,
    /// From the end of `docker run` to the first answer of the new container.
    firsts: Vec<Duration>,
}

/// Traefik with its Docker provider.
struct Traefik {
    address: SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Traefik {
    /// With one entry point of this name.
    fn start(engine: &Engine, entry_point: &str, arguments: &[&str]) -> Result<Self> {
        let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/traefik");
        ensure!(binary.is_file(), "there is no Traefik: `scripts/setup bench` gets it");
        let directory = tempfile::tempdir()?;
        let address = ports::free()?;
        let mut command = Command::new(binary);
        command.current_dir(directory.path());
        command.args(["--global.checkNewVersion=false", "--global.sendAnonymousUsage=false"]);
        command.arg(format!("--entryPoints.{entry_point}.address={address}"));
        command.arg("--providers.docker.exposedByDefault=false");
        command.arg(format!("--providers.docker.endpoint={}", engine.direct())).args(arguments);
        let process = Process::spawn("traefik", &mut command, directory.path())?;
        Ok(Self { address, _process: process, _directory: directory })
    }
}

/// What Traefik has to know of a service. At the entry point `plain` it is at its defaults, at `tuned` it tries what failed again.
fn labels(service: &Service) -> Vec<(String, String)> {
    let Service { name, host, is_grpc } = service;
    let mut labels = vec![
        ("traefik.enable".to_owned(), "true".to_owned()),
        (format!("traefik.http.middlewares.{name}.retry.attempts"), "3".to_owned()),
    ];
    for (router, entry_point) in [(name.clone(), "plain"), (format!("{name}-again"), "tuned")] {
        let mut say = |key: &str, value: &str| {
            labels.push((format!("traefik.http.routers.{router}.{key}"), value.to_owned()));
        };
        say("rule", &format!("Host(`{host}`)"));
        say("entrypoints", entry_point);
        say("service", name);
        if entry_point == "tuned" {
            say("middlewares", name);
        }
    }
    let mut say = |key: &str, value: &str| {
        labels.push((format!("traefik.http.services.{name}.loadbalancer.{key}"), value.to_owned()));
    };
    say("server.port", "8080");
    // Its check's time-out has to be shorter than its interval.
    say("healthcheck.interval", "200ms");
    say("healthcheck.timeout", "150ms");
    if *is_grpc {
        say("server.scheme", "h2c");
        say("healthcheck.mode", "grpc");
        say("healthcheck.path", "/");
    } else {
        say("healthcheck.path", "/ready");
    }
    labels
}

pub(super) async fn run(say: impl Fn(&str)) -> Result<Vec<Row>> {
    let (replacements, seed) = (number("TIDEGATE_REPLACEMENTS", REPLACEMENTS)?, number("TIDEGATE_SEED", 5)?);
    let engine = Engine::connect().await?;
    let mut script = Script::start(&engine, seed, labels).await?;
    let edge = Edge::start_at(&engine.direct(), "{}", &[], 2).await?;
    let plain = Traefik::start(&engine, "plain", &[])?;
    // What tidegate has by default, and what the services say to it.
    let tuned = [
        "--providers.providersThrottleDuration=100ms",
        "--serversTransport.forwardingTimeouts.dialTimeout=500ms",
        "--serversTransport.forwardingTimeouts.responseHeaderTimeout=2s",
    ];
    let tuned = Traefik::start(&engine, "tuned", &tuned)?;
    let rival = |name, address| Rival { name, address, firsts: Vec::new() };
    let mut rivals =
        [rival("tidegate", edge.listener), rival("Traefik", plain.address), rival("Traefik, tuned", tuned.address)];
    for rival in &rivals {
        for service in &script.services {
            until(SOON, &format!("all of {} at {}", service.name, rival.name), async || {
                all_answer(rival, service).await
            })
            .await?;
        }
    }
    let traffic: Vec<_> = rivals.iter().map(|rival| Traffic::start(rival.address, &script.services)).collect();
    let mut ends = Vec::new();
    for number in 1..=replacements {
        let service = script.service()?.clone();
        let container = script.begin().await?;
        let started = Instant::now();
        let firsts = rivals.iter().map(|rival| first(rival.address, &service, &container, started));
        let firsts = futures_util::future::try_join_all(firsts).await?;
        for (rival, first) in rivals.iter_mut().zip(firsts) {
            rival.firsts.push(first);
        }
        ends.push(script.end().await?);
        sleep(QUIET).await;
        if number % 10 == 0 {
            say(&format!("  {number} of {replacements} replaced"));
        }
    }
    let mut rows = Vec::new();
    let seen = futures_util::future::try_join_all(traffic.into_iter().map(Traffic::stop)).await?;
    for (rival, seen) in rivals.iter().zip(seen) {
        rows.extend(figures(rival, &seen, &ends));
    }
    Ok(rows)
}

/// Each replica of the service gives an answer.
async fn all_answer(rival: &Rival, service: &Service) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..16 {
        seen.extend(served_by(rival.address, service).await?);
    }
    ensure!(seen.len() == REPLICAS, "{} of {REPLICAS}", seen.len());
    Ok(())
}

/// Who answers one request, if anyone does.
async fn served_by(edge: SocketAddr, service: &Service) -> Result<Option<String>> {
    if service.is_grpc {
        return Ok(Http2::new(edge, &service.host).call("/echo", SOON).await?.1);
    }
    let answer = Request::get(edge, "/version").host(&service.host).send().await?;
    Ok(answer.header("x-served-by").map(str::to_owned))
}

async fn first(edge: SocketAddr, service: &Service, container: &str, started: Instant) -> Result<Duration> {
    loop {
        // An error is not this container's answer.
        let by = served_by(edge, service).await.ok().flatten();
        if by.is_some_and(|by| by.ends_with(container)) {
            return Ok(started.elapsed());
        }
        ensure!(started.elapsed() < LIMIT, "{container} of {} never answered", service.name);
        sleep(Duration::from_millis(2)).await;
    }
}

fn figures(rival: &Rival, all: &[Seen], ends: &[Ended]) -> Vec<Row> {
    let name = rival.name;
    let mut asked: BTreeMap<Kind, (usize, usize, usize)> = BTreeMap::new();
    for seen in all {
        let (count, before, cut) = asked.entry(seen.kind).or_default();
        *count += 1;
        if seen.failed_before_headers() {
            *before += 1;
        } else if seen.failed() {
            *cut += 1;
        }
    }
    let mut rows = Vec::new();
    for (kind, (count, before, cut)) in asked {
        let row = |what: &str, value: usize| Row::new(format!("{name}: {kind}, {what} of {count}"), value as f64, "");
        let mut failed = row("failed", before);
        if name == "tidegate" && kind.may_be_repeated() {
            (failed.budget, failed.met) = (Some("0".to_owned()), Some(before == 0));
        }
        rows.push(failed);
        rows.push(row("cut off", cut));
    }
    for end in End::ALL {
        let failed = ends.iter().filter(|ended| ended.end == end).map(|ended| after(ended, ends, all).len());
        rows.push(Row::new(format!("{name}: GETs failed by: {end}"), failed.sum::<usize>() as f64, ""));
    }
    let mut firsts = rival.firsts.clone();
    firsts.sort_unstable();
    for percent in [50.0, 99.0] {
        let value = percentile(&firsts, percent).as_secs_f64() * 1e3;
        rows.push(Row::new(format!("{name}: docker run returns to first 200 of the new one, p{percent}"), value, "ms"));
    }
    let mut lasts: Vec<Duration> = ends.iter().filter_map(|ended| after(ended, ends, all).into_iter().max()).collect();
    lasts.sort_unstable();
    rows.push(Row::new(format!("{name}: ends after which a GET failed, of {}", ends.len()), lasts.len() as f64, ""));
    for percent in [50.0, 100.0] {
        let value = percentile(&lasts, percent).as_secs_f64() * 1e3;
        rows.push(Row::new(format!("{name}: of them, end to the last error, p{percent}"), value, "ms"));
    }
    rows
}

/// How long after the beginning of this end, and before that of the next, each request that may be repeated failed.
fn after(ended: &Ended, ends: &[Ended], all: &[Seen]) -> Vec<Duration> {
    let next = ends.iter().map(|other| other.began).find(|began| *began > ended.began);
    let failed = all.iter().filter(|seen| seen.kind.may_be_repeated() && seen.failed_before_headers());
    let failed = failed.filter(|seen| seen.service == ended.service && seen.outcome != Outcome::Connect);
    let failed = failed.filter(|seen| seen.ended >= ended.began && next.is_none_or(|next| seen.began < next));
    failed.map(|seen| seen.ended - ended.began).collect()
}
