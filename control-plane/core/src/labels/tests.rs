//! Labels in, instances and problems out.

mod hostile;
mod networks;
mod own;
mod services;

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::address::is_refused;
use super::*;
use crate::instance::{Check, CheckKind, CheckTls, Claim, DockerHealth, HeaderMatch, HttpCheck, Phase, Statuses};
use crate::problem::Severity;
use crate::traffic::{Protocol, Retry, Traffic};
use crate::words::{validate_host, validate_path};
use crate::{Code, VersionName};

/// A running container on `bridge` that exposes port 80, and these labels.
fn container(labels: &[(&str, &str)]) -> Container {
    Container {
        id: "3f9c1a2b77d03f9c1a2b77d0".to_owned(),
        name: "shop-1".to_owned(),
        created: Timestamp::from_millis(1),
        started_at: "2026-01-01T00:00:00Z".to_owned(),
        phase: Phase::Running,
        health: None,
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        tcp_ports: vec![80],
        network_mode: "default".to_owned(),
        networks: networks(&[("bridge", "172.17.0.2")]),
        ..Container::default()
    }
}

fn networks(networks: &[(&str, &str)]) -> BTreeMap<String, Option<IpAddr>> {
    networks.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().ok())).collect()
}

fn enabled(labels: &[(&str, &str)]) -> Container {
    let mut container = container(labels);
    container.labels.insert(ENABLE.to_owned(), "true".to_owned());
    container
}

fn read(container: &Container) -> Discovered {
    read_at(container, None)
}

fn read_at(container: &Container, network: Option<&str>) -> Discovered {
    let hint = Hint { action: "start".to_owned(), at: Timestamp::default() };
    let sighting = Sighting { hint, observed_at: Timestamp::default(), terminating: None };
    interpret(container, &Placement { network: network.map(str::to_owned), ..Placement::default() }, sighting)
}

/// The one instance of a container without problems.
fn instance(container: &Container) -> Instance {
    let discovered = read(container);
    assert_eq!(discovered.problems, []);
    discovered.instances.into_iter().next().expect("an instance")
}

/// The codes of what is wrong, and that nothing is routed then.
fn codes(container: &Container) -> Vec<Code> {
    let discovered = read(container);
    assert!(discovered.instances.is_empty(), "{:?} is routed", discovered.instances);
    discovered.problems.iter().map(|problem| problem.code).collect()
}

/// Reason and cure of the only problem.
fn problem(container: &Container) -> (String, String) {
    let discovered = read(container);
    let [problem] = discovered.problems.as_slice() else { panic!("{:#?}", discovered.problems) };
    assert_eq!(problem.subject, "container shop-1 (3f9c1a2b77d0)");
    assert_eq!(problem.effect, "this container is not routed; others are unaffected");
    (problem.reason.clone(), problem.cure.clone())
}

#[test]
fn enabling_is_all_that_is_needed() {
    let discovered = read(&enabled(&[]));
    let instance = &discovered.instances[0];
    assert_eq!(instance.service.as_str(), "shop-1");
    assert_eq!(instance.version, VersionName::default_version());
    assert_eq!(discovered.memberships[0].claim, Claim { hosts: Vec::new(), path: "/".to_owned() });
    assert_eq!(instance.check, Check::default());
    assert_eq!(instance.drain, DEFAULT_DRAIN);
    assert_eq!(instance.id.address.to_string(), "172.17.0.2:80");
    assert_eq!(instance.id.network, "bridge");
}

#[test]
fn every_label_says_what_it_says() {
    let discovered = read(&enabled(&[
        ("tidegate.service", " shop "),
        ("tidegate.version", "v2.1"),
        ("tidegate.host", "Shop.Example.com, www.shop.example.com,shop.example.com"),
        ("tidegate.path", "/api"),
        ("tidegate.port", "8080"),
        ("tidegate.network", "bridge"),
        ("tidegate.check.type", "https"),
        ("tidegate.check.port", "8081"),
        ("tidegate.check.path", "/ready?deep=1"),
        ("tidegate.check.host", "Shop.localhost"),
        ("tidegate.check.status", "200-299, 404"),
        ("tidegate.check.header", "X-Ready: yes: it is"),
        ("tidegate.check.body", "\"status\":\"up\""),
        ("tidegate.check.tls", "skip"),
        ("tidegate.check.interval", "500ms"),
        ("tidegate.check.timeout", "2s"),
        ("tidegate.check.rise", "1"),
        ("tidegate.check.fall", "3"),
        ("tidegate.check.grace", "30s"),
        ("tidegate.protocol", "h2c"),
        ("tidegate.timeout", "5s"),
        ("tidegate.retry", "all"),
        ("tidegate.slowstart", "30s"),
        ("tidegate.ready.hold", "7s"),
        ("tidegate.depends_on", "db, cache"),
        ("tidegate.canary.weight", "12.5"),
        ("tidegate.drain", "1m"),
    ]));
    let instance = &discovered.instances[0];
    assert_eq!(instance.service.as_str(), "shop");
    assert_eq!(instance.version.as_str(), "v2.1");
    let claim = &discovered.memberships[0].claim;
    assert_eq!(claim.hosts, ["shop.example.com", "www.shop.example.com"]);
    assert_eq!(claim.path, "/api");
    assert_eq!(discovered.memberships[0].protocol, Protocol::H2c);
    assert_eq!(discovered.memberships[0].canary_weight, Some(1_250));
    let asked = Traffic {
        timeout: Some(Duration::from_secs(5)),
        retry: Some(Retry::All),
        slow_start: Some(Duration::from_secs(30)),
        hold: Some(Duration::from_secs(7)),
    };
    assert_eq!(discovered.memberships[0].traffic, asked);
    let needs: Vec<&str> = discovered.memberships[0].depends_on.iter().map(crate::ServiceName::as_str).collect();
    assert_eq!(needs, ["db", "cache"]);
    assert_eq!(instance.id.address.port(), 8080);
    assert_eq!(
        instance.check,
        Check {
            kind: CheckKind::Https {
                http: HttpCheck {
                    path: "/ready?deep=1".to_owned(),
                    host: Some("shop.localhost".to_owned()),
                    status: Statuses(vec![200..=299, 404..=404]),
                    header: Some(HeaderMatch { name: "x-ready".to_owned(), value: Some("yes: it is".to_owned()) }),
                    body: Some("\"status\":\"up\"".to_owned()),
                },
                tls: CheckTls::Skip,
            },
            address: Some("172.17.0.2:8081".parse().unwrap()),
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(2),
            rise: 1,
            fall: 3,
            grace: Duration::from_secs(30),
        }
    );
    assert_eq!(instance.drain, Duration::from_secs(60));
    let grpc = enabled(&[("tidegate.check.type", "grpc"), ("tidegate.check.service", "shop.v1.Carts")]);
    let service = "shop.v1.Carts".to_owned();
    assert_eq!(self::instance(&grpc).check.kind, CheckKind::Grpc { service, host: None });
}

#[test]
fn the_schema_lists_every_label_once_and_the_test_above_knows_them_all() {
    let mut keys: Vec<_> = SCHEMA.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys.len(), 29, "a new label needs a line in `every_label_says_what_it_says`");
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 29);
}

#[test]
fn only_true_enables() {
    for (value, routed, code) in [
        ("true", true, None),
        (" true ", true, None),
        ("false", false, None),
        ("True", false, Some(Code::InvalidLabel)),
        ("1", false, Some(Code::InvalidLabel)),
        ("", false, Some(Code::InvalidLabel)),
    ] {
        let discovered = read(&container(&[(ENABLE, value)]));
        assert_eq!((discovered.enabled, discovered.instances.len()), (routed, usize::from(routed)), "{value:?}");
        assert_eq!(discovered.problems.first().map(|problem| problem.code), code, "{value:?}");
    }
}

#[test]
fn a_container_without_labels_of_ours_is_nobodys_business() {
    let discovered = read(&container(&[("com.example.tidegate.enable", "true"), ("tidegatex.host", "a")]));
    assert!(!discovered.enabled && discovered.problems.is_empty() && discovered.instances.is_empty());
}

#[test]
fn labels_without_the_opt_in_are_a_warning() {
    let discovered = read(&container(&[("tidegate.host", "shop.localhost")]));
    let [problem] = discovered.problems.as_slice() else { panic!("{:?}", discovered.problems) };
    assert_eq!((problem.code, problem.severity), (Code::NotEnabled, Severity::Warning));
    assert!(problem.reason.contains("`tidegate.host` but not `tidegate.enable`"), "{problem}");
    assert_eq!(read(&container(&[("tidegate.host", "x"), (ENABLE, "false")])).problems, [], "it is meant");
}

#[test]
fn names_come_from_the_label_then_compose_then_the_container() {
    const PROJECT: (&str, &str) = ("com.docker.compose.project", "web");
    const SERVICE: (&str, &str) = ("com.docker.compose.service", "api");
    for (labels, name) in [
        (&[][..], "shop-1"),
        (&[PROJECT][..], "shop-1"),
        (&[PROJECT, SERVICE][..], "web-api"),
        (&[PROJECT, SERVICE, ("tidegate.service", "shop")][..], "shop"),
    ] {
        assert_eq!(instance(&enabled(labels)).service.as_str(), name, "{labels:?}");
    }
    let odd = read(&Container { name: "-odd".to_owned(), ..enabled(&[]) });
    assert!(odd.problems[0].reason.contains("the container's name gives the name \"-odd\""), "{:?}", odd.problems);
    assert_eq!(odd.problems[0].cure, "set the label `tidegate.service`");
}

#[test]
fn the_port_is_named_or_the_only_one() {
    let exposing = |ports: &[u16], labels: &[(&str, &str)]| Container { tcp_ports: ports.to_vec(), ..enabled(labels) };
    assert_eq!(instance(&exposing(&[8080], &[])).id.address.port(), 8080);
    assert_eq!(instance(&exposing(&[], &[("tidegate.port", "9000")])).id.address.port(), 9000);
    assert_eq!(instance(&exposing(&[80, 443], &[("tidegate.port", "443")])).id.address.port(), 443);
    assert_eq!(codes(&exposing(&[], &[])), [Code::UnclearPort]);
    let (reason, _) = problem(&exposing(&[80, 443], &[]));
    assert!(reason.contains("80, 443"), "{reason}");
    for bad in ["0", "65536", "-1", "http", "80/tcp", ""] {
        assert_eq!(codes(&enabled(&[("tidegate.port", bad)])), [Code::InvalidLabel], "{bad:?}");
    }
}

#[test]
fn only_what_runs_has_instances_and_only_that_needs_an_address() {
    for (phase, instances) in [
        (Phase::Running, 1),
        (Phase::Paused, 1),
        (Phase::Created, 0),
        (Phase::Restarting, 0),
        (Phase::Exited { code: 137, oom: true }, 0),
    ] {
        let alive = instances == 1;
        let ip = if alive { "172.17.0.2" } else { "" };
        let container = Container { phase, networks: networks(&[("bridge", ip)]), ..enabled(&[]) };
        let discovered = read(&container);
        assert_eq!((discovered.instances.len(), discovered.problems.len()), (instances, 0), "{:?}", container.phase);
    }
}

#[test]
fn hosts_and_paths_are_validated() {
    for bad in
        ["", "a b", "http://x", "x:80", "-x.com", "x-.com", "caf\u{e9}.com", "*.x.com", "a..b", "x,", "x\ny", "x/y"]
    {
        assert_eq!(codes(&enabled(&[("tidegate.host", bad)])), [Code::InvalidLabel], "host {bad:?}");
    }
    assert_eq!(codes(&enabled(&[("tidegate.host", &"a".repeat(64))])), [Code::InvalidLabel]);
    for bad in ["", "api", "/a b", "/a?b", "/a#b", "/../x", "/./x", "/caf\u{e9}", "/a\u{0}"] {
        assert_eq!(codes(&enabled(&[("tidegate.path", bad)])), [Code::InvalidLabel], "path {bad:?}");
    }
}

#[test]
fn checks_are_validated() {
    let http = ("tidegate.check.type", "http");
    for (labels, reason, cure) in [
        (&[("tidegate.check.type", "htpp")][..], "there is no check \"htpp\"", "did you mean `http`?"),
        (&[("tidegate.check.type", "docker")][..], "has no HEALTHCHECK", "add a HEALTHCHECK"),
        (&[("tidegate.check.type", "htttps")][..], "there is no check \"htttps\"", "did you mean `https`?"),
        (&[("tidegate.check.type", "shell")][..], "there is no check", "use tcp, http, https, grpc, docker or none"),
        (
            &[("tidegate.check.path", "/x")][..],
            "checks of the type `tcp` have none, only those of `http` or `https`",
            "set `tidegate.check.type` to `http` or `https`, or leave this out",
        ),
        (&[http, ("tidegate.check.tls", "skip")][..], "type `http` have none, only those of `https`", "to `https`, or"),
        (&[http, ("tidegate.check.service", "s")][..], "only those of `grpc`", "to `grpc`, or leave this out"),
        (&[("tidegate.check.type", "none"), ("tidegate.check.port", "80")][..], "type `none` have none", "to `tcp`, "),
        (&[("tidegate.check.type", "none"), ("tidegate.check.grace", "9s")][..], "type `none` have none", "to `tcp`, "),
        (&[http, ("tidegate.check.path", "/x?a b")][..], "has the character ' '", "/healthz"),
        (&[http, ("tidegate.check.host", "a:80")][..], "is not a host name", "shop.example.com"),
        (&[http, ("tidegate.check.status", "2xx")][..], "\"2xx\" is not a status", "`200-299` or `200,204`"),
        (&[http, ("tidegate.check.status", "299-200")][..], "\"299-200\" is not a status", "`200-299`"),
        (&[http, ("tidegate.check.status", "200,")][..], "\"\" is not a status", "`200-299`"),
        (&[http, ("tidegate.check.status", "100")][..], "from 200 to 599", "`200-299`"),
        (&[http, ("tidegate.check.header", "a b: c")][..], "\"a b\" is not the name", "`x-ready: yes`"),
        (&[http, ("tidegate.check.header", "a: caf\u{e9}")][..], "is not a value of visible ASCII", "`x-ready: yes`"),
        (&[http, ("tidegate.check.body", "")][..], "it is empty", "such as `ok`"),
        (&[("tidegate.check.type", "https"), ("tidegate.check.tls", "no")][..], "it is \"no\"", "`verify` or `skip`"),
        (&[("tidegate.check.type", "grpc"), ("tidegate.check.service", "a b")][..], "the name of a gRPC", "`shop.v1"),
        (&[("tidegate.check.port", "0")][..], "\"0\" is not a port", "from 1 to 65535"),
        (&[("tidegate.check.grace", "30")][..], "has no unit: write `30s`", "`500ms`"),
        (&[http, ("tidegate.check.path", "http://evil/")][..], "does not begin with `/`", "/healthz"),
        (&[("tidegate.check.interval", "5")][..], "has no unit: write `5s`", "`500ms`"),
        (&[("tidegate.check.interval", "1ms")][..], "out of range", "from 10ms to 1h"),
        (&[("tidegate.check.timeout", "2 s")][..], "unknown unit", "`500ms`"),
        (&[("tidegate.check.rise", "0")][..], "from 1 to 100", "`2`"),
        (&[("tidegate.check.fall", "often")][..], "from 1 to 100", "`2`"),
        (&[("tidegate.drain", "2h")][..], "out of range", "from 10ms to 1h"),
    ] {
        let (actual_reason, actual_cure) = problem(&enabled(labels));
        assert!(actual_reason.contains(reason), "{labels:?}: {actual_reason}");
        assert!(actual_cure.contains(cure), "{labels:?}: {actual_cure}");
    }
    let docker = Container { health: Some(DockerHealth::Starting), ..enabled(&[("tidegate.check.type", "docker")]) };
    assert_eq!(instance(&docker).check.kind, CheckKind::Docker);
    assert_eq!(instance(&enabled(&[http])).check.kind, CheckKind::Http(HttpCheck::get("/")));
    assert_eq!(instance(&enabled(&[("tidegate.check.type", "none")])).check.kind, CheckKind::None);
}

#[test]
fn an_unknown_label_is_a_problem_with_a_suggestion() {
    assert_eq!(codes(&enabled(&[("tidegate.hots", "x.localhost")])), [Code::UnknownLabel]);
    assert_eq!(problem(&enabled(&[("tidegate.hots", "x")])).1, "did you mean `tidegate.host`?");
    assert!(problem(&enabled(&[("tidegate.frobnicate", "x")])).1.contains("`tidegate.check.interval`"));
}

#[test]
fn everything_wrong_is_said_at_once() {
    let container = Container {
        networks: BTreeMap::new(),
        tcp_ports: Vec::new(),
        ..enabled(&[
            ("tidegate.host", "a b"),
            ("tidegate.version", "v/2"),
            ("tidegate.check.rise", "x"),
            ("tidegate.nope", ""),
        ])
    };
    let mut found = codes(&container);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            Code::InvalidLabel,
            Code::InvalidLabel,
            Code::InvalidLabel,
            Code::UnclearPort,
            Code::UnknownLabel,
            Code::NoAddress
        ]
    );
}

#[test]
fn more_or_larger_labels_than_allowed_quarantine_the_container() {
    let many: Vec<_> = (0..64).map(|n| format!("tidegate.x{n}")).collect();
    let labels: Vec<_> = many.iter().map(|key| (key.as_str(), "")).collect();
    assert_eq!(codes(&enabled(&labels)), [Code::LabelLimit]);
    assert_eq!(codes(&enabled(&[(&format!("tidegate.{}", "k".repeat(120)), "")])), [Code::LabelLimit]);
    assert_eq!(codes(&enabled(&[("tidegate.host", &"v".repeat(1025))])), [Code::LabelLimit]);
    let hosts = |count| (0..count).map(|n| format!("h{n}.example")).collect::<Vec<_>>().join(",");
    assert_eq!(codes(&enabled(&[("tidegate.host", &hosts(33))])), [Code::LabelLimit]);
    assert_eq!(instance(&enabled(&[("tidegate.host", &hosts(32))])).id.address.port(), 80);
    let foreign: Vec<_> = (0..500).map(|n| format!("com.example.x{n}")).collect();
    let labels: Vec<_> = foreign.iter().map(|key| (key.as_str(), "")).collect();
    assert_eq!(read(&enabled(&labels)).instances.len(), 1, "the labels of others do not count");
}

#[test]
fn foreign_text_is_escaped_wherever_it_shows() {
    let container = Container { name: "x\u{1b}[2J".to_owned(), ..enabled(&[("tidegate.service", "a\u{202e}b")]) };
    let discovered = read(&container);
    assert_eq!(discovered.name, r"x\u{1b}[2J");
    let shown = format!("{} {}", discovered.problems[0], discovered.subject());
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
}

/// Values that are nearly right, and ones that are not.
fn values() -> impl Strategy<Value = String> {
    let likely =
        ["true", "shop", "v2", "shop.localhost", "/", "/a", "80", "bridge", "http", "https", "grpc", "none", "2s", "2"];
    prop_oneof![proptest::sample::select(likely.to_vec()).prop_map(str::to_owned), ".{0,40}", "[a-z0-9./:,-]{0,40}"]
}

fn keys() -> impl Strategy<Value = String> {
    let known: Vec<_> = SCHEMA.iter().map(|(key, _)| (*key).to_owned()).collect();
    let named = (proptest::sample::select(vec!["a", "b"]), proptest::sample::select(known.clone()));
    prop_oneof![
        8 => proptest::sample::select(known),
        4 => named.prop_map(|(name, key)| key.replace("tidegate.", &format!("tidegate.svc.{name}."))),
        1 => "tidegate\\.[a-z.]{0,20}",
        1 => "com\\.docker\\.compose\\.(project|service)",
        1 => ".{0,20}",
    ]
}

fn containers() -> impl Strategy<Value = Container> {
    let phases = proptest::sample::select(vec![
        Phase::Created,
        Phase::Running,
        Phase::Paused,
        Phase::Restarting,
        Phase::Exited { code: 1, oom: false },
    ]);
    let healths = proptest::sample::select(vec![None, Some(DockerHealth::Starting), Some(DockerHealth::Healthy)]);
    let networks = proptest::collection::btree_map("[a-z_]{1,8}|bridge", any::<Option<IpAddr>>(), 0..4);
    let modes = proptest::sample::select(vec!["default", "bridge", "host", "none", "container:abc"]);
    (
        proptest::collection::btree_map(keys(), values(), 0..12),
        (".{0,20}", phases, healths),
        proptest::collection::vec(1_u16.., 0..3),
        (modes, networks),
        any::<bool>(),
    )
        .prop_map(|(labels, (name, phase, health), tcp_ports, (mode, networks), enable)| {
            let network_mode = mode.to_owned();
            let mut container =
                Container { name, phase, health, labels, tcp_ports, network_mode, networks, ..container(&[]) };
            if enable {
                container.labels.insert(ENABLE.to_owned(), "true".to_owned());
            }
            container
        })
}

proptest! {
    #[test]
    fn whatever_the_labels_the_answer_is_an_instance_or_a_reason(container in containers()) {
        let discovered = read(&container);
        let alive = matches!(container.phase, Phase::Running | Phase::Paused);
        let wrong: BTreeSet<&str> = discovered.problems.iter().filter(|p| p.severity == Severity::Error).map(|p| &*p.subject).collect();
        let named = container.labels.keys().filter_map(|key| key.strip_prefix("tidegate.svc.")?.split_once('.'));
        let names: BTreeSet<&str> =
            named.filter(|(name, word)| !name.is_empty() && !word.is_empty()).map(|(name, _)| name).collect();
        let routed = match discovered.enabled && alive && !wrong.contains(&*discovered.subject()) {
            false => 0,
            true => names.len().max(1) - wrong.len(),
        };
        prop_assert_eq!(discovered.enabled, is_enabled(&container.labels));
        prop_assert_eq!(discovered.instances.len(), routed, "{:#?}", discovered);
        let ids: BTreeSet<_> = discovered.instances.iter().map(|instance| &instance.id).collect();
        prop_assert_eq!(ids.len(), discovered.instances.len(), "each at an address of its own");
        for problem in &discovered.problems {
            prop_assert!(!problem.reason.is_empty() && !problem.cure.is_empty() && !problem.effect.is_empty());
            for text in [&problem.subject, &problem.reason, &problem.effect, &problem.cure] {
                prop_assert!(!text.chars().any(char::is_control), "{:?}", text);
            }
        }
        for instance in &discovered.instances {
            prop_assert!(instance.id.address.port() > 0);
            if container.network_mode == "host" {
                prop_assert!(instance.id.address.ip().is_loopback());
                continue;
            }
            prop_assert!(!is_refused(instance.id.address.ip()));
            prop_assert_eq!(container.networks.get(&instance.id.network), Some(&Some(instance.id.address.ip())));
        }
        for membership in &discovered.memberships {
            prop_assert!(membership.claim.path.starts_with('/'));
            prop_assert!(membership.claim.hosts.is_sorted());
        }
    }

    #[test]
    fn hosts_and_paths_that_pass_are_plain_ascii(text in "\\PC{0,60}|[a-zA-Z0-9./_-]{0,60}") {
        if let Ok(host) = validate_host(&text) {
            prop_assert!(host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b)));
            prop_assert_eq!(validate_host(&host), Ok(host), "it is a fixed point");
        }
        if validate_path(&text).is_ok() {
            prop_assert!(text.starts_with('/') && text.is_ascii() && !text.contains(['?', '#', ' ']));
        }
    }
}

#[test]
fn only_a_valid_drain_says_anything() {
    for (value, seconds) in [("30s", Some(30)), (" 1m ", Some(60)), ("2h", None), ("5", None)] {
        let labels = [("tidegate.drain".to_owned(), value.to_owned())].into();
        assert_eq!(drain(&labels), seconds.map(Duration::from_secs), "{value}");
    }
    assert_eq!(drain(&BTreeMap::new()), None);
}
