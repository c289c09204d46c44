//! The pipe between `tidegate up` and the `run` that it started: `up` writes its problems (no Envoy, a port in use) as one line of
//! JSON each time they change, and the pipe's end is the end of `up`. So they show in `status` like any other, with nothing on
//! disk that could outlive its truth, and a `run` does not outlive a killed `up`.

use std::io;
use std::os::fd::AsFd;

use rustix::process::{Signal, getpid, kill_process};
use tidegate_core::{Input, Problem};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
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
    if read(pipe, &inbox, &shutdown).await {
        tracing::warn!("`tidegate up` is gone, stopping");
        kill_process(getpid(), Signal::TERM)?;
        shutdown.cancelled().await;
    }
    Ok(())
}

/// Until the pipe ends (true), or there is nobody left to tell.
async fn read(pipe: impl AsyncRead + Unpin, inbox: &mpsc::Sender<Input>, shutdown: &CancellationToken) -> bool {
    let mut lines = BufReader::new(pipe).lines();
    loop {
        let line = tokio::select! {
            () = shutdown.cancelled() => return false,
            line = lines.next_line() => line,
        };
        let Ok(Some(line)) = line else { return true };
        match serde_json::from_str::<Vec<Problem>>(&line) {
            Ok(problems) => {
                if inbox.send(Input::Reported { part: PART, problems }).await.is_err() {
                    return false;
                }
            }
            Err(error) => tracing::warn!(%error, "what `tidegate up` reports cannot be read"),
        }
    }
}

/// In `up`: writes the problems as they are now.
pub(crate) async fn report(pipe: &mut (impl AsyncWrite + Unpin), problems: &[Problem]) -> io::Result<()> {
    let mut line = serde_json::to_vec(problems)?;
    line.push(b'\n');
    pipe.write_all(&line).await?;
    pipe.flush().await
}

#[cfg(test)]
mod tests {
    use tidegate_core::Code;

    use super::*;

    #[tokio::test]
    async fn what_up_reports_arrives_and_its_end_is_noticed() {
        let (mut up, pipe) = tokio::io::duplex(4096);
        let (inbox, mut inputs) = mpsc::channel(8);
        let shutdown = CancellationToken::new();
        let problem = Problem::error(Code::EnvoyUnusable, "Envoy", "it is\nnot \u{1b}there", "none", "install it");
        let speaking = async {
            report(&mut up, std::slice::from_ref(&problem)).await.unwrap();
            up.write_all(b"no JSON\n").await.unwrap();
            report(&mut up, &[]).await.unwrap();
            drop(up);
        };
        let (gone, ()) = tokio::join!(read(pipe, &inbox, &shutdown), speaking);
        assert!(gone);
        let mut reported = || match inputs.try_recv() {
            Ok(Input::Reported { part: PART, problems }) => problems,
            other => panic!("{other:?}"),
        };
        assert_eq!((reported(), reported()), (vec![problem], vec![]));
    }

    #[tokio::test]
    async fn shutdown_is_no_end_of_up() {
        let (_up, pipe) = tokio::io::duplex(1);
        let (inbox, _inputs) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        assert!(!read(pipe, &inbox, &shutdown).await);
    }
}
