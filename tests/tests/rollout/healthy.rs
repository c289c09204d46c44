//! A canary that is as good as stable is left alone, by the breaker and by the analysis.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidegate_tests::{
    edge::host,
    load::{Ask, Load, Outcome},
};

use super::{SERVICE, Shop};

/// `TIDEGATE_REQUESTS` says otherwise: `make soak` sends a million.
const REQUESTS: u64 = 20_000;

/// One of a hundred answers fails, of both versions: twice what a base of 0.5 % would be.
#[tokio::test]
async fn a_canary_that_fails_no_more_than_stable_is_left_alone() -> Result<()> {
    let requests = match std::env::var("TIDEGATE_REQUESTS") {
        Ok(said) => said.parse().context("TIDEGATE_REQUESTS")?,
        Err(_) => REQUESTS,
    };
    let canary = "sessionAffinity: { hashOn: [ { header: X-User } ] }, breaker: {}, analysis: { interval: 1s }, \
                  steps: [ { setWeight: 10 }, { pause: { duration: 10h } } ]";
    let shop = Shop::start(canary).await?;
    shop.weighs(1_000).await?;
    for local in &shop.locals {
        local.control("errors=1").await?;
    }
    // In parts, for each answer is remembered until the end of its part.
    let part = 20_000;
    for begin in (0..requests).step_by(part) {
        let load = Load::get(shop.edge.listener, &host(SERVICE), "/").closed(16).requests(part as u64);
        let load = load.duration(Duration::from_secs(600));
        let report = load.asking(move |n| Ask::get("/").header("x-user", &format!("key-{}", begin + n))).run().await?;
        let unexpected = report.outcomes().into_keys().find(|it| !matches!(it, Outcome::Status(200 | 500)));
        ensure!(unexpected.is_none() && report.share("v2") > 0.0, "{report}");
    }
    let status = shop.status().await?;
    ensure!(status["rollout"]["phase"] == "progressing", "{}", status["rollout"]);
    let history = shop.history().await?;
    ensure!(history.len() == 2, "{history:?}");
    Ok(())
}
