//! Who has which host and path. The incumbent keeps what it has for as long as it asks for it; what is free goes to the service
//! whose oldest container is older. A newcomer can never take a host over (threats T1).

use std::collections::{BTreeMap, BTreeSet};

use crate::instance::Claim;
use crate::{ServiceName, Timestamp};

/// A host and a path prefix.
pub(crate) type Place = (String, String);

/// All claims.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    owners: BTreeMap<Place, ServiceName>,
    wanted: BTreeMap<Place, BTreeMap<ServiceName, Timestamp>>,
    by_service: BTreeMap<ServiceName, BTreeSet<Place>>,
}

impl Claims {
    /// Says what a service asks for now; `age` is the creation of its oldest container. Ownership changes with the next
    /// [`Self::resolve`], so that claims that arrive together are judged by age and not by their order.
    pub(crate) fn want(
        &mut self,
        service: &ServiceName,
        claim: Option<(&Claim, Timestamp)>,
        touched: &mut BTreeSet<Place>,
    ) {
        let places: BTreeSet<Place> = claim
            .iter()
            .flat_map(|(claim, _)| claim.hosts.iter().map(|host| (host.clone(), claim.path.clone())))
            .collect();
        for place in self.by_service.remove(service).unwrap_or_default() {
            if let Some(wanting) = self.wanted.get_mut(&place) {
                wanting.remove(service);
                if wanting.is_empty() {
                    self.wanted.remove(&place);
                }
            }
            touched.insert(place);
        }
        if let Some((_, age)) = claim {
            for place in &places {
                self.wanted.entry(place.clone()).or_default().insert(service.clone(), age);
                touched.insert(place.clone());
            }
        }
        if !places.is_empty() {
            self.by_service.insert(service.clone(), places);
        }
    }

    /// Decides the owners of the touched places; returns the services whose ownership may look different now.
    pub(crate) fn resolve(&mut self, touched: &BTreeSet<Place>) -> BTreeSet<ServiceName> {
        let mut affected = BTreeSet::new();
        for place in touched {
            let wanting = self.wanted.get(place);
            let incumbent = self.owners.get(place).filter(|owner| wanting.is_some_and(|w| w.contains_key(owner)));
            let owner = incumbent
                .or_else(|| wanting?.iter().min_by_key(|(service, age)| (**age, *service)).map(|(service, _)| service))
                .cloned();
            if self.owners.get(place) != owner.as_ref() {
                affected.extend(wanting.into_iter().flat_map(BTreeMap::keys).cloned());
            }
            match owner {
                Some(owner) => self.owners.insert(place.clone(), owner),
                None => self.owners.remove(place),
            };
        }
        affected
    }

    /// Who has a place.
    pub(crate) fn owner(&self, host: &str, path: &str) -> Option<&ServiceName> {
        self.owners.get(&(host.to_owned(), path.to_owned()))
    }
}
