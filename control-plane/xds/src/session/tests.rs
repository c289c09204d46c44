//! The rules of the protocol, one test each, against the session alone: requests in, responses out, time as a number.

mod bench;
mod convergence;
mod doubt;
mod model;
mod quarantine;
mod whole;

use std::time::Duration;

use ResourceType::{Cluster, Endpoint, ExtensionConfig, Listener, Route, Runtime};
use bench::{Bench, limits};
use envoy_types::pb::envoy::config::core::v3::Node as NodeMessage;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::*;

const ACK_TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn a_nonce_of_another_stream_is_no_nack_and_no_ack() {
    let mut bench = Bench::with(&[(Cluster, "a", "1")]);
    let request = bench.named(Cluster, &[], &[]);
    bench.take(&DeltaDiscoveryRequest { response_nonce: "7-CDS-3".to_owned(), ..request });
    assert_eq!(bench.one().upserts, ["a"]);
    assert!(bench.session.watches[Cluster].in_flight());
    bench.answer_nonce(Cluster, "2-CDS-1", None);
    bench.answer_nonce(Cluster, "1-EDS-1", None);
    assert!(bench.session.watches[Cluster].in_flight());
    bench.answer_nonce(Cluster, "1-CDS-1", None);
    assert!(!bench.session.watches[Cluster].in_flight());
}

#[test]
fn a_stale_nonce_keeps_the_subscription_change() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    bench.subscribe(Endpoint, &["a"]);
    let first = bench.one();
    bench.ack(&first);
    let request = bench.named(Endpoint, &["b"], &["a"]);
    bench.take(&DeltaDiscoveryRequest { response_nonce: "1-EDS-99".to_owned(), ..request });
    assert_eq!(bench.one().upserts, ["b"]);
    bench.commit(&[(Endpoint, "a", "2")], &[]);
    assert_eq!(bench.all(), []);
}

#[test]
fn an_ack_may_change_the_subscription() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    bench.subscribe(Endpoint, &["a"]);
    let first = bench.one();
    let request = bench.named(Endpoint, &["b"], &[]);
    bench.take(&DeltaDiscoveryRequest { response_nonce: first.nonce, ..request });
    assert_eq!(bench.one().upserts, ["b"]);
}

#[test]
fn a_nack_is_told_by_its_error_detail() {
    let mut bench = Bench::with(&[(Route, "a", "1")]);
    bench.subscribe(Route, &["a"]);
    let first = bench.one();
    let verdict = bench.answer(&first, Some("bad"));
    assert!(matches!(verdict, Some(Verdict::Rejected { resources, .. }) if &*resources[0].0 == "a"));
    assert!(matches!(bench.progress(Route, "a"), Progress::Rejected { message, .. } if &*message == "bad"));
}

#[test]
fn rejected_version_is_not_resent() {
    let mut bench = Bench::with(&[(Route, "a", "bad")]);
    bench.subscribe(Route, &["a"]);
    let first = bench.one();
    bench.nack(&first, "no");
    assert_eq!(bench.all(), []);
    bench.commit(&[(Route, "a", "bad")], &[]);
    bench.now += 10 * ACK_TIMEOUT;
    assert_eq!(bench.all(), []);

    bench.commit(&[(Route, "a", "good")], &[]);
    let second = bench.one();
    assert_eq!(second.upserts, ["a"]);
    bench.ack(&second);

    bench.commit(&[(Route, "a", "bad")], &[]);
    assert_eq!(bench.all(), []);
    bench.commit(&[(Route, "a", "good")], &[]);
    assert_eq!(bench.one().upserts, ["a"]);
}

#[test]
fn asking_again_for_a_rejected_version_is_answered_as_absent() {
    let mut bench = Bench::with(&[(Endpoint, "a", "bad")]);
    bench.subscribe(Endpoint, &["a"]);
    let first = bench.one();
    bench.nack(&first, "no");
    bench.subscribe(Endpoint, &["a"]);
    assert_eq!(bench.one().removed, ["a"]);
}

#[test]
fn what_was_asked_again_while_a_nack_was_on_its_way_is_still_answered() {
    let mut bench = Bench::with(&[(Endpoint, "a", "bad")]);
    bench.subscribe(Endpoint, &["a"]);
    let first = bench.one();
    bench.subscribe(Endpoint, &["a"]);
    bench.nack(&first, "no");
    assert_eq!(bench.one().removed, ["a"]);
}

#[test]
fn good_resources_of_a_refused_response_are_sent_again() {
    let mut bench = Bench::with(&[(Cluster, "a", "1"), (Cluster, "bad", "1"), (Cluster, "c", "1")]);
    bench.subscribe(Cluster, &[]);
    let first = bench.one();
    assert_eq!(first.upserts, ["a", "bad", "c"]);
    bench.nack(&first, "goo.gle/debugproto\nname: \"bad\"\n: Proto constraint validation failed (x)");
    let second = bench.one();
    assert_eq!(second.upserts, ["a", "c"]);
    bench.ack(&second);
    assert_eq!(bench.all(), []);
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Accepted { .. }));
    assert!(matches!(bench.progress(Cluster, "bad"), Progress::Rejected { .. }));
}

#[test]
fn good_resources_that_were_taken_are_not_sent_again() {
    let mut bench = Bench::with(&[(Cluster, "a", "1"), (Cluster, "bad", "1")]);
    bench.subscribe(Cluster, &[]);
    let first = bench.one();
    bench.nack(&first, "Error adding/updating cluster(s) bad: unknown");
    assert_eq!(bench.all(), []);
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Accepted { .. }));
    assert!(matches!(bench.progress(Cluster, "bad"), Progress::Rejected { .. }));
}

#[test]
fn a_nack_that_names_nobody_is_bisected() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut bench = Bench::with(&names.map(|name| (Endpoint, name, "1")));
    bench.subscribe(Endpoint, &names);
    let mut rounds = 0;
    while let Some(got) = bench.next() {
        rounds += 1;
        if got.upserts.iter().any(|name| name == "f") {
            bench.nack(&got, "malformed IP address");
        } else {
            bench.ack(&got);
        }
    }
    assert!(rounds <= 7, "1 + 2 for each of 3 halvings, not {rounds}");
    for name in names {
        match bench.progress(Endpoint, name) {
            Progress::Rejected { .. } => assert_eq!(name, "f"),
            Progress::Accepted { .. } => assert_ne!(name, "f"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn removals_of_a_refused_response_are_sent_again() {
    let mut bench = Bench::with(&[(Listener, "a", "1")]);
    bench.subscribe(Listener, &[]);
    bench.ack_all();
    bench.commit(&[(Listener, "bad", "1")], &[(Listener, "a")]);
    let got = bench.one();
    assert_eq!((got.upserts.as_slice(), got.removed.as_slice()), (&["bad".to_owned()][..], &["a".to_owned()][..]));
    bench.nack(&got, "no");
    assert_eq!(bench.one().removed, ["a"]);
}

#[test]
fn a_nack_of_mere_removals_is_not_argued_with() {
    let mut bench = Bench::with(&[(Listener, "a", "1")]);
    bench.subscribe(Listener, &[]);
    bench.ack_all();
    bench.commit(&[], &[(Listener, "a")]);
    let got = bench.one();
    bench.nack(&got, "no");
    assert_eq!(bench.all(), []);
}

#[test]
fn resubscription_resends() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1")]);
    bench.subscribe(Endpoint, &["a"]);
    bench.ack_all();
    bench.subscribe(Endpoint, &["a"]);
    assert_eq!(bench.one().upserts, ["a"]);
}

#[test]
fn unsubscribing_a_name_under_the_wildcard_is_answered() {
    let mut bench = Bench::with(&[(Cluster, "a", "1")]);
    bench.subscribe(Cluster, &["*", "a", "gone"]);
    bench.ack_all();
    bench.unsubscribe(Cluster, &["a", "gone"]);
    let got = bench.one();
    assert_eq!((got.upserts, got.removed), (vec!["a".to_owned()], vec!["gone".to_owned()]));
}

#[test]
fn unsubscribing_is_otherwise_not_answered() {
    let mut bench = Bench::with(&[(Cluster, "a", "1")]);
    bench.subscribe(Cluster, &["a"]);
    bench.ack_all();
    bench.unsubscribe(Cluster, &["a", "phantom"]);
    assert_eq!(bench.all(), []);
    bench.commit(&[(Cluster, "a", "2")], &[]);
    assert_eq!(bench.all(), []);
}

#[test]
fn nothing_is_asked_by_a_first_request_without_names_of_a_type_without_wildcard() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1")]);
    bench.subscribe(Endpoint, &[]);
    assert_eq!(bench.all(), []);
}

#[test]
fn unknown_name_is_reported_and_its_creation_pushed() {
    let mut bench = Bench::with(&[]);
    for resource_type in [Endpoint, Route, ExtensionConfig, Runtime] {
        bench.subscribe(resource_type, &["later"]);
        let got = bench.one();
        assert_eq!((got.resource_type, got.removed.as_slice()), (resource_type, &["later".to_owned()][..]));
        bench.ack(&got);
        bench.commit(&[(resource_type, "later", "1")], &[]);
        let got = bench.one();
        assert_eq!(got.upserts, ["later"]);
        bench.ack(&got);
    }
}

#[test]
fn reconnecting_wildcard_gets_only_what_changed() {
    let mut bench = Bench::with(&[(Cluster, "same", "1"), (Cluster, "changed", "2"), (Cluster, "new", "1")]);
    let same = bench.version(Cluster, "same");
    let held = [("same", same.as_str()), ("changed", "0000000000000001"), ("gone", "0000000000000002")];
    bench.reconnect(Cluster, &[], &held);
    bench.subscribe(Listener, &["web"]);
    bench.subscribe(Route, &["web"]);
    let [got, listeners] = [bench.one(), bench.one()];
    assert_eq!(got.upserts, ["changed", "new"]);
    bench.ack(&got);
    bench.ack(&listeners);
    let routes = bench.one();
    assert_eq!((routes.resource_type, bench.all()), (Route, vec![]));
    bench.ack(&routes);
    assert_eq!(bench.one().removed, ["gone"]);
}

#[test]
fn reconnecting_wildcard_that_has_everything_gets_an_empty_answer() {
    let mut bench = Bench::with(&[(Listener, "same", "1")]);
    let same = bench.tables.table(Listener).get("same").unwrap().version().to_string();
    bench.reconnect(Listener, &["*"], &[("same", same.as_str())]);
    let got = bench.one();
    assert!(got.upserts.is_empty() && got.removed.is_empty());
    bench.ack(&got);
    assert!(matches!(bench.progress(Listener, "same"), Progress::Accepted { .. }));
}

#[test]
fn reconnecting_with_names_gets_only_what_changed() {
    for resource_type in [Endpoint, Route, ExtensionConfig, Runtime] {
        let mut bench = Bench::with(&[(resource_type, "same", "1"), (resource_type, "changed", "2")]);
        let same = bench.version(resource_type, "same");
        let held = [("same", same.as_str()), ("changed", "0000000000000001"), ("gone", "0000000000000002")];
        bench.reconnect(Cluster, &[], &[]);
        let clusters = bench.one();
        bench.ack(&clusters);
        bench.reconnect(resource_type, &["same", "changed", "gone"], &held);
        let got = bench.one();
        assert_eq!((got.upserts, got.removed), (vec!["changed".to_owned()], vec!["gone".to_owned()]));
        bench.commit(&[(resource_type, "same", "2")], &[]);
        bench.answer_nonce(resource_type, &got.nonce, None);
        assert_eq!(bench.one().upserts, ["same"]);
    }
}

#[test]
fn what_a_reconnecting_client_has_counts_as_accepted_although_nothing_is_sent() {
    let mut bench = Bench::with(&[(Route, "web", "1")]);
    let held = bench.version(Route, "web");
    bench.now = Duration::from_secs(3);
    bench.reconnect(Route, &["web"], &[("web", held.as_str())]);
    assert_eq!(bench.all(), []);
    assert!(matches!(bench.progress(Route, "web"), Progress::Accepted { at } if at == bench.now));
}

#[test]
fn a_reconnecting_client_gets_the_endpoints_of_clusters_that_it_is_sent() {
    let mut bench =
        Bench::with(&[(Cluster, "a", "2"), (Endpoint, "a", "1"), (Cluster, "b", "1"), (Endpoint, "b", "1")]);
    let (a, b, cluster_b) = (bench.version(Endpoint, "a"), bench.version(Endpoint, "b"), bench.version(Cluster, "b"));
    bench.reconnect(Cluster, &[], &[("a", "0000000000000001"), ("b", cluster_b.as_str())]);
    assert_eq!(bench.one().upserts, ["a"]);
    bench.reconnect(Endpoint, &["a", "b"], &[("a", a.as_str()), ("b", b.as_str())]);
    let endpoints = bench.one();
    assert_eq!((endpoints.resource_type, endpoints.upserts), (Endpoint, vec!["a".to_owned()]));
}

#[test]
fn a_reconnecting_client_that_may_be_warming_clusters_gets_all_endpoints() {
    let mut bench = Bench::with(&[(Cluster, "a", "1"), (Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    let [a, b] = ["a", "b"].map(|name| bench.version(Endpoint, name));
    // Envoy asks for clusters first, but not while it warms any.
    bench.reconnect(Endpoint, &["a", "b"], &[("a", a.as_str()), ("b", b.as_str())]);
    let endpoints = bench.one();
    assert_eq!((endpoints.resource_type, &*endpoints.upserts), (Endpoint, &["a".to_owned(), "b".to_owned()][..]));
    bench.ack(&endpoints);
    let cluster = bench.version(Cluster, "a");
    bench.reconnect(Cluster, &[], &[("a", cluster.as_str())]);
    assert_eq!(bench.one().upserts, [""; 0]);
}

#[test]
fn routes_of_a_client_that_may_be_warming_wait_until_it_asks_for_clusters() {
    let warming = || {
        let mut bench = Bench::with(&[(Cluster, "a", "1"), (Endpoint, "a", "1"), (Route, "web", "2")]);
        let held = bench.version(Endpoint, "a");
        bench.reconnect(Endpoint, &["a"], &[("a", held.as_str())]);
        bench.reconnect(Route, &["web"], &[("web", "0000000000000001")]);
        let endpoints = bench.one();
        assert_eq!((endpoints.resource_type, bench.all()), (Endpoint, vec![]));
        bench.ack(&endpoints);
        assert_eq!(bench.all(), vec![]);
        bench
    };
    let mut bench = warming();
    bench.reconnect(Cluster, &[], &[("a", "0000000000000001")]);
    let [clusters, endpoints] = [bench.one(), bench.one()];
    assert_eq!((clusters.resource_type, endpoints.resource_type, bench.all()), (Cluster, Endpoint, vec![]));
    bench.ack(&endpoints);
    bench.ack(&clusters);
    assert_eq!(bench.one().resource_type, Route);

    // One that never asks gets them a little later, and then at once.
    let mut bench = warming();
    bench.now += ACK_TIMEOUT;
    let routes = bench.one();
    assert_eq!(routes.resource_type, Route);
    bench.ack(&routes);
    bench.commit(&[(Cluster, "b", "1"), (Route, "web", "3")], &[]);
    assert_eq!(bench.one().resource_type, Route);
}

#[test]
fn what_a_reconnecting_client_should_lose_waits_for_its_routes() {
    let mut bench = Bench::with(&[(Route, "web", "1")]);
    bench.reconnect(Cluster, &[], &[("gone", "0000000000000001")]);
    let clusters = bench.one();
    assert_eq!((clusters.resource_type, clusters.removed.len()), (Cluster, 0));
    bench.ack(&clusters);
    // It asks for the types one after the other, and holds routes and listeners before it asks for them.
    assert_eq!(bench.all(), []);
    bench.reconnect(Listener, &[], &[]);
    let listeners = bench.one();
    bench.ack(&listeners);
    assert_eq!(bench.all(), []);
    bench.reconnect(Route, &["web"], &[("web", "0000000000000001")]);
    let routes = bench.one();
    assert_eq!((routes.resource_type, bench.all()), (Route, vec![]));
    bench.ack(&routes);
    assert_eq!(bench.one().removed, ["gone"]);
}

#[test]
fn a_reconnecting_client_that_asks_for_no_routes_loses_clusters_a_little_later() {
    let mut bench = Bench::with(&[]);
    bench.reconnect(Cluster, &[], &[("gone", "0000000000000001")]);
    let clusters = bench.one();
    bench.ack(&clusters);
    assert_eq!(bench.all(), []);
    bench.now = bench.session.deadline(bench.now).unwrap();
    assert!(bench.now <= ACK_TIMEOUT);
    assert_eq!(bench.one().removed, ["gone"]);
}

#[test]
fn first_wildcard_is_answered_although_there_is_nothing() {
    for resource_type in [Cluster, Listener] {
        let mut bench = Bench::with(&[]);
        bench.subscribe(resource_type, &[]);
        let got = bench.one();
        assert!(got.upserts.is_empty() && got.removed.is_empty());
        bench.ack(&got);
        assert_eq!(bench.all(), []);
    }
}

#[test]
fn one_response_per_type_is_outstanding() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1")]);
    bench.subscribe(Endpoint, &["a"]);
    let first = bench.one();
    bench.commit(&[(Endpoint, "a", "2")], &[]);
    bench.commit(&[(Endpoint, "a", "3")], &[]);
    assert_eq!(bench.all(), []);
    bench.ack(&first);
    let second = bench.one();
    assert_eq!(second.contents, ["3"]);
}

#[test]
fn a_stream_goes_on_without_an_answer_after_the_timeout() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1")]);
    bench.subscribe(Endpoint, &["a"]);
    let first = bench.one();
    bench.commit(&[(Endpoint, "a", "2")], &[]);
    assert_eq!(bench.session.deadline(bench.now), Some(ACK_TIMEOUT));
    bench.now += ACK_TIMEOUT;
    let second = bench.one();
    assert_eq!(second.contents, ["2"]);
    bench.ack(&first);
    assert!(matches!(bench.progress(Endpoint, "a"), Progress::Sent));
    bench.ack(&second);
    assert!(matches!(bench.progress(Endpoint, "a"), Progress::Accepted { .. }));
}

#[test]
fn routes_wait_for_the_ack_of_their_clusters_and_endpoints_do_not() {
    let mut bench = Bench::envoy();
    bench.commit(
        &[
            (Route, "web", "2"),
            (Cluster, "new", "1"),
            (Endpoint, "new", "1"),
            (ExtensionConfig, "x", "2"),
            (Runtime, "x", "2"),
        ],
        &[],
    );
    let clusters = bench.one();
    assert_eq!((clusters.resource_type, clusters.upserts.as_slice()), (Cluster, &["new".to_owned()][..]));
    assert_eq!(bench.all(), []);
    bench.subscribe(Endpoint, &["new"]);
    let endpoints = bench.one();
    assert_eq!((endpoints.resource_type, endpoints.upserts.as_slice()), (Endpoint, &["new".to_owned()][..]));
    bench.ack(&endpoints);
    assert_eq!(bench.all(), []);
    bench.ack(&clusters);
    let types: Vec<_> = bench.all().iter().map(|got| got.resource_type).collect();
    assert_eq!(types, [Route, ExtensionConfig, Runtime]);
}

#[test]
fn routes_wait_for_clusters_of_an_earlier_commit_too() {
    let mut bench = Bench::envoy();
    bench.commit(&[(Cluster, "new", "1")], &[]);
    let clusters = bench.one();
    bench.commit(&[(Route, "web", "2")], &[]);
    assert_eq!(bench.all(), []);
    bench.ack(&clusters);
    assert_eq!(bench.one().resource_type, Route);
}

#[test]
fn routes_do_not_wait_for_ever() {
    let mut bench = Bench::envoy();
    bench.commit(&[(Cluster, "new", "1"), (Route, "web", "2")], &[]);
    assert_eq!(bench.one().resource_type, Cluster);
    bench.now += ACK_TIMEOUT;
    assert_eq!(bench.one().resource_type, Route);
}

#[test]
fn a_rejected_cluster_does_not_hold_back_routes() {
    let mut bench = Bench::envoy();
    bench.commit(&[(Cluster, "new", "bad"), (Route, "web", "2")], &[]);
    let clusters = bench.one();
    bench.nack(&clusters, "no");
    assert_eq!(bench.one().resource_type, Route);
}

#[test]
fn endpoints_runtime_or_extensions_alone_go_straight_out() {
    let mut bench = Bench::envoy();
    bench.commit(&[(Cluster, "slow", "1")], &[]);
    assert_eq!(bench.one().resource_type, Cluster);
    for resource_type in [Endpoint, ExtensionConfig, Runtime] {
        bench.commit(&[(resource_type, "x", "new")], &[]);
        assert_eq!(bench.one().resource_type, resource_type);
    }
}

#[test]
fn clusters_are_removed_after_the_ack_of_the_routes_that_let_go_of_them() {
    let mut bench = Bench::envoy();
    bench.commit(&[(Route, "web", "2")], &[(Cluster, "x"), (Endpoint, "x")]);
    let routes = bench.one();
    assert_eq!((routes.resource_type, bench.all()), (Route, vec![]));
    bench.ack(&routes);
    let clusters = bench.one();
    assert_eq!((clusters.resource_type, clusters.removed.as_slice()), (Cluster, &["x".to_owned()][..]));
    assert_eq!(bench.all(), []);
    bench.ack(&clusters);
    let endpoints = bench.one();
    assert_eq!((endpoints.resource_type, endpoints.removed.as_slice()), (Endpoint, &["x".to_owned()][..]));
}

#[test]
fn a_removal_does_not_wait_for_types_that_have_nothing_to_send() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let mut bench = Bench::speaking(variant, &[(Cluster, "x", "1"), (Cluster, "y", "1")]);
        for resource_type in [Cluster, Listener] {
            let request = bench.named(resource_type, &[], &[]);
            if variant == Variant::Delta {
                bench.take(&request);
            } else {
                bench.list(resource_type, &[], "", None);
            }
        }
        let mut sent = Vec::new();
        while let Some(response) = bench.session.next_response(&bench.tables, bench.now) {
            let of = ResourceType::from_type_url(&response.type_url).unwrap();
            if variant == Variant::Delta {
                bench.answer_nonce(of, &response.nonce, None);
            } else {
                bench.list(of, &[], &response.nonce, None);
            }
            sent.push(of);
            if sent == [Cluster, Listener] {
                // The client does not want this route, and has no listener to wait for.
                bench.commit(&[(Route, "other", "1")], &[(Cluster, "x")]);
            }
        }
        assert_eq!(sent, [Cluster, Listener, Cluster]);
    }
}

#[test]
fn a_cluster_that_is_owed_and_goes_is_removed_after_the_routes_that_came_before() {
    let mut bench = Bench::with(&[(Cluster, "x", "2"), (Listener, "web", "1")]);
    bench.reconnect(Cluster, &[], &[("x", "0000000000000001")]);
    bench.subscribe(Listener, &[]);
    bench.subscribe(Route, &["none"]);
    bench.commit(&[(Listener, "web", "2")], &[(Cluster, "x")]);
    let clusters = bench.one();
    assert_eq!((clusters.resource_type, clusters.removed.len()), (Cluster, 0));
    bench.ack(&clusters);
    let [listeners, routes] = [bench.one(), bench.one()];
    assert_eq!((listeners.resource_type, &*routes.removed, bench.all()), (Listener, &["none".to_owned()][..], vec![]));
    bench.ack(&routes);
    assert_eq!(bench.all(), vec![]);
    bench.ack(&listeners);
    assert_eq!(bench.one().removed, ["x"]);
}

#[test]
fn what_is_tried_alone_waits_for_new_clusters_too() {
    let mut bench = Bench::with(&[(Listener, "a", "1"), (Listener, "b", "bad")]);
    bench.subscribe(Cluster, &[]);
    bench.subscribe(Listener, &[]);
    let (clusters, listeners) = (bench.one(), bench.one());
    bench.ack(&clusters);
    bench.commit(&[(Cluster, "new", "1"), (Listener, "a", "2")], &[]);
    bench.nack(&listeners, "no");
    let clusters = bench.one();
    assert_eq!(clusters.upserts, ["new"]);
    let tried: Vec<_> = bench.ack_all().into_iter().flat_map(|got| got.upserts).collect();
    assert_eq!(tried, ["b"]);
    bench.ack(&clusters);
    assert_eq!(bench.one().contents, ["2"]);
}

#[test]
fn clusters_are_removed_at_last_although_the_routes_are_not_acknowledged() {
    let mut bench = Bench::envoy();
    bench.commit(&[(Route, "web", "2")], &[(Cluster, "x")]);
    assert_eq!(bench.one().resource_type, Route);
    bench.now += ACK_TIMEOUT;
    assert_eq!(bench.one().removed, ["x"]);
}

#[test]
fn a_client_that_removes_the_cluster_is_not_told_about_its_endpoints() {
    let mut bench = Bench::envoy();
    bench.commit(&[], &[(Cluster, "x"), (Endpoint, "x")]);
    let clusters = bench.one();
    bench.unsubscribe(Endpoint, &["x"]);
    bench.ack(&clusters);
    assert_eq!(bench.all(), []);
}

#[test]
fn endpoints_whose_cluster_stays_are_not_removed() {
    let mut bench = Bench::envoy();
    bench.commit(&[], &[(Endpoint, "x")]);
    assert_eq!(bench.all(), []);
}

#[test]
fn changed_cluster_gets_its_endpoints_again() {
    let mut bench = Bench::envoy();
    bench.commit(&[(Cluster, "x", "2")], &[]);
    let types: Vec<_> = bench.all().iter().map(|got| (got.resource_type, got.upserts.clone())).collect();
    assert_eq!(types, [(Cluster, vec!["x".to_owned()]), (Endpoint, vec!["x".to_owned()])]);
}

#[test]
fn equal_content_is_not_sent() {
    let mut bench = Bench::envoy();
    bench.commit(&[(Cluster, "x", "1"), (Endpoint, "x", "1"), (Route, "web", "1")], &[]);
    assert_eq!(bench.all(), []);
}

#[test]
fn a_long_response_is_cut() {
    let content = "x".repeat(1000);
    let names: Vec<String> = (0..10).map(|number| format!("cluster-{number}")).collect();
    let resources: Vec<_> = names.iter().map(|name| (Cluster, name.as_str(), content.as_str())).collect();
    let mut bench = Bench::with(&resources);
    bench.session.limits.max_response_bytes = 3500;
    bench.subscribe(Cluster, &[]);
    let mut sizes = Vec::new();
    while let Some(got) = bench.next() {
        sizes.push(got.upserts.len());
        bench.ack(&got);
    }
    assert_eq!(sizes, [3, 3, 3, 1]);
    bench.commit(&[(Cluster, "huge", &"x".repeat(5000)), (Cluster, "small", "1")], &[]);
    let sizes: Vec<_> = bench.ack_all().iter().map(|got| got.upserts.clone()).collect();
    assert_eq!(sizes, [["huge"], ["small"]]);
}

#[test]
fn a_name_stands_once_in_a_response() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1")]);
    bench.subscribe(Endpoint, &["a", "a", "*", "gone", "gone"]);
    let first = bench.one();
    assert_eq!((first.upserts.as_slice(), first.removed.as_slice()), (&["a".to_owned()][..], &["gone".to_owned()][..]));
    bench.ack(&first);
    bench.subscribe(Endpoint, &["a"]);
    bench.commit(&[(Endpoint, "a", "2"), (Endpoint, "gone", "1")], &[]);
    let second = bench.one();
    assert_eq!((second.upserts, second.removed), (vec!["a".to_owned(), "gone".to_owned()], vec![]));
}

#[test]
fn an_unknown_type_is_answered_once_and_its_ack_is_not() {
    let mut bench = Bench::with(&[]);
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret".to_owned(),
        resource_names_subscribe: vec!["cert".to_owned(), "cert".to_owned(), "*".to_owned()],
        ..Default::default()
    };
    let reply = bench.take(&request).reply.unwrap();
    assert_eq!(reply.removed, [Arc::from("cert")]);
    let ack = DeltaDiscoveryRequest { response_nonce: reply.nonce, resource_names_subscribe: Vec::new(), ..request };
    assert!(bench.take(&ack).reply.is_none());
}

#[test]
fn a_node_is_bound_by_the_first_request() {
    let mut bench = Bench::with(&[]);
    let node = Node { id: Arc::from("edge-1"), ..Node::default() };
    let protocol = Protocol { variant: Variant::Delta, only: None };
    bench.session = Session::new(ClientId(1), node, protocol, limits());
    let from = |id: &str| DeltaDiscoveryRequest {
        node: Some(NodeMessage { id: id.to_owned(), ..Default::default() }),
        type_url: Cluster.type_url().to_owned(),
        ..Default::default()
    };
    assert!(bench.try_take(&from("edge-1")).is_ok());
    assert!(bench.try_take(&DeltaDiscoveryRequest { node: None, ..from("") }).is_ok());
    assert!(bench.try_take(&from("edge-1")).is_ok());
    assert!(matches!(bench.try_take(&from("edge-2")), Err(ProtocolError::NodeChanged { .. })));
}

#[test]
fn a_request_without_a_type_is_an_error() {
    let mut bench = Bench::with(&[]);
    assert_eq!(bench.try_take(&DeltaDiscoveryRequest::default()).unwrap_err(), ProtocolError::MissingTypeUrl);
}

#[test]
fn progress_is_what_the_client_said() {
    let mut bench = Bench::with(&[(Cluster, "a", "1")]);
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Unsubscribed));
    bench.subscribe(Cluster, &[]);
    assert!(matches!(bench.progress(Cluster, "a"), Progress::NotSent));
    let got = bench.one();
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Sent));
    bench.now = Duration::from_secs(3);
    bench.ack(&got);
    bench.now = Duration::from_secs(5);
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Accepted { at } if at == Duration::from_secs(3)));
    bench.commit(&[(Cluster, "b", "1")], &[]);
    bench.ack_all();
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Accepted { at } if at == Duration::from_secs(3)));
    assert!(matches!(bench.progress(Cluster, "b"), Progress::Accepted { at } if at == Duration::from_secs(5)));
}

#[test]
fn what_was_accepted_counts_although_the_rest_of_its_response_is_not_wanted_any_more() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1"), (Endpoint, "b", "bad")]);
    bench.subscribe(Endpoint, &["a", "b"]);
    let both = bench.one();
    bench.nack(&both, "no");
    let half = bench.one();
    bench.unsubscribe(Endpoint, &["b"]);
    bench.ack(&half);
    assert_eq!(bench.all(), []);
    assert!(matches!(bench.progress(Endpoint, "a"), Progress::Accepted { .. }));
}

#[test]
fn a_name_subscribed_later_is_accepted_later() {
    let mut bench = Bench::with(&[(Endpoint, "a", "1"), (Endpoint, "b", "1")]);
    bench.subscribe(Endpoint, &["b"]);
    bench.ack_all();
    bench.now = Duration::from_secs(7);
    bench.subscribe(Endpoint, &["a"]);
    bench.ack_all();
    assert!(matches!(bench.progress(Endpoint, "a"), Progress::Accepted { at } if at == Duration::from_secs(7)));
    assert!(matches!(bench.progress(Endpoint, "b"), Progress::Accepted { at } if at == Duration::ZERO));
}

#[test]
fn changes_of_a_storm_are_sent_together_and_what_is_urgent_is_not_held() {
    let mut bench = Bench::envoy();
    let interval = Duration::from_millis(50);
    bench.session.limits.changes = Rate { interval, burst: 2 };
    for content in ["2", "3"] {
        bench.commit(&[(Endpoint, "x", content)], &[]);
        assert_eq!(bench.ack_all().len(), 1, "the first go out at once");
    }
    bench.commit(&[(Endpoint, "x", "4")], &[]);
    assert_eq!(bench.all(), []);
    assert_eq!(bench.session.deadline(bench.now), Some(bench.now + interval));
    bench.commit(&[(Endpoint, "x", "5")], &[]);
    bench.commit(&[(Runtime, "x", "2")], &[]);
    assert_eq!(bench.ack_all().iter().map(|got| got.resource_type).collect::<Vec<_>>(), [Runtime]);
    bench.now += interval;
    assert_eq!(bench.ack_all()[0].contents, ["5"]);

    bench.commit(&[(Endpoint, "x", "6")], &[]);
    assert_eq!(bench.all(), []);
    bench.commit_urgently(&[(Endpoint, "x", "7")]);
    assert_eq!(bench.ack_all()[0].contents, ["7"]);

    bench.commit(&[(Cluster, "x", "2")], &[]);
    assert_eq!(bench.ack_all().len(), 2, "the endpoints of a changed cluster are not held");
    bench.subscribe(Endpoint, &["x"]);
    assert_eq!(bench.ack_all().len(), 1, "nor is an answer");
}

#[test]
fn removals_are_not_held() {
    let mut bench = Bench::envoy();
    bench.session.limits.changes = Rate { interval: Duration::from_secs(1), burst: 1 };
    bench.commit(&[(Listener, "web", "2")], &[]);
    assert_eq!(bench.ack_all().len(), 1);
    bench.commit(&[(Listener, "web", "3")], &[]);
    assert_eq!(bench.ack_all().len(), 0);
    bench.commit(&[], &[(Listener, "web")]);
    assert_eq!(bench.ack_all()[0].removed, ["web"]);
}

#[test]
fn names_are_bounded() {
    let mut bench = Bench::with(&[]);
    let subscribe = |bench: &mut Bench, names: Vec<String>| {
        let request = DeltaDiscoveryRequest { resource_names_subscribe: names, ..bench.named(Endpoint, &[], &[]) };
        bench.try_take(&request).map(drop)
    };
    assert_eq!(subscribe(&mut bench, (0..1000).map(|n| format!("{n}")).collect()), Ok(()));
    assert_eq!(subscribe(&mut bench, vec!["one more".to_owned()]), Err(ProtocolError::TooManyNames(1000)));
    let mut bench = Bench::with(&[]);
    assert_eq!(subscribe(&mut bench, vec!["x".repeat(6_000)]), Ok(()));
    assert_eq!(subscribe(&mut bench, vec!["y".repeat(6_000)]), Err(ProtocolError::NamesTooLong(10_000)));
    bench = Bench::with(&[]);
    for _ in 0..3 {
        assert_eq!(subscribe(&mut bench, vec!["x".repeat(6_000)]), Ok(()));
        bench.unsubscribe(Endpoint, &["x".repeat(6_000).as_str()]);
    }
}

/// What two streams on one store get in the same position, and what a third gets that is elsewhere.
fn parcels_of(variant: Variant, resource_type: ResourceType, names: &[&str]) -> [Option<Arc<Parcel>>; 3] {
    let resources = ["a", "b", "c"].map(|name| (resource_type, name, "1"));
    let mut bench = Bench::speaking(variant, &resources);
    let mut parcel = |names: &[&str]| {
        let protocol = Protocol { variant, only: None };
        let mut session = Session::new(ClientId(1), Node::default(), protocol, limits());
        std::mem::swap(&mut bench.session, &mut session);
        match variant {
            Variant::Delta => bench.subscribe(resource_type, names),
            Variant::Sotw => bench.list(resource_type, names, "", None),
        }
        let response = bench.session.next_response(&bench.tables, bench.now).unwrap();
        let Resources::Shared(parcel) = response.resources else { return None };
        Some(parcel)
    };
    [parcel(names), parcel(names), parcel(&["a"])]
}

#[test]
fn streams_in_the_same_position_share_what_they_are_sent() {
    for variant in [Variant::Delta, Variant::Sotw] {
        for (resource_type, names) in [(Cluster, &[][..]), (Endpoint, &["*"]), (Endpoint, &["c", "a"])] {
            let [Some(first), Some(second), other] = parcels_of(variant, resource_type, names) else {
                panic!("nothing is shared: {variant} {resource_type} {names:?}");
            };
            assert!(Arc::ptr_eq(&first, &second), "{variant} {resource_type} {names:?}");
            assert!(other.is_none_or(|other| !Arc::ptr_eq(&first, &other)));
        }
    }
}
