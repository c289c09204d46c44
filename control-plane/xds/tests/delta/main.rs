//! The server in-process on a free port, over a real socket, with a client that is written by hand and keeps (or
//! breaks) the rules of the protocol.

#[path = "../common/client.rs"]
#[expect(dead_code, reason = "the client of the protocol's tests; these speak delta alone")]
mod client;
mod groups;

use std::time::Duration;

use client::{Client, Got, Served, cluster, serve, serve_with, wait_until};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tidegate_xds::ResourceType::{Cluster, Endpoint, Listener, Route, Runtime};
use tidegate_xds::{AcceptanceState, ClientEvent, Commit, ServerConfig, Store, Subscribed};
use tonic::Code;

fn commit(store: &Store, names: &[&str], content: &str) {
    let mut commit = Commit::default();
    for name in names {
        commit.upsert(Cluster, *name, &cluster(name, content));
    }
    store.commit(commit);
}

#[tokio::test]
async fn first_sync_then_updates_then_removal() {
    let Served { store, address, .. } = serve().await;
    commit(&store, &["a", "b"], "1");
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    let got = client.next().await;
    assert_eq!(got.names(), ["a", "b"]);
    client.ack(&got).await;

    commit(&store, &["b"], "2");
    let got = client.next().await;
    assert_eq!(got.names(), ["b"]);
    assert_eq!(got.resources[0].version, store.version(Cluster, "b").unwrap().to_string());
    client.ack(&got).await;

    let mut removal = Commit::default();
    removal.remove(Cluster, "a");
    store.commit(removal);
    assert_eq!(client.next().await.removed_resources, ["a"]);
}

#[tokio::test]
async fn streams_are_held_until_the_store_is_open() {
    let Served { store, address, .. } = serve().await;
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    client.silent().await;
    commit(&store, &["a"], "1");
    client.silent().await;
    store.open();
    assert_eq!(client.next().await.names(), ["a"]);
}

#[tokio::test]
async fn what_is_gone_goes_after_the_routes_that_a_client_asks_for_next() {
    let Served { store, address, .. } = serve().await;
    let mut client = Client::connect(address, "edge-1").await;
    store.open();
    client.reconnect(Cluster, &[], &[("gone", "0000000000000001")]).await;
    let clusters = client.next().await;
    assert_eq!((clusters.resource_type(), clusters.removed_resources.len()), (Cluster, 0));
    client.ack(&clusters).await;
    client.subscribe(Listener, &[]).await;
    client.subscribe(Route, &["web"]).await;
    let listeners = client.next().await;
    client.ack(&listeners).await;
    let routes = client.next().await;
    assert_eq!(routes.removed_resources, ["web"]);
    client.ack(&routes).await;
    assert_eq!(client.next().await.removed_resources, ["gone"]);
}

#[tokio::test]
async fn one_encoding_serves_every_stream() {
    let Served { store, address, .. } = serve().await;
    store.open();
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = Client::connect(address, &format!("edge-{number}")).await;
        client.subscribe(Cluster, &[]).await;
        let got = client.next().await;
        client.ack(&got).await;
        clients.push(client);
    }
    let before = store.counters();
    commit(&store, &["a"], "1");
    for client in &mut clients {
        let got = client.next().await;
        assert_eq!(got.names(), ["a"]);
        client.ack(&got).await;
    }
    let after = store.counters();
    assert_eq!(after.encodes - before.encodes, 1);
    assert_eq!(after.responses - before.responses, 20);
    assert_eq!(after.wakes - before.wakes, 20);
}

#[tokio::test]
async fn equal_content_wakes_nobody() {
    let Served { store, address, .. } = serve().await;
    commit(&store, &["a"], "1");
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    let got = client.next().await;
    client.ack(&got).await;
    let mut same = Commit::default();
    same.upsert(Cluster, "a", &cluster("a", "1"));
    let committed = store.commit(same);
    assert!(committed.changed.is_empty());
    assert_eq!(store.counters().wakes, 0);
    client.silent().await;
}

#[tokio::test]
async fn an_update_of_another_type_does_not_wake_a_stream() {
    let Served { store, address, .. } = serve().await;
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Listener, &[]).await;
    let got = client.next().await;
    client.ack(&got).await;
    commit(&store, &["a"], "1");
    assert_eq!(store.counters().wakes, 0);
}

#[tokio::test]
async fn acceptance_follows_the_client() {
    let Served { store, address, .. } = serve().await;
    commit(&store, &["a"], "1");
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    let got = client.next().await;
    let acceptance = store.acceptance(Cluster, "a");
    assert_eq!((&*acceptance[0].node_id, &acceptance[0].state), ("edge-1", &AcceptanceState::Sent));
    client.ack(&got).await;
    wait_until(|| matches!(store.acceptance(Cluster, "a")[0].state, AcceptanceState::Accepted { .. })).await;
    let published = store.published(Cluster, "a").unwrap();
    let AcceptanceState::Accepted { at } = store.acceptance(Cluster, "a")[0].state else { panic!("accepted") };
    assert!(at >= published.committed_at);
    assert!(store.acceptance(Cluster, "unpublished").is_empty());

    commit(&store, &["a"], "bad");
    let got = client.next().await;
    client.nack(&got, "no such thing").await;
    wait_until(|| match &store.acceptance(Cluster, "a")[0].state {
        AcceptanceState::Rejected { message, .. } => &**message == "no such thing",
        _ => false,
    })
    .await;
    let fallback = client.next().await;
    assert_eq!(fallback.contents(), ["1"], "the last accepted one, for it may have none");
    client.ack(&fallback).await;
    client.silent().await;

    let status = &store.clients()[0];
    assert_eq!((&*status.node.id, &*status.node.cluster, &*status.node.user_agent), ("edge-1", "edge", "test 1.2.3"));
    assert!(!status.is_synced());
    let clusters = &status.types[0];
    assert_eq!((clusters.resource_type, clusters.subscribed), (Cluster, Subscribed::Everything));
    assert_eq!(&*clusters.rejected[0].name, "a");
}

#[tokio::test]
async fn events_tell_the_story() {
    let Served { store, address, .. } = serve().await;
    let mut events = store.events();
    commit(&store, &["a"], "1");
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    let got = client.next().await;
    client.ack(&got).await;
    commit(&store, &["a"], "2");
    let got = client.next().await;
    client.nack(&got, "no").await;
    assert!(matches!(events.recv().await, Some(ClientEvent::Connected { node, .. }) if &*node.id == "edge-1"));
    assert!(matches!(events.recv().await, Some(ClientEvent::Accepted { resource_type: Cluster, sequence: 2, .. })));
    let version = store.version(Cluster, "a").unwrap();
    match events.recv().await {
        Some(ClientEvent::Rejected { resources, message, .. }) => {
            assert_eq!((&*resources[0].0, resources[0].1, &*message), ("a", version, "no"));
        }
        other => panic!("a rejection: {other:?}"),
    }
    drop(client);
    assert!(matches!(events.recv().await, Some(ClientEvent::Disconnected { .. })));
    assert!(store.clients().is_empty());
}

#[tokio::test]
async fn a_slow_client_delays_nobody_and_gets_the_newest_state() {
    let Served { store, address, .. } = serve().await;
    store.open();
    let mut slow = Client::connect(address, "slow").await;
    slow.subscribe(Cluster, &[]).await;
    let mut quick = Client::connect(address, "quick").await;
    quick.subscribe(Cluster, &[]).await;
    let got = quick.next().await;
    quick.ack(&got).await;
    let first = slow.next().await;
    // Far more than the connection's windows hold, and the slow client neither reads nor answers.
    let content = "x".repeat(100_000);
    for round in 0..50 {
        commit(&store, &["a"], &format!("{content}{round}"));
        let got = quick.next().await;
        quick.ack(&got).await;
    }
    slow.ack(&first).await;
    let got = slow.next().await;
    assert_eq!(got.resources[0].version, store.version(Cluster, "a").unwrap().to_string());
    slow.ack(&got).await;
    slow.silent().await;
}

#[tokio::test]
async fn withdrawals_reach_a_slow_client_however_many_there_were() {
    let Served { store, address, .. } = serve().await;
    let names: Vec<String> = (0..1000).map(|number| format!("cluster-{number:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    commit(&store, &names, "1");
    store.open();
    let mut slow = Client::connect(address, "slow").await;
    slow.subscribe(Cluster, &[]).await;
    let first = slow.next().await;
    assert_eq!(first.resources.len(), 1000);
    for name in &names {
        let mut removal = Commit::default();
        removal.remove(Cluster, *name);
        store.commit(removal);
    }
    slow.ack(&first).await;
    assert_eq!(slow.next().await.removed_resources.len(), 1000);
}

#[tokio::test]
async fn long_responses_are_cut() {
    let Served { store, address, .. } =
        serve_with(ServerConfig { max_response_bytes: 10_000, ..ServerConfig::default() }).await;
    let names: Vec<String> = (0..100).map(|number| format!("cluster-{number:02}")).collect();
    commit(&store, &names.iter().map(String::as_str).collect::<Vec<_>>(), &"x".repeat(1000));
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let got = client.next().await;
        assert!(got.resources.len() < 10);
        seen.extend(got.names());
        client.ack(&got).await;
    }
    assert_eq!(seen, names);
}

#[tokio::test]
async fn a_stream_goes_on_when_an_answer_does_not_come() {
    let Served { store, address, .. } =
        serve_with(ServerConfig { ack_timeout: Duration::from_millis(100), ..ServerConfig::default() }).await;
    commit(&store, &["a"], "1");
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    client.next().await;
    commit(&store, &["a"], "2");
    assert_eq!(client.next().await.names(), ["a"]);
}

#[tokio::test]
async fn an_unknown_type_is_answered_and_the_stream_lives() {
    let Served { store, address, .. } = serve().await;
    commit(&store, &["a"], "1");
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    let type_url = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    client
        .send(DeltaDiscoveryRequest {
            type_url: type_url.to_owned(),
            resource_names_subscribe: vec!["cert".to_owned()],
            ..Default::default()
        })
        .await;
    let got = client.next().await;
    assert_eq!((got.type_url.as_str(), got.removed_resources.as_slice()), (type_url, &["cert".to_owned()][..]));
    client.ack(&got).await;
    client.subscribe(Cluster, &[]).await;
    assert_eq!(client.next().await.names(), ["a"]);
}

#[tokio::test]
async fn a_broken_request_ends_its_stream_alone() {
    let Served { store, address, .. } = serve().await;
    store.open();
    let mut good = Client::connect(address, "good").await;
    good.subscribe(Cluster, &[]).await;
    let got = good.next().await;
    good.ack(&got).await;
    let mut bad = Client::connect(address, "bad").await;
    bad.send(DeltaDiscoveryRequest::default()).await;
    let status = bad.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("type_url"), "{status}");
    wait_until(|| store.clients().len() == 1).await;
    commit(&store, &["a"], "1");
    assert_eq!(good.next().await.names(), ["a"]);
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let Served { store, address, .. } = serve().await;
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Runtime, &["layer"]).await;
    client.next().await;
    assert_eq!(store.clients().len(), 1);
    drop(client);
    wait_until(|| store.clients().is_empty()).await;
}

#[tokio::test]
async fn shutdown_tells_the_streams_and_ends_the_server() {
    let Served { store, address, shutdown, serving } = serve().await;
    store.open();
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    client.next().await;
    let mut held = Client::connect(address, "edge-2").await;
    held.subscribe(Endpoint, &["a"]).await;
    held.next().await;
    shutdown.send(()).unwrap();
    assert_eq!(client.end().await.code(), Code::Unavailable);
    assert_eq!(held.end().await.code(), Code::Unavailable);
    serving.await.unwrap().unwrap();
    assert!(store.clients().is_empty());
}

#[tokio::test]
async fn shutdown_does_not_wait_for_an_open_store() {
    let Served { address, shutdown, serving, .. } = serve().await;
    let mut client = Client::connect(address, "edge-1").await;
    client.subscribe(Cluster, &[]).await;
    client.silent().await;
    shutdown.send(()).unwrap();
    assert_eq!(client.end().await.code(), Code::Unavailable);
    serving.await.unwrap().unwrap();
}
