//! Rollouts as they are led: by their steps, by operators, and over the death of the control plane. Real Envoy; the instances are
//! processes that a file names.

mod healthy;
mod restarts;
mod steps;

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tidegate_tests::{
    edge::{Edge, Local},
    poll::{SOON, until},
};

/// A service with an instance of each version, before which stands an edge.
struct Shop {
    edge: Edge,
    instances: TempDir,
    locals: Vec<Local>,
}

const SERVICE: &str = "shop";

impl Shop {
    /// v1 is stable, and this the block of the canary v2, without its braces and its version.
    async fn start(canary: &str) -> Result<Self> {
        Self::declaring(&declared("v2", canary), &["v1", "v2"]).await
    }

    async fn declaring(services: &str, versions: &[&str]) -> Result<Self> {
        Self::with(services, versions, &[]).await
    }

    /// The same with its state in this directory.
    async fn keeping_in(state_dir: &Path, canary: &str) -> Result<Self> {
        let state_dir = state_dir.to_str().context("UTF-8")?;
        Self::with(&declared("v2", canary), &["v1", "v2"], &["--state-dir", state_dir]).await
    }

    async fn with(services: &str, versions: &[&str], arguments: &[&str]) -> Result<Self> {
        let (locals, instances) = Local::start_each(SERVICE, versions).await?;
        let edge = Edge::start_on_files(instances.path(), services, arguments, 2).await?;
        // A version that nobody gets is no cluster.
        for version in versions.iter().take(2) {
            edge.healthy(&format!("{SERVICE}/{version}"), 1).await?;
        }
        Ok(Self { edge, instances, locals })
    }

    async fn order(&self, arguments: &[&str]) -> Result<String> {
        let arguments = ["canary"].iter().chain(arguments);
        Ok(self.edge.cli().run(arguments).await?.ok()?.stdout)
    }

    /// What it is told that cannot do what it wants.
    async fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.edge.cli().run(["canary"].iter().chain(arguments)).await?;
        ensure!(output.code == 1, "{arguments:?} ended with {}: {}", output.code, output.stdout);
        Ok(output.stderr)
    }

    async fn status(&self) -> Result<serde_json::Value> {
        self.edge.cli().canary(SERVICE).await
    }

    /// What happened, oldest first: what, and to which weight.
    async fn history(&self) -> Result<Vec<(String, u64)>> {
        let event = |event: &serde_json::Value| {
            let what = event["what"].as_str().unwrap_or_default().to_owned();
            (what, event["to"].as_u64().unwrap_or(u64::MAX))
        };
        Ok(self.events().await?.iter().map(event).collect())
    }

    /// The same, whole.
    async fn events(&self) -> Result<Vec<serde_json::Value>> {
        let mut history = self.edge.cli().json(["canary", "history", SERVICE]).await?;
        history["events"].as_array_mut().map(std::mem::take).context("no events")
    }

    async fn phase(&self, phase: &str) -> Result<()> {
        until(SOON, &format!("the phase {phase}"), async || {
            let status = self.status().await?;
            ensure!(status["rollout"]["phase"] == phase, "{}", status["rollout"]);
            Ok(())
        })
        .await
    }

    async fn weighs(&self, basis_points: u32) -> Result<()> {
        self.edge.weighs(SERVICE, "v2", basis_points).await
    }
}

fn declared(version: &str, canary: &str) -> String {
    format!("{{ {SERVICE}: {{ stable: {{ version: v1 }}, canary: {{ version: {version}, {canary} }} }} }}")
}

/// From one look at Envoy to the next.
const LOOK: Duration = Duration::from_millis(20);
