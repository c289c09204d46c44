//! Who may ask. A loopback address alone keeps nobody out: a browser on this machine asks on behalf of any page it shows. So the
//! `Host` must be a name of this machine (DNS rebinding, threats T7), a foreign `Origin` is refused, and only reading is possible.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::Response;

use super::refuse;

/// What every answer says to a browser: take nothing from elsewhere, show it nowhere else, keep nothing.
const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

/// The address that is served, which names it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guard {
    ip: IpAddr,
    port: u16,
}

impl Guard {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: address.port() }
    }

    /// Whether `authority` (`HOST[:PORT]`) is this server by a name of this machine.
    fn is_ours(self, authority: &str) -> bool {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
            _ => (authority, Some(80)),
        };
        let own = match self.ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let named = ["localhost", "127.0.0.1", "[::1]", &own].iter().any(|name| host.eq_ignore_ascii_case(name));
        named && port == Some(self.port)
    }

    fn refusal(self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<(StatusCode, String)> {
        let only = |name: HeaderName| -> Result<Option<&str>, ()> {
            let mut values = headers.get_all(name).iter();
            let first = values.next().map(|value| value.to_str().map_err(|_| ())).transpose()?;
            if values.next().is_some() { Err(()) } else { Ok(first) }
        };
        // An absolute URI goes before the Host (RFC 9112, 3.2.2).
        if let Some(authority) = uri.authority().filter(|authority| !self.is_ours(authority.as_str())) {
            return Some((StatusCode::FORBIDDEN, format!("{:?} is not this machine's own", authority.as_str())));
        }
        match only(HOST) {
            Ok(Some(host)) if self.is_ours(host) => {}
            Ok(Some(host)) => {
                return Some((StatusCode::FORBIDDEN, format!("the Host {host:?} is not this machine's own")));
            }
            Ok(None) | Err(()) => return Some((StatusCode::FORBIDDEN, "one Host header is required".to_owned())),
        }
        match only(ORIGIN) {
            Ok(None) => {}
            Ok(Some(origin)) if origin.strip_prefix("http://").is_some_and(|authority| self.is_ours(authority)) => {}
            Ok(Some(origin)) => {
                return Some((StatusCode::FORBIDDEN, format!("the Origin {origin:?} is a page from elsewhere")));
            }
            Err(()) => return Some((StatusCode::FORBIDDEN, "the Origin cannot be read".to_owned())),
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Some((
                StatusCode::METHOD_NOT_ALLOWED,
                format!("{method} is not possible: nothing here can be changed"),
            ));
        }
        None
    }
}

/// Refuses whom it must, and marks every answer.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refusal(request.method(), request.uri(), request.headers()) {
        Some((status, reason)) => {
            let cure = format!("ask http://{}:{} with GET, from this machine", guard.ip, guard.port);
            refuse(status, &reason, &cure)
        }
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(method: &Method, headers: &[(HeaderName, &str)]) -> Option<StatusCode> {
        let guard = Guard::new("127.0.0.1:18001".parse().unwrap());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        guard.refusal(method, &Uri::from_static("/"), &map).map(|(status, _)| status)
    }

    #[test]
    fn only_names_of_this_machine_are_answered() {
        for host in ["localhost:18001", "LOCALHOST:18001", "127.0.0.1:18001", "[::1]:18001"] {
            assert_eq!(refusal(&Method::GET, &[(HOST, host)]), None, "{host}");
        }
        for host in [
            "evil.example:18001",
            "localhost",
            "localhost:80",
            "localhost.evil.example:18001",
            "127.0.0.1",
            "127.0.0.1:18002",
            "[::1]",
            "::1:18001",
            "user@localhost:18001",
            "",
        ] {
            assert_eq!(refusal(&Method::GET, &[(HOST, host)]), Some(StatusCode::FORBIDDEN), "{host}");
        }
        assert_eq!(refusal(&Method::GET, &[]), Some(StatusCode::FORBIDDEN));
        let two = [(HOST, "localhost:18001"), (HOST, "evil.example")];
        assert_eq!(refusal(&Method::GET, &two), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn pages_from_elsewhere_are_refused() {
        let asked = |origin: &str| refusal(&Method::GET, &[(HOST, "localhost:18001"), (ORIGIN, origin)]);
        assert_eq!(asked("http://localhost:18001"), None);
        for origin in
            ["null", "http://evil.example", "http://localhost:3000", "https://localhost:18001", "http://localhost", "*"]
        {
            assert_eq!(asked(origin), Some(StatusCode::FORBIDDEN), "{origin}");
        }
    }

    #[test]
    fn nothing_can_be_changed() {
        let host = [(HOST, "localhost:18001")];
        assert_eq!(refusal(&Method::HEAD, &host), None);
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            assert_eq!(refusal(&method, &host), Some(StatusCode::METHOD_NOT_ALLOWED));
        }
    }
}
