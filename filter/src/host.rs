//! What the filter asks of Envoy, in the facts' own words, and without the panics of proxy-wasm's traits. A host that
//! does not answer is a fact that is absent.

use std::time::{Duration, SystemTime};

use proxy_wasm::hostcalls;
use proxy_wasm::types::{Bytes, MapType};
use tidegate_filter_core::{HashOn, cookie};

/// What `source` holds in the request at hand.
pub(crate) fn fact(source: &HashOn) -> Option<Bytes> {
    match source {
        HashOn::Header(name) => request_header(name),
        HashOn::Cookie(name) => cookie(&request_header("cookie")?, name).map(<[u8]>::to_vec),
        HashOn::SourceIp => source_address(),
    }
}

pub(crate) fn request_header(name: &str) -> Option<Bytes> {
    header(MapType::HttpRequestHeaders, name)
}

pub(crate) fn response_header(name: &str) -> Option<Bytes> {
    header(MapType::HttpResponseHeaders, name)
}

pub(crate) fn response_trailer(name: &str) -> Option<Bytes> {
    header(MapType::HttpResponseTrailers, name)
}

/// Beside those of that name which the answer has.
pub(crate) fn add_response_header(name: &str, value: &[u8]) {
    let _ = hostcalls::add_map_value_bytes(MapType::HttpResponseHeaders, name, value);
}

/// The number that a header, or a trailer, is.
pub(crate) fn number(value: Option<Bytes>) -> Option<u16> {
    std::str::from_utf8(&value?).ok()?.trim().parse().ok()
}

/// Envoy drops the route it had resolved and resolves it again, now by this header.
pub(crate) fn set_request_header(name: &str, value: &[u8]) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value));
}

/// The name of the route that Envoy has resolved for the request at hand.
pub(crate) fn route_name() -> Option<Bytes> {
    property(["xds", "route_name"])
}

/// The peer's address with its port.
pub(crate) fn source_address() -> Option<Bytes> {
    property(["source", "address"])
}

/// Envoy's response flags, as far as they are known when the answer begins; 0: none.
pub(crate) fn response_flags() -> u64 {
    let flags = property(["response", "flags"]).unwrap_or_default();
    flags.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The node id of this Envoy.
pub(crate) fn node_id() -> Option<String> {
    String::from_utf8(property(["xds", "node", "id"])?).ok()
}

/// Since 1970. A clock that is set goes back, too.
pub(crate) fn now() -> Duration {
    let now = hostcalls::get_current_time().unwrap_or(SystemTime::UNIX_EPOCH);
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// From Envoy's own source of keys.
pub(crate) fn random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// As bytes: as a string, one byte that is not UTF-8 would end the VM.
fn header(map: MapType, name: &str) -> Option<Bytes> {
    hostcalls::get_map_value_bytes(map, name).ok().flatten()
}

fn property<const N: usize>(path: [&str; N]) -> Option<Bytes> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}
