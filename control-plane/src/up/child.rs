//! A child process: started in a group of its own, so that the terminal's Ctrl-C reaches `up` alone, ended by SIGTERM with a
//! deadline, and killed when it is dropped.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, ChildStdin, Command};
use tokio::time::Instant;

pub(super) struct Child {
    process: Process,
    started: Instant,
}

impl Child {
    pub(super) fn start(command: &mut Command) -> io::Result<Self> {
        let process = command.process_group(0).kill_on_drop(true).spawn()?;
        Ok(Self { process, started: Instant::now() })
    }

    /// How long it has lived.
    pub(super) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn stdin(&mut self) -> Option<ChildStdin> {
        self.process.stdin.take()
    }

    /// Waits for its end; may be called, and dropped, again and again.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// SIGTERM, and SIGKILL when it has not ended within `limit`.
    pub(super) async fn stop(&mut self, limit: Duration) {
        let pid = self.process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(limit, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }
}
