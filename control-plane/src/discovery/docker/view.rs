//! What the Docker provider knows: the facts of every container, the signals it was sent and the runs that ended, and from
//! them what to tell the inbox. Pure: it is told what was heard, listed and inspected, and answers with updates and with what
//! to look at.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tidegate_core::container::Container;
use tidegate_core::instance::{Hint, Phase};
use tidegate_core::labels::{self, Placement, Sighting};
use tidegate_core::{Discovered, Timestamp, Update};

use super::facts::{self, Inspected, Stop};
use super::fate::{Fate, Moment, began_before};
use super::hints::{About, Pending};

/// What to do after something was heard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    /// What is known at once.
    pub(super) update: Option<Update>,
    /// Whether to inspect.
    pub(super) look: Look,
}

/// Whether to inspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing to see.
    No,
    /// As soon as possible.
    Now,
    /// When nothing else is heard for a while.
    Later,
}

/// What came of an inspect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Looked {
    /// What changed.
    pub(super) update: Option<Update>,
    /// Why to look again soon.
    pub(super) again: Option<Again>,
}

/// Why to look again soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It runs, and has no address yet: networks are attached at about the same time.
    NoAddress,
    /// It shows a run that is over.
    Stale,
}

/// What a list tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// What changed, of containers that need no inspect.
    pub(super) updates: Vec<Update>,
    /// What to inspect, in the list's order.
    pub(super) inspect: Vec<String>,
}

/// Everything known.
#[derive(Debug)]
pub(super) struct View {
    placement: Placement,
    known: BTreeMap<String, Known>,
    fates: BTreeMap<String, Fate>,
    /// The enabled containers that are on another one's network (`container:ID`), by that one's id.
    borrowers: BTreeMap<String, BTreeSet<String>>,
    consequences: Consequences,
}

/// What follows for containers from news of another one, whose network they are on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Consequences {
    /// What changed.
    pub(super) updates: Vec<Update>,
    /// What to inspect: it is on nobody's network, but somebody is on its.
    pub(super) inspect: BTreeSet<String>,
}

#[derive(Debug)]
struct Known {
    facts: Container,
    stop: Stop,
    /// From an inspect, not from a list or an event.
    inspected: bool,
    /// What it means; told, if `told`.
    discovered: Discovered,
    told: bool,
}

const fn is_alive(phase: &Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Paused)
}

/// Whether both say the same, whenever and however it was learned.
fn same(a: &Discovered, b: &Discovered) -> bool {
    a.name == b.name
        && a.created == b.created
        && a.project == b.project
        && a.enabled == b.enabled
        && a.phase == b.phase
        && a.health == b.health
        && a.terminating == b.terminating
        && a.instances == b.instances
        && a.problems == b.problems
}

impl View {
    pub(super) fn new(placement: Placement) -> Self {
        Self {
            placement,
            known: BTreeMap::new(),
            fates: BTreeMap::new(),
            borrowers: BTreeMap::new(),
            consequences: Consequences::default(),
        }
    }

    /// Takes what events said of one container.
    pub(super) fn hear(&mut self, id: &str, pending: &Pending, moment: Moment) -> Heard {
        let nothing = Heard { update: None, look: Look::No };
        if pending.destroyed {
            return Heard { update: self.gone(id), ..nothing };
        }
        let enabled = match (&pending.about, self.known.get(id)) {
            (Some(about), _) => labels::is_enabled(&about.attributes),
            (None, Some(known)) => known.discovered.enabled,
            // A network's event about a container nobody has spoken of: whatever it does next is said with its labels.
            (None, None) => return nothing,
        };
        if enabled || self.borrowers.contains_key(id) {
            self.hear_enabled(id, pending, moment)
        } else {
            self.hear_other(id, pending, moment)
        }
    }

    fn hear_enabled(&mut self, id: &str, pending: &Pending, moment: Moment) -> Heard {
        if !pending.signals.is_empty() || pending.died.is_some() {
            let run = self.known.get(id).map(|known| known.facts.started_at.as_str());
            self.fates.entry(id.to_owned()).or_default().hear(pending, run, moment);
        }
        let look = if pending.urgent { Look::Now } else { Look::Later };
        let Some(known) = self.known.get_mut(id).filter(|known| known.inspected) else {
            return Heard { update: None, look };
        };
        let run = known.facts.started_at.as_str();
        let was_alive = is_alive(&known.facts.phase);
        if let Some((at, code)) = pending.died
            && began_before(run, at)
            && !matches!(known.facts.phase, Phase::Exited { .. })
        {
            known.facts.phase = Phase::Exited { code, oom: false };
        } else if let Some((at, Phase::Paused)) = pending.life
            && known.facts.phase == Phase::Running
            && at >= moment.opened
            && began_before(run, at)
        {
            known.facts.phase = Phase::Paused;
        }
        // Networks of what does not run come and go with its runs; `start` follows.
        let only_networks = pending.about.is_none();
        let look = if only_networks && !was_alive { Look::No } else { look };
        Heard { update: self.tell(id, pending.hint(), moment.now), look }
    }

    /// A container that did not opt in is never inspected: its events and the list say enough to explain why it gets nothing.
    fn hear_other(&mut self, id: &str, pending: &Pending, moment: Moment) -> Heard {
        if let Some(About { name, attributes }) = &pending.about {
            let known = self.known.entry(id.to_owned()).or_insert_with(|| {
                let labels = labels::kept(attributes.iter().map(|(key, value)| (key.clone(), value.clone())));
                Known::unseen(Container {
                    id: id.to_owned(),
                    name: name.clone(),
                    created: moment.now,
                    labels,
                    ..Container::default()
                })
            });
            known.facts.name.clone_from(name);
        }
        if let (Some(known), Some((_, phase))) = (self.known.get_mut(id), &pending.life) {
            known.facts.phase = phase.clone();
        }
        Heard { update: self.tell(id, pending.hint(), moment.now), look: Look::No }
    }

    /// Takes an inspect.
    pub(super) fn look(&mut self, inspected: Inspected, hint: Hint, now: Timestamp) -> Looked {
        let Inspected { facts, stop } = inspected;
        let id = facts.id.clone();
        let alive = is_alive(&facts.phase);
        if let Some(fate) = self.fates.get_mut(&id)
            && alive
        {
            if fate.is_over(&facts.started_at, now) {
                return Looked { update: None, again: Some(Again::Stale) };
            }
            fate.prune(&facts.started_at, stop, now);
            if fate.is_empty() {
                self.fates.remove(&id);
            }
        }
        let lacks_address = alive && facts.networks.values().any(Option::is_none);
        if let Some(lender) = labels::borrowed_from(&facts.network_mode) {
            self.borrowers.entry(lender.to_owned()).or_default().insert(id.clone());
            if self.known.get(lender).is_none_or(|lender| !lender.inspected) {
                self.consequences.inspect.insert(lender.to_owned());
            }
        }
        match self.known.get_mut(&id) {
            Some(known) => (known.facts, known.stop, known.inspected) = (facts, stop, true),
            None => {
                self.known.insert(id.clone(), Known { stop, inspected: true, ..Known::unseen(facts) });
            }
        }
        let update = self.tell(&id, hint, now);
        let routed = self.known.get(&id).is_some_and(|known| !known.discovered.instances.is_empty());
        Looked { update, again: (lacks_address && !routed).then_some(Again::NoAddress) }
    }

    /// The container does not exist any more.
    pub(super) fn gone(&mut self, id: &str) -> Option<Update> {
        self.fates.remove(id);
        let gone = self.known.remove(id)?;
        if let Some(lender) = labels::borrowed_from(&gone.facts.network_mode)
            && let Some(borrowers) = self.borrowers.get_mut(lender)
        {
            borrowers.remove(id);
            if borrowers.is_empty() {
                self.borrowers.remove(lender);
            }
        }
        self.tell_borrowers(id, &gone.discovered.hint, gone.discovered.observed_at);
        Some(Update::Remove(id.to_owned()))
    }

    /// Takes the list that follows a connection: whatever is not in it is gone, and every enabled container is inspected,
    /// because the list does not show which run of a container it shows.
    pub(super) fn list_all(&mut self, containers: Vec<Container>, hint: &Hint, now: Timestamp) -> Vec<String> {
        let present: HashSet<&str> = containers.iter().map(|container| container.id.as_str()).collect();
        self.known.retain(|id, _| present.contains(id.as_str()));
        self.fates.retain(|id, _| present.contains(id.as_str()));
        self.borrowers.retain(|_, borrowers| {
            borrowers.retain(|id| present.contains(id.as_str()));
            !borrowers.is_empty()
        });
        let mut inspect = Vec::new();
        for facts in containers {
            let id = facts.id.clone();
            if labels::is_enabled(&facts.labels) {
                inspect.push(id.clone());
                self.known.entry(id.clone()).or_insert_with(|| Known::unseen(facts));
            } else {
                self.known.insert(id.clone(), Known::unseen(facts));
            }
            // Nobody is told: the reset tells it all.
            let _ = self.tell(&id, hint.clone(), now);
        }
        self.consequences.updates.clear();
        inspect
    }

    /// Takes a list between events, asked for at `asked`. `heard` are containers with news under way, which the list may be
    /// older than. Only what differs is inspected, and the few enabled containers looked at longest ago, because a new run at
    /// the old address does not show in a list.
    pub(super) fn list_again(
        &mut self,
        containers: Vec<Container>,
        asked: Timestamp,
        heard: impl Fn(&str) -> bool,
        hint: &Hint,
        now: Timestamp,
    ) -> Listing {
        /// At 15 s, a thousand containers are all inspected again within the quarter of an hour, for a look a second.
        const OLDEST: usize = 16;
        let mut listing = Listing::default();
        let is_newer = |known: &Known| known.discovered.observed_at >= asked;
        let present: HashSet<String> = containers.iter().map(|container| container.id.clone()).collect();
        for facts in containers {
            let enabled = labels::is_enabled(&facts.labels);
            let id = facts.id.clone();
            match self.known.get_mut(&id) {
                _ if heard(&id) => continue,
                Some(known) if is_newer(known) || !facts::differs(&facts, &known.facts) => continue,
                None if enabled => listing.inspect.push(id),
                Some(_) if enabled => listing.inspect.push(id),
                Some(known) => {
                    known.facts = facts;
                    listing.updates.extend(self.tell(&id, hint.clone(), now));
                }
                None => {
                    self.known.insert(id.clone(), Known::unseen(facts));
                    listing.updates.extend(self.tell(&id, hint.clone(), now));
                }
            }
        }
        let absent = |id: &str, known: &Known| !present.contains(id) && !is_newer(known) && !heard(id);
        let (gone, mut unlisted): (Vec<_>, Vec<_>) = self
            .known
            .iter()
            .filter(|(id, known)| absent(id, known))
            .map(|(id, known)| (known.discovered.enabled, id.clone()))
            .partition(|(enabled, _)| !enabled);
        listing.updates.extend(gone.iter().filter_map(|(_, id)| self.gone(id)));
        // Inspect says that it is gone, or that the list was wrong.
        listing.inspect.extend(unlisted.drain(..).map(|(_, id)| id));
        self.fates.retain(|id, _| self.known.contains_key(id) || heard(id));
        let mut oldest: Vec<_> = self
            .known
            .iter()
            .filter(|(id, known)| is_alive(&known.facts.phase) && known.inspected && !is_newer(known) && !heard(id))
            .map(|(id, known)| (known.discovered.observed_at, id))
            .collect();
        oldest.sort_unstable();
        for (_, id) in oldest.into_iter().take(OLDEST) {
            if !listing.inspect.contains(id) {
                listing.inspect.push(id.clone());
            }
        }
        listing
    }

    /// What followed from the news so far, for other containers than those that they were of; each is told once.
    pub(super) fn consequences(&mut self) -> Consequences {
        std::mem::take(&mut self.consequences)
    }

    /// How many containers are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Everything, for the inbox.
    pub(super) fn reset(&self) -> Update {
        let mut all: Vec<_> = self.known.values().map(|known| known.discovered.clone()).collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        Update::Reset(all)
    }

    /// How problems name a container.
    pub(super) fn subject(&self, id: &str) -> String {
        self.known.get(id).map_or_else(
            || format!("container {}", tidegate_core::instance::short_id(id)),
            |known| known.discovered.subject(),
        )
    }

    /// When the first of the containers that were told to stop should have ended.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.fates
            .iter()
            .filter(|(_, fate)| !fate.overdue)
            .filter_map(|(id, _)| self.known.get(id)?.discovered.terminating)
            .min()
    }

    /// The containers that were told to stop and should have ended by now, each once.
    pub(super) fn overdue(&mut self, now: Timestamp) -> Vec<String> {
        let mut overdue = Vec::new();
        for (id, fate) in &mut self.fates {
            let until = self.known.get(id).and_then(|known| known.discovered.terminating);
            if !fate.overdue && until.is_some_and(|until| until <= now) {
                fate.overdue = true;
                overdue.push(id.clone());
            }
        }
        overdue
    }

    /// Interprets what is known of `id`, and of those on its network; the update of `id` itself, when it says something new.
    fn tell(&mut self, id: &str, hint: Hint, now: Timestamp) -> Option<Update> {
        self.tell_borrowers(id, &hint, now);
        self.tell_alone(id, hint, now)
    }

    fn tell_borrowers(&mut self, id: &str, hint: &Hint, now: Timestamp) {
        for borrower in self.borrowers.get(id).cloned().unwrap_or_default() {
            let update = self.tell_alone(&borrower, hint.clone(), now);
            self.consequences.updates.extend(update);
        }
    }

    fn tell_alone(&mut self, id: &str, hint: Hint, now: Timestamp) -> Option<Update> {
        let lender = labels::borrowed_from(&self.known.get(id)?.facts.network_mode);
        let lender = lender.and_then(|id| self.known.get(id)).map(|lender| Box::new(lender.facts.clone()));
        let known = self.known.get_mut(id)?;
        known.facts.lender = lender;
        let terminating = self
            .fates
            .get(id)
            .filter(|_| is_alive(&known.facts.phase))
            .and_then(|fate| fate.terminating(&known.facts.started_at, known.stop, now));
        let sighting = Sighting { hint, observed_at: now, terminating };
        let mut discovered = labels::interpret(&known.facts, &self.placement, sighting);
        if discovered.enabled && !known.inspected {
            // The list shows neither the run nor the ports: nothing can be said but that it is there.
            discovered.instances.clear();
            discovered.problems.clear();
        }
        let news = !known.told || !same(&known.discovered, &discovered);
        known.told = true;
        if !news {
            known.discovered.observed_at = now;
            return None;
        }
        known.discovered = discovered.clone();
        Some(Update::Upsert(Box::new(discovered)))
    }
}

impl Known {
    fn unseen(facts: Container) -> Self {
        let hint = Hint { action: String::new(), at: Timestamp::default() };
        let discovered = Discovered {
            id: facts.id.clone(),
            name: String::new(),
            created: facts.created,
            project: None,
            enabled: labels::is_enabled(&facts.labels),
            phase: facts.phase.clone(),
            health: None,
            terminating: None,
            memberships: Vec::new(),
            instances: Vec::new(),
            problems: Vec::new(),
            hint,
            observed_at: Timestamp::default(),
        };
        Self { facts, stop: Stop::default(), inspected: false, told: false, discovered }
    }
}

#[cfg(test)]
mod tests;
