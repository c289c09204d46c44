//! Whether the filter lives in the local Envoy. Envoy itself counts no crash of a filter that fails open, so the filter has a
//! heart: each of its virtual machines (one a worker, and one in the main thread) counts up one counter once a second. Fewer
//! beats than machines mean that some are dead; a fresh version of the filter's configuration heals them.

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_core::config::Admin;
use tidegate_core::{Code, Input, Problem};
use tidegate_filter_core::HEARTBEAT_COUNTER;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::envoy::AdminClient;

/// The name under which this part reports.
pub const PART: &str = "filter";

const LOOK: Duration = Duration::from_secs(1);

/// Beats are counted over so many seconds, and a quarter second more for each machine: their ticks are not in step with our
/// looks, and on a busy machine they come late.
const WINDOW: f64 = 5.0;

/// One look at Envoy.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Beat {
    /// Seconds since the watch began.
    at: f64,
    beats: u64,
    /// Virtual machines that should beat.
    machines: u64,
}

/// Watches the Envoy behind `admin` and tells `inbox` of crashes, until `shutdown`. An Envoy whose admin interface is elsewhere
/// is not watched.
pub async fn watch(admin: Admin, inbox: mpsc::Sender<Input>, shutdown: CancellationToken) {
    let client = AdminClient::new(&admin);
    let started = Instant::now();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pulse = Pulse::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some((beats, machines)) = look(&client).await else {
            pulse = Pulse::default();
            continue;
        };
        let verdict = pulse.observe(Beat { at: started.elapsed().as_secs_f64(), beats, machines });
        let inputs = match verdict {
            Some(Verdict::Crashed { dead }) => {
                tracing::error!(dead, machines, "filter crashed; traffic goes on, and it gets a fresh configuration");
                vec![Input::FilterCrashed, Input::Reported { part: PART, problems: vec![crashed(dead, machines)] }]
            }
            Some(Verdict::Healed) => {
                tracing::info!("filter healed");
                vec![Input::Reported { part: PART, problems: Vec::new() }]
            }
            None => continue,
        };
        for input in inputs {
            if inbox.send(input).await.is_err() {
                return;
            }
        }
    }
}

/// Beats so far, and the machines that should beat; `None` while Envoy or its filter is not there.
async fn look(client: &AdminClient) -> Option<(u64, u64)> {
    let heart = format!("wasmcustom.{HEARTBEAT_COUNTER}");
    let filter = format!("^({}|server\\.concurrency)$", heart.replace('.', "\\."));
    let stats = client.stats(&filter).await.ok()?;
    Some((*stats.get(&heart)?, stats.get("server.concurrency")? + 1))
}

fn crashed(dead: u64, machines: u64) -> Problem {
    Problem::error(
        Code::FilterCrashed,
        "the filter in the local Envoy",
        format!("{dead} of its {machines} virtual machines stopped beating"),
        "traffic goes on with the right weights and endpoints, but clients there are not kept on their version",
        "none needed: it was given a fresh configuration; if it comes back, see Envoy's log for `tidegate` and report it",
    )
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Crashed { dead: u64 },
    Healed,
}

/// The looks within the window.
#[derive(Debug, Default)]
struct Pulse {
    looks: VecDeque<Beat>,
    sick: bool,
}

impl Pulse {
    fn observe(&mut self, now: Beat) -> Option<Verdict> {
        // A restarted Envoy, or one with other workers, begins anew.
        if self.looks.back().is_some_and(|last| last.beats > now.beats || last.machines != now.machines) {
            self.looks.clear();
        }
        self.looks.push_back(now);
        let window = WINDOW + 0.25 * count(now.machines);
        while self.looks.get(1).is_some_and(|second| now.at - second.at >= window) {
            self.looks.pop_front();
        }
        let first = self.looks.front().filter(|first| now.at - first.at >= window)?;
        let seconds = now.at - first.at;
        let missing = seconds * count(now.machines) - count(now.beats - first.beats);
        let dead = missing / seconds;
        if dead >= 0.5 {
            // What follows is judged by the beats after the cure.
            self.looks.clear();
            self.sick = true;
            return Some(Verdict::Crashed { dead: rounded(dead) });
        }
        std::mem::take(&mut self.sick).then_some(Verdict::Healed)
    }
}

#[expect(clippy::cast_precision_loss, reason = "beats of a process are far below 2^52")]
fn count(n: u64) -> f64 {
    n as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number of machines")]
fn rounded(n: f64) -> u64 {
    n.round().max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second at `machines` of which `alive(second)` beat.
    fn verdicts(machines: u64, seconds: u64, alive: impl Fn(u64) -> u64) -> Vec<(u64, Verdict)> {
        let mut pulse = Pulse::default();
        let mut beats = 100;
        let mut verdicts = Vec::new();
        for second in 0..seconds {
            beats += alive(second);
            let beat = Beat { at: count(second), beats, machines };
            verdicts.extend(pulse.observe(beat).map(|verdict| (second, verdict)));
        }
        verdicts
    }

    #[test]
    fn a_heart_that_beats_is_left_alone() {
        assert_eq!(verdicts(3, 60, |_| 3), []);
        assert_eq!(verdicts(3, 60, |second| if second % 2 == 0 { 2 } else { 4 }), [], "late beats are no crash");
    }

    #[test]
    fn one_dead_machine_is_noticed_and_its_healing_too() {
        let verdicts = verdicts(3, 60, |second| if (20..27).contains(&second) { 2 } else { 3 });
        assert!(
            matches!(verdicts.as_slice(), [(20..=26, Verdict::Crashed { dead: 1 }), (27..=40, Verdict::Healed)]),
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_crash_that_no_cure_ends_is_told_once_a_window() {
        let verdicts = verdicts(3, 60, |_| 1);
        assert!((5..=10).contains(&verdicts.len()), "{verdicts:?}");
        assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Crashed { dead: 2 }));
    }

    #[test]
    fn a_restarted_envoy_begins_anew() {
        let mut pulse = Pulse::default();
        for second in 0..20_u64 {
            let beats = if second < 10 { second * 3 } else { (second - 10) * 3 };
            assert_eq!(pulse.observe(Beat { at: count(second), beats, machines: 3 }), None);
        }
    }
}
