//! The affinity cookie: given to clients without a key, kept, and never trusted to be one.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tidegate_filter_core::is_client_id;
use tidegate_tests::client::Answer;

use crate::Trial;

const GIVEN: &str =
    "weight: 50, sessionAffinity: { hashOn: [ { header: X-User }, { cookie: tg_id } ], cookieName: tg_id, maxAge: 60 }";

/// The id that the answer gives.
fn given(answer: &Answer) -> Result<Option<String>> {
    let Some(cookie) = answer.header("set-cookie") else { return Ok(None) };
    let (id, rest) = cookie.split_once(';').context("attributes")?;
    ensure!(rest == " Path=/; Max-Age=60; HttpOnly; SameSite=Lax", "{cookie}");
    Ok(Some(id.strip_prefix("tg_id=").context("the name")?.to_owned()))
}

#[tokio::test]
async fn a_client_without_a_key_is_given_one_and_keeps_its_version() -> Result<()> {
    let trial = Trial::start("given", GIVEN, 2).await?;
    trial.weighs(5_000).await?;
    let (mut ids, mut versions) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..60 {
        let first = trial.get("/").send().await?;
        let id = given(&first)?.context("no cookie was given")?;
        let version = first.version().context("no version")?.to_owned();
        ensure!(trial.is_canarys(&id, 5_000) == (version == "v2"), "{id} got {version} at once");
        for _ in 0..2 {
            let again = trial.with("cookie", &format!("a=b; tg_id={id}")).await?;
            ensure!(again.version() == Some(&version) && given(&again)?.is_none(), "{id}: {again:?}");
        }
        ensure!(id.len() == 32 && is_client_id(id.as_bytes()), "{id}");
        ids.insert(id);
        versions.insert(version);
    }
    ensure!(ids.len() == 60 && versions.len() == 2, "{ids:?} {versions:?}");
    // Nothing that two have in common says that they were made one after the other.
    let ids: Vec<u128> = ids.iter().map(|id| u128::from_str_radix(id, 16)).collect::<Result<_, _>>()?;
    let near = ids.windows(2).filter(|pair| pair[1] - pair[0] < 1 << 96).count();
    ensure!(near == 0, "{near} ids are near another");
    trial.counts("cookies_given_total", 60).await?;
    // Who has a key is given none.
    ensure!(given(&trial.with("x-user", "alice").await?)?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_malformed_cookie_is_none() -> Result<()> {
    let trial = Trial::start("malformed", GIVEN, 1).await?;
    let long = "a".repeat(65);
    let huge = "a".repeat(4_000);
    let malformed = ["", " ", "a b", "../../etc/passwd", "a,b", "<script>", "%00", "a.b", &long, &huge];
    for value in malformed {
        let answer = trial.with("cookie", &format!("tg_id={value}")).await?;
        ensure!(answer.status == 200, "{value:?}: {}", answer.status);
        ensure!(given(&answer)?.is_some(), "{value:?} was taken for an id");
    }
    for header in ["tg_id", ";;;=;", "=tg_id", "tg_id==", "tg_id=;tg_id=abc"] {
        let answer = trial.with("cookie", header).await?;
        ensure!(answer.status == 200 && given(&answer)?.is_some(), "{header:?}");
    }
    let kept = trial.with("cookie", "tg_id=was-here-before_1").await?;
    ensure!(given(&kept)?.is_none() && trial.is_canarys("was-here-before_1", 5_000) == (kept.version() == Some("v2")));
    Ok(())
}
