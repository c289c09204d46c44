//! Who may claim what, and what becomes of who may not.

use crate::container::Container;
use crate::testing::{World, config, container, service};
use crate::{Code, explain};

const STRICT: &str = "ownership: { policy: strict, allow: [ \
    { project: shop, hosts: [ \"*.shop.example\", shop.example ] }, \
    { container: \"old-*\", hosts: [ old.example ] }, { service: blog, hosts: [ blog.example ] } ] }";

fn open() -> String {
    STRICT.replace("strict", "open")
}

/// A container of a Compose project, or of none.
fn of(project: Option<&str>, name: &str, ip_end: u8, labels: &[(&str, &str)]) -> Container {
    let mut container = container(name, ip_end, labels);
    if let Some(project) = project {
        container.labels.insert("com.docker.compose.project".to_owned(), project.to_owned());
        container.labels.insert("com.docker.compose.service".to_owned(), name.to_owned());
    }
    container
}

/// Whether a container that claims this host is routed.
fn is_routed(rules: &str, project: Option<&str>, name: &str, host: &str) -> bool {
    let claimant = of(project, name, 2, &[("tidegate.host", host), ("tidegate.service", "blog")]);
    let mut world = World::with(config(rules), &[claimant]);
    world.settle();
    let refused = world.state.problems().iter().filter(|problem| problem.code == Code::HostRefused).count();
    let routed = world.state.service(&service("blog")).is_some_and(|view| view.hosts == [host]);
    assert_eq!(usize::from(!routed), refused, "one or the other");
    routed
}

#[test]
fn a_host_that_rules_name_is_for_those_whom_they_allow_it() {
    for (project, name, host, strict, is_open) in [
        (Some("shop"), "x", "shop.example", true, true),
        (Some("shop"), "x", "www.shop.example", true, true),
        (Some("shop"), "x", "a.b.shop.example", true, true),
        (Some("shop"), "x", "notshop.example", false, true),
        (Some("shop"), "x", "blog.example", false, false),
        (Some("evil"), "x", "www.shop.example", false, false),
        (Some("evil"), "old-1", "old.example", false, false),
        (None, "x", "shop.example", false, false),
        (None, "old-1", "old.example", true, true),
        (None, "young", "old.example", false, false),
        (None, "x", "blog.example", true, true),
        (None, "x", "free.example", false, true),
    ] {
        assert_eq!(is_routed(STRICT, project, name, host), strict, "strict: {project:?} {name} {host}");
        assert_eq!(is_routed(&open(), project, name, host), is_open, "open: {project:?} {name} {host}");
        assert!(is_routed("", project, name, host), "no rules: {project:?} {name} {host}");
    }
}

#[test]
fn who_may_not_takes_nothing_from_who_may() {
    let labels = [("tidegate.service", "shop"), ("tidegate.host", "shop.example")];
    // The intruder is the older one, and is named like the service that it wants to be of.
    let intruder = of(Some("evil"), "intruder", 2, &labels);
    let taker = of(Some("evil"), "taker", 3, &[("tidegate.service", "taker"), ("tidegate.host", "shop.example")]);
    let owner = of(Some("shop"), "owner", 4, &labels);
    let mut world = World::with(config(&open()), &[intruder, taker, owner]);
    world.settle();
    let view = world.state.service(&service("shop")).expect("it is there");
    assert_eq!(view.hosts, ["shop.example"]);
    let instances = view.versions.values().flat_map(|version| &version.instances);
    assert_eq!(instances.map(|instance| instance.container.as_str()).collect::<Vec<_>>(), ["owner"]);
    assert!(world.state.service(&service("taker")).is_none());
    let problems = world.state.problems();
    let refused: Vec<_> = problems.iter().filter(|problem| problem.code == Code::HostRefused).collect();
    let [one, other] = refused.as_slice() else { panic!("{problems:#?}") };
    assert!(one.subject.contains("intruder") && other.subject.contains("taker"), "{refused:#?}");
    assert_eq!(one.reason, "it claims `shop.example` for the service `shop`, which the Compose project `evil` may not");
    assert!(one.cure.contains("{ project: evil, hosts: [ \"shop.example\" ] } to `ownership.allow`"), "{one}");
    for (subject, said) in [("intruder", "service failed: it claims"), ("taker", "host failed: container taker")] {
        let answer = explain::explain(&world.state, subject, world.now).expect("it is known").answer;
        assert!(answer.contains(said), "{answer}");
    }
}

#[test]
fn other_rules_are_in_force_at_once() {
    let mut world = World::with(config(""), &[of(Some("blog"), "x", 2, &[("tidegate.host", "www.shop.example")])]);
    world.settle();
    let name = service("blog-x");
    assert!(world.state.service(&name).is_some());
    world.configure(STRICT);
    assert!(world.settle().services.contains(&name));
    assert!(world.state.service(&name).is_none());
    world.configure("");
    assert!(world.settle().services.contains(&name));
    assert_eq!(world.state.service(&name).expect("it is back").hosts, ["www.shop.example"]);
}

#[test]
fn entries_of_files_are_the_operators_own() {
    let mut world = World::with(config(STRICT), &[]);
    world.list("- { service: cart, host: www.shop.example, address: '127.0.0.1:9001' }");
    world.settle();
    assert_eq!(world.state.service(&service("cart")).expect("it is there").hosts, ["www.shop.example"]);
}

#[test]
fn rules_that_say_nothing_are_told() {
    for (rule, said) in [
        ("policy: closed", "there is no policy \"closed\""),
        ("policy: strct", "did you mean `strict`?"),
        ("allow: [ { project: shop } ]", "needs `hosts`, and one of project, container and service"),
        ("allow: [ { hosts: [ a.example ] } ]", "needs `hosts`, and one of project, container and service"),
        ("allow: [ { project: a, service: b, hosts: [ a.example ] } ]", "and one of project"),
        ("allow: [ { project: a, hosts: [] } ]", "`ownership.allow.hosts` is empty"),
        ("allow: [ { project: a, hosts: [ \"a b\" ] } ]", "\"a b\" is not a host name"),
        ("allow: [ { project: a, hosts: [ \"*\" ] } ]", "\"*\" is not a host name"),
        ("allow: [ { project: \"a*\", hosts: [ a.example ] } ]", "can be nobody's name"),
        ("allow: [ { projct: a, hosts: [ a.example ] } ]", "there is no key `projct`"),
    ] {
        let problems = crate::config::parse("f", &format!("ownership: {{ {rule} }}")).expect_err(rule);
        assert!(problems.len() == 1, "{rule}: {problems:#?}");
        assert!(problems[0].to_string().contains(said), "{rule}: {}", problems[0]);
    }
}
