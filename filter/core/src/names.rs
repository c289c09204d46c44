//! Names that both sides must spell alike: headers, the service in a route's name, and the filter's counters in Envoy's
//! `/stats` (there with `wasmcustom.` before them).

/// Carries the bucket to Envoy's `weighted_clusters.header_name`; stripped from clients.
pub const BUCKET_HEADER: &str = "x-tg-rand";

/// Says `stable` where a breaker is open; the filter alone sets it, and it is stripped from clients.
pub const CHOICE_HEADER: &str = "x-tg-version";

/// On answers made at the edge: why.
pub const REASON_HEADER: &str = "x-tidegate-reason";

/// On answers where a route says so: the version that answered. The route takes it from the endpoint's metadata, so it is
/// right even where an aggregate cluster spilled over or a retry moved on; on Envoy's own 503 it is the one that failed.
pub const VERSION_HEADER: &str = "x-tidegate-version";

/// Beats of every wasm VM's heart, one each second: one VM for each worker, and the main thread's. Envoy says nowhere that
/// a VM under `FAIL_OPEN` has crashed; a beat that is missing does.
pub const HEARTBEAT_COUNTER: &str = "tidegate.heartbeat_total";

/// What the filter may call and be called for: `vm_config.capability_restriction_config` (in the
/// plugin's own configuration Envoy 1.40 calls it deprecated). A call that is not
/// in here ends the VM; a callback that is not in here is never made, which is how the ones that the filter has no use for
/// come at no cost. `proxy_on_delete` frees a request's memory.
pub const CAPABILITIES: [&str; 26] = [
    "proxy_add_header_map_value",
    "proxy_continue_stream",
    "proxy_define_metric",
    "proxy_get_buffer_bytes",
    "proxy_get_current_time_nanoseconds",
    "proxy_get_header_map_value",
    "proxy_get_property",
    "proxy_get_shared_data",
    "proxy_http_call",
    "proxy_increment_metric",
    "proxy_log",
    "proxy_on_configure",
    "proxy_on_context_create",
    "proxy_on_delete",
    "proxy_on_http_call_response",
    "proxy_on_request_headers",
    "proxy_on_response_headers",
    "proxy_on_response_trailers",
    "proxy_on_tick",
    "proxy_record_metric",
    "proxy_replace_header_map_value",
    "proxy_send_local_response",
    "proxy_set_effective_context",
    "proxy_set_shared_data",
    "proxy_set_tick_period_milliseconds",
    "random_get",
];

/// Policies not applied because they had another schema: once for each VM that was given one.
pub const UNKNOWN_SCHEMA_COUNTER: &str = "tidegate.policy.unknown_schema_total";

/// What the filter counts for a service. The series are bounded by the policy, never by what clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Requests given a bucket.
    Bucketed,
    /// Requests without a key, left to Envoy's random draw.
    Unkeyed,
    /// Requests answered 503 here.
    Refused,
    /// Requests that had to wait for a ready instance, whatever came of them.
    Held,
    /// Clients that were given a cookie.
    Given,
    /// Requests sent to the stable version because the breaker was open.
    Shielded,
    /// The canary's answers that its breaker counted as failures.
    BreakerFailures,
    /// How often the breaker opened.
    BreakerTrips,
}

impl Counter {
    pub const ALL: [Self; 8] = [
        Self::Bucketed,
        Self::Unkeyed,
        Self::Refused,
        Self::Held,
        Self::Given,
        Self::Shielded,
        Self::BreakerFailures,
        Self::BreakerTrips,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Bucketed => "bucketed_total",
            Self::Unkeyed => "unkeyed_total",
            Self::Refused => "refused_total",
            Self::Held => "held_total",
            Self::Given => "cookies_given_total",
            Self::Shielded => "breaker_shielded_total",
            Self::BreakerFailures => "breaker_failures_total",
            Self::BreakerTrips => "breaker_trips_total",
        }
    }
}

/// The counter's name in Envoy, without `wasmcustom.`.
pub fn counter_name(service: &str, counter: Counter) -> String {
    format!("tidegate.service.{service}.{}", counter.word())
}

/// The gauge that is 1 while the breaker is open, else 0; without `wasmcustom.` too.
pub fn breaker_gauge_name(service: &str) -> String {
    format!("tidegate.service.{service}.breaker_open")
}

/// The counter of the answers that `version` gave, as [`VERSION_HEADER`] had it; without `wasmcustom.` too.
pub fn version_counter_name(service: &str, version: &str) -> String {
    format!("tidegate.service.{service}.version.{version}.rq_total")
}

/// The service a route belongs to: its name up to the first slash.
pub fn service_of_route(route: &str) -> &str {
    route.split_once('/').map_or(route, |(service, _)| service)
}

/// What decides where a route's requests go; its name says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteKind {
    /// The weights.
    Split,
    /// The client, who wants the stable version.
    Stable,
    /// The client, who wants the canary.
    Canary,
}

impl RouteKind {
    /// As a route of `SERVICE` or `SERVICE/KIND` is named.
    pub fn of(route: &str) -> Self {
        match route.split_once('/') {
            Some((_, "stable")) => Self::Stable,
            Some((_, "canary")) => Self::Canary,
            _ => Self::Split,
        }
    }

    /// The name of such a route.
    pub fn route_name(self, service: &str) -> String {
        match self {
            Self::Split => service.to_owned(),
            Self::Stable => format!("{service}/stable"),
            Self::Canary => format!("{service}/canary"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routes_name_says_its_service_and_kind() {
        for kind in [RouteKind::Split, RouteKind::Stable, RouteKind::Canary] {
            let route = kind.route_name("shop");
            assert_eq!((service_of_route(&route), RouteKind::of(&route)), ("shop", kind));
        }
        for other in ["", "/", "canary", "shop/", "shop/else", "shop/canary/x"] {
            assert_eq!(RouteKind::of(other), RouteKind::Split, "{other}");
        }
    }

    #[test]
    fn route_names_its_service() {
        for (route, service) in [("shop", "shop"), ("shop/stable", "shop"), ("shop/a/b", "shop"), ("", ""), ("/x", "")]
        {
            assert_eq!(service_of_route(route), service);
        }
    }

    #[test]
    fn counters_of_a_service_differ() {
        let names = Counter::ALL.map(|counter| counter_name("shop", counter));
        assert_eq!(
            names,
            [
                "tidegate.service.shop.bucketed_total",
                "tidegate.service.shop.unkeyed_total",
                "tidegate.service.shop.refused_total",
                "tidegate.service.shop.held_total",
                "tidegate.service.shop.cookies_given_total",
                "tidegate.service.shop.breaker_shielded_total",
                "tidegate.service.shop.breaker_failures_total",
                "tidegate.service.shop.breaker_trips_total",
            ]
        );
    }
}
