//! Whatever happens in whatever order, to several clients of one store and of both variants: the rules that the model
//! checks hold at every step, and clients that answer everything end with what is published, but for what they refuse.
//! A failure prints the steps that it shrank to; `PROPTEST_RNG_SEED` and `PROPTEST_CASES` try others, and more of them.

use std::env;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::model::{CONTENTS, Kind, NAMES, Step, TYPES, Wording, World};
use super::*;

/// `make test` plays the same histories each time; `make soak` plays others.
const SEED: u64 = 7;
/// About a second of them.
const CASES: u32 = 600;

fn step() -> impl Strategy<Value = Step> {
    let change = (0..TYPES.len(), 0..NAMES.len(), 0..CONTENTS.len());
    // One more than there are: `*`.
    let asks = || (0..3_usize, 0..TYPES.len(), 0..=NAMES.len());
    prop_oneof![
        4 => (prop::collection::vec(change, 1..6), prop::bool::weighted(0.1))
            .prop_map(|(changes, urgent)| Step::Commit(changes, urgent)),
        3 => asks().prop_map(|(client, of, name)| Step::Subscribe(client, of, name)),
        2 => asks().prop_map(|(client, of, name)| Step::Unsubscribe(client, of, name)),
        9 => (0..3_usize).prop_map(Step::Send),
        8 => (0..3_usize).prop_map(Step::Answer),
        1 => (0..3_usize).prop_map(Step::Reconnect),
        1 => Just(Step::Wait),
    ]
}

/// Half of the runs stand still in time: there the order of the types is strict.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    (prop::collection::vec(step(), 1..80), prop::bool::ANY).prop_map(|(mut steps, stands_still)| {
        steps.retain(|step| !stands_still || !matches!(step, Step::Wait));
        steps
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    let wording =
        prop_oneof![Just(Wording::List), Just(Wording::Dump), Just(Wording::Nothing), Just(Wording::Misleading)];
    let variant = prop_oneof![Just(Variant::Delta), Just(Variant::Sotw)];
    // One that refuses what others accept can do that in delta alone: what a response in state of the world repeats is
    // taken to be good.
    let kind = |(variant, wording, picky)| Kind { variant, wording, picky: picky && variant == Variant::Delta };
    (variant, wording, prop::bool::ANY).prop_map(kind)
}

#[expect(clippy::print_stderr, reason = "a failing test's output is where its seed belongs")]
fn config() -> ProptestConfig {
    let cases = env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let seed = env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(SEED);
    eprintln!("PROPTEST_RNG_SEED={seed} PROPTEST_CASES={cases} is this run");
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_client_gets_what_is_published_and_nothing_that_it_refused(
        kinds in prop::collection::vec(kind(), 1..4),
        steps in steps(),
    ) {
        let mut world = World::new(&kinds);
        for step in &steps {
            world.step(step);
        }
        world.finish();
    }
}
