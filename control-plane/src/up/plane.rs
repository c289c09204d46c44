//! Supervises `tidegate run`, and passes on what `up` has to report. Envoy goes on with what it has while `run` is away.

use std::process::Stdio;
use std::time::Duration;

use tidegate_core::Problem;
use tokio::process::{ChildStdin, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::UpOptions;
use super::backoff::Backoff;
use super::child::Child;
use crate::supervised;

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
    loop {
        let mut lived = Duration::ZERO;
        match Child::start(&mut command(options)) {
            Ok(mut child) => {
                let ended = attend(&mut child, &mut reported, &stop).await;
                lived = child.age();
                match ended {
                    Some(reason) => tracing::warn!(reason, lived = ?lived, "`tidegate run` ended, starting it again"),
                    None => return child.stop(STOP_LIMIT).await,
                }
            }
            Err(error) => tracing::error!(%error, "`tidegate run` cannot be started"),
        }
        let pause = backoff.pause(lived, rand::random());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Until the child ends (how), or has to (`None`).
async fn attend(
    child: &mut Child,
    reported: &mut watch::Receiver<Vec<Problem>>,
    stop: &CancellationToken,
) -> Option<String> {
    let mut pipe = child.stdin();
    reported.mark_changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return None,
            ended = child.ended() => return Some(ended.map_or_else(|e| e.to_string(), |status| status.to_string())),
            changed = reported.changed(), if pipe.is_some() => {
                let problems = reported.borrow_and_update().clone();
                if changed.is_err() || !report(pipe.as_mut(), &problems).await {
                    // Kept open all the same: its end would be taken for ours.
                    tracing::debug!("`tidegate run` takes no reports");
                    tokio::select! {
                        () = stop.cancelled() => return None,
                        ended = child.ended() => {
                            return Some(ended.map_or_else(|e| e.to_string(), |status| status.to_string()));
                        }
                    }
                }
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
    if options.json_logs {
        command.args(["--log-format", "json"]);
    }
    command.stdin(Stdio::piped());
    command
}
