//! The provider against a fake engine. Time is paused: it jumps to the next deadline whenever both have nothing to do.

mod fake;
mod images;

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::instance::Phase;
use tidegate_core::{Code, Discovered};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use self::fake::{Fake, FakeContainer};
use super::*;

const ENABLED: &[(&str, &str)] = &[("tidegate.enable", "true")];

/// A provider at work, and what the inbox was told so far.
struct Bench {
    fake: Fake,
    inbox: mpsc::Receiver<Input>,
    seen: BTreeMap<String, Discovered>,
    problems: Vec<Problem>,
    resets: usize,
    upserts: usize,
    started: Instant,
    _tasks: JoinSet<()>,
}

impl Bench {
    /// An engine with these containers, and a provider that has seen them.
    async fn new(containers: &[(&str, &[(&str, &str)])]) -> Self {
        let mut bench = Self::before(containers);
        bench.fake.listen();
        bench.until("the first reset", |bench| bench.resets == 1).await;
        bench
    }

    /// An engine that does not listen yet, and a provider that looks for it.
    fn before(containers: &[(&str, &[(&str, &str)])]) -> Self {
        Self::placed(containers, Placement::default())
    }

    fn placed(containers: &[(&str, &[(&str, &str)])], placement: Placement) -> Self {
        let clock = Clock::start();
        let fake = Fake::new(clock);
        for (id, labels) in containers {
            let container = fake.state().runs(labels);
            fake.state().containers.insert((*id).to_owned(), container);
        }
        let (sender, inbox) = mpsc::channel(16);
        let endpoint = format!("unix://{}", fake.path().display());
        let settings = DockerSettings { endpoint, placement, ..DockerSettings::default() };
        let mut tasks = JoinSet::new();
        tasks.spawn(DockerProvider::new(settings).run(sender, clock, CancellationToken::new()));
        Self {
            fake,
            inbox,
            seen: BTreeMap::new(),
            problems: Vec::new(),
            resets: 0,
            upserts: 0,
            started: Instant::now(),
            _tasks: tasks,
        }
    }

    /// Takes what comes until `done`, and fails after a minute.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Duration {
        let begin = Instant::now();
        while !done(self) {
            let Ok(input) = timeout(Duration::from_secs(60), self.inbox.recv()).await else {
                panic!("{what} did not come; known are {:#?}, {:?}", self.seen, self.problems);
            };
            self.take(input.unwrap());
        }
        begin.elapsed()
    }

    /// Takes what comes within `duration`.
    async fn during(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while let Ok(input) = tokio::time::timeout_at(end, self.inbox.recv()).await {
            self.take(input.unwrap());
        }
    }

    fn take(&mut self, input: Input) {
        let Input::Provider { provider, update } = input else { panic!("not from a provider: {input:?}") };
        assert_eq!(provider, ProviderName::docker());
        match update {
            Update::Reset(all) => {
                self.resets += 1;
                self.seen = all.into_iter().map(|discovered| (discovered.id.clone(), discovered)).collect();
            }
            Update::Upsert(discovered) => {
                assert!(self.resets > 0, "an upsert before the first reset: {discovered:?}");
                self.upserts += 1;
                self.seen.insert(discovered.id.clone(), *discovered);
            }
            Update::Remove(id) => assert!(self.seen.remove(&id).is_some(), "{id} was not known"),
            Update::Problems(problems) => self.problems = problems,
        }
    }

    fn instances(&self, id: &str) -> usize {
        self.seen.get(id).map_or(0, |discovered| discovered.instances.len())
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut FakeContainer)) {
        change(self.fake.state().containers.get_mut(id).unwrap());
    }

    fn codes(&self) -> Vec<Code> {
        self.problems.iter().map(|problem| problem.code).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_is_known_as_soon_as_it_starts() {
    let mut bench = Bench::new(&[]).await;
    let container = bench.fake.state().runs(ENABLED);
    bench.fake.state().start("a", container);
    let took = bench.until("the instance", |bench| bench.instances("a") == 1).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(bench.seen["a"].hint.action, "start");
}

#[tokio::test(start_paused = true)]
async fn what_starts_while_the_list_is_made_is_not_lost() {
    let mut bench = Bench::before(&[("a", ENABLED)]);
    let late = bench.fake.state().runs(ENABLED);
    bench.fake.state().faults.after_list = Some(("late".to_owned(), late));
    bench.fake.listen();
    bench.until("the first reset", |bench| bench.resets == 1).await;
    let took = bench.until("the latecomer", |bench| bench.instances("late") == 1).await;
    assert!(took < Duration::from_millis(500), "{took:?}: a later list found it, not the event");
    let requests = bench.fake.state().requests.clone();
    let first = |what: &str| requests.iter().position(|request| request.ends_with(what)).unwrap();
    assert!(first("/events") < first("/containers/json"), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn what_happened_just_before_the_subscription_is_not_lost() {
    let mut bench = Bench::before(&[]);
    // It happens while nobody listens, and no list shows it: only the memory of events does.
    bench.fake.state().emit("a", "create", &[("tidegate.enable", "false")]);
    bench.fake.listen();
    bench.until("the container", |bench| bench.seen.contains_key("a")).await;
}

#[tokio::test(start_paused = true)]
async fn only_enabled_containers_are_inspected_and_nothing_is_ever_changed() {
    let mut bench = Bench::new(&[("on", ENABLED), ("off", &[]), ("no", &[("tidegate.enable", "false")])]).await;
    assert_eq!(bench.seen.len(), 3);
    bench.fake.state().emit("off", "pause", &[]);
    bench.until("the pause", |bench| bench.seen["off"].phase == Phase::Paused).await;
    bench.change("no", |container| container.status = "exited");
    bench.during(Duration::from_secs(40)).await;
    assert_eq!(bench.seen["no"].phase, Phase::Exited { code: 0, oom: false }, "the list said so");
    let state = bench.fake.state();
    assert_eq!((state.inspects_of("off"), state.inspects_of("no")), (0, 0));
    assert!(state.inspects_of("on") > 0);
    for request in &state.requests {
        let path = request.strip_prefix("GET ").unwrap();
        assert!(path.starts_with("/v1.41/") || path == "/version" || path == "/_ping", "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_is_followed_by_a_full_set() {
    let mut bench = Bench::new(&[("stays", ENABLED), ("goes", ENABLED), ("ends", ENABLED)]).await;
    {
        let mut state = bench.fake.state();
        state.faults.refusing = true;
        state.cut();
        state.containers.remove("goes");
        state.containers.get_mut("ends").unwrap().status = "exited";
        let new = state.runs(ENABLED);
        state.containers.insert("comes".to_owned(), new);
    }
    bench.until("the problem", |bench| bench.codes() == [Code::DockerUnreachable]).await;
    assert_eq!(bench.seen.len(), 3, "what was known stays");
    sleep(Duration::from_secs(5)).await;
    bench.fake.state().faults.refusing = false;
    let took = bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
    assert_eq!(bench.seen.keys().collect::<Vec<_>>(), ["comes", "ends", "stays"]);
    assert_eq!((bench.instances("comes"), bench.instances("ends"), bench.instances("stays")), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_idle_stream_is_no_problem() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    sleep(Duration::from_secs(60)).await;
    bench.fake.state().cut();
    let took = bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(bench.problems.is_empty());
    assert_eq!(bench.upserts, 0, "nothing had changed");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_inspected_stays_as_it_was() {
    let mut bench = Bench::new(&[("a", ENABLED), ("b", ENABLED)]).await;
    bench.fake.state().faults.broken.insert("a".to_owned());
    bench.change("a", |container| container.address = "172.30.0.9");
    bench.fake.state().emit("a", "rename", &[]);
    bench.until("the problem", |bench| bench.codes() == [Code::InspectFailed]).await;
    assert!(bench.problems[0].reason.contains("HTTP 500: it is broken"), "{:?}", bench.problems);
    assert_eq!(bench.seen["a"].instances[0].id.address.ip().to_string(), "172.30.0.2");
    bench.fake.state().faults.broken.clear();
    let took = bench
        .until("the new address", |bench| bench.seen["a"].instances[0].id.address.ip().to_string() == "172.30.0.9");
    assert!(took.await < Duration::from_secs(2));
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
    assert_eq!(bench.resets, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_drains_at_once_and_outlives_a_reconnect_but_not_its_time() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.state().faults.inspects_hang = true;
    bench.fake.state().emit("a", "kill", &[("signal", "1")]);
    bench.fake.state().emit("a", "kill", &[("signal", "15")]);
    let took = bench.until("the drain", |bench| bench.seen["a"].terminating.is_some()).await;
    assert!(took < Duration::from_millis(50), "{took:?}: it waited for a look");
    assert_eq!(bench.instances("a"), 1);
    bench.fake.state().faults.inspects_hang = false;
    bench.fake.state().cut();
    bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(bench.seen["a"].terminating.is_some());
    let took = bench.until("the end of the drain", |bench| bench.seen["a"].terminating.is_none()).await;
    assert!((Duration::from_secs(10)..Duration::from_secs(13)).contains(&took), "{took:?}");
    assert_eq!(bench.instances("a"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_died_is_gone_at_once_and_its_run_never_comes_back() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    let first = bench.seen["a"].instances[0].id.clone();
    sleep(Duration::from_secs(1)).await;
    // The engine goes on showing the run that ended.
    bench.fake.state().emit("a", "die", &[("exitCode", "137")]);
    let took = bench.until("its end", |bench| bench.instances("a") == 0).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(bench.seen["a"].phase, Phase::Exited { code: 137, oom: false });
    bench.during(Duration::from_secs(30)).await;
    assert_eq!(bench.instances("a"), 0);
    let now = bench.fake.state().now();
    bench.change("a", |container| container.started_at = now);
    bench.until("the next run", |bench| bench.instances("a") == 1).await;
    assert_ne!(bench.seen["a"].instances[0].id, first);
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_container_is_removed() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.state().containers.remove("a");
    bench.fake.state().emit("a", "destroy", &[("tidegate.enable", "true")]);
    bench.until("the removal", |bench| bench.seen.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_die_is_seen() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.change("a", |container| container.status = "exited");
    bench.fake.state().emit("a", "stop", &[]);
    let took = bench.until("its end", |bench| bench.instances("a") == 0).await;
    assert!(took < Duration::from_millis(250), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn swapped_and_repeated_events_end_in_what_is() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    sleep(Duration::from_secs(1)).await;
    {
        let mut state = bench.fake.state();
        let now = state.now();
        state.containers.get_mut("a").unwrap().started_at = now;
        for _ in 0..10 {
            state.emit_at(now + 1_000_000, "a", "start", &[]);
            state.emit_at(now - 1_000_000, "a", "die", &[("exitCode", "0")]);
        }
    }
    bench.during(Duration::from_secs(1)).await;
    assert_eq!(bench.instances("a"), 1);
    assert!(bench.upserts <= 2, "the end of one run and the next one, not {} updates", bench.upserts);
    let run = bench.seen["a"].instances[0].id.clone();
    let before = bench.upserts;
    for _ in 0..10 {
        bench.fake.state().emit("a", "oom", &[]);
    }
    bench.during(Duration::from_secs(1)).await;
    assert_eq!((bench.upserts, &bench.seen["a"].instances[0].id), (before, &run));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_noticed_within_ten_seconds() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.state().faults.frozen = true;
    let took = bench.until("the problem", |bench| bench.codes() == [Code::DockerUnreachable]).await;
    assert!(took <= Duration::from_secs(10), "{took:?}");
    assert!(bench.problems[0].reason.contains("no answer to a ping within 2s"), "{:?}", bench.problems);
    assert_eq!(bench.instances("a"), 1, "what was known stays");
    bench.change("a", |container| container.status = "exited");
    bench.fake.state().faults.frozen = false;
    let took = bench.until("its end", |bench| bench.instances("a") == 0).await;
    assert!(took <= Duration::from_secs(20), "{took:?}");
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_keeps_events_to_itself_is_made_up_for_by_lists() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    sleep(Duration::from_secs(70)).await;
    bench.fake.state().faults.mute = true;
    bench.change("a", |container| container.status = "exited");
    bench.fake.state().emit("a", "die", &[("exitCode", "0")]);
    let took = bench.until("its end", |bench| bench.instances("a") == 0).await;
    assert!(took <= Duration::from_secs(16), "{took:?}");
    bench.fake.state().faults.mute = false;
    let took = bench.until("another stream", |bench| bench.resets == 2).await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_comes_late_is_found_soon() {
    let mut bench = Bench::new(&[]).await;
    let early = FakeContainer { address: "", ..bench.fake.state().runs(ENABLED) };
    bench.fake.state().start("a", early);
    bench.until("the container", |bench| bench.seen.contains_key("a")).await;
    bench.change("a", |container| container.address = "172.30.0.7");
    let took = bench.until("the instance", |bench| bench.instances("a") == 1).await;
    assert!(took <= Duration::from_millis(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_socket_is_one_clear_problem_until_it_is_there() {
    let mut bench = Bench::before(&[("a", ENABLED)]);
    bench.until("the problem", |bench| !bench.problems.is_empty()).await;
    let [problem] = bench.problems.as_slice() else { panic!("{:?}", bench.problems) };
    assert_eq!(problem.code, Code::DockerUnreachable);
    assert!(problem.reason.starts_with("there is no socket at /"), "{problem}");
    assert!(problem.cure.contains("start Docker"), "{problem}");
    assert_eq!(bench.resets, 0);
    bench.during(Duration::from_secs(30)).await;
    bench.fake.listen();
    let took = bench.until("the first reset", |bench| bench.resets == 1).await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
    assert!(bench.started.elapsed() >= Duration::from_secs(30));
}
