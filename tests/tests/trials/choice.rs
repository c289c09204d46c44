//! Clients that say which version they want, and a canary that is not ready.

use anyhow::{Result, ensure};
use tidegate_tests::poll::{SOON, until};

use crate::{BY_USER, Trial};

fn matching(percent: &str) -> String {
    format!(
        "weight: {percent}, {BY_USER}, match: {{ header: {{ name: X-Canary }}, cookie: {{ name: canary }} }}, breaker: {{}}"
    )
}

#[tokio::test]
async fn a_choice_holds_at_no_and_at_every_weight_and_what_is_none_is_ignored() -> Result<()> {
    let trial = Trial::start("choice", &matching("0"), 2).await?;
    for (percent, basis_points, unsaid) in [("0", 0, "v1"), ("100", 10_000, "v2")] {
        trial.declare(&matching(percent))?;
        trial.weighs(basis_points).await?;
        let cases: [(&[(&str, &str)], &str); 13] = [
            (&[("x-canary", "always")], "v2"),
            (&[("x-canary", "never")], "v1"),
            (&[("cookie", "canary=always")], "v2"),
            (&[("cookie", "a=1; canary=never; b=2")], "v1"),
            (&[("cookie", "a=1;canary=\"always\"")], "v2"),
            // The header before the cookie, and never before always.
            (&[("x-canary", "never"), ("cookie", "canary=always")], "v1"),
            (&[("x-canary", "always"), ("cookie", "canary=never")], "v2"),
            (&[("x-canary", "maybe"), ("cookie", "canary=always")], "v2"),
            (&[("cookie", "canary=always; canary=never")], "v1"),
            (&[("x-canary", "maybe")], unsaid),
            (&[("x-canary", "ALWAYS")], unsaid),
            (&[("cookie", "xcanary=always; canary=alwaysx; canary=")], unsaid),
            (&[("x-tg-version", "stable"), ("x-tidegate-version", "v1")], unsaid),
        ];
        for (headers, expected) in cases {
            let ask = headers.iter().fold(trial.get("/"), |ask, (name, value)| ask.header(name, value));
            let answer = ask.header("x-user", "alice").send().await?;
            ensure!(answer.version() == Some(expected), "{headers:?} at {percent} %: {:?}", answer.version());
            ensure!(answer.header("x-tidegate-version") == Some(expected), "{headers:?}: {:?}", answer.headers);
        }
    }
    Ok(())
}

#[tokio::test]
async fn only_who_knows_the_secret_chooses() -> Result<()> {
    let secret = format!("weight: 0, {BY_USER}, match: {{ header: {{ name: X-Canary, value: s3cret }} }}");
    let trial = Trial::start("secret", &secret, 1).await?;
    for (value, version) in [("s3cret", "v2"), ("always", "v1"), ("S3cret", "v1"), ("s3cret2", "v1"), ("", "v1")] {
        let answer = trial.with("x-canary", value).await?;
        ensure!(answer.version() == Some(version), "{value:?}: {:?}", answer.version());
    }
    Ok(())
}

#[tokio::test]
async fn a_choice_holds_while_the_breaker_is_open() -> Result<()> {
    let mut trial = Trial::start("open", &matching("100"), 1).await?;
    trial.weighs(10_000).await?;
    trial.canary.control("errors=100").await?;
    trial.edge.tidegate.process.kill()?;
    for n in 0..12 {
        trial.with("x-user", &format!("key-{n}")).await?;
    }
    trial.counts("breaker_open", 1).await?;
    trial.canary.control("errors=0").await?;
    ensure!(trial.with("x-user", "key-0").await?.version() == Some("v1"));
    ensure!(trial.with("x-canary", "always").await?.version() == Some("v2"));
    ensure!(trial.with("cookie", "canary=always").await?.version() == Some("v2"));
    Ok(())
}

#[tokio::test]
async fn a_canary_that_is_not_ready_is_an_error_where_that_is_wanted() -> Result<()> {
    let trial = Trial::start("error", &format!("weight: 50, {BY_USER}, whenNotReady: error"), 2).await?;
    let (canarys, stables) = (&trial.canarys(1, 5_000)[0], (0..).map(|n| format!("key-{n}")));
    let stables: Vec<String> = stables.filter(|key| !trial.is_canarys(key, 5_000)).take(20).collect();
    until(SOON, "the canary's answer", async || {
        let answer = trial.with("x-user", canarys).await?;
        ensure!(answer.version() == Some("v2"), "{:?}", answer.version());
        Ok(())
    })
    .await?;
    trial.canary.control("ready=false").await?;
    trial.edge.healthy(&trial.cluster("v2"), 0).await?;
    let answer = trial.with("x-user", canarys).await?;
    ensure!(answer.status == 503 && answer.header("x-tidegate-reason") == Some("no-ready-instance"), "{answer:?}");
    for key in stables {
        ensure!(trial.with("x-user", &key).await?.version() == Some("v1"), "{key}");
    }
    Ok(())
}

#[tokio::test]
async fn fewer_than_min_ready_get_nothing() -> Result<()> {
    let trial = Trial::start(
        "few",
        &format!("weight: 100, {BY_USER}, minReady: 1, match: {{ header: {{ name: X-Canary }} }}"),
        1,
    )
    .await?;
    trial.weighs(10_000).await?;
    ensure!(trial.with("x-user", "a").await?.version() == Some("v2"));
    trial.declare(&format!("weight: 100, {BY_USER}, minReady: 2, match: {{ header: {{ name: X-Canary }} }}"))?;
    trial.edge.healthy(&trial.cluster("v2"), 0).await?;
    ensure!(trial.with("x-user", "a").await?.version() == Some("v1"));
    ensure!(trial.with("x-canary", "always").await?.version() == Some("v1"), "whoever wants it");
    let _second = trial.engine.run(tidegate_tests::edge::backend(&trial.service, "v2")).await?;
    trial.edge.healthy(&trial.cluster("v2"), 2).await?;
    ensure!(trial.with("x-user", "a").await?.version() == Some("v2"));
    Ok(())
}
