use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tidegate_core::Code;
use tidegate_core::bootstrap::EdgeNode;
use tidegate_core::config::XdsTls;

use super::*;

/// On a machine that is busy.
const LIMIT: Duration = Duration::from_secs(30);

/// Stands for `tidegate`: `run` writes its pid and what it is told, `envoy exec` becomes what it is told to become.
const PROGRAM: &str = r#"#!/bin/sh
case "$1" in
run)
    echo "$@" > "$(dirname "$0")/run.arguments"
    echo $$ >> "$(dirname "$0")/run.pids"
    exec cat >> "$(dirname "$0")/reports" ;;
envoy)
    while [ "$1" != -- ]; do shift; done
    shift
    exec "$@" ;;
esac
"#;

/// Stands for Envoy.
const ENVOY: &str = r#"#!/bin/sh
if [ "$1" = --version ]; then
    echo "envoy  version: c/1.40.0/Clean/RELEASE/BoringSSL"
    exit
fi
echo $$ >> "$(dirname "$0")/envoy.pids"
exec sleep 600
"#;

struct World {
    directory: TempDir,
    options: UpOptions,
}

impl World {
    fn new(tell: fn(&Problem)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        script(&path("tidegate"), PROGRAM);
        let [edge, xds, api] = [(); 3].map(|()| free());
        let config = format!(
            "edge: {{ listeners: [ {{ name: web, address: \"{edge}\" }} ] }}\nxds: {{ address: \"{xds}\" }}\napi: {{ address: \"{api}\" }}\n"
        );
        std::fs::write(path("tidegate.yaml"), config).unwrap();
        let options = UpOptions {
            run: RunOptions {
                config: Some(path("tidegate.yaml")),
                state_dir: directory.path().to_owned(),
                filter_wasm: None,
                insecure_xds: false,
                supervised: false,
            },
            envoy: Some(path("envoy")),
            path: None,
            program: path("tidegate"),
            node: EdgeNode { id: "edge-7".to_owned(), ..EdgeNode::default() },
            tls: None,
            json_logs: false,
            tell,
        };
        Self { directory, options }
    }

    fn with_envoy(self) -> Self {
        script(&self.directory.path().join("envoy"), ENVOY);
        self
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// The processes that were started so far.
    fn pids(&self, name: &str) -> Vec<i32> {
        self.read(name).lines().filter_map(|line| line.parse().ok()).collect()
    }
}

fn script(path: &Path, text: &str) {
    // Written beside and renamed: whoever executes it sees the whole file.
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

fn free() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, waiting).await.is_ok(), "not within {LIMIT:?}: {what}");
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Whether it is there and no zombie.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Runs both supervisors as `up` does, while `story` happens, and then ends them as SIGTERM does.
async fn supervised(world: &World, story: impl Future<Output = ()>) {
    let (problems, reported) = watch::channel(Vec::new());
    let (stop_edge, stop_plane) = (CancellationToken::new(), CancellationToken::new());
    let edge = async {
        edge::supervise(&world.options, problems, stop_edge.clone()).await;
        stop_plane.cancel();
    };
    let story = async {
        story.await;
        stop_edge.cancel();
    };
    tokio::join!(plane::supervise(&world.options, reported, stop_plane.clone()), edge, story);
}

#[tokio::test]
async fn the_end_of_one_is_mended_and_does_not_touch_the_other() {
    let world = World::new(|_| {}).with_envoy();
    supervised(&world, async {
        until("both run", || world.pids("run.pids").len() == 1 && world.pids("envoy.pids").len() == 1).await;
        let (run, envoy) = (world.pids("run.pids")[0], world.pids("envoy.pids")[0]);
        kill(run);
        until("run is back", || world.pids("run.pids").len() == 2).await;
        assert!(lives(envoy));
        kill(envoy);
        until("Envoy is back", || world.pids("envoy.pids").len() == 2).await;
        assert!(lives(world.pids("run.pids")[1]));
    })
    .await;
    let pids = [world.pids("run.pids"), world.pids("envoy.pids")].concat();
    assert_eq!(pids.len(), 4, "neither is started again after the end");
    assert!(!pids.into_iter().any(lives), "both end with `up`");
    assert!(world.read("run.arguments").starts_with("run --supervised --state-dir"));
    let bootstrap: serde_json::Value = serde_json::from_str(&world.read("envoy-bootstrap.json")).unwrap();
    assert_eq!(bootstrap["node"]["id"], "edge-7");
}

#[tokio::test]
async fn a_missing_envoy_is_reported_to_run_until_it_is_there() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let world = World::new(|problem| {
        assert_eq!(problem.code, Code::EnvoyUnusable);
        TOLD.fetch_add(1, Ordering::Relaxed);
    });
    supervised(&world, async {
        until("run is told", || world.read("reports").contains("there is no such file")).await;
        kill(world.pids("run.pids")[0]);
        until("the next run is told, too", || world.read("reports").matches("there is no such file").count() == 2)
            .await;
        script(&world.directory.path().join("envoy"), ENVOY);
        until("it is mended", || world.read("reports").ends_with("[]\n")).await;
        assert_eq!(world.pids("envoy.pids").len(), 1);
    })
    .await;
    assert_eq!(TOLD.load(Ordering::Relaxed), 1, "the terminal is told once");
}

#[tokio::test]
async fn what_keeps_run_from_starting_is_told_once_and_mended() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let world = World::new(|problem| {
        assert_eq!(problem.code, Code::InvalidConfig);
        TOLD.fetch_add(1, Ordering::Relaxed);
    })
    .with_envoy();
    let good = world.read("tidegate.yaml");
    let file = world.directory.path().join("tidegate.yaml");
    std::fs::write(&file, "edgy: {}").unwrap();
    supervised(&world, async {
        until("it is told", || TOLD.load(Ordering::Relaxed) == 1).await;
        // Some more tries.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(world.pids("run.pids").is_empty() && world.pids("envoy.pids").is_empty());
        std::fs::write(&file, &good).unwrap();
        until("both run", || world.pids("run.pids").len() == 1 && world.pids("envoy.pids").len() == 1).await;
    })
    .await;
    assert_eq!(TOLD.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_listener_in_use_is_named_and_waited_for() {
    let world = World::new(|_| {}).with_envoy();
    let config = crate::config::load(world.options.run.config.as_deref()).unwrap();
    let holder = std::net::TcpListener::bind(config.edge.listeners[0].address).unwrap();
    supervised(&world, async {
        until("it is told", || world.read("reports").contains("TG0504")).await;
        assert!(world.read("reports").contains(&format!("(process {})", std::process::id())));
        assert!(world.pids("envoy.pids").is_empty());
        drop(holder);
        until("Envoy runs", || world.pids("envoy.pids").len() == 1).await;
        until("it is mended", || world.read("reports").ends_with("[]\n")).await;
    })
    .await;
}

#[tokio::test]
async fn an_edge_without_a_certificate_is_not_started_where_xds_wants_one() {
    let mut world = World::new(|_| {}).with_envoy();
    let certificates = crate::tls::tests::World::new();
    let XdsTls { cert, key, client_ca } = &certificates.files;
    let tls = format!("xds: {{ tls: {{ cert: {cert}, key: {key}, clientCa: {client_ca} }},");
    let file = world.directory.path().join("tidegate.yaml");
    std::fs::write(&file, world.read("tidegate.yaml").replace("xds: {", &tls)).unwrap();
    supervised(&world, async {
        until("it is told", || world.read("reports").contains("add --tls-cert, --tls-key and --tls-ca")).await;
        assert!(world.pids("envoy.pids").is_empty());
    })
    .await;
    let [cert, key, ca] = [cert, key, client_ca].map(String::clone);
    world.options.tls = Some(EdgeTls { cert, key, ca, server_name: Some("tidegate.example".to_owned()) });
    supervised(&world, async { until("Envoy runs", || world.pids("envoy.pids").len() == 1).await }).await;
    assert!(world.read("envoy-bootstrap.json").contains("\"sni\": \"tidegate.example\""));
}
