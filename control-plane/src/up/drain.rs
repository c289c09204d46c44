//! Ends an Envoy without hurting its clients: its listeners drain, which asks clients to close their connections, and it is ended
//! when none is left, or no request is in flight, or the time is up.

use std::time::Duration;

use tokio::time::Instant;

use super::child::Child;
use crate::envoy::AdminClient;

/// How long requests in flight may take: Docker's own default stop timeout.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// Clients that have no request in flight are waited for so long.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// From one look to the next.
const LOOK: Duration = Duration::from_millis(50);
/// How long Envoy has to end once nothing is in flight.
const STOP_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn drain(admin: &AdminClient, child: &mut Child) {
    let begun = Instant::now();
    let drained = async {
        admin.post("/healthcheck/fail").await?;
        admin.post("/drain_listeners?graceful&skip_exit").await?;
        loop {
            let stats = admin.stats(r"^http\..*downstream_(cx|rq)_active$").await?;
            let sum = |end: &str| -> u64 {
                stats.iter().filter(|(n, _)| n.ends_with(end) && !n.starts_with("http.admin.")).map(|(_, v)| v).sum()
            };
            let idle = sum("downstream_rq_active") == 0;
            if sum("downstream_cx_active") == 0 || (idle && begun.elapsed() >= IDLE_LIMIT) {
                return Ok::<(), crate::envoy::AdminError>(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        drained = tokio::time::timeout(LIMIT, drained) => match drained {
            Ok(Ok(())) => tracing::info!(took = ?begun.elapsed(), "Envoy is drained"),
            Ok(Err(error)) => tracing::warn!(%error, "Envoy cannot be drained"),
            Err(_) => tracing::warn!("requests are still in flight, Envoy is ended all the same"),
        },
        _ = child.ended() => return,
    }
    child.stop(STOP_LIMIT).await;
}
