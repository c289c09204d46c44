use http::Method;
use tidegate_core::compile::Compiler;
use tidegate_core::config::{Admin, Config, parse};
use tidegate_core::health::Verdict;
use tidegate_core::instance::{
    Check, Claim, DEFAULT_DRAIN, Discovered, Hint, Instance, InstanceId, Membership, Phase, Update,
};
use tidegate_core::status::{Canaries, EnvoyConfig, EnvoyDiff};
use tidegate_core::traffic::{Protocol, Traffic};
use tidegate_core::{Input, ProviderName, ServiceName, State as CoreState, Timestamp, VersionName};
use tidegate_xds::ResourceType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::clock::Clock;
use crate::http::{Answer, Target, exchange};
use crate::reconcile::Outlets;
use crate::reconcile::Reconcile;
use crate::rollouts::{self, Held, Kept};

const CONFIG: &str = "services: { shop: { stable: { version: v1 }, canary: { version: v2, weight: 10 } } }";

/// An API over a reconcile task that was told of a few containers, none of them real.
pub(super) struct World {
    target: Target,
    pub(super) address: std::net::SocketAddr,
    pub(super) inbox: mpsc::Sender<Input>,
    store: Store,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
    _state_dir: tempfile::TempDir,
}

impl World {
    /// `None`: the provider has not answered yet. There is no Envoy.
    pub(super) async fn new(config: Config, containers: Option<Vec<Discovered>>) -> Self {
        Self::beside(&Admin::Unix("/nowhere/envoy-admin.sock".to_owned()), config, containers).await
    }

    /// The same beside an Envoy.
    async fn beside(admin: &Admin, config: Config, containers: Option<Vec<Discovered>>) -> Self {
        let clock = Clock::start();
        let (inbox, inputs) = mpsc::channel(64);
        let (probes, mut changes) = mpsc::channel(64);
        let store = Store::new();
        let state = CoreState::new(config, [ProviderName::docker()], 0);
        let compiler = Compiler::new("/state/filter.wasm".to_owned());
        let (held, holds) = watch::channel(Held::default());
        let (kept, is_kept) = watch::channel(Kept::default());
        let outlets = Outlets { probes, commits: watch::Sender::new(0), rollouts: held, errands: mpsc::channel(1).0 };
        let (reconcile, observer, orders) = Reconcile::new(state, compiler, store.clone(), clock, inputs, outlets);
        if let Some(containers) = containers {
            let instances: Vec<InstanceId> =
                containers.iter().flat_map(|container| &container.instances).map(|known| known.id.clone()).collect();
            let update = Update::Reset(containers);
            inbox.send(Input::Provider { provider: ProviderName::docker(), update }).await.unwrap();
            for id in instances {
                let verdict =
                    Verdict { passing: true, starting: false, detail: "connected".to_owned(), since: clock.now() };
                inbox.send(Input::Checked { id, verdict }).await.unwrap();
            }
        }
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(reconcile.run(shutdown.clone()));
        tasks.spawn(async move { while changes.recv().await.is_some() {} });
        let envoy = LocalEnvoy::new(admin);
        let state_dir = tempfile::tempdir().unwrap();
        let operator = Operator::new(state_dir.path(), inbox.clone());
        let registry = Arc::new(metrics::registry());
        let directory = state_dir.path().to_owned();
        tasks.spawn(rollouts::keep(directory, holds, kept, inbox.clone(), shutdown.clone()));
        let rollouts = Rollouts { orders, kept: is_kept };
        let context = ApiContext::new(observer, store.clone(), registry, envoy, operator, Token::of_tests(), rollouts);
        tasks.spawn(serve(listener, context, shutdown.clone()));
        Self { target: Target::Tcp(address.to_string()), address, inbox, store, tasks, shutdown, _state_dir: state_dir }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        exchange(&self.target, Method::GET, path, Duration::from_secs(30)).await.unwrap()
    }

    async fn json(&self, path: &str) -> serde_json::Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The head and body of the answer to these bytes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// A running container of `service`, which is reached at `SERVICE.localhost`.
pub(crate) fn container(service: &str, name: &str, version: &str, ip_end: u8) -> Discovered {
    let at = Timestamp::from_millis(1);
    let service = ServiceName::new(service).unwrap();
    let version = VersionName::new(version).unwrap();
    let id = InstanceId {
        container: format!("{name:0<64}"),
        started_at: "then".to_owned(),
        network: "bridge".to_owned(),
        address: ([172, 17, 0, ip_end], 80).into(),
    };
    let instance = Instance {
        id: id.clone(),
        service: service.clone(),
        version: version.clone(),
        has_own_address: true,
        check: Check::default(),
        drain: DEFAULT_DRAIN,
    };
    let claim = Claim { hosts: vec![format!("{service}.localhost")], path: "/".to_owned() };
    Discovered {
        id: id.container,
        name: name.to_owned(),
        created: at,
        project: None,
        enabled: true,
        phase: Phase::Running,
        health: None,
        terminating: None,
        memberships: vec![Membership {
            service,
            version,
            claim,
            protocol: Protocol::default(),
            traffic: Traffic::default(),
            depends_on: Vec::new(),
            canary_weight: None,
        }],
        instances: vec![instance],
        problems: Vec::new(),
        hint: Hint { action: "start".to_owned(), at },
        observed_at: at,
    }
}

async fn shop() -> World {
    let config = parse("tidegate.yaml", CONFIG).unwrap();
    let containers =
        vec![container("shop", "a", "v1", 2), container("shop", "b", "v1", 3), container("shop", "c", "v2", 4)];
    ready(World::new(config, Some(containers)).await).await
}

async fn ready(world: World) -> World {
    while world.get("/readyz").await.status != StatusCode::OK {
        tokio::task::yield_now().await;
    }
    world
}

#[tokio::test]
async fn what_is_known_is_shown() {
    let world = shop().await;
    let status = world.json("/v1/status").await;
    assert_eq!((&status["apiVersion"], &status["synced"]), (&json!("tidegate/v1"), &json!(true)));
    assert_eq!(status["providers"][0]["containers"], 3);
    let shop = &status["services"][0];
    assert_eq!((&shop["name"], &shop["ready"], &shop["split"]), (&json!("shop"), &json!(3), &json!("rollout")));
    assert_eq!((&shop["versions"][1]["role"], &shop["versions"][1]["weight"]), (&json!("canary"), &json!(1000)));
    assert_eq!(shop["versions"][0].get("instances"), None, "a summary lists no instances");
    let services = world.json("/v1/services").await;
    assert_eq!(services["services"][0]["versions"][0]["instances"][0]["state"], "ready");
    let canary = world.json("/v1/canary").await;
    assert_eq!(canary["canaries"][0]["buckets"], json!([9000, 10_000]));
    assert_eq!(world.json("/v1/edges").await["edges"], json!([]));
}

#[tokio::test]
async fn the_documents_are_read_by_the_command_line() {
    let world = shop().await;
    let body = world.get("/v1/status").await.body;
    let status: Status = serde_json::from_slice(&body).unwrap();
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(serde_json::to_value(&status).unwrap(), document);
    let _: Services = serde_json::from_slice(&world.get("/v1/services").await.body).unwrap();
    let _: Canaries = serde_json::from_slice(&world.get("/v1/canary").await.body).unwrap();
    let load: load::LoadReport = serde_json::from_slice(&world.get("/v1/load").await.body).unwrap();
    assert_eq!((load.interval_millis, load.services[0].versions.len()), (10_000, 2));
    let _: core_explain::Explanation = serde_json::from_slice(&world.get("/v1/explain/shop").await.body).unwrap();
}

#[tokio::test]
async fn an_explanation_goes_on_to_the_edges() {
    let world = shop().await;
    let explained = world.json("/v1/explain/c").await;
    let stages = explained["parts"][0]["stages"].as_array().unwrap();
    let names: Vec<&str> = stages.iter().map(|stage| stage["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "discovered",
            "enabled",
            "labels",
            "service",
            "address",
            "running",
            "healthcheck",
            "check",
            "split",
            "host",
            "committed",
            "endpoints",
            "weights",
            "routes"
        ]
    );
    assert!(stages[8]["detail"].as_str().unwrap().contains("buckets [9000, 10000)"), "{explained}");
    assert_eq!(stages[10]["state"], "passed");
    let answer = explained["answer"].as_str().unwrap();
    assert!(answer.ends_with("endpoints failed: no Envoy is connected"), "{answer}");
    let unknown = world.get("/v1/explain/sjop").await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert!(String::from_utf8_lossy(&unknown.body).contains("did you mean `shop`?"));
    let odd = world.get("/v1/explain/%1b%5b2J%F0%9F%98%80%2F..").await;
    assert_eq!(odd.status, StatusCode::NOT_FOUND);
    assert!(!odd.body.contains(&0x1b), "foreign bytes are escaped");
}

#[tokio::test]
async fn before_the_first_picture_it_lives_but_is_not_ready() {
    let world = World::new(Config::default(), None).await;
    assert_eq!(world.get("/healthz").await.status, StatusCode::OK);
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&ready.body).contains("the first full answer of docker"), "{ready:?}");
    let status = world.json("/v1/status").await;
    assert_eq!((&status["synced"], &status["providers"][0]["lastHeard"]), (&json!(false), &json!(null)));
}

#[tokio::test]
async fn metrics_are_openmetrics() {
    let world = shop().await;
    let text = String::from_utf8(world.get("/metrics").await.body.to_vec()).unwrap();
    for line in [
        "tidegate_instances{service=\"shop\",version=\"v1\",state=\"ready\"} 2",
        "tidegate_weight_basis_points{service=\"shop\",version=\"v2\"} 1000",
        "tidegate_filter_policy_services 1",
        "tidegate_synced 1",
        "tidegate_upstream_requests_total{service=\"shop\",version=\"v2\",outcome=\"error\"} 0",
        "tidegate_upstream_requests_in_progress{service=\"shop\",version=\"v1\"} 0",
        "tidegate_xds_edges 0",
        "tidegate_edges{type=\"RTDS\",state=\"in_flight\"} 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    assert_eq!(text.matches("# EOF").count(), 1);
}

#[tokio::test]
async fn strangers_are_refused_on_every_path() {
    let world = shop().await;
    let port = world.address.port();
    for path in ["/v1/status", "/v1/drain", "/v1/envoy/diff", "/metrics", "/healthz", "/nothing"] {
        let rebound =
            world.raw(&format!("GET {path} HTTP/1.1\r\nhost: evil.example:{port}\r\nconnection: close\r\n\r\n")).await;
        assert!(rebound.starts_with("HTTP/1.1 403"), "{path}: {rebound}");
        assert!(!rebound.contains("shop"), "nothing is told to strangers");
        let page = world
            .raw(&format!("GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n"))
            .await;
        assert!(page.starts_with("HTTP/1.1 403"), "{path}: {page}");
        for (kind, status) in [("text/plain", 415), ("application/json", 401)] {
            let head = format!("POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: {kind}\r\n");
            let post = world.raw(&format!("{head}content-length: 2\r\nconnection: close\r\n\r\n{{}}")).await;
            assert!(post.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {post}");
        }
    }
    let own =
        world.raw(&format!("HEAD /v1/status HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n")).await;
    assert!(own.starts_with("HTTP/1.1 200") && own.contains("x-content-type-options: nosniff"), "{own}");
    let absolute =
        format!("GET http://evil.example/v1/status HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n");
    assert!(world.raw(&absolute).await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn shutdown_ends_idle_connections() {
    let mut world = shop().await;
    let mut idle = TcpStream::connect(world.address).await.unwrap();
    world.get("/healthz").await;
    world.shutdown.cancel();
    let ended = async { while world.tasks.join_next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.unwrap();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
}

/// An admin interface that answers as a recorded Envoy did, or with `forged`; and what it was asked.
async fn recorded(forged: Option<(u16, &'static str)>) -> (Admin, mpsc::Receiver<String>, JoinSet<()>) {
    let recording: serde_json::Value =
        serde_json::from_str(include_str!("../envoy/testdata/delta.json")).expect("a recording");
    let (asked, questions) = mpsc::channel(64);
    let answer = move |request: axum::extract::Request| {
        let (recording, asked) = (recording.clone(), asked.clone());
        async move {
            let question = format!("{} {}", request.method(), request.uri());
            let answer = match request.uri().path() {
                "/config_dump" => recording["configDump"].to_string(),
                "/clusters" => recording["clusters"].to_string(),
                _ => recording["runtime"].to_string(),
            };
            asked.send(question).await.unwrap();
            match forged {
                Some((status, body)) => (StatusCode::from_u16(status).unwrap(), body.to_owned()),
                None => (StatusCode::OK, answer),
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = Admin::Tcp(listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    (admin, questions, tasks)
}

#[tokio::test]
async fn the_local_envoy_is_shown_as_it_says_and_asked_nothing_else() {
    let (admin, mut questions, _envoy) = recorded(None).await;
    let world = ready(World::beside(&admin, parse("tidegate.yaml", CONFIG).unwrap(), Some(Vec::new())).await).await;
    let all: EnvoyConfig = serde_json::from_slice(&world.get("/v1/envoy/config").await.body).unwrap();
    assert_eq!((all.node.as_str(), all.version.as_str()), ("edge", "envoy 1.40.0"));
    assert!(all.resources.len() > 8 && all.resources.iter().all(|held| held.config.is_none()), "{all:?}");
    let one: EnvoyConfig =
        serde_json::from_slice(&world.get("/v1/envoy/config?type=cds&name=shop%2Fv1").await.body).unwrap();
    let [held] = one.resources.as_slice() else { panic!("{one:?}") };
    assert_eq!((held.kind.as_str(), held.version.as_deref()), ("CDS", Some("93527a9ab59ed98a")));
    assert_eq!(held.config.as_ref().map(|config| &config["connect_timeout"]), Some(&json!("0.500s")));
    let typo = world.get("/v1/envoy/config?name=shop%2Fv3").await;
    assert_eq!(typo.status, StatusCode::NOT_FOUND);
    assert!(String::from_utf8_lossy(&typo.body).contains("did you mean `shop/v"), "{typo:?}");
    let odd = world.get("/v1/envoy/diff?type=%1bSDS").await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(&odd.body).contains("the types are CDS, EDS, LDS, RDS, ECDS, RTDS"), "{odd:?}");
    assert!(!odd.body.contains(&0x1b));
    let mut asked = BTreeSet::new();
    while let Ok(question) = questions.try_recv() {
        asked.insert(question);
    }
    let fixed = ["GET /clusters?format=json", "GET /config_dump?include_eds", "GET /runtime?format=json"];
    assert_eq!(asked, fixed.map(ToOwned::to_owned).into());
}

#[tokio::test]
async fn what_is_published_is_compared_with_the_local_envoy() {
    let (admin, _questions, _envoy) = recorded(None).await;
    let config = parse("tidegate.yaml", CONFIG).unwrap();
    // The addresses of the recording's endpoints.
    let containers = vec![container("shop", "a", "v1", 2), container("shop", "b", "v2", 4)];
    let world = ready(World::beside(&admin, config, Some(containers)).await).await;
    let diff: EnvoyDiff = serde_json::from_slice(&world.get("/v1/envoy/diff").await.body).unwrap();
    assert!(!diff.connected && !diff.same);
    assert!(diff.notes.iter().any(|note| note.contains("no edge `edge` is connected")), "{:?}", diff.notes);
    let of = |kind: &str, name: &str| {
        let found = diff.resources.iter().find(|of| of.kind == kind && of.name == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in {diff:?}"))
    };
    use tidegate_core::status::DiffState::{Extra, OtherContent, OtherVersion, Same};
    let web = of("LDS", "web");
    let ours = world.store.version(ResourceType::Listener, "web").unwrap().to_string();
    assert_eq!(
        (web.state, web.intended.as_ref(), web.envoy.as_deref()),
        (OtherVersion, Some(&ours), Some("845f9c14141978de"))
    );
    assert_eq!(of("LDS", "taken").state, Extra);
    assert_eq!(of("RTDS", "tidegate").state, Same);
    let endpoints = of("EDS", "shop/v2");
    assert_eq!(endpoints.state, OtherContent);
    let detail = endpoints.detail.as_deref().unwrap();
    assert!(detail.contains("172.17.0.4:80 is missing") && detail.contains("172.17.0.3:8080 is extra"), "{detail}");
    let only: EnvoyDiff = serde_json::from_slice(&world.get("/v1/envoy/diff?type=EDS").await.body).unwrap();
    assert!(only.resources.len() == 2 && only.resources.iter().all(|of| of.kind == "EDS"), "{only:?}");
}

#[tokio::test]
async fn an_envoy_that_cannot_be_asked_is_a_bad_gateway_with_a_cure() {
    let world = shop().await;
    for path in ["/v1/envoy/config", "/v1/envoy/diff"] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(said["error"].as_str().unwrap().contains("cannot connect to unix:/nowhere/envoy-admin.sock"), "{said}");
        assert!(said["cure"].as_str().unwrap().contains("`edge.admin` of tidegate.yaml, now unix:/nowhere"), "{said}");
    }
    for (status, body, reason) in
        [(404, "", "answered 404 to /"), (200, "<html>", "cannot be read"), (200, "{\"configs\": 7}", "cannot be read")]
    {
        let (admin, _questions, _envoy) = recorded(Some((status, body))).await;
        let world = World::beside(&admin, Config::default(), None).await;
        let answer = world.get("/v1/envoy/config").await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{answer:?}");
        assert!(String::from_utf8_lossy(&answer.body).contains(reason), "{answer:?}");
    }
}

#[tokio::test]
async fn a_dump_without_end_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = Admin::Tcp(listener.local_addr().unwrap());
    let mut envoy = JoinSet::new();
    envoy.spawn(async move {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n";
        let mut senders = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            senders.spawn(async move {
                let _ = stream.write_all(head.as_bytes()).await;
                while stream.write_all(&[b' '; 1 << 16]).await.is_ok() {}
            });
        }
    });
    let world = World::beside(&admin, Config::default(), None).await;
    let answer = world.get("/v1/envoy/config").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(String::from_utf8_lossy(&answer.body).contains("is larger than 64 MiB"), "{answer:?}");
}
