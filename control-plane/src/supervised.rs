//! The pipe between `tidegate up` and the `run` that it started: `up` writes its problems (no Envoy, a port in use) as one line of
//! JSON each time they change, and the pipe's end is the end of `up`. So they show in `status` like any other, with nothing on
//! disk that could outlive its truth, and a `run` does not outlive a killed `up`.

use std::io;
use std::os::fd::AsFd;

use rustix::process::{Signal, getpid, kill_process};
use tidegate_core::{Input, Problem};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::ChildStdin;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The name under which the problems of `up` are reported.
pub const PART: &str = "up";

/// In `run`: reads what `up` reports until `shutdown`. The end of `up` ends this process as SIGTERM does.
///
/// # Errors
/// When standard input is no pipe.
pub async fn run(inbox: mpsc::Sender<Input>, shutdown: CancellationToken) -> io::Result<()> {
    // Not tokio's stdin, whose blocked thread would hold up the end of the process.
    let pipe = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut lines = BufReader::new(pipe).lines();
    loop {
        let line = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            line = lines.next_line() => line,
        };
        let Ok(Some(line)) = line else {
            tracing::warn!("`tidegate up` is gone, stopping");
            kill_process(getpid(), Signal::TERM)?;
            shutdown.cancelled().await;
            return Ok(());
        };
        match serde_json::from_str::<Vec<Problem>>(&line) {
            Ok(problems) => {
                if inbox.send(Input::Reported { part: PART, problems }).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => tracing::warn!(%error, "what `tidegate up` reports cannot be read"),
        }
    }
}

/// In `up`: writes the problems as they are now.
pub(crate) async fn report(pipe: &mut ChildStdin, problems: &[Problem]) -> io::Result<()> {
    let mut line = serde_json::to_vec(problems)?;
    line.push(b'\n');
    pipe.write_all(&line).await?;
    pipe.flush().await
}
