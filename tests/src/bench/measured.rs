//! What is read off a control plane while it works: its own counters, and what the kernel says of its process.

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::client::Request;

/// What a process and its threads have run so far, by the scheduler.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the list and the look: then there is nothing to read any more.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanos += text.split(' ').next().context("a time")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Of a process now, in MiB.
pub(super) fn resident(pid: u32) -> Result<f64> {
    memory(pid, "VmRSS:")
}

/// The most that a process has had so far, in MiB.
pub(super) fn most_resident(pid: u32) -> Result<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, what: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)).context("a size")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}

/// What is counted, summed over labels.
pub(super) async fn metrics(api: SocketAddr) -> Result<BTreeMap<String, f64>> {
    let answer = Request::get(api, "/metrics").timeout(Duration::from_secs(60)).send().await?;
    ensure!(answer.status == 200, "GET /metrics: {}", answer.status);
    let mut counted = BTreeMap::new();
    for line in answer.text().lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').context("a series and its value")?;
        let name = series.split('{').next().unwrap_or(series);
        *counted.entry(name.to_owned()).or_default() += value.parse::<f64>()?;
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_process() {
        let pid = std::process::id();
        assert!(processor_time(pid).unwrap() > Duration::ZERO);
        let now = resident(pid).unwrap();
        assert!(now > 0.0 && most_resident(pid).unwrap() >= now);
    }
}
