//! The provider against a fake engine. Time is paused: it jumps to the next deadline whenever both have nothing to do.

mod containers;
mod engines;
mod histories;
mod hostile;
mod images;
mod model;
mod several;

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::instance::{Confirmed, Phase};
use tidegate_core::{Code, Discovered, Problem, Update};
use tidegate_fake_docker::{Answer, Call, Container, FakeDocker, Health, Hook, Spec, Status};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::*;

const ENABLED: &[(&str, &str)] = &[("tidegate.enable", "true")];

/// A provider at work, and what the inbox was told so far.
struct Bench {
    fake: FakeDocker,
    inbox: mpsc::Receiver<Input>,
    seen: BTreeMap<String, Discovered>,
    problems: Vec<Problem>,
    confirmed: Confirmed,
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
        let fake = FakeDocker::new();
        for (id, labels) in containers {
            fake.engine().run(Spec::new(id, labels));
        }
        let (sender, inbox) = mpsc::channel(16);
        let settings = DockerSettings { endpoint: fake.endpoint(), placement, ..DockerSettings::default() };
        let mut tasks = JoinSet::new();
        tasks.spawn(DockerProvider::new(settings, DockerStats::default()).run(sender, clock, CancellationToken::new()));
        Self {
            fake,
            inbox,
            seen: BTreeMap::new(),
            problems: Vec::new(),
            confirmed: Confirmed::default(),
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
            let Ok(input) = timeout_at(begin + Duration::from_secs(60), self.inbox.recv()).await else {
                panic!("{what} did not come; known are {:#?}, {:?}", self.seen, self.problems);
            };
            self.take(input.unwrap());
        }
        begin.elapsed()
    }

    /// Takes what comes within `duration`.
    async fn during(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while let Ok(input) = timeout_at(end, self.inbox.recv()).await {
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
            Update::Confirmed(confirmed) => self.confirmed = confirmed,
        }
    }

    fn instances(&self, id: &str) -> usize {
        self.seen.get(id).map_or(0, |discovered| discovered.instances.len())
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Container)) {
        self.fake.engine().change(id, change);
    }

    fn codes(&self) -> Vec<Code> {
        self.problems.iter().map(|problem| problem.code).collect()
    }
}
