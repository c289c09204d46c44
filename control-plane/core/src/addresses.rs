//! Who has which address, and who had it last. Docker gives an address away again as soon as it is free. Two rules follow:
//!
//! - **Who came last has it.** Where an engine has given one address of one network to two containers, the run that began
//!   last has it, and the other one is over, although nobody has said so yet: its check may even pass, because the newcomer
//!   answers it. That goes only for addresses that an engine gives to one container at a time: on the node's own network, or
//!   on another container's, a label can name any port, and must not take it from whoever is there.
//! - **The hold-back.** A newcomer whose address was published for another service, or for another version of its own (the
//!   buckets of a canary are promises, too), gets nothing until every connected edge has acknowledged that the address left
//!   there, and [`LONGEST_HOLD`] at most. Envoy knows no networks, so this goes by the address alone.
//!
//! An entry of a file is where its owner says it is, and may stand in two services: neither rule is for entries. Pure: told
//! `now`, what was published, what was committed and what the edges have accepted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::instance::{InstanceId, is_entry};
use crate::{ProviderName, ServiceName, Timestamp, VersionName};

/// Who had an address longer ago than this does not matter any more.
const REMEMBERED: Duration = Duration::from_secs(30);

/// How long a newcomer waits at most: an edge that does not answer must not keep a service from its instances.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// Instances by when they began, whose engine gave them the address, and their services.
type Claimed = BTreeMap<(String, InstanceId), (ProviderName, BTreeSet<ServiceName>)>;

/// Who an address was, or is, published for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) container: String,
    pub(crate) service: ServiceName,
    pub(crate) version: VersionName,
}

/// All addresses.
#[derive(Debug, Default)]
pub(crate) struct Addresses {
    /// The instances that say they listen there, by network and address: the run that began last is the last.
    claimed: BTreeMap<(String, SocketAddr), Claimed>,
    published: BTreeMap<SocketAddr, BTreeSet<Owner>>,
    former: BTreeMap<SocketAddr, Vec<Former>>,
    /// The same by time.
    left: VecDeque<(Timestamp, SocketAddr)>,
    /// Addresses that were left since the last commit.
    uncommitted: BTreeSet<SocketAddr>,
    held: BTreeMap<InstanceId, Held>,
    /// Every connected edge has accepted the changes up to this one.
    accepted: u64,
}

#[derive(Debug)]
struct Former {
    owner: Owner,
    at: Timestamp,
    /// The commit by which it left; `None`: that is still to come.
    sequence: Option<u64>,
}

/// An instance that waits.
#[derive(Debug)]
pub(crate) struct Held {
    new: Owner,
    /// Who had its address.
    pub(crate) old: Owner,
    /// When it waits no more, whatever the edges say.
    pub(crate) until: Timestamp,
}

impl Addresses {
    /// A provider found an instance at an address that no other of its containers can have. Returns the services for which
    /// something is different now.
    pub(crate) fn claim(
        &mut self,
        provider: &ProviderName,
        id: &InstanceId,
        service: &ServiceName,
    ) -> BTreeSet<ServiceName> {
        let claimed = self.claimed.entry((id.network.clone(), id.address)).or_default();
        let mut affected: BTreeSet<ServiceName> = claimed.values().flat_map(|(_, services)| services.clone()).collect();
        let own = claimed.entry((began(id).to_owned(), id.clone()));
        own.or_insert_with(|| (provider.clone(), BTreeSet::new())).1.insert(service.clone());
        if claimed.len() == 1 {
            return BTreeSet::new();
        }
        affected.insert(service.clone());
        affected
    }

    /// An instance is gone. Returns the services for which something is different now.
    pub(crate) fn waive(&mut self, id: &InstanceId) -> BTreeSet<ServiceName> {
        self.held.remove(id);
        let place = (id.network.clone(), id.address);
        let Some(claimed) = self.claimed.get_mut(&place) else { return BTreeSet::new() };
        claimed.remove(&(began(id).to_owned(), id.clone()));
        let left = claimed.values().flat_map(|(_, services)| services.clone()).collect();
        if claimed.is_empty() {
            self.claimed.remove(&place);
        }
        left
    }

    /// The run that has the address of `id` now, if that is another container's.
    pub(crate) fn successor(&self, id: &InstanceId) -> Option<&InstanceId> {
        let claimed = self.claimed.get(&(id.network.clone(), id.address))?;
        let (engine, _) = claimed.get(&(began(id).to_owned(), id.clone()))?;
        // Two engines may have networks of one name, with the same addresses.
        let ((_, last), _) = claimed.iter().rev().find(|(_, (other, _))| other == engine)?;
        (last.container != id.container).then_some(last)
    }

    /// An instance is about to be published for the first time: it may have to wait.
    pub(crate) fn arrive(&mut self, id: &InstanceId, service: &ServiceName, version: &VersionName, now: Timestamp) {
        if is_entry(&id.container) || self.held.contains_key(id) {
            return;
        }
        let new = Owner { container: id.container.clone(), service: service.clone(), version: version.clone() };
        if let Some(old) = self.before(id.address, &new, now).cloned() {
            self.held.insert(id.clone(), Held { new, old, until: now.after(LONGEST_HOLD) });
        }
    }

    /// Who else has the address at some edge, as far as is known.
    fn before(&self, address: SocketAddr, new: &Owner, now: Timestamp) -> Option<&Owner> {
        let other = |owner: &Owner| {
            owner.container != new.container && (&owner.service, &owner.version) != (&new.service, &new.version)
        };
        let published = self.published.get(&address).into_iter().flatten();
        let former = self.former.get(&address).into_iter().flatten();
        let lingering = former.filter(|former| {
            now.since(former.at) < REMEMBERED && former.sequence.is_none_or(|sequence| sequence > self.accepted)
        });
        published.chain(lingering.map(|former| &former.owner)).find(|owner| other(owner))
    }

    /// From the next commit on the address stands at the edges for `owner`.
    pub(crate) fn publish(&mut self, address: SocketAddr, owner: Owner) {
        if !is_entry(&owner.container) {
            self.published.entry(address).or_default().insert(owner);
        }
    }

    /// From the next commit on it does not.
    pub(crate) fn unpublish(&mut self, address: SocketAddr, owner: Owner, now: Timestamp) {
        let Some(owners) = self.published.get_mut(&address) else { return };
        if !owners.remove(&owner) {
            return;
        }
        if owners.is_empty() {
            self.published.remove(&address);
        }
        self.former.entry(address).or_default().push(Former { owner, at: now, sequence: None });
        self.left.push_back((now, address));
        self.uncommitted.insert(address);
    }

    /// What was published and unpublished before is in this commit; `None`: it changed nothing at the edges.
    pub(crate) fn committed(&mut self, sequence: Option<u64>) {
        for address in std::mem::take(&mut self.uncommitted) {
            for former in self.former.get_mut(&address).into_iter().flatten() {
                former.sequence.get_or_insert(sequence.unwrap_or(0));
            }
        }
    }

    /// Every connected edge has accepted the changes up to this one.
    pub(crate) fn accepted(&mut self, sequence: u64) {
        self.accepted = sequence;
    }

    /// Ends what has waited long enough, and returns the services for which it did.
    pub(crate) fn release(&mut self, now: Timestamp) -> BTreeSet<ServiceName> {
        while self.left.front().is_some_and(|(at, _)| now.since(*at) >= REMEMBERED) {
            let Some((_, address)) = self.left.pop_front() else { break };
            if let Some(former) = self.former.get_mut(&address) {
                former.retain(|former| now.since(former.at) < REMEMBERED);
                if former.is_empty() {
                    self.former.remove(&address);
                }
            }
        }
        let waits =
            |(id, held): &(&InstanceId, &Held)| held.until > now && self.before(id.address, &held.new, now).is_some();
        let free: Vec<InstanceId> = self.held.iter().filter(|held| !waits(held)).map(|(id, _)| id.clone()).collect();
        free.iter().filter_map(|id| self.held.remove(id)).map(|held| held.new.service).collect()
    }

    /// Whether an instance waits.
    pub(crate) fn held(&self, id: &InstanceId) -> Option<&Held> {
        self.held.get(id)
    }

    /// When [`Self::release`] has something to do although nothing happened.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.held.values().map(|held| held.until).min()
    }
}

/// Docker writes UTC with as many digits of a second as it needs. Without the `Z`, the later one is the greater text.
fn began(id: &InstanceId) -> &str {
    id.started_at.trim_end_matches('Z')
}

#[cfg(test)]
mod tests;
