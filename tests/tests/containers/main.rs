//! What Docker says of containers, and what becomes of it: several services in one, networks of every kind, and whose they are.
//! Real dockerd, real Envoy. Asserted on what a client sees.

mod networks;
mod owners;
mod services;

use anyhow::{Context, Result, ensure};
use tidegate_core::{Code, Problem, status::Status};
use tidegate_tests::{
    engine::Container,
    poll::{SOON, until},
    tidegate::Cli,
};

/// How problems name it.
fn subject(container: &Container) -> String {
    format!("container {} ({})", container.name, &container.id[..12])
}

/// Waits for the problem of this code and subject.
async fn problem(cli: &Cli, code: Code, subject: &str) -> Result<Problem> {
    until(SOON, &format!("{code} of {subject}"), async || {
        let output = cli.run(["status", "-o", "json"]).await?;
        let status: Status = serde_json::from_str(&output.stdout).context("no status")?;
        let found = status.problems.iter().find(|problem| problem.code == code && problem.subject == subject);
        found.cloned().with_context(|| format!("there are {:#?}", status.problems))
    })
    .await
}

/// Waits until `explain` says this of a subject.
async fn explained(cli: &Cli, subject: &str, said: &str) -> Result<()> {
    until(SOON, &format!("{said:?} of {subject}"), async || {
        let output = cli.run(["explain", subject]).await?;
        ensure!(output.stdout.contains(said), "{}{}", output.stdout, output.stderr);
        Ok(())
    })
    .await
}
