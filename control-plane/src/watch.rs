//! Watching directories: says when a look at what is in them is worth it, and knows nothing of what is looked for. A hint, never
//! the truth: whoever asks compares what is there with what it knew.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Editors write in several steps (truncate, write, rename over): a look is worth it when nothing happened for so long.
const QUIET: Duration = Duration::from_millis(50);

/// What is written to without a pause is looked at this long after the first write, all the same.
const LONGEST: Duration = Duration::from_secs(1);

/// A watch can fail silently (network file systems, bind mounts of a single file): a look is worth it this often, too.
const LOOK: Duration = Duration::from_secs(2);

/// A watch of some directories, not of what is below them.
pub(crate) struct Watch {
    watcher: Option<RecommendedWatcher>,
    targets: Vec<Target>,
    changes: mpsc::Receiver<()>,
    /// Keeps `changes` open where there is no watcher.
    _changed: mpsc::Sender<()>,
    /// A watched directory went away, or was moved.
    lost: Arc<AtomicBool>,
    /// Something happened that nobody was told yet.
    pending: bool,
}

struct Target {
    path: PathBuf,
    /// The directory that is watched; another one may stand there later.
    watched: Option<(u64, u64)>,
}

impl Watch {
    /// Watches `directories`, which need not exist yet, for what happens to paths that are `ours`. Paths are absolute.
    pub(crate) fn new(directories: &[&Path], ours: impl Fn(&Path) -> bool + Send + 'static) -> Self {
        // One slot: that something happened is all there is to know.
        let (changed, changes) = mpsc::channel(1);
        let targets: Vec<Target> = directories
            .iter()
            .map(|path| Target { path: std::path::absolute(path).unwrap_or((*path).to_owned()), watched: None })
            .collect();
        let lost = Arc::new(AtomicBool::new(false));
        let (tell, is_lost) = (changed.clone(), Arc::clone(&lost));
        let roots: Vec<PathBuf> = targets.iter().map(|target| target.path.clone()).collect();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            // Reading a file is an event, too, and must not lead to reading it again.
            if event.kind.is_access() {
                return;
            }
            let root = event.paths.iter().any(|path| roots.contains(path));
            if root && !event.kind.is_create() {
                is_lost.store(true, Ordering::Relaxed);
            }
            if root || event.paths.iter().any(|path| ours(path)) {
                let _ = tell.try_send(());
            }
        });
        let watcher = watcher
            .map_err(|error| tracing::warn!(%error, "files cannot be watched; they are looked at every {LOOK:?}"))
            .ok();
        let mut watch = Self { watcher, targets, changes, _changed: changed, lost, pending: false };
        watch.renew();
        watch
    }

    /// Returns when something happened and it has been quiet since, or when it is time to look anyway. Loses nothing when it is
    /// dropped half-way.
    pub(crate) async fn changed(&mut self) {
        if self.renew() {
            return;
        }
        if !self.pending {
            self.pending = timeout(LOOK, self.changes.recv()).await.is_ok();
        }
        let until = Instant::now() + LONGEST;
        while self.pending && Instant::now() < until && timeout(QUIET, self.changes.recv()).await.is_ok() {}
        self.pending = false;
    }

    /// Watches the directories that stand where others stood, or nothing; whether there were any: what happened in them before
    /// nobody was told.
    fn renew(&mut self) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let lost = self.lost.swap(false, Ordering::Relaxed);
        let mut renewed = false;
        for target in &mut self.targets {
            let there = std::fs::metadata(&target.path).ok().filter(std::fs::Metadata::is_dir);
            let there = there.map(|directory| (directory.dev(), directory.ino()));
            if there == target.watched && !lost {
                continue;
            }
            // It may be watched no more already.
            let _ = watcher.unwatch(&target.path);
            let watched = there.filter(|_| {
                let result = watcher.watch(&target.path, RecursiveMode::NonRecursive);
                if let Err(error) = &result {
                    tracing::warn!(%error, path = %target.path.display(), "a directory cannot be watched; it is looked at every {LOOK:?}");
                }
                result.is_ok()
            });
            renewed |= watched.is_some();
            target.watched = watched;
        }
        renewed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sooner than by a look that is due anyway.
    async fn told(watch: &mut Watch) -> bool {
        timeout(LOOK / 2, watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn a_write_to_what_is_ours_is_told_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let ours = |path: &Path| path.extension().is_some_and(|extension| extension == "yaml");
        let mut watch = Watch::new(&[directory.path()], ours);
        std::fs::write(directory.path().join("a.txt"), "x").unwrap();
        assert!(!told(&mut watch).await);
        std::fs::write(directory.path().join("a.yaml"), "x").unwrap();
        assert!(told(&mut watch).await);
        let _ = std::fs::read(directory.path().join("a.yaml")).unwrap();
        assert!(!told(&mut watch).await, "reading is no change");
        std::fs::rename(directory.path().join("a.txt"), directory.path().join("a.yaml")).unwrap();
        assert!(told(&mut watch).await);
    }

    #[tokio::test]
    async fn a_directory_that_is_made_anew_is_watched_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("instances");
        std::fs::create_dir(&path).unwrap();
        let mut watch = Watch::new(&[&path], |_| true);
        std::fs::remove_dir(&path).unwrap();
        assert!(told(&mut watch).await);
        std::fs::create_dir(&path).unwrap();
        // By the next look at the latest; from then on it is watched.
        watch.changed().await;
        std::fs::write(path.join("a"), "x").unwrap();
        assert!(told(&mut watch).await);
    }
}
