//! A machine beside this one: a network namespace that one cable, a pair of virtual Ethernet devices, joins to the host.
//! The cable can be cut so that neither end hears of it. Needs root.

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::Command,
    sync::Once,
};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{self, RunId};

/// What the host's ends are named, with the number of their range.
const DEVICE: &str = "tgv";

/// A program that is to run in the namespace of that name, or on this machine itself.
pub fn command(namespace: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Removed on drop, with what is left of the processes' connections.
pub struct Namespace {
    number: u8,
}

impl Namespace {
    pub fn create() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a network namespace needs root");
        sweep();
        let namespace = Self { number: reserve(&RunId::new())? };
        let (name, device) = (namespace.name(), namespace.device());
        // A run that was killed may have left one of that name without a device.
        let _ = run("ip", &["netns", "delete", &name]);
        run("ip", &["netns", "add", &name])?;
        run("ip", &["link", "set", &namespace.peer(), "netns", &name])?;
        run("ip", &["address", "add", &format!("{}/30", namespace.host()), "dev", &device])?;
        run("ip", &["link", "set", &device, "up"])?;
        let (inside, peer) = (format!("{}/30", namespace.address()), namespace.peer());
        run("ip", &["-n", &name, "address", "add", &inside, "dev", &peer])?;
        run("ip", &["-n", &name, "link", "set", &peer, "up"])?;
        run("ip", &["-n", &name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// As [`command`] takes it.
    pub fn name(&self) -> String {
        format!("tidegate-tests-{}", self.number)
    }

    /// The host's end of the cable.
    pub fn host(&self) -> IpAddr {
        Ipv4Addr::new(10, 251, self.number, 1).into()
    }

    /// The other one.
    pub fn address(&self) -> IpAddr {
        Ipv4Addr::new(10, 251, self.number, 2).into()
    }

    /// Becomes the router of a range of macvlan addresses on the host's end, which the host itself does not reach: its packets go
    /// over the cable and come back to them. The gateway is its own address among them.
    pub fn route(&self, subnet: &str, gateway: IpAddr) -> Result<()> {
        let (name, peer) = (self.name(), self.peer());
        let prefix = subnet.split_once('/').context("a range")?.1;
        run("ip", &["-n", &name, "address", "add", &format!("{gateway}/{prefix}"), "dev", &peer])?;
        // Who is told of a shorter way would look for them on the host's end, which does not lead there.
        let redirects = ["all", &peer].map(|of| format!("echo 0 > /proc/sys/net/ipv4/conf/{of}/send_redirects"));
        for setting in
            ["echo 1 > /proc/sys/net/ipv4/ip_forward"].into_iter().chain(redirects.iter().map(String::as_str))
        {
            run("ip", &["netns", "exec", &name, "sh", "-c", setting])?;
        }
        run("ip", &["route", "add", subnet, "via", &self.address().to_string(), "dev", &self.device()])
    }

    /// From now on nothing gets through, either way, and nobody is told.
    pub fn cut(&self) -> Result<()> {
        self.filter("-A", &[])
    }

    /// From now on one packet of ten is lost, either way, and what comes from there comes at 1 Mbit/s.
    pub fn degrade(&self) -> Result<()> {
        self.filter("-A", &["-m", "statistic", "--mode", "random", "--probability", "0.1"])?;
        let (name, peer) = (self.name(), self.peer());
        let shaped = ["root", "tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms"];
        run("ip", &[&["netns", "exec", &name, "tc", "qdisc", "add", "dev", &peer], &shaped[..]].concat())
    }

    /// Joins again what was [`cut`](Self::cut).
    pub fn heal(&self) -> Result<()> {
        self.filter("-D", &[])
    }

    /// Drops what comes, goes and passes, as far as it matches.
    fn filter(&self, change: &str, matches: &[&str]) -> Result<()> {
        let (name, peer) = (self.name(), self.peer());
        for (chain, direction) in [("INPUT", "-i"), ("OUTPUT", "-o"), ("FORWARD", "-i")] {
            let rule = ["netns", "exec", &name, "iptables", "-w", change, chain, direction, &peer];
            run("ip", &[&rule, matches, &["-j", "DROP"]].concat())?;
        }
        Ok(())
    }

    /// The host's end, by its name.
    pub fn device(&self) -> String {
        format!("{DEVICE}{}", self.number)
    }

    fn peer(&self) -> String {
        format!("{DEVICE}{}p", self.number)
    }

    fn remove(&self) {
        // Either takes the other end along; what cannot be removed is swept by a later run.
        let _ = run("ip", &["netns", "delete", &self.name()]);
        let _ = run("ip", &["link", "delete", &self.device()]);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Removes, once per process, the namespaces of dead runs.
fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for entry in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(Ok(number)) = name.strip_prefix(DEVICE).map(str::parse) else { continue };
            let owner = fs::read_to_string(entry.path().join("ifalias")).unwrap_or_default();
            if run::is_dead(owner.trim()) {
                Namespace { number }.remove();
            }
        }
    });
}

/// Making the device is what reserves its range: the kernel lets only one process make it.
fn reserve(run_id: &RunId) -> Result<u8> {
    for number in 0..=u8::MAX {
        let device = format!("{DEVICE}{number}");
        if Path::new("/sys/class/net").join(&device).exists() {
            continue;
        }
        let peer = format!("{device}p");
        if run("ip", &["link", "add", "name", &device, "type", "veth", "peer", "name", &peer]).is_ok() {
            run("ip", &["link", "set", &device, "alias", run_id.as_str()])?;
            return Ok(number);
        }
    }
    bail!("all of 10.251.0.0/16 is in use, or no virtual Ethernet device can be made")
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(())
}
