use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::config::Config;
use crate::container::Container;
use crate::instance::{Phase, Update};
use crate::testing::{World, config, container, discovered, shop};

const CANARY: &str = "services: { shop: { stable: { version: v1 }, canary: { version: v2, weight: 10, sessionAffinity: { hashOn: [ { header: X-User } ] } } } }";

/// Resources in words: what a reader of Envoy's configuration would look for first.
fn words(changes: &Changes) -> Vec<String> {
    let upserts = changes.upserts.iter().map(|it| say(&it.name, &it.resource) + &whom(&it.audience));
    let mut words: Vec<String> = upserts.collect();
    let removals = changes.removals.iter();
    words.extend(removals.map(|it| format!("remove {:?} {}{}", it.kind, it.name, whom(&it.audience))));
    words.sort();
    words
}

/// Whom it is for, if not for everyone.
fn whom(audience: &Audience) -> String {
    let Audience::Groups(names) = audience else { return String::new() };
    let names = names.iter().map(|name| if name.is_empty() { "-" } else { name.as_str() });
    format!(" @{}", names.collect::<Vec<_>>().join(","))
}

fn say(name: &str, resource: &Resource) -> String {
    match resource {
        Resource::Cluster(_) => format!("CDS {name}"),
        Resource::Endpoint(assignment) => {
            let hosts = assignment.endpoints.iter().flat_map(|l| &l.lb_endpoints).map(|host| {
                let Some(HostIdentifier::Endpoint(endpoint)) = &host.host_identifier else { return "?".to_owned() };
                let Some(Address::SocketAddress(address)) = endpoint.address.as_ref().and_then(|a| a.address.as_ref())
                else {
                    return "?".to_owned();
                };
                let Some(PortSpecifier::PortValue(port)) = address.port_specifier else { return "?".to_owned() };
                let status = HealthStatus::try_from(host.health_status).unwrap().as_str_name().to_lowercase();
                format!("{}:{port} {status}", address.address)
            });
            format!("EDS {name} [{}]", hosts.collect::<Vec<_>>().join(", "))
        }
        Resource::Listener(_) => format!("LDS {name}"),
        Resource::Route(routes) => {
            let hosts = routes.virtual_hosts.iter().map(|host| {
                let routes = host.routes.iter().map(|route| {
                    let path = match route.r#match.as_ref().and_then(|m| m.path_specifier.as_ref()) {
                        Some(PathSpecifier::Prefix(p) | PathSpecifier::PathSeparatedPrefix(p)) => p.as_str(),
                        other => panic!("{other:?}"),
                    };
                    let Some(Action::Route(action)) = &route.action else { panic!("{:?}", route.action) };
                    let to = match &action.cluster_specifier {
                        Some(ClusterSpecifier::Cluster(cluster)) => cluster.clone(),
                        Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted
                            .clusters
                            .iter()
                            .map(|c| format!("{}={}", c.name, c.weight.unwrap_or_default().value))
                            .collect::<Vec<_>>()
                            .join("|"),
                        other => panic!("{other:?}"),
                    };
                    let filtered = if route.typed_per_filter_config.is_empty() { "" } else { " filtered" };
                    format!("{path}->{to}{filtered}")
                });
                let mut routes: Vec<String> = routes.collect();
                routes.dedup();
                format!("{}({})", host.domains.join(","), routes.join(" "))
            });
            format!("RDS {name} {}", hosts.collect::<Vec<_>>().join(" "))
        }
        Resource::ExtensionConfig(_) => format!("ECDS {name}"),
        Resource::Runtime(layer) => {
            let fields = layer.layer.iter().flat_map(|s| &s.fields).map(|(key, value)| match value.kind {
                Some(prost_types::value::Kind::NumberValue(n)) => format!("{key}={n}"),
                _ => format!("{key}=?"),
            });
            format!("RTDS {name} {}", fields.collect::<Vec<_>>().join(" "))
        }
    }
}

#[test]
fn a_service_with_one_version() {
    let mut world = World::with(Config::default(), &[shop("a", 2, "v1"), shop("b", 3, "v1")]);
    assert_eq!(
        words(&world.round()),
        [
            "CDS shop/v1",
            "ECDS tidegate",
            "EDS shop/v1 [172.17.0.2:80 healthy, 172.17.0.3:80 healthy]",
            "LDS web",
            "RDS web shop.localhost(/->shop/v1)",
            "RTDS tidegate ",
        ]
    );
}

/// The cluster of that name and the routes of the only host, as they are published.
fn published(changes: &Changes, name: &str) -> (Cluster, Vec<Route>) {
    let of = |name: &str| changes.upserts.iter().find(|upsert| upsert.name == name).map(|upsert| &upsert.resource);
    let routes = changes.upserts.iter().find_map(|upsert| match &upsert.resource {
        Resource::Route(routes) => Some(routes.virtual_hosts[0].routes.clone()),
        _ => None,
    });
    let Some(Resource::Cluster(cluster)) = of(name) else { panic!("no cluster {name}") };
    ((**cluster).clone(), routes.unwrap())
}

#[test]
fn how_requests_are_handled_is_compiled() {
    let labels = |labels: &[(&str, &str)]| {
        let mut container = shop("a", 2, "v1");
        container.labels.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        published(&World::with(Config::default(), &[container]).round(), "shop/v1")
    };
    let retries = |routes: &[Route]| -> Vec<(String, Option<i64>)> {
        let of = |route: &Route| {
            let Some(Action::Route(action)) = &route.action else { panic!("{route:?}") };
            let policy = action.retry_policy.clone().unwrap();
            (policy.retry_on, policy.per_try_timeout.map(|timeout| timeout.seconds))
        };
        routes.iter().map(of).collect()
    };
    let (plain, routes) = labels(&[]);
    assert!(plain.transport_socket.is_none() && plain.typed_extension_protocol_options.is_empty());
    assert!(plain.lb_config.is_none(), "a newcomer has its full share at once");
    let (safe, all) = (
        "connect-failure,refused-stream,reset-before-request,reset",
        "connect-failure,refused-stream,reset-before-request",
    );
    assert_eq!(retries(&routes), [(safe.to_owned(), None), (all.to_owned(), None)]);

    let (_, routes) = labels(&[("tidegate.retry", "all"), ("tidegate.timeout", "5s")]);
    assert_eq!(retries(&routes), [(safe.to_owned(), Some(5)), (safe.to_owned(), Some(5))]);
    let (_, routes) = labels(&[("tidegate.retry", "off")]);
    assert_eq!(retries(&routes), [(String::new(), None), (String::new(), None)]);
    let (slow, _) = labels(&[("tidegate.slowstart", "30s")]);
    assert!(slow.lb_config.is_some());
}

#[test]
fn a_canary_has_its_weight_by_rtds_and_the_safe_default_in_its_route() {
    let mut world = World::with(config(CANARY), &[shop("a", 2, "v1"), shop("b", 3, "v2")]);
    assert_eq!(
        words(&world.round()),
        [
            "CDS shop/v1",
            "CDS shop/v2",
            "CDS shop/v2+spill",
            "ECDS tidegate",
            "EDS shop/v1 [172.17.0.2:80 healthy]",
            "EDS shop/v2 [172.17.0.3:80 healthy]",
            "LDS web",
            "RDS web shop.localhost(/->shop/v1=10000|shop/v2+spill=0 filtered)",
            "RTDS tidegate tg.shop.shop/v1=9000 tg.shop.shop/v2+spill=1000",
        ]
    );
    world.configure(&CANARY.replace("weight: 10", "weight: 50"));
    assert_eq!(
        words(&world.round()),
        ["RTDS tidegate tg.shop.shop/v1=5000 tg.shop.shop/v2+spill=5000"],
        "a weight costs a layer"
    );
    world.check(&shop("b", 3, "v2"), false);
    assert_eq!(words(&world.round()), ["EDS shop/v2 []"], "readiness never touches weights");
}

#[test]
fn a_version_appears_and_goes_without_a_listener_update() {
    let (a, b) = (shop("a", 2, "v1"), shop("b", 3, "v2"));
    let mut world = World::with(Config::default(), std::slice::from_ref(&a));
    world.round();
    world.upsert(&b);
    world.round();
    world.check(&b, true);
    assert_eq!(
        words(&world.round()),
        ["EDS shop/v2 [172.17.0.3:80 healthy]", "RTDS tidegate tg.shop.shop/v1=5000 tg.shop.shop/v2=5000"]
    );
    world.update(Update::Remove(a.id));
    assert_eq!(
        words(&world.round()),
        ["RDS web shop.localhost(/->shop/v2)", "RTDS tidegate ", "remove Cluster shop/v1", "remove Endpoint shop/v1",]
    );
}

#[test]
fn what_is_being_stopped_drains_and_serves_on_only_when_nothing_else_is_left() {
    let (a, b) = (shop("a", 2, "v1"), shop("b", 3, "v1"));
    let mut world = World::with(Config::default(), &[a.clone(), b.clone()]);
    world.round();
    let stop = |world: &mut World, c: &Container| {
        let mut stopping = discovered(c);
        stopping.terminating = Some(world.now.after(std::time::Duration::from_secs(12)));
        world.update(Update::Upsert(Box::new(stopping)));
        words(&world.round())
    };
    assert_eq!(stop(&mut world, &a), ["EDS shop/v1 [172.17.0.2:80 draining, 172.17.0.3:80 healthy]"]);
    assert_eq!(stop(&mut world, &b), ["EDS shop/v1 [172.17.0.2:80 healthy, 172.17.0.3:80 healthy]"]);
    // A canary has stable behind it, and spills at once.
    let mut world = World::with(config(CANARY), &[a, b, shop("c", 4, "v2")]);
    world.round();
    assert_eq!(stop(&mut world, &shop("c", 4, "v2")), ["EDS shop/v2 [172.17.0.4:80 draining]"]);
}

#[test]
fn once_stable_has_no_instance_the_default_is_the_canary() {
    let mut world = World::with(config(CANARY), &[shop("b", 3, "v2")]);
    let all = words(&world.round()).join("\n");
    assert!(all.contains("shop/v1=0|shop/v2+spill=10000"), "{all}");
    assert!(all.contains("tg.shop.shop/v1=9000"), "the live weights stay what they were told to be: {all}");
}

#[test]
fn paths_of_one_host_are_matched_longest_first() {
    let containers = [("a", 2, "/"), ("b", 3, "/api/v2"), ("c", 4, "/api")]
        .map(|(name, ip, path)| container(name, ip, &[("tidegate.host", "x.localhost"), ("tidegate.path", path)]));
    let mut world = World::with(Config::default(), &containers);
    let all = words(&world.round()).join("\n");
    assert!(all.contains("x.localhost(/api/v2->b/default /api->c/default /->a/default)"), "{all}");
}

#[test]
fn a_crash_of_the_filter_costs_one_fresh_policy() {
    let mut world = World::with(config(CANARY), &[shop("a", 2, "v1"), shop("b", 3, "v2")]);
    world.round();
    world.apply(crate::Input::FilterCrashed);
    let all = words(&world.round());
    assert!(all.contains(&"ECDS tidegate".to_owned()), "{all:?}");
}

#[test]
fn a_bad_service_leaves_all_others_as_they_are() {
    let mut world = World::with(Config::default(), &[shop("a", 2, "v1")]);
    world.round();
    world.upsert(&container("bad", 9, &[("tidegate.host", "bad host!"), ("tidegate.prot", "80")]));
    world.upsert(&container("late", 8, &[("tidegate.host", "shop.localhost")]));
    let changes = words(&world.round());
    assert!(changes.iter().all(|change| change.contains("late/default")), "{changes:?}");
}

#[test]
fn touching_one_of_many_services_compiles_one() {
    let containers: Vec<Container> = (0..200_u8)
        .map(|i| container(&format!("s{i}"), i.max(2), &[("tidegate.host", format!("s{i}.localhost").leak())]))
        .collect();
    let mut world = World::with(Config::default(), &containers);
    world.round();
    world.check(&containers[77], false);
    assert_eq!(words(&world.round()), ["EDS s77/default []"]);
}

/// The bytes that Envoy is sent, by kind and name.
fn encoded(changes: &Changes) -> BTreeMap<(&'static str, String), Vec<u8>> {
    let bytes = |Upsert { name, resource, .. }: &Upsert| {
        let (kind, bytes) = match resource {
            Resource::Cluster(message) => ("CDS", message.encode_to_vec()),
            Resource::Endpoint(message) => ("EDS", message.encode_to_vec()),
            Resource::Listener(message) => ("LDS", message.encode_to_vec()),
            Resource::Route(message) => ("RDS", message.encode_to_vec()),
            Resource::ExtensionConfig(message) => ("ECDS", message.encode_to_vec()),
            Resource::Runtime(message) => ("RTDS", message.encode_to_vec()),
        };
        ((kind, name.clone()), bytes)
    };
    changes.upserts.iter().map(bytes).collect()
}

/// A version is the hash of these bytes, and a restart or a replica must come to the same. Protobuf's maps are hash maps here,
/// and each hash map of a thread has other keys, as in another process: one with two entries would be found out by chance
/// within two rounds, and is missed by all with one in 2^31.
#[test]
fn equal_facts_give_equal_bytes_whatever_the_hashers_keys() {
    let text = format!(
        "{CANARY}\nedge: {{ listeners: [ {{ name: web, address: \"127.0.0.1:1\" }}, \
         {{ name: more, address: \"127.0.0.1:2\" }} ] }}\n"
    );
    let cart = container("cart", 5, &[("tidegate.host", "cart.localhost,shop.example"), ("tidegate.path", "/cart")]);
    let facts =
        || World::with(config(&text), &[shop("a", 2, "v1"), shop("b", 3, "v2"), shop("c", 4, "v3"), cart.clone()]);
    let round = || encoded(&facts().round());
    let first = round();
    let kinds: BTreeSet<&str> = first.keys().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    for _ in 0..31 {
        let again = round();
        let other: Vec<_> =
            first.iter().filter(|(key, bytes)| again.get(*key) != Some(*bytes)).map(|(key, _)| key).collect();
        assert!(other.is_empty() && again.len() == first.len(), "other bytes for {other:?}");
    }
}

#[test]
fn an_ecds_resource_says_where_the_filters_code_is() {
    let changes = World::with(Config::default(), &[]).round();
    let encoded = encoded(&changes);
    let resource = &encoded[&("ECDS", TIDEGATE.to_owned())];
    assert_eq!(filter_code(resource).as_deref(), Some("/state/filter.wasm"));
    assert_eq!(filter_code(&encoded[&("LDS", "web".to_owned())]), None);
    assert_eq!(filter_code(&resource[..resource.len() / 2]), None);
}

#[test]
fn what_takes_an_endpoint_out_is_urgent_and_what_brings_one_is_not() {
    let shop = shop("a", 10, "v1");
    let mut world = World::with(Config::default(), &[]);
    world.round();
    world.upsert(&shop);
    world.check(&shop, true);
    assert!(!world.round().urgent);
    world.check(&shop, false);
    assert!(world.round().urgent);
    world.check(&shop, true);
    assert!(!world.round().urgent);
    world.update(Update::Remove(shop.id.clone()));
    assert!(world.round().urgent);
}

mod canary;
mod groups;
