//! How requests change what a stream is subscribed to, by the worked examples of the specification and by chance.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::names::NameLists;

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
    told(&subscription.apply(asked, context, |name| Arc::from(name), |_| None))
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
    subscription.apply(Asked::Sotw(&names), context, |name| Arc::from(name), |_| None)
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
    let owed = sotw(&mut subscription, &["B", "A"], true);
    assert!(owed.is_nothing() && owed.gained.is_empty() && owed.lost.is_empty());
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
        subscription.apply(Asked::Sotw(&strings(names)), context, |name| Arc::from(name), |_| None);
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
    let apply = |subscription: &mut Subscription, subscribe, unsubscribe| {
        let asked = Asked::Delta { subscribe, unsubscribe };
        subscription.apply(asked, context, |name| Arc::from(name), |_| None);
    };
    apply(&mut many, &all[..50], &[]);
    apply(&mut many, &all[25..], &all[90..]);
    for name in all[..90].iter().rev() {
        apply(&mut few, std::slice::from_ref(name), &[]);
    }
    assert!(many.names().eq(few.names()));
    assert_eq!(many.len(), 90);
}

/// What a request led to, whatever is shared: everything or not, and the names owed, gained and lost.
fn outcome(owed: Owed) -> (bool, [BTreeSet<Arc<str>>; 3]) {
    let list = || owed.list.iter().flat_map(|list| list.names()).cloned();
    let with_list = |names: Vec<Arc<str>>| names.into_iter().chain(list()).collect();
    (owed.everything, [with_list(owed.names), with_list(owed.gained), owed.lost.into_iter().collect()])
}

/// Some names of ten, in any order; now and then one twice, an empty one, or `*`.
fn some_names() -> impl Strategy<Value = Vec<String>> {
    let number = (0..10_u32).prop_map(|n| n.to_string());
    let name = prop_oneof![30 => number, 1 => Just("*".to_owned()), 1 => Just(String::new())];
    prop::collection::vec(name, 0..12)
}

proptest! {
    #[test]
    fn what_is_shared_with_other_streams_is_as_if_it_were_not(
        is_delta: bool,
        asked in prop::collection::vec((some_names(), some_names()), 1..8),
    ) {
        let lists = NameLists::default();
        let (mut sharing, mut alone) = (Subscription::default(), Subscription::default());
        for (next_response, (names, less)) in (1..).zip(&asked) {
            let first = next_response == 1;
            let less = if first { &[][..] } else { less };
            let asked = if is_delta {
                Asked::Delta { subscribe: names, unsubscribe: less }
            } else {
                Asked::Sotw(names)
            };
            let context = Context { first, legacy_wildcard: true, next_response };
            let intern = |name: &str| Arc::from(name);
            let one = sharing.apply(asked, context, intern, |names| lists.share(names, intern));
            prop_assert_eq!(one.list.is_some() && !sharing.has_parted, one.list.is_some());
            let other = alone.apply(asked, context, intern, |_| None);
            prop_assert_eq!(outcome(one), outcome(other));
            prop_assert_eq!((sharing.is_wildcard(), sharing.len()), (alone.is_wildcard(), alone.len()));
            let all = |subscription: &Subscription| subscription.names().cloned().collect::<BTreeSet<_>>();
            prop_assert_eq!(all(&sharing), all(&alone));
            prop_assert_eq!(sharing.len(), all(&alone).len());
            for name in (0..10).map(|n| n.to_string()) {
                prop_assert_eq!(sharing.covers(&name), alone.covers(&name));
                prop_assert_eq!(sharing.names_it(&name), alone.names_it(&name));
                prop_assert_eq!(sharing.since(&name), alone.since(&name));
            }
        }
    }
}
