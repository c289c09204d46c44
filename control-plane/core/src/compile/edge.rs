//! What is the same for every service: listeners, with the settings of an edge, and the filter. Services come and go without
//! touching a listener, whose update would cost connections.

use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{AccessLogFilter, ResponseFlagFilter};
use envoy_types::pb::envoy::config::common::mutation_rules::v3::HeaderMutation as Mutation;
use envoy_types::pb::envoy::config::common::mutation_rules::v3::header_mutation::{Action, RemoveOnMatch};
use envoy_types::pb::envoy::config::core::v3::async_data_source::Specifier as AsyncSpecifier;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use envoy_types::pb::envoy::config::core::v3::{
    AsyncDataSource, DataSource, ExtensionConfigSource, Http2ProtocolOptions, HttpProtocolOptions, TrafficDirection,
    TypedExtensionConfig,
};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType as NetworkConfig;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::http::wasm::v3::Wasm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    PathWithEscapedSlashesAction, RouteSpecifier, UpgradeConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, LocalReplyConfig, Rds, ResponseMapper,
};
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
use envoy_types::pb::envoy::extensions::wasm::v3::{FailurePolicy, PluginConfig, VmConfig, plugin_config};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::google::protobuf::{Any, StringValue};
use envoy_types::util::pack_any;
use prost::{Message, Name};
use tidegate_filter_core::{CAPABILITIES, Policy, REASON_HEADER};

use super::TIDEGATE;
use super::message::{address, ads, bool, duration, header, restricted_to, uint32};
use crate::config;

/// How long a listener waits for its routes, and the filter for its policy, before it goes on without.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Headers that belong to tidegate; a client's are removed before the first route resolution, so nobody picks a version or a
/// bucket, whether or not the filter runs.
const OUR_PREFIXES: [&str; 2] = ["x-tg-", "x-tidegate-"];

pub(super) fn listener(listener: &config::Listener, filter_code: &str) -> Listener {
    let manager = connection_manager(&listener.name, filter_code);
    Listener {
        name: listener.name.clone(),
        address: Some(address(listener.address)),
        traffic_direction: TrafficDirection::Inbound as i32,
        // What a client that does not read can make Envoy hold.
        per_connection_buffer_limit_bytes: uint32(32 * 1024),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(NetworkConfig::TypedConfig(pack_any(manager))),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

/// Envoy's own advice for an edge (its documentation, "Configuring Envoy as an edge proxy"), and the threats of ours.
fn connection_manager(name: &str, filter_code: &str) -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: name.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads(FETCH_TIMEOUT)),
            route_config_name: name.to_owned(),
        })),
        early_header_mutation_extensions: vec![TypedExtensionConfig {
            name: "strip".to_owned(),
            typed_config: Some(pack_any(HeaderMutation { mutations: OUR_PREFIXES.map(strip).into() })),
        }],
        http_filters: vec![filter(filter_code), router()],
        local_reply_config: Some(local_replies()),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".to_owned(), ..UpgradeConfig::default() }],
        use_remote_address: bool(true),
        normalize_path: bool(true),
        merge_slashes: true,
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::UnescapeAndRedirect as i32,
        common_http_protocol_options: Some(HttpProtocolOptions {
            idle_timeout: duration(Duration::from_hours(1)),
            headers_with_underscores_action: HeadersWithUnderscoresAction::RejectRequest as i32,
            ..HttpProtocolOptions::default()
        }),
        http2_protocol_options: Some(Http2ProtocolOptions {
            max_concurrent_streams: uint32(100),
            initial_stream_window_size: uint32(64 * 1024),
            initial_connection_window_size: uint32(1024 * 1024),
            ..Http2ProtocolOptions::default()
        }),
        stream_idle_timeout: duration(Duration::from_mins(5)),
        request_headers_timeout: duration(Duration::from_secs(10)),
        ..HttpConnectionManager::default()
    }
}

fn strip(prefix: &str) -> Mutation {
    let matcher = StringMatcher { match_pattern: Some(MatchPattern::Prefix(prefix.to_owned())), ignore_case: true };
    Mutation { action: Some(Action::RemoveOnMatch(RemoveOnMatch { key_matcher: Some(matcher) })) }
}

/// Off unless a route turns it on; until its policy has come, and when it crashed, requests pass as if it were not there.
fn filter(code: &str) -> HttpFilter {
    HttpFilter {
        name: TIDEGATE.to_owned(),
        disabled: true,
        config_type: Some(ConfigType::ConfigDiscovery(ExtensionConfigSource {
            config_source: Some(ads(FETCH_TIMEOUT)),
            type_urls: vec![Wasm::type_url()],
            default_config: Some(wasm(code, &Policy::default())),
            apply_default_config_without_warming: true,
        })),
        ..HttpFilter::default()
    }
}

fn router() -> HttpFilter {
    HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        config_type: Some(ConfigType::TypedConfig(pack_any(Router::default()))),
        ..HttpFilter::default()
    }
}

/// The ECDS resource.
pub(super) fn filter_resource(code: &str, policy: &Policy) -> TypedExtensionConfig {
    TypedExtensionConfig { name: TIDEGATE.to_owned(), typed_config: Some(wasm(code, policy)) }
}

/// The filter may do what it needs to, and no more (threats T12).
fn wasm(code: &str, policy: &Policy) -> Any {
    let code = AsyncDataSource {
        specifier: Some(AsyncSpecifier::Local(DataSource {
            specifier: Some(Specifier::Filename(code.to_owned())),
            ..DataSource::default()
        })),
    };
    let vm = VmConfig {
        vm_id: TIDEGATE.to_owned(),
        runtime: "envoy.wasm.runtime.v8".to_owned(),
        code: Some(code),
        ..VmConfig::default()
    };
    let plugin = PluginConfig {
        name: TIDEGATE.to_owned(),
        root_id: TIDEGATE.to_owned(),
        failure_policy: FailurePolicy::FailOpen as i32,
        configuration: Some(packed_text(policy.to_json())),
        vm: Some(plugin_config::Vm::VmConfig(vm)),
        ..PluginConfig::default()
    };
    let mut packed = pack_any(Wasm { config: Some(plugin) });
    packed.value.extend(restricted_to(&CAPABILITIES).encode_to_vec());
    packed
}

/// Where Envoy finds the filter's code, as an encoded ECDS resource says; `None` if that is no resource of ours.
#[must_use]
pub fn filter_code(resource: &[u8]) -> Option<String> {
    let packed = TypedExtensionConfig::decode(resource).ok()?.typed_config?;
    let plugin = Wasm::decode(packed.value.as_slice()).ok()?.config?;
    let plugin_config::Vm::VmConfig(vm) = plugin.vm?;
    match vm.code?.specifier? {
        AsyncSpecifier::Local(DataSource { specifier: Some(Specifier::Filename(path)), .. }) => Some(path),
        _ => None,
    }
}

fn packed_text(value: String) -> Any {
    pack_any(StringValue { value })
}

/// Answers made at the edge say why, also where the filter is off.
fn local_replies() -> LocalReplyConfig {
    let reasons = [
        ("UH", "no-ready-instance", true),
        ("UF", "connection-failed", false),
        ("UO", "overloaded", true),
        ("NR", "no-route", false),
        ("NC", "no-cluster", true),
        ("UT", "timeout", false),
    ];
    LocalReplyConfig {
        mappers: reasons.map(|(flag, reason, retry)| mapper(flag, reason, retry)).into(),
        ..LocalReplyConfig::default()
    }
}

fn mapper(flag: &str, reason: &str, retry: bool) -> ResponseMapper {
    let mut headers = vec![header(REASON_HEADER, reason)];
    if retry {
        headers.push(header("retry-after", "1"));
    }
    ResponseMapper {
        filter: Some(AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
                flags: vec![flag.to_owned()],
            })),
        }),
        headers_to_add: headers,
        ..ResponseMapper::default()
    }
}
