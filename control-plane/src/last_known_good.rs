//! The last known good on disk: what is published is kept in the state directory, so that a control plane that starts while
//! Docker is away can give it to an Envoy that has nothing. It only copies what the store has, and never decides what is
//! published: at start it hands over what was kept, and from the first sync on it keeps what reconcile commits.

mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_core::{Code, Input, Problem, Timestamp, compile};
use tidegate_xds::{Group, ResourceType, Snapshot, Store};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::timestamp;

/// The name under which this part reports.
pub const PART: &str = "last known good";

/// The file in the state directory.
pub const FILE: &str = "last-known-good";

/// Between the end of one write and the next: a storm of commits costs one write a second. The first after a quiet second is
/// kept at once.
const PAUSE: Duration = Duration::from_secs(1);

/// A write may take long, on a slow disk or for many services: the pause after it is so many times as long, which leaves 90 %
/// of the time to others.
const PAUSE_OF_WRITES: u32 = 9;

/// After a failed write it is tried again; the pause doubles up to this.
const MOST: Duration = Duration::from_secs(10);

/// Whether a file that was set aside is still there is looked at this often.
const LOOK: Duration = Duration::from_secs(2);

/// What is kept, and what is wrong with it.
#[derive(Debug)]
pub struct LastKnownGood {
    path: PathBuf,
    unusable: Option<Unusable>,
    /// Why the last write failed.
    failed: Option<Problem>,
}

#[derive(Debug)]
struct Unusable {
    problem: Problem,
    /// Where it is now. Its problem goes when the file does.
    at: PathBuf,
}

impl LastKnownGood {
    /// In this state directory.
    #[must_use]
    pub fn new(state_dir: &Path) -> Self {
        Self { path: state_dir.join(FILE), unusable: None, failed: None }
    }

    /// Publishes what was kept, if it is whole, and opens the store to Envoys that have nothing yet; returns when it was kept. A file that is not is set aside,
    /// and the start goes on as if there were none.
    pub fn restore(&mut self, store: &Store) -> Option<Timestamp> {
        let snapshot = match file::read(&self.path) {
            Ok(snapshot) => snapshot?,
            Err(error) => {
                let (at, fate) = match file::set_aside(&self.path) {
                    Ok(aside) => {
                        let fate = format!("it is kept as {}", aside.display());
                        (aside, fate)
                    }
                    Err(error) => (self.path.clone(), format!("it cannot be set aside: {error}")),
                };
                self.refuse(&format!("{error}; {fate}"), at);
                return None;
            }
        };
        // All or nothing: a store without the listeners of before would take them from an Envoy that has them.
        if let Some(code) = lost_filter(&snapshot) {
            self.refuse(&format!("it names the filter {code}, which is not there any more"), self.path.clone());
            return None;
        }
        let kept_at = timestamp(snapshot.taken_at());
        let resources = store.restore(snapshot).changed.len();
        // An Envoy that has something may have newer than this: it keeps that until discovery has synced.
        store.open_to_newcomers();
        tracing::info!(%kept_at, resources, "serving the last known good until discovery has synced");
        Some(kept_at)
    }

    /// Keeps what `store` publishes after each of `commits`, the first of which is the first sync. Ends with `shutdown`, after
    /// what was committed last is kept.
    pub async fn run(
        mut self,
        store: Store,
        mut commits: watch::Receiver<u64>,
        inbox: mpsc::Sender<Input>,
        shutdown: CancellationToken,
    ) {
        let mut reported = Vec::new();
        let mut unkept = false;
        let mut next = Instant::now();
        let mut retry = PAUSE;
        loop {
            let problems = self.problems();
            if reported != problems {
                reported.clone_from(&problems);
                if inbox.send(Input::Reported { part: PART, problems }).await.is_err() {
                    break;
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                changed = commits.changed(), if !unkept => {
                    if changed.is_err() {
                        break;
                    }
                    unkept = true;
                    continue;
                }
                () = tokio::time::sleep_until(next), if unkept => {}
                () = tokio::time::sleep(LOOK), if self.unusable.is_some() => continue,
            }
            let began = Instant::now();
            commits.mark_unchanged();
            unkept = !self.keep(&store).await;
            let took = began.elapsed();
            let least = if unkept { retry } else { PAUSE };
            retry = if unkept { MOST.min(retry * 2) } else { PAUSE };
            next = Instant::now() + least.max(took * PAUSE_OF_WRITES);
        }
        // Reconcile may be in the middle of its last round.
        while commits.changed().await.is_ok() {
            unkept = true;
        }
        if unkept {
            self.keep(&store).await;
        }
        shutdown.cancelled().await;
    }

    /// Writes, away from the tasks that serve; returns whether it worked.
    async fn keep(&mut self, store: &Store) -> bool {
        let snapshot = store.snapshot();
        let resources = snapshot.len();
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || file::write(&path, &snapshot)).await;
        match written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(()) => {
                if self.failed.take().is_some() {
                    tracing::info!(path = %self.path.display(), "the last known good is kept again");
                }
                // A file in its own place was replaced by this one.
                self.unusable.take_if(|unusable| unusable.at == self.path);
                tracing::debug!(resources, "last known good kept");
                true
            }
            Err(error) => {
                if self.failed.is_none() {
                    tracing::warn!(path = %self.path.display(), %error, "the last known good cannot be written; serving goes on");
                }
                self.failed = Some(not_kept(&self.path, &error));
                false
            }
        }
    }

    fn problems(&mut self) -> Vec<Problem> {
        self.unusable.take_if(|unusable| !unusable.at.exists());
        self.unusable.iter().map(|unusable| unusable.problem.clone()).chain(self.failed.clone()).collect()
    }

    fn refuse(&mut self, reason: &str, at: PathBuf) {
        tracing::warn!(path = %self.path.display(), reason, "the last known good cannot be used");
        let problem = Problem::error(
            Code::UnusableKept,
            self.path.display().to_string(),
            reason,
            "the start goes on without it: Envoy gets nothing new before the first full picture, and keeps what it has",
            format!("none needed; remove {} when you have looked at it", at.display()),
        );
        self.unusable = Some(Unusable { problem: problem.warning(), at });
    }
}

fn not_kept(path: &Path, error: &std::io::Error) -> Problem {
    let problem = Problem::error(
        Code::NotKept,
        path.display().to_string(),
        format!("it cannot be written: {error}"),
        "serving goes on; what was kept before stays, and a restart while Docker is away would serve that",
        "free space for the state directory, or make it writable; it is tried again",
    );
    problem.warning()
}

/// The filter's file that a snapshot names, if it is gone: Envoy would refuse what names it.
fn lost_filter(snapshot: &Snapshot) -> Option<String> {
    snapshot
        .resources(&Group::default())
        .filter(|(resource_type, ..)| *resource_type == ResourceType::ExtensionConfig)
        .filter_map(|(.., message)| compile::filter_code(message))
        .find(|code| !Path::new(code).exists())
}

#[cfg(test)]
mod tests;
