//! State of the world: what a list means, and responses that must be whole.

use super::*;

fn sotw(resources: &[(ResourceType, &str, &str)]) -> Bench {
    Bench::speaking(Variant::Sotw, resources)
}

/// Takes and accepts what comes, with these names for each type.
fn settle(bench: &mut Bench, names: &[(ResourceType, &[&str])]) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(got) = bench.whole() {
        let of_type = names.iter().find(|(resource_type, _)| *resource_type == got.resource_type).unwrap();
        bench.list(got.resource_type, of_type.1, &got.nonce, None);
        all.push(format!("{} {}", got.resource_type, got.resources.join(" ")));
    }
    all
}

const NAMES: &[(ResourceType, &[&str])] = &[(Cluster, &[]), (Endpoint, &["x"]), (Listener, &[]), (Route, &["web"])];

fn envoy() -> Bench {
    let mut bench = sotw(&[(Cluster, "x", "1"), (Endpoint, "x", "1"), (Listener, "web", "1"), (Route, "web", "1")]);
    for (resource_type, names) in NAMES {
        bench.list(*resource_type, names, "", None);
    }
    assert_eq!(settle(&mut bench, NAMES), ["CDS x=1", "EDS x=1", "LDS web=1", "RDS web=1"]);
    bench
}

#[test]
fn clusters_are_sent_whole_and_endpoints_alone() {
    let mut bench = envoy();
    bench.commit(&[(Cluster, "y", "1"), (Endpoint, "y", "1")], &[]);
    assert_eq!(settle(&mut bench, NAMES), ["CDS x=1 y=1"]);
    bench.list(Endpoint, &["x", "y"], "", None);
    assert_eq!(settle(&mut bench, NAMES), ["EDS y=1"]);
}

#[test]
fn a_changed_cluster_gets_its_endpoints_again() {
    let mut bench = envoy();
    bench.commit(&[(Cluster, "x", "2")], &[]);
    assert_eq!(settle(&mut bench, NAMES), ["CDS x=2", "EDS x=1"]);
}

#[test]
fn a_cluster_stays_in_the_whole_until_its_routes_have_let_go() {
    let mut bench = envoy();
    bench.commit(&[(Cluster, "y", "1"), (Route, "web", "2")], &[(Cluster, "x")]);
    let clusters = bench.whole().unwrap();
    assert_eq!(clusters.resources, ["x=1", "y=1"], "the old one is still there beside the new one");
    assert_eq!(bench.whole(), None, "routes wait for the clusters");
    bench.list(Cluster, &[], &clusters.nonce, None);
    let routes = bench.whole().unwrap();
    assert_eq!((routes.resource_type, bench.whole()), (Route, None));
    bench.list(Route, &["web"], &routes.nonce, None);
    assert_eq!(bench.whole().unwrap().resources, ["y=1"]);
}

#[test]
fn a_removed_listener_is_left_out() {
    let mut bench = envoy();
    bench.commit(&[], &[(Listener, "web")]);
    let got = bench.whole().unwrap();
    assert_eq!((got.resource_type, got.resources.len()), (Listener, 0));
}

#[test]
fn a_refused_cluster_is_left_out_or_stays_as_it_was() {
    let mut bench = envoy();
    bench.commit(&[(Cluster, "x", "bad"), (Cluster, "y", "bad"), (Cluster, "z", "1")], &[]);
    let all = bench.whole().unwrap();
    assert_eq!(all.resources, ["x=bad", "y=bad", "z=1"]);
    bench.list(Cluster, &[], &all.nonce, Some("Error adding/updating cluster(s) x: no, y: no"));
    assert_eq!(settle(&mut bench, NAMES), ["EDS x=1"], "it has taken the good one, and keeps what it had");
    bench.commit(&[(Cluster, "w", "1")], &[]);
    let whole = bench.whole().unwrap();
    assert_eq!(whole.resources, ["w=1", "x=1", "z=1"], "the last accepted one, lest the client removes what it has");
}

#[test]
fn a_nack_that_names_nobody_is_bisected() {
    let mut bench = envoy();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    bench.commit(&names.map(|name| (Cluster, name, "1")), &[]);
    let mut rounds = 0;
    while let Some(got) = bench.whole() {
        if got.resource_type != Cluster {
            continue;
        }
        rounds += 1;
        assert!(got.resources.contains(&"x=1".to_owned()), "what the client has is never left out: {got:?}");
        let error = got.resources.contains(&"f=1".to_owned()).then_some("malformed IP address");
        bench.list(Cluster, &[], &got.nonce, error);
    }
    assert!(rounds <= 8, "{rounds}");
    for name in names {
        match bench.progress(Cluster, name) {
            Progress::Rejected { .. } => assert_eq!(name, "f"),
            Progress::Accepted { .. } => assert_ne!(name, "f"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn names_that_come_with_a_stale_nonce_count() {
    let mut bench = sotw(&[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    bench.list(Endpoint, &["a"], "", None);
    let first = bench.whole().unwrap();
    bench.list(Endpoint, &["a", "b"], "1-EDS-99", None);
    assert_eq!(bench.whole(), None, "the first response is still unanswered");
    bench.list(Endpoint, &["a", "b"], &first.nonce, None);
    assert_eq!(bench.whole().unwrap().resources, ["b=1"]);
}

#[test]
fn a_name_that_comes_back_is_sent_again() {
    let mut bench = sotw(&[(Endpoint, "a", "1")]);
    bench.list(Endpoint, &["a"], "", None);
    let first = bench.whole().unwrap();
    bench.list(Endpoint, &["a"], &first.nonce, None);
    bench.list(Endpoint, &[], &first.nonce, None);
    assert_eq!(bench.whole(), None);
    bench.list(Endpoint, &["a"], &first.nonce, None);
    assert_eq!(bench.whole().unwrap().resources, ["a=1"]);
}

#[test]
fn the_version_is_that_of_the_content() {
    let whole = |resources: &[(ResourceType, &str, &str)]| {
        let mut bench = sotw(resources);
        bench.list(Cluster, &[], "", None);
        bench.whole().unwrap().version
    };
    let version = whole(&[(Cluster, "a", "1"), (Cluster, "b", "2")]);
    let mut other = sotw(&[(Cluster, "b", "2"), (Cluster, "c", "1")]);
    other.commit(&[(Cluster, "a", "1")], &[(Cluster, "c")]);
    other.list(Cluster, &[], "", None);
    assert_eq!(other.whole().unwrap().version, version);
    assert_ne!(whole(&[(Cluster, "a", "2"), (Cluster, "b", "1")]), version);
}

#[test]
fn unknown_names_are_waited_for() {
    let mut bench = sotw(&[]);
    bench.list(Route, &["later"], "", None);
    assert_eq!(bench.whole(), None);
    bench.commit(&[(Route, "later", "1")], &[]);
    assert_eq!(bench.whole().unwrap().resources, ["later=1"]);
}

#[test]
fn first_wildcard_is_answered_although_there_is_nothing() {
    for resource_type in [Cluster, Listener] {
        let mut bench = sotw(&[]);
        bench.list(resource_type, &[], "", None);
        let got = bench.whole().unwrap();
        assert!(got.resources.is_empty());
        bench.list(resource_type, &[], &got.nonce, None);
        assert_eq!(bench.whole(), None);
    }
}
