//! What one event costs, by the number of services that there are: the processor time of the control plane from an instance that
//! comes or goes to the acknowledgement of a real Envoy. The instances stand in files, so that this measures what follows
//! discovery: deriving, compiling, encoding, delivering, the timeline and what is kept on disk.

use std::{fs, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};

use super::{Row, measured::processor_time};
use crate::{edge::Edge, poll::until, process::Process, tidegate};

const SERVICES: [usize; 3] = [10, 100, 1_000];
const EVENTS: usize = 60;
const LIMIT: Duration = Duration::from_secs(60);
/// How often as much an event may cost with a thousand services as with ten. It is not one, because what is kept on disk is
/// written as a whole, once a second at most.
const BUDGET: f64 = 2.0;

pub(super) async fn run() -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut first = None;
    for services in SERVICES {
        let micros = cost(services).await?;
        let ratio = first.map(|first: f64| micros / first);
        first.get_or_insert(micros);
        rows.push(Row {
            name: format!("an instance comes or goes among {services} services, processor time"),
            value: micros,
            unit: "µs",
            compared_with: ratio.map(|_| format!("{} services", SERVICES[0])),
            ratio,
            budget: ratio.map(|_| format!("≤ {BUDGET} ×")),
            met: ratio.map(|ratio| ratio <= BUDGET),
        });
    }
    Ok(rows)
}

/// Microseconds of processor time for an event.
async fn cost(services: usize) -> Result<f64> {
    let files = tempfile::tempdir()?;
    let entry = |service: usize, port: u16| {
        format!(
            "- {{ service: s{service}, version: v1, host: s{service}.localhost, address: \"127.0.{}.{}:{port}\", \
             check: {{ type: none }} }}\n",
            service / 250,
            service % 250 + 1
        )
    };
    write(files.path(), "all.yaml", &(0..services).map(|service| entry(service, 9)).collect::<String>())?;
    let edge = Edge::on_files(files.path(), "{}").await?;
    // Another instance of the first one.
    write(files.path(), "one.yaml", &entry(0, 10))?;

    // Who follows the timeline is told of each acknowledgement, which costs less than asking.
    let directory = tempfile::tempdir()?;
    let mut command = std::process::Command::new(tidegate::locate()?);
    command
        .args(["events", "-f", "--since", "1h", "-o", "json"])
        .env("TIDEGATE_API", edge.cli().api.context("an address")?);
    command.stdin(Stdio::null());
    let _follower = Process::spawn("events", &mut command, directory.path())?;
    let log = directory.path().join("events.log");
    let accepted = || -> Result<usize> {
        let of_it = |line: &&str| line.contains("\"what\":\"accepted\"") && line.contains("\"127.0.0.1:10\"");
        Ok(fs::read_to_string(&log)?.lines().filter(of_it).count())
    };
    until(LIMIT, "the other instance", async || {
        ensure!(accepted()? == 1, "not yet");
        Ok(())
    })
    .await?;
    // The first ones warm up.
    let mut one_is_there = true;
    let mut turn = async || -> Result<()> {
        let before = accepted()?;
        one_is_there = !one_is_there;
        write(files.path(), "one.yaml", &if one_is_there { entry(0, 10) } else { "[]\n".to_owned() })?;
        until(LIMIT, "the acknowledgement", async || {
            ensure!(accepted()? > before, "{before} so far");
            Ok(())
        })
        .await
    };
    for _ in 0..4 {
        turn().await?;
    }
    let pid = edge.tidegate.process.pid();
    let before = processor_time(pid)?;
    for _ in 0..EVENTS {
        turn().await?;
    }
    let spent = processor_time(pid)? - before;
    Ok(spent.as_secs_f64() * 1e6 / EVENTS as f64)
}

/// A file, as an editor writes it.
fn write(directory: &Path, name: &str, text: &str) -> Result<()> {
    let staging = directory.join(format!("{name}.new"));
    fs::write(&staging, text)?;
    fs::rename(staging, directory.join(name))?;
    Ok(())
}
