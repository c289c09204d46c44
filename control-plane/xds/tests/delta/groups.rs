//! Groups of clients: who gets what, and what becomes of streams when the groups change.

use super::*;
use crate::client::Delta;
use tidegate_xds::{Group, Grouping, Snapshot};

/// Clients by the group that their node's id begins with, `left` or `right`; `moved` is put on the right, too.
fn grouping(moved: &'static str) -> Grouping {
    let groups = ["left", "right"].map(Group::new);
    Grouping::new(groups, move |node| {
        let right = &*node.id == moved || node.id.starts_with("right");
        if right {
            Group::new("right")
        } else if node.id.starts_with("left") {
            Group::new("left")
        } else {
            Group::default()
        }
    })
}

/// `both` for everyone, `left` for the left and the default group, `right` for the right one, `own` with another content each.
fn fill(store: &Store, grouping: Grouping) -> usize {
    let (left, right) = (Group::new("left"), Group::new("right"));
    let mut commit = Commit::default();
    commit.regroup(grouping);
    commit.upsert(Cluster, "both", &cluster("both", "1"));
    commit.upsert_for([&left, &Group::default()], Cluster, "left", &cluster("left", "1"));
    commit.upsert_for([&right], Cluster, "right", &cluster("right", "1"));
    commit.upsert_for([&left, &Group::default()], Cluster, "own", &cluster("own", "of the left"));
    commit.upsert_for([&right], Cluster, "own", &cluster("own", "of the right"));
    store.commit(commit).encodes
}

async fn synced(address: std::net::SocketAddr, id: &str) -> (Client<Delta>, Vec<(String, String)>) {
    let mut client = Client::connect(address, id).await;
    client.subscribe(Cluster, &["*"]).await;
    let got = client.next().await;
    client.ack(&got).await;
    (client, got.resources.into_iter().map(|it| (it.name, it.version)).collect())
}

fn names(held: &[(String, String)]) -> Vec<&str> {
    held.iter().map(|(name, _)| name.as_str()).collect()
}

fn group_of(store: &Store, id: &str) -> Vec<String> {
    store.clients().iter().filter(|it| &*it.node.id == id).map(|it| it.group.to_string()).collect()
}

#[tokio::test]
async fn each_group_has_its_own_and_what_is_shared_is_encoded_once() {
    let Served { store, address, .. } = serve().await;
    assert_eq!(fill(&store, grouping("")), 5, "each resource once, however many groups have it");
    store.open();
    let (mut left, of_left) = synced(address, "left-1").await;
    let (mut right, of_right) = synced(address, "right-1").await;
    let (mut other, of_other) = synced(address, "other").await;
    assert_eq!(names(&of_left), ["both", "left", "own"]);
    assert_eq!(names(&of_right), ["both", "own", "right"]);
    assert_eq!(of_other, of_left);
    assert_ne!(of_left[2], of_right[1], "one name, two contents");
    assert_eq!([group_of(&store, "left-1"), group_of(&store, "other")], [vec!["left".to_owned()], vec![String::new()]]);

    let before = store.counters();
    commit(&store, &["both"], "2");
    for client in [&mut left, &mut right, &mut other] {
        let got = client.next().await;
        assert_eq!(got.names(), ["both"]);
        client.ack(&got).await;
    }
    assert_eq!(store.counters().encodes - before.encodes, 1);

    let before = store.counters();
    let mut only = Commit::default();
    only.upsert_for([&Group::new("right")], Cluster, "right", &cluster("right", "2"));
    store.commit(only);
    let got = right.next().await;
    assert_eq!(got.names(), ["right"]);
    right.ack(&got).await;
    assert_eq!(store.counters().wakes - before.wakes, 1);
    left.silent().await;
    wait_until(|| {
        store.acceptance(Cluster, "right").iter().all(|it| matches!(it.state, AcceptanceState::Accepted { .. }))
    })
    .await;
    let seen: Vec<_> =
        store.acceptance(Cluster, "right").iter().map(|it| (it.node_id.to_string(), it.group.clone())).collect();
    assert_eq!(seen, [("right-1".to_owned(), Group::new("right"))], "the others have no such resource");
}

#[tokio::test]
async fn a_stream_whose_group_changed_ends_and_its_client_comes_back_to_what_the_other_group_has() {
    let Served { store, address, .. } = serve().await;
    fill(&store, grouping(""));
    store.open();
    let (mut moved, held) = synced(address, "left-1").await;
    let (mut left, _) = synced(address, "left-2").await;
    let (mut right, _) = synced(address, "right-1").await;
    let (mut other, _) = synced(address, "other").await;
    wait_until(|| store.clients().iter().all(tidegate_xds::ClientStatus::is_synced)).await;

    let mut regroup = Commit::default();
    regroup.regroup(grouping("left-1"));
    assert_eq!(store.commit(regroup).encodes, 0);
    let status = moved.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("another group"), "{status}");
    for client in [&mut left, &mut right, &mut other] {
        client.silent().await;
    }

    let mut moved = Client::connect(address, "left-1").await;
    let held: Vec<(&str, &str)> = held.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
    moved.reconnect(Cluster, &["*"], &held).await;
    let mut got = moved.next().await;
    let (mut resources, mut removed) = (Vec::new(), Vec::new());
    loop {
        resources.extend(got.names());
        removed.extend(got.removed_resources.clone());
        moved.ack(&got).await;
        if !removed.is_empty() {
            break;
        }
        got = moved.next().await;
    }
    resources.sort();
    assert_eq!((resources, removed), (vec!["own".to_owned(), "right".to_owned()], vec!["left".to_owned()]));
    assert_eq!(group_of(&store, "left-1"), ["right"]);
    // And the streams of the others go on.
    commit(&store, &["both"], "2");
    for client in [&mut moved, &mut left, &mut right, &mut other] {
        assert_eq!(client.next().await.names(), ["both"]);
    }
}

#[tokio::test]
async fn a_group_that_ends_gives_its_clients_to_the_default_one() {
    let Served { store, address, .. } = serve().await;
    fill(&store, grouping(""));
    store.open();
    let (mut right, _) = synced(address, "right-1").await;
    let (mut left, _) = synced(address, "left-1").await;
    let mut regroup = Commit::default();
    regroup.regroup(Grouping::new([Group::new("left")], |node| {
        if node.id.starts_with("left") { Group::new("left") } else { Group::default() }
    }));
    store.commit(regroup);
    assert_eq!(right.end().await.code(), Code::Unavailable);
    left.silent().await;
    assert_eq!(names(&synced(address, "right-1").await.1), ["both", "left", "own"]);
}

#[tokio::test]
async fn what_was_kept_of_each_group_is_served_again_and_replaced_group_by_group() {
    let first = Store::new();
    fill(&first, grouping(""));
    let mut bytes = Vec::new();
    first.snapshot().write_to(&mut bytes).unwrap();

    let Served { store, address, .. } = serve().await;
    let mut regroup = Commit::default();
    regroup.regroup(grouping(""));
    store.commit(regroup);
    store.restore(Snapshot::decode(&bytes).unwrap());
    store.open();
    let (mut left, of_left) = synced(address, "left-1").await;
    let (mut right, of_right) = synced(address, "right-1").await;
    assert_eq!((names(&of_left), names(&of_right)), (vec!["both", "left", "own"], vec!["both", "own", "right"]));

    // The first full picture says the same grouping again, all of the left and less of the right.
    let mut whole = Commit::default();
    whole.regroup(grouping(""));
    whole.upsert(Cluster, "both", &cluster("both", "1"));
    let left_and_default = [&Group::new("left"), &Group::default()];
    whole.upsert_for(left_and_default, Cluster, "left", &cluster("left", "1"));
    whole.upsert_for(left_and_default, Cluster, "own", &cluster("own", "of the left"));
    whole.upsert_for([&Group::new("right")], Cluster, "own", &cluster("own", "of the right"));
    store.replace(whole);
    assert_eq!(right.next().await.removed_resources, ["right"]);
    left.silent().await;
}
