//! The configuration file, and the authorities that it names for services: read at start, watched, and read again on every change
//! and on SIGHUP. A file that is invalid or cannot be read changes nothing, and says what is wrong where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::config::{Config, parse};
use tidegate_core::{Code, Input, Problem};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::authorities;
use crate::watch::Watch;

/// The name under which the file's problems are reported.
pub const PART: &str = "config";

/// The files of authorities are looked at this often: they may be anywhere, and a watch would have to follow links and mounts.
const LOOK: Duration = Duration::from_secs(2);

/// Reads the file; without one, the defaults.
///
/// # Errors
/// Every problem of the file.
pub fn load(path: Option<&Path>) -> Result<Config, Vec<Problem>> {
    path.map_or_else(|| Ok(Config::default()), |path| read(path).0)
}

/// What was in each file of authorities; `None`: it could not be read.
type Authorities = BTreeMap<String, Option<Vec<u8>>>;

fn read(path: &Path) -> (Result<Config, Vec<Problem>>, Authorities) {
    let mut files = Authorities::new();
    let config = std::fs::read_to_string(path)
        .map_err(|error| vec![unreadable(path, &error)])
        .and_then(|text| parse(&path.display().to_string(), &text))
        .and_then(|config| with_authorities(config, &mut files));
    (config, files)
}

fn with_authorities(mut config: Config, files: &mut Authorities) -> Result<Config, Vec<Problem>> {
    let mut problems = Vec::new();
    for (name, declared) in &mut config.services {
        let Some(tls) = declared.tls.as_mut().map(Arc::make_mut) else { continue };
        let read = std::fs::read(&tls.ca);
        files.insert(tls.ca.clone(), read.as_ref().ok().cloned());
        let text = read.map_err(|error| format!("it cannot be read: {error}")).and_then(|pem| {
            let text = authorities::certificates(&String::from_utf8(pem).map_err(|error| error.to_string())?);
            authorities::parse(text.as_bytes()).map(|_| text)
        });
        match text {
            Ok(text) => tls.authorities = text,
            Err(reason) => problems.push(Problem::error(
                Code::UnusableCertificate,
                format!("`services.{name}.tls.ca` {}", tls.ca),
                reason,
                "the configuration is not used; what was in force stays",
                "put the certificates there that sign those of the service's instances, in PEM",
            )),
        }
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
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
        let (found, mut authorities) = read(&self.path);
        // It may have changed since it was read at start.
        if known.is_some() && found.as_ref() != Ok(&self.at_start) && !self.reload(found).await {
            return;
        }
        loop {
            let asked = tokio::select! {
                () = shutdown.cancelled() => return,
                () = watch.changed() => false,
                Some(()) = recv(&mut hangup) => true,
                () = tokio::time::sleep(LOOK), if !authorities.is_empty() => false,
            };
            let now = std::fs::read(&self.path).ok();
            let is_same = now == known && authorities.iter().all(|(file, known)| std::fs::read(file).ok() == *known);
            if is_same && !asked {
                continue;
            }
            known = now;
            let (found, files) = read(&self.path);
            authorities = files;
            if !self.reload(found).await {
                return;
            }
        }
    }

    /// False when nobody listens any more.
    async fn reload(&self, found: Result<Config, Vec<Problem>>) -> bool {
        let (config, problems) = match found {
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

#[cfg(test)]
mod tests;
