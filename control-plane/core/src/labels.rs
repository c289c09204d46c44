//! What `tidegate.*` labels mean. [`interpret`] turns the facts of one container into a [`Discovered`]: instances where
//! everything is clear, problems where it is not. A container with any label error is not routed, and hurts no other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::container::Container;
use crate::instance::{Check, DEFAULT_DRAIN, Discovered, Hint, Instance, InstanceId, Membership, Phase};
use crate::name::NameError;
use crate::words::{DURATIONS, Fault, Words};
use crate::{Code, Problem, ServiceName, Timestamp, VersionName, duration, suggest};

/// The prefix of every label of ours.
pub const PREFIX: &str = "tidegate.";
/// The label that opts a container in.
pub const ENABLE: &str = "tidegate.enable";

/// The label that says how long a container may go on after it was told to stop.
const DRAIN: &str = "tidegate.drain";

/// Every label that means something, with one line for people.
pub const SCHEMA: &[(&str, &str)] = &[
    ("tidegate.enable", "`true` opts the container in"),
    ("tidegate.service", "the service; else Compose's PROJECT-SERVICE, else the container's name"),
    ("tidegate.version", "the version; else `default`"),
    ("tidegate.host", "host names, separated by commas"),
    ("tidegate.path", "path prefix; else `/`"),
    ("tidegate.port", "the port; not needed when exactly one TCP port is exposed"),
    ("tidegate.network", "the network whose address Envoy uses"),
    ("tidegate.check.type", "tcp, http, docker or none; else tcp"),
    ("tidegate.check.path", "what an http check asks for; else `/`"),
    ("tidegate.check.interval", "from check to check; else 2s"),
    ("tidegate.check.timeout", "how long one check may take; else 1s"),
    ("tidegate.check.rise", "successes in a row to become ready again; else 2"),
    ("tidegate.check.fall", "failures in a row to become not ready; else 2"),
    ("tidegate.drain", "how long it may go on after it was told to stop; else Docker's stop timeout"),
];

/// Labels of ours on one container (threats T13); beyond it the container is quarantined, never truncated.
const MAX_LABELS: usize = 64;
/// Bytes of one key.
const MAX_KEY: usize = 128;
/// Bytes of one value.
const MAX_VALUE: usize = 1024;

/// Where Envoy stands, as far as the choice of an address needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The network that Envoy shares with containers (`edge.network`).
    pub network: Option<String>,
}

/// When and why a container was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What made the provider look.
    pub hint: Hint,
    /// When the facts were read.
    pub observed_at: Timestamp,
    /// It was told to stop and is given up at that moment at the latest; inspect does not show it.
    pub terminating: Option<Timestamp>,
}

/// Whether the labels opt in. Only `true` does.
#[must_use]
pub fn is_enabled(labels: &BTreeMap<String, String>) -> bool {
    labels.get(ENABLE).is_some_and(|value| value.trim() == "true")
}

/// How long the labels let a container go on after it was told to stop; `None` when they say nothing valid of it.
#[must_use]
pub fn drain(labels: &BTreeMap<String, String>) -> Option<Duration> {
    duration::parse(labels.get(DRAIN)?.trim()).ok().filter(|drain| DURATIONS.contains(drain))
}

/// What one container means for tidegate.
#[must_use]
pub fn interpret(container: &Container, placement: &Placement, sighting: Sighting) -> Discovered {
    let mut discovered = Discovered {
        id: container.id.clone(),
        name: crate::problem::printable(&container.name),
        created: container.created,
        enabled: is_enabled(&container.labels),
        phase: container.phase.clone(),
        health: container.health,
        terminating: sighting.terminating,
        memberships: Vec::new(),
        instances: Vec::new(),
        problems: Vec::new(),
        hint: sighting.hint,
        observed_at: sighting.observed_at,
    };
    let ours = Ours::of(container);
    if ours.labels.is_empty() {
        return discovered;
    }
    let mut reader = Reader { subject: discovered.subject(), problems: Vec::new() };
    if let Some(problem) = reader.over_limit(&ours) {
        discovered.problems = vec![problem];
        return discovered;
    }
    if !discovered.enabled {
        discovered.problems = reader.not_enabled(&ours);
        return discovered;
    }
    let membership = reader.membership(container, &ours);
    let clear = reader.problems.is_empty();
    let endpoint = reader.endpoint(container, &ours, placement);
    let reachable = reader.problems.is_empty();
    discovered.problems = reader.problems;
    let Some(membership) = membership.filter(|_| clear) else { return discovered };
    if let Some((id, check, drain)) = endpoint.filter(|_| reachable) {
        discovered.instances.push(Instance {
            id,
            service: membership.service.clone(),
            version: membership.version.clone(),
            check,
            drain,
        });
    }
    discovered.memberships.push(membership);
    discovered
}

/// The labels that begin with our prefix, values trimmed.
struct Ours<'a> {
    labels: BTreeMap<&'a str, &'a str>,
}

impl<'a> Ours<'a> {
    fn of(container: &'a Container) -> Self {
        let labels = container
            .labels
            .iter()
            .filter(|(key, _)| key.starts_with(PREFIX) || key.as_str() == "tidegate")
            .map(|(key, value)| (key.as_str(), value.trim()))
            .collect();
        Self { labels }
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.labels.get(key).copied()
    }

    fn words(&self) -> Words<'a> {
        Words::new(PREFIX, self.labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, *value))))
    }
}

/// Reads labels and keeps the problems it finds.
struct Reader {
    subject: String,
    problems: Vec<Problem>,
}

impl Reader {
    fn over_limit(&self, ours: &Ours<'_>) -> Option<Problem> {
        let reason = if ours.labels.len() > MAX_LABELS {
            format!("it has {} tidegate labels; {MAX_LABELS} are allowed", ours.labels.len())
        } else if let Some(key) = ours.labels.keys().find(|key| key.len() > MAX_KEY) {
            format!("a label's key has {} bytes; {MAX_KEY} are allowed", key.len())
        } else if let Some((key, value)) = ours.labels.iter().find(|(_, value)| value.len() > MAX_VALUE) {
            format!("the value of `{key}` has {} bytes; {MAX_VALUE} are allowed", value.len())
        } else {
            return None;
        };
        Some(self.problem(Code::LabelLimit, &reason, "use fewer or shorter labels"))
    }

    fn not_enabled(&self, ours: &Ours<'_>) -> Vec<Problem> {
        let problem = match ours.get(ENABLE) {
            Some("false") => return Vec::new(),
            Some(other) => {
                self.problem(Code::InvalidLabel, &format!("`{ENABLE}` is {other:?}"), "write `true` or `false`")
            }
            None => self
                .problem(
                    Code::NotEnabled,
                    &format!("it has the label `{}` but not `{ENABLE}`", ours.labels.keys().next().unwrap_or(&PREFIX)),
                    &format!("add the label `{ENABLE}=true`, or `{ENABLE}=false` to say that this is meant"),
                )
                .warning(),
        };
        vec![problem]
    }

    fn problem(&self, code: Code, reason: &str, cure: &str) -> Problem {
        Problem::error(code, &self.subject, reason, "this container is not routed; others are unaffected", cure)
    }

    fn report(&mut self, code: Code, reason: &str, cure: &str) {
        let problem = self.problem(code, reason, cure);
        self.problems.push(problem);
    }

    fn invalid(&mut self, key: &str, reason: &str, cure: &str) {
        self.report(Code::InvalidLabel, &format!("`{key}`: {reason}"), cure);
    }

    /// What a word says; its faults are reported.
    fn sound<T>(&mut self, read: Result<T, Vec<Fault>>) -> Option<T> {
        let faults = match read {
            Ok(sound) => return Some(sound),
            Err(faults) => faults,
        };
        for Fault { word, reason, cure } in faults {
            self.invalid(&format!("{PREFIX}{word}"), &reason, &cure);
        }
        None
    }

    fn membership(&mut self, container: &Container, ours: &Ours<'_>) -> Option<Membership> {
        self.unknown(ours);
        let service = self.service(container, ours);
        let version = self.version(ours);
        let hosts = ours.get("tidegate.host").into_iter().flat_map(|list| list.split(','));
        let claim = self.sound(ours.words().claim(hosts));
        Some(Membership { service: service?, version: version?, claim: claim? })
    }

    /// Where the container is reached and how it is checked; `None` without a problem when it does not run.
    fn endpoint(
        &mut self,
        container: &Container,
        ours: &Ours<'_>,
        placement: &Placement,
    ) -> Option<(InstanceId, Check, Duration)> {
        let port = self.port(container, ours);
        let address = self.address(container, ours, placement);
        let words = ours.words();
        let check = self.sound(words.check(Some(container.health.is_some())));
        let drain = self.sound(words.duration("drain", DEFAULT_DRAIN).map_err(|fault| vec![fault]));
        let (network, ip) = address?;
        let id = InstanceId {
            container: container.id.clone(),
            started_at: container.started_at.clone(),
            network,
            address: SocketAddr::new(ip, port?),
        };
        Some((id, check?, drain?))
    }

    fn unknown(&mut self, ours: &Ours<'_>) {
        let known = || SCHEMA.iter().map(|(key, _)| *key);
        for key in ours.labels.keys().filter(|key| !known().any(|name| name == **key)) {
            let cure = suggest::did_you_mean(key, known(), || {
                format!("the labels are {}", known().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
            });
            self.report(Code::UnknownLabel, &format!("there is no label `{key}`"), &cure);
        }
    }

    fn service(&mut self, container: &Container, ours: &Ours<'_>) -> Option<ServiceName> {
        let label = |key: &str| container.labels.get(key).map(String::as_str);
        let (origin, name) = match (
            ours.get("tidegate.service"),
            label("com.docker.compose.project"),
            label("com.docker.compose.service"),
        ) {
            (Some(name), _, _) => ("`tidegate.service`", name.to_owned()),
            (None, Some(project), Some(service)) => ("Compose's project and service", format!("{project}-{service}")),
            (None, _, _) => ("the container's name", container.name.clone()),
        };
        self.name(origin, &name, ServiceName::new, "set the label `tidegate.service`")
    }

    fn version(&mut self, ours: &Ours<'_>) -> Option<VersionName> {
        match ours.get("tidegate.version") {
            None => Some(VersionName::default_version()),
            Some(name) => self.name("`tidegate.version`", name, VersionName::new, "use a name such as `v2` or `1.8.2`"),
        }
    }

    fn name<T>(&mut self, origin: &str, name: &str, new: fn(&str) -> Result<T, NameError>, cure: &str) -> Option<T> {
        new(name)
            .map_err(|error| {
                self.report(Code::InvalidLabel, &format!("{origin} gives the name {name:?}, but {error}"), cure);
            })
            .ok()
    }

    fn port(&mut self, container: &Container, ours: &Ours<'_>) -> Option<u16> {
        if let Some(text) = ours.get("tidegate.port") {
            return match text.parse::<u16>() {
                Ok(port) if port > 0 => Some(port),
                _ => {
                    self.invalid("tidegate.port", &format!("{text:?} is not a port"), "write a number from 1 to 65535");
                    None
                }
            };
        }
        match container.tcp_ports.as_slice() {
            [port] => Some(*port),
            [] => {
                self.report(
                    Code::UnclearPort,
                    "it exposes no TCP port and has no label `tidegate.port`",
                    "set the label `tidegate.port`",
                );
                None
            }
            several => {
                let list = several.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
                self.report(
                    Code::UnclearPort,
                    &format!("it exposes several TCP ports ({list}) and has no label `tidegate.port`"),
                    "set the label `tidegate.port` to one of them",
                );
                None
            }
        }
    }

    /// The choice of a network: the label, else the network that Envoy shares, else the only one, else Compose's default of
    /// the project, else a problem: never a guess (`docker-events.md`, traefik/traefik#5040).
    fn address(&mut self, container: &Container, ours: &Ours<'_>, placement: &Placement) -> Option<(String, IpAddr)> {
        if !matches!(container.phase, Phase::Running | Phase::Paused) {
            return None;
        }
        let candidates = || container.networks.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if matches!(container.network_mode.as_str(), "host" | "none")
            || container.network_mode.starts_with("container:")
        {
            self.report(
                Code::NoAddress,
                &format!("its network mode is `{}`, which has no address of its own", container.network_mode),
                "put it on a bridge network",
            );
            return None;
        }
        let compose_default =
            container.labels.get("com.docker.compose.project").map(|project| format!("{project}_default"));
        let name = if let Some(name) = ours.get("tidegate.network") {
            if !container.networks.contains_key(name) {
                let cure = suggest::did_you_mean(name, container.networks.keys().map(String::as_str), || {
                    format!(
                        "it is on {}",
                        if container.networks.is_empty() { "no network".to_owned() } else { candidates() }
                    )
                });
                self.invalid("tidegate.network", &format!("the container is not on a network {name:?}"), &cure);
                return None;
            }
            name
        } else if let Some(name) = placement.network.as_deref().filter(|name| container.networks.contains_key(*name)) {
            name
        } else if container.networks.len() == 1 {
            container.networks.keys().next()?
        } else if let Some(name) = compose_default.as_deref().filter(|name| container.networks.contains_key(*name)) {
            name
        } else if container.networks.is_empty() {
            self.report(Code::NoAddress, "it is on no network", "connect it to a network that Envoy reaches");
            return None;
        } else {
            self.report(
                Code::AmbiguousNetwork,
                &format!("it is on several networks ({}) and nothing says which one Envoy reaches", candidates()),
                "set the label `tidegate.network`, or `edge.network` in tidegate.yaml",
            );
            return None;
        };
        match container.networks.get(name).copied().flatten() {
            Some(ip) if is_refused(ip) => {
                self.report(
                    Code::NoAddress,
                    &format!("its address on `{name}` is {ip}, which is not a container's own"),
                    "put it on a bridge network",
                );
                None
            }
            Some(ip) => Some((name.to_owned(), ip)),
            None => {
                self.report(
                    Code::NoAddress,
                    &format!("it has no address on the network `{name}` (yet)"),
                    "none needed when it is just starting; else reconnect it with `docker network connect`",
                );
                None
            }
        }
    }
}

/// An address that no container has of its own: a check or a route to it would reach the host or its cloud's metadata
/// service (threats T8).
fn is_refused(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests;
