use proptest::prelude::*;

use super::canary::Step;
use super::*;
use crate::Severity;
use crate::testing::config;

fn problems(text: &str) -> Vec<String> {
    parse("tidegate.yaml", text)
        .expect_err("it is invalid")
        .iter()
        .map(|p| format!("{} | {} | {}", p.subject, p.reason, p.cure))
        .collect()
}

#[test]
fn no_file_and_an_empty_one_are_the_defaults() {
    for text in ["", "\n# nothing\n", "services:\n", "{}"] {
        assert_eq!(parse("f", text), Ok(Config::default()), "{text:?}");
    }
}

#[test]
fn a_whole_file_is_read() {
    let text = r#"
edge:   { listeners: [ { name: web, address: "127.0.0.1:8080" }, { name: alt, address: "0.0.0.0:81" } ], network: front }
xds:    { address: "127.0.0.1:18000" }
api:    { address: "[::1]:18001" }
providers:
  docker: { endpoint: "unix:///run/docker.sock" }
services:
  shop:
    stable: { version: 1.10 }
    canary:
      version: "1.11"
      weight: 0.29   # percent
      sessionAffinity: { hashOn: [ { header: X-User-Id }, { sourceIp: true } ], salt: service }
"#;
    let config = parse("f", text).unwrap();
    assert_eq!(config.edge.listeners.len(), 2);
    assert_eq!(config.edge.network.as_deref(), Some("front"));
    assert_eq!(config.docker.engines[0].endpoint, "unix:///run/docker.sock");
    let shop = &config.services[&ServiceName::new("shop").unwrap()];
    assert_eq!(shop.stable.as_ref().unwrap().as_str(), "1.10", "a version is the text as written, not a number");
    let canary = shop.canary.as_ref().unwrap();
    assert_eq!(
        (canary.version.as_str(), &*canary.steps, canary.salt),
        ("1.11", &[Step::SetWeight(29), Step::Pause(None)][..], Salt::Service)
    );
    assert_eq!(canary.hash_on, [HashOn::Header("x-user-id".to_owned()), HashOn::SourceIp]);
}

#[test]
fn where_envoy_stands_is_read() {
    let edge =
        |text: &str| parse("f", &format!("edge: {{ {text} }}")).map(|config| (config.edge.reach, config.edge.node));
    assert_eq!(edge("listeners: [ { name: web, address: \"127.0.0.1:1\" } ]"), Ok((Reach::Containers, None)));
    let node = Some([10, 0, 0, 1].into());
    assert_eq!(edge("reach: published, node: 10.0.0.1"), Ok((Reach::Published, node)));
    assert_eq!(edge("reach: containers, node: 10.0.0.1, network: front"), Ok((Reach::Containers, node)));
    for (text, said) in [
        ("reach: publishd", "did you mean `published`?"),
        ("reach: published, network: front", "leave one of the two out"),
        ("node: here", "\"here\" is not the address of a node"),
        ("node: 0.0.0.0", "\"0.0.0.0\" is not the address of a node"),
    ] {
        let found = problems(&format!("edge: {{ {text} }}"));
        assert!(found.len() == 1 && found[0].contains(said), "{text}: {found:?}");
    }
    let other = parse("f", "edge: { reach: published, node: 10.0.0.1 }").unwrap();
    assert_eq!(other.needs_restart(&Config::default()), ["edge.reach", "edge.node"]);
}

#[test]
fn instances_come_from_docker_from_files_or_from_both_but_not_from_nowhere() {
    let read = |text: &str| parse("f", text).map(|config| (config.docker.enabled, config.file));
    assert_eq!(read("providers: { docker: { enabled: true } }"), Ok((true, None)));
    assert_eq!(read("providers: { file: { path: instances/ } }"), Ok((true, Some("instances/".to_owned()))));
    let alone = "providers: { docker: { enabled: false }, file: { path: shop.yaml } }";
    assert_eq!(read(alone), Ok((false, Some("shop.yaml".to_owned()))));
    assert_eq!(
        problems("providers: { docker: { enabled: false } }"),
        ["tidegate.yaml:1:33 | without Docker there is no source of instances | set `providers.file.path`, or leave \
          `enabled` out"]
    );
    assert!(problems("providers: { docker: { enabled: no } }")[0].contains("neither true nor false"));
    assert!(problems("providers: { file: { path: \"\" } }")[0].contains("is empty"));
    assert!(problems("providers: { file: { pth: x } }")[0].contains("did you mean `path`?"));
}

#[test]
fn what_is_read_at_start_only_is_named() {
    let config = |text: &str| parse("f", text).unwrap();
    let files = config("providers: { docker: { enabled: false }, file: { path: a } }");
    assert_eq!(files.needs_restart(&Config::default()), ["providers.docker.enabled", "providers.file.path"]);
    assert!(files.needs_restart(&files.clone()).is_empty());
}

#[test]
fn weights_have_a_resolution_of_a_hundredth_of_a_percent() {
    let weight = |text: &str| {
        let text =
            format!("services: {{ s: {{ stable: {{ version: a }}, canary: {{ version: b, weight: {text} }} }} }}");
        let config = parse("f", &text).ok()?;
        let canary = config.services.values().next()?.canary.clone()?;
        match canary.steps[0] {
            Step::SetWeight(weight) => Some(weight),
            _ => None,
        }
    };
    for (text, basis_points) in [
        ("0", 0),
        ("0.01", 1),
        ("0.5", 50),
        ("10", 1000),
        ("12.50", 1250),
        ("99.99", 9999),
        ("100", 10_000),
        ("100.00", 10_000),
    ] {
        assert_eq!(weight(text), Some(basis_points), "{text}");
    }
    for text in ["-1", "100.01", "101", "0.001", "10%", "ten", "1e1", "NaN", ".5", "[10]", "99999999999"] {
        assert_eq!(weight(text), None, "{text}");
    }
    assert_eq!([percent(1), percent(1250), percent(10_000)], ["0.01 %", "12.5 %", "100 %"]);
}

#[test]
fn every_problem_is_reported_with_its_place_and_cure() {
    let text = "\
edge:
  listners: []
api: { address: \"0.0.0.0:18001\" }
services:
  shop:
    stable: { version: v1 }
    canary: { version: v1, weight: 101 }
  cart:
    canary: { version: v2, weight: 5, sessionAffinity: { hashOn: [ { heather: X } ] } }
";
    assert_eq!(
        problems(text),
        [
            "tidegate.yaml:2:3 | there is no key `listners` in `edge` | did you mean `listeners`?",
            "tidegate.yaml:3:17 | `api.address`: 0.0.0.0:18001 is not a loopback address, and nothing there would ask who is calling | use 127.0.0.1 or [::1]; to reach it from elsewhere, tunnel to it",
            "tidegate.yaml:7:36 | `services.shop.canary.weight`: \"101\" is not a weight | write percent from 0 to 100 with at most two decimals, without a sign: 12.5",
            "tidegate.yaml:9:70 | there is no key `heather` in `services.cart.canary.sessionAffinity.hashOn` | did you mean `header`?",
            "tidegate.yaml:9:68 | an item of `services.cart.canary.sessionAffinity.hashOn` is one of `header: NAME`, `cookie: NAME` and `sourceIp: true` | write one key an item",
            "tidegate.yaml:9:13 | `services.cart` has a canary but no stable version to compare it with | add `stable: { version: … }`",
        ]
    );
}

#[test]
fn tls_needs_all_of_its_files() {
    let config =
        parse("f", "xds: { address: \"10.0.0.1:18000\", tls: { cert: c.pem, key: k.pem, clientCa: ca.pem } }").unwrap();
    let files = XdsTls { cert: "c.pem".to_owned(), key: "k.pem".to_owned(), client_ca: "ca.pem".to_owned() };
    assert_eq!(config.xds.tls, Some(files));
    assert_eq!(
        problems("xds: { tls: { cert: [c.pem], clientCA: ca.pem } }"),
        [
            "tidegate.yaml:1:30 | there is no key `clientCA` in `xds.tls` | did you mean `clientCa`?",
            "tidegate.yaml:1:21 | `xds.tls.cert` is a list, not a single value | write one value",
            "tidegate.yaml:1:13 | `xds.tls` has no `key` | add `key: FILE`, a PEM file",
            "tidegate.yaml:1:13 | `xds.tls` has no `clientCa` | add `clientCa: FILE`, a PEM file",
        ]
    );
}

#[test]
fn only_loopback_is_served_without_tls() {
    let xds = |text: &str| parse("f", text).unwrap().xds;
    for address in ["127.0.0.1:18000", "127.8.9.1:1", "[::1]:18000"] {
        assert_eq!(xds(&format!("xds: {{ address: \"{address}\" }}")).exposed(false), None);
    }
    for address in ["0.0.0.0:18000", "10.0.0.1:18000", "[::]:18000", "[::ffff:10.0.0.1]:1"] {
        let problem = xds(&format!("xds: {{ address: \"{address}\" }}")).exposed(false).expect(address);
        assert_eq!((problem.code, problem.subject), (Code::OpenXds, format!("`xds.address` {address}")));
        let allowed = xds(&format!("xds: {{ address: \"{address}\" }}")).exposed(true).expect(address);
        assert_eq!([problem.severity, allowed.severity], [Severity::Error, Severity::Warning]);
        let tls = xds(&format!("xds: {{ address: \"{address}\", tls: {{ cert: a, key: b, clientCa: c }} }}"));
        assert_eq!(tls.exposed(false), None);
    }
}

#[test]
fn the_interval_of_load_reports_has_its_limits() {
    let interval =
        |text: &str| parse("f", &format!("xds: {{ loadReportInterval: {text} }}")).map(|c| c.load_report_interval);
    for (text, seconds) in [("1s", 1), ("2500ms", 2), ("5m", 300)] {
        assert_eq!(interval(text).map(|it| it.as_secs()).ok(), Some(seconds), "{text}");
    }
    assert_eq!(Config::default().load_report_interval.as_secs(), 10);
    for text in ["999ms", "0s", "301s", "1h"] {
        assert_eq!(
            problems(&format!("xds: {{ loadReportInterval: {text} }}")),
            [format!(
                "tidegate.yaml:1:28 | `xds.loadReportInterval`: \"{text}\" is out of range | write a duration from 1s to 5m, such as 10s"
            )]
        );
    }
    assert!(problems("xds: { loadReportInterval: 10 }")[0].contains("has no unit: write `10s`"));
}

#[test]
fn a_group_of_nodes_is_read() {
    let text = r#"
edge:
  groups:
    - name: inner
      nodes: { id: edge-1, cluster: inner, metadata: { tier: inside, level: 1.0 } }
      listeners: [ web ]
      services: [ shop, "admin-*", "*" ]
    - { name: rest, nodes: { metadata: { tier: inside } } }
"#;
    let groups = parse("f", text).unwrap().edge.groups;
    let [inner, rest] = groups.iter().collect::<Vec<_>>()[..] else { panic!("two groups: {groups:?}") };
    assert_eq!((inner.nodes.id.as_deref(), inner.nodes.cluster.as_deref()), (Some("edge-1"), Some("inner")));
    assert_eq!(inner.nodes.metadata["level"], "1.0", "a value is the text as written");
    let patterns = inner.services.0.clone().unwrap();
    let patterns: Vec<String> = patterns.into_iter().map(String::from).collect();
    assert_eq!(patterns, ["shop", "*", "admin-*"]);
    assert_eq!((&rest.listeners, &rest.services.0), (&None, &None));
}

#[test]
fn what_is_wrong_with_a_group_is_told_with_its_place() {
    let text = r#"
edge:
  listeners: [ { name: internal, address: "127.0.0.1:1" } ]
  groups:
    - { name: a, nodes: { cluster: a }, listeners: [ internl ], services: [ "*-x", "sh*p", "" ] }
    - { name: b, nodes: { cluster: b } }
    - { name: b, nodes: { cluster: c } }
    - { name: d, nodes: { cluster: b, metadata: { k: v } } }
    - { name: e, nodes: {} }
    - { name: f, nodes: { id: f } }
    - { name: g, nodes: { cluster: "", metadata: { k: [ v ] } } }
    - { name: h, nodes: { cluser: h }, listeners: [], services: }
    - { nodes: { cluster: i } }
    - { name: "j k", nodes: { cluster: j } }
"#;
    assert_eq!(
        problems(text),
        [
            "tidegate.yaml:5:54 | there is no listener \"internl\" | did you mean `internal`?",
            "tidegate.yaml:5:77 | \"*-x\" can match no service: '*' is not allowed there: a name is letters, digits, `.`, `_` and `-`, and begins with a letter or digit | write a service's name, or the beginning of one with `*` after it",
            "tidegate.yaml:5:84 | \"sh*p\" can match no service: '*' is not allowed there: a name is letters, digits, `.`, `_` and `-`, and begins with a letter or digit | write a service's name, or the beginning of one with `*` after it",
            "tidegate.yaml:5:92 | \"\" can match no service: it is empty | write a service's name, or the beginning of one with `*` after it",
            "tidegate.yaml:7:7 | another group before this one is named `b` | give each group its own name",
            "tidegate.yaml:8:7 | no node comes to the group `d`: `b` before it takes in every one that it would | write `d` before `b`, or let its nodes differ",
            "tidegate.yaml:9:25 | `edge.groups.nodes` names neither a cluster nor metadata | add `cluster: NAME`, or `metadata: { KEY: VALUE }`, as the node of the edge has them",
            "tidegate.yaml:10:25 | `edge.groups.nodes` names neither a cluster nor metadata | add `cluster: NAME`, or `metadata: { KEY: VALUE }`, as the node of the edge has them",
            "tidegate.yaml:11:36 | `edge.groups.nodes.cluster` is empty | write what the node of the edge has there",
            "tidegate.yaml:11:55 | `edge.groups.nodes.metadata.k` is a list, not a single value | write one value",
            "tidegate.yaml:12:27 | there is no key `cluser` in `edge.groups.nodes` | did you mean `cluster`?",
            "tidegate.yaml:12:51 | `edge.groups.listeners` is empty | leave the key out for all of them, or name some",
            "tidegate.yaml:12:63 | `edge.groups.services` is empty | leave the key out for all of them, or name some",
            "tidegate.yaml:13:7 | a group needs `name` and `nodes` | write { name: inner, nodes: { cluster: inner }, services: [ shop ] }",
            "tidegate.yaml:14:15 | \"j k\" cannot be the name of a group: ' ' is not allowed there: a name is letters, digits, `.`, `_` and `-`, and begins with a letter or digit | use another name",
        ]
    );
    assert!(
        problems("edge: { groups: [ { name: a, nodes: { cluster: a }, services: [ a ], extra: 1 } ] }")[0]
            .contains("`extra`")
    );
}

#[test]
fn how_requests_are_handled_is_read_and_what_is_wrong_is_said_at_its_place() {
    let text = "services: { s: { timeout: 15s, retry: off, slowStart: 1m, whenNoneReady: serveLast } }";
    let config = config(text);
    let declared = config.services.values().next().unwrap();
    assert_eq!(declared.traffic.to_string(), "timeout 15s, retry off, slowstart 60s");
    assert_eq!(declared.when_none_ready, WhenNoneReady::ServeLast);
    assert_eq!(
        problems("services: { s: { timeout: 5, retry: sage, slowStart: 2h, whenNoneReady: servelast } }"),
        [
            "tidegate.yaml:1:27 | `services.s.timeout`: \"5\" has no unit: write `5s` or `5ms` | use a duration such as `500ms` or `2s`",
            "tidegate.yaml:1:37 | `services.s.retry`: there is no retry \"sage\" | did you mean `safe`?",
            "tidegate.yaml:1:54 | `services.s.slowStart`: \"2h\" is out of range | use a duration from 10ms to 1h",
            "tidegate.yaml:1:73 | `services.s.whenNoneReady`: there is no way \"servelast\" | did you mean `serveLast`?",
        ]
    );
}

#[test]
fn who_issues_certificates_is_read_and_what_is_wrong_is_said_at_its_place() {
    let tls = |text: &str| {
        let config = config(&format!("services: {{ shop: {{ tls: {text} }} }}"));
        config.services[&ServiceName::new("shop").unwrap()].tls.as_deref().cloned()
    };
    let read = |name: Option<&str>| {
        let server_name = name.map(str::to_owned);
        Some(ServiceTls { ca: "pki/ca.pem".to_owned(), server_name, authorities: String::new() })
    };
    assert_eq!(tls("{ ca: pki/ca.pem }"), read(None));
    assert_eq!(tls("{ ca: pki/ca.pem, serverName: Shop.internal }"), read(Some("shop.internal")));
    for (text, reason) in [
        ("{ serverName: x }", "`services.shop.tls` has no `ca`"),
        ("{ ca: \"\" }", "`services.shop.tls.ca` is empty"),
        ("{ ca: a, serverName: \"a b\" }", "`services.shop.tls.serverName`: \"a b\" is not a host name"),
        ("{ ca: a, servername: x }", "there is no key `servername` in `services.shop.tls`"),
    ] {
        let problems = problems(&format!("services: {{ shop: {{ tls: {text} }} }}"));
        assert!(problems.len() == 1 && problems[0].contains(reason), "{text}: {problems:?}");
    }
}

#[test]
fn a_canary_is_not_the_stable_version_itself() {
    let text = "services: { s: { stable: { version: a }, canary: { version: a, weight: 1 } } }";
    assert!(problems(text)[0].contains("the canary is the stable version \"a\" itself"));
}

#[test]
fn broken_yaml_is_one_problem_with_its_place() {
    let found = problems("services:\n  shop: { stable: [\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("this is not YAML"), "{found:?}");
    assert!(problems("services: {}\nservices: {}\n")[0].contains("services"), "a key that stands twice");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = parse("f", &text);
    }

    #[test]
    fn no_structured_text_panics(lines in proptest::collection::vec("( ){0,6}(services|shop|stable|canary|weight|version|edge|- )?:? ?[a-z0-9.{}\\[\\]\"&*!|>-]{0,12}", 0..12)) {
        let _ = parse("f", &lines.join("\n"));
    }
}

#[test]
fn engines_of_docker_are_one_or_have_names() {
    let engines = |text: &str| config(&format!("providers: {{ docker: {text} }}")).docker.engines;
    let names = |text: &str| engines(text).iter().map(|e| e.provider().to_string()).collect::<Vec<_>>();
    assert_eq!(names("{}"), ["docker"]);
    let two = "{ engines: [ { name: local, endpoint: \"unix:///a.sock\" }, { name: build, endpoint: \"tcp://b:2376\", \
               required: false, tls: { ca: ca.pem, cert: c.pem, key: k.pem } } ] }";
    assert_eq!(names(two), ["docker:local", "docker:build"]);
    let [local, build] = &engines(two)[..] else { panic!() };
    assert!(local.required && local.tls.is_none() && !build.required);
    let shown = Some(("c.pem".to_owned(), "k.pem".to_owned()));
    assert_eq!(build.tls, Some(DockerTls { ca: "ca.pem".to_owned(), shown }));
    for (bad, said) in [
        ("{ endpoint: \"ssh://a\" }", "`providers.docker.endpoint`: \"ssh://a\" is not an endpoint"),
        ("{ engines: [] }", "names no engine"),
        ("{ engines: [ { name: a } ] }", "needs `name` and `endpoint`"),
        ("{ engines: [ { name: a b, endpoint: \"tcp://b\" } ] }", "cannot be the name of an engine"),
        (
            "{ endpoint: \"tcp://a\", engines: [ { name: a, endpoint: \"tcp://b\" } ] }",
            "an engine of its own beside them",
        ),
        (
            "{ engines: [ { name: a, endpoint: \"tcp://b\" }, { name: b, endpoint: \"tcp://b\" } ] }",
            "another engine before this one has its name or its endpoint",
        ),
        ("{ engines: [ { name: a, endpoint: \"tcp://b\", required: no } ] }", "neither true nor false"),
        ("{ tls: { ca: a } }", "which has no TLS"),
        ("{ endpoint: \"tcp://a\", tls: { cert: a, key: b } }", "has no `ca`"),
        ("{ endpoint: \"tcp://a\", tls: { ca: a, key: b } }", "has one of `cert` and `key`"),
    ] {
        let problems = problems(&format!("providers: {{ docker: {bad} }}"));
        assert!(problems.iter().any(|problem| problem.contains(said)), "{bad}: {problems:?}");
    }
    let plain = config("{}");
    assert_eq!(plain.needs_restart(&config(&format!("providers: {{ docker: {two} }}"))), ["providers.docker.engines"]);
}

#[test]
fn a_plan_is_what_a_canary_may_say_but_its_version() {
    let v2 = VersionName::new("v2").unwrap();
    let canary = parse_canary(&v2, "steps: [ { setWeight: 5 }, { pause: {} } ]\nbreaker: {}").unwrap();
    assert_eq!((canary.version.as_str(), &*canary.steps), ("v2", &[Step::SetWeight(500), Step::Pause(None)][..]));
    assert!(canary.breaker.is_some());
    for (text, reason) in [
        ("weight: 101", "is not a weight"),
        ("version: v3\nweight: 1", "the plan names a version"),
        ("", "has neither"),
        ("[", "this is not YAML"),
        ("- weight: 1", "a list"),
    ] {
        let problems = parse_canary(&v2, text).unwrap_err();
        let told: Vec<&str> = problems.iter().map(|problem| problem.reason.as_str()).collect();
        assert!(told.iter().any(|told| told.contains(reason)), "{text:?}: {told:?}");
    }
}
