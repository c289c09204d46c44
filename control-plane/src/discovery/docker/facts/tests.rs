//! Docker's answers, as Docker 20.10 (API 1.41) gives them, shortened to what matters.

use serde_json::json;
use tidegate_core::container::Container;

use super::*;

fn inspected(value: serde_json::Value) -> Inspected {
    serde_json::from_value::<Inspect>(value).unwrap().into()
}

fn summary(value: serde_json::Value) -> Container {
    listed(serde_json::from_value(value).unwrap()).unwrap()
}

fn running() -> serde_json::Value {
    json!({
        "Id": "c2952e79ce44", "Name": "/shop", "Created": "2026-11-23T09:08:28.874929399Z",
        "State": {
            "Status": "running", "Running": true, "OOMKilled": false, "ExitCode": 0,
            "StartedAt": "2026-11-23T09:08:29.302917983Z", "FinishedAt": "0001-01-01T00:00:00Z",
            "Health": { "Status": "starting", "FailingStreak": 0, "Log": [] }
        },
        "Config": {
            "Env": ["SECRET=hunter2"], "Labels": { "tidegate.enable": "true" }, "Cmd": null,
            "ExposedPorts": { "8080/tcp": {}, "53/udp": {}, "443/tcp": {} },
            "StopSignal": "SIGUSR1", "StopTimeout": 3
        },
        "HostConfig": { "NetworkMode": "default" },
        "NetworkSettings": { "Networks": {
            "bridge": { "IPAddress": "172.17.0.3", "GlobalIPv6Address": "" },
            "v6": { "IPAddress": "", "GlobalIPv6Address": "fd00::3" },
            "late": { "IPAddress": "", "GlobalIPv6Address": "" }
        }, "Ports": {
            "8080/tcp": [ { "HostIp": "0.0.0.0", "HostPort": "32768" }, { "HostIp": "::", "HostPort": "32768" } ],
            "443/tcp": null, "53/udp": [ { "HostIp": "0.0.0.0", "HostPort": "53" } ]
        } }
    })
}

#[test]
fn an_inspect_gives_the_facts_and_how_it_stops() {
    let Inspected { facts, stop } = inspected(running());
    assert_eq!(facts.name, "shop");
    assert_eq!(facts.created.as_millis(), 1_795_424_908_874);
    assert_eq!(facts.started_at, "2026-11-23T09:08:29.302917983Z");
    assert_eq!(facts.phase, Phase::Running);
    assert_eq!(facts.health, Some(DockerHealth::Starting));
    assert_eq!(facts.tcp_ports, [443, 8080]);
    assert_eq!(facts.network_mode, "default");
    assert_eq!(facts.networks["bridge"], Some("172.17.0.3".parse().unwrap()));
    assert_eq!(facts.networks["v6"], Some("fd00::3".parse().unwrap()));
    assert_eq!(facts.networks["late"], None);
    let published = ["0.0.0.0:32768", "[::]:32768"].map(|at| at.parse().unwrap()).to_vec();
    assert_eq!(facts.published, BTreeMap::from([(8080, published)]));
    assert_eq!(stop, Stop { signal: 10, timeout: Duration::from_secs(3) });
}

#[test]
fn no_environment_is_ever_kept() {
    let inspect: Inspect = serde_json::from_value(running()).unwrap();
    assert!(!format!("{inspect:?}").contains("hunter2"));
}

#[test]
fn an_inspect_may_lack_almost_everything() {
    let Inspected { facts, stop } =
        inspected(json!({ "Id": "a", "Config": { "Labels": null }, "NetworkSettings": { "Networks": null } }));
    assert_eq!(facts.phase, Phase::Exited { code: 0, oom: false }, "unknown is not running");
    assert_eq!(stop, Stop::default());
}

#[test]
fn a_state_is_a_phase() {
    for (status, code, oom, expected) in [
        ("created", 0, false, Phase::Created),
        ("running", 0, false, Phase::Running),
        ("stopping", 0, false, Phase::Running),
        ("paused", 0, false, Phase::Paused),
        ("restarting", 1, false, Phase::Restarting),
        ("exited", 137, true, Phase::Exited { code: 137, oom: true }),
        ("dead", 1, false, Phase::Exited { code: 1, oom: false }),
        ("removing", 0, false, Phase::Exited { code: 0, oom: false }),
        ("levitating", 0, false, Phase::Exited { code: 0, oom: false }),
    ] {
        let state = json!({ "Status": status, "ExitCode": code, "OOMKilled": oom });
        assert_eq!(inspected(json!({ "Id": "a", "State": state })).facts.phase, expected, "{status}");
    }
}

fn entry(state: &str, status: &str) -> serde_json::Value {
    json!({
        "Id": "c2952e79ce44", "Names": ["/other/alias", "/shop"], "Created": 1_795_424_908,
        "Ports": [
            { "PrivatePort": 8080, "Type": "tcp" }, { "PrivatePort": 53, "Type": "udp", "IP": "0.0.0.0", "PublicPort": 53 },
            { "PrivatePort": 8080, "Type": "tcp", "IP": "0.0.0.0", "PublicPort": 32768 },
            { "PrivatePort": 8080, "Type": "tcp", "IP": "::", "PublicPort": 32768 }
        ], "Labels": { "tidegate.enable": "true" },
        "State": state, "Status": status, "HostConfig": { "NetworkMode": "default" },
        "NetworkSettings": { "Networks": { "bridge": { "IPAddress": "172.17.0.3", "GlobalIPv6Address": "" } } }
    })
}

#[test]
fn a_list_tells_names_health_and_exit_codes_in_words() {
    let up = summary(entry("running", "Up 2 minutes (health: starting)"));
    assert_eq!((up.name.as_str(), up.phase, up.health), ("shop", Phase::Running, Some(DockerHealth::Starting)));
    let health = |status| summary(entry("running", status)).health;
    assert_eq!(health("Up 2 minutes (healthy)"), Some(DockerHealth::Healthy));
    assert_eq!(health("Up 2 minutes (unhealthy)"), Some(DockerHealth::Unhealthy));
    assert_eq!(health("Up 2 minutes"), None);
    let down = summary(entry("exited", "Exited (137) 3 seconds ago"));
    assert_eq!(down.phase, Phase::Exited { code: 137, oom: false });
}

#[test]
fn a_list_differs_where_a_look_is_worth_it() {
    let mut value = running();
    assert_eq!(summary(entry("running", "Up")).published, inspected(running()).facts.published);
    value["NetworkSettings"]["Networks"] = json!({ "bridge": { "IPAddress": "172.17.0.3" } });
    let known = inspected(value).facts;
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = entry("running", "Up 2 seconds (health: starting)");
        change(&mut value);
        differs(&summary(value), &known)
    };
    assert!(!with(&|_| {}));
    assert!(with(&|value| value["State"] = json!("paused")));
    assert!(with(&|value| value["Status"] = json!("Up 3 seconds (healthy)")));
    assert!(with(&|value| value["Names"] = json!(["/renamed"])));
    assert!(with(&|value| value["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] = json!("172.17.0.9")));
    assert!(with(&|value| value["NetworkSettings"]["Networks"]["more"] = json!({ "IPAddress": "10.0.0.2" })));
}

/// A hundred looks at a container on two networks give one answer (traefik/traefik#5040).
#[test]
fn the_order_of_networks_says_nothing() {
    use tidegate_core::labels::{Placement, Sighting, interpret};
    let hint = tidegate_core::instance::Hint { action: "start".into(), at: Timestamp::default() };
    let mut answers = std::collections::BTreeSet::new();
    for n in 0..100 {
        let mut value = running();
        let mut names: Vec<String> = (0..8).map(|n| format!("net{n}")).collect();
        names.rotate_left(n % 8);
        if n % 2 == 0 {
            names.reverse();
        }
        let networks =
            names.iter().map(|name| (name.clone(), json!({ "IPAddress": format!("10.0.0.{}", &name[3..]) })));
        value["NetworkSettings"]["Networks"] = networks.collect::<serde_json::Map<_, _>>().into();
        value["Config"]["Labels"]["tidegate.port"] = json!("80");
        let sighting = Sighting { hint: hint.clone(), observed_at: Timestamp::default(), terminating: None };
        let discovered = interpret(&inspected(value).facts, &Placement::default(), sighting);
        assert!(discovered.instances.is_empty());
        answers.insert(format!("{:?}", discovered.problems));
    }
    assert_eq!(answers.len(), 1, "{answers:#?}");
    assert!(answers.first().unwrap().contains("`net0`, `net1`, `net2`"), "{answers:?}");
}

#[test]
fn times_are_read_to_the_nanosecond() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2000-02-29T12:00:00.5Z", Some(951_825_600_500_000_000)),
        ("2026-11-23T09:08:29.302917983Z", Some(1_795_424_909_302_917_983)),
        ("2026-11-23T10:08:29.302917983+01:00", Some(1_795_424_909_302_917_983)),
        ("2026-11-23T03:38:29.302917983-05:30", Some(1_795_424_909_302_917_983)),
        ("0001-01-01T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("2026-13-01T00:00:00Z", None),
        ("2026-11-23", None),
        ("2026-11-23T", None),
        ("", None),
        ("nonsense", None),
        ("2026-11-23T\u{e9}9:08:29Z", None),
        ("2026-11-23T09:08:29.\u{e9}Z", None),
        ("2026-11-23T09:08:29+99:99", None),
        ("2026-11-23T99999999999999999:08:29Z", None),
    ] {
        assert_eq!(nanos(text), expected, "{text:?}");
    }
}
