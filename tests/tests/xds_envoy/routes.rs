//! Thousands of routes come and go while others serve.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use tidegate_tests::{
    client::Request,
    edge::{Edge, Local, Variant, host},
    poll::{SOON, until},
};
use tokio::time::Instant;

use crate::{asked, in_both_variants, load};

in_both_variants!(three_thousand_routes_come_and_go_without_a_failed_request);

const FILES: usize = 30;
const SERVICES: usize = 100;

/// Waits until a host answers as it finally will, and until then as it did before: never with anything else.
async fn turns(edge: &Edge, host: &str, from: u16, to: u16) -> Result<()> {
    let wrong = until(SOON, &format!("{to} of {host}"), async || {
        let status = edge.get(host).await?.status;
        ensure!(status != from, "still {from}");
        Ok(status)
    })
    .await?;
    ensure!(wrong == to, "{host} answered {wrong} between {from} and {to}");
    Ok(())
}

async fn responses(edge: &Edge) -> Result<u64> {
    let url = format!("{}/metrics", edge.cli().api.context("an API")?);
    let text = Request::url(http::Method::GET, &url)?.send().await?.text();
    let line = text.lines().find_map(|line| line.strip_prefix("tidegate_xds_responses_total "));
    Ok(line.with_context(|| format!("no count of responses in\n{text}"))?.parse()?)
}

async fn three_thousand_routes_come_and_go_without_a_failed_request(variant: Variant) -> Result<()> {
    let (stays, backend, files) =
        (Local::start("stays", "v1").await?, Local::start("many", "v1").await?, tempfile::tempdir()?);
    fs::write(files.path().join("stays.yaml"), stays.entry("stays", "v1"))?;
    let edge = Edge::on_files(files.path(), "{}").await?.speaking(variant).await?;
    edge.answers(&host("stays"), 200).await?;
    let load = load(edge.listener, &host("stays"));
    let file = |number: usize| files.path().join(format!("{number}.yaml"));
    // Checked by nobody: thousands of checks of one backend are not what is tested.
    let entry = |service: &str| {
        format!(
            "- {{ service: {service}, version: v1, host: {}, address: \"{}\", check: {{ type: none }} }}\n",
            host(service),
            backend.address
        )
    };
    let name = |file: usize, service: usize| format!("r{file}-{service}");
    asked(&load, 50).await?;

    let (before, since) = (responses(&edge).await?, Instant::now());
    let mut slowest = Duration::ZERO;
    for number in 0..FILES {
        let entries: String = (0..SERVICES).map(|service| entry(&name(number, service))).collect();
        let staging = files.path().with_extension("new");
        fs::write(&staging, entries)?;
        let written = Instant::now();
        fs::rename(staging, file(number))?;
        turns(&edge, &host(&name(number, 0)), 404, 200).await?;
        slowest = slowest.max(written.elapsed());
        // One of Envoy's workers may have the routes a moment before the other.
        for service in 1..SERVICES {
            turns(&edge, &host(&name(number, service)), 404, 200).await?;
        }
    }
    let added = responses(&edge).await?;
    eprintln!(
        "{variant:?}: added in {:.1?}, slowest step {slowest:.1?}, {} responses",
        since.elapsed(),
        added - before
    );
    for (key, expected) in [("active_clusters", FILES * SERVICES), ("warming_clusters", 0)] {
        let count = edge.envoy.stat(&format!("cluster_manager.{key}")).await?;
        ensure!(if key == "active_clusters" { count >= expected as u64 } else { count == 0 }, "{key} = {count}");
    }

    let (since, mut slowest) = (Instant::now(), Duration::ZERO);
    for number in 0..FILES {
        let removed = Instant::now();
        fs::remove_file(file(number))?;
        turns(&edge, &host(&name(number, SERVICES - 1)), 200, 404).await?;
        slowest = slowest.max(removed.elapsed());
    }
    until(SOON, "the end of their clusters", async || {
        let count = edge.envoy.stat("cluster_manager.active_clusters").await?;
        ensure!(count < 10, "{count} are left");
        Ok(())
    })
    .await?;
    let removed = responses(&edge).await?;
    eprintln!(
        "{variant:?}: removed in {:.1?}, slowest step {slowest:.1?}, {} responses",
        since.elapsed(),
        removed - added
    );
    for counter in ["cluster_manager.cds.update_rejected", "listener_manager.lds.update_rejected"] {
        assert_eq!(edge.envoy.stat(counter).await?, 0, "{counter}");
    }
    asked(&load, 50).await?;
    let report = load.stop().await?;
    eprintln!("{variant:?}: {report}");
    report.all_succeeded()
}
