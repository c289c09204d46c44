//! The breaker: a one-sided CUSUM of the canary's failures, a repeated sequential test that begins anew at zero. It asks whether
//! the canary fails as often as `p1` rather than as `p0`, and needs no window and no clock. Its state is one value that all
//! workers of an Envoy share; here it is read, changed and written, by nobody in particular.

use crate::policy::BreakerPolicy;

/// The weight of one more answer in the stable version's two rates of failures: one that soon shows a change, and one that is
/// seldom far below what is true. The higher one counts.
const NEWEST: [f64; 2] = [1.0 / 64.0, 1.0 / 1024.0];

/// The highest rate that `p1` is raised to.
const MOST: f64 = 0.5;

/// Where so many of the stable version's answers are failures, the canary's are evidence of nothing: the cause is likely shared, and
/// `p0` is too near to `p1` to tell. This bounds what a cause that begins at once gathers before the stable version's rate shows it:
/// too little to open, where the stable version has two thirds of the requests and everything fails.
const HOPELESS: f64 = 0.3;

/// Clients that are told apart; those beyond count, and are not remembered.
const KEYS: usize = 64;

/// The layout of the bytes.
const LAYOUT: u8 = 1;

/// What is known of a canary since its epoch began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BreakerState {
    /// The trial that it belongs to.
    pub epoch: String,
    /// Everyone is sent to the stable version.
    pub open: bool,
    /// The canary's answers that counted, and those of them that were failures.
    pub answers: u64,
    pub failures: u64,
    /// The stable version's rates of failures of late, from 0 to 1.
    stable: [f64; 2],
    /// The evidence, from 0 to the policy's `h`.
    score: f64,
    /// Whose failures it is made of, and of how many; forgotten with it.
    keys: Vec<(u32, u16)>,
}

/// What a worker saw of the stable version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StableAnswers {
    pub answers: u32,
    pub failures: u32,
}

/// One answer of the canary's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryAnswer {
    pub failed: bool,
    /// Whose request it was, of a failure: something that differs from client to client.
    pub key: u32,
}

impl BreakerState {
    pub fn begin(epoch: &str) -> Self {
        Self { epoch: epoch.to_owned(), ..Self::default() }
    }

    /// The clients whose failures make up the evidence.
    pub fn distinct_keys(&self) -> u32 {
        u32::try_from(self.keys.len()).unwrap_or(u32::MAX)
    }

    /// The stable version's answers raise or lower the bar.
    pub fn measure(&mut self, seen: StableAnswers) {
        if seen.answers == 0 {
            return;
        }
        let rate = f64::from(seen.failures.min(seen.answers)) / f64::from(seen.answers);
        for (known, newest) in self.stable.iter_mut().zip(NEWEST) {
            let kept = (1.0 - newest).powi(i32::try_from(seen.answers).unwrap_or(i32::MAX));
            *known = *known * kept + rate * (1.0 - kept);
        }
    }

    /// The stable version's rate of failures of late, from 0 to 1.
    pub fn stable_rate(&self) -> f64 {
        let [soon, steady] = self.stable;
        soon.max(steady)
    }

    /// One answer more; true: that opened it. Then it stays open, whatever comes.
    pub fn observe(&mut self, policy: &BreakerPolicy, answer: CanaryAnswer) -> bool {
        if self.open {
            return false;
        }
        self.answers = self.answers.saturating_add(1);
        self.failures = self.failures.saturating_add(u64::from(answer.failed));
        if self.stable_rate() >= HOPELESS {
            return false;
        }
        let (p0, p1) = self.bar(policy);
        if answer.failed {
            let evidence = (p1 / p0).ln();
            if !self.counts(policy, answer.key, evidence) {
                return false;
            }
            self.score = (self.score + evidence).min(policy.h);
        } else {
            self.score += ((1.0 - p1) / (1.0 - p0)).ln();
            if self.score <= 0.0 {
                self.score = 0.0;
                self.keys.clear();
            }
        }
        self.open = self.score >= policy.h && self.distinct_keys() >= policy.min_distinct_keys;
        self.open
    }

    /// What is normal now, and what is too much: where the stable version fails more, more is asked of the evidence.
    fn bar(&self, policy: &BreakerPolicy) -> (f64, f64) {
        let share = |basis_points: u32| (f64::from(basis_points) / 10_000.0).clamp(0.000_1, 0.99);
        let p0 = share(policy.p0).max(self.stable_rate());
        let p1 = share(policy.p1).max((10.0 * p0).min(MOST)).max(p0);
        (p0, p1)
    }

    /// Whether one more failure of this client's is evidence. One that repeats what fails is no more than its part of it, so that
    /// nobody opens a breaker alone, nor together with the failures that there always are.
    fn counts(&mut self, policy: &BreakerPolicy, key: u32, evidence: f64) -> bool {
        let needed = (policy.h / evidence.max(f64::MIN_POSITIVE)).ceil();
        let part = (needed / f64::from(policy.min_distinct_keys.max(1))).ceil().clamp(1.0, f64::from(u16::MAX));
        match self.keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, count)) => {
                let is_part = policy.min_distinct_keys <= 1 || f64::from(*count) < part;
                *count = count.saturating_add(1);
                is_part
            }
            None => {
                if self.keys.len() < KEYS {
                    self.keys.push((key, 1));
                }
                true
            }
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![LAYOUT, u8::from(self.open)];
        bytes.extend(self.answers.to_le_bytes());
        bytes.extend(self.failures.to_le_bytes());
        for rate in self.stable {
            bytes.extend(rate.to_le_bytes());
        }
        bytes.extend(self.score.to_le_bytes());
        let keys = self.keys.get(..KEYS).unwrap_or(&self.keys);
        bytes.push(u8::try_from(keys.len()).unwrap_or_default());
        for (key, count) in keys {
            bytes.extend(key.to_le_bytes());
            bytes.extend(count.to_le_bytes());
        }
        bytes.extend(self.epoch.as_bytes());
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) wrote; `None`: nobody of this version did.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
            let (taken, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(*taken)
        }
        let bytes = &mut &*bytes;
        let [layout, open] = take(bytes)?;
        if layout != LAYOUT {
            return None;
        }
        let (answers, failures) = (u64::from_le_bytes(take(bytes)?), u64::from_le_bytes(take(bytes)?));
        let stable = [f64::from_le_bytes(take(bytes)?), f64::from_le_bytes(take(bytes)?)];
        let score = f64::from_le_bytes(take(bytes)?);
        let [count] = take(bytes)?;
        let mut keys = Vec::with_capacity(count.into());
        for _ in 0..count {
            keys.push((u32::from_le_bytes(take(bytes)?), u16::from_le_bytes(take(bytes)?)));
        }
        let epoch = std::str::from_utf8(bytes).ok()?.to_owned();
        Some(Self { epoch, open: open != 0, answers, failures, stable, score, keys })
    }
}

#[cfg(test)]
mod tests;
