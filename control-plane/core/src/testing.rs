//! Facts for tests of the pure crate.

use std::collections::BTreeSet;

use crate::compile::{Changes, Compiler};
use crate::config::{Config, parse};
use crate::container::Container;
use crate::health::Verdict;
use crate::instance::{Discovered, Hint, Phase, Update};
use crate::instances_file;
use crate::labels::{Placement, Sighting, interpret};
use crate::state::Settled;
use crate::{Input, ProviderName, ServiceName, State, Timestamp};

/// A running container on one bridge network, enabled, with port 80 exposed.
pub(crate) fn container(name: &str, ip_end: u8, labels: &[(&str, &str)]) -> Container {
    let mut all = vec![("tidegate.enable", "true")];
    all.extend(labels);
    Container {
        id: format!("{name:0>12}{}", "f".repeat(52)),
        name: name.to_owned(),
        created: Timestamp::from_millis(u64::from(ip_end)),
        started_at: "2026-01-01T00:00:00Z".to_owned(),
        phase: Phase::Running,
        health: None,
        labels: all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        tcp_ports: vec![80],
        network_mode: "default".to_owned(),
        networks: [("bridge".to_owned(), Some([172, 17, 0, ip_end].into()))].into(),
        ..Container::default()
    }
}

/// A container of the service `shop` on `shop.localhost`.
pub(crate) fn shop(name: &str, ip_end: u8, version: &str) -> Container {
    container(
        name,
        ip_end,
        &[("tidegate.service", "shop"), ("tidegate.version", version), ("tidegate.host", "shop.localhost")],
    )
}

pub(crate) fn discovered(container: &Container) -> Discovered {
    let at = Timestamp::from_millis(1_000);
    interpret(
        container,
        &Placement::default(),
        Sighting { hint: Hint { action: "start".to_owned(), at }, observed_at: at, terminating: None },
    )
}

/// The entries of the file `f`.
pub(crate) fn entries(text: &str) -> Vec<Discovered> {
    let at = Timestamp::from_millis(1_000);
    let reading = instances_file::read("f", text).expect("the test's file is a list");
    let hint = |place| Hint { action: format!("f:{place}"), at };
    reading.entries.iter().map(|(place, entry)| entry.discovered(Timestamp::default(), hint(place), at)).collect()
}

pub(crate) fn config(text: &str) -> Config {
    parse("tidegate.yaml", text).expect("the test's configuration is valid")
}

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("the test's name is valid")
}

/// A state and its compiler, driven step by step.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) compiler: Compiler,
    pub(crate) now: Timestamp,
}

impl World {
    /// Synced, with these containers, all of whose checks passed.
    pub(crate) fn with(config: Config, containers: &[Container]) -> Self {
        let mut world = Self::unsynced(config);
        world.reset(containers);
        for container in containers {
            world.check(container, true);
        }
        world
    }

    pub(crate) fn unsynced(config: Config) -> Self {
        Self {
            state: State::new(config, [ProviderName::docker()], 0),
            compiler: Compiler::new("/state/filter.wasm".to_owned()),
            now: Timestamp::from_millis(10_000),
        }
    }

    pub(crate) fn apply(&mut self, input: Input) {
        self.state.apply(input, self.now);
    }

    pub(crate) fn update(&mut self, update: Update) {
        self.apply(Input::Provider { provider: ProviderName::docker(), update });
    }

    /// Adds the entries of a file.
    pub(crate) fn list(&mut self, text: &str) {
        for entry in entries(text) {
            let update = Update::Upsert(Box::new(entry));
            self.apply(Input::Provider { provider: ProviderName::file(), update });
        }
    }

    pub(crate) fn reset(&mut self, containers: &[Container]) {
        self.update(Update::Reset(containers.iter().map(discovered).collect()));
    }

    pub(crate) fn upsert(&mut self, container: &Container) {
        self.update(Update::Upsert(Box::new(discovered(container))));
    }

    pub(crate) fn check(&mut self, container: &Container, passing: bool) {
        for instance in discovered(container).instances {
            let detail = if passing { "connected" } else { "connection refused" }.to_owned();
            let verdict = Verdict { passing, starting: false, detail, since: self.now };
            self.apply(Input::Checked { id: instance.id, verdict });
        }
    }

    pub(crate) fn configure(&mut self, text: &str) {
        self.apply(Input::Configured(Box::new(config(text))));
    }

    pub(crate) fn settle(&mut self) -> Settled {
        self.state.settle(self.now)
    }

    /// Settles and compiles, as the reconcile task does.
    pub(crate) fn round(&mut self) -> Changes {
        let settled = self.settle();
        self.compiler.update(&self.state, &settled.services, settled.edge)
    }

    /// Everything, compiled from nothing.
    pub(crate) fn compiled_afresh(&self) -> Changes {
        let all: BTreeSet<ServiceName> = self.state.services().map(|view| view.name.clone()).collect();
        Compiler::new("/state/filter.wasm".to_owned()).update(&self.state, &all, true)
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.state.problems().iter().map(ToString::to_string).collect()
    }
}
