use tidegate_core::config::{Config, parse};
use tidegate_core::health::Verdict;
use tidegate_core::{ProviderName, Update};
use tidegate_xds::Published;

use super::*;
use crate::api::tests::container;
use crate::groups::put_in_force;

/// `left` and the edges of no group see both services, `right` sees `cart`.
fn config(of_right: &str) -> Config {
    let text = format!(
        "edge: {{ groups: [ {{ name: left, nodes: {{ cluster: l }} }}, \
         {{ name: twin, nodes: {{ cluster: t }}, services: [ cart, shop ] }}, \
         {{ name: right, nodes: {{ cluster: r }}, services: [ {of_right} ] }} ] }}"
    );
    parse("tidegate.yaml", &text).unwrap()
}

/// A task whose rounds the test makes itself.
fn task(config: Config, store: &Store) -> Reconcile {
    let state = State::new(config, [ProviderName::docker()], 0);
    let compiler = Compiler::new("/state/filter.wasm".to_owned());
    let outlets = Outlets {
        probes: mpsc::channel(1).0,
        commits: watch::Sender::new(0),
        rollouts: watch::Sender::default(),
        errands: mpsc::channel(1).0,
    };
    Reconcile::new(state, compiler, store.clone(), Clock::start(), mpsc::channel(1).1, outlets).0
}

impl Reconcile {
    fn told(&mut self, input: Input) {
        self.state.apply(input, self.clock.now());
    }

    fn checked(&mut self, service: &str, passing: bool) {
        let id = container(service, service, "v1", if service == "shop" { 2 } else { 3 }).instances.remove(0).id;
        let verdict = Verdict { passing, starting: false, detail: "connected".to_owned(), since: self.clock.now() };
        self.told(Input::Checked { id, verdict });
    }

    fn synced(&mut self) {
        let containers = vec![container("shop", "shop", "v1", 2), container("cart", "cart", "v1", 3)];
        self.told(Input::Provider { provider: ProviderName::docker(), update: Update::Reset(containers) });
        self.checked("shop", true);
        self.checked("cart", true);
        self.round();
    }
}

fn published(store: &Store, group: &str, resource_type: ResourceType, name: &str) -> Option<Published> {
    store.published_to(&Group::new(group), resource_type, name)
}

#[test]
fn a_change_is_encoded_once_for_all_groups_that_see_it_and_touches_no_other() {
    let store = Store::new();
    let mut task = task(config("cart"), &store);
    task.synced();
    let before = store.counters();
    let of_right = published(&store, "right", ResourceType::Route, "web").unwrap();
    task.checked("shop", false);
    task.round();
    let after = store.counters();
    assert_eq!((after.encodes - before.encodes, after.changes - before.changes), (1, 1));
    let version = |group: &str| published(&store, group, ResourceType::Endpoint, "shop/v1").map(|it| it.version);
    assert!(version("").is_some());
    assert_eq!([version("left"), version("twin"), version("right")], [version(""), version(""), None]);
    assert_eq!(published(&store, "right", ResourceType::Route, "web").unwrap().sequence, of_right.sequence);
}

#[test]
fn a_reload_gives_a_group_what_it_did_not_see_and_leaves_the_others_as_they_are() {
    let store = Store::new();
    let mut task = task(config("cart"), &store);
    task.synced();
    let of_twin = published(&store, "twin", ResourceType::Route, "web").unwrap();
    let before = store.counters();
    task.told(Input::Configured(Box::new(config("\"*\""))));
    task.round();
    let after = store.counters();
    assert_eq!((after.commits - before.commits, after.encodes - before.encodes), (1, 3), "cluster, endpoints, routes");
    let of_right = published(&store, "right", ResourceType::Route, "web").unwrap();
    assert_eq!((of_right.version, of_right.sequence > of_twin.sequence), (of_twin.version, true));
    assert_eq!(published(&store, "twin", ResourceType::Route, "web").unwrap().sequence, of_twin.sequence);
}

#[test]
fn what_was_kept_of_each_group_stays_with_the_first_sync_where_it_still_holds() {
    let first = Store::new();
    task(config("cart, shop"), &first).synced();
    let store = Store::new();
    put_in_force(&config("cart").edge.groups, &store);
    store.restore(first.snapshot());
    let version =
        |group: &str, resource_type, name: &str| published(&store, group, resource_type, name).map(|it| it.version);
    assert!(version("right", ResourceType::Cluster, "shop/v1").is_some());
    let twin = version("twin", ResourceType::Route, "web");
    let before = store.counters();
    task(config("cart"), &store).synced();
    assert_eq!(version("right", ResourceType::Cluster, "shop/v1"), None);
    assert!(version("right", ResourceType::Cluster, "cart/v1").is_some());
    assert_eq!(version("twin", ResourceType::Route, "web"), twin);
    let changes = store.counters().changes - before.changes;
    assert_eq!(changes, 3, "of one group cluster, endpoints and routes; all else is as it was kept");
}
