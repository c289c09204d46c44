use serde_json::json;

use super::*;

/// A recording of Envoy 1.40, cut to what matters: of delta xDS with a listener that was refused, or of state-of-the-world
/// subscriptions with a cluster that warms.
pub(in crate::envoy) fn recorded(text: &str) -> Dump {
    let recording: Value = serde_json::from_str(text).unwrap();
    let part = |name: &str| recording[name].to_string().into_bytes();
    Dump::read(&part("configDump"), &part("clusters"), &part("runtime")).unwrap()
}

pub(in crate::envoy) const DELTA: &str = include_str!("../testdata/delta.json");
pub(in crate::envoy) const SOTW: &str = include_str!("../testdata/sotw.json");

fn rows(dump: &Dump) -> Vec<(&str, &str, Option<&str>, HeldState)> {
    dump.held.iter().map(|held| (held.kind.label(), &*held.name, held.version.as_deref(), held.state)).collect()
}

#[test]
fn a_delta_dump_carries_the_version_of_each_resource_but_of_endpoints_and_runtime() {
    let dump = recorded(DELTA);
    use HeldState::{Active, Error};
    assert_eq!(
        rows(&dump),
        [
            ("CDS", "shop/v1", Some("93527a9ab59ed98a"), Active),
            ("CDS", "shop/v2", Some("0064135ed1501c90"), Active),
            ("CDS", "shop/v2+spill", Some("34e9cd925f07edb2"), Active),
            ("EDS", "shop/v1", None, Active),
            ("EDS", "shop/v2", None, Active),
            ("LDS", "taken", Some("6da7aa132e4e2f3b"), Active),
            ("LDS", "taken", None, Error),
            ("LDS", "web", Some("845f9c14141978de"), Active),
            ("RDS", "taken", Some("ae8bc8612716582f"), Active),
            ("RDS", "web", Some("fe267ac7c7b0e59b"), Active),
            ("ECDS", "tidegate", Some("5af7849ba1805bb7"), Active),
            ("RTDS", "tidegate", None, Active),
        ]
    );
    assert_eq!((&*dump.node, &*dump.software), ("edge", "envoy 1.40.0"));
    let refused = dump.held.iter().find(|held| held.state == Error).unwrap();
    assert_eq!(refused.error.as_deref(), Some("cannot bind '127.0.0.1:28098': Address already in use"));
    assert_eq!(refused.updated.as_deref(), Some("2026-11-25T18:35:08.321Z"));
    assert_eq!(dump.layers["tidegate"]["tg.shop.shop/v1"], "9000");
    assert_eq!(dump.hosts["shop/v1"].keys().collect::<Vec<_>>(), ["172.17.0.2:8080"]);
    assert!(ResourceType::ALL.into_iter().filter(|kind| dump.has_versions(*kind)).count() == 4);
}

#[test]
fn a_state_of_the_world_dump_carries_the_version_of_the_response() {
    let dump = recorded(SOTW);
    use HeldState::{Active, Error, Warming};
    assert_eq!(
        rows(&dump),
        [
            ("CDS", "a", Some("8"), Active),
            ("CDS", "b", Some("8"), Active),
            ("CDS", "warm", Some("8"), Warming),
            ("EDS", "a", None, Active),
            ("EDS", "b", None, Active),
            ("LDS", "bad", None, Error),
            ("LDS", "web", Some("7"), Active),
            ("RDS", "web", Some("9"), Active),
        ]
    );
    assert!(!ResourceType::ALL.into_iter().any(|kind| dump.has_versions(kind)));
    let host = |health: &str| Host { health: health.to_owned(), ejected: false };
    assert_eq!(
        dump.hosts["a"],
        [
            ("127.0.0.1:1".to_owned(), host("DRAINING")),
            ("127.0.0.1:2".to_owned(), host("HEALTHY")),
            ("[::1]:1".to_owned(), host("UNHEALTHY")),
        ]
        .into()
    );
}

#[test]
fn secrets_are_struck_out() {
    let mut cluster = json!({
        "name": "c",
        "transport_socket": { "typed_config": { "common_tls_context": {
            "tls_certificates": [ {
                "certificate_chain": { "inline_string": "CHAIN" },
                "private_key": { "inline_string": "KEY" },
                "password": { "filename": "PASSWORD" },
            } ],
            "validation_context": { "trusted_ca": { "inline_bytes": "CA" } },
        } } },
        "static": { "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                    "other": { "inline_string": "OTHER" } },
        "body": { "inline_string": "a page" },
    });
    redact(&mut cluster, false);
    let text = cluster.to_string();
    for secret in ["CHAIN", "KEY", "PASSWORD", "CA", "OTHER"] {
        assert!(!text.contains(&format!("\"{secret}\"")), "{secret}: {text}");
    }
    assert!(text.contains("a page"), "{text}");
    let body: Body = serde_json::from_value(json!({ "name": "x", "private_key": "KEY" })).unwrap();
    assert!(!body.json.contains("KEY"), "what is read is struck out: {}", body.json);
}

#[test]
fn what_is_not_envoys_is_an_error_that_says_where() {
    let error = Dump::read(b"{}", b"{}", b"{}").unwrap_err();
    assert!(error.to_string().contains("/config_dump?include_eds cannot be read"), "{error}");
    let error = Dump::read(b"{\"configs\":[]}", b"nothing", b"{}").unwrap_err();
    assert!(error.to_string().contains("/clusters?format=json"), "{error}");
    let empty = Dump::read(b"{\"configs\":[]}", b"{}", b"{}").unwrap();
    assert!(empty.held.is_empty() && empty.node.is_empty());
}
