//! Canaries that fail, at 10 % of 1,000 requests a second: how many requests had failed when the canary's share was gone, beside
//! what the theory of the breaker says (`canary.md`: mean requests to open, times the rate). And one that is only slow, which the control
//! plane's analysis ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidegate_figures::Row;

use crate::{
    edge::{Edge, Local, host},
    envoy::Envoy,
    load::{Ask, Load, Report},
    poll::until,
};

const SERVICE: &str = "shop";
const PER_SECOND: f64 = 1_000.0;
const ROUNDS: usize = 5;
/// Failures in percent, and the canary's requests until it opens, on average.
const BAD: [(u32, f64); 4] = [(100, 7.0), (50, 14.0), (20, 38.0), (10, 97.0)];
/// Of one that fails always, at each edge.
const BUDGET: f64 = 12.0;
/// The longest: five times what the mildest one takes on average, and time to decide.
const LONGEST: Duration = Duration::from_secs(60);

pub(super) async fn run(say: &impl Fn(&str)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (workers, is_two, named) in [(1, false, "one worker"), (2, false, "two workers"), (1, true, "two edges")] {
        let shop = Shop::start(workers, is_two, "breaker: {}").await?;
        for (percent, theory) in BAD {
            say(&format!("canaries: {percent} % failures, {named}"));
            let mut failed = Vec::new();
            for round in 0..ROUNDS {
                failed.push(shop.failed_until_stopped(round, &format!("errors={percent}")).await?);
            }
            failed.sort_unstable();
            let name = format!("a canary fails {percent} %, {named}");
            let median = format!(
                "{name}: failed requests until its share is 0, median (theory {:.0})",
                theory * f64::from(percent) / 100.0
            );
            let (middle, worst) = (failed[failed.len() / 2] as f64, failed[failed.len() - 1] as f64);
            let budget = if is_two { 2.0 * BUDGET } else { BUDGET };
            rows.push(if percent == 100 {
                Row::at_most(median, middle, budget, "")
            } else {
                Row::new(median, middle, "")
            });
            rows.push(Row::new(format!("{name}: the worst of {ROUNDS}"), worst, ""));
        }
    }
    rows.extend(slow(say).await?);
    Ok(rows)
}

/// No answer fails, and each takes 100 ms; a p99 of 50 ms is allowed.
async fn slow(say: &impl Fn(&str)) -> Result<Vec<Row>> {
    say("canaries: a slow one");
    let analysis = "analysis: { interval: 1s, threshold: 3, metrics: [ { name: request-duration, percentile: 99, thresholdRange: { max: 50 } } ] }";
    let shop = Shop::start(2, false, analysis).await?;
    shop.begin(0).await?;
    shop.canary.control("delay_ms=100").await?;
    let load = shop.load().start();
    let began = load.elapsed();
    let by = shop.stopped().await?;
    let took = load.elapsed().saturating_sub(began);
    let report = load.stop().await?;
    ensure!(by == "analysis", "it was ended by {by}");
    let slow = report.samples.iter().filter(|sample| sample.version() == Some("v2")).count();
    Ok(vec![
        Row::new("a canary that takes 100 ms (50 allowed): seconds until it is ended", took.as_secs_f64(), "s"),
        Row::new("a canary that takes 100 ms: slow answers until then", slow as f64, ""),
    ])
}

struct Shop {
    /// Each edge sees a part of the requests, and a breaker that opens at one ends it at both.
    second: Option<Envoy>,
    edge: Edge,
    canary: Local,
    declared: String,
    _stable: Vec<Local>,
    _instances: tempfile::TempDir,
}

impl Shop {
    async fn start(workers: u32, is_two: bool, how: &str) -> Result<Self> {
        let (mut locals, instances) = Local::start_each(SERVICE, &["v1", "v2"]).await?;
        let edge = Edge::start_on_files(instances.path(), "{}", &[], workers).await?;
        for version in ["v1", "v2"] {
            edge.healthy(&format!("{SERVICE}/{version}"), 1).await?;
        }
        let second = if is_two { Some(edge.second_envoy().await?) } else { None };
        let canary = locals.pop().context("v2")?;
        Ok(Self { second, edge, canary, declared: how.to_owned(), _stable: locals, _instances: instances })
    }

    /// A rollout of its own for each round.
    async fn begin(&self, round: usize) -> Result<()> {
        let hash_on = "sessionAffinity: { hashOn: [ { header: X-User } ] }";
        let Self { declared, .. } = self;
        // Another text is another rollout.
        let age = round + 1;
        self.edge.declare(&format!(
            "{{ {SERVICE}: {{ stable: {{ version: v1 }}, canary: {{ version: v2, {hash_on}, {declared}, \
             steps: [ {{ setWeight: 10 }}, {{ pause: {{ duration: {age}h }} }} ] }} }} }}"
        ))?;
        self.weighs(1_000).await
    }

    /// At every edge.
    async fn weighs(&self, basis_points: u32) -> Result<()> {
        for envoy in self.second.iter().chain([&self.edge.envoy]) {
            envoy.weighs(SERVICE, "v2", basis_points).await?;
        }
        Ok(())
    }

    fn load(&self) -> Load {
        let load = Load::get(self.edge.listener, &host(SERVICE), "/").rate(PER_SECOND, 16).requests(100_000);
        load.duration(2 * LONGEST).asking(|n| Ask::get("/").header("x-user", &format!("key-{n}")))
    }

    async fn failed_until_stopped(&self, round: usize, control: &str) -> Result<usize> {
        self.canary.control("errors=0").await?;
        self.begin(round).await?;
        self.canary.control(control).await?;
        let load = self.load().start();
        let by = self.stopped().await?;
        self.weighs(0).await?;
        let report: Report = load.stop().await?;
        ensure!(by.starts_with("breaker"), "it was ended by {by}");
        Ok(report.failed())
    }

    /// Waits until the rollout has ended, and says who ended it.
    async fn stopped(&self) -> Result<String> {
        until(LONGEST, "the end of the rollout", async || {
            let rollout = &self.edge.cli().canary(SERVICE).await?["rollout"];
            ensure!(rollout["phase"] == "aborted", "{}: {}", rollout["phase"], rollout["reason"]);
            Ok(rollout["last"]["by"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }
}
