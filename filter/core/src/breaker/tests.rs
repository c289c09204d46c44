use proptest::prelude::*;

use super::*;

fn policy() -> BreakerPolicy {
    BreakerPolicy {
        epoch: "e1".to_owned(),
        p0: 100,
        p1: 1_000,
        h: 13.9,
        min_distinct_keys: 3,
        ..BreakerPolicy::default()
    }
}

const GOOD: CanaryAnswer = CanaryAnswer { failed: false, key: 0 };

fn failure(key: u32) -> CanaryAnswer {
    CanaryAnswer { failed: true, key }
}

/// Whether each of 10,000 answers fails, from a seed: xorshift, so that a run is the same everywhere.
struct Chance(u64);

impl Chance {
    fn fails(&mut self, rate: f64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 / (1_u64 << 53) as f64) < rate
    }
}

/// The canary's answers until it opens, each of another client, where stable answers so many times beside each.
fn answers_to_open(seed: u64, canary: f64, stable: f64, beside: u32, most: u32) -> Option<u32> {
    let (policy, mut state, mut chance) = (policy(), BreakerState::begin("e1"), Chance(seed | 1));
    (1..=most).find(|n| {
        let failures = (0..beside).map(|_| u32::from(chance.fails(stable))).sum();
        state.measure(StableAnswers { answers: beside, failures });
        let failed = chance.fails(canary);
        state.observe(&policy, CanaryAnswer { failed, key: *n })
    })
}

#[test]
fn seven_failures_in_a_row_open_it_and_it_stays_open() {
    let mut state = BreakerState::begin("e1");
    let opened: Vec<bool> = (0..9).map(|key| state.observe(&policy(), failure(key))).collect();
    assert_eq!(opened, [false, false, false, false, false, false, true, false, false]);
    for _ in 0..10_000 {
        assert!(!state.observe(&policy(), GOOD) && state.open);
    }
    assert_eq!((state.answers, state.failures, state.distinct_keys()), (7, 7, 7));
}

/// The mean of `canary.md`'s table, by its Markov chain: 97 at 10 %, 38 at 20 %, 14 at 50 %.
#[test]
fn how_long_it_takes_is_what_theory_says() {
    for (rate, expected) in [(0.1, 97.0), (0.2, 38.0), (0.5, 14.0)] {
        let runs = 2_000;
        let sum: u32 = (1..=runs).map(|seed| answers_to_open(seed * 7_919, rate, 0.0, 9, 100_000).unwrap()).sum();
        let mean = f64::from(sum) / runs as f64;
        assert!((0.85 * expected..1.15 * expected).contains(&mean), "{rate}: {mean}, {expected} expected");
    }
}

#[test]
fn a_canary_that_is_well_stays() {
    for seed in 1..=20 {
        assert_eq!(answers_to_open(seed * 104_729, 0.005, 0.005, 9, 50_000), None, "seed {seed}");
    }
}

#[test]
fn what_breaks_for_both_versions_opens_nothing() {
    for rate in [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0] {
        let enough = if rate >= 1.0 { 2 } else { 9 };
        for beside in [enough, 9, 99] {
            for seed in 1..=20 {
                let opened = answers_to_open(seed * 104_729, rate, rate, beside, 3_000);
                assert_eq!(opened, None, "{rate}, a canary of 1 in {}, seed {seed}", beside + 1);
            }
        }
    }
}

#[test]
fn one_client_that_repeats_what_fails_opens_nothing() {
    let (policy, mut state) = (policy(), BreakerState::begin("e1"));
    for n in 0..10_000 {
        assert!(!state.observe(&policy, failure(7)), "alone, after {n}");
    }
    // Nor does it help the failures that there always are: one of two hundred.
    for n in 0..100_000 {
        assert!(!state.observe(&policy, failure(7)));
        let other = if n % 200 == 0 { failure(1_000 + n) } else { GOOD };
        assert!(!state.observe(&policy, other), "after {n}");
    }
    assert!(!state.open && state.failures > 100_000);
}

#[test]
fn as_few_clients_as_are_asked_for_suffice() {
    for clients in 1..=5 {
        let (policy, mut state) = (policy(), BreakerState::begin("e1"));
        let opened = (0..1_000).any(|n| state.observe(&policy, failure(n % clients)));
        assert_eq!(opened, clients >= policy.min_distinct_keys, "{clients}");
    }
}

#[test]
fn evidence_is_forgotten_with_its_clients() {
    let (policy, mut state) = (policy(), BreakerState::begin("e1"));
    (0..6).for_each(|key| assert!(!state.observe(&policy, failure(key))));
    (0..200).for_each(|_| assert!(!state.observe(&policy, GOOD)));
    assert_eq!((state.score, state.distinct_keys()), (0.0, 0));
}

fn state() -> impl Strategy<Value = BreakerState> {
    let keys = prop::collection::vec(any::<(u32, u16)>(), 0..=KEYS);
    (any::<(String, bool, u64, u64)>(), [0.0..1.0, 0.0..1.0_f64], 0.0..20.0, keys).prop_map(
        |((epoch, open, answers, failures), stable, score, keys)| BreakerState {
            epoch,
            open,
            answers,
            failures,
            stable,
            score,
            keys,
        },
    )
}

proptest! {
    #[test]
    fn a_state_survives_its_bytes(state in state()) {
        prop_assert_eq!(BreakerState::read(&state.to_bytes()), Some(state));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = BreakerState::read(&bytes);
    }

    #[test]
    fn no_policy_and_no_answers_make_it_panic_or_leave_its_range(
        p0: u32, p1: u32, h in -1e9..1e9_f64, min_distinct_keys: u32,
        answers in prop::collection::vec(any::<(bool, u32, u32, u32)>(), 0..200),
    ) {
        let policy = BreakerPolicy { p0, p1, h, min_distinct_keys, ..BreakerPolicy::default() };
        let mut state = BreakerState::begin("");
        for (failed, key, answers, failures) in answers {
            state.measure(StableAnswers { answers, failures });
            state.observe(&policy, CanaryAnswer { failed, key });
            prop_assert!((0.0..=1.0).contains(&state.stable_rate()) && state.score.is_finite());
        }
    }
}
