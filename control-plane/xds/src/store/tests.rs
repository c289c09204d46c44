//! The store without any stream, and what it keeps for them.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;

use super::*;
use crate::store::view::MIN_TOMBSTONES;

fn cluster(name: &str, content: &str) -> Cluster {
    Cluster { name: name.to_owned(), alt_stat_name: content.to_owned(), ..Default::default() }
}

fn upsert(store: &Store, name: &str, content: &str) -> Committed {
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Cluster, name, &cluster(name, content));
    store.commit(commit)
}

fn remove(store: &Store, name: &str) -> Committed {
    let mut commit = Commit::default();
    commit.remove(ResourceType::Cluster, name);
    store.commit(commit)
}

#[tokio::test]
async fn a_commit_says_what_really_changed() {
    let store = Store::new();
    assert_eq!(upsert(&store, "a", "1").changed.len(), 1);
    let again = upsert(&store, "a", "1");
    assert_eq!((again.changed.len(), again.encodes), (0, 1));
    assert_eq!(remove(&store, "unknown").changed.len(), 0);
    assert_eq!(remove(&store, "a").changed, [(ResourceType::Cluster, Arc::from("a"))]);
    assert!(store.is_empty());
}

#[tokio::test]
async fn versions_are_those_of_the_content() {
    let (one, two) = (Store::new(), Store::new());
    upsert(&one, "a", "1");
    upsert(&two, "a", "2");
    upsert(&two, "a", "1");
    let version = one.version(ResourceType::Cluster, "a");
    assert!(version.is_some());
    assert_eq!(version, two.version(ResourceType::Cluster, "a"));
}

#[tokio::test]
async fn the_last_word_of_a_commit_counts() {
    let store = Store::new();
    let mut commit = Commit::default();
    commit.upsert(ResourceType::Cluster, "a", &cluster("a", "1"));
    commit.remove(ResourceType::Cluster, "a");
    assert!(store.commit(commit).changed.is_empty());
    assert_eq!(store.len(ResourceType::Cluster), 0);
}

#[tokio::test]
async fn withdrawals_are_forgotten_when_no_stream_needs_them() {
    let store = Store::new();
    for number in 0..10 * MIN_TOMBSTONES {
        let name = format!("cluster-{number}");
        upsert(&store, &name, "1");
        remove(&store, &name);
    }
    assert!(store.views().default_view().tables().table(ResourceType::Cluster).tombstones() <= MIN_TOMBSTONES);
}

#[tokio::test]
async fn a_name_that_comes_back_is_no_longer_withdrawn() {
    let store = Store::new();
    for _ in 0..3 {
        upsert(&store, "a", "1");
        remove(&store, "a");
    }
    assert_eq!(store.views().default_view().tables().table(ResourceType::Cluster).tombstones(), 1);
    upsert(&store, "a", "1");
    assert_eq!(store.views().default_view().tables().table(ResourceType::Cluster).tombstones(), 0);
}
