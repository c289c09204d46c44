//! What one stream is subscribed to, for one type, and how a request of either variant changes it. Pure; each branch
//! quotes the rule of the xDS protocol that it keeps. What is to be sent for it is the business of the session.

use std::sync::Arc;

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
    /// In order of their hashes: numbers are compared faster than texts, and nobody needs the order of the alphabet.
    names: Vec<Named>,
}

/// 24 bytes a name, which is most of what an idle stream costs.
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

fn hash(name: &str) -> u32 {
    // The lower half is as good as the whole.
    xxhash_rust::xxh3::xxh3_64(name.as_bytes()) as u32
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
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    /// Everything was asked for.
    pub(crate) everything: bool,
    pub(crate) names: Vec<Arc<str>>,
    /// Names that were not wanted before.
    pub(crate) gained: Vec<Arc<str>>,
    /// Names that are wanted no more.
    pub(crate) lost: Vec<Arc<str>>,
}

impl Named {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.hash.cmp(&other.hash).then_with(|| self.name.cmp(&other.name))
    }
}

impl Subscription {
    /// Applies a request.
    pub(crate) fn apply(&mut self, asked: Asked<'_>, context: Context, intern: impl Fn(&str) -> Arc<str>) -> Owed {
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
            } else if let Ok(at) = self.position(name) {
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
        let mut kept = vec![false; self.names.len()];
        let mut new = Vec::new();
        for name in listed {
            match self.position(name) {
                Ok(at) => kept[at] = true,
                Err(_) => new.push(name),
            }
        }
        let lost = kept.iter().enumerate().filter(|(_, kept)| !**kept).map(|(at, _)| at).collect();
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
        let mut new = Vec::new();
        for name in names {
            match self.position(name) {
                Ok(at) => self.names[at].since = since,
                Err(_) => new.push(Named { hash: hash(name), since, name: Arc::clone(name) }),
            }
        }
        new.sort_unstable_by(Named::order);
        new.dedup_by(|one, other| one.name == other.name);
        gained.extend(new.iter().map(|it| Arc::clone(&it.name)));
        if new.len() <= FEW {
            for named in new {
                let at = self.names.binary_search_by(|it| it.order(&named)).unwrap_or_else(|at| at);
                self.names.insert(at, named);
            }
        } else {
            self.names.reserve_exact(new.len());
            self.names.append(&mut new);
            // Two runs in order: merging them is all that there is to do.
            self.names.sort_by(Named::order);
        }
    }

    /// Drops the names at these positions, and tells them.
    fn drop_at(&mut self, mut positions: Vec<usize>, lost: &mut Vec<Arc<str>>) {
        if positions.is_empty() {
            return;
        }
        positions.sort_unstable();
        positions.dedup();
        lost.extend(positions.iter().map(|at| Arc::clone(&self.names[*at].name)));
        let (mut at, mut next) = (0, positions.into_iter().peekable());
        self.names.retain(|_| {
            let goes = next.next_if_eq(&at).is_some();
            at += 1;
            !goes
        });
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        if self.names.is_empty() {
            return Err(0);
        }
        let hash = hash(name);
        self.names.binary_search_by(|it| it.hash.cmp(&hash).then_with(|| (*it.name).cmp(name)))
    }

    /// Whether a resource of this name is wanted.
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names_it(name)
    }

    /// Whether it is wanted by its name, so that its absence must be told.
    pub(crate) fn names_it(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    /// The names that are wanted beyond the wildcard, in no order that matters.
    pub(crate) fn names(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.names.iter().map(|it| &it.name)
    }

    /// The number of the first response that can have carried this name, which is wanted.
    pub(crate) fn since(&self, name: &str) -> u64 {
        let everything = self.wildcard.then_some(self.wildcard_since);
        let named = self.position(name).ok().map(|at| self.names[at].since);
        everything.into_iter().chain(named).min().unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().copied().map(str::to_owned).collect()
    }

    /// What is owed: everything or not, and the names.
    type Told = (bool, Vec<String>);

    fn told(owed: &Owed) -> Told {
        let mut names: Vec<_> = owed.names.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        (owed.everything, names)
    }

    fn delta(subscription: &mut Subscription, subscribe: &[&str], unsubscribe: &[&str], context: Context) -> Told {
        let (subscribe, unsubscribe) = (strings(subscribe), strings(unsubscribe));
        let asked = Asked::Delta { subscribe: &subscribe, unsubscribe: &unsubscribe };
        told(&subscription.apply(asked, context, |name| Arc::from(name)))
    }

    fn first(subscription: &mut Subscription, subscribe: &[&str], unsubscribe: &[&str], legacy_wildcard: bool) -> Told {
        delta(subscription, subscribe, unsubscribe, Context { first: true, legacy_wildcard, next_response: 1 })
    }

    fn later(subscription: &mut Subscription, subscribe: &[&str], unsubscribe: &[&str]) -> Told {
        delta(subscription, subscribe, unsubscribe, Context { first: false, legacy_wildcard: true, next_response: 1 })
    }

    fn sotw(subscription: &mut Subscription, names: &[&str], legacy_wildcard: bool) -> Owed {
        let names = strings(names);
        let context = Context { first: false, legacy_wildcard, next_response: 1 };
        subscription.apply(Asked::Sotw(&names), context, |name| Arc::from(name))
    }

    fn names(names: &[&str]) -> Told {
        (false, strings(names))
    }

    #[test]
    fn the_worked_example_of_the_specification() {
        let mut subscription = Subscription::default();
        assert!(first(&mut subscription, &[], &[], true).0);
        assert!(subscription.covers("anything"));

        assert_eq!(later(&mut subscription, &["A"], &[]), names(&["A"]));
        assert!(subscription.covers("anything"));

        later(&mut subscription, &[], &["*"]);
        assert!(subscription.covers("A"));
        assert!(!subscription.covers("anything"));

        assert_eq!(later(&mut subscription, &[], &["A"]), Told::default());
        assert!(subscription.is_empty());
        assert_eq!(later(&mut subscription, &[], &[]), Told::default());
        assert!(subscription.is_empty());
    }

    #[test]
    fn legacy_wildcard_needs_a_type_that_has_one() {
        let mut subscription = Subscription::default();
        assert_eq!(first(&mut subscription, &[], &[], false), Told::default());
        assert!(subscription.is_empty());
    }

    #[test]
    fn explicit_wildcard_works_for_every_type() {
        let mut subscription = Subscription::default();
        assert!(first(&mut subscription, &["*"], &[], false).0);
        assert!(subscription.is_wildcard());
    }

    #[test]
    fn a_name_first_means_no_legacy_wildcard_later() {
        let mut subscription = Subscription::default();
        first(&mut subscription, &["A"], &[], true);
        later(&mut subscription, &[], &["A"]);
        assert_eq!(later(&mut subscription, &[], &[]), Told::default());
        assert!(!subscription.is_wildcard());
    }

    #[test]
    fn resubscription_is_owed_again() {
        let mut subscription = Subscription::default();
        first(&mut subscription, &["A"], &[], false);
        assert_eq!(later(&mut subscription, &["A"], &[]), names(&["A"]));
    }

    #[test]
    fn unsubscribing_a_name_under_the_wildcard_is_owed_an_answer() {
        let mut subscription = Subscription::default();
        first(&mut subscription, &["*", "A"], &[], true);
        assert_eq!(later(&mut subscription, &[], &["A"]), names(&["A"]));
    }

    #[test]
    fn phantom_unsubscriptions_and_empty_names_are_ignored() {
        let mut subscription = Subscription::default();
        assert_eq!(first(&mut subscription, &[""], &["B"], true), Told::default());
        assert!(subscription.is_empty());
        first(&mut subscription, &["*"], &[], false);
        assert_eq!(later(&mut subscription, &[], &["B"]), Told::default());
    }

    #[test]
    fn wildcard_in_both_lists_means_nothing() {
        let mut subscription = Subscription::default();
        assert_eq!(first(&mut subscription, &["*"], &["*"], true), Told::default());
        assert!(subscription.is_empty());
    }

    #[test]
    fn a_list_is_all_that_is_wanted() {
        let mut subscription = Subscription::default();
        assert_eq!(told(&sotw(&mut subscription, &["B", "A", "A", ""], true)), names(&["A", "B"]));
        assert_eq!(sotw(&mut subscription, &["B", "A"], true), Owed::default());
        let owed = sotw(&mut subscription, &["C", "B"], true);
        assert_eq!((owed.names, owed.lost), (vec![Arc::from("C")], vec![Arc::from("A")]));
        assert_eq!(told(&sotw(&mut subscription, &["A", "B", "C"], true)), names(&["A"]));
    }

    #[test]
    fn no_names_mean_everything_until_a_name_was_named() {
        let mut subscription = Subscription::default();
        assert_eq!(told(&sotw(&mut subscription, &[], true)), (true, vec![]));
        assert_eq!(told(&sotw(&mut subscription, &[], true)), (false, vec![]));
        assert!(subscription.is_wildcard());
        assert_eq!(told(&sotw(&mut subscription, &["*", "A"], true)), names(&["A"]));
        assert_eq!(told(&sotw(&mut subscription, &["A"], true)), names(&[]));
        assert!(!subscription.is_wildcard());
        sotw(&mut subscription, &[], true);
        assert!(subscription.is_empty());
        assert_eq!(told(&sotw(&mut subscription, &["A"], true)), names(&["A"]));
    }

    #[test]
    fn what_is_wanted_is_known_since_when() {
        let mut subscription = Subscription::default();
        let mut ask = |names: &[&str], next_response| {
            let context = Context { first: next_response == 1, legacy_wildcard: true, next_response };
            subscription.apply(Asked::Sotw(&strings(names)), context, |name| Arc::from(name));
            ["a", "b"].map(|name| subscription.covers(name).then(|| subscription.since(name)))
        };
        assert_eq!(ask(&[], 1), [Some(1), Some(1)]);
        assert_eq!(ask(&["*", "a"], 2), [Some(1), Some(1)]);
        assert_eq!(ask(&["a", "b"], 3), [Some(1), Some(1)], "it was wanted with everything");
        assert_eq!(ask(&["a"], 4), [Some(1), None]);
        assert_eq!(ask(&["a", "b"], 5), [Some(1), Some(5)]);
        assert_eq!(ask(&["*"], 6), [Some(6), Some(6)]);

        let mut subscription = Subscription::default();
        delta(&mut subscription, &["*"], &[], Context { first: true, legacy_wildcard: true, next_response: 1 });
        delta(&mut subscription, &["*"], &[], Context { first: false, legacy_wildcard: true, next_response: 2 });
        assert_eq!(subscription.since("a"), 2, "to ask again is to have nothing");
    }

    #[test]
    fn many_names_and_few_are_kept_alike() {
        let all: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        let (mut many, mut few) = (Subscription::default(), Subscription::default());
        let context = Context { first: false, legacy_wildcard: false, next_response: 1 };
        many.apply(Asked::Delta { subscribe: &all[..50], unsubscribe: &[] }, context, |name| Arc::from(name));
        many.apply(Asked::Delta { subscribe: &all[25..], unsubscribe: &all[90..] }, context, |name| Arc::from(name));
        for name in all[..90].iter().rev() {
            few.apply(Asked::Delta { subscribe: std::slice::from_ref(name), unsubscribe: &[] }, context, |name| {
                Arc::from(name)
            });
        }
        assert!(many.names().eq(few.names()));
        assert_eq!(many.names().len(), 90);
    }
}
