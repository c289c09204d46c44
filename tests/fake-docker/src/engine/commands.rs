//! What is done to containers. Each method does what `docker` of that name does and emits the events that dockerd 20.10 was
//! seen to emit, in that order. What takes time is scheduled.

use std::time::Duration;

use super::{Engine, Then, address};
use crate::container::{Container, Health, Spec, Status};

impl Engine {
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
}
