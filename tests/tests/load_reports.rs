//! What edges report of their load is what the load generator and the backends counted: over failures and retries, over a
//! control plane that comes and goes, and over two edges. Real dockerd, real Envoy.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::Value;
use tidegate_tests::{
    client::Request,
    edge::{Edge, backend, host},
    engine::{Container, Engine, Spec},
    load::{Ask, Load, Outcome, Report, Sample},
    poll::{SOON, until},
};

/// What was counted of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counted {
    issued: u64,
    successful: u64,
    error: u64,
}

struct World {
    edge: Edge,
    service: String,
    backends: Vec<Container>,
    _refusing: Container,
}

impl World {
    /// A stable version and a canary that gets half. One of two canary instances refuses connections; the other answers every
    /// fifth request with 500.
    async fn start(name: &str) -> Result<Self> {
        let engine = Engine::connect().await?;
        let service = engine.unique(name);
        let declared = format!(
            "{{ \"{service}\": {{ stable: {{ version: v1 }}, canary: {{ version: v2, weight: 50, \
             sessionAffinity: {{ hashOn: [ {{ header: X-User }} ] }} }} }} }}"
        );
        let edge = Edge::start(&engine, &declared).await?;
        let mut backends = Vec::new();
        for version in ["v1", "v2"] {
            backends.push(engine.run(backend(&service, version)).await?);
        }
        // Nothing listens there, and nobody checks.
        let refusing = Spec::sample("refusing")
            .label("tidegate.enable", "true")
            .label("tidegate.service", &service)
            .label("tidegate.host", &host(&service))
            .label("tidegate.version", "v2")
            .label("tidegate.port", "9")
            .label("tidegate.check.type", "none");
        let refusing = engine.run(refusing).await?;
        backends[1].control("errors=20").await?;
        edge.healthy(&format!("{service}/v1"), 1).await?;
        edge.healthy(&format!("{service}/v2"), 2).await?;
        edge.weighs(&service, "v2", 5_000).await?;
        // Who is connected is told with its next report.
        let faster = edge.file(&declared).replace("xds: { ", "xds: { loadReportInterval: 1s, ");
        edge.tidegate.reconfigure(&faster)?;
        let world = Self { edge, service, backends, _refusing: refusing };
        world.tracked(1).await?;
        Ok(world)
    }

    async fn report(&self) -> Result<Value> {
        self.edge.cli().json(["envoy", "load"]).await
    }

    /// Waits until so many edges report both versions, every second. What Envoy reports by name, it counts.
    async fn tracked(&self, edges: u64) -> Result<()> {
        until(SOON, &format!("reports of {edges} edge(s)"), async || {
            let report = self.report().await?;
            ensure!(report["intervalMillis"] == 1000, "{}", report["intervalMillis"]);
            for version in ["v1", "v2"] {
                let reporting = version_of(&report, &self.service, version)?["edges"].as_u64();
                ensure!(reporting == Some(edges), "{version}: {reporting:?}");
            }
            Ok(())
        })
        .await
    }

    /// So many clients, one request each.
    fn load(&self, requests: u64) -> Load {
        let load = Load::get(self.edge.listener, &host(&self.service), "/").closed(4).requests(requests).duration(SOON);
        load.asking(|n| Ask::get("/").header("x-user", &format!("key-{n}")))
    }

    /// Waits until the reported totals of a version are these.
    async fn totals(&self, version: &str, expected: Counted) -> Result<()> {
        until(SOON, &format!("reported load of {version}"), async || {
            let report = self.report().await?;
            let total = counted(&version_of(&report, &self.service, version)?["total"])?;
            ensure!(total == expected, "{total:?} instead of {expected:?}");
            Ok(())
        })
        .await
    }

    /// Requests that Envoy could not send, as the cluster's own counter says.
    async fn refused(&self) -> Result<u64> {
        self.edge.envoy.stat(&format!("cluster.{}/v2.upstream_rq_pending_failure_eject", self.service)).await
    }

    async fn requests_of_backend(&self, index: usize) -> Result<u64> {
        let described = self.backends[index].get("/control").await?.json()?;
        described["requests"].as_u64().context("a count of requests")
    }

    async fn metric(&self, labels: &str) -> Result<u64> {
        let url = format!("{}/metrics", self.edge.cli().api.context("an API")?);
        let text = Request::url(Method::GET, &url)?.send().await?.text();
        let name = format!("tidegate_upstream_requests_total{{service=\"{}\",{labels}}} ", self.service);
        let line = text.lines().find_map(|line| line.strip_prefix(&name));
        Ok(line.with_context(|| format!("no {name} in\n{text}"))?.parse()?)
    }
}

fn version_of<'a>(report: &'a Value, service: &str, version: &str) -> Result<&'a Value> {
    let named = |list: &'a Value, name: &str| list.as_array().into_iter().flatten().find(|of| of["name"] == name);
    let service = named(&report["services"], service).with_context(|| format!("no {service} in {report}"))?;
    named(&service["versions"], version).with_context(|| format!("no {version} in {report}"))
}

fn counted(value: &Value) -> Result<Counted> {
    let of = |key: &str| value[key].as_u64().with_context(|| format!("no {key} in {value}"));
    Ok(Counted { issued: of("issued")?, successful: of("successful")?, error: of("error")? })
}

/// What clients saw of a version.
fn seen(report: &Report, version: &str) -> Counted {
    let of_version: Vec<&Sample> = report.samples.iter().filter(|sample| sample.version() == Some(version)).collect();
    let successful = of_version.iter().filter(|sample| sample.outcome.is_success()).count() as u64;
    let error = of_version.iter().filter(|sample| sample.outcome == Outcome::Status(500)).count() as u64;
    Counted { issued: of_version.len() as u64, successful, error }
}

fn sum(one: Counted, other: Counted) -> Counted {
    Counted {
        issued: one.issued + other.issued,
        successful: one.successful + other.successful,
        error: one.error + other.error,
    }
}

/// Every request was answered by a version, with 200 or 500.
fn whole(report: &Report, v1: Counted, v2: Counted) -> Result<()> {
    let answered = [v1, v2].map(|of| of.successful + of.error).iter().sum::<u64>();
    ensure!(answered == report.count() as u64 && v1.error == 0 && v2.error > 0, "{v1:?} {v2:?} of {report}");
    Ok(())
}

#[tokio::test]
async fn reported_load_is_what_the_load_generator_and_the_backends_counted() -> Result<()> {
    let world = World::start("counted").await?;
    let report = world.load(600).run().await?;
    let (v1, v2) = (seen(&report, "v1"), seen(&report, "v2"));
    whole(&report, v1, v2)?;
    assert_eq!((v1.issued, v2.issued), (world.requests_of_backend(0).await?, world.requests_of_backend(1).await?));
    let refused = world.refused().await?;
    ensure!(refused > 0, "nobody met the instance that refuses connections");
    world.totals("v1", v1).await?;
    // A try without a connection is an error that was not issued.
    let v2 = Counted { error: v2.error + refused, ..v2 };
    world.totals("v2", v2).await?;
    assert_eq!(world.metric("version=\"v1\",outcome=\"successful\"").await?, v1.successful);
    assert_eq!(world.metric("version=\"v2\",outcome=\"successful\"").await?, v2.successful);
    assert_eq!(world.metric("version=\"v2\",outcome=\"error\"").await?, v2.error);

    // What is under way is shown as long as it is.
    world.backends[0].control("delay_ms=60000").await?;
    let slow = Load::get(world.edge.listener, &host(&world.service), "/").requests(40).closed(40);
    let slow = slow.timeout(Duration::from_secs(60)).duration(Duration::from_secs(60));
    let slow = slow.asking(|n| Ask::get("/").header("x-user", &format!("slow-{n}"))).start();
    until(SOON, "requests under way", async || {
        let report = world.report().await?;
        let now = version_of(&report, &world.service, "v1")?["inProgress"].as_u64();
        ensure!(now.is_some_and(|now| now + slow.done() == 40), "{now:?} and {} done", slow.done());
        Ok(())
    })
    .await?;
    drop(slow);
    until(SOON, "nothing under way", async || {
        let report = world.report().await?;
        let now = &version_of(&report, &world.service, "v1")?["inProgress"];
        ensure!(now == 0, "{now}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn figures_go_on_after_the_control_plane_came_back_and_add_up_over_edges() -> Result<()> {
    let mut world = World::start("again").await?;
    let before = world.load(200).run().await?;
    let refused_before = world.refused().await?;
    let v2 = seen(&before, "v2");
    world.totals("v2", Counted { error: v2.error + refused_before, ..v2 }).await?;
    world.totals("v1", seen(&before, "v1")).await?;

    // Another control plane begins at zero, and has all that it did not see, once.
    let load = world.load(200);
    let World { edge, service, backends, _refusing } = world;
    let mut meanwhile = None;
    let edge = edge.without_control_plane(async { meanwhile = Some(load.run().await) }).await?;
    let meanwhile = meanwhile.context("the load has run")??;
    world = World { edge, service, backends, _refusing };
    world.tracked(1).await?;
    let refused = world.refused().await?;
    let (v1, v2) = (seen(&meanwhile, "v1"), seen(&meanwhile, "v2"));
    whole(&meanwhile, v1, v2)?;
    world.totals("v1", v1).await?;
    world.totals("v2", Counted { error: v2.error + refused - refused_before, ..v2 }).await?;

    let two = world.edge.second_envoy().await?;
    world.tracked(2).await?;
    let mut load = world.load(200);
    load.keep_alive = false;
    let both = load.run().await?;
    let stat = format!("cluster.{}/v1.upstream_rq_completed", world.service);
    let of_two = two.stat(&stat).await?;
    let more = seen(&both, "v1");
    ensure!(of_two > 0 && of_two < more.issued, "the second edge had {of_two} of {} requests", more.issued);
    world.totals("v1", sum(v1, more)).await?;
    // One that is gone leaves what it reported.
    drop(two);
    until(SOON, "one edge", async || {
        let edges = world.report().await?["edges"].as_array().map_or(0, Vec::len);
        ensure!(edges == 1, "{edges}");
        Ok(())
    })
    .await?;
    world.totals("v1", sum(v1, more)).await
}
