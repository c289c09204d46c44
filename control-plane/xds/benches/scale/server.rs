//! The server's process as the bench sees it: what to tell it, what it costs, and, if asked for, its profile.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tidegate_figures::Row;

use crate::child::{Command, Reply, Seen};
use crate::fleet::Fleet;
use crate::tally::{Load, now, processor};

/// How long a server may take to be done with what the clients were sent.
const SETTLING: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_millis(200);
/// Samples a second: a prime, so that nothing that is periodic hides.
const SAMPLES: &str = "997";

pub(crate) struct Server {
    process: Child,
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
    profile: Option<Profile>,
}

struct Profile {
    perf: Child,
    data: PathBuf,
}

impl Server {
    /// A process of its own, with a profile of it in `profiles` if that is given.
    pub(crate) fn start(serve: &Command, name: &str, profiles: Option<&Path>) -> Result<Self> {
        let mut process = Process::new(std::env::current_exe()?)
            .arg(crate::CHILD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the server's process")?;
        let commands = process.stdin.take().context("it has an input")?;
        let replies = BufReader::new(process.stdout.take().context("it has an output")?);
        let profile = profiles.map(|folder| Profile::start(process.id(), folder, name)).transpose()?;
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { process, commands, replies, address, profile };
        let Reply::Serving(address) = server.ask(serve)? else { bail!("the server does not serve") };
        server.address = address;
        Ok(server)
    }

    pub(crate) fn ask(&mut self, command: &Command) -> Result<Reply> {
        writeln!(self.commands, "{}", serde_json::to_string(command)?)?;
        let mut line = String::new();
        ensure!(self.replies.read_line(&mut line)? > 0, "the server's process ended at {command:?}");
        Ok(serde_json::from_str(&line)?)
    }

    /// Has something committed; answers when that was and how often it was encoded.
    pub(crate) fn commit(&mut self, command: &Command) -> Result<(u64, usize)> {
        match self.ask(command)? {
            Reply::Done { at, encodes } => Ok((at, encodes)),
            other => bail!("{command:?} is answered by {other:?}"),
        }
    }

    pub(crate) fn publish(&mut self, services: usize, endpoints: usize) -> Result<()> {
        self.commit(&Command::Publish { services, endpoints }).map(drop)
    }

    pub(crate) fn begin(&mut self, command: &Command) -> Result<Load> {
        match self.ask(command)? {
            Reply::Begun(load) => Ok(load),
            other => bail!("{command:?} is answered by {other:?}"),
        }
    }

    pub(crate) fn finish(&mut self) -> Result<Duration> {
        match self.ask(&Command::Finish)? {
            Reply::Finished { took } => Ok(took),
            other => bail!("the load's end is answered by {other:?}"),
        }
    }

    pub(crate) fn look(&mut self) -> Result<Seen> {
        match self.ask(&Command::Look)? {
            Reply::Seen(seen) => Ok(seen),
            other => bail!("a look is answered by {other:?}"),
        }
    }

    /// Waits until every response is answered and nothing more comes.
    pub(crate) fn settle(&mut self, fleet: &Fleet) -> Result<()> {
        let deadline = now() + u64::try_from(SETTLING.as_nanos())?;
        let mut last = None;
        loop {
            let seen = self.look()?;
            let received = fleet.tally.received.load(std::sync::atomic::Ordering::Relaxed);
            let state = (seen.responses, seen.answered, received);
            if seen.responses == seen.answered && last == Some(state) {
                return Ok(());
            }
            ensure!(now() < deadline, "{} of {} responses are answered", seen.answered, seen.responses);
            last = Some(state);
            thread::sleep(QUIET);
        }
    }

    /// Ends the process, and with it the profile.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.end();
        self.profile.take().map_or(Ok(()), Profile::finish)
    }

    fn end(&mut self) {
        // It may have ended by itself; whoever asked it something was told.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Profile {
    fn start(pid: u32, folder: &Path, name: &str) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let data = folder.join(format!("{name}.data"));
        let perf = Process::new("perf")
            .args(["record", "-q", "-e", "cpu-clock", "-F", SAMPLES, "-p", &pid.to_string(), "-o"])
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("perf cannot be run: Debian has it in linux-perf")?;
        Ok(Self { perf, data })
    }

    /// Writes the report beside the samples. `perf` ends with the process that it watches.
    fn finish(mut self) -> Result<()> {
        self.perf.wait()?;
        let output = Process::new("perf")
            .args([
                "report",
                "--stdio",
                "--percent-limit",
                "0.5",
                "--sort",
                "symbol",
                "--fields",
                "overhead,symbol",
                "-i",
            ])
            .arg(&self.data)
            .stderr(Stdio::null())
            .output()?;
        ensure!(output.status.success(), "perf cannot read {}", self.data.display());
        Ok(std::fs::write(self.data.with_extension("txt"), output.stdout)?)
    }
}

/// Processor time over a stretch of a case.
pub(crate) struct Meter {
    at: u64,
    machine: Duration,
    server: Duration,
    clients: Duration,
}

impl Meter {
    pub(crate) fn start(server: &mut Server) -> Result<Self> {
        Ok(Self { at: now(), machine: machine()?, server: server.look()?.processor, clients: processor() })
    }

    pub(crate) fn read(&self, server: &mut Server) -> Result<Cost> {
        let took = Duration::from_nanos(now() - self.at).as_secs_f64();
        let server = (server.look()?.processor - self.server).as_secs_f64();
        let clients = (processor() - self.clients).as_secs_f64();
        let others = ((machine()? - self.machine).as_secs_f64() - server - clients).max(0.0);
        Ok(Cost { took, server, clients, others })
    }

    pub(crate) fn row(&self, case: &str, server: &mut Server) -> Result<Row> {
        Ok(self.read(server)?.row(case))
    }
}

/// Seconds of processor time, and of the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    took: f64,
    pub(crate) server: f64,
    clients: f64,
    others: f64,
}

impl Cost {
    /// Which part of the processor time the clients took, how busy the two cores were, and how much of them went to
    /// whoever else uses this machine: where that is not about nothing, times say little.
    pub(crate) fn row(&self, case: &str) -> Row {
        let share = self.clients / (self.server + self.clients);
        let mut row = Row::new(format!("{case}: clients' share of the CPU"), share, "");
        let [s, c, o] = [self.server, self.clients, self.others].map(|seconds| seconds / self.took);
        row.compared_with = Some(format!("cores: server {s:.2}, clients {c:.2}, others {o:.2}"));
        row
    }
}

/// Processor time that this machine has spent on anything since its start, from `/proc/stat`, in ticks of 10 ms.
fn machine() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().context("a first line")?.split_whitespace().skip(1);
    // user nice system idle iowait irq softirq steal
    let busy = fields.take(8).enumerate().filter(|(nth, _)| !matches!(nth, 3 | 4));
    let ticks = busy.map(|(_, ticks)| ticks.parse::<u64>()).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}
