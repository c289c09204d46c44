//! What `tidegate.*` labels mean. [`interpret`] turns the facts of one container into a [`Discovered`]: instances where
//! everything is clear, problems where it is not. What is wrong with the container as a whole keeps it from being routed, what
//! is wrong with one of its services that service; no other container is hurt by either.

mod address;
#[cfg(any(test, fuzzing))]
mod hostile;
mod kept;
mod ours;
mod reader;

use std::collections::BTreeMap;
use std::time::Duration;

pub use self::address::{Placement, borrowed_from};
#[cfg(any(test, fuzzing))]
pub use self::hostile::hostile;
pub use self::kept::{is_secret, kept};
use self::ours::Ours;
use self::reader::{Candidate, Reader};
use crate::container::Container;
use crate::instance::{Check, DEFAULT_DRAIN, Discovered, Hint, Instance, InstanceId};
use crate::words::DURATIONS;
use crate::{Timestamp, duration};

/// The prefix of every label of ours.
pub const PREFIX: &str = "tidegate.";
/// The label that opts a container in.
pub const ENABLE: &str = "tidegate.enable";

/// The label that says how long a container may go on after it was told to stop.
const DRAIN: &str = "tidegate.drain";
/// The label that says on which network its address is.
const NETWORK: &str = "tidegate.network";

/// Every label that means something, with one line for people. All but those that are [`CONTAINER_WIDE`] also exist as
/// `tidegate.svc.NAME.…`, for one of several services of a container.
pub const SCHEMA: &[(&str, &str)] = &[
    (ENABLE, "`true` opts the container in"),
    ("tidegate.service", "the service; else Compose's PROJECT-SERVICE, else the container's name"),
    ("tidegate.version", "the version; else `default`"),
    ("tidegate.host", "host names, separated by commas"),
    ("tidegate.path", "path prefix; else `/`"),
    ("tidegate.port", "the port; not needed when exactly one TCP port is exposed"),
    (NETWORK, "the network whose address Envoy uses"),
    ("tidegate.check.type", "tcp, http, https, grpc, docker or none; else tcp"),
    ("tidegate.check.port", "the port that is checked; else the one it listens on"),
    ("tidegate.check.path", "what an http or https check asks for; else `/`"),
    ("tidegate.check.host", "the host an http, https or grpc check names; else the address"),
    ("tidegate.check.status", "the statuses that pass an http or https check; else 200-299"),
    ("tidegate.check.header", "a header that the answer has to have: NAME, or NAME: VALUE"),
    ("tidegate.check.body", "what has to stand in the first 4 KiB of the answer's body"),
    ("tidegate.check.tls", "`skip`: an https check does not look at the certificate; else verify"),
    ("tidegate.check.service", "the service whose health a grpc check asks for; else the server's"),
    ("tidegate.check.interval", "from check to check; else 2s"),
    ("tidegate.check.timeout", "how long one check may take; else 1s"),
    ("tidegate.check.rise", "successes in a row to become ready again; else 2"),
    ("tidegate.check.fall", "failures in a row to become not ready; else 2"),
    ("tidegate.check.grace", "how long it may take to pass for the first time before that is a problem; else none"),
    ("tidegate.protocol", "http1, h2c, grpc or https; else http1"),
    ("tidegate.timeout", "how long a try may take until its answer begins; else no limit"),
    ("tidegate.retry", "safe, off or all; else safe"),
    ("tidegate.slowstart", "how long a newcomer takes to get its full share; else none"),
    ("tidegate.ready.hold", "how long a request waits at the edge for a ready instance; else not at all"),
    ("tidegate.depends_on", "the services that it needs, separated by commas; `explain` says whether they are ready"),
    ("tidegate.canary.weight", "its version is a canary with this share in percent; else none"),
    (DRAIN, "how long it may go on after it was told to stop; else Docker's stop timeout"),
];

/// The labels that hold for a container with all its services.
pub const CONTAINER_WIDE: &[&str] = &[ENABLE, NETWORK, DRAIN];

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
        project: None,
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
    if discovered.enabled && placement.distrusts_images && container.image_labels.is_none() {
        // Whose labels they are is not known yet.
        return discovered;
    }
    let ours = Ours::of(container);
    discovered.project = ours.project().map(crate::problem::printable);
    discovered.enabled = ours.get(ENABLE) == Some("true");
    let mut whole = Reader::of_container(&discovered);
    let remarks = whole.remarks(&ours, discovered.enabled);
    if ours.is_empty()
        || whole.over_limit(&ours)
        || (!discovered.enabled && whole.not_enabled(&ours))
        || whole.left_out(&ours)
    {
        discovered.problems = whole.problems.into_iter().chain(remarks).collect();
        return discovered;
    }
    let names_are_clear = whole.names(&ours);
    let reached = whole.reached(container, &ours, placement);
    let drain = whole.sound(&ours.whole(), ours.whole().duration("drain", DEFAULT_DRAIN).map_err(|fault| vec![fault]));
    let mut candidates: Vec<Candidate> =
        ours.services().iter().map(|told| Candidate::read(container, &discovered, &ours, told)).collect();
    Candidate::tell_apart(&mut candidates);
    let reachable = reached.filter(|_| whole.problems.is_empty());
    discovered.problems = whole.problems;
    for Candidate { mut reader, membership, endpoint } in candidates {
        let reached = endpoint.zip(reachable.as_ref()).and_then(|(endpoint, reached)| {
            let at = reader.socket(reached, endpoint.port, placement)?;
            let checked_at = match endpoint.check_port {
                Some(port) => Some(reader.socket(reached, port, placement)?.1),
                None => None,
            };
            Some((at, Check { address: checked_at, ..endpoint.check }))
        });
        let clear = reader.problems.is_empty();
        discovered.problems.extend(reader.problems);
        let Some(membership) = membership.filter(|_| names_are_clear) else { continue };
        if let (Some(((network, address), check)), Some(drain)) = (reached, drain)
            && clear
        {
            discovered.instances.push(Instance {
                id: InstanceId {
                    container: container.id.clone(),
                    started_at: container.started_at.clone(),
                    network,
                    address,
                },
                service: membership.service.clone(),
                version: membership.version.clone(),
                has_own_address: container.has_own_address(),
                check,
                drain,
            });
        }
        discovered.memberships.push(membership);
    }
    discovered.problems.extend(remarks);
    discovered
}

#[cfg(test)]
mod tests;
