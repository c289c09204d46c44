//! Groups of nodes: what each has, and what a change of them costs. Here, too, is the property that holds with and without them:
//! equal facts give equal resources.

use super::*;
use crate::config::NodeGroups;
use crate::state::trials::Trials;

const LISTENERS: &str =
    "listeners: [ { name: web, address: \"127.0.0.1:1\" }, { name: internal, address: \"127.0.0.1:2\" } ]";

/// A configuration with two listeners, and with groups by these lines.
fn grouped(groups: &[&str]) -> String {
    format!("edge: {{ {LISTENERS}, groups: [ {} ] }}", groups.join(", "))
}

const INNER: &str =
    "{ name: inner, nodes: { cluster: inner }, listeners: [ internal ], services: [ \"admin-*\", shop ] }";

fn admin() -> Container {
    container("admin-ui", 5, &[("tidegate.host", "admin.localhost")])
}

fn cart() -> Container {
    container("cart", 6, &[("tidegate.host", "cart.localhost")])
}

#[test]
fn a_group_has_its_listeners_and_services_and_what_is_the_same_is_made_once() {
    let mut world = World::with(config(&grouped(&[INNER])), &[shop("a", 2, "v1"), shop("b", 3, "v2"), admin(), cart()]);
    let changes = world.round();
    assert_eq!(
        words(&changes),
        [
            "CDS admin-ui/default",
            "CDS cart/default @-",
            "CDS shop/v1",
            "CDS shop/v2",
            "ECDS tidegate",
            "EDS admin-ui/default [172.17.0.5:80 healthy]",
            "EDS cart/default [172.17.0.6:80 healthy] @-",
            "EDS shop/v1 [172.17.0.2:80 healthy]",
            "EDS shop/v2 [172.17.0.3:80 healthy]",
            "LDS internal",
            "LDS web @-",
            "RDS internal admin.localhost(/->admin-ui/default) cart.localhost(/->cart/default) \
             shop.localhost(/->shop/v1=5000|shop/v2=5000) @-",
            "RDS internal admin.localhost(/->admin-ui/default) shop.localhost(/->shop/v1=5000|shop/v2=5000) @inner",
            "RDS web admin.localhost(/->admin-ui/default) cart.localhost(/->cart/default) \
             shop.localhost(/->shop/v1=5000|shop/v2=5000) @-",
            "RTDS tidegate tg.shop.shop/v1=5000 tg.shop.shop/v2=5000",
        ]
    );
    assert_eq!(changes.groups, Some(world.state.config().edge.groups.clone()));
}

#[test]
fn a_change_is_for_those_alone_who_see_the_service() {
    let twin = "{ name: twin, nodes: { cluster: twin }, services: [ cart, shop ] }";
    let mut world = World::with(config(&grouped(&[INNER, twin])), &[shop("a", 2, "v1"), admin(), cart()]);
    world.round();
    world.check(&cart(), false);
    assert_eq!(words(&world.round()), ["EDS cart/default [] @-,twin"]);
    world.check(&shop("a", 2, "v1"), false);
    let changes = world.round();
    assert_eq!(words(&changes), ["EDS shop/v1 []"], "three groups have it, and it is made once");
    assert_eq!(changes.groups, None);
    world.update(Update::Remove(admin().id));
    let changes = words(&world.round());
    assert!(changes.contains(&"remove Cluster admin-ui/default @-,inner".to_owned()), "{changes:?}");
    assert!(changes.iter().all(|change| !change.contains("twin")), "{changes:?}");
}

#[test]
fn groups_that_see_other_services_have_the_same_routes_once_if_they_are_equal() {
    let more =
        "{ name: more, nodes: { cluster: more }, listeners: [ internal ], services: [ \"admin-*\", shop, nothing ] }";
    let mut world = World::with(config(&grouped(&[INNER, more])), &[shop("a", 2, "v1")]);
    let all = words(&world.round());
    assert!(all.contains(&"RDS internal shop.localhost(/->shop/v1)".to_owned()), "{all:?}");
}

#[test]
fn weights_and_policy_are_those_of_the_services_that_a_group_sees() {
    let inner = "{ name: inner, nodes: { cluster: inner }, services: [ cart ] }";
    let text = |inner: &str| format!("{}\n{CANARY}", grouped(&[inner]));
    let mut world = World::with(config(&text(inner)), &[shop("a", 2, "v1"), shop("b", 3, "v2"), cart()]);
    let all = words(&world.round());
    for wanted in [
        "ECDS tidegate @-",
        "ECDS tidegate @inner",
        "RTDS tidegate  @inner",
        "RTDS tidegate tg.shop.shop/v1=9000 tg.shop.shop/v2+spill=1000 @-",
    ] {
        assert!(all.iter().any(|it| it == wanted), "{wanted}: {all:?}");
    }
    world.configure(&text(inner).replace("weight: 10", "weight: 20"));
    assert_eq!(words(&world.round()), ["RTDS tidegate tg.shop.shop/v1=8000 tg.shop.shop/v2+spill=2000 @-"]);
    world.configure(&text(&inner.replace("cart", "\"*\"")).replace("weight: 10", "weight: 20"));
    let all = words(&world.round());
    assert!(
        all.contains(&"RTDS tidegate tg.shop.shop/v1=8000 tg.shop.shop/v2+spill=2000 @inner".to_owned()),
        "{all:?}"
    );
    assert!(all.contains(&"ECDS tidegate @inner".to_owned()) && all.iter().all(|it| it.contains("@inner")), "{all:?}");
}

#[test]
fn a_service_that_moves_to_another_group_costs_the_two_groups_what_changed() {
    let left = |service: &str| format!("{{ name: left, nodes: {{ cluster: l }}, services: [ {service} ] }}");
    let right = |service: &str| format!("{{ name: right, nodes: {{ cluster: r }}, services: [ {service} ] }}");
    let with = |of_left: &str, of_right: &str| grouped(&[&left(of_left), &right(of_right), INNER]);
    let mut world = World::with(config(&with("\"c*\", shop", "shop")), &[shop("a", 2, "v1"), cart()]);
    world.round();
    world.configure(&with("shop", "cart, shop"));
    let changes = world.round();
    assert_eq!(
        words(&changes),
        [
            "CDS cart/default @right",
            "EDS cart/default [172.17.0.6:80 healthy] @right",
            "RDS internal cart.localhost(/->cart/default) shop.localhost(/->shop/v1) @right",
            "RDS internal shop.localhost(/->shop/v1) @left",
            "RDS web cart.localhost(/->cart/default) shop.localhost(/->shop/v1) @right",
            "RDS web shop.localhost(/->shop/v1) @left",
            "remove Cluster cart/default @left",
            "remove Endpoint cart/default @left",
        ]
    );
    assert_eq!(changes.groups, Some(world.state.config().edge.groups.clone()));
}

#[test]
fn other_nodes_in_a_group_are_another_grouping_and_no_other_resource() {
    let mut world = World::with(config(&grouped(&[INNER])), &[shop("a", 2, "v1"), admin()]);
    world.round();
    world.configure(&grouped(&[&INNER.replace("cluster: inner", "metadata: { tier: inside }")]));
    let changes = world.round();
    assert!(changes.groups.is_some() && words(&changes).is_empty(), "{:?}", words(&changes));
}

#[test]
fn a_group_that_is_new_gets_all_that_it_sees_and_one_that_goes_gets_nothing_taken() {
    let mut world = World::with(config(&grouped(&[])), &[shop("a", 2, "v1"), cart()]);
    world.round();
    world.configure(&grouped(&[INNER]));
    assert_eq!(
        words(&world.round()),
        [
            "CDS shop/v1 @inner",
            "ECDS tidegate @inner",
            "EDS shop/v1 [172.17.0.2:80 healthy] @inner",
            "LDS internal @inner",
            "RDS internal shop.localhost(/->shop/v1) @inner",
            "RTDS tidegate  @inner",
        ]
    );
    world.configure(&grouped(&[]));
    let changes = world.round();
    assert!(changes.groups.is_some() && words(&changes).is_empty(), "{:?}", words(&changes));
}

/// What each group has, by group, kind and name.
type Had = BTreeMap<(String, &'static str, String), Resource>;

/// Does to `had` what a store does, and holds every change to what it says it is: a change, and said once.
fn apply(had: &mut Had, groups: &NodeGroups, changes: Changes) {
    let there_are = groups.names();
    if changes.groups.is_some() {
        had.retain(|(group, ..), _| there_are.contains(group.as_str()));
    }
    let names = |audience: Audience| match audience {
        Audience::Everyone => there_are.iter().map(|name| (*name).to_owned()).collect(),
        Audience::Groups(names) => names,
    };
    let mut said = BTreeSet::new();
    for Removal { audience, kind, name } in changes.removals {
        let kind = match kind {
            Kind::Cluster => "CDS",
            Kind::Endpoint => "EDS",
            Kind::Listener => "LDS",
            Kind::Route => "RDS",
        };
        for group in names(audience) {
            let key = (group, kind, name.clone());
            assert!(had.remove(&key).is_some() && said.insert(key.clone()), "{key:?} cannot go");
        }
    }
    for Upsert { audience, name, resource } in changes.upserts {
        let kind = match &resource {
            Resource::Cluster(_) => "CDS",
            Resource::Endpoint(_) => "EDS",
            Resource::Listener(_) => "LDS",
            Resource::Route(_) => "RDS",
            Resource::ExtensionConfig(_) => "ECDS",
            Resource::Runtime(_) => "RTDS",
        };
        for group in names(audience) {
            assert!(there_are.contains(group.as_str()), "{group} is no group");
            let key = (group, kind, name.clone());
            assert!(said.insert(key.clone()), "{key:?} twice");
            let before = had.insert(key.clone(), resource.clone());
            // Routes are not remembered, and may be said again.
            assert!(kind == "RDS" || before.as_ref() != Some(&resource), "{key:?} is no change");
        }
    }
}

fn afresh(world: &World) -> Had {
    let mut had = Had::new();
    apply(&mut had, &world.state.config().edge.groups, world.compiled_afresh());
    had
}

/// What each group has by its own words alone: the reference for what the compiler makes of them together.
fn alone(world: &World, containers: &[Container]) -> Had {
    let mut all = Had::new();
    let config = world.state.config();
    for name in config.edge.groups.names() {
        let group = config.edge.groups.iter().find(|group| group.name == name);
        let mut had = Had::new();
        let mut lone = config.clone();
        lone.edge.groups = NodeGroups::default();
        if let Some(listeners) = group.and_then(|group| group.listeners.as_ref()) {
            lone.edge.listeners.retain(|listener| listeners.contains(&listener.name));
        }
        let seen = config.edge.groups.seen_by(name).unwrap();
        let of_group: Vec<Container> = containers
            .iter()
            .filter(|it| seen.sees(&crate::testing::service(&it.labels["tidegate.service"])))
            .cloned()
            .collect();
        let world = World::with(lone, &of_group);
        let mut world = world;
        apply(&mut had, &NodeGroups::default(), world.round());
        all.extend(had.into_iter().map(|((_, kind, resource), message)| ((name.to_owned(), kind, resource), message)));
    }
    all
}

const GROUPINGS: [&[&str]; 4] = [
    &[],
    &["{ name: inner, nodes: { cluster: inner }, listeners: [ internal ], services: [ shop ] }"],
    &[
        "{ name: inner, nodes: { cluster: inner }, services: [ \"c*\" ] }",
        "{ name: other, nodes: { cluster: other }, listeners: [ web ], services: [ shop ] }",
        "{ name: all, nodes: { cluster: all } }",
    ],
    &[
        "{ name: other, nodes: { cluster: inner }, services: [ shop, cart ] }",
        "{ name: inner, nodes: { metadata: { a: b } }, listeners: [ internal ], services: [ cart ] }",
    ],
];

fn members() -> Vec<Container> {
    let member = |i: u8| {
        let (service, host) = if i < 4 { ("shop", "shop.localhost") } else { ("cart", "cart.localhost") };
        let version = ["v1", "v2", "v3"][usize::from(i) % 3];
        let labels = [("tidegate.service", service), ("tidegate.host", host), ("tidegate.version", version)];
        container(&format!("c{i}"), 10 + i, &labels)
    };
    (0..6).map(member).collect()
}

#[test]
fn each_group_has_what_it_would_have_alone() {
    for groups in GROUPINGS {
        for canary in [false, true] {
            let text = if canary { format!("{}\n{CANARY}", grouped(groups)) } else { grouped(groups) };
            let mut world = World::with(config(&text), &members());
            world.round();
            assert_eq!(afresh(&world), alone(&world, &members()), "{text}");
        }
    }
}

proptest! {
    /// Equal facts give equal resources, whatever their order, and incremental equals from scratch.
    #[test]
    fn any_interleaving_that_ends_in_the_same_facts_compiles_to_the_same(
        steps in proptest::collection::vec((0_usize..6, 0_u8..8), 0..40),
        canary in proptest::bool::ANY,
    ) {
        let containers = members();
        let text = |groups: usize| {
            let groups = grouped(GROUPINGS[groups]);
            if canary { format!("{groups}\n{CANARY}") } else { groups }
        };
        let mut grouping = 0;
        let mut world = World::with(config(&text(grouping)), &[]);
        let mut facts: BTreeMap<usize, (bool, Container)> = BTreeMap::new();
        let mut had = Had::new();
        let changes = world.round();
        apply(&mut had, &world.state.config().edge.groups, changes);
        for (which, what) in steps {
            let mut container = containers[which].clone();
            match what {
                0 => { world.update(Update::Remove(container.id.clone())); facts.remove(&which); }
                1 => {
                    container.phase = Phase::Paused;
                    world.upsert(&container);
                    let passed = facts.get(&which).is_some_and(|f| f.0);
                    facts.insert(which, (passed, container));
                }
                2..=5 => {
                    world.upsert(&container);
                    let passes = what != 2;
                    world.check(&container, passes);
                    facts.insert(which, (passes, container));
                }
                _ => {
                    grouping = which % GROUPINGS.len();
                    world.configure(&text(grouping));
                    // Now and then together with what comes next.
                    if what == 7 {
                        continue;
                    }
                }
            }
            let changes = world.round();
            apply(&mut had, &world.state.config().edge.groups, changes);
        }
        let changes = world.round();
        apply(&mut had, &world.state.config().edge.groups, changes);
        prop_assert_eq!(&had, &afresh(&world));
        let mut other = World::with(config(&text(grouping)), &[]);
        // How far rollouts are is a fact, too: one that began goes on although its canary is not ready any more.
        let rollouts = world.state.trials().rollouts().clone();
        other.state = other.state.rolling(Trials::restored(rollouts, std::time::Duration::ZERO, other.now));
        for (passed, container) in facts.values().rev() {
            other.upsert(container);
            other.check(container, *passed);
        }
        other.round();
        prop_assert_eq!(&had, &afresh(&other));
    }
}
