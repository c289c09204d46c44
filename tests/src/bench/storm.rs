//! Many containers start together: 2,000 of a fake engine, spread over ten seconds, and 40 real ones meanwhile, of one control plane
//! that follows both engines. How long after the last start Envoy itself has all of them, what the control plane takes for it, and
//! how often it publishes.

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use tidegate_figures::Row;
use tokio::time::{Instant, interval, sleep_until};

use super::{
    fleet::{Fleet, routed},
    measured::{metrics, most_resident, processor_time},
};
use crate::{
    edge::{Edge, host},
    engine::{Engine, Spec},
};

const FAKE: usize = 2_000;
const REAL: usize = 40;
/// Of the fake ones.
const REPLICAS: usize = 10;
const SPREAD: Duration = Duration::from_secs(10);
/// Starts of real containers under way at once: more of them take an engine longer.
const AT_ONCE: usize = 8;
/// After the last start.
const ROUTED: f64 = 5_000.0;
const MEMORY: f64 = 150.0;
/// A stream is told of so many changes in a second, each with all that came meanwhile; after a quiet time of a few more at once.
const PUSHES: f64 = 20.0;

pub(super) async fn run() -> Result<Vec<Row>> {
    let engine = Engine::connect().await?;
    let network = engine.network("storm").await?;
    let mut fleet = Fleet::new();
    let providers = format!(
        "{{ docker: {{ engines: [ {{ name: fake, endpoint: \"{}\" }}, {{ name: real, endpoint: \"{}\" }} ] }} }}",
        fleet.docker.endpoint(),
        engine.direct()
    );
    let edge = Edge::start_from(providers, "{}", &[], 2).await?;

    let service = engine.unique("storm");
    let run = |number| {
        let spec = Spec::sample(&format!("storm{number}"))
            .label("tidegate.enable", "true")
            .label("tidegate.service", &service)
            .label("tidegate.host", &host(&service))
            .label("tidegate.port", "8080")
            .network(&network);
        engine.run(spec)
    };
    let pid = edge.tidegate.process.pid();
    let before = processor_time(pid)?;
    let began = Instant::now();
    let fake = async {
        for number in 0..FAKE {
            sleep_until(began + SPREAD.mul_f64(number as f64 / FAKE as f64)).await;
            let id = fleet.create(&format!("s{}", number / REPLICAS), &[]).await?;
            fleet.docker.engine().start(&id);
        }
        Ok(Instant::now())
    };
    let real = async {
        let runs = stream::iter(0..REAL).map(run).buffer_unordered(AT_ONCE);
        runs.try_collect::<Vec<_>>().await?;
        Ok::<_, anyhow::Error>(Instant::now())
    };
    let all = async {
        let (fake, real) = tokio::try_join!(fake, real)?;
        let last = fake.max(real);
        routed(&edge, FAKE + REAL).await?;
        Ok::<_, anyhow::Error>((last.elapsed(), last - began))
    };
    // The counters of both, once a second, until all is routed.
    let mut counted = Vec::new();
    let counting = async {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            counted.push((Instant::now(), Counters::of(&edge).await?));
        }
    };
    let (after, took) = tokio::select! {
        all = all => all?,
        failed = counting => return failed,
    };
    counted.push((Instant::now(), Counters::of(&edge).await?));
    let spent = processor_time(pid)? - before;
    let memory = most_resident(pid)?;
    let lists = fleet.asked().1;
    drop(edge);
    engine.clean().await?;

    let name = format!("{FAKE} fake and {REAL} real containers start in {:.0} s", took.as_secs_f64());
    let mut rows = vec![
        Row::at_most(format!("{name}, the last one to all in Envoy"), after.as_secs_f64() * 1e3, ROUTED, "ms"),
        Row::at_most(format!("{name}, most memory of the control plane"), memory, MEMORY, "MiB"),
    ];
    for (kind, counter) in [("clusters", Counters::CLUSTERS), ("routes", Counters::ROUTES)] {
        let rates = rates(&counted, counter);
        let name = format!("{name}, updates of {kind} that Envoy took");
        let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
        rows.push(Row::at_most(format!("{name}, mean of the seconds with any"), mean, PUSHES, "1/s"));
        rows.push(Row::new(format!("{name}, in the worst second"), most(&rates), "1/s"));
    }
    let (responses, commits) = (rates(&counted, Counters::RESPONSES), rates(&counted, Counters::COMMITS));
    rows.extend([
        Row::new(format!("{name}, responses of all types in the worst second"), most(&responses), "1/s"),
        Row::new(format!("{name}, commits in the worst second"), most(&commits), "1/s"),
        Row::new(format!("{name}, processor time of the control plane"), spent.as_secs_f64() * 1e3, "ms"),
        Row::new(format!("{name}, lists"), lists as f64, ""),
    ]);
    Ok(rows)
}

/// What was counted so far.
struct Counters {
    clusters: f64,
    routes: f64,
    responses: f64,
    commits: f64,
}

impl Counters {
    const CLUSTERS: fn(&Self) -> f64 = |counters| counters.clusters;
    const ROUTES: fn(&Self) -> f64 = |counters| counters.routes;
    const RESPONSES: fn(&Self) -> f64 = |counters| counters.responses;
    const COMMITS: fn(&Self) -> f64 = |counters| counters.commits;

    async fn of(edge: &Edge) -> Result<Self> {
        let counted = metrics(edge.api()).await?;
        let value = |name: &str| counted.get(name).copied().with_context(|| name.to_owned());
        Ok(Self {
            clusters: edge.envoy.stat("cluster_manager.cds.update_success").await? as f64,
            routes: edge.envoy.stat("http.web.rds.web.update_success").await? as f64,
            responses: value("tidegate_xds_responses_total")?,
            commits: value("tidegate_xds_commits_total")?,
        })
    }
}

/// How much a counter grew between two looks, by the second, where it did.
fn rates(counted: &[(Instant, Counters)], counter: fn(&Counters) -> f64) -> Vec<f64> {
    // Two looks soon after each other say little of a second.
    let pairs = counted.windows(2).filter(|pair| pair[1].0 - pair[0].0 > Duration::from_millis(500));
    let rates = pairs.map(|pair| (counter(&pair[1].1) - counter(&pair[0].1)) / (pair[1].0 - pair[0].0).as_secs_f64());
    rates.filter(|rate| *rate > 0.0).collect()
}

fn most(rates: &[f64]) -> f64 {
    rates.iter().copied().fold(0.0, f64::max)
}
