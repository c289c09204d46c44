use super::*;
use crate::container::Container;
use crate::drains::{Drain, Drains};
use crate::instance::{CheckKind, CheckTls, Phase};
use crate::service::left_to_nobody;
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
fn the_oldest_container_says_how_requests_are_handled_until_the_configuration_does() {
    let mut other = shop("b", 3, "v1");
    other.labels.insert("tidegate.timeout".to_owned(), "5s".to_owned());
    let mut world = World::with(Config::default(), &[shop("a", 2, "v1"), other]);
    world.settle();
    let ready = |world: &World| shop_view(world).versions.values().next().unwrap().census().ready;
    assert_eq!((shop_view(&world).traffic.timeout, ready(&world)), (None, 2));
    let problems = world.problems();
    let notice = "notice[TG0207]: service shop: its oldest container `a` says nothing, and `b` says timeout 5s";
    assert!(problems[0].starts_with(notice), "{problems:?}");
    world.configure("services: { shop: { timeout: 7s, retry: off } }");
    world.settle();
    assert_eq!(shop_view(&world).traffic.to_string(), "timeout 7s, retry off");
    assert_eq!(world.problems(), Vec::<String>::new(), "nobody's word counts any more");
}

#[test]
fn another_protocol_in_the_same_version_is_quarantined_alone_and_in_another_one_is_not() {
    let speaking = |name, ip, version| {
        let mut container = shop(name, ip, version);
        container.labels.insert("tidegate.protocol".to_owned(), "h2c".to_owned());
        container
    };
    let containers = [shop("a", 2, "v1"), speaking("b", 3, "v1"), speaking("c", 4, "v2")];
    let mut world = World::with(Config::default(), &containers);
    world.settle();
    let census: Vec<_> = shop_view(&world).versions.values().map(|version| version.census().instances).collect();
    assert_eq!(census, [1, 1]);
    let problem = "it speaks h2c, and the oldest of the version `v1` of the service `shop` speaks http1";
    assert!(world.problems()[0].contains(problem), "{:?}", world.problems());
}

#[test]
fn other_authorities_have_just_those_checked_again_whose_certificates_are_looked_at() {
    let checked = |name, ip, how: &[(&str, &str)]| {
        let mut container = shop(name, ip, "v1");
        container.labels.extend(how.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())));
        container
    };
    let https = ("tidegate.check.type", "https");
    let containers = [
        shop("tcp", 2, "v1"),
        checked("verify", 3, &[https]),
        checked("skip", 4, &[https, ("tidegate.check.tls", "skip")]),
    ];
    let mut world = World::with(Config::default(), &containers);
    world.settle();
    let mut configured = |text: &str| {
        let changes = world.state.apply(Input::Configured(Box::new(config(text))), world.now);
        let seen = changes.into_iter().map(|change| match change {
            ProbeChange::Watch { id, check } => match check.kind {
                CheckKind::Https { tls: CheckTls::Issued(tls), .. } => (id.container, tls.ca.clone()),
                CheckKind::Https { tls: CheckTls::Verify, .. } => (id.container, String::new()),
                other => panic!("{other:?}"),
            },
            ProbeChange::Forget(id) => panic!("{id}"),
        });
        seen.collect::<Vec<_>>()
    };
    let verify = discovered(&containers[1]).instances[0].id.container.clone();
    assert_eq!(configured("services: { shop: { tls: { ca: a.pem } } }"), [(verify.clone(), "a.pem".to_owned())]);
    assert_eq!(configured("services: { shop: { timeout: 1s, tls: { ca: a.pem } } }"), []);
    assert_eq!(configured("services: { shop: { tls: { ca: b.pem } } }"), [(verify.clone(), "b.pem".to_owned())]);
    assert_eq!(configured(""), [(verify, String::new())]);
}

#[test]
fn who_starts_gets_requests_where_that_is_wanted_and_only_while_it_starts() {
    let a = shop("a", 2, "v1");
    let mut world = World::unsynced(config("services: { shop: { whenStarting: route } }"));
    world.reset(std::slice::from_ref(&a));
    world.now = world.now.after(FIRST_ROUND);
    let ready = |world: &mut World| {
        world.settle();
        shop_view(world).versions.values().next().unwrap().census().ready
    };
    assert_eq!(ready(&mut world), 1, "no check has ended yet");
    let verdict = |starting| Verdict { passing: false, starting, detail: "refused".to_owned(), since: world.now };
    let id = discovered(&a).instances.remove(0).id;
    let told = |starting| Input::Checked { id: id.clone(), verdict: verdict(starting) };
    let (within, over) = (told(true), told(false));
    world.apply(within.clone());
    assert_eq!(ready(&mut world), 1);
    let why = shop_view(&world).versions.values().next().unwrap().instances[0].readiness.to_string();
    assert_eq!(why, "routed while it starts: starting: refused");
    world.apply(over);
    assert_eq!(ready(&mut world), 0, "its grace is over");
    world.configure("services: { shop: { whenStarting: wait } }");
    world.apply(within);
    assert_eq!(ready(&mut world), 0);
}

#[test]
fn who_was_ready_last_serves_on_where_that_is_wanted_and_only_while_nobody_is() {
    let (a, b) = (shop("a", 2, "v1"), shop("b", 3, "v1"));
    let mut world = World::with(config("services: { shop: { whenNoneReady: serveLast } }"), &[a.clone(), b.clone()]);
    let serving = |world: &mut World| {
        world.settle();
        let view = shop_view(world).versions.values().next().unwrap();
        view.instances.iter().filter(|i| i.is_serving()).map(|i| i.container.clone()).collect::<Vec<_>>()
    };
    assert_eq!(serving(&mut world), ["a", "b"]);
    world.check(&a, false);
    assert_eq!(serving(&mut world), ["b"]);
    world.check(&b, false);
    assert_eq!(serving(&mut world), ["b"], "the last one that was ready");
    assert!(world.problems().iter().any(|problem| problem.contains("the 1 that were ready last are asked")));
    world.check(&a, true);
    assert_eq!(serving(&mut world), ["a"]);
    world.configure("services: { shop: { whenNoneReady: error } }");
    world.check(&a, false);
    assert_eq!(serving(&mut world), Vec::<String>::new());
    world.configure("services: { shop: { whenNoneReady: serveLast } }");
    assert_eq!(serving(&mut world), Vec::<String>::new(), "nobody served when the last one fell");
}

#[test]
fn a_drained_run_gets_nothing_new_until_it_is_undrained_or_over() {
    let (a, b) = (shop("a", 2, "v1"), shop("b", 3, "v1"));
    let mut world = World::with(Config::default(), &[a.clone(), b]);
    world.round();
    let drain = |started_at: &str| {
        let drain = Drain { started_at: started_at.to_owned(), since: Timestamp::from_millis(10_500) };
        Drains::default().with(&a.id, drain)
    };
    let serving = |world: &mut World| {
        world.settle();
        let view = shop_view(world).versions.values().next().unwrap();
        view.instances.iter().filter(|i| i.is_serving()).map(|i| i.container.clone()).collect::<Vec<_>>()
    };
    world.apply(Input::Drained(drain("another run")));
    assert_eq!(serving(&mut world), ["a", "b"]);
    world.apply(Input::Drained(drain(&a.started_at)));
    assert_eq!(serving(&mut world), ["b"]);
    let newest = world.state.service(&service("shop")).unwrap().versions.values().next().unwrap().instances[0].clone();
    assert_eq!((newest.leaving_since, newest.serving_since), (Some(world.now), world.now));
    let (view, declared) = (shop_view(&world), None);
    assert_eq!(left_to_nobody(view, declared, &a.id), None, "it takes nothing any more");
    let b = view.versions.values().next().unwrap().instances[1].id.container.clone();
    assert_eq!(left_to_nobody(view, declared, &b).map(VersionName::as_str), Some("v1"));

    let mut again = a.clone();
    again.started_at = "2026-01-01T00:00:09Z".to_owned();
    world.upsert(&again);
    world.check(&again, true);
    assert_eq!(serving(&mut world), ["a", "b"], "its next run begins anew");
    world.apply(Input::Drained(drain(&again.started_at)));
    assert_eq!(serving(&mut world), ["b"]);
    world.apply(Input::Drained(Drains::default()));
    assert_eq!(serving(&mut world), ["a", "b"]);
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
fn what_is_starting_is_no_problem_until_its_grace_is_over() {
    let slow = shop("a", 2, "v1");
    let mut world = World::with(config(""), std::slice::from_ref(&slow));
    let id = discovered(&slow).instances.remove(0).id;
    for (starting, reason, told) in [(true, "starting: connection refused", 0), (false, "connection refused", 1)] {
        let verdict = Verdict { passing: false, starting, detail: "connection refused".to_owned(), since: world.now };
        world.apply(Input::Checked { id: id.clone(), verdict });
        world.settle();
        let view = world.state.services().next().unwrap();
        let instance = &view.versions.values().next().unwrap().instances[0];
        assert_eq!((instance.readiness.is_ready(), instance.readiness.to_string().as_str()), (false, reason));
        let not_ready = view.problems.iter().filter(|problem| problem.code == Code::NotReady);
        assert_eq!(not_ready.count(), told, "{reason}");
        // Its clients get 503 all the same.
        assert!(view.problems.iter().any(|problem| problem.code == Code::NoReadyInstance));
    }
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

mod kept_back {
    use std::time::Duration;

    use super::*;
    use crate::journal::EdgeProgress;
    use crate::service::{Condition, ConditionKind};
    use crate::status::{InstanceState, Services};

    impl World {
        /// As the reconcile task does.
        fn publish(&mut self, sequence: u64) {
            let changes = self.round();
            self.state.committed((!changes.is_empty()).then_some(sequence), self.now);
        }

        fn edges(&mut self, accepted: &[u64], sequence: u64) {
            let edge = |(number, accepted): (usize, &u64)| EdgeProgress {
                node: format!("e{number}"),
                group: String::new(),
                accepted: *accepted,
            };
            let edges = accepted.iter().enumerate().map(edge).collect();
            self.apply(Input::Accepted { edges, sequence, at: self.now });
        }

        fn pass(&mut self, millis: u64) {
            self.now = self.now.after(Duration::from_millis(millis));
        }

        fn instance(&self, of: &str, container: &str) -> Option<(InstanceState, String)> {
            let services = Services::of(&self.state, self.now).services;
            let versions = services.into_iter().filter(|found| found.name == of).flat_map(|found| found.versions);
            let mut instances = versions.flat_map(|version| version.instances);
            instances.find(|found| found.container == container).map(|found| (found.state, found.reason))
        }

        fn state_of(&self, of: &str, container: &str) -> Option<InstanceState> {
            self.instance(of, container).map(|(state, _)| state)
        }

        fn ends(&mut self, container: &Container, code: i64) {
            let mut ended = container.clone();
            ended.phase = Phase::Exited { code, oom: false };
            self.upsert(&ended);
        }

        fn runs(&mut self, container: &Container, run: u32) {
            let mut next = container.clone();
            next.started_at = format!("2026-01-01T00:{:02}:{:02}Z", run / 60, run % 60);
            self.upsert(&next);
            self.check(&next, true);
        }

        fn conditions(&self) -> Vec<Condition> {
            self.state.services().flat_map(|view| view.conditions.clone()).collect()
        }
    }

    #[test]
    fn a_recycled_address_is_held_back_until_the_edges_know() {
        let old = shop("a", 2, "v1");
        let mut world = World::with(Config::default(), std::slice::from_ref(&old));
        world.publish(1);
        world.edges(&[1, 1], 1);
        world.ends(&old, 0);
        world.publish(2);
        world.edges(&[2, 1], 2);
        let new = container("b", 2, &[("tidegate.host", "cart.localhost"), ("tidegate.service", "cart")]);
        world.upsert(&new);
        world.check(&new, true);
        world.publish(3);
        let (state, reason) = world.instance("cart", "b").unwrap();
        assert_eq!(state, InstanceState::HeldBack);
        assert!(
            reason.starts_with("its address 172.17.0.2:80 was that of shop/v1 (00000000000a) a moment ago"),
            "{reason}"
        );
        assert_eq!(world.state.deadline(), Some(world.now.after(Duration::from_secs(2))));
        let held = world.conditions();
        assert_eq!((held.len(), held[0].kind, held[0].in_force), (1, ConditionKind::HeldBack, true));
        let settled = world.settle();
        assert!(settled.services.is_empty(), "nothing happens while it waits");

        world.edges(&[2, 2], 3);
        let settled = world.settle();
        assert_eq!(settled.services, [service("cart")].into());
        assert_eq!(world.state_of("cart", "b"), Some(InstanceState::Ready));
        assert!(world.conditions().is_empty());
    }

    #[test]
    fn an_edge_that_never_answers_holds_it_back_for_two_seconds() {
        let old = shop("a", 2, "v1");
        let mut world = World::with(Config::default(), std::slice::from_ref(&old));
        world.publish(1);
        world.ends(&old, 0);
        world.publish(2);
        world.edges(&[0], 2);
        // Another version of the same service: its buckets are promises, too.
        let new = shop("b", 2, "v2");
        world.upsert(&new);
        world.check(&new, true);
        world.publish(3);
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::HeldBack));
        world.pass(1_999);
        world.publish(4);
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::HeldBack));
        world.pass(1);
        world.publish(5);
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::Ready));
    }

    #[test]
    fn a_run_whose_address_a_newer_one_has_is_over_whatever_its_check_says() {
        let old = shop("a", 2, "v1");
        let mut world = World::with(Config::default(), std::slice::from_ref(&old));
        world.publish(1);
        world.edges(&[1], 1);
        // The end of the old one was never heard.
        let mut new = container("b", 2, &[("tidegate.host", "cart.localhost"), ("tidegate.service", "cart")]);
        new.started_at = "2026-01-01T00:00:00.5Z".to_owned();
        world.upsert(&new);
        world.check(&old, true);
        world.check(&new, true);
        world.publish(2);
        let (state, reason) = world.instance("shop", "a").unwrap();
        assert_eq!(state, InstanceState::NotReady);
        assert_eq!(reason, "its address belongs to a newer run, of the container 00000000000b");
        assert_eq!(world.state_of("cart", "b"), Some(InstanceState::HeldBack), "until the edges know");
        world.edges(&[2], 2);
        world.publish(3);
        assert_eq!(world.state_of("cart", "b"), Some(InstanceState::Ready));
        world.update(Update::Remove(new.id));
        world.publish(4);
        assert_eq!(world.state_of("shop", "a"), Some(InstanceState::Ready), "it was not over after all");
    }

    #[test]
    fn a_crash_loop_beside_another_instance_costs_few_changes() {
        let (steady, loops) = (shop("a", 2, "v1"), shop("b", 3, "v1"));
        let mut world = World::with(Config::default(), &[steady, loops.clone()]);
        world.publish(1);
        let mut commits = Vec::new();
        for second in 0..600_u32 {
            world.pass(500);
            world.ends(&loops, 1);
            let changes = world.round();
            commits.extend((!changes.is_empty()).then_some(world.now));
            world.pass(500);
            world.runs(&loops, second + 1);
            let changes = world.round();
            commits.extend((!changes.is_empty()).then_some(world.now));
        }
        let in_a_minute = |at: &Timestamp| {
            commits.iter().filter(|other| other.since(*at) < Duration::from_secs(60) && *other >= at).count()
        };
        assert!(commits.iter().all(|at| in_a_minute(at) <= 4), "{commits:?}");
        assert_eq!(commits.len(), 3, "it ends, comes, ends, and stays out while it goes on: {commits:?}");
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::Damped));
        let problem = world.problems().into_iter().find(|problem| problem.contains("TG0213")).unwrap();
        assert!(
            problem.contains("container b (00000000000b): it ended or failed its check 600 times lately"),
            "{problem}"
        );

        // Once it rests, it is back at the time that was said.
        let until = world.conditions()[0].until;
        assert_eq!(world.state.deadline(), Some(until));
        world.now = until;
        assert!(!world.round().is_empty());
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::Ready));
        assert!(world.conditions().is_empty());
    }

    #[test]
    fn what_flaps_serves_while_nothing_else_would() {
        let (first, second) = (shop("a", 2, "v1"), shop("b", 3, "v1"));
        let mut world = World::with(Config::default(), &[first.clone(), second.clone()]);
        world.publish(1);
        for run in 1..4 {
            world.pass(500);
            world.ends(&second, 1);
            world.settle();
            world.runs(&second, run);
            world.settle();
        }
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::Damped));
        world.ends(&first, 0);
        world.settle();
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::Ready));
        let conditions = world.conditions();
        assert_eq!((conditions[0].kind, conditions[0].in_force), (ConditionKind::Damped, false));
        assert!(world.problems().iter().any(|problem| problem.contains("it gets its traffic all the same")));
        world.runs(&first, 9);
        world.settle();
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::Damped));
    }

    #[test]
    fn no_more_are_kept_out_than_stay() {
        let all = [shop("a", 2, "v1"), shop("b", 3, "v1"), shop("c", 4, "v1"), shop("d", 5, "v1")];
        for (flapping, kept_out) in [(1, 1), (2, 2), (3, 0), (4, 0)] {
            let mut world = World::with(Config::default(), &all);
            world.publish(1);
            for _ in 0..3 {
                for passing in [false, true] {
                    world.pass(1_000);
                    all[..flapping].iter().for_each(|container| world.check(container, passing));
                    world.settle();
                }
            }
            let damped = all.iter().filter(|it| world.state_of("shop", &it.name) == Some(InstanceState::Damped));
            assert_eq!(damped.count(), kept_out, "{flapping} of 4 flap");
            assert_eq!(world.conditions().len(), flapping);
        }
    }

    #[test]
    fn a_canary_that_flaps_leaves_its_share_to_stable_and_a_stable_version_to_nobody() {
        let rollout = config("services: { shop: { stable: { version: v1 }, canary: { version: v2, weight: 10 } } }");
        for (flapping, state) in [("v2", InstanceState::Damped), ("v1", InstanceState::Ready)] {
            let (stable, canary) = (shop("a", 2, "v1"), shop("b", 3, "v2"));
            let mut world = World::with(rollout.clone(), &[stable.clone(), canary.clone()]);
            world.publish(1);
            let (name, container) = if flapping == "v1" { ("a", stable) } else { ("b", canary) };
            for run in 1..4 {
                world.pass(500);
                world.ends(&container, 1);
                world.settle();
                world.runs(&container, run);
                world.settle();
            }
            assert_eq!(world.state_of("shop", name), Some(state), "{flapping}");
        }
    }

    #[test]
    fn deploys_and_restarts_are_not_damped() {
        let mut world = World::with(Config::default(), &[shop("keep", 2, "v1")]);
        world.settle();
        // Ten containers, each replaced twice.
        for number in 0..30_u8 {
            let next = shop(&format!("c{number}"), 10 + number, "v1");
            world.upsert(&next);
            world.check(&next, true);
            world.settle();
            world.pass(200);
            world.ends(&next, 0);
            world.settle();
            world.update(Update::Remove(next.id));
            world.settle();
        }
        // Three times `docker restart`.
        let restarted = shop("r", 3, "v1");
        world.runs(&restarted, 1);
        world.settle();
        for run in 2..5 {
            let mut stopping = discovered(&restarted);
            stopping.instances[0].id.started_at = format!("2026-01-01T00:00:{:02}Z", run - 1);
            stopping.terminating = Some(world.now.after(Duration::from_secs(12)));
            world.update(Update::Upsert(Box::new(stopping)));
            world.settle();
            world.pass(300);
            world.ends(&restarted, 0);
            world.settle();
            world.runs(&restarted, run);
            world.settle();
            assert_eq!(world.state_of("shop", "r"), Some(InstanceState::Ready), "run {run}");
        }
        assert!(world.conditions().is_empty());
    }

    #[test]
    fn a_check_that_flaps_is_damped_like_a_crash() {
        let (steady, flaps) = (shop("a", 2, "v1"), shop("b", 3, "v1"));
        let mut world = World::with(Config::default(), &[steady, flaps.clone()]);
        world.publish(1);
        let mut changes = 0;
        for _ in 0..15 {
            for passing in [false, true] {
                world.pass(2_000);
                world.check(&flaps, passing);
                changes += usize::from(!world.round().is_empty());
            }
        }
        assert_eq!(changes, 3, "within a minute of flips each 2 s");
        assert_eq!(world.state_of("shop", "b"), Some(InstanceState::Damped));
    }
}
