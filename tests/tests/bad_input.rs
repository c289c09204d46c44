//! Bad input: each one clear problem with subject, reason and cure, at the terminal and in `status`, and all else keeps running.
//! Real dockerd, real Envoy.

use std::{fs, net::TcpListener, time::Duration};

use anyhow::{Context, Result, ensure};
use tidegate_core::{Code, Problem, status::Status};
use tidegate_tests::{
    edge::Edge,
    engine::{Container, Engine, Spec},
    load::{Load, Running},
    poll::{SOON, until},
    ports,
    private_engine::PrivateEngine,
    tidegate::{Cli, Tidegate},
};

// --- what is looked at -----------------------------------------------------------------------------------------------

/// What `tidegate status -o json` says, and its exit code.
async fn status(cli: &Cli) -> Result<(Status, i32)> {
    let output = cli.run(["status", "-o", "json"]).await?;
    let status = serde_json::from_str(&output.stdout).with_context(|| format!("{}{}", output.stdout, output.stderr))?;
    Ok((status, output.code))
}

/// Waits for the problem of this code and subject.
async fn problem(cli: &Cli, code: Code, subject: &str) -> Result<Problem> {
    until(SOON, &format!("{code} of {subject}"), async || {
        let (status, exit) = status(cli).await?;
        let found = status.problems.iter().find(|problem| problem.code == code && problem.subject == subject);
        let problem = found.with_context(|| format!("there are {:#?}", status.problems))?;
        assert_eq!(exit, i32::from(status.has_errors() || !status.synced), "the exit code of status");
        Ok(problem.clone())
    })
    .await
}

/// Waits until no problem of this code has this subject.
async fn mended(cli: &Cli, code: Code, subject: &str) -> Result<()> {
    until(SOON, &format!("the end of {code} of {subject}"), async || {
        let (status, _) = status(cli).await?;
        let found = status.problems.iter().find(|problem| problem.code == code && problem.subject == subject);
        ensure!(found.is_none(), "{found:?}");
        Ok(())
    })
    .await
}

#[track_caller]
fn says(problem: &Problem, reason: &str, cure: &str) {
    assert!(problem.reason.contains(reason) && problem.cure.contains(cure), "{problem}");
    assert!(!problem.effect.is_empty(), "{problem}");
}

fn subject(container: &Container) -> String {
    format!("container {} ({})", container.name, &container.id[..12])
}

// --- what is started -------------------------------------------------------------------------------------------------

fn host(service: &str) -> String {
    format!("{service}.localhost")
}

fn sample(service: &str, name: &str) -> Spec {
    Spec::sample(name)
        .label("tidegate.enable", "true")
        .label("tidegate.service", service)
        .label("tidegate.host", &host(service))
        .label("tidegate.check.interval", "200ms")
}

/// Another service, asked all the while.
struct Witness {
    load: Running,
    _container: Container,
}

impl Witness {
    async fn start(engine: &Engine, edge: &Edge) -> Result<Self> {
        let service = engine.unique("witness");
        let container = engine.run(sample(&service, "witness")).await?;
        edge.answers(&host(&service), 200).await?;
        let load = Load::get(edge.listener, &host(&service), "/").rate(50.0, 4).duration(Duration::from_secs(600));
        Ok(Self { load: load.start(), _container: container })
    }

    /// It was answered 200 throughout.
    async fn was_served(self) -> Result<()> {
        let report = self.load.stop().await?;
        ensure!(report.count() > 0, "it was never asked");
        report.all_succeeded()
    }
}

/// A configuration file without services, and where its API listens. `endpoint` is Docker's.
struct Alone {
    listener: String,
    xds: String,
    api: String,
    endpoint: String,
}

impl Alone {
    fn new(endpoint: &str) -> Result<Self> {
        let free = || ports::free().map(|address| address.to_string());
        Ok(Self { listener: free()?, xds: free()?, api: free()?, endpoint: endpoint.to_owned() })
    }

    fn yaml(&self) -> String {
        let Self { listener, xds, api, endpoint } = self;
        format!(
            "edge: {{ listeners: [ {{ name: web, address: \"{listener}\" }} ] }}\nxds: {{ address: \"{xds}\" }}\n\
             api: {{ address: \"{api}\" }}\nproviders: {{ docker: {{ endpoint: \"{endpoint}\" }} }}\n"
        )
    }

    fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    async fn start(&self, command: &[&str], environment: &[(&str, &str)]) -> Result<(Tidegate, Cli)> {
        let mut tidegate = Tidegate::start(command, &self.yaml(), environment)?;
        tidegate.answers(&format!("{}/healthz", self.url())).await?;
        let cli = tidegate.cli(&self.url());
        Ok((tidegate, cli))
    }

    /// `tidegate run` to its end, which it comes to by itself.
    async fn run(&self) -> Result<tidegate_tests::process::Output> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("tidegate.yaml"), self.yaml())?;
        Cli { directory: Some(directory.path().to_owned()), ..Cli::default() }.run(["run"]).await
    }
}

// --- labels ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_bad_label_is_one_clear_problem_of_its_container_alone() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let cli = edge.cli();
    let witness = Witness::start(&engine, &edge).await?;

    let enable = "add the label `tidegate.enable=true`";
    for (name, label, value, code, reason, cure) in [
        (
            "hosts",
            "tidegate.hosts",
            "a.localhost",
            Code::UnknownLabel,
            "`tidegate.hosts`",
            "did you mean `tidegate.host`?",
        ),
        (
            "chek",
            "tidegate.chek.path",
            "/",
            Code::UnknownLabel,
            "`tidegate.chek.path`",
            "did you mean `tidegate.check.path`?",
        ),
        (
            "port",
            "tidegate.port",
            "80a",
            Code::InvalidLabel,
            "`tidegate.port`: \"80a\" is not a port",
            "from 1 to 65535",
        ),
        ("unit", "tidegate.check.interval", "5", Code::InvalidLabel, "\"5\" has no unit", "such as `500ms` or `2s`"),
        (
            "kind",
            "tidegate.check.type",
            "htpp",
            Code::InvalidLabel,
            "there is no check \"htpp\"",
            "did you mean `http`?",
        ),
        (
            "mode",
            "tidegate.network",
            "nowhere",
            Code::InvalidLabel,
            "not on a network \"nowhere\"",
            "it is on `bridge`",
        ),
        (
            "out",
            "tidegate.enable",
            "yes",
            Code::InvalidLabel,
            "`tidegate.enable` is \"yes\"",
            "write `true` or `false`",
        ),
    ] {
        let service = engine.unique(name);
        let container = engine.run(sample(&service, name).label(label, value)).await?;
        let found = problem(&cli, code, &subject(&container)).await?;
        says(&found, reason, cure);
        let at_terminal = cli.run(["status"]).await?.stdout;
        ensure!(at_terminal.contains(&found.to_string()), "{at_terminal}");
        let explained = cli.run(["explain", &container.name]).await?;
        ensure!(explained.code == 1 && explained.stdout.contains(reason), "{explained:?}");
        // Where only its address is unclear, it is known whose host it is: 503.
        let refused = edge.get(&host(&service)).await?.status;
        ensure!(matches!(refused, 404 | 503), "{label}={value}: it is routed, status {refused}");
        container.remove().await?;
        mended(&cli, code, &subject(&container)).await?;
    }

    let spec = Spec::sample("shy").label("tidegate.host", "shy.localhost");
    let shy = engine.run(spec).await?;
    let found = problem(&cli, Code::NotEnabled, &subject(&shy)).await?;
    says(&found, "it has the label `tidegate.host` but not `tidegate.enable`", enable);
    witness.was_served().await
}

#[tokio::test]
async fn an_unclear_network_is_never_guessed() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let witness = Witness::start(&engine, &edge).await?;
    let (front, back) = (engine.network("front").await?, engine.network("back").await?);
    let service = engine.unique("torn");
    let torn = engine.run(sample(&service, "torn").network(&front).network(&back)).await?;
    let found = problem(&edge.cli(), Code::AmbiguousNetwork, &subject(&torn)).await?;
    says(&found, &format!("`{}`", front.name), "set the label `tidegate.network`");
    says(&found, &format!("`{}`", back.name), "or `edge.network`");
    // One network less, and it is clear.
    back.disconnect(&torn).await?;
    edge.answers(&host(&service), 200).await?;
    mended(&edge.cli(), Code::AmbiguousNetwork, &subject(&torn)).await?;
    witness.was_served().await
}

#[tokio::test]
async fn a_host_claimed_twice_stays_with_the_incumbent() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let (first, second) = (engine.unique("first"), engine.unique("second"));
    let incumbent = engine.run(sample(&first, "first").version("incumbent")).await?;
    edge.answers(&host(&first), 200).await?;
    let newcomer = sample(&second, "second").label("tidegate.host", &host(&first)).version("newcomer");
    let newcomer = engine.run(newcomer).await?;

    let found = problem(&edge.cli(), Code::HostClaimed, &format!("service {second}")).await?;
    says(&found, &format!("`{}/` belongs to the service `{first}`", host(&first)), "use another `tidegate.host`");
    newcomer.ready().await?;
    let report = Load::get(edge.listener, &host(&first), "/").closed(4).requests(500).run().await?;
    report.all_succeeded()?;
    assert_eq!(report.by_version().into_iter().collect::<Vec<_>>(), [("incumbent".to_owned(), 500)]);

    // The host is free again once nobody who had it asks for it.
    incumbent.remove().await?;
    mended(&edge.cli(), Code::HostClaimed, &format!("service {second}")).await?;
    let answer = until(SOON, "an answer of the newcomer", async || {
        let answer = edge.get(&host(&first)).await?;
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(answer)
    });
    assert_eq!(answer.await?.version(), Some("newcomer"));
    Ok(())
}

#[tokio::test]
async fn a_closed_port_is_named_with_its_address() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let witness = Witness::start(&engine, &edge).await?;
    let service = engine.unique("closed");
    let closed = engine.run(sample(&service, "closed").label("tidegate.port", "9")).await?;
    let address = closed.address().await?.ip();
    let found = problem(&edge.cli(), Code::NotReady, &subject(&closed)).await?;
    says(&found, &format!("connection refused at {address}:9"), "set `tidegate.port`");
    let found = problem(&edge.cli(), Code::NoReadyInstance, &format!("service {service}")).await?;
    says(&found, "none of its instances is ready", &format!("tidegate explain {service}"));
    let answer = edge.answers(&host(&service), 503).await?;
    assert_eq!(answer.header("x-tidegate-reason"), Some("no-ready-instance"));
    witness.was_served().await
}

// --- configuration ---------------------------------------------------------------------------------------------------

fn canary(service: &str, weight: &str) -> String {
    format!("{{ \"{service}\": {{ stable: {{ version: v1 }}, canary: {{ version: v2, weight: {weight} }} }} }}")
}

#[tokio::test]
async fn an_invalid_edit_keeps_the_split_and_says_where() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("edit");
    let edge = Edge::start(&engine, &canary(&service, "20")).await?;
    let cli = edge.cli();
    let mut containers = Vec::new();
    for version in ["v1", "v2"] {
        containers.push(engine.run(sample(&service, version).label("tidegate.version", version)).await?);
        edge.healthy(&format!("{service}/{version}"), 1).await?;
    }
    edge.weighs(&service, "v2", 2_000).await?;
    let load = Load::get(edge.listener, &host(&service), "/").rate(50.0, 4).duration(Duration::from_secs(600)).start();

    let file = edge.tidegate.directory().join("tidegate.yaml").display().to_string();
    let good = edge.file(&canary(&service, "20"));
    let too_much = edge.file(&canary(&service, "101"));
    let weight = too_much.lines().nth(4).and_then(|line| line.rfind("101")).context("the weight's column")? + 1;
    for (text, place, reason, cure) in [
        (too_much, format!("5:{weight}"), "\"101\" is not a weight", "percent from 0 to 100"),
        (format!("{good}sevices: {{}}\n"), "6:1".to_owned(), "there is no key `sevices`", "did you mean `services`?"),
        (format!("{good}edge: ["), "6:".to_owned(), "this is not YAML", "mend the syntax"),
    ] {
        edge.tidegate.reconfigure(&text)?;
        let found = until(SOON, &format!("TG0401 at {place}"), async || {
            let (status, exit) = status(&cli).await?;
            ensure!(exit == 1, "status ends with {exit}");
            let at = format!("{file}:{place}");
            let is_it = |p: &&Problem| p.code == Code::InvalidConfig && p.subject.starts_with(&at);
            let found = status.problems.iter().filter(is_it).find(|p| p.reason.contains(reason));
            found.cloned().with_context(|| format!("there are {:#?}", status.problems))
        })
        .await?;
        says(&found, reason, cure);
        edge.weighs(&service, "v2", 2_000).await?;
    }
    fs::remove_file(&file)?;
    says(&problem(&cli, Code::UnreadableConfig, &file).await?, "cannot be read", "create the file");
    edge.weighs(&service, "v2", 2_000).await?;

    edge.declare(&canary(&service, "30"))?;
    edge.weighs(&service, "v2", 3_000).await?;
    mended(&cli, Code::UnreadableConfig, &file).await?;
    let (status, _) = status(&cli).await?;
    ensure!(!status.problems.iter().any(|p| p.code == Code::InvalidConfig), "{:#?}", status.problems);
    load.stop().await?.all_succeeded()
}

#[tokio::test]
async fn what_the_configuration_names_and_nobody_has_is_said_with_the_nearest() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("named");
    let typo = format!("{service}s");
    let edge = Edge::start(&engine, &canary(&typo, "10")).await?;
    let _container = engine.run(sample(&service, "named").label("tidegate.version", "v1")).await?;
    edge.answers(&host(&service), 200).await?;
    let found = problem(&edge.cli(), Code::UnknownReference, &format!("services.{typo} of tidegate.yaml")).await?;
    says(&found, &format!("there is no service `{typo}`"), &format!("did you mean `{service}`?"));

    edge.declare(&canary(&service, "10"))?;
    let found = problem(&edge.cli(), Code::UnknownReference, &format!("service {service}")).await?;
    says(&found, "names \"v2\" as its canary version, which no container has", "did you mean `v1`?");
    assert_eq!(edge.get(&host(&service)).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn an_address_is_read_at_start_only_and_that_is_said() -> Result<()> {
    let alone = Alone::new("unix:///nowhere/docker.sock")?;
    let (tidegate, cli) = alone.start(&["run"], &[]).await?;
    let moved = Alone { xds: ports::free()?.to_string(), ..Alone::new(&alone.endpoint)? };
    tidegate.reconfigure(&Alone { api: alone.api.clone(), ..moved }.yaml())?;
    let found = problem(&cli, Code::RestartNeeded, "xds.address").await?;
    says(&found, "read at start only", "restart tidegate");
    tidegate.reconfigure(&alone.yaml())?;
    mended(&cli, Code::RestartNeeded, "xds.address").await
}

#[tokio::test]
async fn an_invalid_file_is_told_whole_by_validate_and_at_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let cli = Cli { directory: Some(directory.path().to_owned()), ..Cli::default() };
    fs::write(
        directory.path().join("bad.yaml"),
        "edge: { listners: [] }\nservices:\n  shop: { stable: { version: v1 }, canary: { version: v2, weight: 101 } }\nbogus: 1\n",
    )?;
    let told = [
        "bad.yaml:1:9: there is no key `listners` in `edge`",
        "bad.yaml:3:67: `services.shop.canary.weight`: \"101\" is not a weight",
        "bad.yaml:4:1: there is no key `bogus` at the top of the file",
    ];
    let validated = cli.run(["validate", "bad.yaml"]).await?;
    assert_eq!(validated.code, 1, "{validated:?}");
    let started = cli.run(["run", "--config", "bad.yaml"]).await?;
    assert_eq!(started.code, 1, "{started:?}");
    for line in told {
        ensure!(validated.stdout.contains(&format!("error[TG0401]: {line}\n")), "{}", validated.stdout);
        ensure!(started.stderr.contains(&format!("error[TG0401]: {line}\n")), "{}", started.stderr);
    }
    let json = cli.run(["validate", "bad.yaml", "-o", "json"]).await?;
    let json: serde_json::Value = serde_json::from_str(&json.stdout)?;
    assert_eq!((json["valid"].as_bool(), json["problems"].as_array().map(Vec::len)), (Some(false), Some(told.len())));

    let missing = cli.run(["validate", "none.yaml"]).await?;
    ensure!(missing.code == 1 && missing.stdout.starts_with("error[TG0402]: none.yaml: "), "{missing:?}");
    fs::write(directory.path().join("good.yaml"), "services: {}\n")?;
    assert_eq!(cli.run(["validate", "good.yaml"]).await?.code, 0);
    assert_eq!(cli.run(["validate"]).await?.code, 2, "wrong usage");
    Ok(())
}

// --- Docker ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn without_a_docker_socket_it_runs_and_says_so() -> Result<()> {
    let alone = Alone::new("unix:///nowhere/nope.sock")?;
    let (mut tidegate, cli) = alone.start(&["run"], &[]).await?;
    let found = problem(&cli, Code::DockerUnreachable, "Docker engine unix:///nowhere/nope.sock").await?;
    says(&found, "there is no socket at /nowhere/nope.sock", "set `providers.docker.endpoint`");
    let (status, exit) = status(&cli).await?;
    assert_eq!((status.synced, exit), (false, 1), "nothing is published before Docker has answered");
    ensure!(status.awaiting.as_ref().is_some_and(|awaited| awaited.contains("docker")), "{:?}", status.awaiting);
    ensure!(tidegate.process.is_running());
    Ok(())
}

#[tokio::test]
async fn an_engine_that_is_killed_keeps_its_endpoints() -> Result<()> {
    let mut private = PrivateEngine::start().await?;
    let engine = private.connect().await?;
    let service = engine.unique("kept");
    let edge = Edge::start(&engine, "{}").await?;
    let _container = engine.run(sample(&service, "kept")).await?;
    edge.healthy(&format!("{service}/default"), 1).await?;
    let load = Load::get(edge.listener, &host(&service), "/").rate(50.0, 4).duration(Duration::from_secs(600)).start();

    private.kill()?;
    let docker = format!("Docker engine {}", private.endpoint());
    // First that the stream of events broke, and then why nobody can connect.
    until(SOON, "that nobody listens", async || {
        let found = problem(&edge.cli(), Code::DockerUnreachable, &docker).await?;
        ensure!(found.reason.contains("but nothing listens on it") && found.cure.contains("start Docker"), "{found}");
        Ok(())
    })
    .await?;
    edge.healthy(&format!("{service}/default"), 1).await?;
    private.restart().await?;
    mended(&edge.cli(), Code::DockerUnreachable, &docker).await?;
    edge.healthy(&format!("{service}/default"), 1).await?;
    // And what happens now is seen.
    let _second = engine.run(sample(&service, "second")).await?;
    edge.healthy(&format!("{service}/default"), 2).await?;
    load.stop().await?.all_succeeded()
}

// --- addresses and Envoy ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn an_address_in_use_is_named_with_its_key_and_its_holder() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let alone = || Alone::new("unix:///nowhere/docker.sock");
    let cases = [
        ("api.address", Alone { api: address.clone(), ..alone()? }),
        ("xds.address", Alone { xds: address.clone(), ..alone()? }),
    ];
    for (key, file) in cases {
        let ended = file.run().await?;
        let told = format!("error[TG0504]: `{key}` {address}: the address is in use by ");
        ensure!(ended.code == 1 && ended.stderr.contains(&told), "{ended:?}");
        ensure!(ended.stderr.contains(&format!("(process {})", std::process::id())), "{ended:?}");
        ensure!(ended.stderr.contains(&format!("set `{key}` in tidegate.yaml")), "{ended:?}");
    }
    Ok(())
}

/// Faults row 39.
#[tokio::test]
async fn a_second_control_plane_on_a_state_directory_does_not_start_until_the_first_is_gone() -> Result<()> {
    let state = tempfile::tempdir()?;
    let path = state.path().to_str().context("UTF-8")?;
    let command = ["run", "--state-dir", path];
    let alone = || Alone::new("unix:///nowhere/docker.sock");
    let (mut first, _) = alone()?.start(&command, &[]).await?;
    let holder = first.process.pid();
    for _ in 0..2 {
        let mut second = Tidegate::start(&command, &alone()?.yaml(), &[])?;
        ensure!(second.process.exited(SOON).await?.code() == Some(1), "{}", second.process.log());
        let told = format!("error[TG0304]: state directory {path}: another control plane uses it (process {holder})");
        ensure!(second.process.log().contains(&told), "{}", second.process.log());
    }
    ensure!(first.process.is_running(), "{}", first.process.log());
    // With kill -9, which leaves nobody to clean up.
    drop(first);
    alone()?.start(&command, &[]).await?;
    Ok(())
}

#[tokio::test]
async fn a_listener_in_use_is_told_by_up_until_it_is_free() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let engine = Engine::connect().await?;
    let alone = Alone { listener: address.clone(), ..Alone::new(&engine.endpoint())? };
    let envoy = tidegate_tests::envoy::locate()?.display().to_string();
    let (tidegate, cli) = alone.start(&["up"], &[("TIDEGATE_ENVOY", &envoy)]).await?;
    let listener = format!("`edge.listeners` {address}");
    let found = problem(&cli, Code::AddressInUse, &listener).await?;
    says(&found, &format!("(process {})", std::process::id()), "set `edge.listeners`");
    assert_eq!(tidegate.process.log().matches("TG0504").count(), 1, "{}", tidegate.process.log());
    drop(taken);
    mended(&cli, Code::AddressInUse, &listener).await?;
    until(SOON, "an edge", async || {
        let (status, _) = status(&cli).await?;
        ensure!(status.edges.len() == 1, "{:#?}", status.problems);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_wrong_or_missing_envoy_is_one_problem_and_the_control_plane_runs() -> Result<()> {
    for (envoy, reason) in [
        ("/nonexistent", "there is no such file"),
        ("/bin/true", "which is not Envoy"),
        ("/etc/passwd", "it may not be executed"),
        ("no-such-envoy", "there is no `no-such-envoy` in any of"),
    ] {
        let alone = Alone::new("unix:///nowhere/docker.sock")?;
        let (mut tidegate, cli) = alone.start(&["up"], &[("TIDEGATE_ENVOY", envoy)]).await?;
        let subject = if envoy.starts_with('/') { format!("Envoy ({envoy})") } else { "Envoy".to_owned() };
        let found = problem(&cli, Code::EnvoyUnusable, &subject).await?;
        says(&found, reason, "name its binary with TIDEGATE_ENVOY");
        // It is looked for again and again, and told once.
        let log = tidegate.process.log();
        ensure!(log.contains(&found.to_string()) && log.matches("TG0503").count() == 1, "{log}");
        ensure!(tidegate.process.is_running());
    }
    Ok(())
}

// --- questions -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_question_nobody_can_answer_says_why() -> Result<()> {
    let nobody = Cli { api: Some(format!("http://{}", ports::free()?)), ..Cli::default() };
    for command in [["status"].as_slice(), &["ps"], &["explain", "shop"], &["canary", "status"]] {
        let asked = nobody.run(command).await?;
        assert_eq!(asked.code, 3, "{command:?}: {asked:?}");
        ensure!(
            asked.stderr.starts_with("error: no control plane answers at ") && asked.stdout.is_empty(),
            "{asked:?}"
        );
    }
    let engine = Engine::connect().await?;
    let service = engine.unique("asked");
    let edge = Edge::start(&engine, "{}").await?;
    let _container = engine.run(sample(&service, "asked")).await?;
    edge.answers(&host(&service), 200).await?;
    let typo = format!("{service}d");
    let asked = edge.cli().run(["explain", &typo]).await?;
    ensure!(
        asked.code == 1 && asked.stderr.contains(&format!("there is no service, container or entry `{typo}`")),
        "{asked:?}"
    );
    ensure!(asked.stderr.contains(&format!("did you mean `{service}`?")), "{asked:?}");
    let asked = edge.cli().run(["canary", "status", &service]).await?;
    ensure!(asked.code == 1 && asked.stderr.contains(&format!("the service `{service}` has no canary")), "{asked:?}");
    assert_eq!(edge.cli().run(["statsu"]).await?.code, 2, "wrong usage");
    Ok(())
}
