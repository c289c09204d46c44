//! The state: one value, changed by [`State::apply`] alone. An [`Input`] marks the services it touches; [`State::settle`] derives
//! those anew and says which really changed, and [`State::committed`] hears what became of that. Nothing is derived before every required provider has delivered its first full
//! set, and nothing is [published](State::is_synced) before the first round of checks, or its deadline.

mod checks;
mod transitions;
pub mod trials;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::transitions::Change;
use self::trials::{Errand, Order, OrderError, Trials};
use crate::addresses::{Addresses, Owner};
use crate::catalog::{Catalog, Touched};
use crate::claims::Claims;
use crate::config::{Config, ServicePattern};
use crate::drains::Drains;
use crate::flaps::Flaps;
use crate::health::Verdict;
use crate::instance::{Check, Confirmed, Discovered, Instance, InstanceId, Update};
use crate::journal::{EdgeProgress, Journal};
use crate::service::{Facts, ServiceView, claim_of, gather};
use crate::{Code, Input, Problem, ProviderName, ServiceName, Timestamp, VersionName};

/// How long the first round of checks may take before what is ready by then is published: a full timeout of one check, twice,
/// and some.
pub const FIRST_ROUND: Duration = Duration::from_secs(3);

/// Edges report their load this often at most, whatever a rollout wants.
const SHORTEST_REPORTS: Duration = Duration::from_secs(1);

/// Everything known.
#[derive(Debug)]
pub struct State {
    config: Config,
    catalog: Catalog,
    claims: Claims,
    verdicts: BTreeMap<InstanceId, Verdict>,
    addresses: Addresses,
    flaps: Flaps,
    drains: Drains,
    trials: Trials,
    journal: Journal,
    reported: BTreeMap<&'static str, Vec<Problem>>,
    /// When each provider was last heard of; `None`: never.
    heard: BTreeMap<ProviderName, Option<Timestamp>>,
    /// What each provider counted, as it last said.
    confirmed: BTreeMap<ProviderName, Confirmed>,
    views: BTreeMap<ServiceName, ServiceView>,
    dirty: BTreeSet<ServiceName>,
    edge_dirty: bool,
    filter_generation: u64,
    sync: Sync,
    /// When what Envoy gets until the first sync was kept; `None`: it gets nothing until then.
    kept_at: Option<Timestamp>,
}

/// How far the first sync is.
#[derive(Debug, PartialEq, Eq)]
enum Sync {
    /// These have not delivered their first full set.
    Discovering(BTreeSet<ProviderName>),
    /// These instances have no verdict yet.
    Checking { awaited: BTreeSet<InstanceId>, deadline: Timestamp },
    /// Done.
    Synced,
}

/// What the prober has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeChange {
    /// Checks this instance from now on, the first time at once. An instance that is checked already keeps its verdict and is
    /// checked once more at once, unless what the check does has changed: then it is a newcomer.
    Watch {
        /// Which instance.
        id: InstanceId,
        /// How.
        check: Box<Check>,
    },
    /// Checks it no more, and forgets its verdict.
    Forget(InstanceId),
}

/// An instance that became ready, or ceased to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flip {
    /// Service.
    pub service: ServiceName,
    /// Version.
    pub version: VersionName,
    /// The container's name.
    pub container: String,
    /// Which instance.
    pub id: InstanceId,
    /// What it is now.
    pub ready: bool,
    /// Why.
    pub reason: String,
}

/// What a round of deriving changed.
#[derive(Debug, Default)]
pub struct Settled {
    /// Services whose view is another one now, or gone.
    pub services: BTreeSet<ServiceName>,
    /// Whether listeners or the filter's generation changed.
    pub edge: bool,
    /// Instances that flipped.
    pub flips: Vec<Flip>,
    /// What rollouts want asked and told outside.
    pub errands: Vec<Errand>,
}

impl State {
    /// The state at start: nothing known, and `required` providers awaited.
    #[must_use]
    pub fn new(config: Config, required: impl IntoIterator<Item = ProviderName>, filter_generation: u64) -> Self {
        let required: BTreeSet<ProviderName> = required.into_iter().collect();
        Self {
            config,
            heard: required.iter().map(|provider| (provider.clone(), None)).collect(),
            confirmed: BTreeMap::new(),
            catalog: Catalog::default(),
            claims: Claims::default(),
            verdicts: BTreeMap::new(),
            addresses: Addresses::default(),
            flaps: Flaps::default(),
            drains: Drains::default(),
            trials: Trials::default(),
            journal: Journal::default(),
            reported: BTreeMap::new(),
            views: BTreeMap::new(),
            dirty: BTreeSet::new(),
            edge_dirty: true,
            filter_generation,
            sync: Sync::Discovering(required),
            kept_at: None,
        }
    }

    /// The same state, where Envoy gets until the first sync what was published in an earlier life and kept at `at`.
    #[must_use]
    pub const fn serving_kept(mut self, at: Timestamp) -> Self {
        self.kept_at = Some(at);
        self
    }

    /// The same state, where an operator wants these containers drained.
    #[must_use]
    pub fn draining(mut self, drains: Drains) -> Self {
        self.drains = drains;
        self
    }

    /// What an operator wants drained.
    #[must_use]
    pub const fn drains(&self) -> &Drains {
        &self.drains
    }

    /// The same state, with these rollouts.
    #[must_use]
    pub fn rolling(mut self, trials: Trials) -> Self {
        self.trials = trials;
        self
    }

    /// The rollouts.
    #[must_use]
    pub const fn trials(&self) -> &Trials {
        &self.trials
    }

    /// Carries out an operator's order; what follows is for the next [`settle`](Self::settle).
    ///
    /// # Errors
    /// When it cannot be carried out; nothing is changed then.
    pub fn order(&mut self, service: &ServiceName, order: Order, by: &str, now: Timestamp) -> Result<(), OrderError> {
        let declared = self.config.services.get(service).and_then(|declared| declared.stable.as_ref());
        let versions = self.views.get(service).into_iter().flat_map(|view| view.versions.keys());
        self.trials.order(service, order, by, declared, versions, now)?;
        self.dirty.insert(service.clone());
        Ok(())
    }

    /// How often edges are to report what they do.
    #[must_use]
    pub fn load_report_interval(&self) -> Duration {
        let needed = self.trials.interval().map(|interval| interval.max(SHORTEST_REPORTS));
        needed.map_or(self.config.load_report_interval, |needed| needed.min(self.config.load_report_interval))
    }

    /// Applies one input; returns what the prober has to do.
    pub fn apply(&mut self, input: Input, now: Timestamp) -> Vec<ProbeChange> {
        match input {
            Input::Provider { provider, update } => return self.discovered(&provider, update, now),
            Input::Checked { id, verdict } => self.checked(id, verdict),
            Input::Configured(config) => return self.configured(*config),
            Input::Accepted { edges, sequence, at } => self.accepted(&edges, sequence, at),
            Input::Reported { part, problems } => {
                self.reported.insert(part, problems);
            }
            Input::Drained(drains) => self.drained(drains),
            Input::Sampled { service, sample } => {
                if self.trials.sampled(&service, &sample, now) {
                    self.dirty.insert(service);
                }
            }
            Input::EdgeReport(report) => self.dirty.extend(self.trials.told(&report, now)),
            Input::Hooked { service, generation, kind, answer } => {
                self.trials.answered(&service, &generation, kind, answer, now);
                self.dirty.insert(service);
            }
            Input::Measured { service, generation, metric, result } => {
                self.trials.measured(&service, &generation, &metric, result, now);
                self.dirty.insert(service);
            }
            Input::RolloutsKept(revision) => self.dirty.extend(self.trials.kept(revision)),
            Input::FilterCrashed => {
                self.filter_generation += 1;
                self.edge_dirty = true;
            }
            Input::Tick => {}
        }
        Vec::new()
    }

    fn discovered(&mut self, provider: &ProviderName, update: Update, now: Timestamp) -> Vec<ProbeChange> {
        let is_reset = matches!(update, Update::Reset(_));
        // A provider's complaint says that it lives, not that its source does.
        if !matches!(update, Update::Problems(_)) {
            self.heard.insert(provider.clone(), Some(now));
        }
        if let Update::Confirmed(confirmed) = update {
            self.confirmed.insert(provider.clone(), confirmed);
        }
        let Touched { services, watch, forget, came, went, removed, any: _ } = self.catalog.apply(provider, update);
        self.dirty.extend(services);
        for id in &went {
            self.dirty.extend(self.addresses.waive(id));
        }
        for instance in came.iter().filter(|instance| instance.has_own_address) {
            self.dirty.extend(self.addresses.claim(provider, &instance.id, &instance.service));
        }
        for container in &removed {
            self.flaps.forget(container);
        }
        for id in &forget {
            self.verdicts.remove(id);
        }
        if is_reset && let Sync::Discovering(awaited) = &mut self.sync {
            awaited.remove(provider);
            if awaited.is_empty() {
                let awaited = self
                    .catalog
                    .containers()
                    .flat_map(|container| container.checkable())
                    .filter(|instance| instance.check.kind.is_active() && !self.verdicts.contains_key(&instance.id))
                    .map(|instance| instance.id.clone())
                    .collect();
                self.sync = Sync::Checking { awaited, deadline: now.after(FIRST_ROUND) };
            }
        }
        if let Sync::Checking { awaited, .. } = &mut self.sync {
            for id in &forget {
                awaited.remove(id);
            }
        }
        let forget = forget.into_iter().map(ProbeChange::Forget);
        let watch = watch.into_iter().filter(|i| i.check.kind.is_active()).map(|instance| self.watch(instance));
        forget.chain(watch).collect()
    }

    fn checked(&mut self, id: InstanceId, verdict: Verdict) {
        if let Sync::Checking { awaited, .. } = &mut self.sync {
            awaited.remove(&id);
        }
        // A verdict may arrive after its instance is gone.
        let Some(service) = self.catalog.service_of(&id) else { return };
        self.dirty.insert(service.clone());
        self.verdicts.insert(id, verdict);
    }

    fn drained(&mut self, drains: Drains) {
        let old = std::mem::replace(&mut self.drains, drains);
        let concerned: BTreeSet<&str> = old.containers().chain(self.drains.containers()).collect();
        let of = |container: &Discovered| container.memberships.iter().map(|m| m.service.clone()).collect::<Vec<_>>();
        let all = self.catalog.containers().filter(|container| concerned.contains(container.id.as_str()));
        self.dirty.extend(all.flat_map(of));
    }

    fn accepted(&mut self, edges: &[EdgeProgress], sequence: u64, at: Timestamp) {
        self.addresses.accepted(edges.iter().map(|edge| edge.accepted).min().unwrap_or(sequence));
        let groups = &self.config.edge.groups;
        self.journal.accepted(edges, sequence, |group, service| groups.seeing(service).contains(group), at);
    }

    fn configured(&mut self, config: Config) -> Vec<ProbeChange> {
        let old = std::mem::replace(&mut self.config, config);
        let declared: BTreeSet<&ServiceName> = old.services.keys().chain(self.config.services.keys()).collect();
        for service in declared {
            if old.services.get(service) != self.config.services.get(service) {
                self.dirty.insert(service.clone());
            }
        }
        if old.ownership != self.config.ownership {
            self.dirty.extend(self.catalog.services().cloned());
        }
        self.edge_dirty |= old.edge != self.config.edge;
        self.watch_again(&old)
    }

    /// Derives anew what was touched, and says what really changed.
    pub fn settle(&mut self, now: Timestamp) -> Settled {
        let mut settled = Settled::default();
        if matches!(self.sync, Sync::Discovering(_)) {
            return settled;
        }
        if let Sync::Checking { awaited, deadline } = &self.sync
            && (awaited.is_empty() || now >= *deadline)
        {
            self.sync = Sync::Synced;
            // Until now nobody knew what is ready.
            self.dirty.extend(self.trials.versions().map(|(service, ..)| service));
        }
        let is_synced = self.is_synced();
        settled.edge = std::mem::take(&mut self.edge_dirty);
        self.journal.expire(now);
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.extend(self.addresses.release(now));
        dirty.extend(self.flaps.release(now));
        dirty.extend(self.trials.due(now));
        let mut places = BTreeSet::new();
        for service in &dirty {
            let members = self.config.ownership.members(&self.catalog, service);
            self.claims.want(service, claim_of(&members), &mut places);
        }
        dirty.extend(self.claims.resolve(&places));
        let mut again = BTreeSet::new();
        for service in dirty {
            self.newcomers(&service, now);
            let facts = Facts {
                catalog: &self.catalog,
                claims: &self.claims,
                ownership: &self.config.ownership,
                verdicts: &self.verdicts,
                addresses: &self.addresses,
                flaps: &self.flaps,
                drains: &self.drains,
                declared: self.config.services.get(&service),
                before: self.views.get(&service),
                now,
            };
            let gathered = gather(&service, &facts);
            if gathered.is_none() {
                self.trials.gone(&service);
            }
            let after = gathered.and_then(|all| {
                let census = is_synced.then_some(&all.census);
                let declared = self.trials.lead(&service, facts.declared, all.labelled.clone(), census, now);
                all.view(&declared)
            });
            let before = self.views.get(&service);
            if before == after.as_ref() {
                continue;
            }
            settled.flips.extend(flips(before, after.as_ref()));
            let changes = transitions::between(before, after.as_ref(), &self.catalog);
            if self.take(&service, changes, now) {
                // It fell once too often: what was derived does not know yet.
                again.insert(service.clone());
            }
            match after {
                Some(view) => self.views.insert(service.clone(), view),
                None => self.views.remove(&service),
            };
            settled.services.insert(service);
        }
        if is_synced {
            self.trials.all_known();
        }
        if !again.is_empty() {
            self.dirty.extend(again);
            let Settled { services, edge, flips, errands } = self.settle(now);
            settled.errands.extend(errands);
            settled.services.extend(services);
            settled.edge |= edge;
            settled.flips.extend(flips);
        }
        settled.errands.extend(self.trials.take_errands());
        settled
    }

    /// Has those wait who have just come to an address that was another's.
    fn newcomers(&mut self, service: &ServiceName, now: Timestamp) {
        let before = self.views.get(service);
        let is_known =
            |new: &Instance| before.is_some_and(|view| transitions::find(view, &new.version, &new.id).is_some());
        for (container, membership) in self.catalog.members(service) {
            let own = container.instances.iter().filter(|i| i.service == *service && i.version == membership.version);
            for instance in own.filter(|instance| !is_known(instance)) {
                self.addresses.arrive(&instance.id, service, &instance.version, now);
            }
        }
    }

    /// Notes what happened to the instances of a service. Whether a container is out now that was not before.
    fn take(&mut self, service: &ServiceName, changes: Vec<Change>, now: Timestamp) -> bool {
        let mut damped = false;
        for Change { event, left, joined, fell } in changes {
            let (container, version) = (&event.id.container, event.version.clone());
            let owner = Owner { container: container.clone(), service: service.clone(), version };
            if left {
                self.addresses.unpublish(event.id.address, owner, now);
            } else if joined {
                self.addresses.publish(event.id.address, owner);
            }
            if let Some(asked) = fell {
                let was = self.flaps.damped(container).is_some();
                self.flaps.fell(container, service, asked, now);
                damped |= !was && self.flaps.damped(container).is_some();
            }
            self.journal.note(event, now);
        }
        damped
    }

    /// What was settled was committed under this number; `None`: it changed nothing at the edges, or nothing is published yet.
    pub fn committed(&mut self, sequence: Option<u64>, now: Timestamp) {
        self.addresses.committed(sequence);
        self.journal.committed(sequence, now);
    }

    /// The timeline.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether everything required was discovered and checked once, so that what follows may be published.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.sync == Sync::Synced
    }

    /// What the first sync still waits for, in words; `None` when it is done.
    #[must_use]
    pub fn awaiting(&self) -> Option<String> {
        match &self.sync {
            Sync::Discovering(providers) => {
                let names = providers.iter().map(ProviderName::as_str).collect::<Vec<_>>().join(", ");
                Some(format!("the first full answer of {names}"))
            }
            Sync::Checking { awaited, .. } => Some(format!("the first check of {} instance(s)", awaited.len())),
            Sync::Synced => None,
        }
    }

    /// When that was kept which Envoy gets until the first sync; `None` once that is done, and where nothing was kept.
    #[must_use]
    pub fn serves_kept(&self) -> Option<Timestamp> {
        self.kept_at.filter(|_| !self.is_synced())
    }

    /// When [`Self::settle`] has to be called although nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let sync = match &self.sync {
            Sync::Discovering(_) => return None,
            Sync::Checking { deadline, .. } => Some(*deadline),
            Sync::Synced => None,
        };
        let parts = [self.addresses.deadline(), self.flaps.deadline(), self.trials.deadline(), self.journal.deadline()];
        parts.into_iter().chain([sync]).flatten().min()
    }

    /// The providers, and when each was last heard of; `None`: never.
    pub fn providers(&self) -> impl Iterator<Item = (&ProviderName, Option<Timestamp>)> {
        self.heard.iter().map(|(provider, at)| (provider, *at))
    }

    /// What a provider counted, as it last said.
    #[must_use]
    pub fn confirmed(&self, provider: &ProviderName) -> Confirmed {
        self.confirmed.get(provider).copied().unwrap_or_default()
    }

    /// The configuration in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What was discovered.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Counted up when the filter crashed: a new number makes Envoy configure it afresh.
    #[must_use]
    pub const fn filter_generation(&self) -> u64 {
        self.filter_generation
    }

    /// One service.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&ServiceView> {
        self.views.get(name)
    }

    /// All services, by name.
    pub fn services(&self) -> impl Iterator<Item = &ServiceView> {
        self.views.values()
    }

    /// Everything that is wrong, worst first.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let unknown = self.config.services.keys().filter(|name| !self.views.contains_key(*name)).map(|name| {
            let cure = crate::suggest::did_you_mean(name.as_str(), self.views.keys().map(ServiceName::as_str), || {
                format!("start containers (or write entries) of the service `{name}`, or remove `services.{name}`")
            });
            Problem::error(
                Code::UnknownReference,
                format!("services.{name} of tidegate.yaml"),
                format!("there is no service `{name}`"),
                "what is declared there is not in effect",
                cure,
            )
            .warning()
        });
        let mut problems: Vec<Problem> = self
            .catalog
            .problems()
            .chain(self.views.values().flat_map(|view| &view.problems))
            .chain(self.reported.values().flatten())
            .cloned()
            .chain(self.config.ownership.refusals(&self.catalog))
            .chain(unknown)
            .chain(self.unknown_dependencies())
            .chain(self.unknown_in_groups())
            .chain(self.serving_kept_problem())
            .collect();
        problems.sort();
        problems.dedup();
        problems
    }

    /// What services need and nothing is.
    fn unknown_dependencies(&self) -> impl Iterator<Item = Problem> {
        let needed =
            self.views.values().flat_map(|view| view.depends_on.iter().map(move |needed| (&view.name, needed)));
        needed.filter(|(_, needed)| !self.views.contains_key(*needed)).map(|(service, needed)| {
            let names = self.views.keys().filter(|name| *name != service).map(ServiceName::as_str);
            Problem::error(
                Code::UnknownReference,
                format!("service {service}"),
                format!("it depends on `{needed}`, and there is no such service"),
                "none on its traffic: `explain` cannot say whether that is ready",
                crate::suggest::did_you_mean(needed.as_str(), names, || format!("start containers of `{needed}`")),
            )
            .warning()
        })
    }

    /// What groups of nodes name as their services and nothing is.
    fn unknown_in_groups(&self) -> impl Iterator<Item = Problem> {
        let names = || self.views.keys().map(ServiceName::as_str);
        let patterns = self
            .config
            .edge
            .groups
            .iter()
            .flat_map(|group| group.services.0.iter().flatten().map(move |pattern| (&group.name, pattern)));
        let unknown = patterns.filter(|(_, pattern)| !self.views.keys().any(|service| pattern.matches(service)));
        unknown.map(move |(group, pattern)| {
            let (reason, cure) = match pattern {
                ServicePattern::Name(name) => (
                    format!("there is no service `{name}`"),
                    crate::suggest::did_you_mean(name.as_str(), names(), || {
                        format!("start containers (or write entries) of the service `{name}`, or remove it there")
                    }),
                ),
                ServicePattern::Prefix(prefix) => (
                    format!("no service's name begins with `{prefix}`"),
                    "start containers (or write entries) of such a service, or remove it there".to_owned(),
                ),
            };
            Problem::error(
                Code::UnknownReference,
                format!("services of the group `{group}` in tidegate.yaml"),
                reason,
                "the edges of the group get the other services that it names",
                cure,
            )
            .warning()
        })
    }

    fn serving_kept_problem(&self) -> Option<Problem> {
        let (at, awaited) = (self.serves_kept()?, self.awaiting()?);
        let problem = Problem::error(
            Code::ServingKept,
            "last known good",
            format!("what was published until {at} is served again; discovery waits for {awaited}"),
            "Envoy keeps its routes and endpoints; what has changed since then is not seen yet",
            "none needed if it passes; else see the problems of what is waited for",
        );
        Some(problem.warning())
    }
}

/// The instances that are known before and after, or new, and whose readiness differs.
fn flips(before: Option<&ServiceView>, after: Option<&ServiceView>) -> Vec<Flip> {
    let was_ready: BTreeMap<&InstanceId, bool> = before
        .into_iter()
        .flat_map(|view| view.versions.values())
        .flat_map(|version| &version.instances)
        .map(|instance| (&instance.id, instance.is_serving()))
        .collect();
    let Some(view) = after else { return Vec::new() };
    let mut flips = Vec::new();
    for (version, members) in &view.versions {
        for instance in &members.instances {
            let ready = instance.is_serving();
            if was_ready.get(&instance.id).copied().unwrap_or(false) == ready {
                continue;
            }
            let reason = if instance.terminating.is_some() {
                "it was told to stop".to_owned()
            } else if instance.drained.is_some() {
                "an operator drains it".to_owned()
            } else {
                instance.readiness.to_string()
            };
            flips.push(Flip {
                service: view.name.clone(),
                version: version.clone(),
                container: instance.container.clone(),
                id: instance.id.clone(),
                ready,
                reason,
            });
        }
    }
    flips
}

#[cfg(test)]
mod tests;
