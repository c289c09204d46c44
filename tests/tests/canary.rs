//! A canary through the filter: exact, sticky, out of clients' reach, and never the cause of a failure. Real dockerd, real Envoy,
//! the real `.wasm`.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tidegate_filter_core::{BUCKETS, bucket, pick};
use tidegate_tests::{
    client::Request,
    edge::{Edge, backend, host},
    engine::{Container, Engine},
    envoy,
    load::{Ask, Load},
    poll::{SOON, until},
};

struct Canary {
    edge: Edge,
    engine: Engine,
    service: String,
    containers: Vec<Container>,
}

impl Canary {
    /// A service with these versions (a container for each mention), v1 stable and v2 the canary with `percent`.
    async fn start(name: &str, versions: &[&str], percent: &str, arguments: &[&str]) -> Result<Self> {
        let engine = Engine::connect().await?;
        let service = engine.unique(name);
        let edge = Edge::start_with(&engine, &declared(&service, percent), arguments).await?;
        let mut containers = Vec::new();
        for version in versions {
            containers.push(engine.run(backend(&service, version)).await?);
        }
        let canary = Self { edge, engine, service, containers };
        for version in ["v1", "v2"] {
            canary.edge.healthy(&canary.cluster(version), versions.iter().filter(|v| **v == version).count()).await?;
        }
        Ok(canary)
    }

    fn host(&self) -> String {
        host(&self.service)
    }

    fn cluster(&self, version: &str) -> String {
        format!("{}/{version}", self.service)
    }

    async fn weight(&self, percent: &str, basis_points: u32) -> Result<()> {
        self.edge.declare(&declared(&self.service, percent))?;
        self.edge.weighs(&self.service, "v2", basis_points).await
    }

    async fn versions(&self, keys: u64) -> Result<BTreeMap<String, String>> {
        self.edge.versions_of_keys(&self.host(), keys).await
    }

    /// How many requests Envoy sent, by version.
    async fn counted(&self) -> Result<BTreeMap<&'static str, u64>> {
        let stats = self.edge.envoy.stats("upstream_rq_total").await?;
        let counter = |version| format!("cluster.{}.upstream_rq_total", self.cluster(version));
        Ok(["v1", "v2"].map(|version| (version, stats.get(&counter(version)).copied().unwrap_or(0))).into())
    }

    /// Where `filter/core` says that the keys land.
    fn predicted(&self, keys: u64, basis_points: u32) -> BTreeMap<String, String> {
        let weights = [BUCKETS - basis_points, basis_points];
        (0..keys)
            .map(|n| {
                let key = format!("key-{n}");
                let version = pick(&weights, bucket(&self.service, "v2", key.as_bytes()));
                (key, ["v1", "v2"][version.expect("the weights sum to 10,000")].to_owned())
            })
            .collect()
    }
}

fn declared(service: &str, percent: &str) -> String {
    format!(
        "{{ \"{service}\": {{ stable: {{ version: v1 }}, canary: {{ version: v2, weight: {percent}, \
         sessionAffinity: {{ hashOn: [ {{ header: X-User }}, {{ sourceIp: true }} ] }} }} }} }}"
    )
}

#[tokio::test]
async fn twenty_thousand_keys_land_exactly_where_the_pure_crate_says() -> Result<()> {
    const KEYS: u64 = 20_000;
    let canary = Canary::start("exact", &["v1", "v2"], "0", &[]).await?;
    let mut before: Option<BTreeMap<String, String>> = None;
    for (percent, basis_points) in
        [("0", 0), ("0.01", 1), ("1", 100), ("10", 1_000), ("50", 5_000), ("99.99", 9_999), ("100", 10_000)]
    {
        canary.weight(percent, basis_points).await?;
        let now = canary.versions(KEYS).await?;
        let predicted = canary.predicted(KEYS, basis_points);
        let wrong: Vec<_> = now.iter().filter(|(key, version)| predicted[*key] != **version).take(3).collect();
        ensure!(wrong.is_empty(), "at {percent} % these landed elsewhere: {wrong:?}");
        if let Some(before) = before {
            let left = before.iter().filter(|(key, version)| *version == "v2" && now[*key] != "v2").count();
            ensure!(left == 0, "{left} clients left the canary as it grew to {percent} %");
        }
        before = Some(now);
    }
    // Asked again, nobody is elsewhere; and Envoy's own count per version is what clients saw.
    canary.weight("10", 1_000).await?;
    let counted = canary.counted().await?;
    let seen = canary.versions(2_000).await?;
    for version in ["v1", "v2"] {
        let expected = seen.values().filter(|seen| *seen == version).count() as u64;
        let (before, after) = (counted[version], canary.counted().await?[version]);
        ensure!(after - before == expected, "{version}: counted {}, seen {expected}", after - before);
    }
    assert_eq!(canary.versions(2_000).await?, canary.predicted(2_000, 1_000));
    assert_eq!(canary.versions(2_000).await?, canary.predicted(2_000, 1_000));
    // Who was the canary's is stable's after an abort, and nobody else has moved.
    canary.edge.cli().run(["canary", "abort", &canary.service]).await?.ok()?;
    canary.edge.weighs(&canary.service, "v2", 0).await?;
    assert_eq!(canary.versions(2_000).await?, canary.predicted(2_000, 0));
    Ok(())
}

#[tokio::test]
async fn forged_headers_do_nothing() -> Result<()> {
    let canary = Canary::start("forged", &["v1", "v2"], "10", &[]).await?;
    canary.edge.weighs(&canary.service, "v2", 1_000).await?;
    let ask = |n: u64| {
        let key = format!("key-{n}");
        let forged = if n.is_multiple_of(2) { "9999" } else { "0" };
        Ask::get("/")
            .header("x-user", &key)
            .header("x-tg-rand", forged)
            .header("X-TG-Version", "canary")
            .header("x-tidegate-version", "v2")
            .header("connection", "x-tg-rand")
            .key(&key)
    };
    let report = Load::get(canary.edge.listener, &canary.host(), "/").closed(8).requests(10_000).duration(SOON);
    let report = report.asking(ask).run().await?;
    report.all_succeeded()?;
    let predicted = canary.predicted(10_000, 1_000);
    for (key, versions) in report.versions_by_key() {
        ensure!(versions.iter().eq([&predicted[&key]]), "{key} reached {versions:?}");
    }
    // And none of them reaches an application.
    let echo = Request::get(canary.edge.listener, "/echo").host(&canary.host()).header("x-user", "a");
    let echo = echo.header("x-tg-anything", "1").header("x-tidegate-reason", "2").send().await?.text().to_lowercase();
    ensure!(!echo.contains("x-tg-anything") && !echo.contains("x-tidegate-"), "{echo}");
    Ok(())
}

#[tokio::test]
async fn without_its_header_a_client_is_kept_by_its_address() -> Result<()> {
    let canary = Canary::start("address", &["v1", "v2"], "50", &[]).await?;
    canary.edge.weighs(&canary.service, "v2", 5_000).await?;
    let report = Load::get(canary.edge.listener, &canary.host(), "/").closed(4).requests(500).run().await?;
    report.all_succeeded()?;
    let weights = [5_000, 5_000];
    let expected = ["v1", "v2"][pick(&weights, bucket(&canary.service, "v2", b"127.0.0.1")).expect("weights")];
    assert_eq!(report.by_version(), [(expected.to_owned(), 500)].into());
    Ok(())
}

#[tokio::test]
async fn an_emptied_canary_is_served_by_stable_and_nobody_else_moves() -> Result<()> {
    let canary = Canary::start("empty", &["v1", "v1", "v2"], "30", &[]).await?;
    canary.edge.weighs(&canary.service, "v2", 3_000).await?;
    assert_eq!(canary.versions(3_000).await?, canary.predicted(3_000, 3_000));

    let host = canary.host();
    let load = Load::get(canary.edge.listener, &host, "/").rate(300.0, 16).requests(2_400).duration(SOON);
    let load =
        load.asking(|n| Ask::get("/").header("x-user", &format!("key-{}", n % 500)).key(&format!("key-{}", n % 500)));
    let load = load.start();
    until(SOON, "some load", async || {
        ensure!(load.done() > 500, "{}", load.done());
        Ok(())
    })
    .await?;
    canary.containers[2].control("ready=false").await?;
    canary.edge.healthy(&canary.cluster("v2"), 0).await?;
    let everyone = canary.versions(1_000).await?;
    ensure!(everyone.values().all(|version| version == "v1"), "someone was not served by stable");
    canary.containers[2].control("ready=true").await?;
    canary.edge.healthy(&canary.cluster("v2"), 1).await?;
    let report = load.wait().await?;
    report.all_succeeded()?;
    let predicted = canary.predicted(500, 3_000);
    for (key, versions) in report.versions_by_key() {
        ensure!(predicted[&key] != "v1" || versions.iter().eq(["v1"]), "{key} is stable's and reached {versions:?}");
    }
    assert_eq!(canary.versions(3_000).await?, canary.predicted(3_000, 3_000), "who left comes back");
    Ok(())
}

#[tokio::test]
async fn one_of_two_canary_hosts_drained_moves_nobody() -> Result<()> {
    let canary = Canary::start("half", &["v1", "v2"], "40", &[]).await?;
    // This one goes on serving for a while after it was told to stop: it is DRAINING meanwhile.
    let slow = backend(&canary.service, "v2").env("TERM", "graceful").env("TERM_DELAY_MS", "3000");
    let slow = canary.engine.run(slow).await?;
    canary.edge.healthy(&canary.cluster("v2"), 2).await?;
    canary.edge.weighs(&canary.service, "v2", 4_000).await?;
    assert_eq!(canary.versions(2_000).await?, canary.predicted(2_000, 4_000));
    slow.kill("SIGTERM").await?;
    canary.edge.healthy(&canary.cluster("v2"), 1).await?;
    assert_eq!(canary.versions(2_000).await?, canary.predicted(2_000, 4_000), "while it drains");
    slow.exit_code(SOON).await?;
    assert_eq!(canary.versions(2_000).await?, canary.predicted(2_000, 4_000), "after it ended");
    Ok(())
}

#[tokio::test]
async fn when_no_version_is_ready_the_filter_says_so() -> Result<()> {
    let canary = Canary::start("gate", &["v1", "v2"], "50", &[]).await?;
    for container in &canary.containers {
        container.control("ready=false").await?;
    }
    canary.edge.answers(&canary.host(), 503).await?;
    let refused = format!("wasmcustom.tidegate.service.{}.refused_total", canary.service);
    until(SOON, "a refusal by the filter", async || {
        let answer = canary.edge.get(&canary.host()).await?;
        ensure!(answer.status == 503, "{}", answer.status);
        ensure!(answer.header("x-tidegate-reason") == Some("no-ready-instance"), "{:?}", answer.headers);
        ensure!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
        let count = canary.edge.envoy.stats("refused_total").await?.get(&refused).copied().unwrap_or(0);
        ensure!(count > 0, "the filter refused nothing yet");
        Ok(())
    })
    .await?;
    canary.containers[0].control("ready=true").await?;
    canary.edge.answers(&canary.host(), 200).await?;
    Ok(())
}

#[tokio::test]
async fn a_filter_that_crashes_stops_no_traffic_and_heals() -> Result<()> {
    let wasm = crashing_filter()?;
    let canary = Canary::start("boom", &["v1", "v2"], "20", &["--filter-wasm", &wasm]).await?;
    canary.edge.weighs(&canary.service, "v2", 2_000).await?;
    assert_eq!(canary.versions(1_000).await?, canary.predicted(1_000, 2_000));

    // Every worker's filter, on fresh connections until none is left.
    for _ in 0..40 {
        let crash = Request::get(canary.edge.listener, "/").host(&canary.host());
        // The request that crashes it may fail; what comes after must not.
        let _ = crash.header("x-user", "a").header("x-crash-filter", "now").send().await;
    }
    let report = Load::get(canary.edge.listener, &canary.host(), "/").closed(4).requests(1_000);
    let report = report.asking(|n| Ask::get("/").header("x-user", &format!("key-{n}"))).run().await?;
    report.all_succeeded()?;

    until(SOON, "every key where it belongs again", async || {
        let (now, predicted) = (canary.versions(500).await?, canary.predicted(500, 2_000));
        let wrong = now.iter().filter(|(key, version)| predicted[*key] != **version).count();
        ensure!(wrong == 0, "{wrong} of 500 keys are elsewhere");
        Ok(())
    })
    .await?;
    ensure!(canary.edge.tidegate.process.log().contains("filter crashed"), "the control plane did not notice");
    Ok(())
}

/// The filter with the feature that lets a request crash it, built beside the one that is embedded.
fn crashing_filter() -> Result<String> {
    let workspace = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = workspace.join("target/crashing-filter");
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.current_dir(&workspace).args(["build", "--quiet", "--release", "--locked", "--package", "tidegate-filter"]);
    cargo.args(["--target", "wasm32-wasip1", "--features", "crash-header", "--target-dir"]).arg(&target);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    ensure!(cargo.status()?.success(), "the crashing filter cannot be built");
    Ok(target.join("wasm32-wasip1/release/tidegate_filter.wasm").display().to_string())
}

#[tokio::test]
async fn without_affinity_the_split_is_unsticky_and_needs_no_filter() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("plain");
    let declared =
        format!("{{ \"{service}\": {{ stable: {{ version: v1 }}, canary: {{ version: v2, weight: 50 }} }} }}");
    let edge = Edge::start(&engine, &declared).await?;
    let _containers = [engine.run(backend(&service, "v1")).await?, engine.run(backend(&service, "v2")).await?];
    edge.healthy(&format!("{service}/v1"), 1).await?;
    edge.healthy(&format!("{service}/v2"), 1).await?;
    edge.weighs(&service, "v2", 5_000).await?;
    let report = Load::get(edge.listener, &host(&service), "/").closed(4).requests(2_000);
    let report = report.duration(Duration::from_secs(30)).run().await?;
    report.all_succeeded()?;
    // Binomial(2,000, ½) leaves this range once in a billion runs.
    ensure!((0.43..0.57).contains(&report.share("v2")), "{:?}", report.by_version());
    Ok(())
}

/// Envoy would refuse every route for the sake of one pattern.
#[tokio::test]
async fn every_pattern_that_is_taken_envoy_takes_too() -> Result<()> {
    const ATOMS: [&str; 34] = [
        "a",
        "b-",
        "\\.",
        "\\-",
        "/",
        ".",
        "\\d",
        "\\W",
        "\\S",
        "\\x41",
        "\\x{7e}",
        "[a-z0-9]",
        "[^acegi]",
        "[]a]",
        "[^]a-]",
        "[[:punct:]]",
        "[[:^xdigit:]]",
        "[\\W\\s&~]",
        "[a&&b]",
        "(a|)",
        "(a|b|)",
        "(?P<n>c)",
        "(?i)k",
        "(?i-s:e.)",
        "(?x)",
        "^",
        "$",
        "\\b",
        "\\A",
        "\\<",
        "((a?)?)",
        "()",
        "(?:|)",
        "\\p{L}",
    ];
    const COUNTS: [&str; 14] =
        ["", "", "", "", "*", "+?", "??", "{3}", "{2,}", "{0,9}", "{1,33}?", "{32}", "{0}", "**"];
    let (mut seed, mut taken, mut refused) = (7_u64, Vec::new(), 0);
    let mut next = |of: &[&'static str]| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        of[usize::try_from(seed >> 33).unwrap_or_default() % of.len()]
    };
    for length in (1..=6).cycle().take(12_000) {
        let pattern: String = (0..length).flat_map(|_| [next(&ATOMS), next(&COUNTS)]).collect();
        let text = format!(
            "services: {{ s: {{ stable: {{ version: a }}, canary: {{ version: b, weight: 0, \
             match: {{ header: {{ name: x, pattern: {} }} }} }} }} }}",
            serde_json::to_string(&pattern)?
        );
        match tidegate_core::config::parse("f", &text) {
            Ok(_) => taken.push(pattern),
            Err(_) => refused += 1,
        }
    }
    ensure!(taken.len() > 2_000 && refused > 2_000, "{} are taken and {refused} are not", taken.len());
    let route = |pattern: &String| {
        let header = serde_json::json!({ "name": "x", "string_match": { "safe_regex": { "regex": pattern } } });
        serde_json::json!({ "match": { "prefix": "/", "headers": [header] }, "direct_response": { "status": 200 } })
    };
    let routes: Vec<_> = taken.iter().map(route).collect();
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let connections = serde_json::json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "patterns",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        "http_filters": [{ "name": "router", "typed_config": { "@type": router } }],
    });
    let listener = serde_json::json!({
        "name": "web",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [{ "name": "http", "typed_config": connections }] }],
    });
    envoy::validate(&serde_json::json!({ "static_resources": { "listeners": [listener] } }).to_string()).await
}

#[tokio::test]
async fn a_label_alone_makes_a_canary() -> Result<()> {
    const REQUESTS: u64 = 3_000;
    let engine = Engine::connect().await?;
    let service = engine.unique("labelled");
    let edge = Edge::start_with(&engine, "{}", &[]).await?;
    let _stable = engine.run(backend(&service, "v1")).await?;
    let canary = engine.run(backend(&service, "v2").label("tidegate.canary.weight", "20")).await?;
    for version in ["v1", "v2"] {
        edge.healthy(&format!("{service}/{version}"), 1).await?;
    }
    edge.weighs(&service, "v2", 2_000).await?;
    let seen = edge.versions_of_keys(&host(&service), REQUESTS).await?;
    let canaries = seen.values().filter(|version| *version == "v2").count();
    // 600 are expected; each is drawn anew, so that one in a million times it is not within five deviations of 22.
    ensure!((490..=710).contains(&canaries), "{canaries} of {REQUESTS} requests got the canary");
    canary.remove().await?;
    until(SOON, "everybody gets v1", async || {
        let seen = edge.versions_of_keys(&host(&service), 50).await?;
        ensure!(seen.values().all(|version| version == "v1"), "{seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_plan_says_what_a_file_would_do_and_does_nothing() -> Result<()> {
    let canary = Canary::start("planned", &["v1", "v2"], "10", &[]).await?;
    canary.edge.weighs(&canary.service, "v2", 1_000).await?;
    let (service, directory) = (&canary.service, tempfile::tempdir()?);
    let file = directory.path().join("next.yaml");
    let plan = async |services: &str, arguments: &[&str]| {
        fs::write(&file, format!("services: {services}"))?;
        let file = file.to_string_lossy();
        canary.edge.cli().run([&["canary", "plan", &file][..], arguments].concat()).await
    };
    for (services, said) in [
        (declared(service, "10"), "v2 goes on at 10 %".to_owned()),
        (
            declared(service, "2.5"),
            "v2 begins again at its first step, 10 % → 2.5 %: clients (7.5 % of all) return to v1".to_owned(),
        ),
        (
            format!("{{ \"{service}\": {{ stable: {{ version: v2 }} }} }}"),
            "v2 becomes stable: it gets everything, 90 % more".to_owned(),
        ),
        (
            declared(service, "5").replace("v2", "v9"),
            format!(
                "v9 takes the place of v2, which gets nothing first: its clients (10 % of all) return to v1; then v9 begins at 5 %\n\
                 {:width$}    warning: v9 has no instance: it waits until it has",
                "",
                width = service.len()
            ),
        ),
    ] {
        let output = plan(&services, &[]).await?;
        ensure!(output.code == 0 && output.stdout.contains(&said), "{said}: {output:?}");
    }
    let output = plan(&declared(service, "20"), &["-o", "json"]).await?;
    let foreseen: serde_json::Value = serde_json::from_str(&output.stdout)?;
    let of = foreseen["services"].as_array().and_then(|all| all.iter().find(|of| of["service"] == **service));
    let of = of.with_context(|| output.stdout.clone())?;
    assert_eq!(
        (&of["change"], &of["from"], &of["to"], &of["moved"]),
        (&"restarts".into(), &1_000.into(), &2_000.into(), &1_000.into())
    );
    // What is invalid is said as `validate` says it.
    let output = plan(&declared(service, "101"), &[]).await?;
    let path = file.to_string_lossy();
    let validated = canary.edge.cli().run(["validate", &*path]).await?;
    assert_eq!((output.code, &output.stdout), (1, &validated.stdout));
    ensure!(output.stdout.contains("error[TG0401]"), "{output:?}");
    // Nothing has happened.
    canary.edge.weighs(service, "v2", 1_000).await
}
