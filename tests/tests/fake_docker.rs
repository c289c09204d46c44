//! The fake engine against a real one: the same scenario on both, and what a client of each is told and shown. Compared are
//! the fields that tidegate reads; ids, times and addresses differ by nature. Events are compared as sets by container and
//! step: Docker promises no order between what its goroutines emit (moby#50242), and tells some things twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{EventsOptions, RenameContainerOptions};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tidegate_fake_docker::{FakeDocker, Health, Restart};
use tidegate_tests::engine::{Container, Engine, Network, PORT, Spec};
use tidegate_tests::poll::{SOON, until};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What tidegate asks for.
const ACTIONS: [&str; 13] = [
    "create",
    "start",
    "kill",
    "stop",
    "die",
    "oom",
    "pause",
    "unpause",
    "health_status",
    "rename",
    "destroy",
    "connect",
    "disconnect",
];
/// The label by which events and containers of the scenario are told from others, and its value.
const LABEL: (&str, &str) = ("recorded.by", "this-test");

/// One thing done to a container, on both engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Start,
    Healthy,
    Unhealthy,
    Pause,
    Unpause,
    Hup,
    Restart,
    Rename,
    Connect,
    Disconnect,
    Stop,
    Kill,
    Remove,
    RemoveRunning,
    /// A container that fails at once, and is started again once.
    FailTwice,
    /// One that fails again and again, and is stopped between two runs.
    FailAndStop,
}

/// The lives, one container each.
const LIVES: &[&[Step]] = &[
    &[
        Step::Create,
        Step::Start,
        Step::Pause,
        Step::Unpause,
        Step::Hup,
        Step::Restart,
        Step::Rename,
        Step::Connect,
        Step::Disconnect,
        Step::Stop,
        Step::Start,
        Step::Kill,
        Step::Remove,
    ],
    &[Step::Create, Step::Start, Step::Healthy, Step::Unhealthy, Step::RemoveRunning],
    &[Step::FailTwice, Step::Remove],
    &[Step::FailAndStop, Step::Remove],
];

/// What a client sees of a container after a step.
#[derive(Debug, PartialEq)]
struct Seen {
    events: BTreeSet<String>,
    inspect: Value,
    list: Value,
    /// Another run than before the step.
    new_run: bool,
}

/// A client of an engine: bollard for both, and the stream of events as JSON.
struct Client {
    docker: Docker,
    events: mpsc::Receiver<(String, String)>,
    heard: BTreeSet<String>,
    run: String,
    /// What names are on this engine, and what they are called here.
    names: Vec<(String, &'static str)>,
    _reader: JoinSet<()>,
}

impl Client {
    async fn new(socket: &Path, names: Vec<(String, &'static str)>) -> Result<Self> {
        let version = bollard::ClientVersion { major_version: 1, minor_version: 41 };
        let docker = Docker::connect_with_unix(socket.to_str().context("UTF-8")?, 60, &version)?;
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned(), "network".to_owned()]),
            ("event".to_owned(), ACTIONS.map(str::to_owned).to_vec()),
        ]);
        let mut stream = Box::pin(docker.events(Some(EventsOptions {
            since: Some("0".to_owned()),
            filters: Some(filters),
            ..Default::default()
        })));
        let (sender, events) = mpsc::channel(1024);
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Some(Ok(event)) = stream.next().await {
                let actor = event.actor.unwrap_or_default();
                let attributes = actor.attributes.unwrap_or_default();
                let kind = event.typ.map(|kind| kind.to_string()).unwrap_or_default();
                let id = if kind == "network" { attributes.get("container").cloned() } else { actor.id };
                let read: BTreeMap<&str, &String> = ["name", "signal", "exitCode", LABEL.0]
                    .into_iter()
                    .filter_map(|key| Some((key, attributes.get(key)?)))
                    .collect();
                let told = format!("{kind} {} {read:?}", event.action.unwrap_or_default());
                if sender.send((id.unwrap_or_default(), told)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { docker, events, heard: BTreeSet::new(), run: String::new(), names, _reader: reader })
    }

    fn plain(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, plain)| text.replace(name, plain))
    }

    /// Everything told of `id` since the last step.
    fn hear(&mut self, id: &str) {
        while let Ok((of, told)) = self.events.try_recv() {
            if of == id {
                let told = self.plain(&told);
                self.heard.insert(told);
            }
        }
    }

    async fn look(&mut self, id: &str) -> Result<Seen> {
        self.hear(id);
        let inspect = match self.docker.inspect_container(id, None).await {
            Ok(inspect) => serde_json::to_value(inspect)?,
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404, .. }) => Value::Null,
            Err(error) => return Err(error.into()),
        };
        let options = bollard::query_parameters::ListContainersOptions { all: true, ..Default::default() };
        let list = self.docker.list_containers(Some(options)).await?;
        let entry = list.into_iter().find(|entry| entry.id.as_deref() == Some(id));
        let run = inspect["State"]["StartedAt"].as_str().unwrap_or_default().to_owned();
        let new_run = run != self.run;
        let list = entry.map(serde_json::to_value).transpose()?.map_or(Value::Null, |entry| summary_read(&entry));
        let text = |value: Value| -> Result<Value> { Ok(serde_json::from_str(&self.plain(&value.to_string()))?) };
        Ok(Seen { events: self.heard.clone(), inspect: text(inspect_read(&inspect))?, list: text(list)?, new_run })
    }

    fn next(&mut self, seen: &Seen) {
        if seen.new_run {
            self.run = String::from("old");
        }
        self.heard.clear();
    }

    async fn remember_run(&mut self, id: &str) {
        if let Ok(inspect) = self.docker.inspect_container(id, None).await {
            self.run = inspect.state.and_then(|state| state.started_at).unwrap_or_default();
        }
    }
}

/// What is read of an inspect.
fn inspect_read(inspect: &Value) -> Value {
    if inspect.is_null() {
        return Value::Null;
    }
    let state = &inspect["State"];
    // bollard writes an empty enumeration for a HEALTHCHECK that is not there.
    let health = state["Health"]["Status"].as_str().filter(|health| !matches!(*health, "" | "none"));
    json!({
        "name": inspect["Name"], "status": state["Status"], "code": state["ExitCode"], "oom": state["OOMKilled"],
        "started": state["StartedAt"].as_str().is_some_and(|at| !at.starts_with("0001")),
        "health": health, "restarts": inspect["RestartCount"],
        "label": inspect["Config"]["Labels"][LABEL.0],
        "ports": inspect["Config"]["ExposedPorts"],
        "signal": inspect["Config"]["StopSignal"], "timeout": inspect["Config"]["StopTimeout"],
        "mode": inspect["HostConfig"]["NetworkMode"],
        "networks": networks(&inspect["NetworkSettings"]["Networks"]),
    })
}

/// What is read of a list's entry.
fn summary_read(entry: &Value) -> Value {
    let words = entry["Status"].as_str().unwrap_or_default();
    let health = ["(health: starting)", "(healthy)", "(unhealthy)"].into_iter().find(|health| words.contains(health));
    // `Exited (137) 3 seconds ago`
    let code = words.split_once(") ").map(|(code, _)| code).filter(|code| code.starts_with("Exited ("));
    json!({
        "names": entry["Names"], "state": entry["State"], "health": health, "code": code,
        "label": entry["Labels"][LABEL.0], "mode": entry["HostConfig"]["NetworkMode"],
        "networks": networks(&entry["NetworkSettings"]["Networks"]),
    })
}

/// Networks, and whether there is an address.
fn networks(networks: &Value) -> BTreeMap<String, bool> {
    let networks = networks.as_object().into_iter().flatten();
    networks
        .map(|(name, endpoint)| (name.clone(), endpoint["IPAddress"].as_str().is_some_and(|ip| !ip.is_empty())))
        .collect()
}

/// The real engine's side.
struct Real {
    engine: Engine,
    network: Network,
    container: Option<Container>,
}

impl Real {
    async fn play(&mut self, life: usize, step: Step) -> Result<String> {
        let container = self.container.clone();
        let it = || container.clone().context("it was created");
        match step {
            Step::Create => {
                let mut spec = Spec::sample(&format!("life-{life}")).label(LABEL.0, LABEL.1);
                if life == 1 {
                    spec = spec.healthcheck(Duration::from_millis(200));
                }
                self.container = Some(self.engine.create(spec).await?);
            }
            Step::Start => it()?.start().await?,
            Step::Healthy => it()?.healthy().await?,
            Step::Unhealthy => {
                it()?.control("health=false").await?;
                it()?.unhealthy().await?;
            }
            Step::Pause => it()?.pause().await?,
            Step::Unpause => it()?.unpause().await?,
            Step::Hup => it()?.kill("SIGHUP").await?,
            Step::Restart => it()?.restart(Duration::from_secs(10)).await?,
            Step::Rename => {
                let options = RenameContainerOptions { name: self.engine.unique("renamed") };
                self.engine.docker().rename_container(&it()?.id, options).await?;
            }
            Step::Connect => self.network.connect(&it()?).await?,
            Step::Disconnect => self.network.disconnect(&it()?).await?,
            Step::Stop => it()?.stop(Duration::from_secs(10)).await?,
            Step::Kill => it()?.kill("SIGKILL").await?,
            Step::Remove | Step::RemoveRunning => it()?.remove().await?,
            Step::FailTwice => {
                self.fail(life, RestartPolicyNameEnum::ON_FAILURE, 1).await?;
                let container = self.container.clone().context("it was created")?;
                until(SOON, "its second end", async || {
                    let inspect = container.inspect().await?;
                    let state = inspect.state.context("state")?;
                    ensure!(inspect.restart_count == Some(1) && state.running == Some(false), "{state:?}");
                    Ok(())
                })
                .await?;
            }
            Step::FailAndStop => {
                self.fail(life, RestartPolicyNameEnum::ALWAYS, 0).await?;
                let container = self.container.clone().context("it was created")?;
                // The pause is over three seconds by then.
                until(SOON, "a long pause between two runs", async || {
                    let inspect = container.inspect().await?;
                    let state = inspect.state.context("state")?;
                    ensure!(inspect.restart_count >= Some(5) && state.restarting == Some(true), "{state:?}");
                    Ok(())
                })
                .await?;
                container.stop(Duration::from_secs(10)).await?;
            }
        }
        Ok(self.container.as_ref().context("a container")?.id.clone())
    }

    /// Runs what fails at once.
    async fn fail(&mut self, life: usize, policy: RestartPolicyNameEnum, retries: i64) -> Result<()> {
        let mut spec = Spec::sample(&format!("life-{life}")).label(LABEL.0, LABEL.1).host_config(|host| {
            let retries = (retries > 0).then_some(retries);
            host.restart_policy = Some(RestartPolicy { name: Some(policy), maximum_retry_count: retries });
        });
        spec.body.cmd = Some(vec!["--no-such-option".to_owned()]);
        self.container = Some(self.engine.run(spec).await?);
        Ok(())
    }
}

/// The fake one's.
async fn pretend(fake: &FakeDocker, life: usize, step: Step) -> String {
    let id = format!("life-{life}");
    let spec = |restart| tidegate_fake_docker::Spec {
        ports: vec![PORT],
        restart,
        healthcheck: life == 1,
        ..tidegate_fake_docker::Spec::new(&id, &[LABEL])
    };
    match step {
        Step::Create => _ = fake.engine().create(spec(Restart::No)),
        Step::Start => fake.engine().start(&id),
        Step::Healthy => fake.engine().judge(&id, Health::Healthy),
        Step::Unhealthy => fake.engine().judge(&id, Health::Unhealthy),
        Step::Pause => fake.engine().pause(&id),
        Step::Unpause => fake.engine().unpause(&id),
        Step::Hup => fake.engine().kill(&id, 1, None),
        Step::Restart => fake.engine().restart(&id, Duration::from_millis(20)),
        Step::Rename => fake.engine().rename(&id, "renamed"),
        Step::Connect => fake.engine().connect(&id, "second"),
        Step::Disconnect => fake.engine().disconnect(&id, "second"),
        Step::Stop => fake.engine().stop(&id, Duration::from_millis(20)),
        Step::Kill => fake.engine().kill(&id, 9, None),
        Step::Remove | Step::RemoveRunning => fake.engine().remove(&id),
        Step::FailTwice => {
            fake.engine().run(spec(Restart::OnFailure(1)));
            fail(fake, &id, 2).await;
        }
        Step::FailAndStop => {
            fake.engine().run(spec(Restart::Always));
            fail(fake, &id, 6).await;
            fake.engine().stop(&id, Duration::ZERO);
        }
    }
    id
}

/// Each run of `id` ends at once, so many times.
async fn fail(fake: &FakeDocker, id: &str, times: usize) {
    for _ in 0..times {
        let runs = async || {
            let running = fake.engine().container(id).is_some_and(|container| container.status.is_alive());
            ensure!(running, "not yet");
            Ok(())
        };
        until(SOON, "its next run", runs).await.expect("the policy starts it again");
        fake.engine().exit(id, 2);
    }
}

#[tokio::test]
async fn the_fake_engine_tells_what_a_real_one_tells() -> Result<()> {
    let engine = Engine::connect().await?;
    let network = engine.network("second").await?;
    let names = vec![(engine.unique(""), "")];
    let mut real_client = Client::new(engine.socket(), names).await?;
    let mut real = Real { engine, network, container: None };

    let mut fake = FakeDocker::new();
    fake.listen();
    fake.engine().create_network("second");
    let mut fake_client = Client::new(&fake.socket(), Vec::new()).await?;

    for (life, steps) in LIVES.iter().enumerate() {
        for step in *steps {
            let id = pretend(&fake, life, *step).await;
            // Stops and restarts take a moment.
            let settled = async || {
                let status = fake.engine().container(&id).map(|container| container.status);
                let ended = !matches!(step, Step::Stop) || status == Some(tidegate_fake_docker::Status::Exited);
                let began = !matches!(step, Step::Restart) || fake_client.look(&id).await?.new_run;
                ensure!(ended && began, "{status:?}");
                Ok(())
            };
            until(SOON, "the fake engine", settled).await?;
            let real_id = real.play(life, *step).await?;
            let mut wanted = fake_client.look(&id).await?;
            let same = async || {
                // The fake's events too are still under way.
                wanted = fake_client.look(&id).await?;
                let is = real_client.look(&real_id).await?;
                ensure!(is == wanted, "life {life}, {step:?}:\nreal {is:#?}\nfake {wanted:#?}");
                Ok(is)
            };
            let is = until(SOON, "both engines to show the same", same).await?;
            real_client.next(&is);
            fake_client.next(&is);
            real_client.remember_run(&real_id).await;
            fake_client.remember_run(&id).await;
        }
    }
    Ok(())
}
