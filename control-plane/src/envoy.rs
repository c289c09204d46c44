//! The local Envoy: where its binary is, whether it is one that can be used, where its admin interface listens, and how to ask
//! that. Nothing of ours goes over the admin interface that could go over xDS.

pub(crate) mod diff;
pub(crate) mod dump;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tidegate_core::config::{Admin, Config};
use tidegate_core::{Code, Problem};
use tokio::process::Command;

use self::dump::{Dump, DumpError};
use crate::http::{HttpError, Target, escaped, exchange};

/// The Envoy that everything was measured with; newer ones are used with a warning, older ones are not.
pub const SUPPORTED: (u32, u32) = (1, 40);
/// How long `envoy --version` may take, on a machine that is busy.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// How long the admin interface may take: it is served by Envoy's main thread, which may be busy with new configuration.
const ADMIN_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to say all that it has; below what the API has for its whole answer.
const DUMP_LIMIT: Duration = Duration::from_secs(8);
/// What the kernel takes as a unix socket's path (`sun_path` less its end).
const MAX_SOCKET_PATH: usize = 107;

/// An Envoy that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envoy {
    /// The binary.
    pub path: PathBuf,
    /// Its version, as it says.
    pub version: Version,
}

/// A version of Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// From the output of `envoy --version`: `envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`.
    #[must_use]
    pub fn parse(output: &str) -> Option<Self> {
        let version = output.split("version:").nth(1)?.trim().split('/').nth(1)?;
        let mut numbers = version.split(['.', '-']).map(str::parse);
        let (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        Some(Self { major, minor, patch })
    }

    /// Whether it is newer than what was measured.
    #[must_use]
    pub const fn is_newer(self) -> bool {
        self.major > SUPPORTED.0 || (self.major == SUPPORTED.0 && self.minor > SUPPORTED.1)
    }

    const fn is_older(self) -> bool {
        self.major < SUPPORTED.0 || (self.major == SUPPORTED.0 && self.minor < SUPPORTED.1)
    }
}

/// Finds Envoy (`named`, else the first `envoy` in `path`, the value of `PATH`) and asks for its version.
///
/// # Errors
/// One problem that says what was found and how to mend it.
pub async fn find(named: Option<&Path>, path: Option<&OsString>) -> Result<Envoy, Problem> {
    let binary = match named {
        Some(named) if named.components().count() > 1 => named.to_owned(),
        Some(named) => search(named, path)?,
        None => search(Path::new("envoy"), path)?,
    };
    let run = Command::new(&binary)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let subject = format!("Envoy ({})", binary.display());
    let output = match tokio::time::timeout(VERSION_LIMIT, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            let reason = match error.kind() {
                ErrorKind::NotFound => "there is no such file".to_owned(),
                ErrorKind::PermissionDenied => "it may not be executed".to_owned(),
                _ => format!("it cannot be executed: {error}"),
            };
            return Err(unusable(subject, reason));
        }
        Err(_) => return Err(unusable(subject, format!("`--version` did not end within {VERSION_LIMIT:?}"))),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    match Version::parse(&said) {
        Some(version) if version.is_older() => {
            let reason =
                format!("it is Envoy {version}, older than the {}.{} that is needed", SUPPORTED.0, SUPPORTED.1);
            Err(unusable(subject, reason))
        }
        Some(version) => Ok(Envoy { path: binary, version }),
        None => {
            let first: String = said.lines().next().unwrap_or_default().chars().take(120).collect();
            Err(unusable(
                subject,
                format!("`--version` ended with {} and said {first:?}, which is not Envoy", output.status),
            ))
        }
    }
}

/// The warning about an Envoy that is newer than what was measured.
#[must_use]
pub fn untested(envoy: &Envoy) -> Option<Problem> {
    envoy.version.is_newer().then(|| {
        Problem::error(
            Code::EnvoyUnusable,
            format!("Envoy ({})", envoy.path.display()),
            format!("it is Envoy {}; tidegate was tested with {}.{}", envoy.version, SUPPORTED.0, SUPPORTED.1),
            "it is used, but may refuse something",
            format!("use Envoy {}.{} if it does", SUPPORTED.0, SUPPORTED.1),
        )
        .warning()
    })
}

fn search(name: &Path, path: Option<&OsString>) -> Result<PathBuf, Problem> {
    let directories = path.map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    let found = directories.iter().map(|directory| directory.join(name)).find(|candidate| candidate.is_file());
    found.ok_or_else(|| {
        let reason =
            format!("there is no `{}` in any of the {} directories of PATH", name.display(), directories.len());
        unusable("Envoy".to_owned(), reason)
    })
}

fn unusable(subject: String, reason: String) -> Problem {
    let (major, minor) = SUPPORTED;
    Problem::error(
        Code::EnvoyUnusable,
        subject,
        reason,
        "no edge is started: no client is served; it is looked for again",
        format!("install Envoy {major}.{minor}, or name its binary with TIDEGATE_ENVOY"),
    )
}

/// Where the admin interface of this configuration's Envoy listens.
///
/// # Errors
/// When the path of its unix socket is longer than the kernel takes.
pub fn admin(config: &Config, state_dir: &Path) -> Result<Admin, Problem> {
    let admin = match &config.edge.admin {
        Some(admin) => admin.clone(),
        None => {
            let absolute = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned());
            Admin::Unix(absolute.join("envoy-admin.sock").display().to_string())
        }
    };
    if let Admin::Unix(path) = &admin
        && path.len() > MAX_SOCKET_PATH
    {
        return Err(Problem::error(
            Code::EnvoyUnusable,
            "Envoy's admin socket",
            format!("its path has {} bytes, and a unix socket's may have {MAX_SOCKET_PATH}: {path}", path.len()),
            "no edge is started: no client is served",
            "use a shorter `--state-dir`, or set `edge.admin` in tidegate.yaml to an address such as 127.0.0.1:9901",
        ));
    }
    Ok(admin)
}

/// Asks the admin interface of an Envoy.
#[derive(Clone, Debug)]
pub struct AdminClient(Target);

/// Why the admin interface did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No exchange came about.
    #[error("Envoy's admin interface: {0}")]
    Unreachable(String),
    /// It refused.
    #[error("Envoy's admin interface answered {status} to {path}")]
    Refused {
        /// With what.
        status: u16,
        /// What was asked.
        path: String,
    },
    /// It said more than is taken.
    #[error("Envoy's admin interface: {0}")]
    TooLarge(String),
    /// It said something else than Envoy does.
    #[error("Envoy's admin interface: {0}")]
    Strange(String),
}

impl From<HttpError> for AdminError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl From<DumpError> for AdminError {
    fn from(error: DumpError) -> Self {
        Self::Strange(error.to_string())
    }
}

impl AdminClient {
    /// The admin interface at `admin`.
    #[must_use]
    pub fn new(admin: &Admin) -> Self {
        Self(match admin {
            Admin::Tcp(address) => Target::Tcp(address.to_string()),
            Admin::Unix(path) => Target::Unix(path.into()),
        })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When it cannot be asked, or answers anything but 200.
    pub async fn get(&self, path: &str) -> Result<String, AdminError> {
        self.ask(Method::GET, path).await
    }

    /// `POST path`.
    ///
    /// # Errors
    /// When it cannot be asked, or answers anything but 200.
    pub async fn post(&self, path: &str) -> Result<String, AdminError> {
        self.ask(Method::POST, path).await
    }

    /// Counters and gauges whose name matches `filter`, a regular expression.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn stats(&self, filter: &str) -> Result<BTreeMap<String, u64>, AdminError> {
        Ok(stats(&self.get(&format!("/stats?filter={}", escaped(filter))).await?))
    }

    /// The id of its node.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(crate) async fn node(&self) -> Result<String, AdminError> {
        #[derive(serde::Deserialize)]
        struct Info {
            node: Node,
        }
        #[derive(serde::Deserialize)]
        struct Node {
            id: String,
        }
        let info: Info = serde_json::from_str(&self.get("/server_info").await?)
            .map_err(|error| AdminError::Strange(error.to_string()))?;
        Ok(info.node.id)
    }

    /// Requests and upgraded connections that are under way to these hosts of clusters.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(crate) async fn in_flight(&self, hosts: &[(String, SocketAddr)]) -> Result<u64, AdminError> {
        let said = self.get("/clusters").await?;
        let wanted: Vec<String> =
            hosts.iter().map(|(cluster, host)| format!("{cluster}::{host}::rq_active::")).collect();
        let of_host =
            |line: &str| wanted.iter().find_map(|wanted| line.strip_prefix(wanted)?.trim().parse::<u64>().ok());
        Ok(said.lines().filter_map(of_host).sum())
    }

    /// All that it says it has; 64 MiB an answer at most.
    ///
    /// # Errors
    /// When it cannot be asked, says too much or nothing that is known, or takes longer than 8 s.
    pub(crate) async fn dump(&self) -> Result<Dump, AdminError> {
        let ask = |path| self.exchange(Method::GET, path, DUMP_LIMIT);
        let (config, clusters, runtime) =
            tokio::try_join!(ask(dump::CONFIG_DUMP), ask(dump::CLUSTERS), ask(dump::RUNTIME))?;
        // Large ones take a second to read, which no other task is to wait for.
        let read = tokio::task::spawn_blocking(move || Dump::read(&config, &clusters, &runtime));
        Ok(read.await.map_err(|error| AdminError::Strange(error.to_string()))??)
    }

    async fn ask(&self, method: Method, path: &str) -> Result<String, AdminError> {
        let body = self.exchange(method, path, ADMIN_LIMIT).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn exchange(&self, method: Method, path: &str, limit: Duration) -> Result<Bytes, AdminError> {
        let answer = exchange(&self.0, method, path, limit).await?;
        if !answer.status.is_success() {
            return Err(AdminError::Refused { status: answer.status.as_u16(), path: path.to_owned() });
        }
        Ok(answer.body)
    }
}

/// `NAME: NUMBER` lines; histograms and texts are left out.
fn stats(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests;
