//! Measurements on real containers: how long discovery takes, and what the filter costs; and of files at scale. Figures come as ratios within one run
//! wherever the machine would speak louder than the code.

mod canaries;
mod checks;
mod deploys;
mod drain;
mod events;
mod files;
mod fleet;
mod hold;
mod idle;
mod measured;
mod publish;
mod replaced;
mod storm;

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use tidegate_figures::{Row, percentile};
use tokio::time::Instant;

use crate::{
    edge::{Edge, backend, host},
    engine::{Engine, Network, Spec},
    envoy::{Envoy, Options},
    ports,
};

const STARTS: usize = 15;
const KILLS: usize = 15;
const WEIGHTS: usize = 15;
/// Slices of load, each kind in turn, so that what the machine does meanwhile meets all kinds alike.
const ROUNDS: usize = 10;
const SLICE: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 32;

/// The parts of [`run`].
pub const PARTS: [&str; 13] = [
    "files",
    "checks",
    "events",
    "replaced",
    "idle",
    "storm",
    "publish",
    "drain",
    "hold",
    "canaries",
    "deploys",
    "discovery",
    "filter",
];

/// Measures everything, or one of [`PARTS`].
pub async fn run(only: Option<&str>, say: impl Fn(&str)) -> Result<Vec<Row>> {
    if let Some(only) = only {
        ensure!(PARTS.contains(&only), "there is no part {only}; the parts are {}", PARTS.join(", "));
    }
    let is_wanted = |part: &str| only.is_none_or(|only| only == part);
    let mut rows = Vec::new();
    if is_wanted("files") {
        say("files: 10,000 services of ten instances, and one edit");
        rows.extend(files::run().await?);
    }
    if is_wanted("checks") {
        say("checks: of 5,000 instances, 100 of which hang");
        rows.extend(checks::run().await?);
    }
    if is_wanted("events") {
        say("events: one among 10, 100 and 1,000 services");
        rows.extend(events::run().await?);
    }
    if is_wanted("replaced") {
        say("replaced: a container of one service among 10, 100 and 1,000 others");
        rows.extend(replaced::run().await?);
    }
    if is_wanted("idle") {
        say("idle: 1,000 containers, and health checks of strangers");
        rows.extend(idle::run().await?);
    }
    if is_wanted("storm") {
        say("storm: 2,000 fake and 40 real containers start together");
        rows.extend(storm::run().await?);
    }
    if is_wanted("publish") {
        say("publish: a start and a stop to clients, among 10, 100 and 1,000 containers");
        rows.extend(publish::run().await?);
    }
    if is_wanted("drain") {
        say("drain: docker stop to out of rotation");
        rows.extend(drain::run().await?);
    }
    if is_wanted("hold") {
        say("hold: 1,000 requests that wait for a ready instance");
        rows.extend(hold::run().await?);
    }
    if is_wanted("canaries") {
        say("canaries: bad ones at 1,000 requests/s, until their share is gone");
        rows.extend(canaries::run(&say).await?);
    }
    if is_wanted("deploys") {
        say("deploys: 100 containers of three services replaced under load, behind tidegate and Traefik");
        rows.extend(deploys::run(&say).await?);
    }
    if !is_wanted("discovery") && !is_wanted("filter") {
        return Ok(rows);
    }
    let engine = Engine::connect().await?;
    // A network of its own: a bridge address that was just asked for in vain takes a while to answer.
    let network = engine.network("bench").await?;
    if is_wanted("discovery") {
        say("discovery: docker run to the first 200, docker kill to the endpoint's end, a weight's way");
        rows.extend(discovery(&engine, &network).await?);
    }
    if is_wanted("filter") {
        say("the filter: none, off on the route, sticky canary, in turn");
        rows.extend(filter(&engine, &network).await?);
    }
    Ok(rows)
}

async fn discovery(engine: &Engine, network: &Network) -> Result<Vec<Row>> {
    let edge = Edge::start_at(&engine.direct(), "{}", &[], 2).await?;
    let mut starts = Vec::new();
    for number in 0..STARTS {
        let service = format!("start{number}");
        let plain = Spec::sample(&service)
            .label("tidegate.enable", "true")
            .label("tidegate.service", &service)
            .label("tidegate.host", &host(&service))
            .label("tidegate.port", "8080")
            .network(network);
        let container = engine.run(plain).await?;
        let returned = Instant::now();
        while edge.get(&host(&service)).await?.status != 200 {
            ensure!(returned.elapsed() < Duration::from_secs(30), "{service} never answered");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        starts.push(returned.elapsed());
        container.remove().await?;
    }

    let mut kills = Vec::new();
    let keeper = engine.run(backend("kill", "v1").network(network)).await?;
    for _ in 0..KILLS {
        let victim = engine.run(backend("kill", "v1").network(network)).await?;
        edge.healthy("kill/v1", 2).await?;
        let killed = Instant::now();
        victim.kill("SIGKILL").await?;
        edge.healthy("kill/v1", 1).await?;
        kills.push(killed.elapsed());
        victim.remove().await?;
    }

    let other = engine.run(backend("kill", "v2").network(network)).await?;
    let mut weights = Vec::new();
    for number in 0..WEIGHTS {
        let percent = 10 + u32::try_from(number)?;
        let declared =
            format!("{{ kill: {{ stable: {{ version: v1 }}, canary: {{ version: v2, weight: {percent} }} }} }}");
        edge.declare(&declared)?;
        let written = Instant::now();
        edge.weighs("kill", "v2", percent * 100).await?;
        weights.push(written.elapsed());
    }
    drop((keeper, other));

    let mut rows = timings("docker run returns to first 200", starts, None);
    rows.extend(timings("docker kill to endpoint out of Envoy", kills, Some(Duration::from_millis(250))));
    rows.extend(timings("configuration file written to weight in Envoy", weights, None));
    Ok(rows)
}

fn timings(name: &str, mut times: Vec<Duration>, budget: Option<Duration>) -> Vec<Row> {
    times.sort_unstable();
    let row = |percent: f64, budget: Option<Duration>| {
        let value = percentile(&times, percent);
        Row {
            name: format!("{name}, p{percent}"),
            value: value.as_secs_f64() * 1e3,
            unit: "ms",
            compared_with: None,
            ratio: None,
            budget: budget.map(|budget| format!("≤ {} ms", budget.as_millis())),
            met: budget.map(|budget| value <= budget),
        }
    };
    vec![row(50.0, None), row(99.0, budget)]
}

/// What one slice of load showed.
#[derive(Debug, Clone, Copy)]
struct Slice {
    per_second: f64,
    p99: Duration,
    /// Envoy's processor time for a request, in microseconds.
    cpu: f64,
    /// Envoy's share of one core: near 1 when its one worker is saturated.
    busy: f64,
}

/// One kind of edge under test.
struct Kind {
    name: &'static str,
    address: SocketAddr,
    host: String,
    envoy: u32,
    slices: Vec<Slice>,
}

async fn filter(engine: &Engine, network: &Network) -> Result<Vec<Row>> {
    let declared = "{ sticky: { stable: { version: v1 }, canary: { version: v2, weight: 10, \
                    sessionAffinity: { hashOn: [ { header: X-User } ] } } } }";
    let edge = Edge::start_at(&engine.direct(), declared, &[], 1).await?;
    let mut containers = Vec::new();
    for (service, version) in [("sticky", "v1"), ("sticky", "v2"), ("off", "v1")] {
        containers.push(engine.run(backend(service, version).network(network)).await?);
    }
    for cluster in ["sticky/v1", "sticky/v2", "off/v1"] {
        edge.healthy(cluster, 1).await?;
    }
    edge.weighs("sticky", "v2", 1_000).await?;
    let upstream = containers[2].address().await?;
    let listener = ports::free()?;
    let none = Envoy::start_with(&without_filter(listener, upstream), &Options::default()).await?;
    // Envoy alone on one core; clients, backends and this program share the other.
    for (process, core) in [(edge.envoy.process.pid(), "0"), (none.process.pid(), "0"), (std::process::id(), "1")] {
        let pinned = Command::new("taskset").args(["-acp", core, &process.to_string()]).output();
        ensure!(pinned.is_ok_and(|output| output.status.success()), "taskset (util-linux) cannot pin {process}");
    }
    let kind =
        |name, address, host: &str, envoy| Kind { name, address, host: host.to_owned(), envoy, slices: Vec::new() };
    let mut kinds = [
        kind("no filter in the chain", listener, "off.localhost", none.process.pid()),
        kind("filter off on the route", edge.listener, "off.localhost", edge.envoy.process.pid()),
        kind("sticky canary", edge.listener, "sticky.localhost", edge.envoy.process.pid()),
    ];
    for round in 0..=ROUNDS {
        for kind in &mut kinds {
            let slice = tokio::task::block_in_place(|| measure(kind))?;
            // The first round warms up.
            if round > 0 {
                kind.slices.push(slice);
            }
        }
    }
    let [base, off, sticky] = kinds;
    let mut rows = figures(&base, None, None);
    rows.extend(figures(&off, Some(&base), Some(0.95)));
    rows.extend(figures(&sticky, Some(&base), Some(0.83)));
    Ok(rows)
}

/// One slice by `wrk`, which is faster than Envoy's one worker: what is compared is Envoy.
fn measure(kind: &Kind) -> Result<Slice> {
    let duration = format!("-d{}s", SLICE.as_secs());
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &duration, "--latency", "-H", &format!("Host: {}", kind.host)]);
    wrk.args(["-H", "X-User: somebody", &format!("http://{}/version", kind.address)]);
    let (cpu, began) = (processor(kind.envoy)?, Instant::now());
    let output = wrk.output().context("wrk cannot be run: `scripts/setup bench` gets it")?;
    let (cpu, took) = (processor(kind.envoy)? - cpu, began.elapsed());
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success() && !said.contains("Non-2xx") && !said.contains("Socket errors"),
        "{}: {said}",
        kind.name
    );
    let Said { per_second, p99, requests } = Said::parse(&said).with_context(|| format!("wrk said: {said}"))?;
    Ok(Slice { per_second, p99, cpu: cpu.as_secs_f64() * 1e6 / requests, busy: cpu.as_secs_f64() / took.as_secs_f64() })
}

/// What wrk says at its end.
#[derive(Debug, PartialEq)]
struct Said {
    per_second: f64,
    p99: Duration,
    requests: f64,
}

impl Said {
    fn parse(text: &str) -> Option<Self> {
        let lines = || text.lines().map(str::trim);
        let p99 = lines().find_map(|line| line.strip_prefix("99%"))?.trim();
        let (number, unit) = p99.split_at(p99.find(char::is_alphabetic)?);
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            _ => return None,
        };
        Some(Self {
            per_second: lines().find_map(|line| line.strip_prefix("Requests/sec:"))?.trim().parse().ok()?,
            p99: Duration::from_secs_f64(number.parse::<f64>().ok()? * seconds),
            requests: lines().find_map(|line| line.split_once(" requests in "))?.0.parse().ok()?,
        })
    }
}

/// Processor time of a process so far, from `/proc`, in clock ticks of 10 ms.
fn processor(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().context("a process has a name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

fn figures(kind: &Kind, base: Option<&Kind>, budget: Option<f64>) -> Vec<Row> {
    let figure = |what: &str, unit, value: fn(&Slice) -> f64, budget: Option<f64>| Row {
        name: format!("{}: {what}", kind.name),
        value: median(kind.slices.iter().map(value)),
        unit,
        compared_with: base.map(|base| base.name.to_owned()),
        ratio: base.map(|base| paired(kind, base, value)),
        budget: budget.map(|budget| format!("≥ {budget}")),
        met: budget.zip(base).map(|(budget, base)| paired(kind, base, value) >= budget),
    };
    vec![
        figure("requests/s", "1/s", |slice| slice.per_second, budget),
        figure("p99", "ms", |slice| slice.p99.as_secs_f64() * 1e3, None),
        figure("Envoy's CPU per request", "µs", |slice| slice.cpu, None),
        figure("Envoy's share of its core", "", |slice| slice.busy, None),
    ]
}

/// The median of the ratios within each round.
fn paired(kind: &Kind, base: &Kind, value: fn(&Slice) -> f64) -> f64 {
    median(kind.slices.iter().zip(&base.slices).map(|(slice, base)| value(slice) / value(base)))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The settings of tidegate's own listener, route and cluster that cost something per request, with no filter but the router.
fn without_filter(listener: SocketAddr, upstream: SocketAddr) -> String {
    let (ip, port) = (listener.ip(), listener.port());
    let (to_ip, to_port) = (upstream.ip(), upstream.port());
    format!(
        r#"
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
static_resources:
  listeners:
  - name: web
    address: {{ socket_address: {{ address: "{ip}", port_value: {port} }} }}
    per_connection_buffer_limit_bytes: 32768
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: web
          use_remote_address: true
          normalize_path: true
          merge_slashes: true
          path_with_escaped_slashes_action: UNESCAPE_AND_REDIRECT
          common_http_protocol_options: {{ idle_timeout: 3600s, headers_with_underscores_action: REJECT_REQUEST }}
          stream_idle_timeout: 300s
          request_headers_timeout: 10s
          early_header_mutation_extensions:
          - name: strip
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
              mutations:
              - remove_on_match: {{ key_matcher: {{ prefix: x-tg-, ignore_case: true }} }}
              - remove_on_match: {{ key_matcher: {{ prefix: x-tidegate-, ignore_case: true }} }}
          route_config:
            ignore_port_in_host_matching: true
            virtual_hosts:
            - name: plain
              domains: [ off.localhost ]
              routes:
              - match: {{ prefix: "/", headers: [ {{ name: ":method", string_match: {{ safe_regex: {{ regex: "GET|HEAD|OPTIONS" }} }} }} ] }}
                route:
                  cluster: plain
                  timeout: 0s
                  retry_policy:
                    retry_on: connect-failure,refused-stream,reset-before-request,reset
                    num_retries: 2
                    host_selection_retry_max_attempts: 5
                    retry_host_predicate:
                    - name: envoy.retry_host_predicates.previous_hosts
                      typed_config: {{ "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: plain
    type: STATIC
    connect_timeout: 0.5s
    lb_policy: LEAST_REQUEST
    common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}
    outlier_detection: {{ split_external_local_origin_errors: true }}
    circuit_breakers: {{ thresholds: [ {{ max_connections: 10000, max_pending_requests: 10000, max_requests: 50000 }} ] }}
    load_assignment: {{ cluster_name: plain, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: "{to_ip}", port_value: {to_port} }} }} }} }} ] }} ] }}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_rounds() {
        let slice = |per_second| Slice { per_second, p99: Duration::ZERO, cpu: 1.0, busy: 1.0 };
        let kind = |values: [f64; 3]| Kind {
            name: "k",
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            host: String::new(),
            envoy: 0,
            slices: values.map(slice).into(),
        };
        let ratio = paired(&kind([80.0, 9.0, 170.0]), &kind([100.0, 10.0, 200.0]), |slice| slice.per_second);
        assert!((ratio - 0.85).abs() < 1e-9, "{ratio}");
    }

    #[test]
    fn what_wrk_says_is_read() {
        let text = "  Latency Distribution\n     50%    1.10ms\n     99%    3.80ms\n  31172 requests in 2.00s, 5.10MB read\nRequests/sec:  15586.11\n";
        let said = Said { per_second: 15586.11, p99: Duration::from_micros(3_800), requests: 31172.0 };
        assert_eq!(Said::parse(text), Some(said));
        assert_eq!(Said::parse("unable to connect"), None);
    }

    #[test]
    fn processor_time_is_read() {
        assert!(processor(std::process::id()).is_ok());
    }
}
