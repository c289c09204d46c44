//! The rollouts on disk, so that a restart goes on where the last process stood: with the same step, weight and history, and with the
//! time that has passed. Whatever the reconcile task changes is written soon after, and what an operator asked for is acknowledged
//! when it is. How long nobody was there is told by the machine's own clock since its boot: a step of the wall clock neither shortens nor
//! prolongs a pause, and what a reboot took does not count.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tidegate_core::compile::{RuntimeLayer, TIDEGATE};
use tidegate_core::rollout::Rollouts;
use tidegate_core::state::trials::Trials;
use tidegate_core::{Code, Input, Problem, Timestamp};
use tidegate_xds::{ResourceType, Store};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::state_dir;

/// The name under which this part reports.
pub const PART: &str = "rollouts";

/// The file in the state directory.
const FILE: &str = "rollouts.json";

/// Where what could not be read is kept.
const ASIDE: &str = "rollouts.json.unreadable";

/// Counts come each second; what they add is written this often at most, unless something was decided.
const REST: Duration = Duration::from_secs(2);

/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the reconcile task holds, as of one change.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Counts the changes up.
    pub revision: u64,
    /// Counts up those that must not wait: decisions and commands.
    pub decided: u64,
    /// The rollouts.
    pub rollouts: Arc<Rollouts>,
}

/// How far the disk is.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// The change up to which it was tried.
    pub revision: u64,
    /// Why it could not be written, if it could not.
    pub failed: Option<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    boot: Option<Boot>,
    rollouts: &'a Rollouts,
}

#[derive(Deserialize)]
struct Read {
    boot: Option<Boot>,
    rollouts: Rollouts,
}

/// A moment since a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Boot {
    id: String,
    millis: u64,
}

impl Boot {
    /// `None`: the kernel does not say.
    fn now() -> Option<Self> {
        let id = fs::read_to_string(BOOT_ID).ok()?.trim().to_owned();
        let now = clock_gettime(ClockId::Boottime);
        let millis = u64::try_from(now.tv_sec).ok()?.checked_mul(1_000)? + u64::try_from(now.tv_nsec).ok()? / 1_000_000;
        Some(Self { id, millis })
    }

    /// How long ago `before` was; zero when that was another boot.
    fn since(&self, before: &Self) -> Duration {
        let same = self.id == before.id;
        Duration::from_millis(if same { self.millis.saturating_sub(before.millis) } else { 0 })
    }
}

/// What is kept in this state directory, and what is wrong with it. What cannot be read is kept aside, and every rollout stands still at
/// the weight that `served`, the last known good, has of it.
#[must_use]
pub fn restore(state_dir: &Path, served: &Store, now: Timestamp) -> (Trials, Option<Problem>) {
    let path = state_dir.join(FILE);
    let read = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice::<Read>(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return (Trials::restored(Rollouts::default(), Duration::ZERO, now), None);
        }
        Err(error) => Err(error.to_string()),
    };
    match read {
        Ok(Read { boot, rollouts }) => {
            let away = boot.zip(Boot::now()).map(|(before, now)| now.since(&before)).unwrap_or_default();
            (Trials::restored(rollouts, away, now), None)
        }
        Err(reason) => {
            let aside = state_dir.join(ASIDE);
            let kept = fs::rename(&path, &aside).is_ok();
            let problem = Problem::error(
                Code::RolloutState,
                path.display().to_string(),
                reason,
                "each rollout stands still at the weight that edges have; what operators started, and the histories, are lost",
                if kept {
                    format!(
                        "what was there is kept in {}; see `tidegate canary status`, and resume each",
                        aside.display()
                    )
                } else {
                    "see `tidegate canary status`, and resume each".to_owned()
                },
            );
            let layer = served.content(ResourceType::Runtime, TIDEGATE);
            let weights = layer.and_then(|bytes| RuntimeLayer::decode(&*bytes).ok()).map(|layer| layer.values());
            (Trials::lost(weights.unwrap_or_default()), Some(problem))
        }
    }
}

/// Writes what is held whenever it changes, until `shutdown`, and tells `kept` how far it is.
pub async fn keep(
    state_dir: PathBuf,
    mut held: watch::Receiver<Held>,
    kept: watch::Sender<Kept>,
    inbox: mpsc::Sender<Input>,
    shutdown: CancellationToken,
) {
    let path = state_dir.join(FILE);
    let mut decided = 0;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => {
                // The last word, if there is one.
                if held.has_changed().unwrap_or(false) {
                    let last = held.borrow_and_update().clone();
                    if let Err(reason) = write(&path, &last).await {
                        tracing::warn!(reason, "the last of the rollouts is not kept");
                    }
                }
                return;
            }
            changed = held.changed() => if changed.is_err() { return },
        }
        let now = held.borrow_and_update().clone();
        let failed = write(&path, &now).await.err();
        if kept.borrow().failed.is_some() != failed.is_some() {
            let problems = failed.iter().map(|reason| unkept(&path, reason)).collect();
            if inbox.send(Input::Reported { part: PART, problems }).await.is_err() {
                return;
            }
        }
        kept.send_replace(Kept { revision: now.revision, failed });
        if inbox.send(Input::RolloutsKept(now.revision)).await.is_err() {
            return;
        }
        if now.decided == decided {
            let mut urgent = held.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(REST) => {}
                _ = urgent.wait_for(|held| held.decided != decided) => {}
            }
        }
        decided = now.decided;
    }
}

async fn write(path: &Path, held: &Held) -> Result<(), String> {
    let written = Written { boot: Boot::now(), rollouts: &held.rollouts };
    let text = serde_json::to_vec(&written).map_err(|error| error.to_string())?;
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || state_dir::replace(&path, |out| out.write_all(&text))).await;
    written.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

fn unkept(path: &Path, reason: &str) -> Problem {
    Problem::error(
        Code::RolloutState,
        path.display().to_string(),
        reason,
        "rollouts go on, but a restart would go on from where they were last written",
        "make room in the state directory, or let it be written",
    )
}
