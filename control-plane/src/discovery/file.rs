//! Files as a source of instances: one file, or a directory of them. Only files that changed are read again, and only entries
//! that changed are told. A file that cannot be used, and a directory that is gone, keep what was last good and say what is
//! wrong. It only reads.
//!
//! The pieces: `folder` reads, `book` knows, and this file looks, again and again.

mod book;
mod folder;
mod stats;

use std::path::{Path, PathBuf};

use tidegate_core::{Input, Problem, ProviderName, Timestamp, Update};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::folder::Folder;
pub use self::stats::FileStats;
use crate::clock::Clock;
use crate::watch::Watch;

/// More updates than this are told as one full set: the rounds that many small ones take would each cost what all services
/// have in common.
const MAX_UPDATES: usize = 1_000;

/// The file provider.
#[derive(Debug)]
pub struct FileProvider {
    path: PathBuf,
    stats: FileStats,
}

impl FileProvider {
    /// A provider that does nothing until it runs. `path` names a file, or a directory of `*.yaml` and `*.yml` files.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), stats: FileStats::default() }
    }

    /// What it counts.
    #[must_use]
    pub fn stats(&self) -> FileStats {
        self.stats.clone()
    }

    /// Follows the files until `shutdown`, or until nobody reads `inbox` any more. The first update is either a reset or the
    /// problem that keeps it from coming.
    #[tracing::instrument(name = "file", skip_all, fields(path = %self.path.display()))]
    pub async fn run(self, inbox: mpsc::Sender<Input>, clock: Clock, shutdown: CancellationToken) {
        let follower = Follower {
            folder: Some(Folder::new(self.path.clone(), self.stats.clone())),
            path: self.path,
            stats: self.stats,
            clock,
            inbox,
            reported: Vec::new(),
            was_complete: false,
        };
        let _ = shutdown.run_until_cancelled(follower.run()).await;
    }
}

/// Everything that is wrong with the files at `path`, read once.
#[must_use]
pub fn problems(path: &Path) -> Vec<Problem> {
    let mut folder = Folder::new(path.to_owned(), FileStats::default());
    folder.look();
    folder.problems()
}

/// The control plane is ending: nobody reads the inbox, or the runtime is going.
struct Ended;

struct Follower {
    path: PathBuf,
    stats: FileStats,
    /// Lent to a blocking thread while it looks.
    folder: Option<Folder>,
    clock: Clock,
    inbox: mpsc::Sender<Input>,
    /// The problems the inbox knows of.
    reported: Vec<Problem>,
    /// A full set was sent, so that single updates make sense.
    was_complete: bool,
}

impl Follower {
    async fn run(mut self) {
        let mut watch = watch(&self.path);
        while self.look().await.is_ok() {
            watch.changed().await;
        }
    }

    async fn look(&mut self) -> Result<(), Ended> {
        let now = self.clock.now();
        let mut folder = self.folder.take().ok_or(Ended)?;
        // What was there at start is older than any container: who had a host first is not known, and whose file it is is.
        let (first, created) = (!self.was_complete, if self.was_complete { now } else { Timestamp::default() });
        let looked = tokio::task::spawn_blocking(move || {
            let mut updates = Vec::new();
            let there = folder.look();
            if there {
                updates = folder.book.news(created, now);
                if first || updates.len() > MAX_UPDATES {
                    updates = vec![Update::Reset(folder.book.everything(now))];
                }
            }
            let problems = folder.problems();
            (folder, updates, problems)
        });
        let (folder, updates, problems) = looked.await.map_err(|_| Ended)?;
        self.stats.entries.set(i64::try_from(folder.book.len()).unwrap_or(i64::MAX));
        self.folder = Some(folder);
        for update in updates {
            self.was_complete |= matches!(update, Update::Reset(_));
            self.send(update).await?;
        }
        if self.reported != problems {
            tracing::warn!(problems = problems.len(), "what is wrong with the files of instances is another thing now");
            self.reported.clone_from(&problems);
            self.send(Update::Problems(problems)).await?;
        }
        Ok(())
    }

    async fn send(&self, update: Update) -> Result<(), Ended> {
        let input = Input::Provider { provider: ProviderName::file(), update };
        self.inbox.send(input).await.map_err(|_| Ended)
    }
}

/// Of the path itself, should it be a directory, and of the one it stands in.
fn watch(path: &Path) -> Watch {
    let path = std::path::absolute(path).unwrap_or(path.to_owned());
    let parent = path.parent().unwrap_or(&path).to_owned();
    let of = path.clone();
    Watch::new(&[&path, &parent], move |changed| changed == of || changed.parent() == Some(&of))
}

#[cfg(test)]
mod tests;
