use super::*;
use crate::testing::service;

const START: Timestamp = Timestamp::from_millis(1_000_000);

fn after(millis: u64) -> Timestamp {
    START.after(Duration::from_millis(millis))
}

fn event(container: &str, detail: &str, published: bool) -> Event {
    Event {
        id: InstanceId {
            container: format!("{container:f<64}"),
            started_at: "then".to_owned(),
            network: "bridge".to_owned(),
            address: ([172, 17, 0, 2], 80).into(),
        },
        container: container.to_owned(),
        service: service("shop"),
        version: VersionName::new("v1").unwrap(),
        cause: Some(Cause { what: "docker kill SIGTERM".to_owned(), at: START }),
        what: What::Draining,
        detail: detail.to_owned(),
        until: None,
        published,
    }
}

fn edge(node: &str, group: &str, accepted: u64) -> EdgeProgress {
    EdgeProgress { node: node.to_owned(), group: group.to_owned(), accepted }
}

fn sees(group: &str, _: &ServiceName) -> bool {
    group != "blind"
}

/// What was written, of how many edges, and when after the start.
type Written = (What, Option<(usize, usize)>, u64);

fn written(journal: &Journal) -> Vec<Written> {
    let short = |entry: &Entry| {
        let edges = entry.edges.map(|edges| (edges.accepted, edges.of));
        (entry.what, edges, entry.at.since(START).as_millis().try_into().unwrap())
    };
    journal.after(0).map(short).collect()
}

#[test]
fn a_change_is_followed_until_every_edge_that_sees_it_has_accepted_it() {
    let mut journal = Journal::default();
    journal.note(event("a", "", true), after(4));
    assert_eq!(journal.last(), 0, "not before it is committed");
    journal.committed(Some(7), after(4));
    let edges = |first, second| [edge("e1", "", first), edge("e2", "", second), edge("e3", "blind", 0)];
    journal.accepted(&edges(6, 6), 7, sees, after(5));
    journal.accepted(&edges(7, 6), 7, sees, after(9));
    assert_eq!(written(&journal), [(What::Draining, None, 4)]);
    journal.accepted(&edges(7, 8), 8, sees, after(11));
    assert_eq!(written(&journal), [(What::Draining, None, 4), (What::Accepted, Some((2, 2)), 11)]);
    let entries: Vec<&Entry> = journal.after(0).collect();
    assert_eq!((entries[1].follows, entries[1].sequence, entries[0].awaited), (Some(1), Some(7), true));
    assert_eq!(journal.deadline(), None);
}

#[test]
fn a_node_with_several_streams_is_one_edge_and_behind_while_one_of_them_is() {
    let mut journal = Journal::default();
    journal.note(event("a", "", true), START);
    journal.committed(Some(7), START);
    journal.accepted(&[edge("e1", "", 7), edge("e1", "", 6)], 7, sees, after(1));
    assert_eq!(written(&journal).len(), 1);
    journal.accepted(&[edge("e1", "", 7), edge("e1", "", 7)], 7, sees, after(2));
    assert_eq!(written(&journal)[1], (What::Accepted, Some((1, 1)), 2));
}

#[test]
fn who_does_not_answer_is_told_after_a_while() {
    let mut journal = Journal::default();
    journal.note(event("a", "", true), START);
    journal.committed(Some(7), START);
    journal.accepted(&[edge("e1", "", 7), edge("e2", "", 3)], 7, sees, after(1));
    assert_eq!(journal.deadline(), Some(after(2_000)));
    journal.expire(after(1_999));
    assert_eq!(written(&journal).len(), 1);
    journal.expire(after(2_000));
    let last = journal.after(1).next().unwrap();
    assert_eq!(last.edges, Some(Edges { accepted: 1, of: 2 }));
    assert_eq!(last.detail, "1 of 2 edge(s) have not answered within 2 s");
}

#[test]
fn a_look_from_before_the_commit_says_nothing_and_no_edge_is_an_answer_too() {
    let mut journal = Journal::default();
    journal.note(event("a", "", true), START);
    journal.note(event("b", "", false), START);
    journal.committed(Some(7), START);
    journal.accepted(&[], 6, sees, after(1));
    assert_eq!(written(&journal).len(), 2);
    journal.accepted(&[], 7, sees, after(2));
    let last = journal.after(2).next().unwrap();
    assert_eq!(
        (last.edges, last.detail.as_str()),
        (Some(Edges { accepted: 0, of: 0 }), "no edge is connected that sees it")
    );
    assert_eq!(
        journal.after(0).filter(|entry| entry.sequence.is_none()).count(),
        1,
        "what changes nothing is not followed"
    );
}

#[test]
fn one_that_never_rests_pushes_out_only_its_own() {
    let mut journal = Journal::default();
    journal.note(event("quiet", "", false), START);
    for number in 0..10_000 {
        journal.note(event("loud", &number.to_string(), false), after(number));
        journal.committed(None, after(number));
    }
    let loud = journal.newest_of(&format!("{:f<64}", "loud"), 3);
    assert_eq!(loud.iter().map(|entry| entry.detail.as_str()).collect::<Vec<_>>(), ["9997", "9998", "9999"]);
    assert_eq!(journal.after(0).filter(|entry| entry.container == "quiet").count(), 1);
    assert_eq!(journal.after(0).count(), MOST_OF_ONE + 1);
    assert_eq!(journal.missed(1, 10_001), 10_000 - 1 - (u64::try_from(MOST_OF_ONE).unwrap() - 1));
    assert_eq!(journal.missed(10_000, 10_001), 0);
}

#[test]
fn count_and_size_are_bounded_and_texts_are_fit_for_a_terminal() {
    let mut journal = Journal::default();
    let long = format!("\u{1b}[2J{}", "é".repeat(100_000));
    for number in 0..20_000 {
        journal.note(event(&format!("c{number}"), &long, true), START);
    }
    journal.committed(Some(1), START);
    assert!(journal.entries.len() <= MOST && journal.bytes <= MOST_BYTES, "{}", journal.bytes);
    assert!(journal.opened <= MOST_OPEN && journal.of_container.len() == journal.entries.len());
    let entry = journal.after(0).next().unwrap();
    assert!(entry.detail.starts_with("\\u{1b}[2J") && entry.detail.ends_with("é…"), "{}", entry.detail);
    let counted: usize = journal.after(0).map(size).sum();
    assert_eq!(counted, journal.bytes);
    journal.expire(after(2_000));
    assert_eq!((journal.opened, journal.deadline()), (0, None));
}

#[test]
fn a_subject_is_a_service_a_name_or_an_id() {
    let mut journal = Journal::default();
    journal.note(event("shop-1", "", false), START);
    journal.committed(None, START);
    let entry = journal.after(0).next().unwrap();
    assert_eq!(entry.subject(), "container shop-1 (shop-1ffffff)");
    let full = format!("{:f<64}", "shop-1");
    for subject in ["shop", "shop-1", "shop-1fff", &full] {
        assert!(entry.is_about(subject), "{subject}");
    }
    for subject in ["", "shop-2", "v1", "hop"] {
        assert!(!entry.is_about(subject), "{subject}");
    }
}
