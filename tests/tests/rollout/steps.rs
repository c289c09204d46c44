//! A rollout goes by its steps, and where operators want it to go.

use anyhow::{Result, ensure};

use super::{SERVICE, Shop, declared};

#[tokio::test]
async fn a_rollout_climbs_by_its_steps_and_says_at_each_what_it_waits_for() -> Result<()> {
    let steps = "steps: [ { setWeight: 5 }, { pause: { duration: 1s } }, { setWeight: 20 }, { pause: {} }, { setWeight: 50 }, { pause: { duration: 1s } } ]";
    let shop = Shop::start(steps).await?;
    shop.weighs(500).await?;
    shop.weighs(2_000).await?;
    shop.phase("paused").await?;
    let screen = shop.edge.cli().run(["canary", "status", SERVICE]).await?.ok()?.stdout;
    ensure!(screen.contains("5 % for 1s → [20 % until promoted"), "{screen}");
    ensure!(screen.contains("`promote` goes on"), "{screen}");

    let refused = shop.refused(&["resume", SERVICE]).await?;
    ensure!(refused.contains("`promote` goes on to the next one"), "{refused}");
    shop.order(&["promote", SERVICE]).await?;
    shop.weighs(5_000).await?;
    shop.weighs(10_000).await?;
    shop.phase("promoted").await?;
    let expected = [
        ("began", 0),
        ("advanced", 500),
        ("advanced", 2_000),
        ("paused", 2_000),
        ("advanced", 5_000),
        ("promoted", 10_000),
    ];
    let expected = expected.map(|(what, to)| (what.to_owned(), to));
    assert_eq!(shop.history().await?, expected);
    let refused = shop.refused(&["abort", SERVICE]).await?;
    ensure!(refused.contains("take it back with `undo`"), "{refused}");
    shop.order(&["undo", SERVICE, "--reason", "it was too early"]).await?;
    shop.weighs(0).await?;
    let history = shop.edge.cli().run(["canary", "history", SERVICE]).await?.ok()?.stdout;
    ensure!(history.contains("because it was too early"), "{history}");
    Ok(())
}

#[tokio::test]
async fn an_operator_sets_pauses_aborts_and_tries_again() -> Result<()> {
    let shop =
        Shop::start("steps: [ { setWeight: 5 }, { pause: { duration: 1h } }, { setWeight: 50 }, { pause: {} } ]")
            .await?;
    shop.weighs(500).await?;
    shop.order(&["set", SERVICE, "33.33"]).await?;
    shop.weighs(3_333).await?;
    let status = shop.status().await?;
    assert_eq!(status["rollout"]["overridden"], 3_333, "{status}");
    shop.order(&["resume", SERVICE]).await?;
    shop.weighs(500).await?;
    shop.order(&["pause", SERVICE]).await?;
    shop.phase("paused").await?;
    shop.order(&["promote", SERVICE]).await?;
    shop.weighs(5_000).await?;
    shop.order(&["abort", SERVICE]).await?;
    shop.weighs(0).await?;
    let refused = shop.refused(&["promote", SERVICE, "--full"]).await?;
    ensure!(refused.contains("`retry` it first"), "{refused}");
    let output = shop.edge.cli().run(["canary", "status", SERVICE]).await?;
    assert_eq!(output.code, 1, "an aborted rollout is a problem: {}", output.stdout);
    shop.order(&["retry", SERVICE]).await?;
    shop.weighs(500).await?;
    for (arguments, reason) in [
        (&["set", SERVICE, "101"][..], "is not a weight"),
        (&["abort", "shopp"], "did you mean `shop`?"),
        (&["start", SERVICE, "--version", "v2"], "declared by tidegate.yaml"),
    ] {
        let output = shop.edge.cli().run(["canary"].iter().chain(arguments)).await?;
        ensure!(output.code != 0 && output.stderr.contains(reason), "{arguments:?}: {}", output.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn another_version_begins_with_nothing_and_another_weight_moves_nobody_back() -> Result<()> {
    let shop = Shop::declaring(&declared("v2", "weight: 40"), &["v1", "v2", "v3"]).await?;
    shop.weighs(4_000).await?;
    shop.edge.declare(&declared("v2", "weight: 60"))?;
    shop.weighs(6_000).await?;
    let history = shop.history().await?;
    let lowest = history.iter().filter(|(what, _)| what != "began").map(|(_, to)| *to).min();
    assert_eq!(lowest, Some(4_000), "{history:?}");

    shop.edge.declare(&declared("v3", "weight: 30"))?;
    shop.edge.weighs(SERVICE, "v3", 3_000).await?;
    let history = shop.history().await?;
    let tail: Vec<_> = history.iter().rev().take(3).map(|(what, to)| (what.as_str(), *to)).collect();
    assert_eq!(tail, [("paused", 3_000), ("advanced", 3_000), ("began", 0)], "{history:?}");

    shop.edge.declare(&format!("{{ {SERVICE}: {{ stable: {{ version: v1 }} }} }}"))?;
    tidegate_tests::poll::until(super::SOON, "the end of it", async || {
        let history = shop.history().await?;
        ensure!(history.last() == Some(&("aborted".to_owned(), 0)), "{:?}", history.last());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rollout_that_no_file_declares_is_started_led_and_ended_by_hand() -> Result<()> {
    let shop = Shop::declaring("{}", &["v1", "v2"]).await?;
    let refused = shop.refused(&["start", SERVICE, "--version", "v9"]).await?;
    ensure!(refused.contains("has no version v9: there are v1, v2"), "{refused}");
    shop.order(&["start", SERVICE, "--version", "v2", "--weight", "10"]).await?;
    shop.weighs(1_000).await?;
    // It is kept: no file says it.
    let Shop { edge, instances, locals } = shop;
    let shop = Shop { edge: edge.restart_control_plane().await?, instances, locals };
    shop.phase("paused").await?;
    shop.weighs(1_000).await?;
    shop.order(&["promote", SERVICE, "--full"]).await?;
    shop.weighs(10_000).await?;
    shop.edge.declare(&format!("{{ {SERVICE}: {{ stable: {{ version: v2 }} }} }}"))?;
    let gone = async || {
        let none = shop.edge.cli().run(["canary", "status", SERVICE]).await?;
        ensure!(none.stderr.contains("has no canary"), "{}", none.stdout);
        Ok(())
    };
    tidegate_tests::poll::until(super::SOON, "the rollout to be over", gone).await?;
    let answer = shop.edge.get(&tidegate_tests::edge::host(SERVICE)).await?;
    assert_eq!(answer.status, 200);
    Ok(())
}
