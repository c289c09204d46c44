//! The policy: the JSON that travels from the control plane to the filter in the ECDS resource's `configuration`. Only
//! services that need the filter are in it. Unknown fields are ignored, so a filter survives a newer control plane's
//! additions; whatever an old filter must not misread raises [`SCHEMA`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The schema that this filter reads. A policy of another schema is not understood, hence not applied.
pub const SCHEMA: u32 = 1;

/// The default is neutral: no service, so the filter touches no request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    pub schema: u32,
    /// Means nothing by itself: raising it makes the ECDS resource another one, which heals a crashed filter.
    #[serde(default)]
    pub generation: u64,
    /// By service name.
    #[serde(default)]
    pub services: BTreeMap<String, ServicePolicy>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePolicy {
    /// Part of what is hashed: another salt deals the buckets anew.
    pub salt: String,
    /// Where the key is taken from; the first present one wins. Empty: Envoy's own random draw.
    #[serde(default)]
    pub hash_on: Vec<HashOn>,
    /// Whether some version has a ready instance. False: the filter answers 503 itself.
    pub ready: bool,
    /// The versions whose answers the filter counts, where the route names them in `x-tidegate-version`. Empty: none are
    /// counted, and the filter asks Envoy for nothing when the answer comes.
    #[serde(default)]
    pub versions: Vec<String>,
    /// Seconds, in the refusal's `retry-after`.
    pub retry_after_s: u32,
    /// How long a request waits for a ready instance before it is refused; 0: not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hold_ms: u64,
    /// The cookie that a client without a key is given, with an id in it that is its key; only where a cookie of that name is in
    /// [`hash_on`](Self::hash_on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<ClientCookie>,
    /// Whether the filter tells the control plane what it sees of the answers of `versions`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub report: bool,
    /// What sends everyone to the stable version once the canary has failed too often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerPolicy>,
    /// Whether answers may be gRPC's, whose failures are no HTTP statuses.
    #[serde(default, skip_serializing_if = "is_false")]
    pub grpc: bool,
}

/// A cookie that is set on the answer to a client without one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientCookie {
    pub name: String,
    /// Seconds that clients keep it.
    pub max_age_s: u32,
}

/// When the canary has failed too often: see [`BreakerState`](crate::BreakerState).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerPolicy {
    /// The trial: what was seen in another one does not count, and a breaker that opened in it is closed.
    pub epoch: String,
    /// The version that is the measure, and where everyone is sent.
    pub stable: String,
    pub canary: String,
    /// What counts as a failure.
    pub fail_on: Vec<Failure>,
    /// The share of failures that is normal at least, in basis points.
    pub p0: u32,
    /// The share at which it opens, in basis points.
    pub p1: u32,
    /// How much evidence it takes.
    pub h: f64,
    /// From how many clients it has to come.
    pub min_distinct_keys: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

/// Where a client's key is taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HashOn {
    /// A request header by its lower-case name; the first value, if there are several. Absent when empty.
    Header(String),
    /// A cookie by its name; the first one of that name.
    Cookie(String),
    /// The peer's address without its port.
    SourceIp,
}

/// What counts as a failure of a version, for its breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// A status of 500 or above that the application answered.
    #[serde(rename = "5xx")]
    ServerError,
    /// Envoy's own answer: the connection ended before the application's began.
    Reset,
    /// Envoy's own answer: no connection came about.
    ConnectFailure,
    /// Envoy's own answer: it took too long.
    Timeout,
    /// gRPC status 14, whoever said it.
    Unavailable,
    /// gRPC status 13.
    Internal,
    /// gRPC status 2.
    Unknown,
    /// gRPC status 4.
    DeadlineExceeded,
}

/// What counts as a failure of an answer that is watched without a breaker.
const FAILURES: [Failure; 4] = [Failure::ServerError, Failure::Reset, Failure::ConnectFailure, Failure::Timeout];

impl ServicePolicy {
    /// What counts as a failure.
    pub fn fail_on(&self) -> &[Failure] {
        self.breaker.as_ref().map_or(&FAILURES, |breaker| &breaker.fail_on)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("policy is malformed: {0}")]
    Malformed(#[source] serde_json::Error),
    #[error("policy has schema {0}, this filter reads schema {SCHEMA}")]
    Schema(u32),
    #[error("policy of service {service:?} hashes on {header:?}, which is no lower-case header name")]
    HeaderName { service: String, header: String },
}

impl Default for Policy {
    fn default() -> Self {
        Self { schema: SCHEMA, generation: 0, services: BTreeMap::new() }
    }
}

impl Policy {
    /// Reads what [`Self::to_json`] wrote. No bytes at all are the neutral policy: what Envoy hands over when the
    /// resource has no `configuration`, as in the listener's `default_config`.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        // The schema first: what else another schema holds may not even have the same shape.
        let head: Head = serde_json::from_slice(bytes).map_err(PolicyError::Malformed)?;
        if head.schema != SCHEMA {
            return Err(PolicyError::Schema(head.schema));
        }
        let policy: Self = serde_json::from_slice(bytes).map_err(PolicyError::Malformed)?;
        for (service, of_service) in &policy.services {
            for source in &of_service.hash_on {
                if let HashOn::Header(header) = source
                    && !is_header_name(header)
                {
                    return Err(PolicyError::HeaderName { service: service.clone(), header: header.clone() });
                }
            }
        }
        Ok(policy)
    }

    /// Equal policies give equal text.
    pub fn to_json(&self) -> String {
        // Every key is a string and no type here refuses to be written, so this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An RFC 9110 token in lower case.
fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHOP: &str = r#"{"schema":1,"generation":7,"services":{"shop":{"salt":"r1","hashOn":[{"header":"x-user-id"},"sourceIp"],"ready":true,"versions":["v1","v2"],"retryAfterS":2}}}"#;

    fn shop() -> Policy {
        Policy {
            generation: 7,
            services: BTreeMap::from([(
                "shop".to_owned(),
                ServicePolicy {
                    salt: "r1".to_owned(),
                    hash_on: vec![HashOn::Header("x-user-id".to_owned()), HashOn::SourceIp],
                    ready: true,
                    versions: vec!["v1".to_owned(), "v2".to_owned()],
                    retry_after_s: 2,
                    ..ServicePolicy::default()
                },
            )]),
            ..Policy::default()
        }
    }

    #[test]
    fn wire_form_is_stable() {
        assert_eq!(shop().to_json(), SHOP);
        assert_eq!(Policy::parse(SHOP.as_bytes()).unwrap(), shop());
    }

    #[test]
    fn wire_form_of_a_canary_with_everything_is_stable() {
        let text = r#"{"salt":"","ready":true,"retryAfterS":1,"cookie":{"name":"tg_id","maxAgeS":60},"report":true,"breaker":{"epoch":"e1","stable":"v1","canary":"v2","failOn":["5xx","connect-failure","unavailable"],"p0":100,"p1":1000,"h":13.9,"minDistinctKeys":3},"grpc":true}"#;
        let policy: ServicePolicy = serde_json::from_str(text).unwrap();
        let breaker = policy.breaker.as_ref().unwrap();
        assert_eq!((breaker.fail_on.len(), breaker.h, policy.grpc), (3, 13.9, true));
        let again = serde_json::to_string(&policy).unwrap();
        assert_eq!(again.replace(r#""hashOn":[],"#, "").replace(r#""versions":[],"#, ""), text);
    }

    #[test]
    fn no_configuration_is_the_neutral_policy() {
        assert_eq!(Policy::parse(b"").unwrap(), Policy::default());
        assert_eq!(Policy::parse(Policy::default().to_json().as_bytes()).unwrap(), Policy::default());
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let newer = SHOP.replace(r#""ready":true"#, r#""ready":true,"shadow":{"to":"v3"}"#);
        assert_eq!(Policy::parse(newer.as_bytes()).unwrap(), shop());
    }

    #[test]
    fn another_schema_is_told_apart_from_nonsense_whatever_its_shape() {
        assert!(matches!(Policy::parse(br#"{"schema":2,"services":["shop"]}"#), Err(PolicyError::Schema(2))));
        for nonsense in ["{", "[]", "null", "{}", r#"{"schema":"1"}"#, r#"{"schema":1,"services":["shop"]}"#] {
            assert!(matches!(Policy::parse(nonsense.as_bytes()), Err(PolicyError::Malformed(_))), "{nonsense}");
        }
    }

    #[test]
    fn header_names_are_lower_case_tokens() {
        for name in ["", "X-User", "x user", "x-user\r\n", "x:y", "ü"] {
            let policy = SHOP.replace("\"x-user-id\"", &serde_json::to_string(name).unwrap());
            let error = Policy::parse(policy.as_bytes()).unwrap_err();
            assert!(matches!(&error, PolicyError::HeaderName { header, .. } if header == name), "{name:?}: {error}");
        }
    }

    fn service_policy() -> impl Strategy<Value = ServicePolicy> {
        let source = prop_oneof!["[a-z][a-z0-9-]{0,12}".prop_map(HashOn::Header), Just(HashOn::SourceIp)];
        let sources = proptest::collection::vec(source, 0..3);
        let cookie = proptest::option::of(any::<(String, u32)>());
        let breaker = proptest::option::of((
            any::<[String; 3]>(),
            any::<[u32; 3]>(),
            (0..1_000_u32).prop_map(|h| f64::from(h) / 4.0),
        ));
        let numbers = (any::<u32>(), any::<u64>(), any::<[bool; 3]>());
        (any::<String>(), sources, any::<Vec<String>>(), numbers, cookie, breaker).prop_map(
            |(salt, hash_on, versions, (retry_after_s, hold_ms, [ready, report, grpc]), cookie, breaker)| {
                let breaker = breaker.map(|([epoch, stable, canary], [p0, p1, min_distinct_keys], h)| BreakerPolicy {
                    epoch,
                    stable,
                    canary,
                    fail_on: vec![Failure::Timeout, Failure::DeadlineExceeded],
                    p0,
                    p1,
                    h,
                    min_distinct_keys,
                });
                let cookie = cookie.map(|(name, max_age_s)| ClientCookie { name, max_age_s });
                ServicePolicy { salt, hash_on, ready, versions, retry_after_s, hold_ms, cookie, report, breaker, grpc }
            },
        )
    }

    proptest! {
        #[test]
        fn every_policy_survives_the_wire(
            generation: u64,
            services in proptest::collection::btree_map(any::<String>(), service_policy(), 0..4),
        ) {
            let policy = Policy { generation, services, ..Policy::default() };
            prop_assert_eq!(Policy::parse(policy.to_json().as_bytes()).unwrap(), policy);
        }

        #[test]
        fn no_bytes_make_parse_panic(bytes: Vec<u8>) {
            let _ = Policy::parse(&bytes);
        }

        #[test]
        fn no_damage_to_a_policy_makes_parse_panic(at in 0..SHOP.len(), byte: u8, cut in 0..SHOP.len()) {
            let mut bytes = SHOP.as_bytes().to_vec();
            bytes[at] = byte;
            bytes.truncate(cut);
            let _ = Policy::parse(&bytes);
        }
    }
}
