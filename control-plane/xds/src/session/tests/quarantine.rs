//! What clients get of a resource that another client refused.

use super::*;

#[test]
fn a_new_client_gets_the_last_accepted_version_of_what_another_refused() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let mut bench = Bench::with(&[(Cluster, "a", "good"), (Cluster, "b", "1")]);
        bench.subscribe(Cluster, &[]);
        bench.ack_all();
        bench.commit(&[(Cluster, "a", "bad")], &[]);
        let got = bench.one();
        bench.nack(&got, "no");
        assert_eq!(bench.ack_all()[0].contents, ["good"], "the client itself may have nothing: it is sent again");

        let mut bench = bench.another(variant);
        if variant == Variant::Delta {
            bench.subscribe(Cluster, &[]);
            let got = bench.one();
            let mut got_of_each: Vec<_> = got.upserts.iter().zip(&got.contents).collect();
            got_of_each.sort();
            assert_eq!(format!("{got_of_each:?}"), r#"[("a", "good"), ("b", "1")]"#);
            bench.ack(&got);
        } else {
            bench.list(Cluster, &[], "", None);
            let got = bench.whole().unwrap();
            assert_eq!(got.resources, ["a=good", "b=1"]);
            bench.list(Cluster, &[], &got.nonce, None);
        }
        assert!(matches!(bench.progress(Cluster, "a"), Progress::HeldBack));
        assert!(matches!(bench.progress(Cluster, "b"), Progress::Accepted { .. }));
        assert_eq!(bench.all(), []);

        bench.commit(&[(Cluster, "a", "better")], &[]);
        let content = if variant == Variant::Delta {
            bench.one().contents.remove(0)
        } else {
            bench.whole().unwrap().resources.remove(0)
        };
        assert!(content.ends_with("better"), "{content}");
        assert!(matches!(bench.progress(Cluster, "a"), Progress::Sent));
    }
}

#[test]
fn what_any_client_accepts_is_not_kept_from_others() {
    let mut bench = Bench::with(&[(Route, "a", "good")]);
    bench.subscribe(Route, &["a"]);
    bench.ack_all();
    bench.commit(&[(Route, "a", "new")], &[]);
    let refused = bench.one();
    bench.nack(&refused, "no");
    let standing = Arc::clone(&bench.tables.table(Route).get("a").unwrap().encoded.standing);

    let mut bench = bench.another(Variant::Delta);
    bench.subscribe(Route, &["a"]);
    let first = bench.one();
    assert_eq!(first.contents, ["good"]);
    bench.ack(&first);
    assert!(standing.accept(), "a third client accepts it");
    let second = bench.one();
    assert_eq!(second.contents, ["new"]);
    bench.ack(&second);
    assert!(matches!(bench.progress(Route, "a"), Progress::Accepted { .. }));
}

#[test]
fn a_client_that_was_connected_is_not_kept_from_a_version_by_another() {
    let mut bench = Bench::with(&[(Route, "a", "good")]);
    bench.subscribe(Route, &["a"]);
    bench.ack_all();
    bench.commit(&[(Route, "a", "new")], &[]);
    bench.tables.table(Route).get("a").unwrap().encoded.standing.refuse();
    assert_eq!(bench.one().contents, ["new"]);
}

#[test]
fn a_client_that_refuses_the_fallback_too_is_told_that_there_is_none() {
    let mut bench = Bench::with(&[(Route, "a", "good")]);
    bench.subscribe(Route, &["a"]);
    bench.ack_all();
    bench.commit(&[(Route, "a", "new")], &[]);

    let mut bench = bench.another(Variant::Delta);
    bench.subscribe(Route, &["a"]);
    let new = bench.one();
    assert_eq!(new.contents, ["new"]);
    bench.nack(&new, "no");
    let good = bench.one();
    assert_eq!(good.contents, ["good"]);
    bench.nack(&good, "no");
    assert_eq!(bench.all(), []);
    bench.subscribe(Route, &["a"]);
    assert_eq!(bench.one().removed, ["a"]);
}

#[test]
fn the_last_accepted_version_survives_versions_that_nobody_accepts() {
    let mut bench = Bench::with(&[(Route, "a", "good")]);
    bench.subscribe(Route, &["a"]);
    bench.ack_all();
    for content in ["bad1", "bad2", "bad3", "bad4", "bad5"] {
        bench.commit(&[(Route, "a", content)], &[]);
        while let Some(got) = bench.next() {
            if got.contents == ["good"] { bench.ack(&got) } else { bench.nack(&got, "no") }
        }
    }
    let mut bench = bench.another(Variant::Delta);
    bench.subscribe(Route, &["a"]);
    assert_eq!(bench.one().contents, ["good"]);
}

#[test]
fn a_refused_version_is_not_offered_in_the_place_of_another() {
    let mut bench = Bench::with(&[(Route, "a", "1")]);
    bench.subscribe(Route, &["a"]);
    let first = bench.one();
    bench.nack(&first, "no");
    assert!(bench.tables.table(Route).get("a").unwrap().encoded.standing.accept(), "another client accepts it");
    bench.commit(&[(Route, "a", "2")], &[]);
    bench.tables.table(Route).get("a").unwrap().encoded.standing.refuse();
    bench.subscribe(Route, &["a"]);
    assert_eq!(bench.one().contents, ["2"]);
}

#[test]
fn a_version_that_comes_back_is_known_as_what_it_was() {
    let mut bench = Bench::with(&[(Route, "a", "1")]);
    bench.subscribe(Route, &["a"]);
    bench.ack_all();
    for content in ["2", "1"] {
        bench.commit(&[(Route, "a", content)], &[]);
    }
    assert!(bench.tables.table(Route).get("a").unwrap().encoded.standing.is_accepted());
}

#[test]
fn what_comes_back_after_its_end_has_no_earlier_version() {
    let mut bench = Bench::with(&[(Cluster, "a", "1")]);
    bench.subscribe(Cluster, &[]);
    let first = bench.one();
    bench.ack(&first);
    bench.commit(&[(Cluster, "a", "bad")], &[]);
    let refused = bench.one();
    bench.nack(&refused, "no");
    bench.commit(&[], &[(Cluster, "a")]);
    let gone = bench.one();
    bench.ack(&gone);
    bench.commit(&[(Cluster, "a", "bad")], &[]);
    assert_eq!(bench.all(), [], "it refused that already");
    let mut newcomer = bench.another(Variant::Delta);
    newcomer.subscribe(Cluster, &[]);
    assert_eq!(newcomer.one().contents, ["bad"]);
}

#[test]
fn a_version_that_is_in_flight_is_remembered_however_many_follow() {
    let mut bench = Bench::with(&[(Cluster, "a", "1")]);
    bench.subscribe(Cluster, &[]);
    let first = bench.one();
    for number in 2..100 {
        bench.commit(&[(Cluster, "a", &number.to_string())], &[]);
    }
    bench.commit(&[(Cluster, "a", "bad")], &[]);
    bench.ack(&first);
    let refused = bench.one();
    bench.nack(&refused, "no");
    let mut newcomer = bench.another(Variant::Delta);
    newcomer.subscribe(Cluster, &[]);
    assert_eq!(newcomer.one().contents, ["1"]);
}

#[test]
fn a_refusal_takes_nothing_from_a_client_that_wants_everything() {
    let mut bench = Bench::with(&[(Cluster, "d", "1")]);
    bench.subscribe(Cluster, &[]);
    let first = bench.one();
    bench.ack(&first);
    bench.commit(&[(Cluster, "d", "odd")], &[]);
    let refused = bench.one();
    bench.nack(&refused, "no");
    // Another client likes it.
    bench.tables.table(Cluster).get("d").unwrap().encoded.standing.accept();
    bench.commit(&[(Cluster, "d", "1"), (Cluster, "a", "bad")], &[]);
    let both = bench.one();
    assert_eq!(both.upserts, ["d", "a"]);
    bench.commit(&[(Cluster, "d", "odd")], &[]);
    bench.nack(&both, "goo.gle/debugproto  \nname: \"a\"\n: Proto constraint validation failed (x)");
    assert_eq!(bench.all().into_iter().flat_map(|got| got.removed).collect::<Vec<_>>(), [""; 0]);
}
