//! How soon a container that is told to stop is out of rotation: from Docker's event, as another subscriber hears of it, and from the
//! call, until Envoy itself says that its endpoint takes no new requests. The container goes on serving meanwhile.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;
use tidegate_figures::Row;
use tokio::time::{Duration, Instant, sleep};

use super::timings;
use crate::{
    edge::{Edge, backend},
    engine::{Container, Engine},
    poll::SOON,
};

const STOPS: usize = 100;
const BUDGET: Duration = Duration::from_millis(250);

pub(super) async fn run() -> Result<Vec<Row>> {
    let engine = Engine::connect().await?;
    let network = engine.network("drain").await?;
    let edge = Edge::start_at(&engine.direct(), "{}", &[], 2).await?;
    let spec = || backend("drain", "v1").network(&network).env("TERM", "graceful").env("TERM_DELAY_MS", "2000");
    let _staying = engine.run(spec()).await?;
    let (mut from_event, mut from_call) = (Vec::new(), Vec::new());
    for _ in 0..STOPS {
        let leaving = engine.run(spec()).await?;
        edge.healthy("drain/v1", 2).await?;
        let address = leaving.address().await?.to_string();
        let told = Instant::now();
        let (event, out, ()) =
            tokio::try_join!(killed(&engine, &leaving), out(&edge, &address), async { leaving.kill("SIGTERM").await })?;
        ensure!(leaving.get("/version").await?.status == 200, "it has ended, which says nothing of draining");
        from_event.push(out.saturating_duration_since(event));
        from_call.push(out - told);
        leaving.remove().await?;
        edge.healthy("drain/v1", 1).await?;
    }
    let mut rows = timings("Docker's kill event to endpoint out of rotation", from_event, Some(BUDGET));
    rows.extend(timings("docker stop called to endpoint out of rotation", from_call, None));
    Ok(rows)
}

/// When its kill event is heard.
async fn killed(engine: &Engine, container: &Container) -> Result<Instant> {
    let filters = HashMap::from([
        ("container".to_owned(), vec![container.id.clone()]),
        ("event".to_owned(), vec!["kill".to_owned()]),
    ]);
    // What has happened before the subscription is told, too.
    let since = Some("0".to_owned());
    let options = EventsOptions { filters: Some(filters), since, ..Default::default() };
    let mut events = Box::pin(engine.docker().events(Some(options)));
    events.next().await.context("an event")??;
    Ok(Instant::now())
}

/// When Envoy says that it is not healthy.
async fn out(edge: &Edge, address: &str) -> Result<Instant> {
    let began = Instant::now();
    loop {
        let endpoints = edge.envoy.endpoints("drain/v1").await?.unwrap_or_default();
        if !endpoints.iter().any(|endpoint| endpoint.healthy && endpoint.address == address) {
            return Ok(Instant::now());
        }
        ensure!(began.elapsed() < SOON, "{address} stays");
        sleep(Duration::from_millis(1)).await;
    }
}
