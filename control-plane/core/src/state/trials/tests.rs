use tidegate_filter_core::ServiceReport;

use super::*;
use crate::config::canary::Breaker;
use crate::rollout::{Command, Hold};
use crate::testing::{World, config, service, shop};

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

fn canary(name: &str, weight: u32) -> Arc<Canary> {
    Arc::new(Canary { breaker: Some(Breaker::default()), ..Canary::at(version(name), weight) })
}

fn file(stable: &str, canary: Option<Arc<Canary>>) -> ServiceConfig {
    ServiceConfig { stable: Some(version(stable)), canary, ..ServiceConfig::default() }
}

/// What `shop` gets, both of whose versions have a ready instance.
fn lead(trials: &mut Trials, file: Option<&ServiceConfig>, labelled: Option<u32>) -> Option<Share> {
    let ready = Census { instances: 1, ready: 1 };
    let census = ["v1", "v2", "v3"].map(|name| (version(name), ready)).into();
    let labelled = labelled.map(|weight| (version("v1"), canary("v2", weight)));
    let declared = trials.lead(&service("shop"), file, labelled, Some(&census), NOW);
    declared.canary.map(|(_, share)| share)
}

fn weight(trials: &mut Trials, file: Option<&ServiceConfig>) -> u32 {
    lead(trials, file, None).map_or(0, |share| share.weight)
}

fn order(trials: &mut Trials, order: Order) -> Result<(), OrderError> {
    let versions = ["v1", "v2", "v3"].map(version);
    trials.order(&service("shop"), order, "ann", None, versions.iter(), NOW)
}

#[test]
fn a_share_grows_only_once_that_is_on_disk_and_shrinks_at_once() {
    let mut trials = Trials::restored(Rollouts::default(), Duration::ZERO, NOW);
    let declared = file("v1", Some(canary("v2", 1_000)));
    assert_eq!(weight(&mut trials, Some(&declared)), 0);
    assert_eq!(trials.kept(0), [], "that is not what it waits for");
    assert_eq!(weight(&mut trials, Some(&declared)), 0);
    let revision = trials.revision();
    assert_eq!(trials.kept(revision), [service("shop")]);
    assert_eq!(weight(&mut trials, Some(&declared)), 1_000);

    order(&mut trials, Order::Lead(Command::Set(5_000))).unwrap();
    assert_eq!(weight(&mut trials, Some(&declared)), 1_000);
    order(&mut trials, Order::Lead(Command::Abort)).unwrap();
    assert_eq!(weight(&mut trials, Some(&declared)), 0);
    trials.kept(trials.revision());
    assert_eq!(weight(&mut trials, Some(&declared)), 0, "what was to come before is over");
}

#[test]
fn a_restart_gives_what_was_given_before_anything_else_is_decided() {
    let mut trials = Trials::default();
    let declared = file("v1", Some(canary("v2", 1_000)));
    assert_eq!(weight(&mut trials, Some(&declared)), 1_000);
    let mut again = Trials::restored(trials.rollouts().clone(), Duration::ZERO, NOW);
    assert_eq!(weight(&mut again, Some(&declared)), 1_000);
    // The file was changed meanwhile: the share does not fall in between.
    let mut again = Trials::restored(trials.rollouts().clone(), Duration::ZERO, NOW);
    let other = file("v1", Some(canary("v2", 3_000)));
    assert_eq!(weight(&mut again, Some(&other)), 1_000);
    again.kept(again.revision());
    assert_eq!(weight(&mut again, Some(&other)), 3_000);
}

#[test]
fn what_was_lost_stands_still_at_what_edges_have() {
    let mut trials = Trials::lost(BTreeMap::from([("tg.shop.shop/v2+spill".to_owned(), 2_500)]));
    assert_eq!(weight(&mut trials, Some(&file("v1", Some(canary("v2", 1_000))))), 2_500);
    let (_, record) = trials.get(&service("shop")).unwrap();
    assert!(matches!(record.rollout.phase(), Phase::Paused { .. }));
}

#[test]
fn a_rollout_that_begins_after_the_start_was_not_lost() {
    let mut world = World::with(
        config("services: { shop: { stable: { version: v1 } } }"),
        &[shop("a", 2, "v1"), shop("b", 3, "v2")],
    );
    world.state = world.state.rolling(Trials::lost(BTreeMap::new()));
    world.settle();
    assert!(world.state.is_synced());
    world.configure("services: { shop: { stable: { version: v1 }, canary: { version: v2, weight: 10 } } }");
    world.settle();
    let (plan, record) = world.state.trials().get(&service("shop")).unwrap();
    assert_eq!(record.rollout.share(plan).weight, 1_000);
    assert!(matches!(record.rollout.phase(), Phase::Paused { by: Hold::Promotion, .. }));
}

#[test]
fn the_files_word_holds_before_an_operators_and_that_before_a_labels() {
    let mut trials = Trials::default();
    assert_eq!(lead(&mut trials, None, Some(500)).unwrap().weight, 500);
    let start = || Order::Start { stable: Some(version("v1")), canary: canary("v3", 700) };
    let under_way = order(&mut trials, start()).unwrap_err();
    assert!(matches!(&under_way, OrderError::UnderWay { by: "label", .. }), "{under_way}");
    lead(&mut trials, None, None);
    order(&mut trials, start()).unwrap();
    assert_eq!(lead(&mut trials, None, Some(500)).unwrap().weight, 700);
    let (_, record) = trials.get(&service("shop")).unwrap();
    assert_eq!(record.history.iter().filter(|event| event.by == "operator ann").count(), 1, "{:?}", record.history);
    let declared = file("v1", Some(canary("v2", 900)));
    assert_eq!(lead(&mut trials, Some(&declared), Some(500)).unwrap().weight, 900);
    // What an operator began is over then, and does not come back.
    assert_eq!(lead(&mut trials, Some(&file("v1", None)), None), None);
}

#[test]
fn what_nobody_declares_any_more_gets_nothing_and_begins_anew_when_somebody_does() {
    let mut trials = Trials::default();
    let declared = file("v1", Some(canary("v2", 1_000)));
    assert_eq!(weight(&mut trials, Some(&declared)), 1_000);
    assert_eq!(lead(&mut trials, Some(&file("v1", None)), None), None);
    let last = |trials: &Trials| trials.rollouts().get(&service("shop")).unwrap().history.back().cloned().unwrap();
    assert_eq!((last(&trials).what.as_str(), last(&trials).to), ("aborted", 0));
    assert_eq!(weight(&mut trials, Some(&declared)), 1_000);
    assert_eq!(trials.get(&service("shop")).unwrap().1.rollout.attempt(), 2);
}

#[test]
fn an_order_to_begin_says_what_is_missing() {
    let mut trials = Trials::default();
    let start =
        |stable: Option<&str>, name: &str| Order::Start { stable: stable.map(version), canary: canary(name, 1) };
    for (begin, reason) in [
        (start(None, "v2"), "which version of `shop` is the stable one is not clear: there are v1, v2, v3"),
        (start(Some("v2"), "v2"), "v2 is the stable version of `shop` itself"),
        (start(Some("v1"), "v9"), "the service `shop` has no version v9: there are v1, v2, v3"),
        (start(Some("v8"), "v2"), "the service `shop` has no version v8: there are v1, v2, v3"),
        (Order::Lead(Command::Pause), "the service `shop` has no canary"),
    ] {
        let error = order(&mut trials, begin).unwrap_err();
        assert_eq!(error.to_string(), reason);
        assert!(!error.cure().is_empty());
    }
}

#[test]
fn an_open_breaker_of_this_trial_ends_it_and_one_of_another_is_nothing() {
    let mut trials = Trials::default();
    let declared = file("v1", Some(canary("v2", 1_000)));
    let epoch = lead(&mut trials, Some(&declared), None).unwrap().epoch;
    let report = |epoch: &str| {
        let trip = Some(Trip { epoch: epoch.to_owned(), failures: 7, answers: 9, ..Trip::default() });
        let services = [("shop".to_owned(), ServiceReport { trip, ..ServiceReport::default() })].into();
        Report { node: "edge-1".to_owned(), services }
    };
    trials.told(&report("another"), NOW);
    assert_eq!(weight(&mut trials, Some(&declared)), 1_000);
    assert_eq!(trials.told(&report(&epoch), NOW), [service("shop")]);
    assert_eq!(weight(&mut trials, Some(&declared)), 0);
    assert_eq!(trials.trips(&service("shop")).map(|(edge, _)| edge).collect::<Vec<_>>(), ["edge-1"]);
    order(&mut trials, Order::Lead(Command::Retry)).unwrap();
    assert_eq!(weight(&mut trials, Some(&declared)), 1_000);
    assert_eq!(trials.trips(&service("shop")).count(), 0, "it is another trial");
}
