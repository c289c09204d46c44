//! What the filter costs: requests a second and Envoy's processor time for each, on one saturated worker before a trivial
//! upstream, beside no filter and beside what Envoy has of its own. All kinds take turns, and what counts is the median of the
//! ratios within each turn.

use std::{fs, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use tidegate_figures::Row;
use tidegate_filter_core::{BUCKETS, bucket, pick};
use tokio::time::Instant;

use crate::{
    client::Request,
    edge::{Edge, backend, host},
    engine::{Engine, Network},
    envoy::{Envoy, Options},
    poll::SOON,
    ports,
};

/// Slices of load, each kind in turn, so that what the machine does meanwhile meets all kinds alike.
const ROUNDS: usize = 10;
const SLICE: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 32;

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
    user: String,
    envoy: u32,
    slices: Vec<Slice>,
}

/// The share of the canary, in basis points.
const SHARE: u32 = 1_000;

pub(super) async fn run(engine: &Engine, network: &Network) -> Result<Vec<Row>> {
    let declared = |service: &str, more: &str| {
        format!("{service}: {{ stable: {{ version: v1 }}, canary: {{ version: v2, weight: 10{more} }} }}")
    };
    let affinity = ", sessionAffinity: { hashOn: [ { header: X-User } ] }";
    let declared = [
        // Without affinity Envoy draws, and the filter is off.
        declared("drawn", ""),
        declared("sticky", affinity),
        declared("armed", &format!("{affinity}, breaker: {{}}")),
    ];
    let edge = Edge::start_at(&engine.direct(), &format!("{{ {} }}", declared.join(", ")), &[], 1).await?;
    let mut containers = Vec::new();
    for service in ["drawn", "sticky", "armed"] {
        for version in ["v1", "v2"] {
            containers.push(engine.run(backend(service, version).network(network)).await?);
            edge.healthy(&format!("{service}/{version}"), 1).await?;
        }
        edge.weighs(service, "v2", SHARE).await?;
    }
    let off = engine.run(backend("off", "v1").network(network)).await?;
    edge.healthy("off/v1", 1).await?;
    let listener = ports::free()?;
    let upstreams = [off.address().await?, containers[0].address().await?, containers[1].address().await?];
    let mut none = Envoy::start_with(&without_filter(listener, upstreams), &Options::default()).await?;
    none.ready(SOON).await?;
    // The script has the same clients on the canary as the filter would.
    for n in 0..200 {
        let key = format!("user-{n}");
        let answer = Request::get(listener, "/version").host(&host("lua")).header("x-user", &key).send().await?;
        let expected = if lands("lua", &key) == Some(1) { "v2" } else { "v1" };
        ensure!(answer.text().trim() == expected, "{key}: {}", answer.text());
    }
    // Envoy alone on one core; clients, backends and this program share the other.
    for (process, core) in [(edge.envoy.process.pid(), "0"), (none.process.pid(), "0"), (std::process::id(), "1")] {
        let pinned = Command::new("taskset").args(["-acp", core, &process.to_string()]).output();
        ensure!(pinned.is_ok_and(|output| output.status.success()), "taskset (util-linux) cannot pin {process}");
    }
    let of = |name, (address, envoy): (SocketAddr, u32), service: &str, user: &str| Kind {
        name,
        address,
        host: host(service),
        user: user.to_owned(),
        envoy,
        slices: Vec::new(),
    };
    let (bare, ours) = ((listener, none.process.pid()), (edge.listener, edge.envoy.process.pid()));
    let (stable, canary) = (user("armed", 0), user("armed", 1));
    let mut kinds = [
        of("no filter in the chain", bare, "off", "somebody"),
        of("filter off on the route", ours, "off", "somebody"),
        of("filter off on the route of a split", ours, "drawn", "somebody"),
        of("sticky canary", ours, "sticky", "somebody"),
        of("with breaker, stable's client", ours, "armed", &stable),
        of("with breaker, the canary's client", ours, "armed", &canary),
        of("Envoy's hash policy", bare, "hash", "somebody"),
        of("Lua that does what sticky does", bare, "lua", "somebody"),
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
    let [base, others @ ..] = kinds;
    let budgets = [Some(0.95), None, Some(0.83), Some(0.74), None, None, None];
    let mut rows = figures(&base, None, None);
    for (kind, budget) in others.iter().zip(budgets) {
        rows.extend(figures(kind, Some(&base), budget));
    }
    Ok(rows)
}

/// A key of the version at this place, stable or canary.
fn user(service: &str, version: usize) -> String {
    (0..).map(|n| format!("user-{n}")).find(|key| lands(service, key) == Some(version)).unwrap_or_default()
}

fn lands(service: &str, key: &str) -> Option<usize> {
    pick(&[BUCKETS - SHARE, SHARE], bucket(service, "v2", key.as_bytes()))
}

/// One slice by `wrk`, which is faster than Envoy's one worker: what is compared is Envoy.
fn measure(kind: &Kind) -> Result<Slice> {
    let duration = format!("-d{}s", SLICE.as_secs());
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", &format!("-c{CONNECTIONS}"), &duration, "--latency", "-H", &format!("Host: {}", kind.host)]);
    wrk.args(["-H", &format!("X-User: {}", kind.user), &format!("http://{}/version", kind.address)]);
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
pub(super) fn processor(pid: u32) -> Result<Duration> {
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

/// The hash of the filter in Lua, and what it does with it.
const LUA: &str = r#"
local bit = require("bit")
local band, bxor, rol, rsh = bit.band, bit.bxor, bit.rol, bit.rshift
local function mul(a, b)
  return band(band(a, 0xffff) * b + bit.lshift(band(rsh(a, 16) * band(b, 0xffff), 0xffff), 16), 0xffffffff)
end
local function murmur3(text)
  local h, n = 0, #text
  for i = 1, n - n % 4, 4 do
    local a, b, c, d = text:byte(i, i + 3)
    local k = bit.bor(a, bit.lshift(b, 8), bit.lshift(c, 16), bit.lshift(d, 24))
    h = bxor(h, mul(rol(mul(k, 0xcc9e2d51), 15), 0x1b873593))
    h = band(mul(rol(h, 13), 5) + 0xe6546b64, 0xffffffff)
  end
  local k, rest = 0, n % 4
  for i = rest, 1, -1 do k = bit.bor(bit.lshift(k, 8), text:byte(n - rest + i)) end
  h = bxor(h, mul(rol(mul(k, 0xcc9e2d51), 15), 0x1b873593))
  h = bxor(h, n)
  h = mul(bxor(h, rsh(h, 16)), 0x85ebca6b)
  h = mul(bxor(h, rsh(h, 13)), 0xc2b2ae35)
  return bxor(h, rsh(h, 16)) % 4294967296
end
function envoy_on_request(handle)
  local user = handle:headers():get("x-user")
  if user then handle:headers():replace("x-tg-rand", tostring(murmur3("lua:v2:" .. user) % 10000)) end
end
"#;

/// The settings of tidegate's own listener, route and cluster that cost something per request, with no filter but the router; and
/// two more hosts with Envoy's own means of keeping clients: its hash policy, and a script in Lua.
fn without_filter(listener: SocketAddr, upstreams: [SocketAddr; 3]) -> String {
    let (ip, port) = (listener.ip(), listener.port());
    let clusters: String = ["plain", "v1", "v2"].iter().zip(upstreams).map(|(name, to)| cluster(name, to)).collect();
    let lua = serde_json::Value::from(LUA);
    let weights = format!("[ {{ name: v1, weight: {} }}, {{ name: v2, weight: {SHARE} }} ]", BUCKETS - SHARE);
    let retries = "retry_on: \"connect-failure,refused-stream,reset-before-request,reset\", num_retries: 2";
    let of = |host: &str, weighted: &str, more: &str| {
        format!(
            r#"
            - name: {host}
              domains: [ {host}.localhost ]
              routes:
              - match: {{ prefix: "/", headers: [ {{ name: ":method", string_match: {{ safe_regex: {{ regex: "GET|HEAD|OPTIONS" }} }} }} ] }}
                route: {{ weighted_clusters: {{ {weighted}, clusters: {weights} }}, timeout: 0s, retry_policy: {{ {retries} }}{more}"#
        )
    };
    let hash = of("hash", "use_hash_policy: true", ", hash_policy: [ { header: { header_name: x-user } } ] }");
    let script = of(
        "lua",
        "header_name: x-tg-rand",
        " }\n                typed_per_filter_config: { lua: { \"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {} } }",
    );
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
                      typed_config: {{ "@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate }}{hash}{script}
          http_filters:
          - name: lua
            disabled: true
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code: {{ inline_string: {lua} }}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
{clusters}"#
    )
}

fn cluster(name: &str, to: SocketAddr) -> String {
    let (to_ip, to_port) = (to.ip(), to.port());
    format!(
        r#"  - name: {name}
    type: STATIC
    connect_timeout: 0.5s
    lb_policy: LEAST_REQUEST
    common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}
    outlier_detection: {{ split_external_local_origin_errors: true }}
    circuit_breakers: {{ thresholds: [ {{ max_connections: 10000, max_pending_requests: 10000, max_requests: 50000 }} ] }}
    load_assignment: {{ cluster_name: {name}, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {{ socket_address: {{ address: "{to_ip}", port_value: {to_port} }} }} }} }} ] }} ] }}
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
            user: String::new(),
            envoy: 0,
            slices: values.map(slice).into(),
        };
        let ratio = paired(&kind([80.0, 9.0, 170.0]), &kind([100.0, 10.0, 200.0]), |slice| slice.per_second);
        assert!((ratio - 0.85).abs() < 1e-9, "{ratio}");
    }

    #[tokio::test]
    async fn envoy_takes_what_it_is_compared_with() {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        crate::envoy::validate(&without_filter(addresses[0], addresses)).await.unwrap();
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
