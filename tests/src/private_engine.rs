//! A Docker engine of a test's own, to be stopped, killed and frozen: own socket, data, bridge and address range. It makes
//! no iptables rules, because a starting dockerd empties the chains that all engines of a machine share; so containers are
//! reached from the host, by address or published port, but not from each other and not from outside. Needs root.

mod teardown;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

pub use teardown::sweep;

use crate::{engine::Engine, poll::SOON, process::Process, run::RunId};

/// What the bridges are named, with the number of their range.
const BRIDGE: &str = "tgt";

/// An engine on a busy machine takes seconds to start and, with containers to restore, more.
const START: Duration = Duration::from_secs(60);

pub struct PrivateEngine {
    home: Home,
    arguments: Vec<String>,
    process: Option<Process>,
}

/// What an engine has on this machine beside processes; all that is needed to remove it.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// Holds the data root, the exec root, socket, pid file and log.
    directory: PathBuf,
    /// `tgtN`: it also reserves the addresses 10.N.0.0/16 among all test runs.
    bridge: String,
    subnet: u8,
}

impl PrivateEngine {
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// With further arguments of dockerd's.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a private Docker engine needs root");
        sweep();
        let home = Home::create(&RunId::new())?;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut engine = Self { home, arguments, process: None };
        engine.restart().await?;
        Ok(engine)
    }

    /// Starts it again after [`stop`](Self::stop) or [`kill`](Self::kill), and waits until it answers.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        // After SIGKILL both are left, and the pids in them may by now be somebody else's.
        for stale in [self.home.pid_file(), self.home.exec_root().join("containerd/containerd.pid")] {
            let _ = fs::remove_file(stale);
        }
        let mut process = Process::spawn("dockerd", &mut self.command(), &self.home.directory)?;
        let socket = self.home.socket();
        process.until(START, "the private engine to answer", async || Engine::at(&socket).await.map(drop)).await?;
        self.process = Some(process);
        Ok(())
    }

    /// SIGTERM; running containers go on. No error if it does not run.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.thaw()?;
            process.terminate(SOON).await?;
        }
        Ok(())
    }

    /// SIGKILL; its containerd ends with it, running containers go on.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the private engine does not run")?.kill()
    }

    /// SIGSTOP: connections stay open and calls hang.
    pub async fn freeze(&self) -> Result<()> {
        self.running()?.freeze().await
    }

    pub fn thaw(&self) -> Result<()> {
        self.running()?.thaw()
    }

    /// A connection, with a run of its own.
    pub async fn connect(&self) -> Result<Engine> {
        Engine::at(&self.home.socket()).await
    }

    pub fn socket(&self) -> PathBuf {
        self.home.socket()
    }

    /// As tidegate's `providers.docker.endpoint` takes it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.home.socket().display())
    }

    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the private engine does not run")
    }

    fn command(&self) -> Command {
        let home = &self.home;
        let mut command = Command::new("dockerd");
        let mut option = |name: &str, value: &str| {
            command.arg(format!("--{name}={value}"));
        };
        option("host", &self.endpoint());
        option("data-root", &home.data_root().to_string_lossy());
        option("exec-root", &home.exec_root().to_string_lossy());
        option("pidfile", &home.pid_file().to_string_lossy());
        // No defaults from the machine's own engine.
        option("config-file", &home.directory.join("daemon.json").to_string_lossy());
        option("bridge", &home.bridge);
        option("default-address-pool", &format!("base=10.{}.128.0/17,size=24", home.subnet));
        // Where a containerd of the system runs, dockerd uses that one, and must not see the other engine's containers.
        option("containerd-namespace", &home.bridge);
        option("containerd-plugins-namespace", &format!("{}-plugins", home.bridge));
        option("live-restore", "true");
        option("iptables", "false");
        option("ip6tables", "false");
        option("ip-masq", "false");
        option("ip-forward", "false");
        // What it, its containerd and its shims would otherwise leave in /tmp.
        command.env("TMPDIR", &home.directory).args(&self.arguments);
        command
    }
}

impl Drop for PrivateEngine {
    fn drop(&mut self) {
        let process = self.process.take();
        if let Some(process) = &process {
            let _ = process.thaw();
        }
        // Its containers first, while there is an engine that can.
        teardown::remove_containers(&self.home);
        drop(process);
        teardown::remove(&self.home);
    }
}

impl Home {
    fn create(run: &RunId) -> Result<Self> {
        let (bridge, subnet) = reserve_bridge(run)?;
        let directory = std::env::temp_dir().join(format!("{}{}-{bridge}", teardown::PREFIX, run.as_str()));
        let home = Self { directory, bridge, subnet };
        let prepare = || {
            fs::create_dir_all(home.data_root())?;
            fs::write(home.directory.join("daemon.json"), "{}")?;
            ip(&["address", "add", &format!("10.{subnet}.0.1/24"), "dev", &home.bridge])?;
            ip(&["link", "set", &home.bridge, "up"])
        };
        if let Err(error) = prepare() {
            teardown::remove(&home);
            return Err(error);
        }
        Ok(home)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("docker.sock")
    }

    pub(crate) fn data_root(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(crate) fn exec_root(&self) -> PathBuf {
        self.directory.join("exec")
    }

    fn pid_file(&self) -> PathBuf {
        self.directory.join("docker.pid")
    }
}

/// Making the bridge is what reserves its range: the kernel lets only one process make it.
fn reserve_bridge(run: &RunId) -> Result<(String, u8)> {
    let addresses = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    for subnet in 200..=250 {
        let name = format!("{BRIDGE}{subnet}");
        if Path::new("/sys/class/net").join(&name).exists() || addresses.contains(&format!(" 10.{subnet}.")) {
            continue;
        }
        if ip(&["link", "add", "name", &name, "type", "bridge"]).is_ok() {
            ip(&["link", "set", &name, "alias", run.as_str()])?;
            return Ok((name, subnet));
        }
    }
    bail!("all of 10.200.0.0/16 to 10.250.0.0/16 are in use, or no bridge can be made")
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip (iproute2)")?;
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
