//! What one stream is subscribed to, for one type, and how a delta request changes it. Pure; each branch quotes the
//! rule of the xDS protocol that it keeps. What is to be sent for it is the business of the session.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The name that stands for everything.
const WILDCARD: &str = "*";

/// The names a stream wants, and whether it wants everything.
#[derive(Debug, Default)]
pub(crate) struct Subscription {
    wildcard: bool,
    /// Each name with the number of the first response that can have carried it.
    names: BTreeMap<Arc<str>, u64>,
}

/// The names of one delta request.
#[derive(Debug, Default)]
pub(crate) struct Change<'a> {
    pub(crate) subscribe: &'a [String],
    pub(crate) unsubscribe: &'a [String],
    /// The stream's first request for this type, and the type has a legacy wildcard.
    pub(crate) legacy_wildcard_possible: bool,
    /// The number that the next response will bear.
    pub(crate) next_response: u64,
}

/// What a request obliges the server to answer, whether or not it believes that the client has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Owed {
    /// Everything was asked for.
    pub(crate) everything: bool,
    pub(crate) names: Vec<Arc<str>>,
}

impl Subscription {
    /// Applies a request. Subscriptions come before unsubscriptions: a client that names `*` in both says "nothing".
    pub(crate) fn apply(&mut self, change: &Change<'_>, intern: impl Fn(&str) -> Arc<str>) -> Owed {
        let mut owed = Owed::default();

        // "(legacy behavior) the request must have no resources in both resource_names_subscribe and
        // resource_names_unsubscribe" - "the server should treat that identically to how it would treat the client
        // having explicitly subscribed to '*'".
        if change.legacy_wildcard_possible && change.subscribe.is_empty() && change.unsubscribe.is_empty() {
            self.wildcard = true;
            owed.everything = true;
        }

        for name in change.subscribe {
            match name.as_str() {
                // A name that no resource has, sent by some clients for "no names".
                "" => {}
                WILDCARD => {
                    self.wildcard = true;
                    owed.everything = true;
                }
                // "may contain resource names that the server believes the client is already subscribed to [...].
                // However, the server must still provide those resources in the response".
                name => {
                    let name = intern(name);
                    self.names.insert(Arc::clone(&name), change.next_response);
                    owed.names.push(name);
                }
            }
        }

        for name in change.unsubscribe {
            if name == WILDCARD {
                // "Server interprets this as unsubscribing to '*' and continuing the existing subscription to 'A'."
                self.wildcard = false;
                owed.everything = false;
                continue;
            }
            // "may contain superfluous resource names [...]; it can simply ignore these phantom unsubscriptions."
            let Some((name, _)) = self.names.remove_entry(name.as_str()) else { continue };
            owed.names.retain(|other| *other != name);
            // "When a client has a wildcard subscription ('*') and a subscription to another specific resource name
            // [...] the server must send a response that includes the specific resource in either the removed_resources
            // field (if it is not included in the wildcard) or in the resources field (if it is included in the
            // wildcard)."
            if self.wildcard {
                owed.names.push(name);
            }
        }
        owed
    }

    /// Whether a resource of this name is wanted.
    pub(crate) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains_key(name)
    }

    /// Whether it is wanted by its name, so that its absence must be told.
    pub(crate) fn names_it(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub(crate) fn is_wildcard(&self) -> bool {
        self.wildcard
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    /// How many names are wanted, beyond the wildcard.
    pub(crate) fn names(&self) -> usize {
        self.names.len()
    }

    /// The number of the first response that can have carried this name.
    pub(crate) fn since(&self, name: &str) -> u64 {
        if self.wildcard { 0 } else { self.names.get(name).copied().unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().copied().map(str::to_owned).collect()
    }

    fn first(subscription: &mut Subscription, subscribe: &[&str], unsubscribe: &[&str], legacy: bool) -> Owed {
        let (subscribe, unsubscribe) = (strings(subscribe), strings(unsubscribe));
        let change = Change {
            subscribe: &subscribe,
            unsubscribe: &unsubscribe,
            legacy_wildcard_possible: legacy,
            next_response: 1,
        };
        subscription.apply(&change, |name| Arc::from(name))
    }

    fn later(subscription: &mut Subscription, subscribe: &[&str], unsubscribe: &[&str]) -> Owed {
        first(subscription, subscribe, unsubscribe, false)
    }

    fn names(names: &[&str]) -> Owed {
        Owed { everything: false, names: names.iter().copied().map(Arc::from).collect() }
    }

    #[test]
    fn the_worked_example_of_the_specification() {
        let mut subscription = Subscription::default();
        assert!(first(&mut subscription, &[], &[], true).everything);
        assert!(subscription.covers("anything"));

        assert_eq!(later(&mut subscription, &["A"], &[]), names(&["A"]));
        assert!(subscription.covers("anything"));

        later(&mut subscription, &[], &["*"]);
        assert!(subscription.covers("A"));
        assert!(!subscription.covers("anything"));

        assert_eq!(later(&mut subscription, &[], &["A"]), Owed::default());
        assert!(subscription.is_empty());
        assert_eq!(later(&mut subscription, &[], &[]), Owed::default());
        assert!(subscription.is_empty());
    }

    #[test]
    fn legacy_wildcard_needs_a_type_that_has_one() {
        let mut subscription = Subscription::default();
        assert_eq!(first(&mut subscription, &[], &[], false), Owed::default());
        assert!(subscription.is_empty());
    }

    #[test]
    fn explicit_wildcard_works_for_every_type() {
        let mut subscription = Subscription::default();
        assert!(first(&mut subscription, &["*"], &[], false).everything);
        assert!(subscription.is_wildcard());
    }

    #[test]
    fn a_name_first_means_no_legacy_wildcard_later() {
        let mut subscription = Subscription::default();
        first(&mut subscription, &["A"], &[], true);
        later(&mut subscription, &[], &["A"]);
        assert_eq!(later(&mut subscription, &[], &[]), Owed::default());
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
        assert_eq!(first(&mut subscription, &[""], &["B"], true), Owed::default());
        assert!(subscription.is_empty());
        first(&mut subscription, &["*"], &[], false);
        assert_eq!(later(&mut subscription, &[], &["B"]), Owed::default());
    }

    #[test]
    fn wildcard_in_both_lists_means_nothing() {
        let mut subscription = Subscription::default();
        assert_eq!(first(&mut subscription, &["*"], &["*"], true), Owed::default());
        assert!(subscription.is_empty());
    }
}
