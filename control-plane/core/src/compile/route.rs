//! Routes, weights and the filter's policy of one service.
//!
//! A service with several versions has weighted clusters in a fixed order, whose live weights are runtime keys
//! (`tg.SERVICE.CLUSTER`): a change of weight is a few bytes of RTDS. What stands in the route itself is the safe default for
//! an Envoy to which no weight has come yet. Raising a canary's weight moves nobody off it, because the canary is last.

mod overrides;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{HeaderValueOption, RuntimeFractionalPercent};
use envoy_types::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterSpecifier, MaxStreamDuration, RequestMirrorPolicy,
};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, RandomValueSpecifier};
use envoy_types::pb::envoy::config::route::v3::{
    FilterConfig, HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
    WeightedCluster,
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use tidegate_filter_core::{
    BUCKET_HEADER, BreakerPolicy, CHOICE_HEADER, ClientCookie, RouteKind, ServicePolicy, VERSION_HEADER,
};

use super::TIDEGATE;
use super::cluster::{VERSION_KEY, canary_name, mirror_name, mirrors};
use super::message::{RuntimeValue, duration, header, uint32};
use crate::config::canary::{AffinityCookie, Breaker};
use crate::config::{Canary, WHOLE};
use crate::name::cluster_name;
use crate::rollout::{Split, runtime_prefix, salt};
use crate::service::ServiceView;
use crate::traffic::{Protocol, Retry};
use crate::{ServiceName, VersionName};

/// Seconds that a refused client is asked to wait: a newcomer is checked every 50 ms, so readiness is soon.
const RETRY_AFTER_S: u32 = 1;

/// The request never reached an application, whatever its method.
const RETRY_ALL: &str = "connect-failure,refused-stream,reset-before-request";
/// Repeating these is harmless, so a reset before the response is retried, too.
const RETRY_SAFE: &str = "connect-failure,refused-stream,reset-before-request,reset";
const SAFE_METHODS: &str = "GET|HEAD|OPTIONS";

pub(super) fn configuration(name: &str, hosts: Vec<(String, Vec<Route>)>) -> RouteConfiguration {
    let virtual_hosts = hosts
        .into_iter()
        .map(|(host, routes)| VirtualHost { name: host.clone(), domains: vec![host], routes, ..VirtualHost::default() })
        .collect();
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    }
}

/// Where requests go, in order of precedence: where the client says, where an open breaker says, where the weights say. Each is
/// two routes: the methods that may be repeated, and all others. All bear the service's name, which tells the filter whose
/// policy applies.
pub(super) fn routes(view: &ServiceView, policy: Option<&ServicePolicy>) -> Vec<Route> {
    let (safe, others) = match view.traffic.retry.unwrap_or_default() {
        Retry::Safe => (RETRY_SAFE, RETRY_ALL),
        Retry::Off => ("", ""),
        Retry::All => (RETRY_SAFE, RETRY_SAFE),
    };
    let ways = ways(view);
    let both = |way| [(true, safe), (false, others)].map(|(safe, retry_on)| route(view, policy, way, safe, retry_on));
    ways.iter().flat_map(both).collect()
}

/// One reason for a request to go somewhere.
struct Way {
    kind: RouteKind,
    header: Option<HeaderMatcher>,
    to: ClusterSpecifier,
}

fn ways(view: &ServiceView) -> Vec<Way> {
    let mut ways = Vec::new();
    if let Split::Rollout { stable, canary, .. } = &view.split {
        let mut say = |header, kind| {
            let to = match kind {
                RouteKind::Canary => canary_name(view, canary),
                RouteKind::Stable | RouteKind::Split => cluster_name(&view.name, stable),
            };
            ways.push(Way { kind, header: Some(header), to: ClusterSpecifier::Cluster(to) });
        };
        for (header, kind) in overrides::of(&canary.overrides) {
            say(header, kind);
        }
        if armed(view).is_some() {
            say(overrides::exactly(CHOICE_HEADER, "stable"), RouteKind::Split);
        }
    }
    ways.push(Way { kind: RouteKind::Split, header: None, to: cluster_specifier(view) });
    ways
}

fn route(view: &ServiceView, policy: Option<&ServicePolicy>, way: &Way, safe: bool, retry_on: &str) -> Route {
    // Who says where to go needs no filter, except to wait.
    let filtered = policy.is_some_and(|policy| way.kind == RouteKind::Split || policy.hold_ms > 0);
    let mut of_filter = HashMap::new();
    if filtered {
        of_filter.insert(
            TIDEGATE.to_owned(),
            pack_any(FilterConfig { config: Some(Any::default()), ..FilterConfig::default() }),
        );
    }
    let is_split = way.kind == RouteKind::Split && way.header.is_none();
    let action = RouteAction {
        cluster_specifier: Some(way.to.clone()),
        // A stream may last; what is idle is ended by the connection manager.
        timeout: duration(Duration::ZERO),
        retry_policy: Some(retry_policy(view, retry_on)),
        request_mirror_policies: if safe && is_split { mirror(view).into_iter().collect() } else { Vec::new() },
        max_stream_duration: is_grpc(view).then(|| MaxStreamDuration {
            // A client's own deadline, whatever it is.
            grpc_timeout_header_max: duration(Duration::ZERO),
            ..MaxStreamDuration::default()
        }),
        ..RouteAction::default()
    };
    let ours = [BUCKET_HEADER, CHOICE_HEADER].map(str::to_owned);
    Route {
        name: way.kind.route_name(view.name.as_str()),
        r#match: Some(RouteMatch {
            path_specifier: Some(path(&view.path)),
            headers: way.header.clone().into_iter().chain(safe.then(safe_methods)).collect(),
            ..RouteMatch::default()
        }),
        typed_per_filter_config: of_filter,
        // What is between the filter and the router.
        request_headers_to_remove: if filtered { ours.into() } else { Vec::new() },
        response_headers_to_add: if watched(view).is_some() { vec![who_answered()] } else { Vec::new() },
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}

/// Copies of requests for a canary whose steps have some; how many is a runtime key, as the weights are.
fn mirror(view: &ServiceView) -> Option<RequestMirrorPolicy> {
    let Split::Rollout { canary, .. } = &view.split else { return None };
    mirrors(canary).then(|| RequestMirrorPolicy {
        cluster: mirror_name(view, &canary.version),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent { numerator: 0, denominator: DenominatorType::TenThousand as i32 }),
            runtime_key: mirror_key(&view.name),
        }),
        // The canary is asked for what the client asked for.
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    })
}

fn is_grpc(view: &ServiceView) -> bool {
    let versions = view.split.versions();
    versions.iter().filter_map(|name| view.versions.get(*name)).any(|version| version.protocol == Protocol::Grpc)
}

/// From the endpoint's own metadata, so it is right under spill and retry.
fn who_answered() -> HeaderValueOption {
    header(VERSION_HEADER, &format!("%UPSTREAM_METADATA({TIDEGATE}:{VERSION_KEY})%"))
}

/// `/api` matches `/api` and what lies below it, but not `/apiary`.
fn path(prefix: &str) -> PathSpecifier {
    if prefix.ends_with('/') {
        PathSpecifier::Prefix(prefix.to_owned())
    } else {
        PathSpecifier::PathSeparatedPrefix(prefix.to_owned())
    }
}

fn safe_methods() -> HeaderMatcher {
    overrides::matching(":method", SAFE_METHODS)
}

/// The clusters of a split with several versions: name, and the weight that is safe without RTDS.
fn weighted(view: &ServiceView) -> Vec<(String, u32)> {
    match &view.split {
        Split::Single { .. } => Vec::new(),
        Split::Pool { weights } => {
            let share = WHOLE / u32::try_from(weights.len()).unwrap_or(WHOLE).max(1);
            let rest = WHOLE - share * u32::try_from(weights.len().saturating_sub(1)).unwrap_or(0);
            let names = weights.keys().map(|version| cluster_name(&view.name, version));
            names.enumerate().map(|(i, name)| (name, if i == 0 { rest } else { share })).collect()
        }
        Split::Rollout { stable, canary, stable_gone, .. } => {
            let (of_stable, of_canary) = if *stable_gone { (0, WHOLE) } else { (WHOLE, 0) };
            vec![(cluster_name(&view.name, stable), of_stable), (canary_name(view, canary), of_canary)]
        }
    }
}

fn cluster_specifier(view: &ServiceView) -> ClusterSpecifier {
    if let Split::Single { version } = &view.split {
        return ClusterSpecifier::Cluster(cluster_name(&view.name, version));
    }
    let clusters = weighted(view)
        .into_iter()
        .map(|(name, weight)| ClusterWeight { name, weight: uint32(weight), ..ClusterWeight::default() })
        .collect();
    // Without that header Envoy draws at random, and the weights still hold.
    let by_bucket = matches!(view.split, Split::Rollout { .. });
    ClusterSpecifier::WeightedClusters(WeightedCluster {
        clusters,
        runtime_key_prefix: runtime_prefix(&view.name),
        random_value_specifier: by_bucket.then(|| RandomValueSpecifier::HeaderName(BUCKET_HEADER.to_owned())),
        ..WeightedCluster::default()
    })
}

/// The live weights by runtime key, and the share of copies; empty for a service with one version.
pub(super) fn runtime(view: &ServiceView) -> BTreeMap<String, RuntimeValue> {
    let prefix = runtime_prefix(&view.name);
    let live = view.split.versions().into_iter().map(|version| RuntimeValue::Weight(view.split.weight(version)));
    let weights = weighted(view).into_iter().zip(live).map(|((name, _), weight)| (format!("{prefix}.{name}"), weight));
    let copies = match &view.split {
        Split::Rollout { canary, share, .. } if mirrors(canary) => Some(share.mirror),
        _ => None,
    };
    weights.chain(copies.map(|copies| (mirror_key(&view.name), RuntimeValue::Fraction(copies)))).collect()
}

/// No cluster's key: their names have a slash.
fn mirror_key(service: &ServiceName) -> String {
    format!("{}.mirror", runtime_prefix(service))
}

/// The stable version and the canary, where clients are to stay where they are, or answers are judged.
fn watched(view: &ServiceView) -> Option<(&VersionName, &Canary)> {
    let Split::Rollout { stable, canary, .. } = &view.split else { return None };
    (is_judged(view, canary) || !canary.hash_on.is_empty()).then_some((stable, canary))
}

fn is_judged(view: &ServiceView, canary: &Canary) -> bool {
    armed(view).is_some() || canary.analysis.is_some()
}

/// The filter is on for what needs it: a rollout that is [`watched`], and a service whose requests wait for a ready instance. Whose
/// answers nobody judges are not looked at: Envoy counts them by cluster.
pub(super) fn policy(view: &ServiceView) -> Option<ServicePolicy> {
    let hold = view.traffic.hold.unwrap_or_default();
    let held = ServicePolicy {
        ready: takes_requests(view),
        retry_after_s: RETRY_AFTER_S,
        hold_ms: u64::try_from(hold.as_millis()).unwrap_or(u64::MAX),
        ..ServicePolicy::default()
    };
    let Some((stable, canary)) = watched(view) else { return (!hold.is_zero()).then_some(held) };
    let is_judged = is_judged(view, canary);
    let versions = || [stable, &canary.version].map(|version| version.as_str().to_owned()).into();
    Some(ServicePolicy {
        salt: salt(canary).to_owned(),
        hash_on: canary.hash_on.clone(),
        versions: is_judged.then(versions).unwrap_or_default(),
        cookie: canary
            .cookie
            .as_ref()
            .map(|AffinityCookie { name, max_age_s }| ClientCookie { name: name.clone(), max_age_s: *max_age_s }),
        report: is_judged,
        grpc: is_grpc(view),
        breaker: breaker(view),
        ..held
    })
}

/// The breaker as it is declared, while the trial has an epoch.
fn armed(view: &ServiceView) -> Option<&Breaker> {
    let Split::Rollout { canary, share, .. } = &view.split else { return None };
    canary.breaker.as_ref().filter(|_| !share.epoch.is_empty())
}

/// What ends the trial at an edge, while it is armed.
fn breaker(view: &ServiceView) -> Option<BreakerPolicy> {
    let Split::Rollout { stable, canary, share, .. } = &view.split else { return None };
    let breaker = armed(view)?;
    Some(BreakerPolicy {
        epoch: share.epoch.clone(),
        stable: stable.as_str().to_owned(),
        canary: canary.version.as_str().to_owned(),
        fail_on: breaker.fail_on.clone(),
        p0: breaker.baseline_error_rate,
        p1: breaker.tripped_error_rate,
        h: breaker.sensitivity.get(),
        min_distinct_keys: breaker.min_distinct_keys,
    })
}

/// Whether some version that gets requests has an instance that takes them.
fn takes_requests(view: &ServiceView) -> bool {
    match &view.split {
        // What the canary has is not enough, or it has nothing.
        Split::Rollout { stable, .. } if view.below_min_ready().is_some() => {
            view.versions.get(stable).is_some_and(|stable| stable.census().ready > 0)
        }
        _ => view.has_ready_instance(),
    }
}

/// How often another host is drawn when the one drawn was tried before. A host that answers nothing has nothing under way, so
/// least-request draws it three times of four when there are two: five draws left one retry of six where it had failed.
const DRAWS: i64 = 64;

/// Two retries, never on a host that was tried. In a pool the retry may pick another version; in a rollout it must not (a
/// stable client would see the canary), but a canary's retry leaves for stable, the second priority of its aggregate.
fn retry_policy(view: &ServiceView, retry_on: &str) -> RetryPolicy {
    let split = &view.split;
    let previous_hosts = RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_host_predicate::ConfigType::TypedConfig(pack_any(PreviousHostsPredicate {}))),
    };
    let previous_priorities = RetryPriority {
        name: "envoy.retry_priorities.previous_priorities".to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(pack_any(PreviousPrioritiesConfig {
            update_frequency: 1,
        }))),
    };
    RetryPolicy {
        retry_on: retry_on.to_owned(),
        num_retries: uint32(2),
        per_try_timeout: view.traffic.timeout.and_then(duration),
        retry_host_predicate: vec![previous_hosts],
        host_selection_retry_max_attempts: DRAWS,
        retry_priority: matches!(split, Split::Rollout { .. }).then_some(previous_priorities),
        refresh_cluster_on_retry: matches!(split, Split::Pool { .. }),
        retry_back_off: Some(RetryBackOff {
            base_interval: duration(Duration::from_millis(2)),
            max_interval: duration(Duration::from_millis(20)),
        }),
        ..RetryPolicy::default()
    }
}
