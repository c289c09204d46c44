//! Who is woken by what: for each type and name the streams that asked for it. A commit wakes those alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clients::Client;
use crate::resource::{PerType, ResourceType};
use crate::session::Interest;

/// The streams of one view.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Streams are known by their place here: four bytes for each name they want.
    places: Vec<Option<Arc<Client>>>,
    free: Vec<Place>,
    /// Places that were left and still stand in the lists below; they are cleaned when they are many.
    left: Vec<Place>,
    wildcard: PerType<Vec<Place>>,
    by_name: PerType<HashMap<Arc<str>, Vec<Place>, foldhash::quality::RandomState>>,
}

/// So many streams may have left before the lists are cleaned of them, and as many as are still there.
const FEW_LEFT: usize = 64;

/// Where a stream stands.
pub(crate) type Place = u32;

impl Index {
    /// Takes a stream in, which wants nothing yet.
    pub(crate) fn join(&mut self, client: Arc<Client>) -> Place {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(client);
            return place;
        }
        self.places.push(Some(client));
        // Four billion streams do not fit into this process.
        u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
    }

    /// Lets a stream go. To take it out of the list of each of its names would cost as much as the names that it has, and
    /// thousands may leave at once: its place stays empty until the lists are cleaned.
    pub(crate) fn leave(&mut self, place: Place) {
        self.places[place as usize] = None;
        self.left.push(place);
        let there = self.places.len() - self.free.len() - self.left.len();
        if self.left.len() > FEW_LEFT.max(there) {
            self.clean();
        }
    }

    fn clean(&mut self) {
        let places = &self.places;
        let is_there = |place: &Place| places[*place as usize].is_some();
        for resource_type in ResourceType::ALL {
            self.wildcard[resource_type].retain(is_there);
            self.by_name[resource_type].retain(|_, places| {
                places.retain(is_there);
                !places.is_empty()
            });
        }
        self.free.append(&mut self.left);
    }

    /// Notes how a request changed what a stream wants.
    pub(crate) fn change(&mut self, place: Place, interest: Interest) {
        let Interest { resource_type, everything, gained, lost } = interest;
        let wildcard = &mut self.wildcard[resource_type];
        if everything {
            insert(wildcard, place);
        } else {
            remove(wildcard, place);
        }
        for name in lost {
            self.lose(resource_type, &name, place);
        }
        for name in gained {
            insert(self.by_name[resource_type].entry(name).or_default(), place);
        }
    }

    /// Wakes the streams that want any of these, and answers how many that were. A stream that was woken before and has
    /// not looked since is not counted.
    pub(crate) fn wake<'a>(&self, changed: impl IntoIterator<Item = &'a (ResourceType, Arc<str>)>) -> u64 {
        let mut woken = 0;
        let mut wake = |place: &Place| {
            let client = self.places.get(*place as usize).and_then(Option::as_ref);
            woken += u64::from(client.is_some_and(|client| client.wake()));
        };
        let mut all_of = PerType::<bool>::default();
        for (resource_type, name) in changed {
            if !std::mem::replace(&mut all_of[*resource_type], true) {
                self.wildcard[*resource_type].iter().for_each(&mut wake);
            }
            if let Some(places) = self.by_name[*resource_type].get(name) {
                places.iter().for_each(&mut wake);
            }
        }
        woken
    }

    fn lose(&mut self, resource_type: ResourceType, name: &str, place: Place) {
        let by_name = &mut self.by_name[resource_type];
        if let Some(places) = by_name.get_mut(name) {
            remove(places, place);
            if places.is_empty() {
                by_name.remove(name);
            }
        }
    }
}

fn insert(places: &mut Vec<Place>, place: Place) {
    if let Err(at) = places.binary_search(&place) {
        places.insert(at, place);
    }
}

fn remove(places: &mut Vec<Place>, place: Place) {
    if let Ok(at) = places.binary_search(&place) {
        places.remove(at);
    }
}
