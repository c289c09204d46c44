//! Bytes as what containers are labelled with: each line is a label, `KEY=VALUE`, with `@` before it one that the image has in the
//! same words, and an empty line begins another container. They go all the way to Envoy's resources. Nothing of it may panic; what is
//! kept and what is published is little, holds no secret, and is the same in whatever order the labels and the containers come; and
//! whoever opts in gets something or is told why not, by the name of the label. For the fuzzer and for property tests.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

use super::kept::{MAX_SECRETS, OF_COMPOSE};
use super::ours::{MAX_HOSTS, MAX_KEY, MAX_LABELS, MAX_SERVICES, MAX_VALUE, NAMED, is_known, is_ours, split};
use super::{ENABLE, Placement, Sighting, interpret, is_secret, kept};
use crate::compile::{Changes, Compiler, Resource};
use crate::config::Config;
use crate::container::Container;
use crate::health::Verdict;
use crate::instance::{Discovered, Hint, Phase, Update};
use crate::problem::printable;
use crate::{Code, Input, Problem, ProviderName, ServiceName, State, Timestamp};

/// Only in the values of labels that are named like secrets.
const SECRET: char = '\u{10fffd}';
/// Containers that one input has.
const CONTAINERS: usize = 8;
/// More problems than this are too many for one container: each label and each of its services may have some.
const PROBLEMS: usize = 2 * (MAX_LABELS + MAX_HOSTS) + 4 * MAX_SERVICES;
/// Bytes of one problem: a key and a value, each character of them escaped, and some words.
const PROBLEM: usize = 8 * (MAX_KEY + MAX_VALUE) + 2_048;
/// Bytes of what is published at all, and for each container.
const PUBLISHED: usize = 128 << 10;

/// Plays `bytes`.
pub fn hostile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).replace(SECRET, "");
    let blocks = text.split("\n\n").take(CONTAINERS).enumerate();
    let containers: Vec<Container> = blocks.map(|(number, block)| container(number, block)).collect();
    let mut all = Vec::new();
    for container in &containers {
        let hint = Hint { action: "start".to_owned(), at: Timestamp::default() };
        let sighting = Sighting { hint, observed_at: Timestamp::default(), terminating: None };
        let placement = Placement { distrusts_images: true, ..Placement::default() };
        let discovered = interpret(container, &placement, sighting);
        answered(container, &discovered);
        all.push(discovered);
    }
    let published = publish(all.clone());
    all.reverse();
    assert_eq!(published, publish(all), "the order of containers says something");
    let mut size = 0;
    for upsert in &published.upserts {
        let bytes = encode(&upsert.resource);
        assert!(!holds_secret(&bytes), "{} holds a secret", upsert.name);
        size += bytes.len();
    }
    assert!(size <= PUBLISHED * (1 + containers.len()), "{size} bytes for {} containers", containers.len());
}

fn container(number: usize, block: &str) -> Container {
    let (mut labels, mut image) = (BTreeMap::new(), BTreeMap::new());
    for line in block.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let (of_image, key) = key.strip_prefix('@').map_or((false, key), |key| (true, key));
        let value = if is_secret(key) { format!("{value}{SECRET}") } else { value.to_owned() };
        if of_image {
            image.insert(key.to_owned(), value.clone());
        }
        labels.insert(key.to_owned(), value);
    }
    labels.entry(ENABLE.to_owned()).or_insert_with(|| "true".to_owned());
    Container {
        id: format!("{number:064x}"),
        name: format!("c{number}"),
        created: Timestamp::from_millis(number as u64),
        started_at: "2026-01-01T00:00:00Z".to_owned(),
        phase: Phase::Running,
        labels: keep(&labels),
        image_labels: Some(keep(&image)),
        tcp_ports: vec![80],
        network_mode: "default".to_owned(),
        networks: [("bridge".to_owned(), format!("172.17.0.{}", number + 2).parse().ok())].into(),
        ..Container::default()
    }
}

fn keep(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let keep = kept(labels.clone());
    assert_eq!(keep, kept(labels.clone().into_iter().rev()), "the order of labels says something");
    assert!(keep.len() <= MAX_LABELS + 2 + MAX_SECRETS + OF_COMPOSE.len(), "{} labels are kept", keep.len());
    for (key, value) in &keep {
        // To the end of a character.
        assert!(key.len() <= MAX_KEY + 4 && value.len() <= MAX_VALUE + 4, "too much is kept of {key:?}");
        assert!(!value.contains(SECRET), "the value of {key:?} is kept");
    }
    keep
}

/// Whether what the labels say is used, or answered.
fn answered(container: &Container, discovered: &Discovered) {
    let Discovered { problems, enabled, instances, .. } = discovered;
    assert!(!format!("{discovered:?}").contains(SECRET), "{discovered:?}");
    assert!(problems.len() <= PROBLEMS, "{} problems", problems.len());
    for problem in problems {
        let Problem { subject, reason, effect, cure, .. } = problem;
        let texts = [subject, reason, effect, cure];
        assert!(texts.iter().all(|text| !text.chars().any(char::is_control)), "{problem:?}");
        assert!(texts.iter().map(|text| text.len()).sum::<usize>() <= PROBLEM, "{problem:?}");
    }
    if !enabled {
        return;
    }
    assert!(!instances.is_empty() || !problems.is_empty(), "it gets nothing, and nobody says why: {container:?}");
    assert!(instances.len() <= MAX_SERVICES, "{} instances", instances.len());
    if problems.iter().any(|problem| matches!(problem.code, Code::LabelLimit | Code::LeftOut)) {
        return;
    }
    let is_named = |code: Code, name: &str| {
        let name = printable(name);
        problems.iter().any(|problem| problem.code == code && problem.reason.contains(&name))
    };
    let image = container.image_labels.as_ref();
    let own = |(key, value): &(&String, &String)| is_ours(key) && image.is_none_or(|i| i.get(*key) != Some(value));
    let ours: BTreeMap<&String, &String> = container.labels.iter().filter(own).collect();
    for key in ours.keys().filter(|key| !is_known(key)) {
        let service_is_wrong =
            split(key).is_some_and(|(name, _)| is_named(Code::InvalidLabel, &format!("`{NAMED}{name}`")));
        assert!(is_named(Code::UnknownLabel, &format!("`{key}`")) || service_is_wrong, "{key:?}: {problems:#?}");
    }
    let several = ours.keys().any(|key| split(key).is_some());
    if let Some(port) = ours.get(&"tidegate.port".to_owned()).filter(|_| !several)
        && port.trim().parse::<u16>().is_ok_and(|port| port > 0) == is_named(Code::InvalidLabel, "`tidegate.port`")
    {
        panic!("{port:?} is a port, or is not, and {problems:#?}");
    }
}

/// What Envoy gets when all of these are there and their checks have passed.
fn publish(all: Vec<Discovered>) -> Changes {
    let mut state = State::new(Config::default(), [ProviderName::docker()], 0);
    let now = Timestamp::from_millis(10_000);
    let ids: Vec<_> =
        all.iter().flat_map(|discovered| &discovered.instances).map(|instance| instance.id.clone()).collect();
    let _ = state.apply(Input::Provider { provider: ProviderName::docker(), update: Update::Reset(all) }, now);
    for id in ids {
        let verdict = Verdict { passing: true, detail: "connected".to_owned(), since: now, starting: false };
        let _ = state.apply(Input::Checked { id, verdict }, now);
    }
    let _ = state.settle(now);
    let secret = state.problems().into_iter().find(|problem| problem.to_string().contains(SECRET));
    assert!(secret.is_none(), "{secret:?}");
    let services: BTreeSet<ServiceName> = state.services().map(|view| view.name.clone()).collect();
    Compiler::new("/state/filter.wasm".to_owned()).update(&state, &services, true)
}

fn encode(resource: &Resource) -> Vec<u8> {
    match resource {
        Resource::Cluster(message) => message.encode_to_vec(),
        Resource::Endpoint(message) => message.encode_to_vec(),
        Resource::Listener(message) => message.encode_to_vec(),
        Resource::Route(message) => message.encode_to_vec(),
        Resource::ExtensionConfig(message) => message.encode_to_vec(),
        Resource::Runtime(message) => message.encode_to_vec(),
    }
}

fn holds_secret(bytes: &[u8]) -> bool {
    let mut buffer = [0; 4];
    let secret = SECRET.encode_utf8(&mut buffer).as_bytes();
    bytes.windows(secret.len()).any(|window| window == secret)
}
