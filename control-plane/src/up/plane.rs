//! Supervises `tidegate run`, and passes on what `up` has to report. Envoy goes on with what it has while `run` is away.

use std::process::Stdio;
use std::time::Duration;

use tidegate_core::{Problem, Severity};
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::UpOptions;
use super::backoff::Backoff;
use super::child::Child;
use crate::{config, ports, supervised, tls};

/// `run` may be this long in coming back from an end at its start, such as one for an invalid configuration.
const MOST: Duration = Duration::from_secs(5);
/// How long `run` has to end its streams.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// A `run` that does not read its reports must not hold up its own supervision.
const REPORT_LIMIT: Duration = Duration::from_secs(1);

pub(super) async fn supervise(
    options: &UpOptions,
    mut reported: watch::Receiver<Vec<Problem>>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(MOST);
    let mut told = Vec::new();
    loop {
        let blocked = blocked(options);
        for problem in blocked.iter().filter(|problem| !told.contains(*problem)) {
            (options.tell)(problem);
        }
        told = blocked;
        let lived = if told.is_empty() { live(options, &mut reported, &stop).await } else { Duration::ZERO };
        let pause = backoff.pause(lived, rand::random());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One life of `run`; returns how long it was.
async fn live(options: &UpOptions, reported: &mut watch::Receiver<Vec<Problem>>, stop: &CancellationToken) -> Duration {
    let mut child = match Child::start(&mut command(options)) {
        Ok(child) => child,
        Err(error) => {
            tracing::error!(%error, "`tidegate run` cannot be started");
            return Duration::ZERO;
        }
    };
    let mut pipe = child.stdin();
    match attend(&mut child, &mut pipe, reported, stop).await {
        Some(reason) => tracing::warn!(reason, lived = ?child.age(), "`tidegate run` ended, starting it again"),
        // The pipe is open till then: its end would be taken for ours.
        None => child.stop(STOP_LIMIT).await,
    }
    child.age()
}

/// What would end `run` at its start. It is told once, not with every try; there is no `run` yet that could show it.
fn blocked(options: &UpOptions) -> Vec<Problem> {
    match config::load(options.run.config_now().as_deref()) {
        Ok(config) => {
            let exposed = config.xds.exposed(options.run.insecure_xds);
            let certificates = config.xds.tls.as_ref().and_then(|files| tls::load(files).err());
            let taken = [("xds.address", config.xds.address), ("api.address", config.api)]
                .into_iter()
                .filter_map(|(key, address)| ports::check(key, address));
            let fatal = exposed.filter(|problem| problem.severity == Severity::Error);
            fatal.into_iter().chain(certificates).chain(taken).collect()
        }
        Err(problems) => problems,
    }
}

/// Until the child ends (how), or has to (`None`).
async fn attend(
    child: &mut Child,
    pipe: &mut Option<ChildStdin>,
    reported: &mut watch::Receiver<Vec<Problem>>,
    stop: &CancellationToken,
) -> Option<String> {
    reported.mark_changed();
    let mut takes_reports = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            ended = child.ended() => return Some(ended.map_or_else(|e| e.to_string(), |status| status.to_string())),
            changed = reported.changed(), if takes_reports => {
                let problems = reported.borrow_and_update().clone();
                takes_reports = changed.is_ok() && report(pipe.as_mut(), &problems).await;
            }
        }
    }
}

async fn report(pipe: Option<&mut ChildStdin>, problems: &[Problem]) -> bool {
    let Some(pipe) = pipe else { return false };
    matches!(tokio::time::timeout(REPORT_LIMIT, supervised::report(pipe, problems)).await, Ok(Ok(())))
}

fn command(options: &UpOptions) -> Command {
    let mut command = Command::new(&options.program);
    let run = &options.run;
    command.arg("run").arg("--supervised").arg("--state-dir").arg(&run.state_dir);
    if let Some(config) = &run.config {
        command.arg("--config").arg(config);
    }
    if let Some(filter) = &run.filter_wasm {
        command.arg("--filter-wasm").arg(filter);
    }
    if run.insecure_xds {
        command.arg("--insecure-xds");
    }
    if options.json_logs {
        command.args(["--log-format", "json"]);
    }
    command.stdin(Stdio::piped());
    command
}
