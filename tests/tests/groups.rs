//! Groups of nodes: two real Envoys of different clusters at one control plane, over files of instances. Each has only what its
//! group has, and a change of the groups moves what it says and disturbs nothing else.

use std::{fs, net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_tests::{
    client::Request,
    edge::{Local, host},
    envoy::{Envoy, Options},
    load::{Ask, Load},
    poll::{SOON, until},
    ports,
    tidegate::{Cli, Tidegate},
};

/// A control plane with two listeners, whose Envoys are started one by one.
struct Plane {
    tidegate: Tidegate,
    files: TempDir,
    settings: Settings,
}

struct Settings {
    web: SocketAddr,
    internal: SocketAddr,
    xds: SocketAddr,
    api: SocketAddr,
    instances: PathBuf,
}

impl Settings {
    /// The configuration where the outer edges get these services, and the inner ones those.
    fn file(&self, outer: &str, inner: &str) -> String {
        self.with(&format!(
            "{{ name: outer, nodes: {{ cluster: outer }}, listeners: [ web ], services: [ {outer} ] }}, \
             {{ name: inner, nodes: {{ cluster: inner, metadata: {{ tier: inside }} }}, listeners: [ internal ], \
             services: [ {inner} ] }}"
        ))
    }

    fn with(&self, groups: &str) -> String {
        let Self { web, internal, xds, api, instances } = self;
        format!(
            "edge:\n  listeners: [ {{ name: web, address: \"{web}\" }}, {{ name: internal, address: \"{internal}\" }} ]\n  \
             groups: [ {groups} ]\nxds: {{ address: \"{xds}\" }}\napi: {{ address: \"{api}\" }}\n\
             providers: {{ docker: {{ enabled: false }}, file: {{ path: \"{}\" }} }}\n",
            instances.display()
        )
    }
}

impl Plane {
    async fn start(entries: &[String], outer: &str, inner: &str) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let settings = Settings {
            web: ports::free()?,
            internal: ports::free()?,
            xds: ports::free()?,
            api: ports::free()?,
            instances: files.path().join("instances.yaml"),
        };
        fs::write(&settings.instances, entries.concat())?;
        let tidegate = Tidegate::run(&settings.file(outer, inner))?;
        let mut plane = Self { tidegate, files, settings };
        plane.answers().await?;
        Ok(plane)
    }

    async fn answers(&mut self) -> Result<()> {
        self.tidegate.answers(&format!("http://{}/healthz", self.settings.api)).await
    }

    fn cli(&self) -> Cli {
        self.tidegate.cli(&format!("http://{}", self.settings.api))
    }

    /// A live Envoy whose node has this id, and what else it says.
    async fn envoy(&self, id: &str, said: &[&str]) -> Result<Envoy> {
        let words = ["envoy", "bootstrap", "--config", "tidegate.yaml", "--admin", "127.0.0.1:0", "--node-id", id];
        let bootstrap = self.cli().run(words.iter().chain(said)).await?.ok()?.stdout;
        let mut envoy = Envoy::start_with(&bootstrap, &Options::default()).await?;
        envoy.ready(SOON).await?;
        Ok(envoy)
    }

    async fn outer(&self) -> Result<Envoy> {
        self.envoy("left", &["--node-cluster", "outer"]).await
    }

    async fn inner(&self) -> Result<Envoy> {
        let said = ["--node-cluster", "inner", "--node-metadata", "tier=inside", "--node-metadata", "more=1"];
        self.envoy("right", &said).await
    }

    /// The connected edge of this id, as `tidegate envoy ls` has it.
    async fn edge(&self, id: &str) -> Result<Value> {
        let seen = self.cli().json(["envoy", "ls"]).await?;
        let edges = seen["edges"].as_array().cloned().unwrap_or_default();
        edges.into_iter().find(|edge| edge["node"] == id).with_context(|| format!("no edge {id}: {seen}"))
    }

    /// What `explain` answers, and whether it found a problem.
    async fn explained(&self, service: &str) -> Result<(String, i32)> {
        let output = self.cli().run(["explain", service]).await?;
        Ok((output.stdout, output.code))
    }
}

/// Waits until `GET /` on this listener with this service's host answers with this status.
async fn answers(listener: SocketAddr, service: &str, status: u16) -> Result<()> {
    until(SOON, &format!("status {status} of {service}"), async || {
        let answer = Request::get(listener, "/").host(&host(service)).send().await?;
        ensure!(answer.status == status, "status {}: {}", answer.status, answer.text().trim());
        Ok(())
    })
    .await
}

/// Waits until an Envoy has these listeners, and of the services these, all `v1`.
async fn has(envoy: &Envoy, listeners: &[&str], services: &[&str]) -> Result<()> {
    until(SOON, &format!("{listeners:?} and {services:?}"), async || {
        let seen = envoy.get("/listeners?format=json").await?.json()?;
        let seen = seen["listener_statuses"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = seen.iter().filter_map(|listener| listener["name"].as_str()).collect();
        ensure!(names == listeners, "the listeners are {names:?}");
        for service in ["admin-ui", "cart", "shop"] {
            let there = envoy.endpoints(&format!("{service}/v1")).await?.is_some();
            ensure!(there == services.contains(&service), "{service} is there: {there}");
        }
        Ok(())
    })
    .await
}

async fn backends() -> Result<(Vec<Local>, Vec<String>)> {
    let (mut backends, mut entries) = (Vec::new(), Vec::new());
    for service in ["admin-ui", "cart", "shop"] {
        let backend = Local::start(service, "v1").await?;
        entries.push(backend.entry(service, "v1"));
        backends.push(backend);
    }
    Ok((backends, entries))
}

#[tokio::test]
async fn each_edge_has_what_its_group_has_and_a_reload_moves_a_service() -> Result<()> {
    let (_backends, entries) = backends().await?;
    let plane = Plane::start(&entries, "cart, shop", "\"admin-*\", shop").await?;
    let (outer, inner) = (plane.outer().await?, plane.inner().await?);
    let (web, internal) = (plane.settings.web, plane.settings.internal);
    has(&outer, &["web"], &["cart", "shop"]).await?;
    has(&inner, &["internal"], &["admin-ui", "shop"]).await?;
    for (listener, service, status) in [
        (web, "cart", 200),
        (web, "shop", 200),
        (web, "admin-ui", 404),
        (internal, "admin-ui", 200),
        (internal, "shop", 200),
        (internal, "cart", 404),
    ] {
        answers(listener, service, status).await?;
    }
    let (left, right) = (plane.edge("left").await?, plane.edge("right").await?);
    assert_eq!((&left["group"], &right["group"]), (&"outer".into(), &"inner".into()));
    let table = plane.cli().run(["status"]).await?.stdout;
    assert!(table.contains("left   outer") && table.contains("right  inner"), "{table}");
    let (said, code) = until(SOON, "cart explained", async || {
        let answer = plane.explained("cart").await?;
        ensure!(answer.1 == 0, "{}", answer.0);
        Ok(answer)
    })
    .await?;
    assert!(code == 0 && said.contains("seen by the edges of no group, `outer`"), "{said}");
    assert!(
        said.contains("routes of web") && !said.contains("routes of internal") && !said.contains("`right`"),
        "{said}"
    );

    let unaffected = [(web, "shop"), (internal, "shop"), (internal, "admin-ui")]
        .map(|(listener, service)| Load::get(listener, &host(service), "/").rate(50.0, 4).duration(10 * SOON).start());
    plane.tidegate.reconfigure(&plane.settings.file("shop", "\"admin-*\", cart, shop"))?;
    answers(web, "cart", 404).await?;
    answers(internal, "cart", 200).await?;
    has(&outer, &["web"], &["shop"]).await?;
    has(&inner, &["internal"], &["admin-ui", "cart", "shop"]).await?;
    for load in unaffected {
        let report = load.stop().await?;
        ensure!(report.count() > 0, "it was never asked");
        report.all_succeeded()?;
    }
    for (id, before) in [("left", &left), ("right", &right)] {
        let now = plane.edge(id).await?;
        assert_eq!(now["connectedAt"], before["connectedAt"], "the stream of {id} is another one");
    }

    // No edge is left that sees it.
    drop(inner);
    until(SOON, "cart without an edge", async || {
        let (said, code) = plane.explained("cart").await?;
        ensure!(code == 1 && said.contains("of these no edge is connected, only of `outer`"), "{code}: {said}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_edge_whose_group_changes_comes_back_to_the_other_and_a_new_one_is_served_what_was_kept() -> Result<()> {
    let (_backends, entries) = backends().await?;
    let mut plane = Plane::start(&entries, "cart, shop", "\"admin-*\", shop").await?;
    let inner = plane.inner().await?;
    has(&inner, &["internal"], &["admin-ui", "shop"]).await?;
    let swapped = "{ name: outer, nodes: { metadata: { tier: inside } }, listeners: [ web ], services: [ cart, shop ] }, \
                   { name: inner, nodes: { cluster: other }, listeners: [ internal ], services: [ \"admin-*\", shop ] }";
    plane.tidegate.reconfigure(&plane.settings.with(swapped))?;
    has(&inner, &["web"], &["cart", "shop"]).await?;
    answers(plane.settings.web, "cart", 200).await?;
    assert_eq!(plane.edge("right").await?["group"], "outer");

    // Restarted without its files: an Envoy that has nothing gets what was kept for its group, and no more.
    drop(inner);
    plane.tidegate.process.terminate(SOON).await?;
    fs::rename(&plane.settings.instances, plane.files.path().join("away"))?;
    let Plane { tidegate, files, settings } = plane;
    plane = Plane { tidegate: tidegate.again(&["run"], &[])?, files, settings };
    plane.answers().await?;
    let inner = plane.inner().await?;
    has(&inner, &["web"], &["cart", "shop"]).await?;
    answers(plane.settings.web, "shop", 200).await?;
    answers(plane.settings.web, "admin-ui", 404).await
}

#[tokio::test]
async fn what_edges_report_of_a_canary_is_added_up_and_a_breaker_that_opens_at_one_ends_it_at_all() -> Result<()> {
    let (v1, v2) = (Local::start("shop", "v1").await?, Local::start("shop", "v2").await?);
    let plane = Plane::start(&[v1.entry("shop", "v1"), v2.entry("shop", "v2")], "shop", "shop").await?;
    let (left, right) = (plane.outer().await?, plane.inner().await?);
    let canary = "services: { shop: { stable: { version: v1 }, canary: { version: v2, weight: 50, breaker: {}, \
                  sessionAffinity: { hashOn: [ { header: X-User } ] }, analysis: { interval: 1s } } } }\n";
    plane.tidegate.reconfigure(&format!("{}{canary}", plane.settings.file("shop", "shop")))?;
    for (envoy, listener) in [(&left, plane.settings.web), (&right, plane.settings.internal)] {
        envoy.weighs("shop", "v2", 5_000).await?;
        answers(listener, "shop", 200).await?;
    }
    let load = |listener: SocketAddr| {
        let load = Load::get(listener, &host("shop"), "/").closed(4).requests(300).duration(SOON);
        load.asking(|n| Ask::get("/").header("x-user", &format!("key-{n}")))
    };
    // An Envoy counts a cluster from the answer to its report on that follows it.
    until(SOON, "the reports of both edges", async || {
        for listener in [plane.settings.web, plane.settings.internal] {
            load(listener).run().await?.all_succeeded()?;
        }
        let status = plane.cli().canary("shop").await?;
        let observed = &status["rollout"]["observed"];
        let all = observed["canary"].as_u64().unwrap_or(0) + observed["stable"].as_u64().unwrap_or(0);
        ensure!(all >= 500, "{observed}");
        let silent = status["edges"].as_array().into_iter().flatten().filter(|edge| edge["reportedAt"].is_null());
        ensure!(silent.count() == 0, "{status}");
        Ok(())
    })
    .await?;

    v2.control("errors=100").await?;
    let report = load(plane.settings.web).run().await?;
    ensure!((7..=20).contains(&report.failed()), "{report}");
    until(SOON, "the end of the rollout", async || {
        let status = plane.cli().canary("shop").await?;
        ensure!(status["rollout"]["phase"] == "aborted", "{}", status["rollout"]);
        ensure!(status["rollout"]["last"]["by"] == "breaker at left", "{}", status["rollout"]["last"]);
        Ok(())
    })
    .await?;
    for envoy in [&left, &right] {
        envoy.weighs("shop", "v2", 0).await?;
    }
    let report = load(plane.settings.internal).run().await?;
    report.all_succeeded()?;
    ensure!(report.by_version().keys().eq(["v1"]), "{:?}", report.by_version());

    // One that is gone is named no more, and counts as nothing.
    drop(right);
    until(SOON, "one edge", async || {
        let edges = plane.cli().canary("shop").await?["edges"].as_array().map_or(0, Vec::len);
        ensure!(edges == 1, "{edges}");
        Ok(())
    })
    .await
}
