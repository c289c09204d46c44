//! The control plane's one clock: the wall clock is read once, and from then on time passes as the monotonic clock says, so
//! that a step of the wall clock neither expires nor prolongs anything, and tests can pause it.

use std::time::{SystemTime, UNIX_EPOCH};

use tidegate_core::Timestamp;
use tokio::time::Instant;

/// Tells the time. Made once, at start, and copied to whoever needs it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    wall: Timestamp,
    since: Instant,
}

impl Clock {
    /// Reads the wall clock.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: Timestamp::default().after(wall), since: Instant::now() }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.wall.after(self.since.elapsed())
    }
}

/// A time of the xDS store, whose clock is of the same kind.
pub(crate) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::default().after(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_passes_as_the_monotonic_clock_says() {
        let clock = Clock::start();
        let before = clock.now();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().since(before), Duration::from_secs(90));
    }
}
