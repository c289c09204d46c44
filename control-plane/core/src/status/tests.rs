use super::*;
use crate::Code;
use crate::instance::{DockerHealth, Phase};
use crate::testing::{World, config, shop};

const ROLLOUT: &str = "services: { shop: { stable: { version: v1 }, canary: { version: v2, weight: 12.5, \
                       sessionAffinity: { hashOn: [ { header: X-User-Id }, { sourceIp: true } ] } } } }";

fn status(world: &World) -> Status {
    Status::of(&world.state, Vec::new(), world.now)
}

#[test]
fn one_screen_of_a_rollout() {
    let mut world = World::with(config(ROLLOUT), &[shop("a", 2, "v1"), shop("b", 3, "v2"), shop("c", 4, "v3")]);
    world.settle();
    insta::assert_yaml_snapshot!(status(&world));
}

#[test]
fn a_rollout_tells_buckets_and_affinity() {
    let mut world = World::with(config(ROLLOUT), &[shop("a", 2, "v1"), shop("b", 3, "v2")]);
    world.settle();
    let of_service = |view| CanaryStatus::of(view, world.state.trials());
    let canaries: Vec<CanaryStatus> = world.state.services().filter_map(of_service).collect();
    let [canary] = canaries.as_slice() else { panic!("{canaries:?}") };
    assert_eq!(canary.buckets, [8750, 10_000]);
    assert_eq!(canary.affinity, ["header x-user-id", "source IP"]);
    assert_eq!((canary.stable.ready, canary.canary.total, canary.canary.weight), (1, 1, 1250));
}

#[test]
fn before_the_first_answer_it_says_what_it_waits_for() {
    let world = World::unsynced(config(""));
    let status = status(&world);
    assert!(!status.synced);
    assert_eq!(status.awaiting.as_deref(), Some("the first full answer of docker"));
    assert_eq!(status.providers[0].last_heard, None);
    assert_eq!(status.last_known_good, None);
}

#[test]
fn until_the_first_sync_it_says_what_is_served_and_what_it_waits_for() {
    let at = Timestamp::from_millis(1_795_425_978_000);
    let mut world = World::unsynced(config(""));
    world.state = world.state.serving_kept(at);
    let told = |world: &World| {
        let status = status(world);
        let problem = status.problems.iter().find(|problem| problem.code == Code::ServingKept);
        (status.last_known_good, problem.map(|problem| problem.reason.clone()))
    };
    let served = "what was published until 2026-11-23T09:26:18Z is served again; discovery waits for";
    assert_eq!(told(&world), (Some(at), Some(format!("{served} the first full answer of docker"))));
    world.reset(&[shop("a", 2, "v1")]);
    world.settle();
    assert_eq!(told(&world), (Some(at), Some(format!("{served} the first check of 1 instance(s)"))));
    world.check(&shop("a", 2, "v1"), true);
    world.settle();
    assert_eq!(told(&world), (None, None));
}

#[test]
fn what_an_instance_is_and_why() {
    let (mut starting, mut paused, stopped) = (shop("a", 2, "v1"), shop("b", 3, "v1"), shop("c", 4, "v1"));
    starting.health = Some(DockerHealth::Starting);
    paused.phase = Phase::Paused;
    let mut world = World::with(config(""), &[starting, paused, stopped.clone()]);
    world.settle();
    let mut stopping = crate::testing::discovered(&stopped);
    stopping.terminating = Some(world.now);
    world.update(crate::Update::Upsert(Box::new(stopping)));
    world.settle();
    let services = Services::of(&world.state, world.now).services;
    let instances: Vec<(&str, InstanceState, &str)> = services[0].versions[0]
        .instances
        .iter()
        .map(|instance| (instance.container.as_str(), instance.state, instance.reason.as_str()))
        .collect();
    assert_eq!(
        instances,
        [
            ("a", InstanceState::NotReady, "Docker's HEALTHCHECK has not passed yet"),
            ("b", InstanceState::NotReady, "the container is paused"),
            ("c", InstanceState::Terminating, "connected"),
        ]
    );
    assert_eq!((services[0].ready, services[0].total), (0, 3));
}
