//! The certificate files of xDS: read at start, and again when they change. Files that cannot be used leave in force what
//! was, and say why. What TLS makes of them is the business of `tidegate-xds`.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use tidegate_core::bootstrap::EdgeTls;
use tidegate_core::config::{Config, XdsTls};
use tidegate_core::{Code, Input, Problem, Timestamp};
use tidegate_xds::{Pem, ServerTls, TlsError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// The name under which the files' problems are reported.
pub const PART: &str = "xds.tls";

/// The files are looked at this often. They are three and small; a watch would have to follow links and mounts.
const LOOK: Duration = Duration::from_secs(2);

/// Looks that have to fail before it is told: what renews certificates writes one file after the other.
const FAILED_LOOKS: u32 = 2;

/// A certificate that ends so soon should have been renewed: the usual tools do it with a third of its life left.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);

const AT_START: &str = "the control plane does not start; an Envoy that runs keeps its configuration";
const WHILE_RUNNING: &str = "new connections are served with the certificate that was in force; open ones stay";

/// The bytes of the three files.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Vec<u8>,
}

/// Reads the files and makes a server's TLS of them.
///
/// # Errors
/// The problem of the file that is at fault.
pub fn load(files: &XdsTls) -> Result<ServerTls, Problem> {
    let read = Files::read(files, AT_START)?;
    ServerTls::new(read.pem()).map_err(|error| unusable(files, &error, AT_START))
}

/// What the bootstrap of an edge of this configuration has to say of TLS; `shown` is what the command line says.
///
/// # Errors
/// When one of the two is for TLS and the other is not.
pub fn edge(config: &Config, shown: Option<&EdgeTls>) -> Result<Option<EdgeTls>, Problem> {
    let effect = "this edge has no bootstrap with which it could connect";
    let problem = |reason, cure| Problem::error(Code::UnusableCertificate, "the edge's own", reason, effect, cure);
    match (&config.xds.tls, shown) {
        (Some(_), None) => Err(problem(
            "xDS is served over TLS (`xds.tls`) to clients that show a certificate, and the edge has none",
            "add --tls-cert, --tls-key and --tls-ca",
        )),
        (None, Some(_)) => Err(problem(
            "it was given a certificate, and xDS is served without TLS",
            "set `xds.tls` in tidegate.yaml, or leave --tls-cert, --tls-key and --tls-ca out",
        )),
        (_, shown) => Ok(shown.map(absolute)),
    }
}

/// Envoy may be started elsewhere.
fn absolute(tls: &EdgeTls) -> EdgeTls {
    let absolute = |path: &str| std::path::absolute(path).map_or_else(|_| path.to_owned(), |p| p.display().to_string());
    EdgeTls {
        cert: absolute(&tls.cert),
        key: absolute(&tls.key),
        ca: absolute(&tls.ca),
        server_name: tls.server_name.clone(),
    }
}

/// Keeps `served` as the files are.
pub struct CertificateWatch {
    files: XdsTls,
    served: ServerTls,
    clock: Clock,
    inbox: mpsc::Sender<Input>,
}

impl CertificateWatch {
    /// `served` was made of these files.
    #[must_use]
    pub const fn new(files: XdsTls, served: ServerTls, clock: Clock, inbox: mpsc::Sender<Input>) -> Self {
        Self { files, served, clock, inbox }
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut known: Option<Files> = None;
        let mut failures: u32 = 0;
        let mut told = Vec::new();
        loop {
            // What the first look finds may be in use already; to use it again costs nothing.
            let failed = match Files::read(&self.files, WHILE_RUNNING) {
                Ok(found) if known.as_ref() == Some(&found) => None,
                found => match found.and_then(|found| self.replace(found)) {
                    Ok(found) => {
                        known = Some(found);
                        None
                    }
                    Err(problem) => Some(problem),
                },
            };
            failures = if failed.is_some() { failures.saturating_add(1) } else { 0 };
            let failed = failed.filter(|_| failures >= FAILED_LOOKS);
            let left = self.served.expires().duration_since(UNIX_EPOCH + self.clock.now().since(Timestamp::default()));
            let problems: Vec<Problem> = failed.into_iter().chain(expiry(&self.files, left.ok())).collect();
            if problems != told {
                for problem in problems.iter().filter(|problem| !told.contains(problem)) {
                    tracing::warn!(subject = problem.subject, reason = problem.reason, "a certificate of xDS");
                }
                if self.inbox.send(Input::Reported { part: PART, problems: problems.clone() }).await.is_err() {
                    return;
                }
                told = problems;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn replace(&self, files: Files) -> Result<Files, Problem> {
        self.served.replace(files.pem()).map_err(|error| unusable(&self.files, &error, WHILE_RUNNING))?;
        tracing::info!(cert = self.files.cert, "the certificate of xDS was read");
        Ok(files)
    }
}

impl Files {
    fn read(files: &XdsTls, effect: &str) -> Result<Self, Problem> {
        let read = |key: &str, path: &str| {
            std::fs::read(Path::new(path)).map_err(|error| {
                let reason = format!("it cannot be read: {error}");
                problem(
                    key,
                    path,
                    &reason,
                    effect,
                    "create the file, or name another one; `tidegate` has to be able to read it",
                )
            })
        };
        Ok(Self {
            cert: read("cert", &files.cert)?,
            key: read("key", &files.key)?,
            client_ca: read("clientCa", &files.client_ca)?,
        })
    }

    fn pem(&self) -> Pem<'_> {
        Pem { cert: &self.cert, key: &self.key, client_ca: &self.client_ca }
    }
}

fn unusable(files: &XdsTls, error: &TlsError, effect: &str) -> Problem {
    let (key, path, reason, cure) = match error {
        TlsError::Certificate(reason) => ("cert", &files.cert, reason, "put a valid certificate there, in PEM"),
        TlsError::Key(reason) => ("key", &files.key, reason, "put the private key of `xds.tls.cert` there, in PEM"),
        TlsError::ClientCa(reason) => {
            ("clientCa", &files.client_ca, reason, "put the certificates that sign those of edges there, in PEM")
        }
    };
    problem(key, path, &format!("it {reason}"), effect, cure)
}

/// `left`: how long the certificate is valid; `None`: it is not any more.
fn expiry(files: &XdsTls, left: Option<Duration>) -> Option<Problem> {
    let cure = "renew it in place; it is read again when it changes";
    match left {
        Some(left) if left > SOON => None,
        Some(left) => {
            // Whole days: it is not told anew each time that it is looked at.
            let reason = format!("it expires in less than {} days", left.as_secs() / (24 * 3600) + 1);
            Some(problem("cert", &files.cert, &reason, "then no edge can connect; those that are stay", cure).warning())
        }
        None => Some(problem("cert", &files.cert, "it has expired", "no edge can connect; those that are stay", cure)),
    }
}

fn problem(key: &str, path: &str, reason: &str, effect: &str, cure: &str) -> Problem {
    Problem::error(Code::UnusableCertificate, format!("`xds.tls.{key}` {path}"), reason, effect, cure)
}

#[cfg(test)]
pub(crate) mod tests;
