//! What may be at fault where a response that has to be whole is refused: what the client has not accepted, and nothing
//! else. What it has, it never loses over that.

use super::*;

/// Refuses the clusters `b` and `c` together with what it is owed once more, in two responses that overlap. Answers what
/// comes then, one accepted after the other, but for what holds a bad one.
fn refuses_two_that_overlap(bench: &mut Bench, names: &[&str]) -> Vec<Vec<String>> {
    bench.commit(&[(Cluster, "c", "bad")], &[]);
    let second = bench.whole().unwrap();
    bench.commit(&[(Cluster, "b", "1")], &[]);
    bench.now += ACK_TIMEOUT;
    let third = bench.whole().unwrap();
    bench.list(Cluster, names, &second.nonce, Some("something is wrong"));
    bench.list(Cluster, names, &third.nonce, Some("something is wrong"));
    let mut all = vec![second.resources, third.resources];
    while let Some(got) = bench.whole() {
        let is_bad = got.resources.iter().any(|it| it.ends_with("=bad"));
        bench.list(Cluster, names, &got.nonce, is_bad.then_some("something is wrong"));
        all.push(got.resources);
    }
    all
}

#[test]
fn what_the_client_has_and_is_owed_once_more_is_in_every_response_whatever_is_tried() {
    let mut bench = Bench::speaking(Variant::Sotw, &[(Cluster, "a", "1")]);
    bench.list(Cluster, &[], "", None);
    let first = bench.whole().unwrap();
    bench.list(Cluster, &["*", "a"], "", None);
    bench.list(Cluster, &["*", "a"], &first.nonce, None);
    let all = refuses_two_that_overlap(&mut bench, &["*", "a"]);
    assert!(all.iter().all(|resources| resources.contains(&"a=1".to_owned())), "{all:?}");
    assert_eq!(all.last().unwrap(), &["a=1", "b=1"]);
    assert!(matches!(bench.progress(Cluster, "c"), Progress::Rejected { .. }));
    assert!(matches!(bench.progress(Cluster, "b"), Progress::Accepted { .. }));
}

#[test]
fn what_is_named_in_the_place_of_everything_is_what_the_client_had() {
    let mut bench = Bench::speaking(Variant::Sotw, &[(Cluster, "a", "1")]);
    bench.list(Cluster, &["*"], "", None);
    let first = bench.whole().unwrap();
    let names = &["a", "b", "c"];
    bench.list(Cluster, names, &first.nonce, None);
    let all = refuses_two_that_overlap(&mut bench, names);
    assert!(all.iter().all(|resources| resources.contains(&"a=1".to_owned())), "{all:?}");
    assert_eq!(all.last().unwrap(), &["a=1", "b=1"]);
}

/// A dump of the first resource of a response that breaks a rule.
fn dump(name: &str) -> String {
    format!("goo.gle/debugproto\nname: \"{name}\"\n: Proto constraint validation failed")
}

#[test]
fn what_is_asked_for_again_after_it_was_let_go_of_may_be_refused_after_all() {
    let mut bench = Bench::speaking(Variant::Sotw, &[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    bench.list(Cluster, &["*"], "", None);
    let first = bench.whole().unwrap();
    bench.list(Cluster, &["b"], &first.nonce, None);
    let second = bench.whole().unwrap();
    bench.list(Cluster, &["*"], &second.nonce, None);
    assert_eq!(bench.whole().unwrap().resources, ["a=1", "b=1"]);
    bench.now += ACK_TIMEOUT;
    bench.commit(&[(Cluster, "c", "1")], &[]);
    let fourth = bench.whole().unwrap();
    bench.list(Cluster, &["*"], &fourth.nonce, Some(&dump("a")));
    assert!(matches!(bench.progress(Cluster, "a"), Progress::Rejected { .. }));
}

#[test]
fn what_was_held_back_is_doubted_until_the_client_accepts_it() {
    for accepts in [false, true] {
        let mut bench = Bench::speaking(Variant::Sotw, &[(Cluster, "a", "good")]);
        bench.list(Cluster, &[], "", None);
        let got = bench.whole().unwrap();
        bench.list(Cluster, &[], &got.nonce, None);
        bench.commit(&[(Cluster, "a", "new")], &[]);
        let got = bench.whole().unwrap();
        bench.list(Cluster, &[], &got.nonce, Some("no"));
        let standing = Arc::clone(&bench.tables.table(Cluster).get("a").unwrap().encoded.standing);

        let mut bench = bench.another(Variant::Sotw);
        bench.list(Cluster, &[], "", None);
        let got = bench.whole().unwrap();
        assert_eq!(got.resources, ["a=good"]);
        bench.list(Cluster, &[], &got.nonce, None);
        assert!(standing.accept(), "a third client accepts it");
        let released = bench.whole().unwrap();
        assert_eq!(released.resources, ["a=new"]);
        if accepts {
            bench.list(Cluster, &[], &released.nonce, None);
            assert!(matches!(bench.progress(Cluster, "a"), Progress::Accepted { .. }));
        } else {
            bench.now += ACK_TIMEOUT;
        }
        bench.commit(&[(Cluster, "b", "1")], &[]);
        let later = bench.whole().unwrap();
        assert_eq!(later.resources, ["a=new", "b=1"]);
        bench.list(Cluster, &[], &later.nonce, Some(&dump("a")));
        let is_refused = matches!(bench.progress(Cluster, "a"), Progress::Rejected { .. });
        assert_eq!(is_refused, !accepts, "what a client has accepted it is not taken to refuse");
    }
}
