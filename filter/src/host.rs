//! What the filter asks of Envoy, in the facts' own words, and without the panics of proxy-wasm's traits. A host that
//! does not answer is a fact that is absent.

use proxy_wasm::hostcalls;
use proxy_wasm::types::{Bytes, MapType};
use tidegate_filter_core::{HashOn, cookie};

/// What `source` holds in the request at hand.
pub(crate) fn fact(source: &HashOn) -> Option<Bytes> {
    match source {
        HashOn::Header(name) => request_header(name),
        HashOn::Cookie(name) => cookie(&request_header("cookie")?, name).map(<[u8]>::to_vec),
        HashOn::SourceIp => property(["source", "address"]),
    }
}

pub(crate) fn request_header(name: &str) -> Option<Bytes> {
    header(MapType::HttpRequestHeaders, name)
}

pub(crate) fn response_header(name: &str) -> Option<Bytes> {
    header(MapType::HttpResponseHeaders, name)
}

/// Envoy drops the route it had resolved and resolves it again, now by this header.
pub(crate) fn set_request_header(name: &str, value: &[u8]) {
    let _ = hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value));
}

/// The name of the route that Envoy has resolved for the request at hand.
pub(crate) fn route_name() -> Option<Bytes> {
    property(["xds", "route_name"])
}

/// As bytes: as a string, one byte that is not UTF-8 would end the VM.
fn header(map: MapType, name: &str) -> Option<Bytes> {
    hostcalls::get_map_value_bytes(map, name).ok().flatten()
}

fn property<const N: usize>(path: [&str; N]) -> Option<Bytes> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}
