use super::*;
use crate::Update;
use crate::config::Config;
use crate::container::Container;
use crate::instance::{DockerHealth, Phase};
use crate::testing::{World, config, container, discovered, shop};

fn answer(world: &World, subject: &str) -> String {
    explain(&world.state, subject, world.now).unwrap().answer
}

fn settled(containers: &[Container]) -> World {
    let mut world = World::with(config(""), containers);
    world.settle();
    world
}

#[test]
fn every_stage_of_a_container_that_gets_traffic() {
    let world = settled(&[shop("a", 2, "v1")]);
    insta::assert_yaml_snapshot!(explain(&world.state, "a", world.now).unwrap());
}

#[test]
fn a_service_comes_with_its_containers() {
    let world = settled(&[shop("a", 2, "v1"), shop("b", 3, "v2")]);
    let explanation = explain(&world.state, "shop", world.now).unwrap();
    let subjects: Vec<&str> = explanation.parts.iter().map(|part| part.subject.as_str()).collect();
    assert_eq!(subjects, ["service shop", "container a (00000000000a)", "container b (00000000000b)"]);
    assert_eq!(explanation.answer, "service shop: every stage passed; it is published at `shop.localhost`");
    assert_eq!(explanation.parts[1].cluster().as_deref(), Some("shop/v1"));
    assert_eq!(explanation.parts[0].cluster(), None);
}

#[test]
fn several_services_of_a_container_are_told_apart() {
    let labels = [
        ("tidegate.svc.api.port", "8080"),
        ("tidegate.svc.api.host", "api.localhost"),
        ("tidegate.svc.admin.port", "9000"),
        ("tidegate.svc.typo.prot", "9001"),
    ];
    let world = settled(&[container("both", 2, &labels)]);
    let explanation = explain(&world.state, "both", world.now).unwrap();
    let answers: Vec<String> = explanation.parts.iter().map(Part::answer).collect();
    let both = "container both (00000000both)";
    let [typo, admin, api] = answers.as_slice() else { panic!("{answers:#?}") };
    assert!(typo.starts_with(&format!("{both}, service typo gets no traffic: labels failed: there is no")), "{typo}");
    assert!(admin.starts_with(&format!("{both}, service admin gets no traffic: host failed")), "{admin}");
    assert!(api.starts_with(&format!("{both}, service api: every stage passed")), "{api}");
    assert_eq!(explanation.answer, *typo, "what is wrong comes first");
    assert_eq!(answer(&world, "api"), "service api: every stage passed; it is published at `api.localhost`");
}

#[test]
fn an_entry_of_a_file_is_told_as_one() {
    let mut world = settled(&[]);
    world.list(
        "- { service: cart, host: cart.localhost, address: '127.0.0.1:9001', timeout: 5s, check: { type: none } }",
    );
    world.settle();
    let explanation = explain(&world.state, "cart", world.now).unwrap();
    let subjects: Vec<&str> = explanation.parts.iter().map(|part| part.subject.as_str()).collect();
    assert_eq!(subjects, ["service cart", "entry cart/default@127.0.0.1:9001"]);
    let details: Vec<&str> = explanation.parts.iter().flat_map(|p| &p.stages).map(|s| s.detail.as_str()).collect();
    for said in ["1 entry of files belong to it", "read at f:1:3", "127.0.0.1:9001, as the entry says"] {
        assert!(details.contains(&said), "{said:?} is not in {details:#?}");
    }
    assert!(details.iter().any(|detail| detail.contains("begins within 5s (its file)")), "{details:#?}");
    for foreign in ["ocker", "container", "label"] {
        assert!(!details.iter().any(|detail| detail.contains(foreign)), "{foreign:?} is in {details:#?}");
    }
    assert_eq!(answer(&world, "cart/default@127.0.0.1:9001"), explanation.parts[1].answer());
}

#[test]
fn the_first_stage_that_failed_is_the_answer() {
    let mut not_enabled = container("plain", 2, &[]);
    not_enabled.labels.clear();
    let forgotten = {
        let mut forgotten = shop("forgotten", 2, "v1");
        forgotten.labels.remove("tidegate.enable");
        forgotten
    };
    let mut several = shop("several", 2, "v1");
    several.tcp_ports = vec![80, 81];
    let mut networks = shop("networks", 2, "v1");
    networks.networks.insert("other".to_owned(), Some([10, 0, 0, 2].into()));
    let mut exited = shop("exited", 2, "v1");
    exited.phase = Phase::Exited { code: 137, oom: true };
    let mut restarting = shop("restarting", 2, "v1");
    restarting.phase = Phase::Restarting;
    let mut unhealthy = shop("unhealthy", 2, "v1");
    unhealthy.health = Some(DockerHealth::Unhealthy);
    let mut starting = shop("starting", 2, "v1");
    starting.health = Some(DockerHealth::Starting);
    for (container, expected) in [
        (
            not_enabled,
            "gets no traffic: enabled failed: it is not enabled; create it with the label `tidegate.enable=true`",
        ),
        (forgotten, "gets no traffic: enabled failed: it has the label `tidegate.host` but not `tidegate.enable`"),
        (
            container("typo", 2, &[("tidegate.hosts", "x")]),
            "labels failed: there is no label `tidegate.hosts` [TG0103]: did you mean `tidegate.host`?",
        ),
        (several, "address failed: it exposes several TCP ports (80, 81)"),
        (networks, "address failed: it is on several networks"),
        (exited, "running failed: it is exited with 137, out of memory"),
        (restarting, "waits for running: it is waiting to be restarted"),
        (unhealthy, "healthcheck failed: Docker says unhealthy"),
        (starting, "waits for healthcheck: it has not passed yet"),
        (container("hostless", 2, &[]), "host failed: its containers have no label `tidegate.host` [TG0203]"),
    ] {
        let world = settled(std::slice::from_ref(&container));
        let answer = answer(&world, &container.id);
        assert!(answer.contains(expected), "{answer}");
        assert!(answer.starts_with(&format!("container {} (", container.name)), "{answer}");
    }
}

#[test]
fn a_failed_check_says_what_was_asked_and_when() {
    let only = shop("a", 2, "v1");
    let mut world = World::unsynced(config(""));
    world.reset(std::slice::from_ref(&only));
    world.settle();
    assert!(answer(&world, "a").contains("waits for check: TCP connection to 172.17.0.2:80: none has ended yet"));
    world.now = world.now.after(std::time::Duration::from_millis(39));
    world.check(&only, false);
    world.settle();
    let answer = answer(&world, "a");
    assert!(answer.contains("connection refused (39 ms after the container was first seen)"), "{answer}");
}

#[test]
fn a_container_that_was_told_to_stop_says_so() {
    let only = shop("a", 2, "v1");
    let mut world = settled(std::slice::from_ref(&only));
    let mut stopping = discovered(&only);
    stopping.terminating = Some(stopping.observed_at.after(std::time::Duration::from_secs(10)));
    world.update(Update::Upsert(Box::new(stopping)));
    world.settle();
    assert!(answer(&world, "a").contains("it was told to stop, and is given up after 10 s at most"));
}

#[test]
fn what_a_service_needs_is_told_with_why_it_is_not_ready() {
    let needing = |name, ip, needs: &str| {
        let labels = [("tidegate.service", name), ("tidegate.host", "h.localhost"), ("tidegate.depends_on", needs)];
        container(name, ip, if needs.is_empty() { &labels[..2] } else { &labels })
    };
    let (web, db) = (needing("web", 2, "db, dv"), needing("db", 3, ""));
    let mut world = World::with(Config::default(), &[web.clone(), db.clone()]);
    world.check(&db, false);
    world.check(&web, false);
    world.settle();
    let stage = |world: &World| {
        let explained = explain(&world.state, "web", world.now).unwrap();
        let stage = explained.parts[0].stages.iter().find(|stage| stage.name == "depends on").unwrap().clone();
        (stage.state, stage.detail)
    };
    let (state, detail) = stage(&world);
    assert_eq!(state, StageState::Pending);
    let said = "`db`, which is not: 0 of 1 instance(s) ready; `db`: connection refused; `dv`, which is not known";
    assert_eq!(detail, said);
    let unknown = "it depends on `dv`, and there is no such service";
    assert!(world.problems().iter().any(|problem| problem.contains(unknown) && problem.contains("did you mean `db`?")));
    world.check(&web, true);
    world.settle();
    assert_eq!(stage(&world).0, StageState::Passed, "it gets its traffic all the same");
}

#[test]
fn the_share_of_each_version_is_told() {
    let mut world = settled(&[shop("a", 2, "v1"), shop("b", 3, "v2"), shop("c", 4, "v3")]);
    let detail = |world: &World, subject: &str| {
        let explanation = explain(&world.state, subject, world.now).unwrap();
        explanation.parts[0].stages.iter().find(|stage| stage.name == "split").unwrap().detail.clone()
    };
    assert_eq!(detail(&world, "a"), "33.34 %, by its number of ready instances among 3 versions");
    world.configure("services: { shop: { stable: { version: v1 }, canary: { version: v2, weight: 10 } } }");
    world.settle();
    assert_eq!(detail(&world, "a"), "it is the stable version with 90 %: buckets [0, 9000)");
    let paused = "paused: its pause has no end: `promote` goes on";
    let canary = format!("it is the canary with 10 %: buckets [9000, 10000); {paused}");
    assert_eq!(detail(&world, "b"), canary);
    assert!(answer(&world, "c").contains("split failed: version `v3` gets no traffic"), "{}", answer(&world, "c"));
}

#[test]
fn a_dispute_names_the_stage_service_and_a_lost_host_the_stage_host() {
    let elder = shop("a", 2, "v1");
    let mut other_host = shop("b", 3, "v1");
    other_host.labels.insert("tidegate.host".to_owned(), "else.localhost".to_owned());
    let mut thief = shop("c", 4, "v1");
    thief.labels.insert("tidegate.service".to_owned(), "thief".to_owned());
    let world = settled(&[elder, other_host, thief]);
    assert!(answer(&world, "b").contains("service failed: it claims [else.localhost]/"), "{}", answer(&world, "b"));
    assert!(answer(&world, "thief").contains("host failed: `shop.localhost/` belongs to the service `shop`"));
}

#[test]
fn nothing_is_decided_before_the_first_full_answer() {
    let only = shop("a", 2, "v1");
    let mut world = World::unsynced(config(""));
    world.upsert(&only);
    world.settle();
    let answer = answer(&world, "shop");
    assert_eq!(answer, "service shop waits for settled: nothing is decided before the first full answer of docker");
}

#[test]
fn subjects_are_found_by_name_id_and_prefix_or_suggested() {
    let world = settled(&[shop("api-1", 2, "v1"), shop("api-2", 3, "v1")]);
    for subject in ["api-1", "0000000api-1", "0000000api-1f"] {
        assert_eq!(explain(&world.state, subject, world.now).unwrap().parts.len(), 1, "{subject}");
    }
    let error = |subject: &str| explain(&world.state, subject, world.now).unwrap_err();
    assert!(matches!(error("0000"), SubjectError::Ambiguous { candidates, .. } if candidates.len() == 2));
    assert_eq!(error("shpo").cure(), "did you mean `shop`?");
    assert_eq!(error("api-3").cure(), "did you mean `api-1`?");
    for subject in ["", "\u{1b}[2J", "/etc", &"x".repeat(100_000)] {
        let error = error(subject).to_string();
        assert!(!error.contains('\u{1b}') && error.len() < 1_000, "{error}");
    }
}
