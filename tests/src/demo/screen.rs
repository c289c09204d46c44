//! What the watcher sees: on a terminal a line that is drawn again and again, and one that stays for each thing that
//! happened; elsewhere only the latter.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::timeline::CANARY;
use crate::load::Sample;

/// Often enough to look alive.
const FRAME: Duration = Duration::from_millis(200);

pub struct Screen {
    live: bool,
    counts: Arc<Counts>,
    shown: Shown,
}

/// What the load tells of, from its own tasks.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicUsize,
    failed: AtomicUsize,
    canary: AtomicUsize,
}

/// The counts when the phase began.
#[derive(Debug, Default, Clone, Copy)]
struct Shown {
    requests: usize,
    failed: usize,
    canary: usize,
}

impl Counts {
    pub fn add(&self, sample: &Sample) {
        self.requests.fetch_add(1, Relaxed);
        self.failed.fetch_add(usize::from(!sample.outcome.is_success()), Relaxed);
        self.canary.fetch_add(usize::from(sample.version() == Some(CANARY)), Relaxed);
    }

    fn now(&self) -> Shown {
        Shown {
            requests: self.requests.load(Relaxed),
            failed: self.failed.load(Relaxed),
            canary: self.canary.load(Relaxed),
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self { live: io::stdout().is_terminal(), counts: Arc::default(), shown: Shown::default() }
    }
}

impl Screen {
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        self.clear();
        put(text);
        put("\n");
    }

    /// The counts of the phase begin again.
    pub fn begin(&mut self) {
        self.shown = self.counts.now();
    }

    /// Waits, and shows meanwhile what happens.
    pub async fn hold(&self, what: &str, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            if self.live {
                let left = end.duration_since(Instant::now()).as_secs_f64().ceil();
                put(&format!("\r\x1b[2K  {what}: {} · {left:.0} s left", self.line()));
            }
            sleep_until(end.min(Instant::now() + FRAME)).await;
        }
        self.clear();
    }

    /// What has come of the phase so far.
    pub fn line(&self) -> String {
        let (now, then) = (self.counts.now(), self.shown);
        let requests = now.requests - then.requests;
        let canary = now.canary - then.canary;
        #[allow(clippy::cast_precision_loss, reason = "far fewer requests than 2^52")]
        let share = if requests == 0 { 0.0 } else { canary as f64 / requests as f64 };
        let (percent, failed) = (100.0 * share, now.failed - then.failed);
        format!("{requests} requests, {failed} failed, {CANARY} {percent:.1} % {}", bar(share))
    }

    fn clear(&self) {
        if self.live {
            put("\r\x1b[2K");
        }
    }
}

/// Twenty cells.
fn bar(share: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 20")]
    let full = (share * 20.0).round().clamp(0.0, 20.0) as usize;
    format!("[{}{}]", "█".repeat(full), "·".repeat(20 - full))
}

/// Nobody may be looking any more; the demo goes on to its end and cleans up.
fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_of_one_length() {
        for share in [0.0, 0.01, 0.5, 0.999, 1.0] {
            assert_eq!(bar(share).chars().count(), 22, "{share}");
        }
        assert_eq!(bar(0.5).matches('█').count(), 10);
    }
}
