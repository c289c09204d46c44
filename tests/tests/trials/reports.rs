//! What the filters tell the control plane, as the control plane counts it. What is made of it is the rollout's business.

use anyhow::{Context, Result, ensure};
use http::Method;
use tidegate_filter_core::REPORT_PATH;
use tidegate_tests::{
    client::Request,
    deploys::Http2,
    load::{Ask, Load, Outcome},
    poll::{SOON, until},
};

use crate::{BY_USER, Trial};

impl Trial {
    async fn metric(&self, name: &str) -> Result<u64> {
        let text = Request::get(self.edge.api(), "/metrics").send().await?.text();
        let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        Ok(value.with_context(|| format!("there is no {name}"))?.parse()?)
    }
}

#[tokio::test]
async fn what_a_filter_sees_arrives_each_second_and_nothing_where_nobody_asks() -> Result<()> {
    let trial = Trial::start("told", &format!("weight: 10, {BY_USER}"), 2).await?;
    trial.weighs(1_000).await?;
    let load = |requests| {
        let load = Load::get(trial.edge.listener, &trial.host(), "/").closed(2).requests(requests);
        load.asking(|n| Ask::get("/").header("x-user", &format!("key-{n}")))
    };
    load(200).run().await?.all_succeeded()?;
    ensure!(trial.metric("tidegate_edge_reports_taken_total").await? == 0, "nobody asked");
    let counted = async || {
        let stats = trial.edge.envoy.stats(".rq_total").await?;
        let of = |version| format!("wasmcustom.tidegate.service.{}.version.{version}.rq_total", trial.service);
        anyhow::Ok(["v1", "v2"].map(|version| stats.get(&of(version)).copied()))
    };
    ensure!(counted().await? == [None, None], "and nothing is counted");
    trial.declare(&format!("weight: 10, {BY_USER}, breaker: {{}}"))?;
    until(SOON, "three reports", async || {
        load(100).run().await?.all_succeeded()?;
        let taken = trial.metric("tidegate_edge_reports_taken_total").await?;
        ensure!(taken >= 3, "{taken}");
        Ok(())
    })
    .await?;
    let before = counted().await?;
    let report = load(100).run().await?;
    report.all_succeeded()?;
    let more = counted().await?.into_iter().zip(before).map(|(after, before)| Some(after? - before?));
    let seen = ["v1", "v2"].map(|version| report.by_version().get(version).map(|answers| *answers as u64));
    ensure!(more.eq(seen), "{before:?} and {seen:?}");
    for other in ["refused", "dropped"] {
        let count = trial.metric(&format!("tidegate_edge_reports_{other}_total")).await?;
        ensure!(count == 0, "{count} were {other}");
    }
    Ok(())
}

/// Over plain text, which is loopback's alone, everyone may be everybody: a report is held against what can be, and no more. Over
/// mutual TLS its node has to be the certificate's (`tidegate-xds`' own tests).
#[tokio::test]
async fn a_body_that_is_no_report_is_refused_and_stops_nothing() -> Result<()> {
    let trial = Trial::start("untold", &format!("weight: 10, {BY_USER}"), 1).await?;
    let mut client = Http2::new(trial.edge.xds(), "tidegate-xds");
    let of = |service: &str, answers: &str| {
        format!("{{\"node\":\"edge\",\"services\":{{\"{service}\":{{\"versions\":{{\"v1\":{answers}}}}}}}}}")
    };
    for (method, body, status) in [
        (Method::POST, "{".to_owned(), 400),
        (Method::POST, of(&trial.service, "{\"answered\":1,\"failed\":2}"), 400),
        (Method::POST, "x".repeat(65 << 10), 413),
        (Method::GET, String::new(), 405),
        // Of a service that nobody knows nothing is left.
        (Method::POST, of("nobody", "{\"answered\":1,\"failed\":0}"), 200),
        (Method::POST, of(&trial.service, "{\"answered\":1,\"failed\":0}"), 200),
    ] {
        let bytes = body.len();
        let outcome = client.send(method.clone(), REPORT_PATH, body, SOON).await?;
        ensure!(outcome == Outcome::Status(status), "{method} of {bytes} bytes: {outcome}");
    }
    for (name, count) in [("refused", 2), ("taken", 1), ("dropped", 0)] {
        let counted = trial.metric(&format!("tidegate_edge_reports_{name}_total")).await?;
        ensure!(counted == count, "{counted} were {name}");
    }
    Ok(())
}
