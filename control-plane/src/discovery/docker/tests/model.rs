//! A small model of containers, beside the fake engine that plays them and the provider that follows it: who runs, since when
//! and at which address. It knows what was done, and nothing of events, lists or looks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use tidegate_core::compile::{Compiler, Resource};
use tidegate_core::config::parse;
use tidegate_core::{ServiceName, State};
use tidegate_fake_docker::{Delivery, Restart};

use super::*;

/// What a container is made with.
#[derive(Clone, Copy)]
struct Make {
    name: &'static str,
    enabled: bool,
    policy: bool,
    healthcheck: bool,
}

/// The containers there may be. Nothing ever happens to the first one, so that the service always has an instance: what is
/// left of a service that stops whole goes on serving.
const MAKES: [Make; 6] = [
    Make { name: "anchor", enabled: true, policy: false, healthcheck: false },
    Make { name: "plain", enabled: true, policy: false, healthcheck: false },
    Make { name: "other", enabled: true, policy: false, healthcheck: false },
    Make { name: "always", enabled: true, policy: true, healthcheck: false },
    Make { name: "checked", enabled: true, policy: false, healthcheck: true },
    Make { name: "stranger", enabled: false, policy: true, healthcheck: false },
];
/// How many of them things happen to.
pub(super) const SUBJECTS: usize = MAKES.len() - 1;
/// Addresses that the enabled ones share; each has one of its own too.
pub(super) const SHARED: u8 = 3;

/// The longest time after which everything is known again once nothing goes wrong any more: a list, the resync after it, and
/// the longest pause before a failed look is tried again.
const QUIET: Duration = Duration::from_secs(25);
/// The time after which everything is known while nothing goes wrong.
const SOON: Duration = Duration::from_millis(200);
/// Beyond its stop timeout a container is given this long before it counts as having survived.
const GRACE: Duration = Duration::from_secs(12);
const SERVICE: &str = "shop";

/// One thing that happens. Containers are numbered from the first that is a subject; times are milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// `docker run` or `docker start`, at one of the shared addresses.
    Start(usize, u8),
    Exit(usize),
    OutOfMemory(usize),
    Stop(usize, u64),
    Kill(usize),
    /// SIGTERM by `docker kill`, which it survives.
    Term(usize),
    Hup(usize),
    Restart(usize, u64),
    Pause(usize),
    Unpause(usize),
    Rename(usize),
    Remove(usize),
    Judge(usize, Health),
    Disconnect(usize),
    Connect(usize),
    /// So many commands are run in the anchor.
    Noise(u16),
    Wait(u64),
    /// Where nothing went wrong since the last quiet point: compares. Where only looks went wrong: what events tell at once is
    /// known.
    Look,
    /// Everything that goes wrong ends, and there is time to notice: compares.
    Quiet,
    /// What goes wrong from now on.
    Deliver(Delivery),
    Mute,
    Cut,
    Freeze,
    Refuse,
    GoAway,
    Stale(u64),
    Break(Option<usize>, Fault),
    BreakList(Fault),
    BreakPing(Fault),
}

impl Step {
    /// Whether it is something that goes wrong.
    pub(super) const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Deliver(_)
                | Self::Mute
                | Self::Cut
                | Self::Freeze
                | Self::Refuse
                | Self::GoAway
                | Self::Stale(_)
                | Self::Break(..)
                | Self::BreakList(_)
                | Self::BreakPing(_)
        )
    }
}

/// How an answer goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    After(u64),
    Old(u64),
    Never,
    Refused,
    Half,
    Garbage,
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::After(millis) => Self::After(Duration::from_millis(millis)),
            Fault::Old(millis) => Self::Old(Duration::from_millis(millis)),
            Fault::Never => Self::Never,
            Fault::Refused => Self::Status(500, "it is broken"),
            Fault::Half => Self::Half,
            Fault::Garbage => Self::Garbage,
        }
    }
}

const fn name(subject: usize) -> &'static str {
    MAKES[subject + 1].name
}

/// On one line, as it is read best where a failure tells how it came about.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Start(it, address) => write!(f, "start {} at {address}", name(it)),
            Self::Exit(it) => write!(f, "{} exits", name(it)),
            Self::OutOfMemory(it) => write!(f, "{} runs out of memory", name(it)),
            Self::Stop(it, takes) => write!(f, "stop {}, which takes {takes} ms", name(it)),
            Self::Kill(it) => write!(f, "kill {}", name(it)),
            Self::Term(it) => write!(f, "{} survives SIGTERM", name(it)),
            Self::Hup(it) => write!(f, "HUP {}", name(it)),
            Self::Restart(it, takes) => write!(f, "restart {}, which takes {takes} ms", name(it)),
            Self::Pause(it) => write!(f, "pause {}", name(it)),
            Self::Unpause(it) => write!(f, "unpause {}", name(it)),
            Self::Rename(it) => write!(f, "rename {}", name(it)),
            Self::Remove(it) => write!(f, "remove {}", name(it)),
            Self::Judge(it, health) => write!(f, "{} is {}", name(it), health.as_str()),
            Self::Disconnect(it) => write!(f, "disconnect {}", name(it)),
            Self::Connect(it) => write!(f, "connect {}", name(it)),
            Self::Noise(count) => write!(f, "{count} commands"),
            Self::Wait(millis) => write!(f, "wait {millis} ms"),
            Self::Look => f.write_str("look"),
            Self::Quiet => f.write_str("quiet"),
            Self::Deliver(delivery) => write!(f, "the next event: {delivery:?}"),
            Self::Mute => f.write_str("no events"),
            Self::Cut => f.write_str("the stream ends"),
            Self::Freeze => f.write_str("freeze"),
            Self::Refuse => f.write_str("connections refused"),
            Self::GoAway => f.write_str("the engine is killed"),
            Self::Stale(millis) => write!(f, "looks are {millis} ms stale"),
            Self::Break(None, fault) => write!(f, "inspects: {fault:?}"),
            Self::Break(Some(it), fault) => write!(f, "inspects of {}: {fault:?}", name(it)),
            Self::BreakList(fault) => write!(f, "lists: {fault:?}"),
            Self::BreakPing(fault) => write!(f, "pings: {fault:?}"),
        }
    }
}

/// One run of a container.
#[derive(Clone, Debug)]
struct Run {
    /// The container's id.
    container: String,
    began: Instant,
    address: Ipv4Addr,
    ended: Option<Instant>,
}

/// What the model knows of one container.
#[derive(Clone, Debug, Default)]
struct Life {
    exists: bool,
    /// How often a container of its name was made before; each has an id of its own.
    made: usize,
    /// The number of its run.
    run: Option<usize>,
    address: u8,
    paused: bool,
    connected: bool,
    health: Option<Health>,
    /// When it was told to stop.
    told: Option<Instant>,
    /// Somebody stopped it for good.
    stopped: bool,
    backoff: u32,
    due: Option<(Instant, Due)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Start,
    Stop,
    Restart,
}

pub(super) struct World {
    fake: FakeDocker,
    inbox: mpsc::Receiver<Input>,
    _provider: JoinSet<()>,
    clock: Clock,
    state: State,
    compiler: Compiler,
    service: ServiceName,
    /// The endpoints now.
    healthy: BTreeSet<Ipv4Addr>,
    lives: [Life; MAKES.len()],
    runs: Vec<Run>,
    /// The engine's time at that moment.
    epoch: (Instant, i64),
    /// The end of the last quiet point.
    quiet: Instant,
    /// Events were lost or late since then, or connections were.
    troubled: bool,
    /// Looks were late, wrong or stale since then.
    blurred: bool,
    away: bool,
    frozen: bool,
}

fn state() -> State {
    State::new(parse("tidegate.yaml", "{}").unwrap(), [ProviderName::docker()], 0)
}

fn compiler() -> Compiler {
    Compiler::new("filter.wasm".to_owned())
}

fn own(make: usize) -> u8 {
    100 + u8::try_from(make).unwrap()
}

fn ip(address: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 30, 1, address)
}

/// What a container is known by to the engine.
fn id(make: usize, life: &Life) -> String {
    format!("{}-{}", MAKES[make].name, life.made)
}

impl World {
    /// An engine whose clock is ahead by so much, and a provider that has seen it.
    pub(super) async fn new(ahead: Duration) -> Self {
        let clock = Clock::start();
        let mut fake = FakeDocker::new();
        fake.engine().set_ahead(ahead);
        fake.listen();
        let (sender, inbox) = mpsc::channel(16);
        let settings = DockerSettings { endpoint: fake.endpoint(), jitter: 7, ..DockerSettings::default() };
        let mut provider = JoinSet::new();
        provider.spawn(DockerProvider::new(settings, DockerStats::default()).run(
            sender,
            clock,
            CancellationToken::new(),
        ));
        let epoch = (Instant::now(), fake.engine().now());
        let mut world = Self {
            fake,
            inbox,
            _provider: provider,
            clock,
            state: state(),
            compiler: compiler(),
            service: ServiceName::new(SERVICE).unwrap(),
            healthy: BTreeSet::new(),
            lives: Default::default(),
            runs: Vec::new(),
            epoch,
            quiet: Instant::now(),
            troubled: false,
            blurred: false,
            away: false,
            frozen: false,
        };
        world.start(0, own(0));
        world.pass(Duration::from_secs(2)).await;
        world
    }

    pub(super) async fn step(&mut self, step: Step) {
        self.fake.engine().keep_up();
        self.catch_up();
        let commanded = !self.away && !self.frozen;
        match step {
            Step::Wait(millis) => self.pass(Duration::from_millis(millis)).await,
            Step::Look if !self.troubled => {
                self.pass(SOON).await;
                self.come_to_rest().await;
                if self.blurred {
                    self.none_is_gone();
                } else {
                    self.compare("a look");
                }
            }
            Step::Look => {}
            Step::Quiet => self.quiet().await,
            Step::Exit(it) => self.exit(it + 1),
            step if step.is_fault() => self.trouble(step).await,
            _ if commanded => self.command(step),
            // There is nobody to command.
            _ => {}
        }
    }

    /// What `docker` is told to do.
    fn command(&mut self, step: Step) {
        match step {
            Step::Start(it, address) => {
                let make = it + 1;
                let life = &self.lives[make];
                if life.run.is_some() || life.due.is_some() {
                    return;
                }
                let taken =
                    self.lives.iter().any(|life| (life.run.is_some() || life.due.is_some()) && life.address == address);
                let address = if taken || !MAKES[make].enabled { own(make) } else { address };
                self.start(make, address);
            }
            Step::OutOfMemory(it) if self.alive(it + 1) => {
                self.fake.engine().run_out_of_memory(&self.id(it + 1));
                self.ended(it + 1, true);
            }
            Step::Stop(it, takes) => {
                self.fake.engine().stop(&self.id(it + 1), Duration::from_millis(takes));
                let alive = self.alive(it + 1);
                let life = &mut self.lives[it + 1];
                if alive {
                    life.stopped = true;
                    self.tell(it + 1, takes, Due::Stop);
                } else if life.due.is_some() {
                    (life.stopped, life.due) = (true, None);
                }
            }
            Step::Restart(it, takes) if self.alive(it + 1) => {
                self.fake.engine().restart(&self.id(it + 1), Duration::from_millis(takes));
                self.tell(it + 1, takes, Due::Restart);
            }
            Step::Kill(it) if self.alive(it + 1) => {
                self.fake.engine().kill(&self.id(it + 1), 9, None);
                self.lives[it + 1].stopped = true;
                self.ended(it + 1, false);
            }
            Step::Term(it) if self.alive(it + 1) => {
                self.fake.engine().kill(&self.id(it + 1), 15, None);
                self.lives[it + 1].told = Some(Instant::now());
            }
            Step::Hup(it) => self.fake.engine().kill(&self.id(it + 1), 1, None),
            Step::Pause(it) if self.alive(it + 1) => {
                self.fake.engine().pause(&self.id(it + 1));
                self.lives[it + 1].paused = true;
            }
            Step::Unpause(it) if self.alive(it + 1) => {
                self.fake.engine().unpause(&self.id(it + 1));
                self.lives[it + 1].paused = false;
            }
            Step::Rename(it) => self.fake.engine().rename(&self.id(it + 1), &format!("{}-renamed", name(it))),
            Step::Remove(it) => {
                self.fake.engine().remove(&self.id(it + 1));
                if self.alive(it + 1) {
                    self.ended(it + 1, false);
                }
                self.lives[it + 1] = Life { made: self.lives[it + 1].made + 1, ..Life::default() };
            }
            Step::Judge(it, health) if self.alive(it + 1) && MAKES[it + 1].healthcheck => {
                self.fake.engine().judge(&self.id(it + 1), health);
                self.lives[it + 1].health = Some(health);
            }
            Step::Disconnect(it) if self.lives[it + 1].exists => {
                self.fake.engine().disconnect(&self.id(it + 1), "bridge");
                self.lives[it + 1].connected = false;
            }
            Step::Connect(it) if self.lives[it + 1].exists => {
                self.fake.engine().connect(&self.id(it + 1), "bridge");
                self.lives[it + 1].connected = true;
            }
            Step::Noise(count) => (0..count).for_each(|_| self.fake.engine().exec("anchor-0", "true")),
            _ => {}
        }
    }

    async fn trouble(&mut self, step: Step) {
        match step {
            Step::Stale(_) | Step::Break(..) => self.blurred = true,
            Step::Deliver(Delivery::Once | Delivery::Times(_)) => {}
            _ => self.troubled = true,
        }
        if step == Step::GoAway {
            if !std::mem::replace(&mut self.away, true) {
                self.fake.engine().freeze(false);
                self.frozen = false;
                self.fake.go_away().await;
            }
            return;
        }
        let mut engine = self.fake.engine();
        match step {
            Step::Deliver(delivery) => engine.deliver([delivery]),
            Step::Mute => engine.faults.mute = true,
            Step::Cut => engine.cut(),
            Step::Freeze => {
                engine.freeze(true);
                self.frozen = true;
            }
            Step::Refuse => engine.faults.refusing = true,
            Step::Stale(millis) => engine.faults.stale = Duration::from_millis(millis),
            Step::Break(None, fault) => _ = engine.faults.answers.insert(Call::Inspect, fault.into()),
            Step::Break(Some(it), fault) => {
                engine.faults.looks.insert(id(it + 1, &self.lives[it + 1]), fault.into());
            }
            Step::BreakList(fault) => _ = engine.faults.answers.insert(Call::List, fault.into()),
            Step::BreakPing(fault) => _ = engine.faults.answers.insert(Call::Ping, fault.into()),
            _ => {}
        }
    }

    async fn quiet(&mut self) {
        {
            let mut engine = self.fake.engine();
            engine.faults = tidegate_fake_docker::Faults::default();
            engine.deliver_well();
            engine.freeze(false);
        }
        self.frozen = false;
        if std::mem::take(&mut self.away) {
            self.fake.come_back();
            for (make, Make { policy, .. }) in MAKES.into_iter().enumerate() {
                let life = &self.lives[make];
                if policy && life.exists && life.run.is_none() && !life.stopped && self.has_run(make) {
                    self.began(make, Instant::now());
                }
            }
        }
        self.pass(QUIET).await;
        self.come_to_rest().await;
        (self.troubled, self.blurred) = (false, false);
        self.compare("a quiet point");
        self.quiet = Instant::now();
    }

    /// Waits on while something has just happened by itself: a restart, or the end of a grace.
    async fn come_to_rest(&mut self) {
        const JUST: Duration = Duration::from_millis(60);
        loop {
            let now = Instant::now();
            let just = |at: Instant| at <= now && now - at < JUST;
            let begun = self.runs.iter().any(|run| just(run.began) || run.ended.is_some_and(just));
            let graced = self.lives.iter().filter_map(|life| life.told).any(|told| just(told + GRACE));
            if !begun && !graced {
                return;
            }
            self.pass(JUST).await;
        }
    }

    /// Ends everything, and compares a last time.
    pub(super) async fn finish(mut self) {
        self.step(Step::Quiet).await;
    }

    // ---- what the model knows ----

    fn alive(&self, make: usize) -> bool {
        self.lives[make].run.is_some()
    }

    fn has_run(&self, make: usize) -> bool {
        self.runs.iter().any(|run| run.container == self.id(make))
    }

    fn start(&mut self, make: usize, address: u8) {
        let Make { name, enabled, policy, healthcheck } = MAKES[make];
        let labels = [
            ("tidegate.enable", if enabled { "true" } else { "false" }),
            ("tidegate.service", SERVICE),
            ("tidegate.check.type", if healthcheck { "docker" } else { "none" }),
        ];
        {
            let id = self.id(make);
            let mut engine = self.fake.engine();
            if !self.lives[make].exists {
                let restart = if policy { Restart::Always } else { Restart::No };
                engine.create(Spec { id: Some(id.clone()), restart, healthcheck, ..Spec::new(name, &labels) });
                self.lives[make].exists = true;
                self.lives[make].connected = true;
            }
            engine.change(&id, |container| container.spec.address = Some(ip(address)));
            engine.start(&id);
        }
        self.lives[make].address = address;
        self.lives[make].backoff = 0;
        self.began(make, Instant::now());
    }

    fn id(&self, make: usize) -> String {
        id(make, &self.lives[make])
    }

    fn began(&mut self, make: usize, began: Instant) {
        let container = self.id(make);
        let life = &mut self.lives[make];
        life.run = Some(self.runs.len());
        (life.paused, life.stopped, life.told, life.due) = (false, false, None, None);
        life.health = MAKES[make].healthcheck.then_some(Health::Starting);
        self.runs.push(Run { container, began, address: ip(life.address), ended: None });
    }

    fn exit(&mut self, make: usize) {
        if self.alive(make) {
            self.fake.engine().exit(&self.id(make), 1);
            self.ended(make, true);
        }
    }

    fn tell(&mut self, make: usize, takes: u64, due: Due) {
        let now = Instant::now();
        self.lives[make].told = Some(now);
        if takes == 0 {
            self.fall_due(make, due, now);
        } else {
            let at = now + Duration::from_millis(takes);
            let life = &mut self.lives[make];
            if life.due.is_none_or(|(due, _)| at < due) {
                life.due = Some((at, due));
            }
        }
    }

    fn ended(&mut self, make: usize, by_itself: bool) {
        let now = Instant::now();
        let away = self.away;
        let life = &mut self.lives[make];
        let Some(run) = life.run.take().and_then(|run| self.runs.get_mut(run)) else { return };
        run.ended = Some(now);
        life.due = None;
        if now - run.began > Duration::from_secs(10) {
            life.backoff = 0;
        }
        if by_itself && MAKES[make].policy && !life.stopped {
            if !away {
                let pause = Duration::from_millis(100 << life.backoff.min(10)).min(Duration::from_secs(60));
                life.due = Some((now + pause, Due::Start));
            }
            life.backoff += 1;
        }
    }

    /// Does what is due by now.
    fn catch_up(&mut self) {
        let now = Instant::now();
        while let Some((make, (at, due))) = self
            .lives
            .iter()
            .enumerate()
            .filter_map(|(make, life)| Some((make, life.due.filter(|(at, _)| *at <= now)?)))
            .min_by_key(|(_, (at, _))| *at)
        {
            self.lives[make].due = None;
            self.fall_due(make, due, at);
        }
    }

    fn fall_due(&mut self, make: usize, due: Due, at: Instant) {
        match due {
            Due::Start if self.away => {}
            Due::Start => self.began(make, at),
            Due::Stop => self.ended(make, false),
            Due::Restart => {
                self.ended(make, false);
                if !self.away {
                    self.began(make, at);
                }
            }
        }
    }

    /// The addresses that should be endpoints now.
    fn wanted(&self) -> BTreeSet<Ipv4Addr> {
        self.addresses(|life| life.connected && life.health.is_none_or(|health| health == Health::Healthy))
    }

    /// The addresses of what is enabled, runs, is neither paused nor told to stop, and `may` be an endpoint.
    fn addresses(&self, may: impl Fn(&Life) -> bool) -> BTreeSet<Ipv4Addr> {
        let now = Instant::now();
        let lives = self.lives.iter().zip(MAKES).filter(|(life, make)| {
            let told = life.told.is_some_and(|told| now - told < GRACE);
            make.enabled && !life.paused && !told && may(life)
        });
        lives.filter_map(|(life, _)| Some(self.runs[life.run?].address)).collect()
    }

    /// What events tell at once holds without a look: that a run ended, is paused, or was told to stop.
    fn none_is_gone(&self) {
        let may = self.addresses(|_| true);
        let gone: Vec<_> = self.healthy.difference(&may).collect();
        assert!(gone.is_empty(), "endpoints {gone:?} ended, are paused or were told to stop, and events said so");
    }

    // ---- what tidegate makes of it ----

    /// Time passes, and what is told is taken.
    async fn pass(&mut self, time: Duration) {
        let end = Instant::now() + time;
        while let Ok(input) = timeout_at(end, self.inbox.recv()).await {
            self.catch_up();
            self.state.apply(input.expect("the provider runs"), self.clock.now());
            let settled = self.state.settle(self.clock.now());
            let changes = self.compiler.update(&self.state, &settled.services, settled.edge);
            if let Some(healthy) = endpoints(changes.upserts.into_iter().map(|upsert| upsert.resource)) {
                self.healthy = healthy;
            }
            self.look_out();
        }
        self.fake.engine().keep_up();
        self.catch_up();
    }

    /// What must hold at any moment.
    fn look_out(&self) {
        let still = |run: &&Run| run.ended.is_none_or(|ended| ended >= self.quiet);
        let may: BTreeSet<Ipv4Addr> = self.runs.iter().filter(still).map(|run| run.address).collect();
        let too_old: Vec<_> = self.healthy.difference(&may).collect();
        assert!(too_old.is_empty(), "endpoints {too_old:?} were gone at the last quiet point already");
        for discovered in self.state.catalog().containers() {
            for instance in &discovered.instances {
                assert!(!discovered.id.starts_with("stranger"), "it is not enabled: {instance:?}");
                let run = self
                    .runs
                    .iter()
                    .filter(still)
                    .find(|run| run.container == discovered.id && self.is_since(run, &instance.id.started_at));
                assert!(run.is_some(), "no such run since the last quiet point: {}", instance.id.started_at);
            }
        }
    }

    fn is_since(&self, run: &Run, started_at: &str) -> bool {
        let (instant, nanos) = self.epoch;
        let began = nanos + i64::try_from((run.began - instant).as_nanos()).unwrap();
        let Some(started) = facts::nanos(started_at) else { return false };
        // Timers have milliseconds.
        (started - began).abs() < 3_000_000
    }

    /// What was discovered, compiled afresh, is what the model says. Afresh, because what the state makes of containers that
    /// come and go is a matter of its own.
    fn compare(&self, when: &str) {
        let mut state = state();
        let all = self.state.catalog().containers().cloned().collect();
        let input = Input::Provider { provider: ProviderName::docker(), update: Update::Reset(all) };
        state.apply(input, self.clock.now());
        state.settle(self.clock.now());
        let changes = compiler().update(&state, &BTreeSet::from([self.service.clone()]), true);
        let endpoints = endpoints(changes.upserts.into_iter().map(|upsert| upsert.resource)).unwrap_or_default();
        let known: BTreeMap<_, _> =
            self.state.catalog().containers().map(|c| (&c.id, (&c.phase, c.health, c.terminating))).collect();
        assert_eq!(endpoints, self.wanted(), "(left: tidegate) at {when}; {known:?}\n{:?}", self.lives);
        for (make, life) in self.lives.iter().enumerate().filter(|(make, _)| MAKES[*make].enabled) {
            let Some(run) = life.run.filter(|_| life.connected) else { continue };
            let id = id(make, life);
            let make = MAKES[make];
            let instance = state.catalog().containers().find(|c| c.id == id).and_then(|c| c.instances.first());
            let started = &instance.unwrap_or_else(|| panic!("{} has no instance at {when}", make.name)).id.started_at;
            assert!(self.is_since(&self.runs[run], started), "{}: another run than {started} at {when}", make.name);
        }
        let (there, known): (BTreeSet<String>, BTreeSet<String>) = (
            self.lives.iter().enumerate().filter(|(_, life)| life.exists).map(|(make, life)| id(make, life)).collect(),
            state.catalog().containers().map(|container| container.id.clone()).collect(),
        );
        assert_eq!(known, there, "(left: tidegate) the containers that are there at {when}");
    }
}

/// The healthy endpoints of the assignment among these resources.
fn endpoints(resources: impl Iterator<Item = Resource>) -> Option<BTreeSet<Ipv4Addr>> {
    let assignment = resources.filter_map(|resource| match resource {
        Resource::Endpoint(assignment) => Some(assignment),
        _ => None,
    });
    let assignment = assignment.last()?;
    let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
    let healthy = endpoints.filter(|endpoint| endpoint.health_status == HealthStatus::Healthy as i32);
    let address = |endpoint: envoy_types::pb::envoy::config::endpoint::v3::LbEndpoint| {
        let Some(HostIdentifier::Endpoint(endpoint)) = endpoint.host_identifier else { return None };
        let Some(Address::SocketAddress(socket)) = endpoint.address?.address else { return None };
        socket.address.parse().ok()
    };
    Some(healthy.filter_map(address).collect())
}
