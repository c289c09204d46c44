//! What a canary compiles to: clients that say which version they want, too few ready instances, copies of requests.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::*;
use crate::config::Canary;
use crate::config::canary::{Analysis, Breaker, HeaderOverride, MinReady, Overrides, Step, Wanted, WhenNotReady};

/// `shop` with v1 stable and v2 the canary, as changed.
fn declared(change: impl FnOnce(&mut Canary)) -> Config {
    let mut config = config(CANARY);
    let shop = config.services.values_mut().next().expect("shop is declared");
    change(Arc::make_mut(shop.canary.as_mut().expect("it has a canary")));
    config
}

fn both() -> [Container; 2] {
    [shop("a", 2, "v1"), shop("b", 3, "v2")]
}

/// Those of the service.
fn routes_of(changes: &Changes) -> Vec<Route> {
    let of = |upsert: &Upsert| match &upsert.resource {
        Resource::Route(routes) => Some(routes.virtual_hosts[0].routes.clone()),
        _ => None,
    };
    changes.upserts.iter().find_map(of).expect("routes")
}

/// Each route in words: its name, the headers that it wants, and where it leads.
fn routes(changes: &Changes) -> Vec<String> {
    let say = |route: Route| {
        let wanted = route.r#match.unwrap().headers.into_iter().filter(|header| header.name != ":method");
        let wanted: String = wanted
            .map(|header| {
                let Some(HeaderMatchSpecifier::StringMatch(text)) = header.header_match_specifier else { panic!() };
                match text.match_pattern {
                    Some(MatchPattern::Exact(value)) => format!(" {}={value}", header.name),
                    Some(MatchPattern::SafeRegex(regex)) => format!(" {}~{}", header.name, regex.regex),
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        let Some(Action::Route(action)) = route.action else { panic!("{}", route.name) };
        let to = match action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(cluster)) => cluster,
            Some(ClusterSpecifier::WeightedClusters(_)) => "weights".to_owned(),
            other => panic!("{other:?}"),
        };
        let filtered = if route.typed_per_filter_config.is_empty() { "" } else { " filtered" };
        let copies: String =
            action.request_mirror_policies.iter().map(|copies| format!(" copies to {}", copies.cluster)).collect();
        format!("{}{wanted} -> {to}{filtered}{copies}", route.name)
    };
    routes_of(changes).into_iter().map(say).collect()
}

/// Those of methods that may be repeated, each followed by the same for all others.
fn pairs(routes: &[String]) -> Vec<&str> {
    let pairs = routes.chunks(2).map(|pair| {
        assert_eq!(pair[0].split(" copies").next(), Some(&*pair[1]));
        &*pair[0]
    });
    pairs.collect()
}

#[test]
fn clients_that_say_it_come_before_the_weights() {
    let header = |wanted| Some(HeaderOverride { name: "x-canary".to_owned(), wanted });
    let compiled = |overrides| {
        let changes = World::with(declared(|canary| canary.overrides = overrides), &both()).round();
        routes(&changes)
    };
    let weights = "shop -> weights filtered";
    let all = compiled(Overrides { header: header(Wanted::AlwaysNever), cookie: Some("can.ary".to_owned()) });
    let cookie = |value| format!("cookie~(?:.*;)?\\s*can\\.ary=\"?{value}\"?\\s*(?:;.*)?");
    assert_eq!(
        pairs(&all),
        [
            "shop/stable x-canary=never -> shop/v1",
            "shop/canary x-canary=always -> shop/v2+spill",
            &format!("shop/stable {} -> shop/v1", cookie("never")),
            &format!("shop/canary {} -> shop/v2+spill", cookie("always")),
            weights
        ]
    );
    let secret = compiled(Overrides { header: header(Wanted::Value("s3cret".to_owned())), cookie: None });
    assert_eq!(pairs(&secret), ["shop/canary x-canary=s3cret -> shop/v2+spill", weights]);
    let pattern = compiled(Overrides { header: header(Wanted::Pattern("qa-[0-9]+".to_owned())), cookie: None });
    assert_eq!(pairs(&pattern), ["shop/canary x-canary~qa-[0-9]+ -> shop/v2+spill", weights]);
}

/// What the filter is told.
fn policy(world: &World) -> String {
    let policies = world.compiled_afresh().upserts.into_iter().filter_map(|upsert| match upsert.resource {
        Resource::ExtensionConfig(policy) => Some(String::from_utf8_lossy(&policy.encode_to_vec()).into_owned()),
        _ => None,
    });
    policies.collect()
}

#[test]
fn a_breaker_is_armed_with_its_epoch_and_has_a_route_of_its_own() {
    let mut world = World::with(
        declared(|canary| {
            canary.hash_on.clear();
            canary.breaker = Some(Breaker::default());
            canary.overrides.cookie = Some("canary".to_owned());
        }),
        &both(),
    );
    let routes = routes(&world.round());
    let names: Vec<&str> = pairs(&routes).into_iter().map(|route| route.split(" cookie").next().unwrap()).collect();
    assert_eq!(names[..2], ["shop/stable", "shop/canary"]);
    assert_eq!(names[2..], ["shop x-tg-version=stable -> shop/v1 filtered", "shop -> weights filtered"]);
    let told = policy(&world);
    let (before, after) = told.split_once("\"epoch\":\"").expect("an epoch");
    let (epoch, after) = after.split_once('"').expect("its end");
    assert!(!epoch.is_empty());
    let told = format!("{before}\"epoch\":\"EPOCH\"{after}");
    let expected = "\"versions\":[\"v1\",\"v2\"],\"retryAfterS\":1,\"report\":true,\"breaker\":{\"epoch\":\"EPOCH\",\
                    \"stable\":\"v1\",\"canary\":\"v2\",\"failOn\":[\"5xx\",\"reset\",\"connect-failure\",\"timeout\"],\
                    \"p0\":100,\"p1\":1000,\"h\":13.9,\"minDistinctKeys\":3}";
    assert!(told.contains(expected), "{told}");
    let mut world = World::with(declared(|canary| canary.analysis = Some(Analysis::default())), &both());
    world.round();
    let told = policy(&world);
    assert!(told.contains("\"report\":true") && !told.contains("breaker"), "{told}");
}

#[test]
fn answers_say_their_version_and_are_counted_only_where_somebody_judges_them() {
    for (analysis, counted) in [(None, "\"versions\":[]"), (Some(Analysis::default()), "\"versions\":[\"v1\",\"v2\"]")]
    {
        let mut world = World::with(declared(|canary| canary.analysis = analysis), &both());
        let changes = world.round();
        assert!(routes_of(&changes).iter().all(|route| route.response_headers_to_add.len() == 1));
        let told = policy(&world);
        assert!(told.contains(counted), "{told}");
    }
}

#[test]
fn an_error_is_wanted_where_the_canary_is_not_ready() {
    let changes = World::with(declared(|canary| canary.when_not_ready = WhenNotReady::Error), &both()).round();
    let all = words(&changes).join("\n");
    assert!(all.contains("/->shop/v1=10000|shop/v2=0 filtered") && !all.contains("+spill"), "{all}");
    assert!(all.contains("RTDS tidegate tg.shop.shop/v1=9000 tg.shop.shop/v2=1000"), "{all}");
}

#[test]
fn fewer_than_min_ready_take_no_requests_and_are_not_cut() {
    let config = declared(|canary| canary.min_ready = MinReady::Percent(60));
    let [a, b] = both();
    let (c, d) = (shop("c", 4, "v2"), shop("d", 5, "v2"));
    let mut world = World::with(config, &[a.clone(), b, c.clone(), d.clone()]);
    world.round();
    world.check(&c, false);
    assert_eq!(words(&world.round()), ["EDS shop/v2 [172.17.0.3:80 healthy, 172.17.0.5:80 healthy]"]);
    world.check(&d, false);
    let changes = world.round();
    assert_eq!(words(&changes), ["EDS shop/v2 [172.17.0.3:80 unhealthy]"], "60 % of three are two");
    assert!(changes.urgent);
    let problems = world.problems().join("\n");
    assert!(problems.contains("1 of its instances are ready, and `minReady` asks for 2"), "{problems}");
    // With stable gone, too, nothing takes requests, and the filter is told.
    let ready = |world: &World| policy(world).contains("\"ready\":true");
    assert!(ready(&world));
    world.check(&a, false);
    world.round();
    assert!(!ready(&world));
    world.check(&d, true);
    assert!(words(&world.round()).contains(&"EDS shop/v2 [172.17.0.3:80 healthy, 172.17.0.5:80 healthy]".to_owned()));
    assert!(ready(&world));
}

#[test]
fn copies_have_a_cluster_of_their_own_and_only_where_a_step_wants_them() {
    let steps = |mirror| {
        let mirror = [Step::Mirror(mirror), Step::Pause(None)];
        declared(move |canary| canary.steps.splice(..0, mirror).for_each(drop))
    };
    let mut world = World::with(steps(250), &both());
    let changes = world.round();
    let all = words(&changes);
    for expected in ["CDS shop/v2+mirror", "EDS shop/v2+mirror [172.17.0.3:80 healthy]"] {
        assert!(all.iter().any(|word| word == expected), "{expected}: {all:?}");
    }
    assert_eq!(routes(&changes), ["shop -> weights filtered copies to shop/v2+mirror", "shop -> weights filtered"]);
    let share = |changes: &Changes| {
        let layer = changes.upserts.iter().find_map(|upsert| match &upsert.resource {
            Resource::Runtime(layer) => layer.layer.clone(),
            _ => None,
        });
        let Some(prost_types::value::Kind::StructValue(share)) = layer?.fields.remove("tg.shop.mirror")?.kind else {
            panic!("no fraction");
        };
        Some(share.fields.values().map(|value| value.kind.clone().unwrap()).collect::<Vec<_>>())
    };
    let fraction = |of: f64| {
        use prost_types::value::Kind::{NumberValue, StringValue};
        Some(vec![StringValue("TEN_THOUSAND".to_owned()), NumberValue(of)])
    };
    assert_eq!(share(&changes), fraction(250.0));
    world.apply(crate::Input::Configured(Box::new(steps(1_000))));
    let changes = world.round();
    assert_eq!((words(&changes).len(), share(&changes)), (1, fraction(1_000.0)), "a share costs a layer");
    let plain = World::with(config(CANARY), &both()).round();
    assert_eq!((share(&plain), routes(&plain)), (None, vec!["shop -> weights filtered".to_owned(); 2]));
}
