//! `tidegate up`: two children, `tidegate run` and Envoy, each started again when it ends, and neither touched by the end of the
//! other. What keeps Envoy from starting is told at the terminal, and to `run`, which shows it in `status`; it is tried again
//! until it works. SIGTERM and SIGINT drain Envoy first and stop `run` after it; a second one ends both at once.

mod backoff;
mod child;
mod drain;
mod edge;
mod plane;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::Context;
use tidegate_core::Problem;
use tidegate_core::bootstrap::{EdgeNode, EdgeTls};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::options::RunOptions;

/// What `up` was asked to do.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// Passed on to `run`.
    pub run: RunOptions,
    /// Envoy's binary, a path or a name; `None`: `envoy`.
    pub envoy: Option<PathBuf>,
    /// The value of `PATH`.
    pub path: Option<OsString>,
    /// This program.
    pub program: PathBuf,
    /// What the edge says of itself.
    pub node: EdgeNode,
    /// What the edge shows where xDS is served over TLS.
    pub tls: Option<EdgeTls>,
    /// Logs as JSON.
    pub json_logs: bool,
    /// Says a problem at the terminal.
    pub tell: fn(&Problem),
}

/// Runs until SIGTERM or SIGINT. Call it on the main thread of a current-thread runtime: a child's death signal comes when
/// the *thread* that started it ends.
///
/// # Errors
/// When signals cannot be listened to, or the state directory cannot be made.
pub async fn up(options: UpOptions) -> anyhow::Result<()> {
    let state_dir = &options.run.state_dir;
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("the state directory {} cannot be made", state_dir.display()))?;
    let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be listened to")?;
    let mut int = signal(SignalKind::interrupt()).context("SIGINT cannot be listened to")?;
    let mut asked_to_stop = async || {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    let (problems, reported) = watch::channel(Vec::new());
    let (stop_edge, stop_plane) = (CancellationToken::new(), CancellationToken::new());
    let plane = plane::supervise(&options, reported, stop_plane.clone());
    let edge = async {
        edge::supervise(&options, problems, stop_edge.clone()).await;
        stop_plane.cancel();
    };
    let stop = async {
        asked_to_stop().await;
        tracing::info!("draining");
        stop_edge.cancel();
        asked_to_stop().await;
        tracing::warn!("asked to stop twice, not waiting");
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(plane, edge) } => {}
        // Both children are killed when their supervisors are dropped.
        () = stop => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
