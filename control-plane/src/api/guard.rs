//! Who may ask. A loopback address alone keeps nobody out: a browser on this machine asks on behalf of any page it shows. So the
//! `Host` must be a name of this machine (DNS rebinding, threats T7), a foreign `Origin` is refused, and whoever changes something
//! has to show the token.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Refusal;
use super::token::{FILE, Token};

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
#[derive(Clone, Debug)]
pub(super) struct Guard {
    ip: IpAddr,
    port: u16,
    token: Token,
}

impl Guard {
    pub(super) const fn new(address: SocketAddr, token: Token) -> Self {
        Self { ip: address.ip(), port: address.port(), token }
    }

    /// Whether `authority` (`HOST[:PORT]`) is this server by a name of this machine.
    fn is_ours(&self, authority: &str) -> bool {
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

    fn refusal(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Refusal> {
        let ask = format!("ask http://{}:{} from this machine", self.ip, self.port);
        self.foreign(uri, headers)
            .map(|(status, reason)| Refusal { status, reason, cure: ask })
            .or_else(|| self.unauthorized(method, headers))
    }

    /// A request that comes from elsewhere, or on somebody's behalf who is elsewhere.
    fn foreign(&self, uri: &Uri, headers: &HeaderMap) -> Option<(StatusCode, String)> {
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
        None
    }

    /// A request that would change something, from somebody who may not.
    fn unauthorized(&self, method: &Method, headers: &HeaderMap) -> Option<Refusal> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        if *method != Method::POST {
            let reason = format!("{method} is not possible");
            let cure = "read with GET, and change with POST".to_owned();
            return Some(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, reason, cure });
        }
        if headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes) != Some(b"application/json") {
            let reason = "what is sent is not said to be JSON".to_owned();
            let cure = "send `content-type: application/json`".to_owned();
            return Some(Refusal { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, reason, cure });
        }
        if headers.get(AUTHORIZATION).is_some_and(|shown| self.token.is_shown(shown.as_bytes())) {
            return None;
        }
        let reason = "whoever changes something has to show the token".to_owned();
        let cure = format!(
            "`tidegate` reads it from `{FILE}` in the control plane's state directory: name that with `--state-dir`"
        );
        Some(Refusal { status: StatusCode::UNAUTHORIZED, reason, cure })
    }
}

/// Refuses whom it must, and marks every answer.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let mut response = match guard.refusal(request.method(), request.uri(), request.headers()) {
        Some(refusal) => refusal.into_response(),
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
        let guard = Guard::new("127.0.0.1:18001".parse().unwrap(), Token::of_tests());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        guard.refusal(method, &Uri::from_static("/"), &map).map(|refusal| refusal.status)
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
    fn whoever_changes_something_shows_the_token() {
        let host = (HOST, "localhost:18001");
        let json = (CONTENT_TYPE, "application/json");
        let token = Token::of_tests().header();
        let shown = (AUTHORIZATION, token.as_str());
        assert_eq!(refusal(&Method::HEAD, std::slice::from_ref(&host)), None);
        for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
            let all = [host.clone(), json.clone(), shown.clone()];
            assert_eq!(refusal(&method, &all), Some(StatusCode::METHOD_NOT_ALLOWED));
        }
        let post = |headers: &[(HeaderName, &str)]| refusal(&Method::POST, headers);
        assert_eq!(post(&[host.clone(), json.clone(), shown.clone()]), None);
        assert_eq!(post(&[host.clone(), shown.clone()]), Some(StatusCode::UNSUPPORTED_MEDIA_TYPE), "a form of a page");
        for wrong in ["", "Bearer ", "Bearer 00", "Basic YTpi"] {
            let all = [host.clone(), json.clone(), (AUTHORIZATION, wrong)];
            assert_eq!(post(&all), Some(StatusCode::UNAUTHORIZED), "{wrong:?}");
        }
        assert_eq!(post(&[host.clone(), json.clone()]), Some(StatusCode::UNAUTHORIZED));
        let elsewhere = [host, json, shown, (ORIGIN, "http://evil.example")];
        assert_eq!(post(&elsewhere), Some(StatusCode::FORBIDDEN), "whatever it shows");
    }
}
