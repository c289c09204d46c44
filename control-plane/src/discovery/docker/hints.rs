//! From Docker's events to hints. An event says that a container is worth a look, and a few things that no look shows: that it
//! is being stopped, and that a run is over. Whatever arrives before the look is coalesced by container into [`Dirty`], which
//! is therefore bounded by the number of containers and never makes the reader of events wait. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use tidegate_core::Timestamp;
use tidegate_core::instance::{Hint, Phase};

use super::signal;

/// The actions asked for. Docker matches prefixes as soon as `health_status` is among them (moby `daemon/events/filter.go`), so
/// none of these may be a prefix of something frequent: `exec_*` stays away, which every HEALTHCHECK would cause.
pub(super) const ACTIONS: &[&str] = &[
    "create",
    "start",
    "kill",
    "stop",
    "die",
    "oom",
    "pause",
    "unpause",
    "health_status",
    "rename",
    "destroy",
    "connect",
    "disconnect",
];

/// One line of `GET /events`, as far as it is read.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "Type", default)]
    kind: String,
    #[serde(rename = "Action", default)]
    action: String,
    #[serde(rename = "Actor", default)]
    actor: Actor,
    #[serde(default)]
    time: i64,
    #[serde(rename = "timeNano", default)]
    time_nano: i64,
}

#[derive(Debug, Default, Deserialize)]
struct Actor {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(rename = "Attributes", default)]
    attributes: Option<BTreeMap<String, String>>,
}

impl Event {
    /// When the engine says it happened, in nanoseconds since the Unix epoch by the engine's clock.
    pub(super) fn at(&self) -> i64 {
        // Without nanoseconds it may have happened up to the end of that second.
        if self.time_nano > 0 {
            self.time_nano
        } else {
            self.time.saturating_mul(1_000_000_000).saturating_add(999_999_999)
        }
    }
}

/// What is known of one container's events and not yet looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    /// The newest action, for people.
    pub(super) action: String,
    /// When it was seen.
    pub(super) seen: Timestamp,
    /// Its name and labels, from the event; network events carry none.
    pub(super) about: Option<About>,
    /// What the newest of create, start, pause, unpause and die says it does now.
    pub(super) life: Option<(i64, Phase)>,
    /// Signals it was sent, each with the engine's time of the newest one.
    pub(super) signals: BTreeMap<u8, i64>,
    /// A run ended: the engine's time, and the exit code.
    pub(super) died: Option<(i64, i64)>,
    /// It is removed. Ids are never used again.
    pub(super) destroyed: bool,
    /// Something other than its creation happened: look now.
    pub(super) urgent: bool,
}

/// What an event tells of its container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Its name.
    pub(super) name: String,
    /// Its labels, mixed with the event's own attributes (`image`, `name`, `signal`, `exitCode`).
    pub(super) attributes: BTreeMap<String, String>,
}

impl Pending {
    /// What is shown as the reason of the look.
    pub(super) fn hint(&self) -> Hint {
        Hint { action: self.action.clone(), at: self.seen }
    }
}

/// So many events are known again when they come a second time: more than an engine remembers (256), as a stream begins with
/// what was told before the last one broke.
const RECENT: usize = 512;

/// The containers about which something was heard since the last look.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    pending: BTreeMap<String, Pending>,
    newest: Option<i64>,
    /// Hashes of the last events, the oldest first: of id, action and time.
    recent: VecDeque<u64>,
}

impl Dirty {
    /// Takes one event. Order does not matter, nor do duplicates.
    pub(super) fn insert(&mut self, event: Event, seen: Timestamp) {
        if !self.is_new(&event) {
            return;
        }
        let at = event.at();
        self.newest = self.newest.max(Some(at));
        let Event { kind, action, actor, .. } = event;
        let mut attributes = actor.attributes.unwrap_or_default();
        let (id, about) = match kind.as_str() {
            "container" => {
                let name = attributes.get("name").cloned().unwrap_or_default();
                (actor.id, Some(About { name, attributes }))
            }
            // The actor is the network.
            "network" => (attributes.remove("container").unwrap_or_default(), None),
            _ => return,
        };
        if id.is_empty() {
            return;
        }
        let attribute = |key: &str| about.as_ref().and_then(|about| about.attributes.get(key));
        let signal = attribute("signal").and_then(|text| signal::parse(text));
        let code = attribute("exitCode").and_then(|text| text.parse().ok()).unwrap_or(0);
        let pending = self.pending.entry(id).or_default();
        let life = match action.as_str() {
            "create" => Some(Phase::Created),
            "start" | "unpause" => Some(Phase::Running),
            "pause" => Some(Phase::Paused),
            "die" => Some(Phase::Exited { code, oom: false }),
            _ => None,
        };
        if let Some(phase) = life
            && pending.life.as_ref().is_none_or(|(newest, _)| *newest <= at)
        {
            pending.life = Some((at, phase));
        }
        match action.as_str() {
            "kill" => {
                if let Some(signal) = signal {
                    let newest = pending.signals.entry(signal).or_insert(at);
                    *newest = at.max(*newest);
                }
            }
            "die" => pending.died = pending.died.max(Some((at, code))),
            "destroy" => pending.destroyed = true,
            _ => {}
        }
        pending.urgent |= action != "create";
        pending.about = about.or(pending.about.take());
        pending.action = match signal {
            Some(number) if action == "kill" => format!("{action} {}", signal::name(number)),
            _ => action,
        };
        pending.seen = seen;
    }

    fn is_new(&mut self, event: &Event) -> bool {
        // Without nanoseconds two events may look the same.
        if event.time_nano == 0 {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        let subject = event.actor.attributes.as_ref().and_then(|attributes| attributes.get("container"));
        (&event.actor.id, subject, &event.action, event.time_nano).hash(&mut hasher);
        let hash = hasher.finish();
        let is_new = !self.recent.contains(&hash);
        if is_new {
            self.recent.push_back(hash);
            if self.recent.len() > RECENT {
                self.recent.pop_front();
            }
        }
        is_new
    }

    /// All of it, leaving nothing.
    pub(super) fn take(&mut self) -> BTreeMap<String, Pending> {
        std::mem::take(&mut self.pending)
    }

    /// Whether something was heard of `id` that nobody has taken yet.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.pending.contains_key(id)
    }

    /// The engine's time of the newest event ever seen: where the next stream begins.
    pub(super) fn newest(&self) -> Option<i64> {
        self.newest
    }
}

#[cfg(test)]
mod tests;
