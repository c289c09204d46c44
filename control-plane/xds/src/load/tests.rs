use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::Locality as Place;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterStats, EndpointLoadMetricStats, UpstreamLocalityStats};
use envoy_types::pb::google::protobuf;
use proptest::prelude::*;

use super::accounts::ReporterId;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn requests(issued: u64, successful: u64, error: u64) -> Requests {
    Requests { issued, successful, error, dropped: 0 }
}

fn at(zone: &str, counted: Requests, in_progress: u64) -> UpstreamLocalityStats {
    UpstreamLocalityStats {
        locality: Some(Place { zone: zone.to_owned(), ..Place::default() }),
        total_issued_requests: counted.issued,
        total_successful_requests: counted.successful,
        total_error_requests: counted.error,
        total_requests_in_progress: in_progress,
        ..UpstreamLocalityStats::default()
    }
}

/// Over an interval of two seconds.
fn stats(cluster: &str, localities: Vec<UpstreamLocalityStats>, dropped: u64) -> ClusterStats {
    ClusterStats {
        cluster_name: cluster.to_owned(),
        upstream_locality_stats: localities,
        total_dropped_requests: dropped,
        load_report_interval: Some(protobuf::Duration { seconds: 2, nanos: 0 }),
        ..ClusterStats::default()
    }
}

fn join(accounts: &mut Accounts, node: &str) -> ReporterId {
    accounts.join(Arc::from(node), Arc::from("edge"), None, Duration::ZERO)
}

fn served(name: &str) -> bool {
    name.starts_with("shop/")
}

fn read(accounts: &Accounts, cluster: &str) -> ClusterLoad {
    accounts.cluster(cluster, |at| SystemTime::UNIX_EPOCH + at).expect("it was reported")
}

#[test]
fn reports_add_up_and_the_last_one_is_known() {
    let mut accounts = Accounts::default();
    let edge = join(&mut accounts, "edge");
    let first = [stats("shop/v1", vec![at("a", requests(10, 7, 2), 1), at("b", requests(4, 4, 0), 0)], 3)];
    assert!(accounts.report(edge, &first, served, SECOND));
    let second = [stats("shop/v1", vec![at("a", requests(6, 5, 1), 1)], 0)];
    assert!(accounts.report(edge, &second, served, 3 * SECOND));
    let shop = read(&accounts, "shop/v1");
    assert_eq!(shop.load.total, Requests { dropped: 3, ..requests(20, 16, 3) });
    assert_eq!((shop.load.last, shop.load.in_progress), (requests(6, 5, 1), 1));
    assert!((shop.load.per_second - 3.0).abs() < f64::EPSILON, "6 in 2 s");
    let localities: Vec<_> = shop.localities.iter().map(|(at, of)| (&*at.zone, of.total, of.last.issued)).collect();
    assert_eq!(localities, [("a", requests(16, 12, 3), 6), ("b", requests(4, 4, 0), 0)]);
    assert_eq!((shop.reporters, shop.oldest, shop.newest.map(|at| at - 3 * SECOND)), {
        (1, shop.newest, Some(SystemTime::UNIX_EPOCH))
    });
    assert_eq!(shop.load.total.success_rate(), Some(16.0 / 19.0));
    assert_eq!(Requests::default().success_rate(), None);
}

#[test]
fn who_leaves_takes_its_requests_under_way_along_and_nothing_else() {
    let mut accounts = Accounts::default();
    let (one, two) = (join(&mut accounts, "one"), join(&mut accounts, "two"));
    for id in [one, two] {
        accounts.report(id, &[stats("shop/v1", vec![at("", requests(10, 4, 1), 5)], 2)], served, SECOND);
    }
    assert_eq!(read(&accounts, "shop/v1").load.in_progress, 10);
    accounts.leave(one);
    let shop = read(&accounts, "shop/v1");
    assert_eq!(shop.load.total, Requests { dropped: 4, ..requests(20, 8, 2) });
    assert_eq!((shop.load.in_progress, shop.load.last.issued, shop.reporters), (5, 10, 1));
    accounts.leave(two);
    let shop = read(&accounts, "shop/v1");
    assert_eq!(shop.load.total, Requests { dropped: 4, ..requests(20, 8, 2) });
    assert_eq!((shop.load.in_progress, shop.load.last, shop.reporters, shop.newest), {
        (0, Requests::default(), 0, None)
    });
    assert!(!accounts.report(two, &[], served, SECOND), "it has left");
}

#[test]
fn a_cluster_that_is_named_without_traffic_or_not_at_all_has_nothing_under_way() {
    let mut accounts = Accounts::default();
    let edge = join(&mut accounts, "edge");
    let busy = |name| stats(name, vec![at("", requests(5, 2, 0), 3)], 0);
    accounts.report(edge, &[busy("shop/v1"), busy("shop/v2")], served, SECOND);
    accounts.report(edge, &[stats("shop/v1", vec![], 0)], served, 2 * SECOND);
    for (name, reporters) in [("shop/v1", 1), ("shop/v2", 0)] {
        let shop = read(&accounts, name);
        assert_eq!((shop.load.in_progress, shop.load.last, shop.reporters), (0, Requests::default(), reporters));
        assert_eq!(shop.load.total.issued, 5, "{name}");
    }
}

#[test]
fn one_stream_of_a_connection_counts() {
    let mut accounts = Accounts::default();
    let peer = Some(([127, 0, 0, 1], 7).into());
    let first = accounts.join(Arc::from("edge"), Arc::default(), peer, SECOND);
    let busy = [stats("shop/v1", vec![at("", requests(5, 2, 0), 3)], 0)];
    assert!(accounts.report(first, &busy, served, SECOND));
    let second = accounts.join(Arc::from("edge"), Arc::default(), peer, SECOND);
    assert!(!accounts.report(first, &busy, served, SECOND));
    assert!(accounts.report(second, &busy, served, SECOND));
    let shop = read(&accounts, "shop/v1");
    assert_eq!((shop.load.total.issued, shop.load.in_progress, shop.reporters), (10, 3, 1));
}

#[test]
fn what_clients_say_is_bounded() {
    let mut accounts = Accounts::default();
    let edge = join(&mut accounts, "edge");
    let strange = (0..1000).map(|n| stats(&format!("no/{n}"), vec![at("", requests(1, 1, 0), 1)], 1));
    accounts.report(edge, &strange.collect::<Vec<_>>(), served, SECOND);
    assert_eq!(accounts.other(), Requests { dropped: 1000, ..requests(1000, 1000, 0) });
    assert!(accounts.clusters(|at| SystemTime::UNIX_EPOCH + at).is_empty());

    let long = "é".repeat(1000);
    let places = (0..1000).map(|n| {
        let metric = |n: u32| EndpointLoadMetricStats {
            metric_name: format!("{n}{long}"),
            num_requests_finished_with_metric: u64::MAX,
            total_metric_value: if n == 0 { f64::NAN } else { 1.0 },
        };
        let load_metric_stats = (0..100).map(metric).collect();
        UpstreamLocalityStats { load_metric_stats, ..at(&format!("{n}{long}"), requests(1, 1, 0), 1) }
    });
    let never = protobuf::Duration { seconds: -1, nanos: i32::MAX };
    let hostile = ClusterStats { load_report_interval: Some(never), ..stats("shop/v1", places.collect(), 0) };
    accounts.report(edge, &[hostile], served, SECOND);
    let shop = read(&accounts, "shop/v1");
    assert_eq!(shop.localities.len(), 65);
    assert!(shop.localities.iter().all(|(at, _)| at.zone.len() <= 256));
    assert_eq!((&*shop.localities[64].0.zone, shop.localities[64].1.total.issued), ("other", 1000 - 64));
    assert_eq!(shop.load.total.issued, 1000);
    assert_eq!((shop.load.metrics.len(), shop.load.metrics[0].1.total), (32, 0.0));
    assert!(shop.load.per_second.abs() < f64::EPSILON, "no interval, no rate");

    let most = requests(u64::MAX, u64::MAX, u64::MAX);
    for _ in 0..2 {
        accounts.report(edge, &[stats("shop/v2", vec![at("", most, u64::MAX); 2], u64::MAX)], served, SECOND);
    }
    let shop = read(&accounts, "shop/v2");
    assert_eq!(
        (shop.load.total.issued, shop.load.total.dropped, shop.load.in_progress),
        (u64::MAX, u64::MAX, u64::MAX)
    );
}

#[test]
fn an_account_outlives_its_cluster_for_a_while_and_is_not_lost_then() {
    let mut accounts = Accounts::default();
    let edge = join(&mut accounts, "edge");
    accounts.report(edge, &[stats("shop/v1", vec![at("", requests(5, 4, 1), 0)], 2)], served, SECOND);
    let nothing = |_: &str| false;
    // What was on its way when the cluster was withdrawn is still its own.
    accounts.report(edge, &[stats("shop/v1", vec![at("", requests(1, 1, 0), 0)], 0)], nothing, 100 * SECOND);
    assert_eq!(read(&accounts, "shop/v1").load.total.issued, 6);
    accounts.report(edge, &[stats("none", vec![], 0)], nothing, 699 * SECOND);
    assert_eq!(accounts.other(), Requests::default());
    accounts.report(edge, &[stats("none", vec![], 0)], nothing, 800 * SECOND);
    assert_eq!(accounts.other(), Requests { dropped: 2, ..requests(6, 5, 1) });
    assert!(accounts.cluster("shop/v1", |at| SystemTime::UNIX_EPOCH + at).is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Join,
    /// Of one of those who joined: cluster, zone, issued, successful, error, dropped, in progress.
    Report(prop::sample::Index, Vec<(usize, usize, u64, u64, u64, u64, u64)>),
    Leave(prop::sample::Index),
}

const CLUSTERS: [&str; 4] = ["shop/v1", "shop/v2", "shop/v3", "nobody's"];

fn step() -> impl Strategy<Value = Step> {
    let count = || prop_oneof![0..1000_u64, Just(u64::MAX / 3)];
    let part = (0..CLUSTERS.len(), 0..3_usize, count(), count(), count(), count(), count());
    prop_oneof![
        1 => Just(Step::Join),
        6 => (any::<prop::sample::Index>(), prop::collection::vec(part, 1..6)).prop_map(|(of, parts)| Step::Report(of, parts)),
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
    ]
}

proptest! {
    /// Whatever the order of streams: totals are the sum of all that was said, `in_progress` of what those who are there
    /// said last, and a cluster is the sum of its localities.
    #[test]
    fn the_whole_is_the_sum_of_its_parts(steps in prop::collection::vec(step(), 0..60)) {
        let mut accounts = Accounts::default();
        let mut there: Vec<ReporterId> = Vec::new();
        let mut total: BTreeMap<&str, Requests> = BTreeMap::new();
        let mut other = Requests::default();
        let mut under_way: BTreeMap<ReporterId, BTreeMap<&str, u64>> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Join => there.push(join(&mut accounts, "edge")),
                Step::Leave(_) | Step::Report(..) if there.is_empty() => {}
                Step::Leave(index) => {
                    let id = there.remove(index.index(there.len()));
                    accounts.leave(id);
                    under_way.remove(&id);
                }
                Step::Report(index, parts) => {
                    let id = there[index.index(there.len())];
                    let mut now: BTreeMap<&str, u64> = BTreeMap::new();
                    let mut report = Vec::new();
                    for (cluster, zone, issued, successful, error, dropped, in_progress) in parts {
                        let cluster = CLUSTERS[cluster];
                        let said = Requests { issued, successful, error, dropped };
                        if served(cluster) { total.entry(cluster).or_default() } else { &mut other }.add(said);
                        let sum = now.entry(cluster).or_default();
                        *sum = sum.saturating_add(in_progress);
                        report.push(stats(cluster, vec![at(["a", "b", "c"][zone], said, in_progress)], dropped));
                    }
                    under_way.insert(id, now);
                    prop_assert!(accounts.report(id, &report, served, SECOND));
                }
            }
            let said: Vec<_> = accounts.clusters(|at| SystemTime::UNIX_EPOCH + at);
            prop_assert_eq!(said.iter().map(|of| (&*of.name, of.load.total)).collect::<BTreeMap<_, _>>(), total.clone());
            prop_assert_eq!(accounts.other(), other);
            for of in said {
                let now = under_way.values().filter_map(|of_client| of_client.get(&*of.name));
                prop_assert_eq!(of.load.in_progress, now.fold(0_u64, |sum, more| sum.saturating_add(*more)));
                let mut sum = Requests { dropped: of.load.total.dropped, ..Requests::default() };
                of.localities.iter().for_each(|(_, part)| sum.add(part.total));
                prop_assert_eq!(sum, of.load.total);
                prop_assert_eq!(of.reporters, under_way.values().filter(|of_client| of_client.contains_key(&*of.name)).count());
            }
        }
    }
}
