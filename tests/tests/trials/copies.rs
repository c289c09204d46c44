//! Copies of requests for a canary that has no weight yet.

use anyhow::{Result, ensure};
use http::Method;
use tidegate_tests::{
    envoy::runtime,
    load::{Ask, Load},
    poll::{SOON, until},
};

use crate::{BY_USER, Trial};

#[tokio::test]
async fn copies_reach_the_canary_and_its_answers_reach_nobody() -> Result<()> {
    let steps = |mirror: &str| {
        format!(
            "{BY_USER}, breaker: {{}}, steps: [ {{ mirror: {mirror} }}, {{ pause: {{}} }}, {{ setWeight: 10 }}, {{ pause: {{}} }} ]"
        )
    };
    let trial = Trial::start("copies", &steps("100"), 2).await?;
    trial.weighs(0).await?;
    trial.edge.healthy(&trial.cluster("v2+mirror"), 1).await?;
    // Whatever it says, and however long it takes.
    trial.canary.control("errors=100&delay_ms=50").await?;
    let load = Load::get(trial.edge.listener, &trial.host(), "/").closed(4).requests(200);
    let report = load.clone().asking(|n| Ask::get("/").header("x-user", &format!("key-{n}"))).run().await?;
    report.all_succeeded()?;
    ensure!(report.by_version().keys().eq(["v1"]), "{report}");
    until(SOON, "all copies at the canary", async || {
        let copies = Trial::served(&trial.canary).await?;
        ensure!(copies == 200, "{copies}");
        Ok(())
    })
    .await?;
    // Nothing of it is counted as the canary's answer: not by the filter, nor by Envoy's load reports.
    for counter in ["version.v2.rq_total", "breaker_failures_total"] {
        ensure!(trial.counted(counter).await? == 0, "{counter}");
    }
    let stats = trial.edge.envoy.stats("upstream_rq_total").await?;
    let asked = |cluster: &str| stats.get(&format!("cluster.{}.upstream_rq_total", trial.cluster(cluster))).copied();
    ensure!(asked("v2").unwrap_or_default() == 0 && asked("v2+mirror") == Some(200), "{stats:?}");
    // What may not be repeated is not copied.
    let post = |n: u64| Ask { method: Method::POST, ..Ask::get("/").header("x-user", &format!("key-{n}")) };
    load.clone().asking(post).run().await?.all_succeeded()?;
    ensure!(Trial::served(&trial.canary).await? == 200, "a POST was copied");

    // A share of them, by a runtime key alone.
    trial.declare(&steps("25"))?;
    let key = format!("tg.{}.mirror", trial.service);
    until(SOON, "the new share in Envoy", async || {
        let share = runtime(trial.edge.envoy.admin(), &key).await?;
        ensure!(share.as_ref().is_some_and(|share| share.contains("2500")), "{share:?}");
        Ok(())
    })
    .await?;
    trial.canary.control("delay_ms=0").await?;
    load.requests(2_000)
        .asking(|n| Ask::get("/").header("x-user", &format!("key-{n}")))
        .run()
        .await?
        .all_succeeded()?;
    until(SOON, "a quarter of the copies", async || {
        let copies = Trial::served(&trial.canary).await? - 200;
        // Binomial(2,000, ¼) leaves this range once in a hundred million runs.
        ensure!((390..=610).contains(&copies), "{copies}");
        Ok(())
    })
    .await
}
