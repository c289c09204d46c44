//! Who is woken by what: for each type and name the streams that asked for it. A commit wakes those alone.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clients::Client;
use crate::names::NameList;
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
    of_types: PerType<OfType>,
}

/// Who wants what of one type.
#[derive(Debug, Default)]
struct OfType {
    wildcard: Vec<Place>,
    by_name: HashMap<Arc<str>, Wanting, foldhash::quality::RandomState>,
    /// What streams want together, by its number, and who they are.
    lists: HashMap<u64, (Arc<NameList>, Vec<Place>)>,
}

/// Who wants a name: those at these places, and those who have one of the lists that it is in, with exceptions.
#[derive(Debug, Default)]
struct Wanting {
    places: Vec<Place>,
    lists: Vec<u64>,
    except: Vec<Place>,
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
            let OfType { wildcard, by_name, lists } = &mut self.of_types[resource_type];
            wildcard.retain(is_there);
            lists.retain(|_, (_, places)| {
                places.retain(is_there);
                !places.is_empty()
            });
            by_name.retain(|_, wanting| {
                wanting.places.retain(is_there);
                wanting.except.retain(is_there);
                wanting.lists.retain(|list| lists.contains_key(list));
                !wanting.is_empty()
            });
        }
        self.free.append(&mut self.left);
    }

    /// Notes how a request changed what a stream wants.
    pub(crate) fn change(&mut self, place: Place, interest: Interest) {
        let Interest { resource_type, everything, list, gained, lost } = interest;
        let OfType { wildcard, by_name, lists } = &mut self.of_types[resource_type];
        if everything {
            insert(wildcard, place);
        } else {
            remove(wildcard, place);
        }
        if let Some(list) = list {
            let (_, places) = lists.entry(list.id()).or_insert_with(|| {
                for name in list.names() {
                    by_name.entry(Arc::clone(name)).or_default().lists.push(list.id());
                }
                (list, Vec::new())
            });
            insert(places, place);
        }
        for name in lost {
            let Some(wanting) = by_name.get_mut(&name) else { continue };
            wanting.lose(place);
            if wanting.is_empty() {
                by_name.remove(&name);
            }
        }
        for name in gained {
            by_name.entry(name).or_default().gain(place);
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
            let OfType { wildcard, by_name, lists } = &self.of_types[*resource_type];
            if !std::mem::replace(&mut all_of[*resource_type], true) {
                wildcard.iter().for_each(&mut wake);
            }
            let Some(wanting) = by_name.get(name) else { continue };
            wanting.places.iter().for_each(&mut wake);
            let of_lists = wanting.lists.iter().filter_map(|list| lists.get(list)).flat_map(|(_, places)| places);
            of_lists.filter(|place| wanting.except.binary_search(place).is_err()).for_each(&mut wake);
        }
        woken
    }
}

impl Wanting {
    /// A stream that has a list with the name in it, and was an exception, is none any more.
    fn gain(&mut self, place: Place) {
        if !remove(&mut self.except, place) {
            insert(&mut self.places, place);
        }
    }

    /// A stream that has the name from a list becomes an exception.
    fn lose(&mut self, place: Place) {
        if !remove(&mut self.places, place) {
            insert(&mut self.except, place);
        }
    }

    fn is_empty(&self) -> bool {
        self.places.is_empty() && self.lists.is_empty()
    }
}

fn insert(places: &mut Vec<Place>, place: Place) {
    if let Err(at) = places.binary_search(&place) {
        places.insert(at, place);
    }
}

/// Whether it was there.
fn remove(places: &mut Vec<Place>, place: Place) -> bool {
    let at = places.binary_search(&place);
    at.map(|at| places.remove(at)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::clients::Clients;
    use crate::names::NameLists;
    use crate::node::Node;
    use crate::resource::Variant;
    use crate::server::ServerConfig;
    use crate::session::Protocol;
    use crate::store::view::View;

    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    const STREAMS: usize = 4;

    /// A stream and what it says.
    #[derive(Clone, Debug)]
    enum Step {
        /// Names, by number, of a list.
        Lists(usize, BTreeSet<usize>),
        Gains(usize, usize),
        Loses(usize, usize),
        Leaves(usize),
        Clean,
    }

    fn step() -> impl Strategy<Value = Step> {
        let (stream, name) = (0..STREAMS, 0..NAMES.len());
        prop_oneof![
            // Few different lists: they are to be shared.
            3 => (stream.clone(), prop::sample::select(vec![vec![0, 1, 2], vec![1, 2, 3, 4], vec![3, 4], vec![5]]))
                .prop_map(|(stream, names)| Step::Lists(stream, names.into_iter().collect())),
            4 => (stream.clone(), name.clone()).prop_map(|(stream, name)| Step::Gains(stream, name)),
            4 => (stream.clone(), name).prop_map(|(stream, name)| Step::Loses(stream, name)),
            1 => stream.prop_map(Step::Leaves),
            1 => Just(Step::Clean),
        ]
    }

    /// A stream of the index, and what it wants.
    struct Stream {
        client: Arc<Client>,
        place: Place,
        wants: BTreeSet<&'static str>,
        /// What its lists have, wanted or not.
        listed: BTreeSet<&'static str>,
    }

    fn join(index: &mut Index, clients: &Clients, view: &Arc<View>) -> Stream {
        let protocol = Protocol { variant: Variant::Delta, only: None };
        let limits = ServerConfig::default().limits();
        let client = clients.connect(Arc::clone(view), Node::default(), protocol, None, limits, Duration::ZERO);
        let place = index.join(Arc::clone(&client));
        Stream { client, place, wants: BTreeSet::new(), listed: BTreeSet::new() }
    }

    proptest! {
        #[test]
        fn who_wants_a_name_is_woken_and_nobody_else(steps in prop::collection::vec(step(), 0..40)) {
            let (mut index, lists) = (Index::default(), NameLists::default());
            let (clients, view) = (Clients::default(), Arc::new(View::default()));
            let mut streams: Vec<_> = (0..STREAMS).map(|_| join(&mut index, &clients, &view)).collect();
            let of = ResourceType::Endpoint;
            let nothing = || Interest { resource_type: of, everything: false, list: None, gained: vec![], lost: vec![] };
            for step in steps {
                let (at, interest) = match step {
                    Step::Lists(at, names) => {
                        let names: Vec<_> = names.into_iter().map(|name| NAMES[name]).collect();
                        let stream = &mut streams[at];
                        if names.iter().any(|name| stream.listed.contains(name) || stream.wants.contains(name)) {
                            continue;
                        }
                        stream.listed.extend(&names);
                        stream.wants.extend(&names);
                        (at, Interest { list: lists.share(&names, |name| Arc::from(name)), ..nothing() })
                    }
                    Step::Gains(at, name) if streams[at].wants.insert(NAMES[name]) => {
                        (at, Interest { gained: vec![Arc::from(NAMES[name])], ..nothing() })
                    }
                    Step::Loses(at, name) if streams[at].wants.remove(NAMES[name]) => {
                        (at, Interest { lost: vec![Arc::from(NAMES[name])], ..nothing() })
                    }
                    Step::Leaves(at) => {
                        index.leave(streams[at].place);
                        streams[at] = join(&mut index, &clients, &view);
                        continue;
                    }
                    Step::Clean => {
                        index.clean();
                        continue;
                    }
                    Step::Gains(..) | Step::Loses(..) => continue,
                };
                index.change(streams[at].place, interest);
                for name in NAMES {
                    for stream in &streams {
                        let _ = stream.client.next_response(Duration::ZERO);
                    }
                    let wanting = streams.iter().filter(|stream| stream.wants.contains(name));
                    prop_assert_eq!(index.wake(&[(of, Arc::from(name))]), wanting.count() as u64);
                    for stream in &streams {
                        prop_assert_eq!(!stream.client.wake(), stream.wants.contains(name));
                    }
                }
            }
            streams.iter().for_each(|stream| index.leave(stream.place));
            index.clean();
            prop_assert!(index.of_types[of].by_name.is_empty() && index.of_types[of].lists.is_empty());
        }
    }
}
