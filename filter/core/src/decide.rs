//! What to do with a request of a service: leave it alone, give it a bucket, or refuse it.

use crate::bucket::{bucket_of, hash};
use crate::client_id::is_client_id;
use crate::names::RouteKind;
use crate::policy::{HashOn, Policy, ServicePolicy};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Not ours to touch: the policy does not know the service, or the client has said which version it wants.
    Neutral,
    /// Ours, but the request carries no key: left to Envoy's own random draw, right in weight and not sticky.
    Unkeyed,
    /// To be written to `x-tg-rand`, by which Envoy picks the version.
    Bucket {
        bucket: u16,
        /// What the bucket is taken of: it differs from client to client.
        key: u32,
    },
    /// The breaker is open: to be sent to the stable version, by `x-tg-version`.
    Stable,
    /// To be answered here and now.
    Refuse(Refusal),
    /// To wait so many milliseconds for a ready instance, and to be [refused](ServicePolicy::refusal) then.
    Hold(u64),
}

/// An answer of 503 made at the edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The token in `x-tidegate-reason`.
    pub reason: &'static str,
    /// Seconds, for `retry-after`.
    pub retry_after_s: u32,
    /// One plain sentence: a gRPC client reads it as `grpc-message`. It names no service: that is nobody's business.
    pub body: &'static str,
}

const NO_READY_INSTANCE: &str = "no-ready-instance";

/// Decides on a request of `service` whose breaker is closed. `fact` is asked, in the policy's order and only as far as needed, for what a
/// source holds in this request: a header's value, or the peer's address as Envoy writes it (with or without a port).
pub fn decide(policy: &Policy, service: &str, fact: impl FnMut(&HashOn) -> Option<Vec<u8>>) -> Decision {
    match policy.services.get(service) {
        None => Decision::Neutral,
        Some(of_service) => of_service.decide(service, RouteKind::Split, false, fact),
    }
}

impl ServicePolicy {
    /// What a client is told while nothing is ready.
    pub fn refusal(&self) -> Refusal {
        Refusal {
            reason: NO_READY_INSTANCE,
            retry_after_s: self.retry_after_s,
            body: "No instance of this service is ready.",
        }
    }

    /// As [`decide`], for a service whose policy is at hand, and whose breaker may be open. Who says which version it wants is at
    /// most told to wait.
    pub fn decide(
        &self,
        service: &str,
        route: RouteKind,
        open: bool,
        mut fact: impl FnMut(&HashOn) -> Option<Vec<u8>>,
    ) -> Decision {
        if !self.ready {
            return match self.hold_ms {
                0 => Decision::Refuse(self.refusal()),
                hold_ms => Decision::Hold(hold_ms),
            };
        }
        if route != RouteKind::Split {
            return Decision::Neutral;
        }
        if open {
            return Decision::Stable;
        }
        for source in &self.hash_on {
            let Some(value) = fact(source) else { continue };
            let key = match source {
                HashOn::Header(_) | HashOn::Cookie(_) => &value,
                HashOn::SourceIp => source_ip(&value),
            };
            // An empty key would put everyone without one into one bucket, all on one version.
            if !key.is_empty() && (!self.gives(source) || is_client_id(key)) {
                return self.keyed(service, key);
            }
        }
        Decision::Unkeyed
    }

    /// For a client with this key.
    pub fn keyed(&self, service: &str, key: &[u8]) -> Decision {
        let key = hash(service, &self.salt, key);
        Decision::Bucket { bucket: bucket_of(key), key }
    }

    /// Whether it is the cookie that clients without a key are given.
    fn gives(&self, source: &HashOn) -> bool {
        matches!((source, &self.cookie), (HashOn::Cookie(name), Some(cookie)) if *name == cookie.name)
    }
}

/// The value of the first cookie of this name in a `cookie` header.
pub fn cookie<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    header.split(|&b| b == b';').find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value))
    })
}

/// The IP address in Envoy's `source.address`: `192.0.2.1:5000`, `[2001:db8::1]:5000`, or either one bare. The port is a
/// connection's, not a client's.
pub fn source_ip(address: &[u8]) -> &[u8] {
    if let Some(bracketed) = address.strip_prefix(b"[") {
        return bracketed.split(|&b| b == b']').next().unwrap_or_default();
    }
    let mut parts = address.split(|&b| b == b':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(host), Some(_port), None) => host,
        // No colon at all, or a bare IPv6 address.
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::ClientCookie;

    fn policy(hash_on: &[HashOn], ready: bool) -> Policy {
        let shop = ServicePolicy {
            salt: "r1".to_owned(),
            hash_on: hash_on.to_vec(),
            ready,
            versions: vec!["v1".to_owned(), "v2".to_owned()],
            retry_after_s: 3,
            ..ServicePolicy::default()
        };
        Policy { services: BTreeMap::from([("shop".to_owned(), shop)]), ..Policy::default() }
    }

    /// Where this key lands.
    fn at(key: &str) -> Decision {
        let key = hash("shop", "r1", key.as_bytes());
        Decision::Bucket { bucket: bucket_of(key), key }
    }

    fn header(name: &str) -> HashOn {
        HashOn::Header(name.to_owned())
    }

    /// A request with these headers, from this address.
    fn request<'a>(headers: &'a [(&'a str, &'a str)], address: &'a str) -> impl Fn(&HashOn) -> Option<Vec<u8>> + 'a {
        move |source| match source {
            HashOn::Header(name) => headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_bytes().to_vec()),
            HashOn::Cookie(name) => {
                request(headers, address)(&header("cookie")).and_then(|all| Some(cookie(&all, name)?.to_vec()))
            }
            HashOn::SourceIp => Some(address.as_bytes().to_vec()),
        }
    }

    #[test]
    fn first_present_key_wins() {
        let sources = [header("x-user"), header("x-session"), HashOn::SourceIp];
        type Row<'a> = (&'a [HashOn], &'a [(&'a str, &'a str)], Option<&'a str>);
        let table: [Row; 8] = [
            (&sources, &[("x-user", "alice"), ("x-session", "s")], Some("alice")),
            (&sources, &[("x-session", "s")], Some("s")),
            (&sources, &[("x-user", ""), ("x-session", "s")], Some("s")),
            (&sources, &[], Some("192.0.2.1")),
            (&sources[..2], &[], None),
            (&sources[..1], &[("x-user", "")], None),
            (&[], &[("x-user", "alice")], None),
            (&[HashOn::SourceIp], &[("x-user", "alice")], Some("192.0.2.1")),
        ];
        for (hash_on, headers, key) in table {
            let decision = decide(&policy(hash_on, true), "shop", request(headers, "192.0.2.1:5000"));
            let expected = key.map_or(Decision::Unkeyed, at);
            assert_eq!(decision, expected, "{hash_on:?} {headers:?}");
        }
    }

    #[test]
    fn facts_are_asked_for_only_as_far_as_needed() {
        let mut asked = Vec::new();
        let sources = [header("x-user"), header("x-session"), HashOn::SourceIp];
        decide(&policy(&sources, true), "shop", |source| {
            asked.push(source.clone());
            (asked.len() == 2).then(|| b"s".to_vec())
        });
        assert_eq!(asked, sources[..2]);
    }

    #[test]
    fn service_without_ready_instance_is_refused_unseen() {
        let decision = decide(&policy(&[HashOn::SourceIp], false), "shop", |_| panic!("asked for a fact"));
        let Decision::Refuse(refusal) = decision else { panic!("{decision:?}") };
        assert_eq!((refusal.reason, refusal.retry_after_s), ("no-ready-instance", 3));
    }

    #[test]
    fn a_request_waits_where_the_policy_holds_and_only_while_nothing_is_ready() {
        let holding = |ready| {
            let mut policy = policy(&[HashOn::SourceIp], ready);
            policy.services.values_mut().for_each(|shop| shop.hold_ms = 5_000);
            decide(&policy, "shop", request(&[], "192.0.2.1:5000"))
        };
        assert_eq!(holding(false), Decision::Hold(5_000));
        assert_eq!(holding(true), at("192.0.2.1"));
    }

    #[test]
    fn who_wants_a_version_is_asked_for_no_key_and_waits_as_all_do() {
        let mut shop = policy(&[HashOn::SourceIp], true).services.remove("shop").unwrap();
        for route in [RouteKind::Stable, RouteKind::Canary] {
            assert_eq!(shop.decide("shop", route, true, |_| panic!("asked for a fact")), Decision::Neutral);
        }
        shop.ready = false;
        assert_eq!(shop.decide("shop", RouteKind::Canary, true, |_| None), Decision::Refuse(shop.refusal()));
        shop.hold_ms = 7;
        assert_eq!(shop.decide("shop", RouteKind::Canary, true, |_| None), Decision::Hold(7));
    }

    #[test]
    fn with_the_breaker_open_everyone_is_stables_unseen() {
        let shop = policy(&[HashOn::SourceIp], true).services.remove("shop").unwrap();
        assert_eq!(shop.decide("shop", RouteKind::Split, true, |_| panic!("asked for a fact")), Decision::Stable);
    }

    #[test]
    fn a_cookie_that_is_given_has_to_hold_an_id_and_another_may_hold_anything() {
        let sources = [HashOn::Cookie("session".to_owned()), HashOn::Cookie("tg_id".to_owned())];
        let mut shop = policy(&sources, true).services.remove("shop").unwrap();
        shop.cookie = Some(ClientCookie { name: "tg_id".to_owned(), max_age_s: 1 });
        let decide = |header| shop.decide("shop", RouteKind::Split, false, request(&[("cookie", header)], ""));
        assert_eq!(decide("tg_id=abc-7"), at("abc-7"));
        assert_eq!(decide("session=a.b/c; tg_id=abc-7"), at("a.b/c"));
        for malformed in ["tg_id=", "tg_id=a.b", "tg_id=\u{e4}", &format!("tg_id={}", "a".repeat(65))] {
            assert_eq!(decide(malformed), Decision::Unkeyed, "{malformed}");
        }
    }

    #[test]
    fn unknown_service_is_neutral() {
        assert_eq!(decide(&policy(&[HashOn::SourceIp], false), "cart", |_| None), Decision::Neutral);
        assert_eq!(decide(&Policy::default(), "shop", |_| None), Decision::Neutral);
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let table: [(&str, Option<&str>); 9] = [
            ("tg_id=a", Some("a")),
            ("x=1; tg_id=b; y=2", Some("b")),
            ("tg_id=\"c\"", Some("c")),
            ("tg_id=d=e", Some("d=e")),
            ("tg_id=first;tg_id=second", Some("first")),
            ("tg_id=", Some("")),
            ("xtg_id=a; tg_idx=b; TG_ID=c", None),
            ("tg_id", None),
            ("", None),
        ];
        for (header, value) in table {
            assert_eq!(cookie(header.as_bytes(), "tg_id"), value.map(str::as_bytes), "{header}");
        }
    }

    #[test]
    fn source_ip_has_neither_port_nor_brackets() {
        let table = [
            ("192.0.2.1:5000", "192.0.2.1"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:db8::1]:5000", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::1", "::1"),
            ("", ""),
            ("[", ""),
            (":", ""),
        ];
        for (address, ip) in table {
            assert_eq!(source_ip(address.as_bytes()), ip.as_bytes(), "{address}");
        }
    }

    proptest! {
        #[test]
        fn nothing_a_client_sends_makes_decide_panic(service: String, key: Vec<u8>, address: Vec<u8>, ready: bool) {
            let _ = decide(&policy(&[header("x-user"), HashOn::SourceIp], ready), &service, |source| match source {
                HashOn::Header(_) | HashOn::Cookie(_) => Some(key.clone()),
                HashOn::SourceIp => Some(address.clone()),
            });
            let _ = decide(&policy(&[HashOn::SourceIp], true), "shop", |_| Some(address.clone()));
        }

        #[test]
        fn ports_do_not_matter(ip: std::net::IpAddr, a: u16, b: u16) {
            let at = |port| std::net::SocketAddr::new(ip, port).to_string();
            let (at_a, at_b) = (at(a), at(b));
            let ip = ip.to_string();
            prop_assert_eq!(source_ip(at_a.as_bytes()), ip.as_bytes());
            prop_assert_eq!(source_ip(at_a.as_bytes()), source_ip(at_b.as_bytes()));
        }
    }
}
