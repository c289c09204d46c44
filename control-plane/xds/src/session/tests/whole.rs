//! State of the world: what a list means, and responses that must be whole.

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

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
    let rest = bench.whole().unwrap();
    assert_eq!(rest.resources, ["x=1", "z=1"], "the last accepted one, lest the client removes what it has");
    bench.list(Cluster, &[], &rest.nonce, None);
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
    bench.now += ACK_TIMEOUT;
    assert_eq!(bench.whole().unwrap().resources, ["b=1"], "the names count although no request repeated them");
    bench.list(Endpoint, &["b"], &first.nonce, None);
    bench.now += ACK_TIMEOUT;
    bench.commit(&[(Endpoint, "a", "2")], &[]);
    assert_eq!(bench.whole(), None, "a late answer has the newest names, too");
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

#[test]
fn a_nonce_of_another_stream_is_no_ack_and_no_reason_for_silence() {
    let mut bench = sotw(&[(Cluster, "a", "1")]);
    bench.list(Cluster, &[], "7-CDS-3", None);
    let first = bench.whole().unwrap();
    bench.list(Cluster, &[], "2-CDS-1", None);
    bench.list(Cluster, &[], "1-EDS-1", None);
    assert!(bench.session.watches[Cluster].in_flight());
    bench.list(Cluster, &[], &first.nonce, None);
    assert!(!bench.session.watches[Cluster].in_flight());
}

#[test]
fn a_reconnecting_client_is_answered_in_full() {
    for (resource_type, names) in [(Cluster, &[][..]), (Endpoint, &["a"])] {
        let version = {
            let mut bench = sotw(&[(resource_type, "a", "1")]);
            bench.list(resource_type, names, "", None);
            bench.whole().unwrap().version
        };
        let mut bench = sotw(&[(resource_type, "a", "1")]);
        let request = bench.listed(resource_type, names, "", None);
        bench.take_list(&DiscoveryRequest { version_info: version.clone(), ..request });
        let got = bench.whole().unwrap();
        assert_eq!((got.resources, got.version), (vec!["a=1".to_owned()], version));
    }
}

/// A client that was told of some clusters and comes back to a store where others are.
fn comes_back(before: &[(ResourceType, &str, &str)], meanwhile: impl FnOnce(&mut Bench)) -> (Bench, String) {
    let mut bench = sotw(before);
    bench.list(Cluster, &[], "", None);
    let first = bench.whole().unwrap();
    bench.list(Cluster, &[], &first.nonce, None);
    meanwhile(&mut bench);
    let mut bench = bench.another(Variant::Sotw);
    let request = bench.listed(Cluster, &[], "", None);
    bench.take_list(&DiscoveryRequest { version_info: first.version.clone(), ..request });
    (bench, first.version)
}

#[test]
fn what_went_during_a_cut_stays_until_the_routes_have_moved() {
    let (mut bench, version) = comes_back(&[(Cluster, "old", "1"), (Route, "web", "old")], |bench| {
        bench.commit(&[(Cluster, "new", "1"), (Route, "web", "new")], &[(Cluster, "old")]);
        // This one came and went: nobody who comes back has it.
        bench.commit(&[(Cluster, "brief", "1")], &[]);
        let brief = bench.tables.table(Cluster).get("brief").unwrap();
        brief.encoded.standing.accept();
        bench.commit(&[], &[(Cluster, "brief")]);
    });
    let clusters = bench.whole().unwrap();
    assert_eq!(clusters.resources, ["new=1", "old=1"]);
    assert_ne!(clusters.version, version);
    bench.list(Cluster, &[], &clusters.nonce, None);
    assert_eq!(bench.whole(), None);
    bench.list(Listener, &[], "", None);
    let listeners = bench.whole().unwrap();
    bench.list(Listener, &[], &listeners.nonce, None);
    assert_eq!(bench.whole(), None);
    bench.list(Route, &["web"], "", None);
    let routes = bench.whole().unwrap();
    assert_eq!((routes.resource_type, bench.whole()), (Route, None));
    bench.list(Route, &["web"], &routes.nonce, None);
    assert_eq!(bench.whole().unwrap().resources, ["new=1"]);
}

#[test]
fn a_cut_while_the_old_was_still_there_is_known_too() {
    let (bench, _) = comes_back(&[(Cluster, "old", "1"), (Route, "web", "old")], |bench| {
        bench.list(Route, &["web"], "", None);
        let routes = bench.whole().unwrap();
        bench.list(Route, &["web"], &routes.nonce, None);
        bench.commit(&[(Cluster, "new", "1"), (Route, "web", "new")], &[(Cluster, "old")]);
    });
    // On the second stream both are there; it is cut before the routes have moved.
    let mut bench = bench;
    let both = bench.whole().unwrap();
    assert_eq!(both.resources, ["new=1", "old=1"]);
    let mut bench = bench.another(Variant::Sotw);
    let request = bench.listed(Cluster, &[], "", None);
    bench.take_list(&DiscoveryRequest { version_info: both.version, ..request });
    assert_eq!(bench.whole().unwrap().resources, ["new=1", "old=1"]);
}

#[test]
fn a_client_that_comes_back_with_what_nobody_remembers_gets_what_there_is() {
    let mut bench = sotw(&[(Cluster, "old", "1")]);
    bench.commit(&[(Cluster, "new", "1")], &[(Cluster, "old")]);
    let request = bench.listed(Cluster, &[], "", None);
    bench.take_list(&DiscoveryRequest { version_info: "0000000000000001".to_owned(), ..request });
    assert_eq!(bench.whole().unwrap().resources, ["new=1"]);
}

#[test]
fn a_nack_is_told_by_its_error_detail() {
    let mut bench = sotw(&[(Route, "a", "1")]);
    bench.list(Route, &["a"], "", None);
    let got = bench.whole().unwrap();
    // "if the client [...] NACKs, the version is that of the last accepted": but it may be the very same one.
    let nack = bench.listed(Route, &["a"], &got.nonce, Some("bad"));
    bench.take_list(&DiscoveryRequest { version_info: got.version, ..nack });
    assert!(matches!(bench.progress(Route, "a"), Progress::Rejected { message, .. } if &*message == "bad"));
}

#[test]
fn rejected_version_is_not_resent() {
    for resource_type in [Cluster, Route] {
        let mut bench = sotw(&[(resource_type, "b", "1")]);
        let names = &["a", "b"];
        bench.list(resource_type, names, "", None);
        let first = bench.whole().unwrap();
        bench.list(resource_type, names, &first.nonce, None);
        bench.commit(&[(resource_type, "a", "bad")], &[]);
        let refused = bench.whole().unwrap();
        for _ in 0..2 {
            bench.list(resource_type, names, &refused.nonce, Some("no"));
            assert_eq!(bench.whole(), None);
        }
        bench.commit(&[(resource_type, "a", "bad")], &[]);
        bench.now += 10 * ACK_TIMEOUT;
        assert_eq!(bench.whole(), None);
        bench.commit(&[(resource_type, "a", "good")], &[]);
        let second = bench.whole().unwrap();
        assert_eq!(second.resources[0], "a=good");
        bench.list(resource_type, names, &second.nonce, None);
        bench.commit(&[(resource_type, "a", "bad")], &[]);
        assert_eq!(bench.whole(), None);
    }
}

#[test]
fn progress_is_what_the_client_said() {
    let mut bench = sotw(&[(Cluster, "a", "1")]);
    bench.list(Cluster, &[], "", None);
    assert!(matches!(bench.progress(Cluster, "a"), Progress::NotSent));
    let got = bench.whole().unwrap();
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Sent));
    bench.now = Duration::from_secs(3);
    bench.list(Cluster, &[], &got.nonce, None);
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Accepted { at } if at == Duration::from_secs(3)));
}

#[test]
fn a_wildcard_among_names_means_everything_until_it_is_left_out() {
    for resource_type in [Cluster, Endpoint] {
        let mut bench = sotw(&[(resource_type, "a", "1"), (resource_type, "b", "1")]);
        bench.list(resource_type, &["*", "a"], "", None);
        let all = bench.whole().unwrap();
        assert_eq!(all.resources, ["a=1", "b=1"]);
        bench.list(resource_type, &["a"], &all.nonce, None);
        assert_eq!(bench.whole(), None);
        bench.commit(&[(resource_type, "b", "2")], &[]);
        assert_eq!(bench.whole(), None);
        bench.commit(&[(resource_type, "a", "2")], &[]);
        let named = bench.whole().unwrap();
        assert_eq!(named.resources, ["a=2"]);
        bench.list(resource_type, &[], &named.nonce, None);
        bench.commit(&[(resource_type, "a", "3")], &[]);
        assert_eq!(bench.whole(), None, "no names mean nothing once there were some");
    }
}

#[test]
fn no_name_and_an_empty_name_end_a_subscription_and_are_not_answered() {
    for nothing in [&[][..], &[""]] {
        let mut bench = sotw(&[(Endpoint, "a", "1")]);
        bench.list(Endpoint, nothing, "", None);
        assert_eq!(bench.whole(), None);
        bench.list(Endpoint, &["a"], "", None);
        let got = bench.whole().unwrap();
        bench.list(Endpoint, nothing, &got.nonce, None);
        bench.commit(&[(Endpoint, "a", "2")], &[]);
        assert_eq!(bench.whole(), None);
        assert!(bench.session.watches[Endpoint].subscription.is_empty());
    }
}

#[test]
fn endpoints_and_routes_end_with_what_refers_to_them() {
    let mut bench = envoy();
    bench.commit(&[], &[(Endpoint, "x"), (Route, "web")]);
    assert_eq!(bench.whole(), None);
    bench.now += 10 * ACK_TIMEOUT;
    assert_eq!(bench.whole(), None);
}

#[test]
fn names_that_do_not_exist_hold_nothing_up() {
    let mut bench = sotw(&[(Endpoint, "a", "1"), (Endpoint, "c", "1")]);
    bench.list(Endpoint, &["a", "b", "c"], "", None);
    assert_eq!(bench.whole().unwrap().resources, ["a=1", "c=1"]);
}

#[test]
fn a_name_stands_once_in_a_response() {
    let mut bench = sotw(&[(Endpoint, "a", "1")]);
    bench.list(Endpoint, &["a", "a", "*"], "", None);
    let first = bench.whole().unwrap();
    assert_eq!(first.resources, ["a=1"]);
    bench.list(Endpoint, &[], &first.nonce, None);
    bench.list(Endpoint, &["a"], &first.nonce, None);
    bench.commit(&[(Endpoint, "a", "2")], &[]);
    assert_eq!(bench.whole().unwrap().resources, ["a=2"], "it is owed and it changed");
}

#[test]
fn a_node_is_bound_by_the_first_request() {
    let mut bench = sotw(&[]);
    let node = Node { id: Arc::from("edge-1"), ..Node::default() };
    let protocol = Protocol { variant: Variant::Sotw, only: None };
    bench.session = Session::new(ClientId(1), node, protocol, limits());
    let mut from = |node: Option<&str>| {
        let node = node.map(|id| NodeMessage { id: id.to_owned(), ..Default::default() });
        let request = DiscoveryRequest { node, ..bench.listed(Cluster, &[], "", None) };
        bench.session.on_request(&(&request).into(), &bench.tables, bench.now).map(drop)
    };
    assert_eq!(from(Some("edge-1")), Ok(()));
    assert_eq!(from(None), Ok(()));
    assert!(matches!(from(Some("edge-2")), Err(ProtocolError::NodeChanged { .. })));
}

#[test]
fn what_came_and_went_unseen_is_not_kept() {
    let mut bench = sotw(&[]);
    bench.list(Cluster, &[], "", None);
    bench.list(Listener, &[], "", None);
    bench.commit(&[(Listener, "web", "1"), (Cluster, "short", "1")], &[]);
    bench.commit(&[], &[(Cluster, "short")]);
    let first = bench.whole().unwrap();
    assert_eq!((first.resource_type, first.resources.len()), (Cluster, 0));
    bench.commit(&[(Cluster, "a", "1")], &[]);
    bench.list(Cluster, &[], &first.nonce, None);
    assert_eq!(bench.whole().unwrap().resources, ["a=1"], "its withdrawal still waits for the listeners");
}

#[test]
fn what_was_refused_is_not_kept_until_it_may_go() {
    let mut bench = envoy();
    bench.commit(&[(Cluster, "x", "bad")], &[]);
    let refused = bench.whole().unwrap();
    bench.list(Cluster, &[], &refused.nonce, Some("no"));
    bench.commit(&[(Cluster, "y", "1"), (Route, "web", "2")], &[(Cluster, "x")]);
    assert_eq!(bench.whole().unwrap().resources, ["x=1", "y=1"]);
}

#[test]
fn what_others_have_accepted_is_tried_first() {
    let mut bench = sotw(&[(Listener, "a", "1"), (Listener, "b", "1")]);
    bench.list(Listener, &[], "", None);
    let got = bench.whole().unwrap();
    bench.list(Listener, &[], &got.nonce, None);
    bench.commit(&[(Listener, "aa", "bad")], &[]);

    let mut bench = bench.another(Variant::Sotw);
    bench.list(Listener, &[], "", None);
    let mut rounds = 0;
    while let Some(got) = bench.whole() {
        rounds += 1;
        let has = |resource: &str| got.resources.iter().any(|it| it == resource);
        assert!(has("a=1") && has("b=1"), "what a client that connects again may hold is left out: {got:?}");
        bench.list(Listener, &[], &got.nonce, has("aa=bad").then_some("something is wrong"));
    }
    assert_eq!(rounds, 3);
}

#[test]
fn what_a_refused_response_said_beside_its_upserts_is_said_again() {
    let mut bench = envoy();
    bench.commit(&[(Listener, "new", "bad")], &[(Listener, "web")]);
    let got = bench.whole().unwrap();
    assert_eq!(got.resources, ["new=bad"]);
    bench.list(Listener, &[], &got.nonce, Some("no"));
    let got = bench.whole().expect("the client has not let go of the other one");
    assert_eq!((got.resource_type, got.resources.len()), (Listener, 0));
    bench.list(Listener, &[], &got.nonce, None);

    bench.commit(&[(Cluster, "x", "bad"), (Cluster, "y", "bad")], &[]);
    let got = bench.whole().unwrap();
    bench.list(Cluster, &[], &got.nonce, Some("goo.gle/debugproto\nname: \"x\"\n: Proto constraint validation failed"));
    let got = bench.whole().unwrap();
    assert_eq!(got.resources, ["x=1", "y=bad"]);
    bench.list(Cluster, &[], &got.nonce, Some("no"));
    assert_eq!(bench.whole().unwrap().resources, ["x=1"]);
}

#[test]
fn what_is_tried_alone_waits_for_new_clusters_too() {
    let mut bench = sotw(&[(Listener, "a", "1"), (Listener, "b", "bad")]);
    bench.list(Cluster, &[], "", None);
    bench.list(Listener, &[], "", None);
    let (clusters, listeners) = (bench.whole().unwrap(), bench.whole().unwrap());
    bench.list(Cluster, &[], &clusters.nonce, None);
    bench.commit(&[(Cluster, "new", "1"), (Listener, "c", "1")], &[]);
    bench.list(Listener, &[], &listeners.nonce, Some("no"));
    let clusters = bench.whole().unwrap();
    assert_eq!((clusters.resources, bench.whole()), (vec!["new=1".to_owned()], None));
    bench.list(Cluster, &[], &clusters.nonce, None);
    assert_eq!(bench.whole().unwrap().resource_type, Listener);
}

#[test]
fn what_the_first_response_left_out_is_left_out_again_after_a_nack() {
    let mut bench = sotw(&[(Cluster, "a", "bad")]);
    bench.list(Cluster, &[], "", None);
    let first = bench.whole().unwrap();
    bench.list(Cluster, &[], &first.nonce, Some("no"));
    let second = bench.whole().expect("the client may hold clusters that are gone, from before");
    assert!(second.resources.is_empty());
    bench.list(Cluster, &[], &second.nonce, None);
    assert_eq!(bench.whole(), None);
}

#[test]
fn what_was_taken_of_a_response_refused_in_part_is_kept_until_it_may_go() {
    let mut bench = envoy();
    bench.commit(&[(Cluster, "y", "1"), (Cluster, "z", "bad")], &[]);
    let got = bench.whole().unwrap();
    bench.list(Cluster, &[], &got.nonce, Some("Error adding/updating cluster(s) z: no"));
    bench.commit(&[(Cluster, "w", "1"), (Route, "web", "2")], &[(Cluster, "y")]);
    assert_eq!(bench.whole().unwrap().resources, ["w=1", "x=1", "y=1"]);
}

#[test]
fn what_changes_and_then_goes_between_two_responses_is_left_out() {
    let mut bench = envoy();
    bench.commit(&[(Listener, "web", "2")], &[]);
    bench.commit(&[], &[(Listener, "web")]);
    let got = bench.whole().expect("the client has the version before");
    assert_eq!((got.resource_type, got.resources.len()), (Listener, 0));
}

#[test]
fn what_a_refused_response_would_have_taken_away_is_told_again_although_an_earlier_one_was_accepted_late() {
    let mut bench = sotw(&[(Listener, "c", "1")]);
    bench.list(Listener, &[], "", None);
    let first = bench.whole().unwrap();
    bench.commit(&[(Listener, "a", "bad")], &[(Listener, "c")]);
    bench.now += ACK_TIMEOUT;
    let second = bench.whole().unwrap();
    assert_eq!(second.resources, ["a=bad"]);
    bench.list(Listener, &[], &first.nonce, None);
    bench.list(Listener, &[], &second.nonce, Some("no"));
    assert_eq!(bench.whole().unwrap().resources, [""; 0]);
}

#[test]
fn what_two_overlapping_responses_brought_is_tried_once() {
    let mut bench = sotw(&[(Listener, "a", "1"), (Listener, "b", "1")]);
    bench.list(Listener, &[], "", None);
    let first = bench.whole().unwrap();
    bench.commit(&[(Listener, "c", "bad")], &[]);
    bench.now += ACK_TIMEOUT;
    let second = bench.whole().unwrap();
    bench.commit(&[], &[(Listener, "c")]);
    bench.now += ACK_TIMEOUT;
    let third = bench.whole().unwrap();
    assert_eq!((second.resources.len(), &*third.resources), (3, &["a=1".to_owned(), "b=1".to_owned()][..]));
    bench.list(Listener, &[], &first.nonce, None);
    bench.list(Listener, &[], &second.nonce, Some("no"));
    // It accepts what it was suspected of refusing a moment ago.
    bench.list(Listener, &[], &third.nonce, None);
    let rest: Vec<_> = std::iter::from_fn(|| bench.whole()).collect();
    assert!(rest.iter().all(|got| got.resources == third.resources), "{rest:?}");
}
