//! What one stream is subscribed to, for one type, and how a request of either variant changes it. Pure; each branch
//! quotes the rule of the xDS protocol that it keeps. What is to be sent for it is the business of the session.

use std::sync::Arc;

use crate::names::{NameList, hash};

/// The name that stands for everything.
const WILDCARD: &str = "*";

/// Up to so many new names are put in their places one by one; more are sorted in.
const FEW: usize = 8;

/// The names a stream wants, and whether it wants everything.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    wildcard: bool,
    /// Whether any name was ever asked for, `*` included.
    has_named: bool,
    /// The number of the first response that can have carried everything.
    wildcard_since: u32,
    /// The names of the first request, as other streams have them, too.
    shared: Option<Shared>,
    /// The others, in order of their hashes: numbers are compared faster than texts, and nobody needs the order of the
    /// alphabet.
    own: Vec<Named>,
}

/// What a stream has of a list.
#[derive(Debug)]
struct Shared {
    list: Arc<NameList>,
    /// The number of the first response that can have carried it.
    since: u32,
    /// The places of those names that it does not have from there any more, in order; at most half of all.
    dropped: Vec<u32>,
}

/// A name that a stream does not share: 24 bytes.
#[derive(Debug)]
struct Named {
    hash: u32,
    /// The number of the first response that can have carried it.
    since: u32,
    name: Arc<str>,
}

/// The number of a response, as it is kept here: a stream that has four billion behind it is not told apart any more.
fn kept(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Where a name stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    Shared(u32),
    Own(usize),
}

/// The names of one request, as its variant says them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    /// More and less of this.
    Delta { subscribe: &'a [String], unsubscribe: &'a [String] },
    /// This and nothing else.
    Sotw(&'a [String]),
}

/// What has to be known of a stream to read the names of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// The stream's first request for this type.
    pub(crate) first: bool,
    /// Whether no names at all may mean everything.
    pub(crate) legacy_wildcard: bool,
    /// The number that the next response will bear.
    pub(crate) next_response: u64,
}

/// What a request obliges the server to answer, whether or not it believes that the client has it, and what it means
/// for those who wake the stream.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// Everything was asked for.
    pub(crate) everything: bool,
    pub(crate) names: Vec<Arc<str>>,
    /// Names beside those, none of which was wanted before.
    pub(crate) list: Option<Arc<NameList>>,
    /// Names that were not wanted before.
    pub(crate) gained: Vec<Arc<str>>,
    /// Names that are wanted no more.
    pub(crate) lost: Vec<Arc<str>>,
}

impl Owed {
    pub(crate) fn is_nothing(&self) -> bool {
        !self.everything && self.names.is_empty() && self.list.is_none()
    }
}

impl Shared {
    fn find(&self, hash: u32, name: &str) -> Option<u32> {
        self.list.find(hash, name).filter(|at| self.dropped.binary_search(at).is_err())
    }

    fn len(&self) -> usize {
        self.list.names().len() - self.dropped.len()
    }

    fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let mut dropped = self.dropped.iter().peekable();
        let places = (0..).zip(self.list.names());
        places.filter(move |(at, _)| dropped.next_if_eq(&at).is_none()).map(|(_, name)| name)
    }
}

impl Named {
    fn new(name: &Arc<str>, since: u32) -> Self {
        Self { hash: hash(name), since, name: Arc::clone(name) }
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.hash.cmp(&other.hash).then_with(|| self.name.cmp(&other.name))
    }
}

impl Subscription {
    /// Applies a request. `share` looks for names among those that other streams have asked for, and need not find any.
    pub(crate) fn apply(
        &mut self,
        asked: Asked<'_>,
        context: Context,
        intern: impl Fn(&str) -> Arc<str>,
        share: impl FnOnce(&[String]) -> Option<Arc<NameList>>,
    ) -> Owed {
        let (Asked::Delta { subscribe: names, .. } | Asked::Sotw(names)) = asked;
        let is_all = !matches!(asked, Asked::Delta { unsubscribe, .. } if !unsubscribe.is_empty());
        if context.first
            && is_all
            && let Some(list) = share(names)
        {
            self.has_named = true;
            self.shared =
                Some(Shared { list: Arc::clone(&list), since: kept(context.next_response), dropped: Vec::new() });
            return Owed { list: Some(list), ..Owed::default() };
        }
        match asked {
            Asked::Delta { subscribe, unsubscribe } => self.apply_delta(subscribe, unsubscribe, context, intern),
            Asked::Sotw(names) => self.apply_sotw(names, context, intern),
        }
    }

    /// Subscriptions come before unsubscriptions: a client that names `*` in both says "nothing".
    fn apply_delta(
        &mut self,
        subscribe: &[String],
        unsubscribe: &[String],
        context: Context,
        intern: impl Fn(&str) -> Arc<str>,
    ) -> Owed {
        let mut owed = Owed::default();

        // "(legacy behavior) the request must have no resources in both resource_names_subscribe and
        // resource_names_unsubscribe" - "the server should treat that identically to how it would treat the client
        // having explicitly subscribed to '*'".
        if context.first && context.legacy_wildcard && subscribe.is_empty() && unsubscribe.is_empty() {
            self.want_everything(context, &mut owed);
        }

        let mut wanted = Vec::with_capacity(subscribe.len());
        for name in subscribe {
            match name.as_str() {
                // A name that no resource has, sent by some clients for "no names".
                "" => {}
                WILDCARD => {
                    self.want_everything(context, &mut owed);
                }
                // "may contain resource names that the server believes the client is already subscribed to [...].
                // However, the server must still provide those resources in the response".
                name => wanted.push(intern(name)),
            }
        }
        self.add(&wanted, context.next_response, &mut owed.gained);
        owed.names = wanted;

        let mut dropped = Vec::new();
        for name in unsubscribe {
            if name == WILDCARD {
                // "Server interprets this as unsubscribing to '*' and continuing the existing subscription to 'A'."
                self.wildcard = false;
                owed.everything = false;
            } else if let Some(at) = self.place(name) {
                // "may contain superfluous resource names [...]; it can simply ignore these phantom unsubscriptions."
                dropped.push(at);
            }
        }
        self.drop_at(dropped, &mut owed.lost);
        if !owed.lost.is_empty() {
            owed.names.retain(|name| self.names_it(name));
        }
        // "When a client has a wildcard subscription ('*') and a subscription to another specific resource name [...]
        // the server must send a response that includes the specific resource in either the removed_resources field
        // (if it is not included in the wildcard) or in the resources field (if it is included in the wildcard)."
        if self.wildcard {
            owed.names.extend(owed.lost.iter().cloned());
        }
        owed
    }

    fn want_everything(&mut self, context: Context, owed: &mut Owed) {
        self.wildcard = true;
        self.wildcard_since = kept(context.next_response);
        owed.everything = true;
    }

    /// "each request must contain the full list of resource names being subscribed to": what is missing is wanted no
    /// more, and only what is new has to be sent.
    fn apply_sotw(&mut self, names: &[String], context: Context, intern: impl Fn(&str) -> Arc<str>) -> Owed {
        let mut owed = Owed::default();
        // "if the client sends a request for a given resource type but has never explicitly subscribed to any resource
        // names (i.e., in SotW, all requests on the stream for that resource type have had an empty resource_names
        // field [...]), the server should treat that identically to how it would treat the client having explicitly
        // subscribed to '*'. However, once the client does explicitly subscribe to a resource name (whether it be '*' or
        // any other name), then this legacy semantic is no longer available".
        let legacy = names.is_empty() && !self.has_named && context.legacy_wildcard;
        self.has_named |= !names.is_empty();
        let wildcard = legacy || names.iter().any(|name| name == WILDCARD);
        // What is named beside everything, or in its place, was wanted before.
        let since = if self.wildcard { self.wildcard_since.into() } else { context.next_response };
        if wildcard && !self.wildcard {
            self.want_everything(context, &mut owed);
        }
        self.wildcard = wildcard;

        let listed = names.iter().map(String::as_str).filter(|name| !name.is_empty() && *name != WILDCARD);
        let mut kept_shared = vec![false; self.shared.as_ref().map_or(0, |shared| shared.list.names().len())];
        let mut kept_own = vec![false; self.own.len()];
        let mut new = Vec::new();
        for name in listed {
            match self.place(name) {
                Some(Place::Shared(at)) => kept_shared[at as usize] = true,
                Some(Place::Own(at)) => kept_own[at] = true,
                None => new.push(name),
            }
        }
        for at in self.shared.iter().flat_map(|shared| &shared.dropped) {
            kept_shared[*at as usize] = true;
        }
        let of_shared = (0..).zip(kept_shared).filter(|(_, kept)| !kept).map(|(at, _)| Place::Shared(at));
        let of_own = kept_own.into_iter().enumerate().filter(|(_, kept)| !kept).map(|(at, _)| Place::Own(at));
        let lost = of_shared.chain(of_own).collect();
        self.drop_at(lost, &mut owed.lost);
        // "the server must resend any newly requested resources, even if it previously sent those resources [...] and
        // the resources have not changed since that time".
        let new: Vec<Arc<str>> = new.into_iter().map(intern).collect();
        self.add(&new, since, &mut owed.gained);
        owed.names = new;
        owed
    }

    /// Adds names, or makes those that are there count as new; tells which were not there, each once.
    fn add(&mut self, names: &[Arc<str>], since: u64, gained: &mut Vec<Arc<str>>) {
        let since = kept(since);
        let (mut new, mut moved) = (Vec::new(), Vec::new());
        for name in names {
            match self.place(name) {
                Some(Place::Own(at)) => self.own[at].since = since,
                Some(Place::Shared(at)) => moved.push(at),
                None => new.push(Named::new(name, since)),
            }
        }
        new.sort_unstable_by(Named::order);
        new.dedup_by(|one, other| one.name == other.name);
        gained.extend(new.iter().map(|it| Arc::clone(&it.name)));
        self.own_now(moved, |name| new.push(Named::new(name, since)));
        if new.len() <= FEW {
            for named in new {
                let at = self.own.binary_search_by(|it| it.order(&named)).unwrap_or_else(|at| at);
                self.own.insert(at, named);
            }
        } else {
            self.own.reserve_exact(new.len());
            self.own.append(&mut new);
            // Runs in order, mostly: merging them is all that there is to do.
            self.own.sort_by(Named::order);
        }
        self.share_no_more();
    }

    /// Drops the names at these places, and tells them.
    fn drop_at(&mut self, places: Vec<Place>, lost: &mut Vec<Arc<str>>) {
        if places.is_empty() {
            return;
        }
        let (mut of_shared, mut of_own) = (Vec::new(), Vec::new());
        for place in places {
            match place {
                Place::Shared(at) => of_shared.push(at),
                Place::Own(at) => of_own.push(at),
            }
        }
        of_own.sort_unstable();
        of_own.dedup();
        lost.extend(of_own.iter().map(|at| Arc::clone(&self.own[*at].name)));
        let (mut at, mut next) = (0, of_own.into_iter().peekable());
        self.own.retain(|_| {
            let goes = next.next_if_eq(&at).is_some();
            at += 1;
            !goes
        });
        self.own_now(of_shared, |name| lost.push(Arc::clone(name)));
        self.share_no_more();
    }

    /// Takes names out of what is shared, and tells each.
    fn own_now(&mut self, mut places: Vec<u32>, mut tell: impl FnMut(&Arc<str>)) {
        let Some(shared) = self.shared.as_mut().filter(|_| !places.is_empty()) else { return };
        places.sort_unstable();
        places.dedup();
        places.iter().for_each(|at| tell(shared.list.get(*at)));
        shared.dropped.append(&mut places);
        shared.dropped.sort_unstable();
    }

    /// Ends the sharing when little is left that is the same.
    fn share_no_more(&mut self) {
        let is_little = |shared: &mut Shared| shared.dropped.len() * 2 > shared.list.names().len();
        if let Some(shared) = self.shared.take_if(is_little) {
            self.own.extend(shared.names().map(|name| Named::new(name, shared.since)));
            self.own.sort_unstable_by(Named::order);
        }
    }

    fn place(&self, name: &str) -> Option<Place> {
        if self.own.is_empty() && self.shared.is_none() {
            return None;
        }
        let hash = hash(name);
        let own = self.own.binary_search_by(|it| it.hash.cmp(&hash).then_with(|| (*it.name).cmp(name)));
        let shared = || self.shared.as_ref()?.find(hash, name).map(Place::Shared);
        own.ok().map(Place::Own).or_else(shared)
    }

    /// Whether a resource of this name is wanted.
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names_it(name)
    }

    /// Whether it is wanted by its name, so that its absence must be told.
    pub(crate) fn names_it(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.wildcard && self.len() == 0
    }

    /// The names that are wanted beyond the wildcard, in no order that matters.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.shared.iter().flat_map(Shared::names).chain(self.own.iter().map(|it| &it.name))
    }

    /// How many those are.
    pub(crate) fn len(&self) -> usize {
        self.shared.as_ref().map_or(0, Shared::len) + self.own.len()
    }

    /// The number of the first response that can have carried this name, which is wanted.
    pub(crate) fn since(&self, name: &str) -> u64 {
        let everything = self.wildcard.then_some(self.wildcard_since);
        let named = self.place(name).and_then(|place| match place {
            Place::Shared(_) => Some(self.shared.as_ref()?.since),
            Place::Own(at) => Some(self.own[at].since),
        });
        everything.into_iter().chain(named).min().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests;
