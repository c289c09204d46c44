//! Several services of one container.

use super::*;
use crate::instance::service_subject;

/// Service, version and port of each instance.
fn instances(container: &Container) -> Vec<(String, String, u16)> {
    let discovered = read(container);
    let told = |i: &Instance| (i.service.to_string(), i.version.to_string(), i.id.address.port());
    discovered.instances.iter().map(told).collect()
}

/// Subject, code and cure of each problem.
fn problems(container: &Container) -> Vec<(String, Code, String)> {
    read(container).problems.into_iter().map(|problem| (problem.subject, problem.code, problem.cure)).collect()
}

const WHOLE: &str = "container shop-1 (3f9c1a2b77d0)";

fn of(service: &str) -> String {
    service_subject(WHOLE, service)
}

const API: [(&str, &str); 2] = [("tidegate.svc.api.port", "8080"), ("tidegate.svc.api.host", "api.example.com")];

/// `api`, and what these say.
fn beside_api(labels: &[(&str, &str)]) -> Container {
    enabled(&[&API, labels].concat())
}

#[test]
fn each_named_service_has_its_own_port_host_path_version_and_check() {
    let container = beside_api(&[
        ("tidegate.svc.admin.port", "9000"),
        ("tidegate.svc.admin.host", "admin.example.com"),
        ("tidegate.svc.admin.path", "/x"),
        ("tidegate.svc.admin.version", "v2"),
        ("tidegate.svc.admin.check.type", "http"),
        ("tidegate.svc.admin.check.path", "/ready"),
        ("tidegate.svc.admin.check.interval", "500ms"),
        ("tidegate.drain", "30s"),
        ("tidegate.network", "bridge"),
    ]);
    let discovered = read(&container);
    assert_eq!(discovered.problems, []);
    let told = |name: &str, version: &str, port| (name.to_owned(), version.to_owned(), port);
    assert_eq!(instances(&container), [told("admin", "v2", 9000), told("api", "default", 8080)]);
    let [admin, api] = discovered.memberships.as_slice() else { panic!("{:#?}", discovered.memberships) };
    assert_eq!(
        (admin.claim.hosts.as_slice(), admin.claim.path.as_str()),
        (&["admin.example.com".to_owned()][..], "/x")
    );
    assert_eq!((api.claim.hosts.as_slice(), api.claim.path.as_str()), (&["api.example.com".to_owned()][..], "/"));
    let [admin, api] = discovered.instances.as_slice() else { panic!("{:#?}", discovered.instances) };
    let http = CheckKind::Http(HttpCheck::get("/ready"));
    assert_eq!((&admin.check.kind, admin.check.interval), (&http, Duration::from_millis(500)));
    assert_eq!((&api.check, api.drain, admin.drain), (&Check::default(), Duration::from_secs(30), api.drain));
}

#[test]
fn every_label_but_those_of_the_container_exists_for_one_service() {
    for (key, _) in SCHEMA {
        let named = key.replace("tidegate.", "tidegate.svc.api.");
        let container = enabled(&[(&named, "http"), ("tidegate.svc.api.check.type", "http")]);
        let unknown = read(&container).problems.iter().any(|problem| problem.code == Code::UnknownLabel);
        assert_eq!(unknown, CONTAINER_WIDE.contains(key), "{named}");
    }
    let (_, _, cure) = problems(&beside_api(&[("tidegate.svc.api.drain", "5s")])).remove(0);
    assert_eq!(cure, "use `tidegate.drain`, which holds for the whole container");
}

#[test]
fn a_named_service_is_named_like_one_of_compose_unless_a_label_says_it() {
    let port = ("tidegate.svc.api.port", "8080");
    let project = ("com.docker.compose.project", "web");
    let service = ("com.docker.compose.service", "back");
    for (labels, name) in [
        (&[port][..], "api"),
        (&[port, project, service][..], "web-api"),
        (&[port, project, service, ("tidegate.svc.api.service", "shop")][..], "shop"),
    ] {
        assert_eq!(instance(&enabled(labels)).service.as_str(), name, "{labels:?}");
    }
}

#[test]
fn one_bad_service_leaves_its_neighbours() {
    for (label, value, code, cure) in [
        ("tidegate.svc.admin.port", "http", Code::InvalidLabel, "write a number from 1 to 65535"),
        ("tidegate.svc.admin.host", "a b", Code::InvalidLabel, "write host names such as"),
        ("tidegate.svc.admin.prot", "9000", Code::UnknownLabel, "did you mean `tidegate.svc.admin.port`?"),
        ("tidegate.svc.admin.chek.path", "/", Code::UnknownLabel, "did you mean `tidegate.svc.admin.check.path`?"),
        ("tidegate.svc.admin.service", "a/b", Code::InvalidLabel, "set the label `tidegate.svc.admin.service`"),
    ] {
        // It exposes the port that `api` has, so that it would be that of a service without one.
        let container = Container { tcp_ports: vec![8080], ..beside_api(&[(label, value)]) };
        let found = problems(&container);
        let [(subject, found, found_cure)] = found.as_slice() else { panic!("{found:#?}") };
        assert_eq!((subject, found), (&of("admin"), &code), "{label}={value}");
        assert!(found_cure.contains(cure), "{found_cure}");
        assert_eq!(instances(&container), [("api".to_owned(), "default".to_owned(), 8080)], "{label}={value}");
        let members: Vec<_> = read(&container).memberships.iter().map(|m| m.service.to_string()).collect();
        assert!(members.contains(&"api".to_owned()), "{members:?}");
    }
}

#[test]
fn what_is_wrong_with_the_container_stops_all_its_services() {
    for (label, value, code, cure) in [
        ("tidegate.hots", "x", Code::UnknownLabel, "did you mean `tidegate.host`?"),
        ("tidegate.scv.admin.port", "9000", Code::UnknownLabel, "did you mean `tidegate.svc.admin.port`?"),
        ("tidegate.svc", "x", Code::UnknownLabel, "such as `tidegate.svc.api.port`"),
        ("tidegate.svc.admin", "x", Code::UnknownLabel, "such as `tidegate.svc.api.port`"),
        ("tidegate.svc..port", "1", Code::UnknownLabel, "such as `tidegate.svc.api.port`"),
        ("tidegate.drain", "5", Code::InvalidLabel, "use a duration"),
        ("tidegate.network", "brigde", Code::InvalidLabel, "did you mean `bridge`?"),
        ("tidegate.port", "80", Code::LabelConflict, "write `tidegate.svc.NAME.…` for each service"),
        ("tidegate.host", "x.localhost", Code::LabelConflict, "write `tidegate.svc.NAME.…` for each service"),
    ] {
        let container = beside_api(&[(label, value)]);
        assert_eq!(codes(&container), [code], "{label}={value}");
        let (subject, _, found) = problems(&container).remove(0);
        assert_eq!(subject, WHOLE);
        assert!(found.contains(cure), "{found}");
    }
}

#[test]
fn services_of_one_container_differ_in_name_and_port() {
    let twice = beside_api(&[("tidegate.svc.admin.port", "8080"), ("tidegate.svc.other.port", "9000")]);
    assert_eq!(instances(&twice), [("other".to_owned(), "default".to_owned(), 9000)]);
    let found: Vec<_> = problems(&twice).into_iter().map(|(subject, code, _)| (subject, code)).collect();
    assert_eq!(found, [(of("admin"), Code::LabelConflict), (of("api"), Code::LabelConflict)]);
    // The port that is exposed is one too many, too.
    let exposed = Container { tcp_ports: vec![8080], ..beside_api(&[("tidegate.svc.admin.host", "a.localhost")]) };
    assert_eq!(codes(&exposed), [Code::LabelConflict, Code::LabelConflict]);

    let named = beside_api(&[("tidegate.svc.admin.port", "9000"), ("tidegate.svc.admin.service", "api")]);
    assert_eq!(codes(&named), [Code::LabelConflict, Code::LabelConflict]);
    assert_eq!(read(&named).memberships, []);
}

#[test]
fn more_services_or_hosts_than_allowed_quarantine_the_container() {
    let named = |count: u16, word: &str, value: &dyn Fn(u16) -> String| {
        let labels: Vec<_> = (0..count).map(|n| (format!("tidegate.svc.s{n}.{word}"), value(n))).collect();
        enabled(&labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>())
    };
    assert_eq!(read(&named(16, "port", &|n| (n + 1).to_string())).instances.len(), 16);
    assert_eq!(codes(&named(17, "port", &|n| (n + 1).to_string())), [Code::LabelLimit]);
    assert!(problem(&named(17, "port", &|n| (n + 1).to_string())).0.contains("its labels name 17 services"));
    let eleven = |_| (0..11).map(|n| format!("h{n}.example")).collect::<Vec<_>>().join(",");
    assert_eq!(codes(&named(3, "host", &eleven)), [Code::LabelLimit], "the hosts of all its services count");
}

#[test]
fn a_label_that_does_not_exist_is_told_beside_a_name_that_cannot_be() {
    let labels = [("tidegate.svc.c.service", "/"), ("tidegate.svc.c.network", "true"), ("tidegate.svc.c.port", "80")];
    let mut found: Vec<Code> = read(&enabled(&labels)).problems.iter().map(|problem| problem.code).collect();
    found.sort_unstable();
    assert_eq!(found, [Code::InvalidLabel, Code::UnknownLabel]);
}
