//! The file provider at scale: how long a control plane needs from its start until it serves 10,000 services, and what one
//! edit costs. No Docker and no Envoy: what is measured is reading, deriving, compiling and encoding.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, ensure};
use tokio::time::Instant;

use super::{
    Row,
    measured::{metrics, resident},
};
use crate::{poll::until, ports, tidegate::Tidegate};

const FILES: usize = 1_000;
const SERVICES_A_FILE: usize = 10;
const INSTANCES_A_SERVICE: usize = 10;
/// What "in seconds" means.
const BUDGET: Duration = Duration::from_secs(10);
const EDITS: usize = 5;
const LIMIT: Duration = Duration::from_secs(300);

/// Measures, and counts what was read and served.
pub(super) async fn run() -> Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    for number in 0..FILES {
        write(directory.path(), number, INSTANCES_A_SERVICE)?;
    }
    let (listener, xds, api) = (ports::free()?, ports::free()?, ports::free()?);
    let configuration = format!(
        "edge: {{ listeners: [ {{ name: web, address: \"{listener}\" }} ] }}\nxds: {{ address: \"{xds}\" }}\n\
         api: {{ address: \"{api}\" }}\n\
         providers: {{ docker: {{ enabled: false }}, file: {{ path: \"{}\" }} }}\n",
        directory.path().display()
    );
    let began = Instant::now();
    let mut tidegate = Tidegate::run(&configuration)?;
    tidegate.synced(api, LIMIT).await?;
    let took = began.elapsed();
    let (services, instances) = (FILES * SERVICES_A_FILE, FILES * SERVICES_A_FILE * INSTANCES_A_SERVICE);
    let counted = metrics(api).await?;
    for (name, expected) in
        [("tidegate_services", services), ("tidegate_file_entries", instances), ("tidegate_file_reads_total", FILES)]
    {
        let found = counted.get(name).copied().unwrap_or_default();
        ensure!(found == expected as f64, "{name} is {found}, not {expected}");
    }
    let memory = resident(tidegate.process.pid())?;

    let mut edits = Vec::new();
    for edit in 1..=EDITS {
        write(directory.path(), FILES / 2, INSTANCES_A_SERVICE + edit)?;
        let written = Instant::now();
        let entries = (instances + edit * SERVICES_A_FILE) as f64;
        let counted = until(LIMIT, "the edit to be known", async || {
            let counted = metrics(api).await?;
            let found = counted.get("tidegate_containers").copied().unwrap_or_default();
            ensure!(found == entries, "there are {found} entries, not {entries}");
            Ok(counted)
        })
        .await?;
        edits.push(written.elapsed());
        let reads = counted.get("tidegate_file_reads_total").copied().unwrap_or_default();
        ensure!(reads == (FILES + edit) as f64, "{reads} files were read after {edit} edits of one");
    }
    let named = format!("{services} services × {INSTANCES_A_SERVICE} in {FILES} files");
    let row = |name: String, value: f64, unit, budget: Option<(String, bool)>| {
        let (budget, met) = budget.unzip();
        Row { name, value, unit, compared_with: None, ratio: None, budget, met }
    };
    let mut rows = vec![
        row(
            format!("{named}, start of the process to serving"),
            took.as_secs_f64() * 1e3,
            "ms",
            Some((format!("≤ {} ms", BUDGET.as_millis()), took <= BUDGET)),
        ),
        row(format!("{named}, resident memory"), memory, "MiB", None),
        row("one of them edited, files read again".to_owned(), 1.0, "", Some(("1".to_owned(), true))),
    ];
    rows.extend(super::timings("one of them edited, written to known", edits, None));
    Ok(rows)
}

/// One file, as an editor writes it.
fn write(directory: &Path, number: usize, instances: usize) -> Result<()> {
    let mut text = String::new();
    for service in number * SERVICES_A_FILE..(number + 1) * SERVICES_A_FILE {
        for instance in 0..instances {
            let (high, low) = (service / 256, service % 256);
            text.push_str(&format!(
                "- {{ service: s{service}, version: v1, host: s{service}.localhost, \
                 address: \"10.{high}.{low}.{}:8080\", check: {{ type: none }} }}\n",
                instance + 1
            ));
        }
    }
    let staging = directory.join("staging");
    fs::write(&staging, text)?;
    fs::rename(staging, directory.join(format!("{number:04}.yaml")))?;
    Ok(())
}
