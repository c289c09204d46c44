//! Child processes with their output in a file: signalled by pid, awaited by polling, killed with all their kin on drop,
//! and quoted when a test fails.

#![allow(clippy::print_stderr, reason = "a failing test's output is where the last lines of a log belong")]

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, kill_process, kill_process_group};

pub use rustix::process::Signal;

use crate::{
    poll,
    run::{self, RunId, VARIABLE},
};

/// How much of a log an error or a failing test shows.
const TAIL_LINES: usize = 40;

pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it in a process group of its own, with stdout and stderr in `DIRECTORY/NAME.log`, which is appended to.
    pub fn spawn(name: &str, command: &mut Command, directory: &Path) -> Result<Self> {
        run::sweep_processes();
        let log = directory.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).with_context(|| format!("open {log:?}"))?;
        command.env(VARIABLE, RunId::new().as_str()).process_group(0);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("start {name}: {:?}", command.get_program()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Signals this process alone, not what it started.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.raw_pid()?, signal).with_context(|| format!("send {signal:?} to {}", self.name))
    }

    /// SIGSTOP: it keeps its sockets and answers nothing. Returns when all its threads have stopped, which a busy machine
    /// gets round to a little after the signal.
    pub async fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let threads = format!("/proc/{}/task", self.pid());
        poll::until(poll::SOON, &format!("{} to stop", self.name), async || {
            for thread in fs::read_dir(&threads)? {
                let stat = fs::read_to_string(thread?.path().join("stat"))?;
                let (_, state) = stat.rsplit_once(") ").context("a state")?;
                ensure!(state.starts_with('T'), "a thread is in state {}", &state[..1]);
            }
            Ok(())
        })
        .await
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and its exit status when it has ended.
    pub async fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.exited(limit).await
    }

    /// SIGKILL to this process alone, and wait for its end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    pub async fn exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        let child = &mut self.child;
        let ended = poll::until(limit, &what, async || child.try_wait()?.context("it still runs")).await;
        ended.map_err(|error| self.explain(&error))
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Polls like [`poll::until`], but gives up at once when the process has ended, and quotes its log in the error.
    pub async fn until<T>(
        &mut self,
        limit: Duration,
        what: &str,
        mut probe: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let child = &mut self.child;
        let name = &self.name;
        let outcome = poll::until(limit, what, async || {
            if let Some(status) = child.try_wait()? {
                return Ok(Err(anyhow!("{name} ended ({status}) before {what}")));
            }
            probe().await.map(Ok)
        });
        outcome.await.flatten().map_err(|error| self.explain(&error))
    }

    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn explain(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}\n--- end of {}'s log\n{}\n---", self.name, self.log_tail())
    }

    fn raw_pid(&self) -> Result<Pid> {
        Pid::from_raw(i32::try_from(self.pid())?).context("a pid is positive")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of {}'s log\n{}\n---", self.name, self.log_tail());
        }
        // The group first: while the leader is not waited for, its number cannot name another group.
        if let Ok(pid) = self.raw_pid() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// What a command that ended by itself said.
#[derive(Debug, Clone)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Errors unless the command succeeded.
    pub fn ok(self) -> Result<Self> {
        if self.code != 0 {
            bail!("exit {}: {}{}", self.code, self.stderr, self.stdout);
        }
        Ok(self)
    }
}

/// Runs a command to its end, which must come within `limit`.
pub async fn output(command: Command, limit: Duration) -> Result<Output> {
    run::sweep_processes();
    let what = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    command.env(VARIABLE, RunId::new().as_str()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(limit, command.output())
        .await
        .with_context(|| format!("{what} did not end in {limit:?}"))?
        .with_context(|| format!("start {what}"))?;
    Ok(Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
