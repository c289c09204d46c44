//! Rollouts by the thousand, through the real engine, with a declared error rate of each version and seeded chance. Requests are dealt by
//! the weight; each fails by itself. There is no breaker: what is seen here is the control plane's part alone.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tidegate_core::config::Canary;
use tidegate_core::config::canary::{Analysis, Step};
use tidegate_core::rollout::{Census, Counts, Facts, Origin, Phase, Plan, Rollout, Sample};
use tidegate_core::{Timestamp, VersionName};

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Requests per second, of both versions.
    pub(crate) rate: u64,
    /// The canary's chance to fail, from 0 to 1.
    pub(crate) canary: f64,
    /// The stable version's.
    pub(crate) stable: f64,
}

/// How one rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) how: How,
    /// Since the canary got its first request.
    pub(crate) after: Duration,
    /// The canary's requests that failed.
    pub(crate) failed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Promoted,
    RolledBack,
    /// Too little to decide: it waits for somebody.
    Undecided,
}

/// The shares of the documentation's example, in basis points.
pub(crate) const SMALL: [u32; 3] = [50, 1_000, 5_000];

/// The first share for 2 minutes, the others for 10, under the default analysis.
pub(crate) fn plan(shares: [u32; 3]) -> Plan {
    let steps = shares
        .into_iter()
        .zip([2, 10, 10])
        .flat_map(|(weight, minutes)| [Step::SetWeight(weight), Step::Pause(Some(Duration::from_mins(minutes)))]);
    let version = |name| VersionName::new(name).expect("a name");
    let canary = Canary { steps: steps.collect(), analysis: Some(Analysis::default()), ..Canary::at(version("v2"), 0) };
    Plan { stable: version("v1"), canary: canary.into(), origin: Origin::File }
}

/// One rollout. Edges report every five seconds.
pub(crate) fn rollout(plan: &Plan, setting: Setting, seed: u64) -> End {
    const REPORTS: u64 = 5;
    let mut chance = StdRng::seed_from_u64(seed);
    let one = Census { instances: 1, ready: 1 };
    let facts = Facts { canary: one, stable: one };
    let mut now = Timestamp::from_millis(0);
    let mut rollout = Rollout::begin(plan, None, now);
    rollout.advance(plan, &facts, now);
    let (mut failed, mut part) = (0, 0);
    loop {
        let how = match rollout.phase() {
            Phase::Promoted => Some(How::Promoted),
            Phase::Aborted { .. } => Some(How::RolledBack),
            Phase::Paused { .. } => Some(How::Undecided),
            Phase::Waiting | Phase::Progressing => None,
        };
        if let Some(how) = how {
            return End { how, after: now.since(Timestamp::from_millis(0)), failed };
        }
        let all = setting.rate * REPORTS;
        part += all * u64::from(rollout.share(plan).weight);
        let canary = part / 10_000;
        part %= 10_000;
        let errors = binomial(&mut chance, canary, setting.canary);
        failed += errors;
        let counts = |requests, errors| Counts { requests, errors, ..Counts::default() };
        let stable = counts(all - canary, binomial(&mut chance, all - canary, setting.stable));
        rollout.observe(&Sample { canary: counts(canary, errors), stable });
        now = now.after(Duration::from_secs(REPORTS));
        rollout.advance(plan, &facts, now);
    }
}

/// How many of `n` fail, each with the chance `p`: by inversion, in pieces that are small enough for it.
fn binomial(chance: &mut StdRng, n: u64, p: f64) -> u64 {
    if p > 0.5 {
        return n - binomial(chance, n, 1.0 - p);
    }
    if p <= 0.0 || n == 0 {
        return 0;
    }
    let piece = n.min(500);
    let (mut k, mut likely, mut left) = (0, (1.0 - p).powf(piece as f64), chance.random::<f64>());
    while left > likely && k < piece {
        left -= likely;
        likely *= (piece - k) as f64 / (k + 1) as f64 * p / (1.0 - p);
        k += 1;
    }
    k + binomial(chance, n - piece, p)
}
