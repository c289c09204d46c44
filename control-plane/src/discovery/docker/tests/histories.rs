//! Whatever containers do, and whatever goes wrong with the engine, its events and its answers meanwhile: tidegate's endpoints
//! are those of the model as soon as nothing is wrong for a while, and never is one of them a run that had ended before that.
//! A failure prints the steps that it shrank to; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` try others, and more of them.

use std::env;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tidegate_fake_docker::Delivery;

use super::model::{Fault, SHARED, SUBJECTS, Step, World};
use super::*;

/// `make test` plays the same histories each time; `make soak` plays others.
const SEED: u64 = 7;
/// A few seconds of them.
const CASES: u32 = 300;

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        (1..4_000_u64).prop_map(Fault::After),
        (1..4_000_u64).prop_map(Fault::Old),
        Just(Fault::Never),
        Just(Fault::Refused),
        Just(Fault::Half),
        Just(Fault::Garbage),
    ]
}

fn delivery() -> impl Strategy<Value = Delivery> {
    prop_oneof![
        Just(Delivery::Once),
        Just(Delivery::Lost),
        (2..5_u8).prop_map(Delivery::Times),
        (1..3_000_u64).prop_map(|millis| Delivery::Late(Duration::from_millis(millis))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let it = || 0..SUBJECTS;
    let takes = || prop_oneof![Just(0_u64), 5..8_000_u64];
    let health = prop_oneof![Just(Health::Healthy), Just(Health::Unhealthy)];
    let lives = prop_oneof![
        6 => (it(), 1..=SHARED).prop_map(|(it, address)| Step::Start(it, address)),
        3 => it().prop_map(Step::Exit),
        1 => it().prop_map(Step::OutOfMemory),
        3 => (it(), takes()).prop_map(|(it, takes)| Step::Stop(it, takes)),
        1 => it().prop_map(Step::Kill),
        1 => it().prop_map(Step::Term),
        1 => it().prop_map(Step::Hup),
        2 => (it(), takes()).prop_map(|(it, takes)| Step::Restart(it, takes)),
        1 => it().prop_map(Step::Pause),
        1 => it().prop_map(Step::Unpause),
        1 => it().prop_map(Step::Rename),
        2 => it().prop_map(Step::Remove),
        2 => health.prop_map(|health| Step::Judge(3, health)),
        1 => it().prop_map(Step::Disconnect),
        1 => it().prop_map(Step::Connect),
        1 => prop_oneof![1..20_u16, 100..200_u16].prop_map(Step::Noise),
    ];
    let faults = prop_oneof![
        6 => delivery().prop_map(Step::Deliver),
        2 => Just(Step::Mute),
        3 => Just(Step::Cut),
        1 => Just(Step::Freeze),
        1 => Just(Step::Refuse),
        1 => Just(Step::GoAway),
        2 => (1..3_000_u64).prop_map(Step::Stale),
        2 => (prop::option::of(it()), fault()).prop_map(|(it, fault)| Step::Break(it, fault)),
        1 => fault().prop_map(Step::BreakList),
        1 => fault().prop_map(Step::BreakPing),
    ];
    prop_oneof![
        10 => lives,
        3 => faults,
        5 => prop_oneof![3 => 1..300_u64, 1 => 300..6_000_u64].prop_map(Step::Wait),
        2 => Just(Step::Look),
        1 => Just(Step::Quiet),
    ]
}

/// In a third of the histories nothing goes wrong, in another only looks do: there more has to hold, and at once.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    (prop::collection::vec(step(), 1..40), 0..3_u8).prop_map(|(mut steps, wrong)| {
        steps.retain(|step| match step {
            Step::Stale(_) | Step::Break(..) | Step::Deliver(Delivery::Times(_)) => wrong > 0,
            step => wrong > 1 || !step.is_fault(),
        });
        steps
    })
}

#[expect(clippy::print_stderr, reason = "a failing test's output is where its seed belongs")]
fn config() -> ProptestConfig {
    let cases = env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let seed = env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(SEED);
    eprintln!("PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases} is this run");
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_happens_the_endpoints_are_those_of_the_model(
        ahead in prop_oneof![Just(0_u64), Just(3600)],
        steps in steps(),
    ) {
        play(ahead, &steps);
    }
}

/// Plays one history, in paused time.
fn play(ahead: u64, steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(Duration::from_secs(ahead)).await;
        for step in steps {
            world.step(*step).await;
        }
        world.finish().await;
    });
}
