//! What an update costs, as counts that no machine's speed can change: encodes, streams woken, allocations.

#[path = "common/client.rs"]
#[expect(dead_code, reason = "the client of the protocol's tests; these need less of it")]
mod client;

use std::alloc::System;

use client::{Client, Delta, Got, Served, cluster, serve, wait_until};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidegate_xds::ResourceType::Endpoint;
use tidegate_xds::{Commit, Store};
use tokio::sync::Mutex;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Held by each test, for the allocator counts for the whole process.
static ALONE: Mutex<()> = Mutex::const_new(());

fn name(number: usize) -> String {
    format!("s{number:05}/v1")
}

/// The type of the message does not matter to the store.
fn commit(store: &Store, names: impl IntoIterator<Item = String>, content: &str) {
    let mut commit = Commit::default();
    for name in names {
        let message = cluster(&name, content);
        commit.upsert(Endpoint, name, &message);
    }
    store.commit(commit);
}

/// Takes what comes, in as many responses as it needs, and answers each.
async fn sync(client: &mut Client<Delta>, store: &Store, resources: usize) {
    let mut got = 0;
    while got < resources {
        let response = client.next().await;
        got += response.names().len();
        client.ack(&response).await;
    }
    settled(store).await;
}

async fn settled(store: &Store) {
    wait_until(|| {
        let counters = store.counters();
        counters.responses == counters.accepted
    })
    .await;
}

#[tokio::test]
async fn a_change_is_encoded_once_and_wakes_its_subscribers_and_nobody_else() {
    let _alone = ALONE.lock().await;
    let Served { store, address, .. } = serve().await;
    commit(&store, (0..4).map(name), "1");
    store.open();
    let mut clients = Vec::new();
    for names in [vec![name(0)], vec![name(0), name(1)], vec![name(1)], vec!["*".to_owned()]] {
        let mut client = Client::connect(address, "edge").await;
        client.subscribe(Endpoint, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        sync(&mut client, &store, if names == ["*"] { 4 } else { names.len() }).await;
        clients.push(client);
    }

    for (changed, subscribers) in [(0, [0, 1, 3].as_slice()), (2, &[3]), (1, &[1, 2, 3])] {
        let before = store.counters();
        commit(&store, [name(changed)], "2");
        for subscriber in subscribers {
            let response = clients[*subscriber].next().await;
            assert_eq!(response.names(), [name(changed)]);
            clients[*subscriber].ack(&response).await;
        }
        settled(&store).await;
        let after = store.counters();
        assert_eq!(after.encodes - before.encodes, 1);
        assert_eq!(after.wakes - before.wakes, subscribers.len() as u64, "service {changed}");
        assert_eq!(after.responses - before.responses, subscribers.len() as u64, "service {changed}");
    }
}

/// The fewest allocations, and the fewest bytes, from the commit of a change to its acknowledgement, over some rounds: what
/// buffers and maps do now and then is not in it.
async fn allocations(resources: usize, wildcard: bool) -> (usize, usize) {
    const ROUNDS: usize = 16;
    let Served { store, address, .. } = serve().await;
    let names: Vec<String> = (0..resources).map(name).collect();
    commit(&store, names.iter().cloned(), "00");
    store.open();
    let mut client = Client::connect(address, "edge").await;
    let wanted: Vec<&str> = if wildcard { vec!["*"] } else { names.iter().map(String::as_str).collect() };
    client.subscribe(Endpoint, &wanted).await;
    sync(&mut client, &store, resources).await;

    let mut fewest = (usize::MAX, usize::MAX);
    for round in 1..=ROUNDS {
        let region = Region::new(ALLOCATOR);
        commit(&store, [name(7)], &format!("{round:02}"));
        sync(&mut client, &store, 1).await;
        let change = region.change();
        fewest.0 = fewest.0.min(change.allocations + change.reallocations);
        fewest.1 = fewest.1.min(change.bytes_allocated);
    }
    fewest
}

#[tokio::test]
async fn the_allocations_of_an_update_do_not_grow_with_the_number_of_resources() {
    let _alone = ALONE.lock().await;
    for wildcard in [false, true] {
        let (few, many) = (allocations(100, wildcard).await, allocations(10_000, wildcard).await);
        // One more level of a tree, not one more of anything for each resource.
        assert!(many.0 <= few.0 + 4 && many.1 <= few.1 + 2048, "wildcard {wildcard}: {few:?}, then {many:?}");
    }
}
