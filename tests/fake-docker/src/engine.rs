//! The engine: containers, and what can happen to them. Each method does what `docker` of that name does and emits the events
//! that dockerd 20.10 was seen to emit, in that order. What takes time is scheduled.

mod address;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::clock::{Clock, SECOND, nanos};
use crate::container::{Container, Health, Restart, Spec, Status};
use crate::events::{Delivery, Event, Events, Filter};
use crate::faults::Faults;
use crate::render;

/// A run that lasted this long was a good one: the next pause before a restart is the first again (moby `restartmanager`).
const GOOD_RUN: i64 = 10 * SECOND;

/// Everything the engine knows. Methods that name a container that is not there do nothing, as `docker` would fail.
#[derive(Debug)]
pub struct Engine {
    clock: Clock,
    /// The last time that was given out: no two are equal.
    last: i64,
    containers: BTreeMap<String, Container>,
    /// Labels of images by name.
    images: BTreeMap<String, BTreeMap<String, String>>,
    /// Networks of the user's own.
    networks: BTreeSet<String>,
    events: Events,
    /// Events of the time when it was frozen.
    held: Vec<Event>,
    scheduled: BTreeMap<(Instant, u64), Job>,
    jobs: u64,
    down: bool,
    frozen: watch::Sender<bool>,
    changed: Arc<Notify>,
    /// What goes wrong.
    pub faults: Faults,
    /// The oldest and the newest version of the API that are spoken.
    pub api: (&'static str, &'static str),
    /// Method and path of every request, in order.
    pub requests: Vec<String>,
    /// Done once, after the next list is made up and before it is sent.
    pub after_list: Option<Hook>,
}

/// Something to do to the engine later.
pub struct Hook(Box<dyn FnOnce(&mut Engine) + Send>);

impl Hook {
    /// Does `action`.
    #[must_use]
    pub fn new(action: impl FnOnce(&mut Engine) + Send + 'static) -> Self {
        Self(Box::new(action))
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

/// What is done later; a job on a container holds as long as nothing else was done to it.
#[derive(Debug)]
enum Job {
    Restart { id: String, generation: u64 },
    Stopped { id: String, generation: u64, code: i64, then: Then },
    Deliver(Event),
}

/// What follows the end of a container that was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Nothing,
    Stop,
    Restart,
}

impl Engine {
    pub(crate) fn new(changed: Arc<Notify>, frozen: watch::Sender<bool>) -> Self {
        Self {
            clock: Clock::start(),
            last: 0,
            containers: BTreeMap::new(),
            images: BTreeMap::new(),
            networks: BTreeSet::new(),
            events: Events::default(),
            held: Vec::new(),
            scheduled: BTreeMap::new(),
            jobs: 0,
            down: false,
            frozen,
            changed,
            faults: Faults::default(),
            api: ("1.12", "1.41"),
            requests: Vec::new(),
            after_list: None,
        }
    }

    /// Its time, in nanoseconds since the Unix epoch; every call gives a later one.
    pub fn now(&mut self) -> i64 {
        self.last = self.clock.now().max(self.last + 1);
        self.last
    }

    /// Its clock is ahead of the machine's by so much.
    pub fn set_ahead(&mut self, ahead: Duration) {
        self.clock.ahead = nanos(ahead);
        self.last = 0;
    }

    /// All containers by id.
    #[must_use]
    pub const fn containers(&self) -> &BTreeMap<String, Container> {
        &self.containers
    }

    /// One container.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<&Container> {
        self.containers.get(id)
    }

    /// Changes what is known of a container, and tells nobody.
    ///
    /// # Panics
    /// When there is none.
    pub fn change(&mut self, id: &str, change: impl FnOnce(&mut Container)) {
        change(self.containers.get_mut(id).expect("the test's container is there"));
    }

    /// How often a container was inspected.
    #[must_use]
    pub fn inspects_of(&self, id: &str) -> usize {
        let path = format!("/containers/{id}/json");
        self.requests.iter().filter(|request| request.ends_with(&path)).count()
    }

    /// An image with labels.
    pub fn image(&mut self, name: &str, labels: &[(&str, &str)]) {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.images.insert(name.to_owned(), labels);
    }

    // ---- what docker does ----

    /// `docker create`; returns the id.
    pub fn create(&mut self, spec: Spec) -> String {
        let id = spec.id.clone().unwrap_or_else(|| spec.name.clone());
        let network = match spec.network_mode.as_str() {
            "host" | "none" => Some(spec.network_mode.clone()),
            "default" => Some("bridge".to_owned()),
            mode if mode.starts_with("container:") => None,
            mode => Some(mode.to_owned()),
        };
        let container = Container {
            id: id.clone(),
            status: Status::Created,
            created: self.now(),
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            oom: false,
            health: None,
            networks: network.into_iter().map(|name| (name, None)).collect(),
            restarts: 0,
            stopped: false,
            backoff: 0,
            generation: 0,
            shown: None,
            spec,
        };
        self.containers.insert(id.clone(), container);
        self.emit(&id, "create", &[]);
        id
    }

    /// `docker start`.
    pub fn start(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        if container.status.is_alive() {
            return;
        }
        self.begin(id, false);
    }

    /// `docker run -d`: both.
    pub fn run(&mut self, spec: Spec) -> String {
        let id = self.create(spec);
        self.start(&id);
        id
    }

    /// The process ends by itself; a restart policy may start it again.
    pub fn exit(&mut self, id: &str, code: i64) {
        if self.containers.get(id).is_some_and(|container| container.status.is_alive()) {
            self.touch(id);
            self.end(id, code, true);
        }
    }

    /// The kernel kills the process because memory ran out.
    pub fn run_out_of_memory(&mut self, id: &str) {
        if self.containers.get(id).is_some_and(|container| container.status.is_alive()) {
            self.touch(id);
            self.emit(id, "oom", &[]);
            self.with(id, |container| container.oom = true);
            self.end(id, 137, true);
        }
    }

    /// `docker kill -s SIGNAL`. SIGKILL ends it; any other signal ends it with `code` after `takes`, or does not where that is
    /// `None`.
    pub fn kill(&mut self, id: &str, signal: u8, ends: Option<(Duration, i64)>) {
        if !self.containers.get(id).is_some_and(|container| container.status.is_alive()) {
            return;
        }
        self.emit(id, "kill", &[("signal", &signal.to_string())]);
        match (signal, ends) {
            (9, _) => {
                self.touch(id);
                self.with(id, |container| container.stopped = true);
                self.end(id, 137, false);
            }
            (_, Some((takes, code))) => {
                // Whoever sends the stop signal means it (moby `killWithSignal`).
                let means_it = self.stop_signal(id) == signal.to_string();
                self.with(id, |container| container.stopped |= means_it);
                self.stopping(id, takes, code, Then::Nothing);
            }
            (_, None) => {}
        }
    }

    /// `docker stop` of a container that ends `takes` after SIGTERM.
    pub fn stop(&mut self, id: &str, takes: Duration) {
        let Some(container) = self.containers.get(id) else { return };
        match container.status {
            Status::Running | Status::Paused => {
                self.with(id, |container| container.stopped = true);
                let signal = self.stop_signal(id);
                self.emit(id, "kill", &[("signal", &signal)]);
                self.stopping(id, takes, 0, Then::Stop);
            }
            // It has no process: no `kill`, no `die` (docker/compose#13985).
            Status::Restarting => {
                self.with(id, |container| {
                    (container.stopped, container.status) = (true, Status::Exited);
                    container.generation += 1;
                });
                self.emit(id, "stop", &[]);
            }
            Status::Created | Status::Exited => {}
        }
    }

    /// `docker restart` of a container that ends `takes` after SIGTERM.
    pub fn restart(&mut self, id: &str, takes: Duration) {
        let Some(container) = self.containers.get(id) else { return };
        if container.status.is_alive() {
            let signal = self.stop_signal(id);
            self.emit(id, "kill", &[("signal", &signal)]);
            self.stopping(id, takes, 0, Then::Restart);
        } else {
            self.begin(id, false);
            self.emit(id, "restart", &[]);
        }
    }

    /// `docker pause`.
    pub fn pause(&mut self, id: &str) {
        if self.set_status(id, Status::Running, Status::Paused) {
            self.emit(id, "pause", &[]);
        }
    }

    /// `docker unpause`.
    pub fn unpause(&mut self, id: &str) {
        if self.set_status(id, Status::Paused, Status::Running) {
            self.emit(id, "unpause", &[]);
        }
    }

    /// `docker rename`.
    pub fn rename(&mut self, id: &str, name: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let old = format!("/{}", container.spec.name);
        self.with(id, |container| name.clone_into(&mut container.spec.name));
        self.emit(id, "rename", &[("oldName", &old)]);
    }

    /// `docker rm -f`.
    pub fn remove(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        if container.status.is_alive() {
            self.kill(id, 9, None);
        }
        self.emit(id, "destroy", &[]);
        self.containers.remove(id);
    }

    /// Its HEALTHCHECK comes to a verdict.
    pub fn judge(&mut self, id: &str, health: Health) {
        let Some(container) = self.containers.get(id) else { return };
        if !container.status.is_alive() || container.health.is_none_or(|known| known == health) {
            return;
        }
        self.with(id, |container| container.health = Some(health));
        self.emit(id, &format!("health_status: {}", health.as_str()), &[]);
    }

    /// A command is run in it, as every HEALTHCHECK does: three events that nobody asked for.
    pub fn exec(&mut self, id: &str, command: &str) {
        if self.containers.get(id).is_some_and(|container| container.status.is_alive()) {
            for action in ["exec_create", "exec_start"] {
                self.emit(id, &format!("{action}: {command}"), &[("execID", "533a")]);
            }
            self.emit(id, "exec_die", &[("execID", "533a"), ("exitCode", "0")]);
        }
    }

    /// `docker network create`.
    pub fn create_network(&mut self, name: &str) {
        self.networks.insert(name.to_owned());
    }

    /// `docker network connect`.
    pub fn connect(&mut self, id: &str, network: &str) {
        let Some(container) = self.containers.get(id) else { return };
        if container.networks.contains_key(network) {
            return;
        }
        let alive = self.containers.get(id).is_some_and(|container| container.status.is_alive());
        self.with(id, |container| container.networks.insert(network.to_owned(), None));
        let address = if alive { address::free(self, id, network) } else { None };
        self.with(id, |container| container.networks.insert(network.to_owned(), address));
        // A container that does not run is told of at its next start.
        if alive {
            self.emit_network(id, network, "connect");
        }
    }

    /// `docker network disconnect`.
    pub fn disconnect(&mut self, id: &str, network: &str) {
        let Some(container) = self.containers.get(id) else { return };
        let alive = container.status.is_alive();
        let was = self.containers.get_mut(id).and_then(|container| container.networks.remove(network));
        if was.is_some() {
            // Twice from a running container, as dockerd 20.10 does.
            for _ in 0..if alive { 2 } else { 1 } {
                self.emit_network(id, network, "disconnect");
            }
        }
    }

    // ---- what goes wrong ----

    /// The next events are delivered so, one each.
    pub fn deliver(&mut self, script: impl IntoIterator<Item = Delivery>) {
        self.events.script.extend(script);
    }

    /// Deliveries still to come are forgotten.
    pub fn deliver_well(&mut self) {
        self.events.script.clear();
    }

    /// Ends every stream of events, properly.
    pub fn cut(&mut self) {
        self.events.cut();
    }

    /// SIGSTOP, or SIGCONT: connections are taken and nothing answers until it thaws. What happened meanwhile is told then.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen.send_replace(frozen);
        if !frozen {
            for event in std::mem::take(&mut self.held) {
                self.publish(event);
            }
        }
    }

    pub(crate) fn set_down(&mut self, down: bool) {
        self.down = down;
        self.events.cut();
        self.events.forget();
        if down {
            return;
        }
        // moby's restore: what ended meanwhile is noticed and told by nothing; what should run is started.
        let due: Vec<String> = self
            .containers
            .values()
            .filter(|c| !c.stopped && !c.status.is_alive() && c.status != Status::Created && restarts(c))
            .map(|container| container.id.clone())
            .collect();
        for id in due {
            self.begin(&id, true);
        }
    }

    /// Says that something happened to a container, whether or not it did.
    pub fn emit(&mut self, id: &str, action: &str, attributes: &[(&str, &str)]) {
        let at = self.now();
        self.emit_at(at, id, action, attributes);
    }

    /// That, by another time.
    pub fn emit_at(&mut self, at: i64, id: &str, action: &str, attributes: &[(&str, &str)]) {
        let (name, image, labels) = match self.containers.get(id) {
            Some(Container { spec, .. }) => (spec.name.clone(), spec.image.clone(), spec.labels.clone()),
            None => (id.to_owned(), "fake".to_owned(), BTreeMap::new()),
        };
        let mut all: Map<String, Value> = labels.into_iter().map(|(key, value)| (key, json!(value))).collect();
        all.extend([("name".to_owned(), json!(name)), ("image".to_owned(), json!(image))]);
        all.extend(attributes.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
        let event = json!({
            "status": action, "id": id, "from": image,
            "Type": "container", "Action": action, "Actor": { "ID": id, "Attributes": all },
            "scope": "local", "time": at / SECOND, "timeNano": at,
        });
        self.publish(Event::new(at, "container", action, &event));
    }

    fn emit_network(&mut self, id: &str, network: &str, action: &str) {
        let at = self.now();
        let actor = json!({
            "ID": render::network_id(network),
            "Attributes": { "container": id, "name": network, "type": "bridge" },
        });
        let event = json!({
            "Type": "network", "Action": action, "Actor": actor,
            "scope": "local", "time": at / SECOND, "timeNano": at,
        });
        self.publish(Event::new(at, "network", action, &event));
    }

    fn publish(&mut self, event: Event) {
        if self.down {
            return;
        }
        if *self.frozen.borrow() {
            self.held.push(event);
            return;
        }
        self.events.remember(event.clone());
        if self.faults.mute {
            return;
        }
        match self.events.script.pop_front().unwrap_or(Delivery::Once) {
            Delivery::Once => self.events.send(&event),
            Delivery::Lost => {}
            Delivery::Times(times) => (0..times).for_each(|_| self.events.send(&event)),
            Delivery::Late(delay) => self.schedule(delay, Job::Deliver(event)),
        }
    }

    // ---- the life of a container ----

    fn begin(&mut self, id: &str, by_policy: bool) {
        let Some(container) = self.containers.get(id) else { return };
        let networks: Vec<String> = container.networks.keys().cloned().collect();
        for network in networks {
            if network != "host" && network != "none" {
                let address = address::free(self, id, &network);
                self.with(id, |container| container.networks.insert(network.clone(), address));
            }
            self.emit_network(id, &network, "connect");
        }
        let now = self.now();
        self.with(id, |container| {
            container.status = Status::Running;
            container.started_at = now;
            container.exit_code = 0;
            container.oom = false;
            container.health = container.spec.healthcheck.then_some(Health::Starting);
            container.stopped = false;
            container.generation += 1;
            if by_policy {
                container.restarts += 1;
            } else {
                container.backoff = 0;
            }
        });
        self.emit(id, "start", &[]);
    }

    /// The process is gone.
    fn end(&mut self, id: &str, code: i64, by_itself: bool) {
        let now = self.now();
        let mut networks = Vec::new();
        let mut restart = None;
        self.with(id, |container| {
            container.exit_code = code;
            container.finished_at = now;
            container.generation += 1;
            // moby stops its monitor, which leaves this behind.
            container.health = container.health.map(|_| Health::Unhealthy);
            networks.extend(container.networks.keys().cloned());
            for address in container.networks.values_mut() {
                *address = None;
            }
            if now - container.started_at > GOOD_RUN {
                container.backoff = 0;
            }
            container.status = Status::Exited;
            if by_itself && !container.stopped && restarts(container) {
                container.status = Status::Restarting;
                restart = Some((container.pause(), container.generation));
                container.backoff += 1;
            }
        });
        self.emit(id, "die", &[("exitCode", &code.to_string())]);
        for network in networks {
            self.emit_network(id, &network, "disconnect");
        }
        match restart {
            // There is no engine that could.
            Some(_) if self.down => self.with(id, |container| container.status = Status::Exited),
            Some((pause, generation)) => self.schedule(pause, Job::Restart { id: id.to_owned(), generation }),
            None => {}
        }
    }

    fn stopping(&mut self, id: &str, takes: Duration, code: i64, then: Then) {
        let Some(container) = self.containers.get(id) else { return };
        let (id, generation) = (id.to_owned(), container.generation);
        if takes.is_zero() {
            self.stopped(&id, code, then);
        } else {
            self.schedule(takes, Job::Stopped { id, generation, code, then });
        }
    }

    fn stopped(&mut self, id: &str, code: i64, then: Then) {
        self.touch(id);
        self.end(id, code, then == Then::Nothing);
        if then != Then::Nothing {
            self.emit(id, "stop", &[]);
        }
        if then == Then::Restart && !self.down {
            self.begin(id, false);
            self.emit(id, "restart", &[]);
        }
    }

    fn set_status(&mut self, id: &str, from: Status, to: Status) -> bool {
        let is = self.containers.get(id).is_some_and(|container| container.status == from);
        if is {
            self.with(id, |container| container.status = to);
        }
        is
    }

    fn with<T>(&mut self, id: &str, change: impl FnOnce(&mut Container) -> T) {
        if let Some(container) = self.containers.get_mut(id) {
            change(container);
        }
    }

    fn stop_signal(&self, id: &str) -> String {
        let signal = self.containers.get(id).and_then(|container| container.spec.stop_signal.as_deref());
        match signal {
            Some("SIGQUIT") => "3",
            Some("SIGINT") => "2",
            Some("SIGUSR1") => "10",
            _ => "15",
        }
        .to_owned()
    }

    /// A run is about to end: it may go on being shown for a while.
    fn touch(&mut self, id: &str) {
        let stale = self.faults.stale;
        if stale.is_zero() {
            return;
        }
        let now = Instant::now();
        if let Some(container) = self.containers.get_mut(id)
            && container.shown.as_ref().is_none_or(|(until, ..)| *until <= now)
        {
            container.shown = Some((now + stale, render::summary(container), render::inspect(container)));
        }
    }

    // ---- what is asked ----

    pub(crate) fn inspect(&self, id: &str) -> Option<Value> {
        // As Docker: by id, its beginning, or name.
        let by_name = || self.containers.values().find(|container| container.spec.name == id);
        let container = self.containers.get(id).or_else(by_name)?;
        Some(match &container.shown {
            Some((until, _, inspect)) if *until > Instant::now() => inspect.clone(),
            _ => render::inspect(container),
        })
    }

    pub(crate) fn list(&self) -> Value {
        let now = Instant::now();
        let entry = |container: &Container| match &container.shown {
            Some((until, summary, _)) if *until > now => summary.clone(),
            _ => render::summary(container),
        };
        // The newest first.
        let mut all: Vec<&Container> = self.containers.values().collect();
        all.sort_unstable_by_key(|container| std::cmp::Reverse(container.created));
        all.into_iter().map(entry).collect()
    }

    pub(crate) fn inspect_image(&self, id: &str) -> Option<Value> {
        let (name, labels) = self.images.iter().find(|(name, _)| *name == id || render::image_id(name) == id)?;
        Some(json!({ "Id": render::image_id(name), "RepoTags": [name], "Config": { "Labels": labels } }))
    }

    pub(crate) fn subscribe(&mut self, since: Option<i64>, filter: Filter) -> mpsc::Receiver<Bytes> {
        self.events.subscribe(since, filter)
    }

    pub(crate) fn listed(&mut self) {
        if let Some(Hook(action)) = self.after_list.take() {
            action(self);
        }
    }

    // ---- time ----

    fn schedule(&mut self, delay: Duration, job: Job) {
        self.jobs += 1;
        self.scheduled.insert((Instant::now() + delay, self.jobs), job);
        self.changed.notify_one();
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.scheduled.first_key_value().map(|((at, _), _)| *at)
    }

    /// Does what is due. The engine does so by itself; a test that has let time pass can be sure of it.
    pub fn keep_up(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.scheduled.first_entry()
            && entry.key().0 <= now
        {
            let holds = |engine: &Self, id: &str, generation: u64| {
                engine.containers.get(id).is_some_and(|container| container.generation == generation)
            };
            match entry.remove() {
                Job::Deliver(event) => self.events.send(&event),
                Job::Restart { id, generation } if holds(self, &id, generation) && !self.down => {
                    self.begin(&id, true);
                }
                Job::Stopped { id, generation, code, then } if holds(self, &id, generation) => {
                    self.stopped(&id, code, then);
                }
                Job::Restart { .. } | Job::Stopped { .. } => {}
            }
        }
    }

    /// Whether an address is in use.
    fn in_use(&self, id: &str, network: &str, address: Ipv4Addr) -> bool {
        self.containers
            .values()
            .filter(|container| container.id != id)
            .any(|container| container.networks.get(network) == Some(&Some(address)))
    }
}

/// Whether its policy starts it again.
fn restarts(container: &Container) -> bool {
    match container.spec.restart {
        Restart::No => false,
        Restart::Always => true,
        Restart::OnFailure(retries) => container.exit_code != 0 && container.restarts < retries,
    }
}

#[cfg(test)]
mod tests;
