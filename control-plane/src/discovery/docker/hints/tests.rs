//! Events as Docker writes them.

use serde_json::json;

use super::*;

fn event(action: &str, at: i64, attributes: &serde_json::Value) -> Event {
    let mut all = json!({ "name": "shop", "image": "shop:1", "tidegate.enable": "true" });
    all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "status": action, "id": "abc", "Type": "container", "Action": action,
        "Actor": { "ID": "abc", "Attributes": all }, "scope": "local", "time": at / 1_000_000_000, "timeNano": at
    }))
    .unwrap()
}

fn pending(events: impl IntoIterator<Item = Event>) -> Pending {
    let mut dirty = Dirty::default();
    for event in events {
        dirty.insert(event, Timestamp::from_millis(7));
    }
    dirty.take().remove("abc").unwrap()
}

#[test]
fn many_events_of_one_container_become_one_hint_that_forgets_nothing() {
    let all = pending([
        event("kill", 10, &json!({ "signal": "1" })),
        event("kill", 20, &json!({ "signal": "15" })),
        event("kill", 25, &json!({ "signal": "15" })),
        event("die", 30, &json!({ "exitCode": "143" })),
        event("stop", 31, &json!({})),
    ]);
    assert_eq!(all.signals, BTreeMap::from([(1, 10), (15, 25)]));
    assert_eq!(all.died, Some((30, 143)));
    assert_eq!(all.life, Some((30, Phase::Exited { code: 143, oom: false })));
    assert_eq!(all.hint(), Hint { action: "stop".into(), at: Timestamp::from_millis(7) });
    assert!(all.urgent && !all.destroyed);
    assert_eq!(all.about.unwrap().name, "shop");
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    let start = || event("start", 40, &json!({}));
    let die = || event("die", 30, &json!({ "exitCode": "1" }));
    for events in [[start(), die()], [die(), start()]] {
        let all = pending(events);
        assert_eq!(all.life, Some((40, Phase::Running)));
        assert_eq!(all.died, Some((30, 1)));
    }
}

#[test]
fn duplicates_change_nothing() {
    let once = pending([event("die", 30, &json!({ "exitCode": "1" }))]);
    let often = pending((0..10).map(|_| event("die", 30, &json!({ "exitCode": "1" }))));
    assert_eq!(once, often);
}

#[test]
fn what_was_heard_before_is_not_heard_again() {
    let mut dirty = Dirty::default();
    let hear = |dirty: &mut Dirty, at| dirty.insert(event("start", at, &json!({})), Timestamp::default());
    hear(&mut dirty, 7);
    assert_eq!(dirty.take().len(), 1);
    hear(&mut dirty, 7);
    assert!(dirty.take().is_empty(), "a stream begins with what the last one told");
    hear(&mut dirty, 8);
    assert_eq!(dirty.take().len(), 1);
}

#[test]
fn creation_alone_is_not_urgent() {
    assert!(!pending([event("create", 1, &json!({}))]).urgent);
    assert!(pending([event("create", 1, &json!({})), event("start", 2, &json!({}))]).urgent);
}

#[test]
fn health_is_an_action_with_the_value_in_its_name() {
    let all = pending([event("health_status: healthy", 1, &json!({}))]);
    assert!(all.urgent);
    assert_eq!(all.life, None);
}

#[test]
fn a_network_event_is_about_its_container() {
    let mut dirty = Dirty::default();
    let network = json!({
        "Type": "network", "Action": "disconnect", "timeNano": 9,
        "Actor": { "ID": "net1", "Attributes": { "container": "abc", "name": "bridge", "type": "bridge" } }
    });
    dirty.insert(serde_json::from_value(network).unwrap(), Timestamp::default());
    assert!(dirty.contains("abc"));
    let all = dirty.take().remove("abc").unwrap();
    assert_eq!((all.about, all.urgent), (None, true));
    assert_eq!(dirty.newest(), Some(9), "what was taken still counts");
}

#[test]
fn what_is_no_event_of_a_container_is_passed_over() {
    let mut dirty = Dirty::default();
    for value in [
        json!({}),
        json!({ "Type": "image", "Action": "pull", "Actor": { "ID": "x" } }),
        json!({ "Type": "network", "Action": "create", "Actor": { "ID": "x", "Attributes": null } }),
        json!({ "Type": "container", "Action": "start" }),
    ] {
        dirty.insert(serde_json::from_value(value).unwrap(), Timestamp::default());
    }
    assert!(dirty.take().is_empty());
}

#[test]
fn a_time_without_nanoseconds_is_the_end_of_its_second() {
    let event: Event = serde_json::from_value(json!({ "time": 5 })).unwrap();
    assert_eq!(event.at(), 5_999_999_999);
    let event: Event = serde_json::from_value(json!({ "time": i64::MAX })).unwrap();
    assert_eq!(event.at(), i64::MAX, "a time that no clock shows");
}
