use super::*;
use crate::instance::Phase;
use crate::testing::{World, config, container, discovered, service, shop};

fn shop_view(world: &World) -> &ServiceView {
    world.state.service(&service("shop")).expect("there is a shop")
}

#[test]
fn nothing_is_derived_before_every_required_provider_has_delivered() {
    let mut world = World::unsynced(Config::default());
    world.upsert(&shop("a", 2, "v1"));
    assert!(world.settle().services.is_empty());
    assert_eq!(world.state.awaiting().as_deref(), Some("the first full answer of docker"));
    world.reset(&[shop("a", 2, "v1")]);
    assert_eq!(world.settle().services.len(), 1);
    assert!(!world.state.is_synced(), "the first check is awaited");
    world.check(&shop("a", 2, "v1"), true);
    world.settle();
    assert!(world.state.is_synced());
}

#[test]
fn the_first_round_of_checks_has_a_deadline() {
    let mut world = World::unsynced(Config::default());
    world.reset(&[shop("a", 2, "v1")]);
    world.settle();
    assert_eq!(world.state.deadline(), Some(world.now.after(FIRST_ROUND)));
    world.now = world.now.after(FIRST_ROUND);
    world.settle();
    assert!(world.state.is_synced());
    assert_eq!(world.state.deadline(), None);
}

#[test]
fn an_empty_engine_is_a_first_sync_too() {
    let mut world = World::unsynced(Config::default());
    world.reset(&[]);
    world.settle();
    assert!(world.state.is_synced());
}

#[test]
fn an_update_touches_its_service_and_no_other() {
    let cart = container("cart", 9, &[("tidegate.host", "cart.localhost")]);
    let mut world = World::with(Config::default(), &[shop("a", 2, "v1"), cart.clone()]);
    world.settle();
    world.check(&cart, false);
    let settled = world.settle();
    assert_eq!(settled.services, [service("cart")].into());
    assert_eq!(settled.flips.len(), 1);
    assert_eq!((settled.flips[0].ready, settled.flips[0].reason.as_str()), (false, "connection refused"));
}

#[test]
fn the_same_facts_again_change_nothing() {
    let containers = [shop("a", 2, "v1"), shop("b", 3, "v2")];
    let mut world = World::with(Config::default(), &containers);
    world.settle();
    world.reset(&containers);
    world.upsert(&containers[0]);
    world.check(&containers[0], true);
    let settled = world.settle();
    assert!(settled.services.is_empty() && settled.flips.is_empty() && !settled.edge);
}

#[test]
fn a_verdict_of_an_ended_run_is_forgotten() {
    let old = shop("a", 2, "v1");
    let mut world = World::with(Config::default(), std::slice::from_ref(&old));
    world.settle();
    let mut new = old.clone();
    new.started_at = "2026-01-01T00:01:00Z".to_owned();
    let changes = world.state.apply(
        Input::Provider { provider: ProviderName::docker(), update: Update::Upsert(Box::new(discovered(&new))) },
        world.now,
    );
    assert!(matches!(changes.as_slice(), [ProbeChange::Forget(_), ProbeChange::Watch { .. }]));
    world.check(&old, true);
    world.settle();
    assert!(!shop_view(&world).has_ready_instance(), "only the new run's own check makes it ready");
}

#[test]
fn the_incumbent_keeps_its_host() {
    let ours = container("ours", 5, &[("tidegate.host", "a.localhost")]);
    let mut world = World::with(Config::default(), std::slice::from_ref(&ours));
    world.settle();
    // Older by creation, but it comes later.
    let thief = container("thief", 2, &[("tidegate.host", "a.localhost,b.localhost")]);
    world.upsert(&thief);
    world.settle();
    let hosts = |world: &World, name: &str| world.state.service(&service(name)).map(|view| view.hosts.clone());
    assert_eq!(hosts(&world, "ours"), Some(vec!["a.localhost".to_owned()]));
    assert_eq!(hosts(&world, "thief"), Some(vec!["b.localhost".to_owned()]));
    assert!(
        world
            .problems()
            .iter()
            .any(|p| p.contains("TG0201") && p.contains("`a.localhost/` belongs to the service `ours`"))
    );
    // A rolling replacement of the incumbent's containers does not lose it.
    let newer = container("ours-2", 9, &[("tidegate.host", "a.localhost"), ("tidegate.service", "ours")]);
    world.upsert(&newer);
    world.update(Update::Remove(ours.id));
    world.settle();
    assert_eq!(hosts(&world, "ours"), Some(vec!["a.localhost".to_owned()]));
    // Only when it is free does it go to who is left.
    world.update(Update::Remove(newer.id));
    world.settle();
    assert_eq!(hosts(&world, "thief"), Some(vec!["a.localhost".to_owned(), "b.localhost".to_owned()]));
    assert!(!world.problems().iter().any(|p| p.contains("TG0201")));
}

#[test]
fn of_claims_that_arrive_together_the_older_wins() {
    let older = container("zz", 2, &[("tidegate.host", "a.localhost")]);
    let newer = container("aa", 3, &[("tidegate.host", "a.localhost")]);
    for order in [[older.clone(), newer.clone()], [newer, older]] {
        let mut world = World::with(Config::default(), &order);
        world.settle();
        assert_eq!(world.state.service(&service("zz")).unwrap().hosts, ["a.localhost"]);
        assert!(world.state.service(&service("aa")).unwrap().hosts.is_empty());
    }
}

#[test]
fn a_container_that_disagrees_with_its_service_is_quarantined_alone() {
    let elder = shop("a", 2, "v1");
    let odd = container("b", 3, &[("tidegate.service", "shop"), ("tidegate.host", "other.localhost")]);
    let mut world = World::with(Config::default(), &[elder.clone(), odd]);
    world.settle();
    assert_eq!(shop_view(&world).versions.len(), 1);
    assert!(world.problems().iter().any(|p| p.contains("TG0202") && p.contains("container b")));
    world.update(Update::Remove(elder.id));
    world.settle();
    assert_eq!(
        shop_view(&world).hosts,
        ["other.localhost"],
        "a deploy with other labels takes over when the old is gone"
    );
}

#[test]
fn a_service_whose_containers_all_stopped_stays_with_its_problem() {
    let mut only = shop("a", 2, "v1");
    let mut world = World::with(Config::default(), std::slice::from_ref(&only));
    world.settle();
    only.phase = Phase::Exited { code: 137, oom: false };
    world.upsert(&only);
    world.settle();
    assert_eq!(shop_view(&world).hosts, ["shop.localhost"]);
    assert!(world.problems().iter().any(|p| p.contains("TG0211")));
    world.update(Update::Remove(only.id));
    world.settle();
    assert!(world.state.service(&service("shop")).is_none());
}

#[test]
fn a_container_that_was_paused_has_to_pass_its_check_again() {
    let mut only = shop("a", 2, "v1");
    let mut world = World::with(Config::default(), std::slice::from_ref(&only));
    world.settle();
    only.phase = Phase::Paused;
    world.upsert(&only);
    world.settle();
    assert!(!shop_view(&world).has_ready_instance());
    only.phase = Phase::Running;
    world.upsert(&only);
    world.settle();
    assert!(!shop_view(&world).has_ready_instance(), "what passed before the pause says nothing now");
    world.check(&only, true);
    world.settle();
    assert!(shop_view(&world).has_ready_instance());
}

#[test]
fn losing_the_provider_keeps_what_is_known() {
    let mut world = World::with(Config::default(), &[shop("a", 2, "v1")]);
    world.settle();
    let lost = Problem::error(Code::DockerUnreachable, "docker", "no answer", "", "");
    world.update(Update::Problems(vec![lost]));
    assert!(world.settle().services.is_empty());
    assert!(shop_view(&world).has_ready_instance());
    assert!(world.problems()[0].contains("TG0110"));
}

#[test]
fn a_declared_version_that_does_not_exist_is_reported_with_the_nearest() {
    let declared = config(
        "services: { shop: { stable: { version: v1 }, canary: { version: v22, weight: 5 } }, shpo: { stable: { version: v1 } } }",
    );
    let mut world = World::with(declared, &[shop("a", 2, "v1"), shop("b", 3, "v2")]);
    world.settle();
    let problems = world.problems();
    assert!(
        problems.iter().any(|p| p.contains("\"v22\" as its canary") && p.contains("did you mean `v2`?")),
        "{problems:#?}"
    );
    assert!(
        problems.iter().any(|p| p.contains("services.shpo") && p.contains("did you mean `shop`?")),
        "{problems:#?}"
    );
    assert!(problems.iter().any(|p| p.contains("TG0212") && p.contains("version v2")), "{problems:#?}");
}

#[test]
fn what_is_wrong_with_entries_is_told_in_their_words() {
    let mut world = World::with(config(""), &[shop("a", 2, "v1")]);
    world.settle();
    world.list(
        "
- { service: bare, address: '127.0.0.1:1' }
- { service: cart, host: a.localhost, address: '127.0.0.1:2', check: { type: none } }
- { service: cart, host: b.localhost, address: '127.0.0.1:3', name: odd, check: { type: none } }
- { service: late, host: shop.localhost, address: '127.0.0.1:4', check: { type: none } }
",
    );
    world.settle();
    let problems: Vec<Problem> = world.state.problems();
    let of = |code: Code| problems.iter().find(|problem| problem.code == code).unwrap();
    assert_eq!(of(Code::NoHost).reason, "its entries have no `host`");
    let not_ready = of(Code::NotReady);
    assert_eq!(not_ready.subject, "entry bare/default@127.0.0.1:1");
    let disagreement = of(Code::Disagreement);
    assert_eq!(disagreement.subject, "entry odd (cart/default@127.0.0.1:3)");
    assert!(disagreement.reason.contains("whose oldest entry `cart/default@127.0.0.1:2` claims"), "{disagreement}");
    for problem in [of(Code::NoHost), not_ready, disagreement, of(Code::HostClaimed)] {
        assert!(!problem.to_string().contains("tidegate."), "{problem}");
        assert!(!problem.effect.contains("container"), "{problem}");
    }
}

#[test]
fn what_a_group_names_and_nothing_is_is_reported_with_the_nearest() {
    let groups = |services: &str| {
        format!("edge: {{ groups: [ {{ name: inner, nodes: {{ cluster: inner }}, services: [ {services} ] }} ] }}")
    };
    let mut world = World::with(config(&groups("shop, \"sh*\"")), &[shop("a", 2, "v1")]);
    world.settle();
    assert_eq!(world.problems(), Vec::<String>::new());
    world.configure(&groups("shpo, \"admin-*\""));
    world.settle();
    assert_eq!(
        world.problems(),
        [
            "warning[TG0403]: services of the group `inner` in tidegate.yaml: no service's name begins with `admin-`\n  \
             effect: the edges of the group get the other services that it names\n  \
             help: start containers (or write entries) of such a service, or remove it there",
            "warning[TG0403]: services of the group `inner` in tidegate.yaml: there is no service `shpo`\n  \
             effect: the edges of the group get the other services that it names\n  help: did you mean `shop`?",
        ]
    );
}
