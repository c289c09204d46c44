//! The configuration file: read at start, watched, and read again on every change and on SIGHUP. A file that is invalid or
//! cannot be read changes nothing, and says what is wrong where.

use std::path::{Path, PathBuf};

use tidegate_core::config::{Config, parse};
use tidegate_core::{Code, Input, Problem};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::watch::Watch;

/// The name under which the file's problems are reported.
pub const PART: &str = "config";

/// Reads the file; without one, the defaults.
///
/// # Errors
/// Every problem of the file.
pub fn load(path: Option<&Path>) -> Result<Config, Vec<Problem>> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| vec![unreadable(path, &error)])?;
    parse(&path.display().to_string(), &text)
}

fn unreadable(path: &Path, error: &std::io::Error) -> Problem {
    Problem::error(
        Code::UnreadableConfig,
        path.display().to_string(),
        format!("it cannot be read: {error}"),
        "what was in force stays",
        "create the file, or name another one with `--config`",
    )
}

/// Watches the file and tells the inbox.
pub struct ConfigWatch {
    path: PathBuf,
    at_start: Config,
    inbox: mpsc::Sender<Input>,
}

impl ConfigWatch {
    /// Watches `path`, which need not exist yet; `at_start` is in force.
    #[must_use]
    pub const fn new(path: PathBuf, at_start: Config, inbox: mpsc::Sender<Input>) -> Self {
        Self { path, at_start, inbox }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let name = self.path.file_name().map(ToOwned::to_owned);
        // The directory, not the file: a rename over it is a new file.
        let directory = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut watch = Watch::new(&[directory], move |path| path.file_name() == name.as_deref());
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut known = std::fs::read(&self.path).ok();
        // It may have changed since it was read at start.
        if known.is_some() && load(Some(&self.path)).as_ref() != Ok(&self.at_start) && !self.reload().await {
            return;
        }
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                () = watch.changed() => false,
                Some(()) = recv(&mut hangup) => true,
            };
            let now = std::fs::read(&self.path).ok();
            if now == known && !asked {
                continue;
            }
            known = now;
            if !self.reload().await {
                return;
            }
        }
    }

    /// False when nobody listens any more.
    async fn reload(&self) -> bool {
        let (config, problems) = match load(Some(&self.path)) {
            Ok(config) => {
                let problems = restart_needed(&config.needs_restart(&self.at_start));
                tracing::info!(path = %self.path.display(), "configuration loaded");
                (Some(config), problems)
            }
            Err(problems) => {
                tracing::error!(path = %self.path.display(), problems = problems.len(), "configuration not loaded; what was in force stays");
                (None, problems)
            }
        };
        let reported = Input::Reported { part: PART, problems };
        let configured = config.map(|config| Input::Configured(Box::new(config)));
        for input in configured.into_iter().chain([reported]) {
            if self.inbox.send(input).await.is_err() {
                return false;
            }
        }
        true
    }
}

async fn recv(signal: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match signal {
        Some(signal) => signal.recv().await,
        None => std::future::pending().await,
    }
}

fn restart_needed(keys: &[&str]) -> Vec<Problem> {
    keys.iter()
        .map(|key| {
            Problem::error(
                Code::RestartNeeded,
                *key,
                "it changed, but is read at start only",
                "the value from the start is in force",
                "restart tidegate; Envoy goes on serving meanwhile",
            )
            .warning()
        })
        .collect()
}
