//! Whose leftovers are whose. A run is one engine connection or private engine of one test process; everything that is
//! started carries its id, which says whether that process still lives. Processes carry it in their environment.

use std::{
    fs,
    path::Path,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use rustix::process::{Pid, Signal, kill_process};

/// On containers and networks. Not under `tidegate.`, where tidegate reports what it does not know.
pub const LABEL: &str = "dev.tidegate-tests.run";

/// In the environment of every process that is started, and so of what those start.
pub(crate) const VARIABLE: &str = "TIDEGATE_TESTS_RUN";

/// `PID-STARTTIME-N`; pids are used again, but not with the same start time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunId(String);

impl RunId {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let started = start_time(pid).unwrap_or_default();
        Self(format!("{pid}-{started}-{}", NEXT.fetch_add(1, Relaxed)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that makes names unique among all runs of this machine.
    pub(crate) fn short(&self) -> String {
        let parts: Vec<_> = self.0.split('-').collect();
        format!("{}-{}", parts[0], parts[2])
    }
}

/// Whether the test process of that id is gone. What is not an id is not ours to judge.
pub(crate) fn is_dead(id: &str) -> bool {
    let mut parts = id.split('-');
    let (Some(pid), Some(started), Some(_)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let (Ok(pid), Ok(started)) = (pid.parse(), started.parse::<u64>()) else { return false };
    start_time(pid) != Some(started)
}

/// Ends, once per process, the processes that dead runs left behind.
pub(crate) fn sweep_processes() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (pid, id) in marked_processes() {
            if is_dead(&id)
                && let Some(pid) = Pid::from_raw(pid)
            {
                // It may have ended by itself since.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    });
}

fn marked_processes() -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let marked = entries.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let environment = fs::read(entry.path().join("environ")).ok()?;
        let mark = environment.split(|byte| *byte == 0).find_map(|pair| pair.strip_prefix(VARIABLE.as_bytes()))?;
        Some((pid, std::str::from_utf8(mark.strip_prefix(b"=")?).ok()?.to_owned()))
    });
    marked.collect()
}

/// Field 22 of `/proc/PID/stat`, counted after the name, which may hold anything.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    // A zombie waits for its parent only.
    if fields.starts_with('Z') { None } else { fields.split(' ').nth(19)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_lives_as_long_as_its_process() {
        let id = RunId::new();
        assert!(!is_dead(id.as_str()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let childs = format!("{}-{}-0", child.id(), start_time(child.id()).unwrap_or(1));
        child.wait().unwrap();
        assert!(is_dead(&childs));
        assert!(is_dead(&format!("{}-1-0", std::process::id())), "another process with our pid");
        assert!(!is_dead("somebody's"));
    }
}
