//! What the providers told, by container, and which containers belong to which service. Applying an update costs what it
//! changes and names the services it touched.

use std::collections::{BTreeMap, BTreeSet};

use crate::instance::{Discovered, Instance, InstanceId, Membership, Update};
use crate::{Problem, ProviderName, ServiceName, Timestamp};

/// A container (or entry) of a provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// The provider.
    pub provider: ProviderName,
    /// Its own full id.
    pub id: String,
}

/// Everything discovered.
#[derive(Debug, Default)]
pub struct Catalog {
    containers: BTreeMap<ContainerKey, Discovered>,
    members: BTreeMap<ServiceName, BTreeSet<ContainerKey>>,
    instances: BTreeMap<InstanceId, ServiceName>,
    problems: BTreeMap<ProviderName, Vec<Problem>>,
    /// Those that have told anything.
    providers: BTreeSet<ProviderName>,
}

/// What an update did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Services whose facts changed.
    pub services: BTreeSet<ServiceName>,
    /// Instances to be checked that are new, run again after a pause, or whose check changed.
    pub watch: Vec<Instance>,
    /// Instances that are gone or paused; what their checks said is void.
    pub forget: Vec<InstanceId>,
    /// Instances that are new.
    pub came: Vec<Instance>,
    /// Instances that are gone.
    pub went: Vec<InstanceId>,
    /// Containers that exist no more, by their full ids.
    pub removed: Vec<String>,
    /// Whether anything at all changed, problems and containers that are not routed included.
    pub any: bool,
}

impl Catalog {
    /// Applies what a provider sent.
    pub fn apply(&mut self, provider: &ProviderName, update: Update) -> Touched {
        let mut touched = Touched::default();
        if !self.providers.contains(provider) {
            self.providers.insert(provider.clone());
        }
        let key = |id: String| ContainerKey { provider: provider.clone(), id };
        match update {
            Update::Reset(all) => {
                let listed: BTreeSet<&str> = all.iter().map(|discovered| discovered.id.as_str()).collect();
                let gone: Vec<ContainerKey> = self
                    .containers
                    .keys()
                    .filter(|known| known.provider == *provider && !listed.contains(known.id.as_str()))
                    .cloned()
                    .collect();
                for key in gone {
                    self.replace(key, None, &mut touched);
                }
                for discovered in all {
                    self.replace(key(discovered.id.clone()), Some(discovered), &mut touched);
                }
            }
            Update::Upsert(discovered) => self.replace(key(discovered.id.clone()), Some(*discovered), &mut touched),
            Update::Remove(id) => self.replace(key(id), None, &mut touched),
            Update::Confirmed(_) => {}
            Update::Problems(problems) => {
                if self.problems.get(provider).is_none_or(|known| *known != problems) {
                    touched.any = true;
                    self.problems.insert(provider.clone(), problems);
                }
            }
        }
        touched
    }

    fn replace(&mut self, key: ContainerKey, new: Option<Discovered>, touched: &mut Touched) {
        match (self.containers.get(&key), &new) {
            // Only the time of the look differs; what is known keeps the look that found it.
            (Some(old), Some(new)) if same_facts(old, new) => return,
            (None, None) => return,
            _ => {}
        }
        let old = self.containers.remove(&key);
        touched.any = true;
        let services = |d: &Option<Discovered>| -> BTreeSet<ServiceName> {
            d.iter().flat_map(|d| &d.memberships).map(|m| m.service.clone()).collect()
        };
        let (before, after) = (services(&old), services(&new));
        for service in before.difference(&after) {
            if let Some(members) = self.members.get_mut(service) {
                members.remove(&key);
                if members.is_empty() {
                    self.members.remove(service);
                }
            }
        }
        for service in &after {
            self.members.entry(service.clone()).or_default().insert(key.clone());
        }
        touched.services.extend(before);
        touched.services.extend(after);

        for instance in old.iter().flat_map(|d| &d.instances) {
            self.instances.remove(&instance.id);
        }
        for instance in new.iter().flat_map(|d| &d.instances) {
            self.instances.insert(instance.id.clone(), instance.service.clone());
        }
        let all = |d: Option<&Discovered>| d.map(|d| d.instances.clone()).unwrap_or_default();
        let (before, after) = (all(old.as_ref()), all(new.as_ref()));
        let without = |from: &[Instance], other: &[Instance]| -> Vec<Instance> {
            from.iter().filter(|i| !other.iter().any(|o| o.id == i.id && o.service == i.service)).cloned().collect()
        };
        touched.went.extend(without(&before, &after).into_iter().map(|instance| instance.id));
        touched.came.extend(without(&after, &before));
        if new.is_none() {
            touched.removed.push(key.id.clone());
        }
        let before = old.as_ref().map(Discovered::checkable).unwrap_or_default();
        let after = new.as_ref().map(Discovered::checkable).unwrap_or_default();
        let gone = before.iter().filter(|old| !after.iter().any(|new| new.id == old.id));
        touched.forget.extend(gone.map(|instance| instance.id.clone()));
        let changed = after.iter().filter(|new| !before.iter().any(|old| old.id == new.id && old.check == new.check));
        touched.watch.extend(changed.cloned());
        if let Some(new) = new {
            self.containers.insert(key, new);
        }
    }

    /// Every container with its key, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&ContainerKey, &Discovered)> {
        self.containers.iter()
    }

    /// What is wrong with a provider itself.
    #[must_use]
    pub fn provider_problems(&self, provider: &ProviderName) -> &[Problem] {
        self.problems.get(provider).map_or(&[], Vec::as_slice)
    }

    /// Every container, by provider and id.
    pub fn containers(&self) -> impl Iterator<Item = &Discovered> {
        self.containers.values()
    }

    /// The names of all services.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.members.keys()
    }

    /// The members of a service: oldest container first, and what each says of its membership.
    #[must_use]
    pub fn members(&self, service: &ServiceName) -> Vec<(&Discovered, &Membership)> {
        let mut members: Vec<(&Discovered, &Membership)> = self
            .members
            .get(service)
            .into_iter()
            .flatten()
            .filter_map(|key| self.containers.get(key))
            .flat_map(|d| d.memberships.iter().filter(|m| m.service == *service).map(move |m| (d, m)))
            .collect();
        members.sort_by_key(|(d, _)| age(d));
        members
    }

    /// A container or entry by its id, if it is a member of the service.
    #[must_use]
    pub fn member(&self, service: &ServiceName, id: &str) -> Option<&Discovered> {
        let members = self.members.get(service)?;
        let key = |provider: &ProviderName| ContainerKey { provider: provider.clone(), id: id.to_owned() };
        self.providers.iter().map(key).find(|key| members.contains(key)).and_then(|key| self.containers.get(&key))
    }

    /// The service that an instance belongs to; `None` when the instance is gone.
    #[must_use]
    pub fn service_of(&self, id: &InstanceId) -> Option<&ServiceName> {
        self.instances.get(id)
    }

    /// The problems of the providers and of single containers.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values().flatten().chain(self.containers.values().flat_map(|d| &d.problems))
    }
}

/// What makes one container older than another; the id breaks ties.
fn age(discovered: &Discovered) -> (Timestamp, &str) {
    (discovered.created, &discovered.id)
}

/// Whether two looks at a container found the same.
fn same_facts(a: &Discovered, b: &Discovered) -> bool {
    let Discovered {
        hint: _,
        observed_at: _,
        id,
        name,
        created,
        project,
        enabled,
        phase,
        health,
        terminating,
        memberships,
        instances,
        problems,
    } = a;
    *id == b.id
        && *name == b.name
        && *created == b.created
        && *project == b.project
        && *enabled == b.enabled
        && *phase == b.phase
        && *health == b.health
        && *terminating == b.terminating
        && *memberships == b.memberships
        && *instances == b.instances
        && *problems == b.problems
}
