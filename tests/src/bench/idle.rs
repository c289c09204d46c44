//! What the control plane takes while nothing happens to the containers that it routes: its share of a core among 1,000 containers
//! of a fake engine, and what it asks of the engine while health checks of 50 strangers run.

use std::time::Duration;

use anyhow::{Result, ensure};
use tidegate_fake_docker::Spec;
use tidegate_figures::Row;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    fleet::{Fleet, routed},
    measured::{processor_time, resident},
};
use crate::edge::Edge;

const CONTAINERS: usize = 1_000;
const WATCHED: Duration = Duration::from_secs(30);
/// After what follows the first sync.
const SETTLED: Duration = Duration::from_secs(3);
const SHARE: f64 = 1.0;
const STRANGERS: usize = 50;
const HEALTHCHECK: Duration = Duration::from_secs(5);

pub(super) async fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (check, labels) in [
        ("checked by TCP each 2 s, the default", &[][..]),
        ("checked by TCP each 30 s", &[("tidegate.check.interval", "30s")]),
        ("not checked", &[("tidegate.check.type", "none")]),
    ] {
        let mut fleet = Fleet::new();
        fleet.run(CONTAINERS, labels).await?;
        let edge = Edge::start_at(&fleet.docker.endpoint(), "{}", &[], 2).await?;
        routed(&edge, CONTAINERS).await?;
        let pid = edge.tidegate.process.pid();
        let name = format!("{CONTAINERS} idle containers, {check}");
        let share = share(pid).await?;
        rows.push(Row::at_most(format!("{name}, share of a core"), share * 100.0, SHARE, "%"));
        rows.push(Row::new(format!("{name}, resident memory"), resident(pid)?, "MiB"));
    }
    rows.extend(strangers().await?);
    Ok(rows)
}

async fn share(pid: u32) -> Result<f64> {
    sleep(SETTLED).await;
    let (before, began) = (processor_time(pid)?, Instant::now());
    sleep(WATCHED).await;
    Ok((processor_time(pid)? - before).as_secs_f64() / began.elapsed().as_secs_f64())
}

/// Each of their health checks is three events, none of which is about what is routed.
async fn strangers() -> Result<Vec<Row>> {
    let mut fleet = Fleet::new();
    let not_checked = [("tidegate.check.type", "none")];
    fleet.run(1, &not_checked).await?;
    let strangers: Vec<String> = (0..STRANGERS)
        .map(|number| {
            let spec = Spec { healthcheck: true, ..Spec::new(&format!("stranger{number}"), &[]) };
            fleet.docker.engine().run(spec)
        })
        .collect();
    let edge = Edge::start_at(&fleet.docker.endpoint(), "{}", &[], 2).await?;
    routed(&edge, 1).await?;
    let pid = edge.tidegate.process.pid();
    sleep(SETTLED).await;
    let (before, began) = (processor_time(pid)?, Instant::now());
    let mut due = began;
    let mut checks = 0;
    while due < began + WATCHED {
        for id in &strangers {
            // One after another, not all at once.
            due += HEALTHCHECK / u32::try_from(STRANGERS)?;
            sleep_until(due).await;
            fleet.docker.engine().exec(id, "/bin/check");
            checks += 1;
        }
    }
    let share = (processor_time(pid)? - before).as_secs_f64() / began.elapsed().as_secs_f64();
    let looks: usize = strangers.iter().map(|id| fleet.docker.engine().inspects_of(id)).sum();
    ensure!(checks >= 6 * STRANGERS, "only {checks} checks");
    let name = format!("{STRANGERS} unrelated containers with a HEALTHCHECK each 5 s");
    Ok(vec![
        Row::at_most(format!("{name}, {checks} of them: inspects of these"), looks as f64, 0.0, ""),
        Row::new(format!("{name}, share of a core"), share * 100.0, "%"),
    ])
}
