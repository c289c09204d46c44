//! Which address of a container Envoy uses.

use super::*;
use crate::Problem;

/// The network and address of the only instance, or the only problem.
fn reached(container: &Container, placement: &Placement) -> Result<(String, String), Problem> {
    let hint = Hint { action: "start".to_owned(), at: Timestamp::default() };
    let sighting = Sighting { hint, observed_at: Timestamp::default(), terminating: None };
    let discovered = interpret(container, placement, sighting);
    match (discovered.instances.as_slice(), discovered.problems.as_slice()) {
        ([instance], []) => Ok((instance.id.network.clone(), instance.id.address.to_string())),
        ([], [problem]) => Err(problem.clone()),
        _ => panic!("{discovered:#?}"),
    }
}

fn at(network: &str, address: &str) -> Result<(String, String), Problem> {
    Ok((network.to_owned(), address.to_owned()))
}

/// Code, reason and cure say that.
#[track_caller]
fn fails(container: &Container, placement: &Placement, code: Code, reason: &str, cure: &str) {
    let problem = reached(container, placement).expect_err("it has no address");
    assert_eq!(problem.code, code);
    assert!(problem.reason.contains(reason) && problem.cure.contains(cure), "{problem}");
}

fn on_host(labels: &[(&str, &str)]) -> Container {
    Container { network_mode: "host".to_owned(), networks: networks(&[("host", "")]), ..enabled(labels) }
}

#[test]
fn several_networks_without_a_rule_are_a_problem_and_never_a_guess() {
    let two = networks(&[("front", "10.0.0.2"), ("web_default", "10.1.0.2")]);
    let on_two = |labels: &[(&str, &str)]| Container { networks: two.clone(), ..enabled(labels) };
    let chosen = |container: &Container, network| {
        read_at(container, network).instances.first().map(|instance| instance.id.network.clone())
    };
    let compose = ("com.docker.compose.project", "web");
    assert_eq!(codes(&on_two(&[])), [Code::AmbiguousNetwork]);
    assert!(problem(&on_two(&[])).0.contains("`front`, `web_default`"));
    assert_eq!(chosen(&on_two(&[]), Some("front")).as_deref(), Some("front"), "the one that Envoy shares");
    assert_eq!(chosen(&on_two(&[]), Some("elsewhere")), None);
    assert_eq!(chosen(&on_two(&[compose]), None).as_deref(), Some("web_default"), "the project's default");
    assert_eq!(chosen(&on_two(&[compose]), Some("front")).as_deref(), Some("front"), "sharing comes first");
    let labelled = on_two(&[compose, ("tidegate.network", "front")]);
    assert_eq!(chosen(&labelled, Some("web_default")).as_deref(), Some("front"), "the label comes before all");
    assert_eq!(codes(&on_two(&[("tidegate.network", "fornt")])), [Code::InvalidLabel]);
    assert!(problem(&on_two(&[("tidegate.network", "fornt")])).1.contains("did you mean `front`?"));
}

#[test]
fn an_address_that_is_not_the_containers_own_is_refused() {
    for address in ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "::ffff:127.0.0.1", "::1", "fe80::1", "::"]
    {
        let container = Container { networks: networks(&[("bridge", address)]), ..enabled(&[]) };
        assert_eq!(codes(&container), [Code::NoAddress], "{address}");
    }
    let node = Placement { node: Some([172, 17, 0, 2].into()), ..Placement::default() };
    fails(&enabled(&[]), &node, Code::NoAddress, "172.17.0.2, which is not a container's own", "a bridge network");
    let ipv6 = Container { networks: networks(&[("bridge", "fd00::2")]), ..enabled(&[]) };
    assert_eq!(instance(&ipv6).id.address.to_string(), "[fd00::2]:80");
}

#[test]
fn without_any_network_it_is_a_problem() {
    let none = Container { network_mode: "none".to_owned(), networks: networks(&[("none", "")]), ..enabled(&[]) };
    fails(&none, &Placement::default(), Code::NoAddress, "its network mode is `none`", "put it on a network");
    assert_eq!(codes(&Container { networks: BTreeMap::new(), ..enabled(&[]) }), [Code::NoAddress]);
    assert_eq!(codes(&Container { networks: networks(&[("bridge", "")]), ..enabled(&[]) }), [Code::NoAddress]);
}

#[test]
fn on_the_nodes_own_network_it_is_reached_at_the_node() {
    let here = Placement::default();
    assert_eq!(reached(&on_host(&[("tidegate.port", "9000")]), &here), at("host", "127.0.0.1:9000"));
    // All ports of the node are its own, whatever the image exposes.
    fails(&on_host(&[]), &here, Code::UnclearPort, "it has all ports of the node", "set the label `tidegate.port`");
    let elsewhere = Placement { node: Some([10, 0, 0, 1].into()), ..Placement::default() };
    assert_eq!(reached(&on_host(&[("tidegate.port", "9000")]), &elsewhere), at("host", "10.0.0.1:9000"));
    // An Envoy in a container has a loopback of its own.
    let inside = Placement { network: Some("front".to_owned()), ..Placement::default() };
    fails(
        &on_host(&[("tidegate.port", "9000")]),
        &inside,
        Code::NoAddress,
        "where Envoy reaches the node",
        "edge.node",
    );
}

#[test]
fn no_label_leads_to_an_admin_surface() {
    let placement = Placement { reserved: [18_000, 18_001, 9901, 8080].into(), ..Placement::default() };
    for port in ["18000", "18001", "9901", "8080"] {
        let container = on_host(&[("tidegate.port", port)]);
        fails(&container, &placement, Code::NoAddress, "is one of tidegate's or Envoy's own", "another port");
        let named = on_host(&[("tidegate.svc.api.port", port)]);
        assert_eq!(reached(&named, &placement).expect_err("it is out").code, Code::NoAddress);
    }
    assert_eq!(reached(&on_host(&[("tidegate.port", "9000")]), &placement), at("host", "127.0.0.1:9000"));
    // The same port of a container on a network is its own.
    assert_eq!(reached(&enabled(&[("tidegate.port", "9901")]), &placement), at("bridge", "172.17.0.2:9901"));
}

#[test]
fn on_anothers_network_it_is_reached_at_that_ones_address() {
    let here = Placement::default();
    let of = |lender: Option<Container>| Container {
        network_mode: "container:77d03f9c1a2b77d03f9c1a2b".to_owned(),
        networks: BTreeMap::new(),
        lender: lender.map(Box::new),
        ..enabled(&[("tidegate.port", "9000")])
    };
    let lender = Container { id: "77d0".to_owned(), name: "vpn".to_owned(), ..container(&[]) };
    assert_eq!(reached(&of(Some(lender.clone())), &here), at("bridge", "172.17.0.2:9000"));
    fails(&of(None), &here, Code::NoAddress, "the network of 77d03f9c1a2b, which is not known", "start that container");
    let stopped = Container { phase: Phase::Exited { code: 0, oom: false }, ..lender.clone() };
    fails(&of(Some(stopped)), &here, Code::NoAddress, "of `vpn`, which is exited with 0", "and then this one again");
    let torn = Container { networks: networks(&[("a", "10.0.0.2"), ("b", "10.1.0.2")]), ..lender.clone() };
    fails(&of(Some(torn)), &here, Code::AmbiguousNetwork, "(`a`, `b`)", "tidegate.network");
    let on_host = Container { network_mode: "host".to_owned(), ..lender };
    assert_eq!(reached(&of(Some(on_host)), &here), at("host", "127.0.0.1:9000"));
}

#[test]
fn where_envoy_is_on_no_network_of_theirs_published_ports_are_used() {
    let published = |of: &[(u16, &[&str])]| {
        let addresses = |all: &[&str]| all.iter().map(|at| at.parse().expect("an address")).collect::<Vec<_>>();
        let published = of.iter().map(|(port, all)| (*port, addresses(all))).collect();
        Container { published, ..enabled(&[]) }
    };
    let here = Placement { published: true, ..Placement::default() };
    let elsewhere = Placement { node: Some([10, 0, 0, 1].into()), ..here.clone() };
    for (bound, near, far) in [
        (&["0.0.0.0:32768", "[::]:32768"][..], Some("127.0.0.1:32768"), Some("10.0.0.1:32768")),
        (&["[::]:32768"][..], Some("[::1]:32768"), None),
        (&["127.0.0.1:32768"][..], Some("127.0.0.1:32768"), None),
        (&["10.0.0.5:32768", "10.0.0.4:32769"][..], Some("10.0.0.4:32769"), Some("10.0.0.4:32769")),
        (&["127.0.0.1:1", "10.0.0.5:2"][..], Some("10.0.0.5:2"), Some("10.0.0.5:2")),
        (&[][..], None, None),
    ] {
        let container = published(&[(80, bound), (443, &["10.9.9.9:443"])]);
        for (placement, expected) in [(&here, near), (&elsewhere, far)] {
            match expected {
                Some(address) => assert_eq!(reached(&container, placement), at("published", address), "{bound:?}"),
                None => fails(&container, placement, Code::NoAddress, "not published where Envoy", "docker run -p 80"),
            }
        }
    }
    fails(&enabled(&[]), &here, Code::NoAddress, "its port 80 is not published where Envoy reaches it", "`ports:`");
    // A container on the node's network publishes nothing and needs not to.
    assert_eq!(reached(&on_host(&[("tidegate.port", "9000")]), &here), at("host", "127.0.0.1:9000"));
    // Several networks are no matter then.
    let mut torn = published(&[(80, &["0.0.0.0:32768"])]);
    torn.networks = networks(&[("a", "10.0.0.2"), ("b", "10.1.0.2")]);
    assert_eq!(reached(&torn, &here), at("published", "127.0.0.1:32768"));
}

#[test]
fn only_a_container_on_networks_of_its_own_has_its_address_alone() {
    let alone = |container: &Container| {
        let own = Container { networks: networks(&[("bridge", "172.17.0.2")]), ..container.clone() };
        read_at(&own, None).instances.first().map(|instance| instance.has_own_address)
    };
    assert_eq!(alone(&enabled(&[])), Some(true));
    assert_eq!(alone(&on_host(&[("tidegate.port", "9000")])), Some(false));
    let lender = Container { networks: networks(&[("bridge", "172.17.0.2")]), ..enabled(&[]) };
    let borrower = Container {
        id: "b".repeat(64),
        network_mode: "container:x".to_owned(),
        lender: Some(lender.into()),
        ..enabled(&[])
    };
    assert_eq!(alone(&borrower), Some(false));
}

/// Where the check of the only instance goes, or the only problem.
fn checked_at(container: &Container, placement: &Placement) -> Result<Option<String>, Problem> {
    reached(container, placement)?;
    let hint = Hint { action: "start".to_owned(), at: Timestamp::default() };
    let sighting = Sighting { hint, observed_at: Timestamp::default(), terminating: None };
    let instance = interpret(container, placement, sighting).instances.remove(0);
    Ok(instance.check.address.map(|address| address.to_string()))
}

#[test]
fn another_port_is_checked_at_the_same_container_and_nowhere_else() {
    const CHECKED: (&str, &str) = ("tidegate.check.port", "9901");
    let at = |address: &str| Ok(Some(address.to_owned()));
    let here = Placement { reserved: [9901].into(), ..Placement::default() };
    assert_eq!(checked_at(&enabled(&[]), &here), Ok(None));
    assert_eq!(checked_at(&enabled(&[CHECKED]), &here), at("172.17.0.2:9901"), "its own port of that number");
    let on_node = on_host(&[("tidegate.port", "9000"), ("tidegate.check.port", "9001")]);
    assert_eq!(checked_at(&on_node, &here), at("127.0.0.1:9001"));
    // A check is no way to where no label leads (threats T8).
    let reserved = on_host(&[("tidegate.port", "9000"), CHECKED]);
    fails(&reserved, &here, Code::NoAddress, "9901 of the node is one of tidegate's or Envoy's own", "another port");
    let published = |ports: &[(u16, &str)]| Container {
        published: ports.iter().map(|(port, at)| (*port, vec![at.parse().expect("an address")])).collect(),
        ..enabled(&[CHECKED])
    };
    let far = Placement { published: true, ..here };
    let both = published(&[(80, "0.0.0.0:32768"), (9901, "0.0.0.0:32769")]);
    assert_eq!(checked_at(&both, &far), at("127.0.0.1:32769"));
    fails(
        &published(&[(80, "0.0.0.0:32768")]),
        &far,
        Code::NoAddress,
        "its port 9901 is not published",
        "or name another port",
    );
}
