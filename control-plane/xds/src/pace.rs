//! A token bucket, as one moment in time: so many events at once after a quiet time, then a steady rate. Pure.

use std::time::Duration;

/// How fast something may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Between two events in the long run.
    pub(crate) interval: Duration,
    /// How many in a row need not wait, at least 1.
    pub(crate) burst: u32,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// When the bucket will be full again.
    full_at: Duration,
}

impl Pace {
    /// When the next event may take place: now, or later.
    pub(crate) fn next(self, rate: Rate, now: Duration) -> Duration {
        self.full_at.saturating_sub(rate.interval * rate.burst.saturating_sub(1)).max(now)
    }

    /// Notes that one took place.
    pub(crate) fn take(&mut self, rate: Rate, now: Duration) {
        self.full_at = self.full_at.max(now) + rate.interval;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_slowed_down_to_the_rate_after_a_burst() {
        let rate = Rate { interval: Duration::from_millis(50), burst: 8 };
        let mut pace = Pace::default();
        let mut taken = Vec::new();
        for now in (0..1000).map(Duration::from_millis) {
            if pace.next(rate, now) == now {
                pace.take(rate, now);
                taken.push(now);
            }
        }
        assert_eq!(taken[..8], (0..8).map(Duration::from_millis).collect::<Vec<_>>());
        assert!(taken[8..].windows(2).all(|pair| pair[1] - pair[0] == rate.interval));
        assert_eq!(pace.next(rate, Duration::from_secs(9)), Duration::from_secs(9));
    }
}
