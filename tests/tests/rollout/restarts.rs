//! The control plane dies, again and again: the rollout goes on where it was.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tidegate_tests::{disk::Disk, envoy::weight, poll::wall_clock};
use tokio::task::JoinSet;

use super::{LOOK, SOON, Shop, until};

const KILLS: u32 = 50;
const STAGES: u32 = 30;
const PAUSE: Duration = Duration::from_secs(1);
/// A weight is in Envoy, and seen there, a moment after its step began: on disk first.
const LATE: Duration = Duration::from_millis(250);
/// What the milliseconds of each kill may add up to.
const ROUNDING: Duration = Duration::from_millis(20);
/// Until a new control plane lives long enough to have seen everything again, and until a look sees what Envoy has.
const SLACK: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_control_plane_killed_at_any_moment_goes_on_with_the_same_step_weight_and_timer() -> Result<()> {
    let seed = rand::rng().random();
    killed(seed).await.with_context(|| format!("seed {seed}"))
}

async fn killed(seed: u64) -> Result<()> {
    let mut random = StdRng::seed_from_u64(seed);
    let steps: Vec<String> =
        (1..=STAGES).map(|stage| format!("{{ setWeight: {stage} }}, {{ pause: {{ duration: {PAUSE:?} }} }}")).collect();
    let shop = Shop::start(&format!("steps: [ {}, {{ setWeight: 99 }}, {{ pause: {{}} }} ]", steps.join(", "))).await?;
    let Shop { mut edge, instances, locals } = shop;

    // Every weight that Envoy had, when it was seen first, and the look before.
    let seen: Arc<Mutex<Vec<Weight>>> = Arc::default();
    let mut looking = JoinSet::new();
    {
        let (seen, admin) = (Arc::clone(&seen), edge.envoy.admin().clone());
        looking.spawn(async move {
            let mut before = wall_clock();
            loop {
                let look = wall_clock();
                if let Ok(Some(weight)) = weight(&admin, super::SERVICE, "v2").await {
                    let mut seen = seen.lock().expect("nobody panics with it");
                    if seen.last().is_none_or(|last| last.weight != weight) {
                        seen.push(Weight { weight, before, at: wall_clock() });
                    }
                    before = look;
                }
                tokio::time::sleep(LOOK).await;
            }
        });
    }
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..900))).await;
        edge = edge.restart_control_plane().await?;
    }
    let shop = Shop { edge, instances, locals };
    until(SOON, "the last weight to be seen", async || {
        let last = seen.lock().expect("nobody panics with it").last().map(|last| last.weight);
        ensure!(last == Some(9_900), "{last:?}");
        Ok(())
    })
    .await?;
    looking.shutdown().await;

    let seen = std::mem::take(&mut *seen.lock().expect("nobody panics with it"));
    let expected: Vec<u32> = (1..=STAGES).map(|stage| stage * 100).chain([9_900]).collect();
    let weights: Vec<u32> = seen.iter().map(|seen| seen.weight).skip_while(|weight| *weight == 0).collect();
    ensure!(weights == expected, "Envoy had {weights:?}");
    // When the first one began, nobody looked yet. A look that was late makes none seem short.
    for pair in seen.windows(2).filter(|pair| pair[0].weight > 100) {
        let lasted = pair[1].at.saturating_sub(pair[0].before);
        ensure!(lasted + LATE >= PAUSE, "{} lasted {lasted:?}", pair[0].weight);
        let lasted = pair[1].at.saturating_sub(pair[0].at);
        ensure!(lasted <= PAUSE + SLACK, "{} lasted {lasted:?}", pair[0].weight);
    }
    let events = shop.events().await?;
    let advanced = events.iter().filter(|event| event["what"] == "advanced");
    let began: Vec<(Duration, u64)> = advanced
        .filter_map(|event| Some((Duration::from_millis(event["at"].as_u64()?), event["to"].as_u64()?)))
        .collect();
    ensure!(began.iter().map(|(_, to)| *to).eq(expected.iter().map(|weight| u64::from(*weight))), "{events:?}");
    for pair in began.windows(2) {
        let lasted = pair[1].0.saturating_sub(pair[0].0);
        ensure!(lasted + ROUNDING >= PAUSE && lasted <= PAUSE + SLACK, "{} lasted {lasted:?}", pair[0].1);
    }
    for (Weight { weight, at, .. }, (began, _)) in seen.iter().filter(|seen| seen.weight > 0).zip(&began) {
        ensure!(*at + ROUNDING >= *began, "{weight} was in Envoy {:?} before its step", began.saturating_sub(*at));
    }
    Ok(())
}

/// A weight that Envoy had; times since 1970.
struct Weight {
    weight: u32,
    before: Duration,
    at: Duration,
}

#[tokio::test]
async fn what_was_kept_of_a_rollout_and_is_damaged_is_set_aside_and_it_stands_still_at_its_weight() -> Result<()> {
    let shop =
        Shop::start("steps: [ { setWeight: 20 }, { pause: { duration: 1h } }, { setWeight: 50 }, { pause: {} } ]")
            .await?;
    shop.weighs(2_000).await?;
    shop.phase("progressing").await?;
    let Shop { edge, instances, locals } = shop;
    let state = edge.tidegate.directory().join("tidegate-state");
    // Until SIGTERM has let it keep what is published, too.
    let damage = async {
        let file = state.join("rollouts.json");
        let mut kept = std::fs::read(&file).expect("it was kept");
        kept.truncate(kept.len() / 2);
        std::fs::write(&file, kept).expect("it can be written");
    };
    let edge = edge.without_control_plane(damage).await?;
    let shop = Shop { edge, instances, locals };
    shop.phase("paused").await?;
    ensure!(weight(shop.edge.envoy.admin(), super::SERVICE, "v2").await? == Some(2_000), "it stands still");
    let problems = shop.edge.cli().run(["status"]).await?.stdout;
    ensure!(problems.contains("TG0306") && problems.contains("rollouts.json.unreadable"), "{problems}");
    ensure!(state.join("rollouts.json.unreadable").is_file());
    shop.order(&["promote", super::SERVICE]).await?;
    shop.weighs(2_000).await?;
    shop.order(&["promote", super::SERVICE]).await?;
    shop.weighs(5_000).await
}

#[tokio::test]
async fn a_full_disk_stops_no_rollout_and_says_what_a_restart_would_undo() -> Result<()> {
    let disk = Disk::new("1m")?;
    let shop =
        Shop::keeping_in(disk.path(), "steps: [ { setWeight: 20 }, { pause: {} }, { setWeight: 50 }, { pause: {} } ]")
            .await?;
    shop.weighs(2_000).await?;
    shop.phase("paused").await?;
    let file = disk.path().join("rollouts.json");
    let token = disk.path().to_str().context("UTF-8")?;
    until(SOON, "the rollout to be kept", async || {
        ensure!(std::fs::read_to_string(&file)?.contains("paused"));
        Ok(())
    })
    .await?;
    let filler = disk.fill()?;
    let old = std::fs::read(&file)?;
    let told = shop.edge.cli().run(["canary", "promote", super::SERVICE, "--state-dir", token]).await?;
    ensure!(told.stderr.contains("it is done, but a restart would undo it"), "{}", told.stderr);
    shop.weighs(5_000).await?;
    assert_eq!(std::fs::read(&file)?, old, "the old file is intact");
    let problems = shop.edge.cli().run(["status"]).await?.stdout;
    ensure!(problems.contains("TG0306"), "{problems}");
    std::fs::remove_file(filler)?;
    shop.edge.cli().run(["canary", "abort", super::SERVICE, "--state-dir", token]).await?.ok()?;
    shop.weighs(0).await
}
