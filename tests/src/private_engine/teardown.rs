//! Removing all that a private engine leaves on a machine, whether it still runs, was killed, or belonged to a test run
//! that was itself killed. Goes on after every failure: what can be removed is.

use std::{
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Once,
    thread,
    time::Duration,
};

use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, geteuid, kill_process},
};
use tokio::time::Instant;

use super::{BRIDGE, Home, ip};
use crate::{engine, run};

/// Of the folders of private engines; the run's id and the bridge follow.
pub(super) const PREFIX: &str = "tidegate-tests-engine-";

/// How long killed processes may take to disappear.
const EXIT: Duration = Duration::from_secs(10);

/// Removes, once per process, the private engines of dead runs.
pub fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if !geteuid().is_root() {
            return;
        }
        for (_, home) in homes().iter().filter(|(run, _)| run::is_dead(run)) {
            remove(home);
        }
        // A run that was killed between making its bridge and its folder.
        for name in names_in("/sys/class/net").iter().filter(|name| name.starts_with(BRIDGE)) {
            let owner = fs::read_to_string(format!("/sys/class/net/{name}/ifalias")).unwrap_or_default();
            if run::is_dead(owner.trim()) {
                let _ = ip(&["link", "delete", name]);
            }
        }
    });
}

/// By the engine itself, if it answers: it leaves less behind than any cleaning up after it.
pub(super) fn remove_containers(home: &Home) {
    engine::remove_blocking(&home.socket(), None);
}

/// Everything: processes, control groups, mounts, bridges, files.
pub(super) fn remove(home: &Home) {
    let containers = names_in(home.data_root().join("containers"));
    kill_all(home, &containers);
    remove_shim_sockets(home);
    remove_control_groups(&containers);
    unmount_below(&home.directory);
    for bridge in bridges_in(home.subnet) {
        let _ = ip(&["link", "delete", &bridge]);
    }
    let _ = fs::remove_dir_all(&home.directory);
    // Last, and also if it never got its address: while it is there, nobody else takes the range.
    let _ = ip(&["link", "delete", &home.bridge]);
}

/// dockerd, containerd, shims, proxies, and the containers' own processes, which no command line gives away.
fn kill_all(home: &Home, containers: &[String]) {
    let deadline = Instant::now() + EXIT;
    loop {
        let processes = processes_of(home, containers);
        if processes.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in processes.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn processes_of(home: &Home, containers: &[String]) -> Vec<i32> {
    let directory = home.directory.to_string_lossy().into_owned();
    let addresses = format!("10.{}.", home.subnet);
    let is_ours = |pid: &str| {
        let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).into_owned();
        let mut arguments = command.split('\0');
        let is_proxy = arguments.next().is_some_and(|program| program.ends_with("docker-proxy"));
        let by_command = arguments.any(|argument| {
            argument.contains(&directory) || argument == home.bridge || (is_proxy && argument.starts_with(&addresses))
        });
        let groups = String::from_utf8_lossy(&read("cgroup")).into_owned();
        by_command || containers.iter().any(|id| groups.contains(id.as_str()))
    };
    let own = std::process::id().to_string();
    let pids = names_in("/proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    pids.filter(|pid| *pid != own && is_ours(pid)).filter_map(|pid| pid.parse().ok()).collect()
}

/// They lie in a folder that all containerds of a machine share; containerd notes where.
fn remove_shim_sockets(home: &Home) {
    let shims = home.exec_root().join("containerd/daemon/io.containerd.runtime.v2.task").join(&home.bridge);
    for container in names_in(&shims) {
        let address = fs::read_to_string(shims.join(container).join("address")).unwrap_or_default();
        if let Some(socket) = address.trim().strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
        }
    }
}

/// Those of the containers whose shims did not live to do it.
fn remove_control_groups(containers: &[String]) {
    let root = Path::new("/sys/fs/cgroup");
    let roots: Vec<_> = names_in(root).into_iter().map(|name| root.join(name)).chain([root.to_owned()]).collect();
    for container in containers {
        for root in &roots {
            let _ = fs::remove_dir(root.join("docker").join(container));
        }
    }
}

fn unmount_below(directory: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(unescape);
    // Later mounts may lie on earlier ones.
    for point in points.filter(|point| point.starts_with(directory)).collect::<Vec<_>>().iter().rev() {
        let _ = unmount(point, UnmountFlags::DETACH);
    }
}

/// The kernel writes blanks in paths as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// The engine's own bridge and those of networks that it did not live to remove.
fn bridges_in(subnet: u8) -> Vec<String> {
    let Ok(output) = Command::new("ip").args(["-oneline", "-4", "address"]).output() else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "7: br-4f0c  inet 10.200.128.1/24 brd ...".
    let interfaces = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (name, _, address) = (words.next()?, words.next()?, words.next()?);
        address.starts_with(&format!("10.{subnet}.")).then(|| name.to_owned())
    });
    interfaces.collect()
}

fn homes() -> Vec<(String, Home)> {
    let directory = std::env::temp_dir();
    let homes = names_in(&directory).into_iter().filter_map(|name| {
        let (run, bridge) = name.strip_prefix(PREFIX)?.rsplit_once('-')?;
        let subnet = bridge.strip_prefix(BRIDGE)?.parse().ok()?;
        Some((run.to_owned(), Home { directory: directory.join(&name), bridge: bridge.to_owned(), subnet }))
    });
    homes.collect()
}

fn names_in(directory: impl AsRef<Path>) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_may_have_blanks() {
        assert_eq!(unescape(r"/a\040b\134c/d\"), PathBuf::from(r"/a b\c/d\"));
    }
}
