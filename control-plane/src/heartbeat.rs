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

/// Beats are counted over so many seconds at least, and over two and a half for each machine. Each may be off by one beat in a
/// window, because its ticks are not in step with our looks; one that is dead lacks more than all of them together.
const WINDOW: f64 = 6.0;

/// After a cure the next comes this many seconds later at the earliest, twice as many after each that did not help: what
/// killed a filter may kill it again, and each time costs one request.
const HOLD: f64 = 10.0;
const LONGEST_HOLD: f64 = 300.0;

/// Counts the configurations that the filter was given by ECDS.
const RELOADS: &str = "extension_config_discovery.http_filter.tidegate.config_reload";

/// One look at Envoy.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Beat {
    /// Seconds since the watch began.
    at: f64,
    beats: u64,
    /// Virtual machines that should beat.
    machines: u64,
    /// Configurations taken so far; each sets the machines' ticks back, and heals.
    reloads: u64,
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
        let Some(beat) = look(&client, started).await else {
            pulse = Pulse::default();
            continue;
        };
        let machines = beat.machines;
        let inputs = match pulse.observe(beat) {
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

/// `None` while Envoy or its filter is not there.
async fn look(client: &AdminClient, started: Instant) -> Option<Beat> {
    let heart = format!("wasmcustom.{HEARTBEAT_COUNTER}");
    let filter = format!("^({}|server\\.concurrency)$|{RELOADS}$", heart.replace('.', "\\."));
    let stats = client.stats(&filter).await.ok()?;
    Some(Beat {
        at: started.elapsed().as_secs_f64(),
        beats: *stats.get(&heart)?,
        machines: stats.get("server.concurrency")? + 1,
        reloads: stats.iter().filter(|(name, _)| name.ends_with(RELOADS)).map(|(_, count)| count).sum(),
    })
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

/// The looks within the window, and the cures that were tried.
#[derive(Debug, Default)]
struct Pulse {
    looks: VecDeque<Beat>,
    /// Cures since it was last seen well.
    cures: i32,
    hold_until: f64,
}

impl Pulse {
    fn observe(&mut self, now: Beat) -> Option<Verdict> {
        let anew = |last: &Beat| last.beats > now.beats || last.machines != now.machines || last.reloads != now.reloads;
        if self.looks.back().is_some_and(anew) {
            self.looks.clear();
        }
        self.looks.push_back(now);
        let window = WINDOW.max(2.5 * count(now.machines));
        while self.looks.get(1).is_some_and(|second| now.at - second.at >= window) {
            self.looks.pop_front();
        }
        let first = self.looks.front().filter(|first| now.at - first.at >= window)?;
        let seconds = now.at - first.at;
        let dead = count(now.machines) - count(now.beats - first.beats) / seconds;
        if dead < 0.5 {
            return (std::mem::take(&mut self.cures) > 0).then_some(Verdict::Healed);
        }
        if now.at < self.hold_until {
            return None;
        }
        self.hold_until = now.at + (HOLD * 2_f64.powi(self.cures)).min(LONGEST_HOLD);
        self.cures = self.cures.saturating_add(1).min(10);
        // What follows is judged by the beats after the cure.
        self.looks.clear();
        Some(Verdict::Crashed { dead: rounded(dead) })
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
            let verdict = pulse.observe(Beat { at: count(second), beats, machines, reloads: 1 });
            verdicts.extend(verdict.map(|verdict| (second, verdict)));
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
        let verdicts = verdicts(3, 60, |second| if (20..28).contains(&second) { 2 } else { 3 });
        assert!(
            matches!(verdicts.as_slice(), [(20..=28, Verdict::Crashed { dead: 1 }), (28..=40, Verdict::Healed)]),
            "{verdicts:?}"
        );
    }

    #[test]
    fn a_crash_that_no_cure_ends_is_cured_ever_more_rarely() {
        let verdicts = verdicts(3, 1_000, |_| 1);
        assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Crashed { dead: 2 }), "{verdicts:?}");
        let pauses: Vec<u64> = verdicts.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn a_restarted_envoy_and_a_new_configuration_begin_anew() {
        let mut pulse = Pulse::default();
        for second in 0..20_u64 {
            let beats = if second < 10 { second * 3 } else { (second - 10) * 3 };
            assert_eq!(pulse.observe(Beat { at: count(second), beats, machines: 3, reloads: 0 }), None);
        }
        let mut pulse = Pulse::default();
        for second in 0..40_u64 {
            // Each configuration sets the ticks back, and so costs a beat.
            let beat = Beat { at: count(second), beats: second * 3 - second / 2, machines: 3, reloads: second / 2 };
            assert_eq!(pulse.observe(beat), None);
        }
    }
}
