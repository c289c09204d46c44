//! What a server owes every stream, whatever it is asked for.

use tidegate_xds::ResourceType::{Cluster, Endpoint, Listener};
use tidegate_xds::{Commit, ServerConfig, TypeSet};

use crate::client::{Client, Got, Served, Speaks, cluster, commit, serve, serve_with};

both! {
    a_stream_is_held_until_the_store_is_open
    requests_outrank_pushes
    a_slow_client_delays_nobody_and_gets_the_newest_state
    a_request_longer_than_what_grpc_takes_by_default_is_read
    types_without_legacy_wildcard_are_those_that_the_server_says
    a_cluster_comes_before_what_names_it_and_leaves_after
}

async fn a_stream_is_held_until_the_store_is_open<V: Speaks>() {
    let Served { store, address, .. } = serve().await;
    let mut client = Client::<V>::open(address, "edge-1", None).await;
    client.subscribe(Cluster, &[]).await;
    client.silent().await;
    commit(&store, Cluster, &["a"], "1");
    client.silent().await;
    store.open();
    assert_eq!(client.next().await.names(), ["a"]);
}

async fn requests_outrank_pushes<V: Speaks>() {
    let Served { store, address, .. } = serve().await;
    commit(&store, Cluster, &["a"], "1");
    commit(&store, Endpoint, &["a"], "1");
    commit(&store, Listener, &["web"], "1");
    let mut client = Client::<V>::open(address, "edge-1", None).await;
    // All wait at the server when it opens. Had it pushed after the first, it would have begun with the listeners.
    client.subscribe(Listener, &[]).await;
    client.subscribe(Endpoint, &["a"]).await;
    client.subscribe(Cluster, &[]).await;
    client.silent().await;
    store.open();
    assert_eq!(client.next().await.resource_type(), Cluster);
    assert_eq!(client.next().await.resource_type(), Endpoint);
}

async fn a_slow_client_delays_nobody_and_gets_the_newest_state<V: Speaks>() {
    let Served { store, address, .. } = serve().await;
    store.open();
    let mut slow = Client::<V>::open(address, "slow", None).await;
    slow.subscribe(Cluster, &[]).await;
    let mut quick = Client::<V>::open(address, "quick", None).await;
    quick.subscribe(Cluster, &[]).await;
    let got = quick.next().await;
    quick.answer(&got, &[], None).await;
    let first = slow.next().await;
    // Far more than the connection's windows hold, and the slow client neither reads nor answers.
    let content = "x".repeat(100_000);
    for round in 0..50 {
        commit(&store, Cluster, &["a"], &format!("{content}{round}"));
        let got = quick.next().await;
        quick.answer(&got, &[], None).await;
    }
    slow.answer(&first, &[], None).await;
    let got = slow.next().await;
    assert_eq!(got.contents(), [format!("{content}49")]);
    slow.answer(&got, &[], None).await;
    slow.silent().await;
}

async fn a_request_longer_than_what_grpc_takes_by_default_is_read<V: Speaks>() {
    let Served { store, address, .. } = serve().await;
    commit(&store, Endpoint, &["a"], "1");
    store.open();
    let mut client = Client::<V>::open(address, "edge-1", None).await;
    let long = "x".repeat(100);
    let names: Vec<String> = (0..50_000).map(|number| format!("{long}{number}")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("a");
    client.subscribe(Endpoint, &names).await;
    // In delta what does not exist is told too, in as many responses as it takes.
    loop {
        let got = client.next().await;
        if got.names() == ["a"] {
            return;
        }
        client.answer(&got, &names, None).await;
    }
}

async fn types_without_legacy_wildcard_are_those_that_the_server_says<V: Speaks>() {
    let legacy_wildcard = TypeSet::of(&[Listener]);
    let Served { store, address, .. } = serve_with(ServerConfig { legacy_wildcard, ..ServerConfig::default() }).await;
    commit(&store, Cluster, &["a"], "1");
    commit(&store, Listener, &["web"], "1");
    store.open();
    let mut client = Client::<V>::open(address, "edge-1", None).await;
    client.subscribe(Cluster, &[]).await;
    client.silent().await;
    client.subscribe(Listener, &[]).await;
    assert_eq!(client.next().await.names(), ["web"]);
    client.subscribe(Cluster, &["*"]).await;
    assert_eq!(client.next().await.names(), ["a"]);
}

async fn a_cluster_comes_before_what_names_it_and_leaves_after<V: Speaks>() {
    let Served { store, address, .. } = serve().await;
    commit(&store, Cluster, &["old"], "1");
    commit(&store, Listener, &["web"], "old");
    store.open();
    let mut client = Client::<V>::open(address, "edge-1", None).await;
    client.subscribe(Cluster, &[]).await;
    let got = client.next().await;
    client.answer(&got, &[], None).await;
    client.subscribe(Listener, &[]).await;
    let got = client.next().await;
    client.answer(&got, &[], None).await;

    let mut change = Commit::default();
    change.upsert(Cluster, "new", &cluster("new", "1"));
    change.upsert(Listener, "web", &cluster("web", "new"));
    change.remove(Cluster, "old");
    store.commit(change);
    let clusters = client.next().await;
    assert!(clusters.resource_type() == Cluster && clusters.names().contains(&"new".to_owned()));
    client.silent().await;
    client.answer(&clusters, &[], None).await;
    let listeners = client.next().await;
    assert_eq!((listeners.resource_type(), listeners.contents()), (Listener, vec!["new".to_owned()]));
    client.silent().await;
    client.answer(&listeners, &[], None).await;
    let clusters = client.next().await;
    assert!(clusters.resource_type() == Cluster && !clusters.names().contains(&"old".to_owned()));
}
