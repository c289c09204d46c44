//! What is written is read back, whatever is damaged is refused, and what a store had is published again.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use proptest::prelude::*;

use super::*;

/// A store with these resources, whose messages may be any bytes.
fn store(resources: &[(ResourceType, &str, &[u8])]) -> Store {
    let store = Store::new();
    store.commit(commit(resources));
    store
}

fn commit(resources: &[(ResourceType, &str, &[u8])]) -> Commit {
    let mut commit = Commit::default();
    for (resource_type, name, message) in resources {
        let encoded = Encoded::of_bytes(*resource_type, name, message);
        commit.put(None, *resource_type, Arc::from(*name), Change::Upsert(encoded));
    }
    commit
}

fn written(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write_to(&mut bytes).unwrap();
    bytes
}

/// With its checksum made right.
fn summed(mut content: Vec<u8>) -> Vec<u8> {
    let sum = xxh3_128(&content);
    content.extend(sum.to_le_bytes());
    content
}

const SHOP: &[(ResourceType, &str, &[u8])] = &[
    (ResourceType::Cluster, "shop/v1", b"cluster"),
    (ResourceType::Endpoint, "shop/v1", b"endpoints"),
    (ResourceType::Listener, "web", b"listener"),
    (ResourceType::Route, "web", b""),
];

fn resources() -> impl Strategy<Value = Vec<(ResourceType, String, Vec<u8>)>> {
    let resource_type = prop::sample::select(ResourceType::ALL.to_vec());
    prop::collection::vec((resource_type, "[a-z/]{0,4}|\\PC{0,8}", prop::collection::vec(any::<u8>(), 0..40)), 0..20)
}

fn borrowed(resources: &[(ResourceType, String, Vec<u8>)]) -> Vec<(ResourceType, &str, &[u8])> {
    resources.iter().map(|(of, name, message)| (*of, name.as_str(), message.as_slice())).collect()
}

proptest! {
    #[test]
    fn what_was_written_is_read_back_and_published_with_the_same_versions(resources in resources()) {
        let original = store(&borrowed(&resources));
        let snapshot = original.snapshot();
        let read = Snapshot::decode(&written(&snapshot)).unwrap();
        prop_assert_eq!(&read, &snapshot);
        let restored = Store::new();
        restored.restore(read.clone());
        for (resource_type, name, version, message) in snapshot.resources(&Group::default()) {
            prop_assert_eq!(restored.version(resource_type, name), Some(version));
            prop_assert_eq!(restored.content(resource_type, name), Some(message.to_vec()));
        }
        prop_assert_eq!(restored.snapshot().len(), read.len());
    }

    #[test]
    fn one_other_bit_or_a_shorter_file_is_refused(
        resources in resources(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = written(&store(&borrowed(&resources)).snapshot());
        let at = at.index(bytes.len());
        let cut = Snapshot::decode(&bytes[..at]);
        prop_assert!(matches!(cut, Err(SnapshotError::Foreign | SnapshotError::Damaged { .. })), "{:?}", cut);
        bytes[at] ^= 1 << bit;
        let flipped = Snapshot::decode(&bytes);
        prop_assert!(matches!(flipped, Err(SnapshotError::Foreign | SnapshotError::Damaged { .. })), "{:?}", flipped);
    }

    /// Also where the checksum happens to be right.
    #[test]
    fn no_bytes_make_it_panic(rest in prop::collection::vec(any::<u8>(), 0..200), known in any::<bool>()) {
        let mut content = MAGIC.to_vec();
        if known {
            content.extend(FORMAT.to_le_bytes());
            content.extend([0; 8]);
        }
        content.extend(rest);
        let _ = Snapshot::decode(&summed(content));
    }
}

#[test]
fn a_whole_file_of_another_format_is_told_from_damage() {
    let mut content = MAGIC.to_vec();
    content.extend((FORMAT + 1).to_le_bytes());
    content.extend(b"whatever comes then");
    assert_eq!(Snapshot::decode(&summed(content)), Err(SnapshotError::Format { found: FORMAT + 1 }));
    assert_eq!(Snapshot::decode(b""), Err(SnapshotError::Foreign));
    assert_eq!(Snapshot::decode(b"xdsstore"), Err(SnapshotError::Damaged { len: 8 }));
}

#[test]
fn names_out_of_order_or_twice_are_no_snapshot() {
    let mut snapshot = store(SHOP).snapshot();
    snapshot.resources.push(snapshot.resources[3].clone());
    assert_eq!(Snapshot::decode(&written(&snapshot)), Err(SnapshotError::Inconsistent));
}

#[test]
fn a_snapshot_shares_the_bytes_that_streams_carry() {
    let store = store(SHOP);
    let snapshot = store.snapshot();
    let views = store.views();
    let tables = views.default_view().tables();
    for stored in &snapshot.resources {
        let entry = tables.table(stored.resource_type).get(&stored.name).unwrap();
        assert_eq!(entry.encoded.fragment.as_ptr(), stored.encoded.fragment.as_ptr());
    }
}

#[test]
fn equal_stores_are_written_alike() {
    let reversed: Vec<_> = SHOP.iter().rev().copied().collect();
    let (one, other) = (store(SHOP).snapshot(), store(&reversed).snapshot());
    let after_time = MAGIC.len() + size_of::<u32>() + size_of::<u64>();
    let of = |snapshot| written(&snapshot).split_off(after_time);
    let (one, other) = (of(one), of(other));
    assert_eq!(one[..one.len() - SUM], other[..other.len() - SUM]);
}

#[test]
fn what_a_typed_commit_says_again_after_a_restore_is_no_change() {
    let cluster = Cluster { name: "shop/v1".to_owned(), ..Cluster::default() };
    let full = || {
        let mut commit = Commit::default();
        commit.upsert(ResourceType::Cluster, "shop/v1", &cluster);
        commit
    };
    let store = Store::new();
    store.commit(full());
    let restored = Store::new();
    restored.restore(store.snapshot());
    assert!(restored.replace(full()).changed.is_empty());
}

#[test]
fn a_replacement_withdraws_what_it_does_not_name() {
    let store = store(SHOP);
    let kept = SHOP[1..3].to_vec();
    let sequence = store.sequence();
    let committed = store.replace(commit(&kept));
    // The route lets go before the cluster goes.
    let gone = [(ResourceType::Route, Arc::from("web")), (ResourceType::Cluster, Arc::from("shop/v1"))];
    assert_eq!(committed.changed, gone);
    assert_eq!(committed.sequence, sequence + 2);
    let names = |snapshot: &Snapshot| {
        snapshot.resources(&Group::default()).map(|(of, name, ..)| (of, name.to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(
        names(&store.snapshot()),
        [(ResourceType::Endpoint, "shop/v1".to_owned()), (ResourceType::Listener, "web".to_owned())]
    );
    store.replace(Commit::default());
    assert!(store.is_empty());
}
