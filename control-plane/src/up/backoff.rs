//! How long to wait before starting a child again: it doubles with each early end, up to a limit, with jitter, and is forgotten
//! once a child has lived for a while.

use std::time::Duration;

/// The first wait: a crash costs little more than the start itself.
const FIRST: Duration = Duration::from_millis(100);
/// A child that lived so long was well.
const WELL: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Backoff {
    most: Duration,
    early_ends: u32,
}

impl Backoff {
    pub(super) const fn new(most: Duration) -> Self {
        Self { most, early_ends: 0 }
    }

    /// The wait after a child that lived for `lived`; `chance` is a random number from 0 to 1.
    pub(super) fn pause(&mut self, lived: Duration, chance: f64) -> Duration {
        if lived >= WELL {
            self.early_ends = 0;
        }
        let full = FIRST.saturating_mul(1 << self.early_ends.min(16)).min(self.most);
        self.early_ends = self.early_ends.saturating_add(1);
        full.mul_f64(0.75 + 0.25 * chance.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_ends_double_the_wait_and_a_long_life_forgets_them() {
        let mut backoff = Backoff::new(Duration::from_secs(2));
        let mut pause = |lived| backoff.pause(Duration::from_secs(lived), 1.0).as_millis();
        assert_eq!([pause(0), pause(0), pause(1), pause(0), pause(0), pause(0)], [100, 200, 400, 800, 1600, 2000]);
        assert_eq!(pause(29), 2000);
        assert_eq!([pause(30), pause(0)], [100, 200]);
        assert_eq!(Backoff::new(FIRST).pause(Duration::ZERO, 0.0), Duration::from_millis(75));
    }
}
