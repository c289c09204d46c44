//! The demo: a shop in two versions behind Envoy, steered by tidegate, under steady load, while its canary grows and things go
//! wrong. It shows what happens as it happens, and holds every promise against what the clients saw.

mod evidence;
pub mod report;
pub mod screen;
pub mod timeline;

use std::{path::Path, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::Instant;

use self::{
    report::{Report, Row},
    screen::Screen,
    timeline::{CANARY, Placement, STABLE, Timeline},
};
use crate::{
    edge::{Edge, backend, host},
    engine::{Container, Engine},
    load::{Ask, Load, Running},
    poll::{SOON, until},
};

const SERVICE: &str = "shop";
const REPLICAS: usize = 3;
/// Users, each with a header of its own, who come back all the time.
const USERS: u64 = 400;
const PER_SECOND: f64 = 300.0;
/// Long enough that each user comes by several times.
const PHASE: Duration = Duration::from_secs(6);
const WITHOUT_CONTROL_PLANE: Duration = Duration::from_secs(10);

/// The story's end; while it lives, so does everything it started.
pub struct Told {
    pub report: Report,
    edge: Edge,
    _containers: Vec<Container>,
    _engine: Engine,
}

/// Tells the story once.
pub async fn tell() -> Result<Told> {
    let engine = Engine::connect().await?;
    let network = engine.network("demo").await?;
    let screen = Screen::default();
    screen.say("tidegate demo: a shop in two versions, three replicas each, behind Envoy");
    let edge = Edge::start(&engine, &format!("{{ {} }}", declared("0"))).await?;
    let mut containers = Vec::new();
    for version in [STABLE, CANARY] {
        for _ in 0..REPLICAS {
            containers.push(engine.run(backend(SERVICE, version).network(&network)).await?);
        }
    }
    for version in [STABLE, CANARY] {
        edge.healthy(&cluster(version), REPLICAS).await?;
    }
    edge.weighs(SERVICE, CANARY, 0).await?;
    screen.say(&format!("  {} containers are ready; {PER_SECOND} requests/s of {USERS} users begin", containers.len()));

    let counts = screen.counts();
    let load = Load::get(edge.listener, &host(SERVICE), "/").rate(PER_SECOND, 16).requests(100_000);
    let load = load.duration(Duration::from_secs(300)).watched(move |sample| counts.add(sample)).asking(|n| {
        let user = user(n % USERS);
        Ask::get("/").header("x-user", &user).key(&user)
    });
    let mut story = Story {
        timeline: Timeline::new(SERVICE, (0..USERS).map(user)),
        screen,
        load: load.start(),
        own: Vec::new(),
        edge,
    };
    story.ramp(&["0", "1", "10", "50"]).await?;
    story.kill(&containers[0]).await?;
    let mut story = story.stop_the_control_plane().await?;
    story.empty_the_canary(&containers[REPLICAS..]).await?;
    story.ramp(&["100"]).await?;
    let more = evidence::tell(&engine, &network, &story.edge, &declared("100"), &story.screen).await?;
    story.own.extend(more);
    let (report, edge) = story.end().await?;
    Ok(Told { report, edge, _containers: containers, _engine: engine })
}

impl Told {
    /// How to look around, for whoever stays.
    pub fn how_to_look(&self) -> Result<String> {
        let api = self.edge.cli().api.unwrap_or_default();
        let listener = self.edge.listener;
        let tidegate = crate::tidegate::locate()?.display().to_string();
        Ok(format!(
            "It all runs on until Ctrl-C. Look around:\n  curl -H 'Host: {}' -H 'X-User: you' http://{listener}/\n  \
             {tidegate} --api {api} status\n  {tidegate} --api {api} explain {SERVICE}\n  {tidegate} --api {api} canary status",
            host(SERVICE)
        ))
    }
}

struct Story {
    timeline: Timeline,
    screen: Screen,
    load: Running,
    own: Vec<Row>,
    edge: Edge,
}

impl Story {
    fn begin(&mut self, name: &str, placement: Placement) {
        self.timeline.begin(name, placement, self.load.elapsed());
        self.screen.begin();
    }

    async fn hold(&mut self, name: &str, duration: Duration) {
        self.timeline.settle(self.load.elapsed());
        self.screen.hold(name, duration).await;
        self.screen.say(&format!("  {name}: {}", self.screen.line()));
    }

    async fn ramp(&mut self, percents: &[&str]) -> Result<()> {
        for percent in percents {
            let name = format!("canary at {percent} %");
            let basis_points = percent.parse::<u32>()? * 100;
            self.begin(&name, Placement::Canary(basis_points));
            self.edge.declare(&format!("{{ {} }}", declared(percent)))?;
            self.edge.weighs(SERVICE, CANARY, basis_points).await?;
            self.hold(&name, PHASE).await;
        }
        Ok(())
    }

    async fn kill(&mut self, replica: &Container) -> Result<()> {
        let name = "a stable replica is killed";
        self.begin(name, Placement::Canary(5_000));
        let killed = Instant::now();
        replica.kill("SIGKILL").await?;
        self.edge.healthy(&cluster(STABLE), REPLICAS - 1).await?;
        let after = format!("{} ms after the kill", killed.elapsed().as_millis());
        self.own.push(Row::new(name, "out of Envoy", "at once", after, true));
        self.hold(name, PHASE).await;
        Ok(())
    }

    async fn stop_the_control_plane(mut self) -> Result<Self> {
        let name = "no control plane for 10 s";
        self.begin(name, Placement::Canary(5_000));
        self.timeline.settle(self.load.elapsed());
        let Self { timeline, screen, load, mut own, edge } = self;
        let before = membership_changes(&edge).await?;
        let edge = edge.without_control_plane(screen.hold(name, WITHOUT_CONTROL_PLANE)).await?;
        until(SOON, "the control plane to serve Envoy again", async || {
            let connected = edge.envoy.stat("control_plane.connected_state").await?;
            ensure!(connected == 1, "{connected}");
            Ok(())
        })
        .await?;
        let changes = membership_changes(&edge).await? - before;
        own.push(Row::new(name, "endpoints are kept", "0 changes", format!("{changes} changes"), changes == 0));
        screen.say(&format!("  {name}: {}", screen.line()));
        Ok(Self { timeline, screen, load, own, edge })
    }

    async fn empty_the_canary(&mut self, canaries: &[Container]) -> Result<()> {
        let name = "the canary is not ready";
        self.begin(name, Placement::Stable);
        for container in canaries {
            container.control("ready=false").await?;
        }
        self.edge.healthy(&cluster(CANARY), 0).await?;
        self.hold(name, PHASE).await;
        let name = "the canary is ready again";
        self.begin(name, Placement::Canary(5_000));
        for container in canaries {
            container.control("ready=true").await?;
        }
        self.edge.healthy(&cluster(CANARY), canaries.len()).await?;
        self.hold(name, PHASE).await;
        Ok(())
    }

    async fn end(self) -> Result<(Report, Edge)> {
        let Self { timeline, screen, load, mut own, edge } = self;
        let end = load.elapsed();
        let samples = load.stop().await?.samples;
        let left = timeline.left_as_it_grew(&samples, end);
        own.push(Row::new("all", "nobody leaves a growing canary", "0 users", format!("{left} users"), left == 0));
        let report = Report::new(timeline.observe(&samples, end), own);
        screen.say("");
        screen.say(&report.table());
        Ok((report, edge))
    }
}

/// How often the endpoints of the shop's clusters changed in Envoy.
async fn membership_changes(edge: &Edge) -> Result<u64> {
    Ok(edge.envoy.stats(&format!("^cluster\\.{SERVICE}/.*\\.membership_change$")).await?.values().sum())
}

/// Where reports go: cargo's target folder of this workspace.
pub fn target(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(path)
}

fn declared(percent: &str) -> String {
    format!(
        "{SERVICE}: {{ stable: {{ version: {STABLE} }}, canary: {{ version: {CANARY}, weight: {percent}, \
         sessionAffinity: {{ hashOn: [ {{ header: X-User }} ] }} }} }}"
    )
}

fn cluster(version: &str) -> String {
    format!("{SERVICE}/{version}")
}

fn user(number: u64) -> String {
    format!("user-{number}")
}
