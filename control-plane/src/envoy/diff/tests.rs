use super::*;
use crate::envoy::dump::tests::{DELTA, SOTW, recorded};

fn published(kind: ResourceType, name: &str, version: &str, content: Content) -> Published {
    Published { kind, name: name.into(), version: version.to_owned(), content, refusal: None, subscribed: None }
}

fn hosts(hosts: &[(&str, &'static str)]) -> Content {
    Content::Hosts(hosts.iter().map(|(address, health)| ((*address).to_owned(), *health)).collect())
}

fn values(values: &[(&str, f64)]) -> Content {
    Content::Values(values.iter().map(|(key, value)| ((*key).to_owned(), Some(*value))).collect())
}

/// What the recording's control plane had published, but for the listener that was refused.
fn all_of_delta() -> Vec<Published> {
    use ResourceType::{Cluster, Endpoint, ExtensionConfig, Listener, Route, Runtime};
    vec![
        published(Cluster, "shop/v1", "93527a9ab59ed98a", Content::Version),
        published(Cluster, "shop/v2", "0064135ed1501c90", Content::Version),
        published(Cluster, "shop/v2+spill", "34e9cd925f07edb2", Content::Version),
        published(Endpoint, "shop/v1", "1", hosts(&[("172.17.0.2:8080", "HEALTHY")])),
        published(Endpoint, "shop/v2", "2", hosts(&[("172.17.0.3:8080", "HEALTHY")])),
        published(Listener, "web", "845f9c14141978de", Content::Version),
        published(Listener, "taken", "6da7aa132e4e2f3b", Content::Version),
        published(Route, "web", "fe267ac7c7b0e59b", Content::Version),
        published(Route, "taken", "ae8bc8612716582f", Content::Version),
        published(ExtensionConfig, "tidegate", "5af7849ba1805bb7", Content::Version),
        published(Runtime, "tidegate", "3", values(&[("tg.shop.shop/v1", 9000.0), ("tg.shop.shop/v2+spill", 1000.0)])),
    ]
}

/// What differs of `published` from the recording.
fn differing(published: &[Published], recording: &str) -> Vec<(String, String, DiffState)> {
    let diffs = compare(published, &recorded(recording)).into_iter();
    diffs.filter(|diff| diff.state != DiffState::Same).map(|diff| (diff.kind, diff.name, diff.state)).collect()
}

fn one(published: &[Published], recording: &str, kind: &str, name: &str) -> ResourceDiff {
    let diffs = compare(published, &recorded(recording)).into_iter();
    diffs.into_iter().find(|diff| diff.kind == kind && diff.name == name).unwrap()
}

fn listed(kind: &str, name: &str, state: DiffState) -> (String, String, DiffState) {
    (kind.to_owned(), name.to_owned(), state)
}

#[test]
fn what_envoy_works_with_is_the_same_whatever_it_refused_before() {
    assert_eq!(differing(&all_of_delta(), DELTA), []);
    assert_eq!(compare(&all_of_delta(), &recorded(DELTA)).len(), 11);
}

#[test]
fn each_difference_has_its_name() {
    let mut ours = all_of_delta();
    ours.retain(|of| of.kind != ResourceType::Route || &*of.name != "taken");
    ours[1].version = "ffffffffffffffff".to_owned();
    ours.push(published(ResourceType::Cluster, "late/v1", "1", Content::Version));
    ours.push(Published { subscribed: Some(false), ..published(ResourceType::Route, "idle", "1", Content::Version) });
    assert_eq!(
        differing(&ours, DELTA),
        [
            listed("CDS", "late/v1", DiffState::Missing),
            listed("CDS", "shop/v2", DiffState::OtherVersion),
            listed("RDS", "idle", DiffState::Unwanted),
            listed("RDS", "taken", DiffState::Extra),
        ]
    );
    let other = one(&ours, DELTA, "CDS", "shop/v2");
    assert_eq!(
        (other.intended.as_deref(), other.envoy.as_deref()),
        (Some("ffffffffffffffff"), Some("0064135ed1501c90"))
    );
}

#[test]
fn a_refusal_is_told_in_envoys_words_from_both_sides() {
    let mut ours = all_of_delta();
    ours[6].version = "6336208a8cb93344".to_owned();
    ours[6].refusal = Some("Error adding/updating listener(s) taken: \u{1b}cannot bind\n".into());
    assert_eq!(differing(&ours, DELTA), [listed("LDS", "taken", DiffState::Refused)]);
    let refused = one(&ours, DELTA, "LDS", "taken");
    assert_eq!(refused.envoy.as_deref(), Some("6da7aa132e4e2f3b"), "what it works with meanwhile");
    assert_eq!(refused.envoy_error.as_deref(), Some("cannot bind '127.0.0.1:28098': Address already in use"));
    assert_eq!(refused.refusal.as_deref(), Some("Error adding/updating listener(s) taken: \\u{1b}cannot bind\n"));
    // A refused cluster is in no dump: the answer over xDS is all there is.
    ours.push(Published {
        refusal: Some("bad".into()),
        ..published(ResourceType::Cluster, "shop/v3", "1", Content::Version)
    });
    assert_eq!(one(&ours, DELTA, "CDS", "shop/v3").state, DiffState::Refused);
}

#[test]
fn endpoints_and_weights_are_compared_by_content() {
    let mut ours = all_of_delta();
    ours[3].content = hosts(&[("172.17.0.2:8080", "DRAINING"), ("172.17.0.9:8080", "HEALTHY")]);
    ours[4].content = hosts(&[]);
    ours[10].content = values(&[("tg.shop.shop/v1", 9500.0), ("tg.shop.new", 1.0)]);
    let detail = |kind, name| one(&ours, DELTA, kind, name).detail.unwrap();
    assert_eq!(detail("EDS", "shop/v1"), "172.17.0.2:8080 is HEALTHY, intended DRAINING; 172.17.0.9:8080 is missing");
    assert_eq!(detail("EDS", "shop/v2"), "172.17.0.3:8080 is extra");
    assert_eq!(
        detail("RTDS", "tidegate"),
        "`tg.shop.new` is missing; `tg.shop.shop/v1` is 9000, intended 9500; `tg.shop.shop/v2+spill` is extra"
    );
    assert!(differing(&ours, DELTA).iter().all(|(_, _, state)| *state == DiffState::OtherContent));
    let many: Vec<String> = (0..9).map(|n| format!("{n}")).collect();
    assert_eq!(some_of(&many), "0; 1; 2; 3; 4; and 4 more");
}

#[test]
fn what_envoy_put_out_itself_is_no_difference_but_is_told() {
    let mut dump = recorded(DELTA);
    dump.hosts.get_mut("shop/v1").unwrap().values_mut().for_each(|host| host.ejected = true);
    let diffs = compare(&all_of_delta(), &dump);
    let told: Vec<_> = diffs.iter().filter_map(|diff| Some((diff.state, diff.detail.as_deref()?))).collect();
    assert_eq!(told, [(DiffState::Same, "172.17.0.2:8080 is put out by Envoy itself")]);
}

#[test]
fn without_versions_of_resources_presence_is_compared_and_that_is_said() {
    use ResourceType::{Cluster, Endpoint, Listener, Route};
    let endpoints = hosts(&[("127.0.0.1:1", "DRAINING"), ("127.0.0.1:2", "HEALTHY"), ("[::1]:1", "UNHEALTHY")]);
    let ours = [
        published(Cluster, "a", "93527a9ab59ed98a", Content::Version),
        published(Cluster, "b", "93527a9ab59ed98a", Content::Version),
        published(Cluster, "warm", "93527a9ab59ed98a", Content::Version),
        published(Endpoint, "a", "1", endpoints),
        published(Endpoint, "b", "1", hosts(&[])),
        published(Endpoint, "warm", "1", hosts(&[("10.0.0.1:1", "HEALTHY")])),
        published(Listener, "web", "93527a9ab59ed98a", Content::Version),
        published(Listener, "bad", "93527a9ab59ed98a", Content::Version),
        published(Route, "web", "93527a9ab59ed98a", Content::Version),
    ];
    assert_eq!(
        differing(&ours, SOTW),
        [
            listed("CDS", "warm", DiffState::Warming),
            listed("EDS", "warm", DiffState::Warming),
            listed("LDS", "bad", DiffState::Refused),
        ]
    );
    let dump = recorded(SOTW);
    let said = notes(&dump, &ResourceType::ALL);
    assert!(said.len() == 1 && said[0].contains("takes CDS, LDS, RDS, ECDS by state-of-the-world"), "{said:?}");
    assert_eq!(notes(&dump, &[Endpoint]), [""; 0], "endpoints are compared by content anyway");
    assert_eq!(notes(&recorded(DELTA), &ResourceType::ALL), [""; 0]);
}
