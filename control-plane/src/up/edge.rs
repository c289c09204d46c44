//! Supervises Envoy. Before each start everything that could keep it from serving is looked at (the binary, its version, the
//! addresses, the admin socket), and what is wrong is reported as a problem until it is mended; then the start is tried again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tidegate_core::bootstrap::{BootstrapOptions, bootstrap};
use tidegate_core::config::{Admin, Config};
use tidegate_core::{Code, Problem};
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::child::Child;
use super::{UpOptions, drain};
use crate::envoy::{self, AdminClient};
use crate::{config, ports, tls};

/// Whatever was mended is noticed so soon.
const MOST: Duration = Duration::from_secs(2);
/// An Envoy that lived so long has started.
const STARTED: Duration = Duration::from_secs(1);

pub(super) async fn supervise(options: &UpOptions, problems: watch::Sender<Vec<Problem>>, stop: CancellationToken) {
    let mut supervisor = Supervisor { options, problems, at_start: None, backoff: Backoff::new(MOST) };
    while !stop.is_cancelled() {
        let lived = tokio::select! {
            () = stop.cancelled() => return,
            prepared = supervisor.prepare() => match prepared {
                Ok(prepared) => supervisor.attend(prepared, &stop).await,
                Err(problems) => {
                    supervisor.report(problems);
                    Duration::ZERO
                }
            },
        };
        let pause = supervisor.backoff.pause(lived, rand::random());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Supervisor<'a> {
    options: &'a UpOptions,
    problems: watch::Sender<Vec<Problem>>,
    /// What is read at start only, as `run` does: a changed address would part Envoy from the `run` that is running.
    at_start: Option<Config>,
    backoff: Backoff,
}

/// Everything for a start.
struct Prepared {
    command: Command,
    admin: AdminClient,
    /// What does not keep it from starting.
    warnings: Vec<Problem>,
}

impl Supervisor<'_> {
    async fn prepare(&mut self) -> Result<Prepared, Vec<Problem>> {
        let run = &self.options.run;
        let now = match (config::load(run.config_now().as_deref()), &self.at_start) {
            (Ok(config), _) => config,
            (Err(_), Some(config)) => config.clone(),
            // `run` says what is wrong with it.
            (Err(_), None) => return Err(Vec::new()),
        };
        let config = self.at_start.get_or_insert_with(|| now.clone());
        let envoy =
            envoy::find(self.options.envoy.as_deref(), self.options.path.as_ref()).await.map_err(|p| vec![p])?;
        let admin = envoy::admin(config, &run.state_dir).map_err(|p| vec![p])?;
        let mut warnings = taken(&now, &admin)?;
        warnings.extend(envoy::untested(&envoy));
        let tls = tls::edge(config, self.options.tls.as_ref()).map_err(|p| vec![p])?;
        let node = self.options.node.clone();
        let options = BootstrapOptions { node, admin: admin.clone(), xds: None, tls };
        let file = write_bootstrap(&run.state_dir, &bootstrap(config, &options)).map_err(|p| vec![p])?;
        Ok(Prepared { command: self.command(&envoy.path, &file), admin: AdminClient::new(&admin), warnings })
    }

    fn command(&self, envoy: &Path, bootstrap: &Path) -> Command {
        let mut command = Command::new(&self.options.program);
        // By way of ourselves, so that it does not outlive us.
        command.args(["envoy", "exec", "--parent", &std::process::id().to_string(), "--"]);
        command.arg(envoy).arg("--config-path").arg(bootstrap);
        // One Envoy for each `up`: hot restart would let two of them meet by their base id.
        command.args(["--disable-hot-restart", "--log-level", "warning"]);
        command.args(["--drain-strategy", "immediate", "--drain-time-s", &drain::LIMIT.as_secs().to_string()]);
        let format = if self.options.json_logs {
            r#"{"timestamp":"%Y-%m-%dT%T.%fZ","level":"%l","fields":{"message":"%j"},"target":"envoy::%n"}"#
        } else {
            "%Y-%m-%dT%T.%fZ %l envoy::%n: %v"
        };
        command.args(["--log-format", format]);
        command.stdin(Stdio::null());
        command
    }

    /// Starts it, and stays until it ends or has to; returns how long it lived.
    async fn attend(&self, mut prepared: Prepared, stop: &CancellationToken) -> Duration {
        let mut child = match Child::start(&mut prepared.command) {
            Ok(child) => child,
            Err(error) => {
                self.report(vec![ended(&format!("it cannot be started: {error}"))]);
                return Duration::ZERO;
            }
        };
        let mut started = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    drain::drain(&prepared.admin, &mut child).await;
                    return child.age();
                }
                status = child.ended() => {
                    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
                    tracing::warn!(reason = how, lived = ?child.age(), "Envoy ended, starting it again");
                    self.report(vec![ended(&format!("it ended: {how}"))]);
                    return child.age();
                }
                () = tokio::time::sleep(STARTED), if !started => {
                    started = true;
                    self.report(std::mem::take(&mut prepared.warnings));
                }
            }
        }
    }

    /// Tells `run`, and the terminal what it has not been told.
    fn report(&self, problems: Vec<Problem>) {
        self.problems.send_if_modified(|known| {
            for problem in problems.iter().filter(|problem| !known.contains(problem)) {
                (self.options.tell)(problem);
            }
            let changed = *known != problems;
            *known = problems;
            changed
        });
    }
}

/// Addresses that others have. Those of single listeners are warnings; an Envoy without any address is not started.
fn taken(config: &Config, admin: &Admin) -> Result<Vec<Problem>, Vec<Problem>> {
    let listeners = &config.edge.listeners;
    let problems: Vec<Problem> =
        listeners.iter().filter_map(|listener| ports::check("edge.listeners", listener.address)).collect();
    let admin: Option<SocketAddr> = match admin {
        Admin::Tcp(address) => Some(*address),
        Admin::Unix(_) => None,
    };
    let admin = admin.and_then(|address| ports::check("edge.admin", address));
    if admin.is_some() || (!problems.is_empty() && problems.len() == listeners.len()) {
        return Err(problems.into_iter().chain(admin).collect());
    }
    Ok(problems)
}

fn write_bootstrap(state_dir: &Path, bootstrap: &serde_json::Value) -> Result<PathBuf, Problem> {
    let path = std::path::absolute(state_dir).unwrap_or_else(|_| state_dir.to_owned()).join("envoy-bootstrap.json");
    std::fs::write(&path, format!("{bootstrap:#}\n")).map_err(|error| {
        Problem::error(
            Code::EnvoyUnusable,
            "Envoy's bootstrap",
            format!("{} cannot be written: {error}", path.display()),
            "no edge is started: no client is served; it is tried again",
            "make the state directory writable, or name another one with `--state-dir`",
        )
    })?;
    Ok(path)
}

fn ended(reason: &str) -> Problem {
    Problem::error(
        Code::EnvoyUnusable,
        "Envoy",
        reason,
        "no client is served until it is back; it is started again",
        "its last words are in the log of `tidegate up`",
    )
}
