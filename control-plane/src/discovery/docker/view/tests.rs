//! Facts in, updates out.

use std::collections::BTreeMap;

use tidegate_core::instance::DockerHealth;

use super::*;

const SECOND: i64 = 1_000_000_000;

/// `started` is the second at which its run began.
fn inspect(started: u64, phase: Phase) -> Inspected {
    let labels = [("tidegate.enable", "true"), ("tidegate.port", "80")];
    let facts = Container {
        id: "abc".into(),
        name: "shop".into(),
        created: Timestamp::default(),
        started_at: format!("1970-01-01T00:{:02}:{:02}Z", started / 60, started % 60),
        phase,
        health: None,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        tcp_ports: Vec::new(),
        network_mode: "default".into(),
        networks: BTreeMap::from([("bridge".to_owned(), Some("172.17.0.2".parse().unwrap()))]),
        ..Container::default()
    };
    Inspected { facts, stop: Stop::default() }
}

fn hint(action: &str) -> Hint {
    Hint { action: action.into(), at: Timestamp::default() }
}

fn second(second: u64) -> Timestamp {
    Timestamp::from_millis(second * 1000)
}

fn moment(at: u64) -> Moment {
    Moment { now: second(at), engine: i64::try_from(at).unwrap() * SECOND, opened: 0 }
}

fn about(enabled: bool) -> About {
    let attributes = BTreeMap::from([("tidegate.enable".to_owned(), enabled.to_string())]);
    About { name: "shop".into(), attributes }
}

fn event(action: &str, change: impl FnOnce(&mut Pending)) -> Pending {
    let mut pending =
        Pending { action: action.into(), about: Some(about(true)), urgent: action != "create", ..Pending::default() };
    change(&mut pending);
    pending
}

fn kill(signal: u8, at: i64) -> Pending {
    event("kill", |pending| pending.signals = BTreeMap::from([(signal, at * SECOND)]))
}

fn die(at: i64) -> Pending {
    event("die", |pending| pending.died = Some((at * SECOND, 137)))
}

fn upsert(update: Option<Update>) -> Discovered {
    match update {
        Some(Update::Upsert(discovered)) => *discovered,
        other => panic!("no upsert but {other:?}"),
    }
}

/// A view that has seen a run begin at second 10.
fn view() -> View {
    let mut view = View::new(Placement::default());
    let looked = view.look(inspect(10, Phase::Running), hint("start"), second(10));
    assert_eq!(upsert(looked.update).instances.len(), 1);
    view
}

#[test]
fn equal_facts_are_told_once() {
    let mut view = view();
    let looked = view.look(inspect(10, Phase::Running), hint("start"), second(11));
    assert_eq!(looked, Looked { update: None, again: None });
}

#[test]
fn a_stop_signal_drains_at_once_and_until_the_stop_timeout_and_a_bit() {
    let mut view = view();
    let heard = view.hear("abc", &kill(15, 20), moment(20));
    assert_eq!(heard.look, Look::Now);
    let told = upsert(heard.update);
    assert_eq!((told.terminating, told.instances.len()), (Some(second(32)), 1));
    let looked = view.look(inspect(10, Phase::Running), hint("kill"), second(21));
    assert_eq!(looked.update, None, "a look that sees it running undoes nothing");
    assert_eq!(view.hear("abc", &kill(15, 20), moment(22)).update, None, "nor does the same event again");
    assert_eq!(view.next_deadline(), Some(second(32)));
    assert!(view.overdue(second(31)).is_empty());
    assert_eq!(view.overdue(second(32)), ["abc"]);
    assert_eq!((view.next_deadline(), view.overdue(second(33)).len()), (None, 0), "it is noticed once");
    let looked = view.look(inspect(10, Phase::Running), hint("timeout"), second(32));
    assert_eq!(upsert(looked.update).terminating, None);
}

#[test]
fn only_signals_that_stop_it_drain_it() {
    for (number, drains) in [(1, false), (9, true), (10, true), (15, true), (28, false)] {
        let mut view = View::new(Placement::default());
        let stop = Stop { signal: 10, ..Stop::default() };
        view.look(Inspected { stop, ..inspect(10, Phase::Running) }, hint("start"), second(10));
        let update = view.hear("abc", &kill(number, 20), moment(20)).update;
        assert_eq!(update.is_some(), drains, "signal {number}");
    }
}

#[test]
fn a_signal_before_the_first_look_is_remembered() {
    let mut view = View::new(Placement::default());
    let heard = view.hear("abc", &kill(15, 12), moment(12));
    assert_eq!(heard, Heard { update: None, look: Look::Now });
    let looked = view.look(inspect(10, Phase::Running), hint("kill"), second(12));
    assert_eq!(upsert(looked.update).terminating, Some(second(24)));
}

#[test]
fn being_stopped_survives_a_full_list_and_ends_with_the_run() {
    let mut view = view();
    view.hear("abc", &kill(15, 20), moment(20));
    let listed = inspect(10, Phase::Running).facts;
    assert_eq!(view.list_all(vec![listed], &hint("list"), second(22)), ["abc"]);
    view.look(inspect(10, Phase::Running), hint("list"), second(22));
    let Update::Reset(all) = view.reset() else { panic!("no reset") };
    assert_eq!(all[0].terminating, Some(second(32)));
    let looked = view.look(inspect(23, Phase::Running), hint("start"), second(23));
    assert_eq!(upsert(looked.update).terminating, None, "the next run was not told to stop");
}

#[test]
fn a_replayed_signal_counts_from_when_it_was_sent() {
    let mut view = view();
    assert_eq!(upsert(view.hear("abc", &kill(15, 20), moment(25)).update).terminating, Some(second(32)));
    let mut late = self::view();
    assert_eq!(late.hear("abc", &kill(15, 20), moment(40)).update, None);
}

#[test]
fn the_end_of_a_run_is_told_without_a_look_and_for_that_run_only() {
    let mut view = view();
    let told = upsert(view.hear("abc", &die(20), moment(20)).update);
    assert_eq!((told.phase, told.instances.len()), (Phase::Exited { code: 137, oom: false }, 0));
    let stale = view.look(inspect(10, Phase::Running), hint("die"), second(21));
    assert_eq!(stale, Looked { update: None, again: Some(Again::Stale) });
    let next = upsert(view.look(inspect(22, Phase::Running), hint("start"), second(22)).update);
    assert_eq!(next.instances[0].id.started_at, "1970-01-01T00:00:22Z");
    assert_eq!(view.hear("abc", &die(20), moment(23)).update, None, "the old run's end, again");
    let never = view.look(inspect(10, Phase::Running), hint("x"), second(99));
    assert_eq!(never.update.map(|_| ()), Some(()), "the fate of a run before the known one is forgotten");
}

#[test]
fn the_run_that_ended_never_comes_back() {
    let mut view = view();
    view.hear("abc", &die(20), moment(20));
    for at in [21, 30, 300] {
        let again = view.look(inspect(10, Phase::Running), hint("again"), second(at)).again;
        assert_eq!(again, Some(Again::Stale), "at {at}");
    }
}

#[test]
fn a_run_that_only_seems_older_than_an_end_is_believed_after_a_while() {
    let mut view = View::new(Placement::default());
    view.hear("abc", &die(20), moment(20));
    assert_eq!(view.look(inspect(15, Phase::Running), hint("x"), second(21)).again, Some(Again::Stale));
    // The engine's clock was set back.
    assert!(view.look(inspect(15, Phase::Running), hint("x"), second(26)).update.is_some());
}

#[test]
fn a_pause_is_told_at_once_unless_it_is_a_replay() {
    let pause = event("pause", |pending| pending.life = Some((20 * SECOND, Phase::Paused)));
    assert_eq!(upsert(view().hear("abc", &pause, moment(20)).update).phase, Phase::Paused);
    let replay = Moment { opened: 21 * SECOND, ..moment(22) };
    assert_eq!(view().hear("abc", &pause, replay), Heard { update: None, look: Look::Now });
}

#[test]
fn a_removal_removes_and_nothing_brings_it_back() {
    let mut view = view();
    let destroy = event("destroy", |pending| pending.destroyed = true);
    assert_eq!(view.hear("abc", &destroy, moment(20)).update, Some(Update::Remove("abc".into())));
    assert_eq!(view.hear("abc", &destroy, moment(20)), Heard { update: None, look: Look::No });
}

#[test]
fn networks_of_what_does_not_run_are_not_looked_at() {
    let network = Pending { action: "connect".into(), urgent: true, ..Pending::default() };
    let mut view = view();
    assert_eq!(view.hear("abc", &network, moment(20)).look, Look::Now);
    assert_eq!(view.hear("stranger", &network, moment(20)).look, Look::No);
    view.hear("abc", &die(21), moment(21));
    assert_eq!(view.hear("abc", &network, moment(22)).look, Look::No);
}

#[test]
fn a_container_that_is_not_enabled_is_told_of_and_never_looked_at() {
    let mut view = View::new(Placement::default());
    let start = |at: i64, phase: Phase| {
        event("start", |pending| {
            pending.about = Some(about(false));
            pending.life = Some((at, phase));
        })
    };
    let heard = view.hear("abc", &start(1, Phase::Running), moment(1));
    assert_eq!(heard.look, Look::No);
    let told = upsert(heard.update);
    assert_eq!((told.enabled, told.phase, told.name.as_str()), (false, Phase::Running, "shop"));
    let ended = view.hear("abc", &start(2, Phase::Exited { code: 0, oom: false }), moment(2));
    assert_eq!(upsert(ended.update).phase, Phase::Exited { code: 0, oom: false });
    let mut listed = inspect(10, Phase::Running).facts;
    listed.labels.clear();
    assert!(view.list_all(vec![listed], &hint("list"), second(3)).is_empty());
}

#[test]
fn a_running_container_without_an_address_is_looked_at_again() {
    let mut view = View::new(Placement::default());
    let mut early = inspect(10, Phase::Running);
    early.facts.networks.insert("bridge".into(), None);
    let looked = view.look(early, hint("start"), second(10));
    assert_eq!(looked.again, Some(Again::NoAddress));
    assert!(upsert(looked.update).instances.is_empty());
    let looked = view.look(inspect(10, Phase::Running), hint("start"), second(10));
    assert_eq!((looked.again, upsert(looked.update).instances.len()), (None, 1));
}

fn again(view: &mut View, list: Vec<Container>, asked: u64, heard: &[&str]) -> Listing {
    view.list_again(list, second(asked), |id| heard.contains(&id), &hint("resync"), second(asked + 1))
}

#[test]
fn a_later_list_asks_for_a_look_where_it_differs() {
    let mut view = view();
    let listed = |change: &dyn Fn(&mut Container)| {
        let mut facts = inspect(10, Phase::Running).facts;
        facts.started_at.clear();
        change(&mut facts);
        vec![facts]
    };
    // The same: looked at only for being the one looked at longest ago, and not if that was after the list was asked for.
    assert_eq!(again(&mut view, listed(&|_| {}), 20, &[]).inspect, ["abc"]);
    assert!(again(&mut view, listed(&|_| {}), 9, &[]).inspect.is_empty());
    let changed: &dyn Fn(&mut Container) = &|facts| facts.health = Some(DockerHealth::Unhealthy);
    assert_eq!(again(&mut view, listed(changed), 20, &[]).inspect, ["abc"]);
    assert!(again(&mut view, listed(changed), 9, &[]).inspect.is_empty(), "older than what is known");
    assert!(again(&mut view, listed(changed), 20, &["abc"]).inspect.is_empty(), "news are under way");
}

#[test]
fn what_a_later_list_lacks_is_looked_at_before_it_is_given_up() {
    let mut view = view();
    assert!(again(&mut view, Vec::new(), 9, &[]).inspect.is_empty(), "started after the list was asked for");
    assert_eq!(again(&mut view, Vec::new(), 20, &[]), Listing { updates: Vec::new(), inspect: vec!["abc".into()] });
    assert_eq!(view.gone("abc"), Some(Update::Remove("abc".into())));
}

#[test]
fn what_was_listed_but_could_not_be_looked_at_has_no_instances_and_no_wrong_problems() {
    let mut view = View::new(Placement::default());
    let mut facts = inspect(10, Phase::Running).facts;
    facts.labels.remove("tidegate.port");
    view.list_all(vec![facts], &hint("list"), second(20));
    let Update::Reset(all) = view.reset() else { panic!("no reset") };
    assert!(all[0].enabled && all[0].instances.is_empty() && all[0].problems.is_empty());
}

/// A container with this id, whose network mode is that.
fn on_network(id: &str, mode: &str, ip: &str, enabled: bool) -> Inspected {
    let mut inspected = inspect(1, Phase::Running);
    inspected.facts.id = id.into();
    inspected.facts.name = id.into();
    inspected.facts.network_mode = mode.into();
    inspected.facts.networks = match ip {
        "" => BTreeMap::new(),
        ip => BTreeMap::from([("bridge".to_owned(), Some(ip.parse().unwrap()))]),
    };
    inspected.facts.labels.insert("tidegate.enable".to_owned(), enabled.to_string());
    inspected
}

/// The addresses in the consequences of the news so far.
fn followed(view: &mut View) -> Vec<Vec<String>> {
    let addresses = |update: Update| match update {
        Update::Upsert(discovered) => discovered.instances.iter().map(|i| i.id.address.to_string()).collect(),
        other => panic!("{other:?}"),
    };
    view.consequences().updates.into_iter().map(addresses).collect()
}

#[test]
fn who_is_on_anothers_network_follows_it() {
    let mut view = View::new(Placement::default());
    // What is on nobody's network and not enabled is looked at only for the sake of those on its network.
    let looked = view.look(on_network("app", "container:vpn", "", true), hint("start"), second(2));
    let Some(Update::Upsert(app)) = looked.update else { panic!("{looked:?}") };
    assert!(app.instances.is_empty() && app.problems[0].reason.contains("network of vpn, which is not known"));
    assert_eq!(view.consequences().inspect, BTreeSet::from(["vpn".to_owned()]));

    view.look(on_network("vpn", "default", "172.17.0.9", false), hint("start"), second(3));
    assert_eq!(followed(&mut view), [["172.17.0.9:80"]]);
    view.look(on_network("vpn", "default", "172.17.0.9", false), hint("rename"), second(4));
    assert_eq!(followed(&mut view), [[""; 0]; 0], "nothing new");

    // It restarts: its events are worth a look although it is not enabled.
    let mut died = die(5);
    died.about = Some(about(false));
    assert_eq!(view.hear("vpn", &died, moment(5)).look, Look::Now);
    assert_eq!(followed(&mut view), [[""; 0]], "it does not run: nobody is reached on its network");
    let mut again = on_network("vpn", "default", "172.17.0.10", false);
    again.facts.started_at = "1970-01-01T00:00:06Z".into();
    view.look(again, hint("start"), second(7));
    assert_eq!(followed(&mut view), [["172.17.0.10:80"]]);

    let gone = event("destroy", |pending| pending.destroyed = true);
    view.hear("vpn", &gone, moment(8));
    assert_eq!(followed(&mut view), [[""; 0]]);
    view.hear("app", &gone, moment(9));
    assert!(view.borrowers.is_empty(), "{:?}", view.borrowers);
}
