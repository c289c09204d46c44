//! Load reports over a real socket, with a client that is written by hand and keeps (or breaks) the rules.

mod client;

use std::time::Duration;

use client::{Client, SENDS_ALL, commit, request, serve, stats, wait_until};
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsResponse;
use tidegate_xds::Requests;
use tonic::Code;

fn requests(issued: u64, successful: u64, error: u64, dropped: u64) -> Requests {
    Requests { issued, successful, error, dropped }
}

#[tokio::test]
async fn the_server_sets_the_interval_and_wants_every_cluster() {
    let served = serve(&["shop/v1"]).await;
    served.store.load_reports().set_interval(Duration::from_millis(1500));
    let mut client = Client::connect(served.address).await;
    client.send(request("edge", &[SENDS_ALL], vec![])).await;
    let told = client.next().await;
    assert!(told.send_all_clusters && told.clusters.is_empty() && !told.report_endpoint_granularity, "{told:?}");
    let interval = told.load_reporting_interval.unwrap();
    assert_eq!((interval.seconds, interval.nanos), (1, 500_000_000));

    // Too often is not possible, and who is connected is told with the next report.
    served.store.load_reports().set_interval(Duration::ZERO);
    client.send(request("edge", &[], vec![stats("shop/v1", 1, 1, 0, 0)])).await;
    assert_eq!(client.next().await.load_reporting_interval.unwrap().seconds, 1);
    assert_eq!(served.store.load_reports().cluster("shop/v1").unwrap().load.total, requests(1, 1, 0, 0));
}

#[tokio::test]
async fn who_cannot_send_all_is_told_the_names_as_they_come_and_go() {
    let served = serve(&["shop/v1"]).await;
    let mut client = Client::connect(served.address).await;
    client.send(request("edge", &["other.feature"], vec![])).await;
    let told = client.next().await;
    assert_eq!((told.send_all_clusters, told.clusters), (false, vec!["shop/v1".to_owned()]));
    commit(&served.store, &["shop/v2"]);
    client.send(request("edge", &[], vec![stats("shop/v1", 2, 1, 1, 0)])).await;
    assert_eq!(client.next().await.clusters, ["shop/v1", "shop/v2"]);
    // Nothing new, no answer.
    client.send(request("edge", &[], vec![stats("shop/v2", 1, 1, 0, 0)])).await;
    wait_until(|| served.store.load_reports().cluster("shop/v2").is_some()).await;
    client.silent().await;
}

#[tokio::test]
async fn figures_add_up_over_clients_and_outlive_them() {
    let served = serve(&["shop/v1"]).await;
    let reports = served.store.load_reports();
    let mut changes = reports.changes();
    let mut clients = Vec::new();
    for node in ["one", "two"] {
        let mut client = Client::connect(served.address).await;
        client.send(request(node, &[SENDS_ALL], vec![])).await;
        client.next().await;
        let busy = vec![stats("shop/v1", 10, 6, 2, 2), stats("tidegate-xds", 1, 0, 0, 1)];
        client.send(request(node, &[], busy)).await;
        clients.push(client);
    }
    wait_until(|| reports.snapshot().reporters.iter().filter(|of| of.reports == 1).count() == 2).await;
    assert!(changes.has_changed().unwrap(), "those who wait are told");
    changes.mark_unchanged();
    let seen = reports.snapshot();
    assert_eq!(seen.clusters.len(), 1);
    let shop = &seen.clusters[0];
    assert_eq!((shop.load.total, shop.load.in_progress, shop.reporters), (requests(20, 12, 4, 0), 4, 2));
    assert_eq!(seen.other.issued, 2);
    assert_eq!(seen.reporters.iter().map(|of| &*of.node_id).collect::<Vec<_>>(), ["one", "two"]);
    assert!(shop.oldest <= shop.newest && seen.since <= shop.oldest.unwrap());

    drop(clients.remove(0));
    wait_until(|| reports.snapshot().reporters.len() == 1).await;
    assert!(changes.has_changed().unwrap());
    let shop = reports.cluster("shop/v1").unwrap();
    assert_eq!((shop.load.total, shop.load.in_progress, shop.reporters), (requests(20, 12, 4, 0), 2, 1));
}

/// After a cut, Envoy's first message has what it could not report meanwhile.
#[tokio::test]
async fn the_first_message_of_a_stream_counts_too() {
    let served = serve(&["shop/v1"]).await;
    let mut client = Client::connect(served.address).await;
    client.send(request("edge", &[SENDS_ALL], vec![stats("shop/v1", 5, 5, 0, 0)])).await;
    client.next().await;
    assert_eq!(served.store.load_reports().cluster("shop/v1").unwrap().load.total.issued, 5);
}

#[tokio::test]
async fn streams_are_held_until_the_store_is_open() {
    let served = client::serve_closed().await;
    let mut client = Client::connect(served.address).await;
    client.send(request("edge", &[SENDS_ALL], vec![stats("shop/v1", 5, 5, 0, 0)])).await;
    client.silent().await;
    commit(&served.store, &["shop/v1"]);
    served.store.open();
    assert!(client.next().await.send_all_clusters);
    let seen = served.store.load_reports().snapshot();
    assert_eq!((seen.clusters[0].load.total.issued, seen.other.issued), (5, 0));
}

#[tokio::test]
async fn a_second_stream_of_a_connection_replaces_the_first() {
    let served = serve(&["shop/v1"]).await;
    let mut first = Client::connect(served.address).await;
    first.send(request("edge", &[SENDS_ALL], vec![])).await;
    first.next().await;
    let mut second = first.another().await;
    second.send(request("edge", &[SENDS_ALL], vec![])).await;
    second.next().await;
    assert_eq!(served.store.load_reports().snapshot().reporters.len(), 1);
    first.send(request("edge", &[], vec![stats("shop/v1", 5, 5, 0, 0)])).await;
    assert_eq!(first.end().await.code(), Code::Aborted);
    second.send(request("edge", &[], vec![stats("shop/v1", 7, 7, 0, 0)])).await;
    wait_until(|| served.store.load_reports().cluster("shop/v1").is_some()).await;
    assert_eq!(served.store.load_reports().cluster("shop/v1").unwrap().load.total.issued, 7);
}

#[tokio::test]
async fn a_stream_that_breaks_the_rules_is_ended_and_others_go_on() {
    let served = serve(&["shop/v1"]).await;
    let mut good = Client::connect(served.address).await;
    good.send(request("good", &[SENDS_ALL], vec![])).await;
    good.next().await;

    let mut nameless = Client::connect(served.address).await;
    nameless.send(Default::default()).await;
    assert_eq!(nameless.end().await.code(), Code::InvalidArgument);

    let mut turncoat = Client::connect(served.address).await;
    turncoat.send(request("one", &[SENDS_ALL], vec![])).await;
    turncoat.next().await;
    turncoat.send(request("two", &[], vec![stats("shop/v1", 9, 9, 0, 0)])).await;
    assert_eq!(turncoat.end().await.code(), Code::InvalidArgument);

    let mut long = Client::connect(served.address).await;
    long.send(request("long", &[SENDS_ALL], vec![stats(&"x".repeat(5 << 20), 9, 9, 0, 0)])).await;
    assert_eq!(long.end().await.code(), Code::OutOfRange);

    good.send(request("good", &[], vec![stats("shop/v1", 1, 1, 0, 0)])).await;
    wait_until(|| served.store.load_reports().cluster("shop/v1").is_some()).await;
    let seen = served.store.load_reports().snapshot();
    assert_eq!((seen.clusters[0].load.total.issued, seen.other.issued), (1, 0));
}

#[tokio::test]
async fn shutdown_tells_streams_to_come_back() {
    let served = serve(&[]).await;
    let mut client = Client::connect(served.address).await;
    client.send(request("edge", &[SENDS_ALL], vec![])).await;
    let LoadStatsResponse { send_all_clusters, .. } = client.next().await;
    assert!(send_all_clusters);
    served.shutdown.send(()).unwrap();
    assert_eq!(client.end().await.code(), Code::Unavailable);
    served.serving.await.unwrap().unwrap();
}
