//! The labels that begin with our prefix: what they say of the whole container, and what of each of its services.

use std::collections::BTreeMap;

use super::kept::is_secret;
use super::{CONTAINER_WIDE, PREFIX, SCHEMA};
use crate::container::Container;
use crate::suggest;
use crate::words::Words;

/// The beginning of labels that say which of several services of a container they mean.
pub(super) const NAMED: &str = "tidegate.svc.";

/// The beginning of Compose's labels.
pub(super) const COMPOSE: &str = "com.docker.compose.";

/// Labels of ours on one container; beyond this and the next four the container is quarantined, never truncated (threats T13).
pub(super) const MAX_LABELS: usize = 64;
/// Bytes of one key.
pub(super) const MAX_KEY: usize = 128;
/// Bytes of one value.
pub(super) const MAX_VALUE: usize = 1024;
/// Named services.
pub(super) const MAX_SERVICES: usize = 16;
/// Hosts of all its services together.
pub(super) const MAX_HOSTS: usize = 32;

/// The labels of ours on one container, values trimmed.
pub(super) struct Ours<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    /// Those of Compose, without their prefix.
    compose: BTreeMap<&'a str, &'a str>,
    /// Labels of ours that its image has in the same words: they may be nobody's who made the container.
    of_image: Vec<&'a str>,
    /// Labels that are named like secrets.
    secrets: Vec<&'a str>,
}

/// What the labels say of one service.
pub(super) struct Told<'a> {
    /// The NAME of `tidegate.svc.NAME.`; `None`: the only service of its container.
    pub(super) name: Option<&'a str>,
    /// The words after the prefix.
    pub(super) words: Words<'a>,
}

impl<'a> Ours<'a> {
    /// Those that are the container's own. Compose writes its labels on images that it builds, too, so they all are its own
    /// where one is.
    pub(super) fn of(container: &'a Container) -> Self {
        let image = container.image_labels.as_ref();
        let is_own = |key: &str, value: &str| image.is_none_or(|image| image.get(key).is_none_or(|said| said != value));
        let mut own =
            Self { labels: BTreeMap::new(), compose: BTreeMap::new(), of_image: Vec::new(), secrets: Vec::new() };
        let mut is_composed = false;
        for (key, value) in &container.labels {
            if is_secret(key) {
                own.secrets.push(key);
            }
            if let Some(word) = key.strip_prefix(COMPOSE) {
                own.compose.insert(word, value);
                is_composed |= is_own(key, value);
            } else if is_ours(key) && is_own(key, value) {
                own.labels.insert(key, value.trim());
            } else if is_ours(key) {
                own.of_image.push(key);
            }
        }
        if !is_composed {
            own.compose.clear();
        }
        own
    }

    /// The labels of ours that its image has in the same words.
    pub(super) fn of_image(&self) -> &[&'a str] {
        &self.of_image
    }

    /// The labels that are named like secrets.
    pub(super) fn secrets(&self) -> &[&'a str] {
        &self.secrets
    }

    /// Why Compose runs it, where that is not to serve: such a container inherits the labels of its service.
    pub(super) fn left_out(&self) -> Option<String> {
        if self.compose("oneoff").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Some(format!("Compose runs it for one command (`{COMPOSE}oneoff`)"));
        }
        self.compose("hook")
            .filter(|hook| !hook.is_empty())
            .map(|_| format!("Compose runs it for a hook (`{COMPOSE}hook`)"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        self.labels.get(key).copied()
    }

    /// The Compose project that the container belongs to.
    pub(super) fn project(&self) -> Option<&'a str> {
        self.compose("project")
    }

    /// What Compose says of the container.
    pub(super) fn compose(&self, word: &str) -> Option<&'a str> {
        self.compose.get(word).copied()
    }

    pub(super) fn first(&self) -> &'a str {
        self.labels.keys().next().copied().unwrap_or(PREFIX)
    }

    /// What there is too much of.
    pub(super) fn over_limit(&self) -> Option<String> {
        let hosts =
            |(key, value): (&&'a str, &&'a str)| match key.strip_prefix(NAMED).and_then(|rest| rest.split_once('.')) {
                Some((_, "host")) => value.split(',').count(),
                None if *key == "tidegate.host" => value.split(',').count(),
                _ => 0,
            };
        let (services, hosts) = (self.names().len(), self.labels.iter().map(hosts).sum::<usize>());
        if self.labels.len() > MAX_LABELS {
            Some(format!("it has more than {MAX_LABELS} tidegate labels"))
        } else if self.labels.keys().any(|key| key.len() > MAX_KEY) {
            Some(format!("the key of a label has more than {MAX_KEY} bytes"))
        } else if let Some((key, _)) = self.labels.iter().find(|(_, value)| value.len() > MAX_VALUE) {
            Some(format!("the value of `{key}` has more than {MAX_VALUE} bytes"))
        } else if services > MAX_SERVICES {
            Some(format!("its labels name {services} services; {MAX_SERVICES} are allowed"))
        } else if hosts > MAX_HOSTS {
            Some(format!("its labels name {hosts} hosts; {MAX_HOSTS} are allowed"))
        } else {
            None
        }
    }

    /// What is said of the whole container.
    pub(super) fn whole(&self) -> Words<'a> {
        Words::new(PREFIX, self.labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, *value))))
    }

    /// What is said of each service, by name; of the only one where none is named.
    pub(super) fn services(&self) -> Vec<Told<'a>> {
        let names = self.names();
        if names.is_empty() {
            return vec![Told { name: None, words: self.whole() }];
        }
        let told = |name: &'a str| {
            let prefix = format!("{NAMED}{name}.");
            let said = self.labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(&*prefix)?, *value)));
            Told { name: Some(name), words: Words::new(&prefix, said) }
        };
        names.into_iter().map(told).collect()
    }

    /// The names of its named services.
    fn names(&self) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.labels.keys().filter_map(|key| Some(split(key)?.0)).collect();
        names.dedup();
        names
    }

    /// A label that means the only service, and one that means one of several.
    pub(super) fn mixed(&self) -> Option<(&'a str, &'a str)> {
        let named = self.labels.keys().find(|key| split(key).is_some())?;
        let short = self.labels.keys().find(|key| of_service().any(|word| key.strip_prefix(PREFIX) == Some(word)))?;
        Some((short, named))
    }

    /// The labels that do not exist, and what to write instead: those of a named service, or all others.
    pub(super) fn unknown_of(&self, name: Option<&str>) -> Vec<(&'a str, String)> {
        let of_name = |key: &str| split(key).map(|(name, _)| name) == name;
        let unknown = self.labels.keys().filter(|key| of_name(key) && !is_known(key));
        unknown.map(|key| (*key, instead_of(key))).collect()
    }
}

/// Whether it is one of ours.
pub(super) fn is_ours(key: &str) -> bool {
    key.starts_with(PREFIX) || key == "tidegate"
}

/// Whether it is one of ours that means something.
pub(super) fn is_known(key: &str) -> bool {
    match split(key) {
        Some((_, word)) => of_service().any(|known| known == word),
        None => SCHEMA.iter().any(|(known, _)| *known == key),
    }
}

/// The name and the word of a label that means one of several services.
pub(super) fn split(key: &str) -> Option<(&str, &str)> {
    let (name, word) = key.strip_prefix(NAMED)?.split_once('.')?;
    (!name.is_empty() && !word.is_empty()).then_some((name, word))
}

/// The words that each service of a container has for itself.
fn of_service() -> impl Iterator<Item = &'static str> {
    SCHEMA.iter().filter(|(key, _)| !CONTAINER_WIDE.contains(key)).filter_map(|(key, _)| key.strip_prefix(PREFIX))
}

/// What to write instead of a label that does not exist.
fn instead_of(key: &str) -> String {
    let among = |keys: Vec<String>| {
        suggest::did_you_mean(key, keys.iter().map(String::as_str), || {
            format!("the labels are {}", keys.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", "))
        })
    };
    if let Some((name, word)) = split(key) {
        if let Some(wide) = CONTAINER_WIDE.iter().find(|wide| wide.strip_prefix(PREFIX) == Some(word)) {
            return format!("use `{wide}`, which holds for the whole container");
        }
        return among(of_service().map(|word| format!("{NAMED}{name}.{word}")).collect());
    }
    if key.starts_with("tidegate.svc") {
        return "write the name of a service and what it says of it, such as `tidegate.svc.api.port`".to_owned();
    }
    // The word between the prefix and a name may be the one that is misspelt.
    let misspelt = key.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')?.1.split_once('.'));
    let named = misspelt.map(|(name, _)| of_service().map(move |word| format!("{NAMED}{name}.{word}")));
    among(SCHEMA.iter().map(|(known, _)| (*known).to_owned()).chain(named.into_iter().flatten()).collect())
}
