//! What one stream is subscribed to, for one type, and how a request of either variant changes it. Pure; each branch
//! quotes the rule of the xDS protocol that it keeps. What is to be sent for it is the business of the session.

use std::sync::Arc;

use crate::names::{NameList, hash};

/// The name that stands for everything.
const WILDCARD: &str = "*";

/// How many lists a stream shares: each is looked through for a name. Clusters come in a few long responses, and the names of
/// their endpoints in as many requests.
const LISTS: usize = 8;

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
    /// The names of some requests, as other streams have them, too. No two of these lists have a name in common, nor have
    /// they with what is the stream's own, but for what was dropped from them.
    shared: Vec<Shared>,
    /// Whether a list was given up: what others know of it may still count, and so no more lists are taken.
    has_parted: bool,
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
    /// In which list, and where there.
    Shared(usize, u32),
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
        share: impl Fn(&[&str]) -> Option<Arc<NameList>>,
    ) -> Owed {
        match asked {
            Asked::Delta { subscribe, unsubscribe } => self.apply_delta(subscribe, unsubscribe, context, intern, share),
            Asked::Sotw(names) => self.apply_sotw(names, context, intern, share),
        }
    }

    /// Subscriptions come before unsubscriptions: a client that names `*` in both says "nothing".
    fn apply_delta(
        &mut self,
        subscribe: &[String],
        unsubscribe: &[String],
        context: Context,
        intern: impl Fn(&str) -> Arc<str>,
        share: impl Fn(&[&str]) -> Option<Arc<NameList>>,
    ) -> Owed {
        let mut owed = Owed::default();
        let asked: Vec<&str> = subscribe.iter().map(String::as_str).collect();
        if unsubscribe.is_empty() && self.add_list(&asked, context.next_response, share, &mut owed) {
            return owed;
        }

        // "(legacy behavior) the request must have no resources in both resource_names_subscribe and
        // resource_names_unsubscribe" - "the server should treat that identically to how it would treat the client
        // having explicitly subscribed to '*'".
        if context.first && context.legacy_wildcard && subscribe.is_empty() && unsubscribe.is_empty() {
            self.want_everything(context, &mut owed);
        }

        let mut wanted = Vec::with_capacity(subscribe.len());
        for name in asked {
            match name {
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
    fn apply_sotw(
        &mut self,
        names: &[String],
        context: Context,
        intern: impl Fn(&str) -> Arc<str>,
        share: impl Fn(&[&str]) -> Option<Arc<NameList>>,
    ) -> Owed {
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
        let of_list = |shared: &Shared| {
            let mut kept = vec![false; shared.list.names().len()];
            shared.dropped.iter().for_each(|at| kept[*at as usize] = true);
            kept
        };
        let mut kept_shared: Vec<Vec<bool>> = self.shared.iter().map(of_list).collect();
        let mut kept_own = vec![false; self.own.len()];
        let mut new = Vec::new();
        for name in listed {
            match self.place(name) {
                Some(Place::Shared(list, at)) => kept_shared[list][at as usize] = true,
                Some(Place::Own(at)) => kept_own[at] = true,
                None => new.push(name),
            }
        }
        let of_shared = kept_shared.into_iter().enumerate().flat_map(|(list, kept)| {
            (0..).zip(kept).filter(|(_, kept)| !kept).map(move |(at, _)| Place::Shared(list, at))
        });
        let of_own = kept_own.into_iter().enumerate().filter(|(_, kept)| !kept).map(|(at, _)| Place::Own(at));
        let lost = of_shared.chain(of_own).collect();
        self.drop_at(lost, &mut owed.lost);
        // "the server must resend any newly requested resources, even if it previously sent those resources [...] and
        // the resources have not changed since that time".
        if self.add_list(&new, since, share, &mut owed) {
            return owed;
        }
        let new: Vec<Arc<str>> = new.into_iter().map(intern).collect();
        self.add(&new, since, &mut owed.gained);
        owed.names = new;
        owed
    }

    /// Adds names as a list that other streams have, too, if there is one; `false` if not, or if any was wanted before.
    fn add_list(
        &mut self,
        names: &[&str],
        since: u64,
        share: impl Fn(&[&str]) -> Option<Arc<NameList>>,
        owed: &mut Owed,
    ) -> bool {
        if self.has_parted || self.shared.len() == LISTS {
            return false;
        }
        let Some(list) = share(names) else { return false };
        let is_new = self.own.iter().all(|own| list.find(own.hash, &own.name).is_none())
            && self.shared.iter().all(|shared| shared.list.is_apart_from(&list));
        if is_new {
            self.shared.push(Shared { list: Arc::clone(&list), since: kept(since), dropped: Vec::new() });
            owed.list = Some(list);
        }
        is_new
    }

    /// Adds names, or makes those that are there count as new; tells which were not there, each once.
    fn add(&mut self, names: &[Arc<str>], since: u64, gained: &mut Vec<Arc<str>>) {
        let since = kept(since);
        let (mut new, mut moved) = (Vec::new(), Vec::new());
        for name in names {
            match self.place(name) {
                Some(Place::Own(at)) => self.own[at].since = since,
                Some(Place::Shared(list, at)) => moved.push((list, at)),
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
                Place::Shared(list, at) => of_shared.push((list, at)),
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
    fn own_now(&mut self, mut places: Vec<(usize, u32)>, mut tell: impl FnMut(&Arc<str>)) {
        places.sort_unstable();
        places.dedup();
        for of_list in places.chunk_by(|(one, _), (other, _)| one == other) {
            let shared = &mut self.shared[of_list[0].0];
            of_list.iter().for_each(|(_, at)| tell(shared.list.get(*at)));
            shared.dropped.extend(of_list.iter().map(|(_, at)| *at));
            shared.dropped.sort_unstable();
        }
    }

    /// Gives up the lists of which little is left that is the same.
    fn share_no_more(&mut self) {
        let is_little = |shared: &mut Shared| shared.dropped.len() * 2 > shared.list.names().len();
        for shared in self.shared.extract_if(.., is_little) {
            self.has_parted = true;
            self.own.extend(shared.names().map(|name| Named::new(name, shared.since)));
            self.own.sort_unstable_by(Named::order);
        }
    }

    fn place(&self, name: &str) -> Option<Place> {
        if self.own.is_empty() && self.shared.is_empty() {
            return None;
        }
        let hash = hash(name);
        let own = self.own.binary_search_by(|it| it.hash.cmp(&hash).then_with(|| (*it.name).cmp(name)));
        let mut shared = self.shared.iter().enumerate();
        let shared = || shared.find_map(|(list, shared)| Some(Place::Shared(list, shared.find(hash, name)?)));
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
        self.shared.iter().map(Shared::len).sum::<usize>() + self.own.len()
    }

    /// The number of the first response that can have carried this name, which is wanted.
    pub(crate) fn since(&self, name: &str) -> u64 {
        let everything = self.wildcard.then_some(self.wildcard_since);
        let named = self.place(name).map(|place| match place {
            Place::Shared(list, _) => self.shared[list].since,
            Place::Own(at) => self.own[at].since,
        });
        everything.into_iter().chain(named).min().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests;
