//! Reads labels and keeps the problems it finds: one [`Reader`] for the container as a whole, and one for each of its services.

use std::collections::BTreeMap;

use super::ENABLE;
use super::ours::{NAMED, Ours, Told};
use crate::container::Container;
use crate::instance::{Check, Discovered, Membership, service_subject};
use crate::name::NameError;
use crate::words::{Fault, Words};
use crate::{Code, Problem, ServiceName, VersionName};

pub(super) struct Reader {
    subject: String,
    effect: &'static str,
    pub(super) problems: Vec<Problem>,
}

/// What the labels say of one service.
pub(super) struct Candidate {
    pub(super) reader: Reader,
    /// `None`: something that decides it is not clear.
    pub(super) membership: Option<Membership>,
    pub(super) endpoint: Option<Endpoint>,
}

/// Where a service listens in its container, and how it is checked.
pub(super) struct Endpoint {
    pub(super) port: u16,
    pub(super) check: Check,
    /// Where it is checked; `None`: where it listens.
    pub(super) check_port: Option<u16>,
}

impl Reader {
    pub(super) fn of_container(discovered: &Discovered) -> Self {
        Self {
            subject: discovered.subject(),
            effect: "this container is not routed; others are unaffected",
            problems: Vec::new(),
        }
    }

    fn of_service(discovered: &Discovered, service: &str) -> Self {
        Self {
            subject: service_subject(&discovered.subject(), service),
            effect: "this service of the container is not routed; its others, and other containers, are unaffected",
            problems: Vec::new(),
        }
    }

    pub(super) fn over_limit(&mut self, ours: &Ours<'_>) -> bool {
        let over = ours.over_limit();
        if let Some(reason) = &over {
            self.report(Code::LabelLimit, reason, "use fewer or shorter labels");
        }
        over.is_some()
    }

    /// What is worth knowing of its labels, and keeps nothing from being routed.
    pub(super) fn remarks(&self, ours: &Ours<'_>, enabled: bool) -> Vec<Problem> {
        let mut remarks = Vec::new();
        let list = |keys: &[&str]| match keys {
            [several @ .., _, _, _] if several.len() > 1 => format!("`{}` and {} more", keys[0], keys.len() - 1),
            keys => keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", "),
        };
        if !ours.of_image().is_empty() {
            let reason = format!("its image has the same {}, so it is not taken for its own", list(ours.of_image()));
            let effect = if enabled { "it is ignored; its other labels hold" } else { self.effect };
            let cure = "take it out of the image, or set `providers.docker.trustImageLabels: true` if every image that \
                        runs there is trusted";
            remarks.push(Problem::error(Code::ImageLabels, &self.subject, flat(&reason), effect, cure).warning());
        }
        if enabled && !ours.secrets().is_empty() {
            let reason = format!("whoever may list containers can read the label {}", list(ours.secrets()));
            let effect = "tidegate does not keep its value, and routes the container all the same";
            let cure = "hand secrets over as files or in the environment, not as labels";
            remarks.push(Problem::error(Code::SecretLabel, &self.subject, flat(&reason), effect, cure).warning());
        }
        remarks
    }

    /// A container that Compose made for something else than to serve; it inherits the labels of its service.
    pub(super) fn left_out(&mut self, ours: &Ours<'_>) -> bool {
        let left_out = ours.left_out();
        if let Some(reason) = &left_out {
            let cure = "none needed: what is to be routed is started with `docker compose up`";
            self.problems.push(self.problem(Code::LeftOut, reason, cure).notice());
        }
        left_out.is_some()
    }

    /// Reports it unless it is meant; true.
    pub(super) fn not_enabled(&mut self, ours: &Ours<'_>) -> bool {
        match ours.get(ENABLE) {
            Some("false") => {}
            // It may have opted in, in its image's words: the remark on those says it.
            None if ours.of_image().contains(&ENABLE) => {}
            Some(other) => {
                self.report(Code::InvalidLabel, &format!("`{ENABLE}` is {other:?}"), "write `true` or `false`");
            }
            None => {
                let reason = format!("it has the label `{}` but not `{ENABLE}`", ours.first());
                let cure = format!("add the label `{ENABLE}=true`, or `{ENABLE}=false` to say that this is meant");
                self.problems.push(self.problem(Code::NotEnabled, &reason, &cure).warning());
            }
        }
        true
    }

    /// Reports the labels that do not exist, and those that make all others unclear; true if there is none.
    pub(super) fn names(&mut self, ours: &Ours<'_>) -> bool {
        for (key, cure) in ours.unknown_of(None) {
            self.report(Code::UnknownLabel, &format!("there is no label `{key}`"), &cure);
        }
        if let Some((short, named)) = ours.mixed() {
            let reason = format!("`{short}` means its only service, and `{named}` one of several");
            let cure = format!("write `{NAMED}NAME.…` for each service, or remove those labels");
            self.report(Code::LabelConflict, &reason, &cure);
        }
        self.problems.is_empty()
    }

    fn problem(&self, code: Code, reason: &str, cure: &str) -> Problem {
        Problem::error(code, flat(&self.subject), flat(reason), self.effect, flat(cure))
    }

    pub(super) fn report(&mut self, code: Code, reason: &str, cure: &str) {
        let problem = self.problem(code, reason, cure);
        self.problems.push(problem);
    }

    pub(super) fn invalid(&mut self, label: &str, reason: &str, cure: &str) {
        self.report(Code::InvalidLabel, &format!("`{label}`: {reason}"), cure);
    }

    /// What a word says; its faults are reported.
    pub(super) fn sound<T>(&mut self, words: &Words<'_>, read: Result<T, Vec<Fault>>) -> Option<T> {
        let faults = match read {
            Ok(sound) => return Some(sound),
            Err(faults) => faults,
        };
        for Fault { word, reason, cure } in faults {
            self.invalid(&words.written(word), &reason, &cure);
        }
        None
    }

    /// Compose's project goes before the name of a service, as it does where no label names one, so that two projects made
    /// from one file stay apart; a label `service` says the name as it is.
    fn service(&mut self, container: &Container, ours: &Ours<'_>, told: &Told<'_>) -> Option<ServiceName> {
        let label_written = told.words.written("service");
        let (project, service) = (ours.project(), ours.compose("service"));
        let (origin, name) = match (told.words.get("service"), told.name, project, service) {
            (Some(name), ..) => (format!("`{label_written}`"), name.to_owned()),
            (None, Some(name), Some(project), _) => {
                (format!("Compose's project and `{NAMED}{name}`"), format!("{project}-{name}"))
            }
            (None, Some(name), None, _) => (format!("`{NAMED}{name}`"), name.to_owned()),
            (None, None, Some(project), Some(service)) => {
                ("Compose's project and service".to_owned(), format!("{project}-{service}"))
            }
            (None, None, ..) => ("the container's name".to_owned(), container.name.clone()),
        };
        self.name(&origin, &name, ServiceName::new, &format!("set the label `{label_written}`"))
    }

    fn version(&mut self, words: &Words<'_>) -> Option<VersionName> {
        let Some(name) = words.get("version") else { return Some(VersionName::default_version()) };
        let origin = format!("`{}`", words.written("version"));
        self.name(&origin, name, VersionName::new, "use a name such as `v2` or `1.8.2`")
    }

    fn name<T>(&mut self, origin: &str, name: &str, new: fn(&str) -> Result<T, NameError>, cure: &str) -> Option<T> {
        new(name)
            .map_err(|error| {
                self.report(Code::InvalidLabel, &format!("{origin} gives the name {name:?}, but {error}"), cure);
            })
            .ok()
    }

    fn port(&mut self, container: &Container, words: &Words<'_>) -> Option<u16> {
        let label = words.written("port");
        if let Some(text) = words.get("port") {
            return match text.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => {
                    self.invalid(&label, &format!("{text:?} is not a port"), "write a number from 1 to 65535");
                    None
                }
            };
        }
        let (reason, cure) = match container.tcp_ports.as_slice() {
            _ if container.is_on_host() => (
                format!("it has all ports of the node, and no label `{label}`"),
                format!("set the label `{label}` to the one it listens on"),
            ),
            [port] => return Some(*port),
            [] => (format!("it exposes no TCP port and has no label `{label}`"), format!("set the label `{label}`")),
            several => {
                let list = several.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
                (
                    format!("it exposes several TCP ports ({list}) and has no label `{label}`"),
                    format!("set the label `{label}` to one of them"),
                )
            }
        };
        self.report(Code::UnclearPort, &reason, &cure);
        None
    }
}

/// In one line: no label may write a line of its own.
fn flat(text: &str) -> String {
    text.replace('\n', "\\n")
}

impl Candidate {
    pub(super) fn read(container: &Container, discovered: &Discovered, ours: &Ours<'_>, told: &Told<'_>) -> Self {
        let mut reader = match told.name {
            None => Reader::of_container(discovered),
            Some(name) => Reader::of_service(discovered, name),
        };
        let words = &told.words;
        let service = reader.service(container, ours, told);
        if let Some(name) = told.name {
            if let Some(service) = &service {
                reader.subject = service_subject(&discovered.subject(), service.as_str());
            }
            for (key, cure) in ours.unknown_of(Some(name)) {
                reader.report(Code::UnknownLabel, &format!("there is no label `{key}`"), &cure);
            }
        }
        let version = reader.version(words);
        let hosts = words.get("host").into_iter().flat_map(|list| list.split(','));
        let claim = reader.sound(words, words.claim(hosts));
        let protocol = reader.sound(words, words.protocol().map_err(|fault| vec![fault]));
        let traffic = reader.sound(words, words.traffic());
        let depends_on = reader.sound(words, words.depends_on().map_err(|fault| vec![fault]));
        let canary_weight = reader.sound(words, words.canary_weight().map_err(|fault| vec![fault]));
        let asked = protocol.zip(traffic).zip(depends_on.zip(canary_weight));
        let membership = match (service, version, claim, asked) {
            (Some(service), Some(version), Some(claim), Some(((protocol, traffic), (depends_on, canary_weight))))
                if reader.problems.is_empty() =>
            {
                Some(Membership { service, version, claim, protocol, traffic, depends_on, canary_weight })
            }
            _ => None,
        };
        let port = reader.port(container, words);
        let check = reader.sound(words, words.check(Some(container.health.is_some())));
        let check_port = reader.sound(words, words.check_port());
        let endpoint = match (port, check, check_port) {
            (Some(port), Some(check), Some(check_port)) => Some(Endpoint { port, check, check_port }),
            _ => None,
        };
        Self { reader, membership, endpoint }
    }

    /// Services of one container have names and ports of their own: an instance is known by its address. One that is out
    /// already takes nothing from another.
    pub(super) fn tell_apart(candidates: &mut [Self]) {
        let mut services: BTreeMap<ServiceName, u32> = BTreeMap::new();
        let mut ports: BTreeMap<u16, u32> = BTreeMap::new();
        let mut clear: Vec<&mut Self> =
            candidates.iter_mut().filter(|candidate| candidate.reader.problems.is_empty()).collect();
        for candidate in &clear {
            if let Some(membership) = &candidate.membership {
                *services.entry(membership.service.clone()).or_default() += 1;
            }
            if let Some(Endpoint { port, .. }) = &candidate.endpoint {
                *ports.entry(*port).or_default() += 1;
            }
        }
        for candidate in &mut clear {
            let twice = candidate.membership.as_ref().filter(|membership| services[&membership.service] > 1);
            if let Some(name) = twice.map(|membership| membership.service.clone()) {
                let reason = format!("another service of the container is named `{name}`, too");
                candidate.reader.report(Code::LabelConflict, &reason, "give each its own name");
                candidate.membership = None;
            }
            if let Some(Endpoint { port, .. }) = candidate.endpoint.as_ref().filter(|at| ports[&at.port] > 1) {
                let reason = format!("another service of the container is at its port {port}, too");
                let cure = "give each its own port, or make them one service with the hosts of both";
                candidate.reader.report(Code::LabelConflict, &reason, cure);
            }
        }
    }
}
