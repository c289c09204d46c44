//! Instances from files alone: a real Envoy, loopback backends, no Docker.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tidegate_core::{Code, Problem, status::Status};
use tidegate_tests::{
    edge::{Edge, Local, host},
    load::Load,
    poll::{SOON, until},
};

/// A directory of instances.
struct Files(TempDir);

impl Files {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("instances")
    }

    /// Writes as an editor does: beside it, and renamed over it.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::create_dir_all(self.path())?;
        let staging = self.0.path().join("staging");
        fs::write(&staging, text)?;
        fs::rename(staging, self.path().join(name))?;
        Ok(())
    }
}

async fn status(edge: &Edge) -> Result<Status> {
    let output = edge.cli().run(["status", "-o", "json"]).await?;
    serde_json::from_str(&output.stdout).with_context(|| format!("{}{}", output.stdout, output.stderr))
}

/// Waits for a problem of this code whose subject begins like this, as the only one of the files.
async fn problem(edge: &Edge, code: Code, place: &str) -> Result<Problem> {
    until(SOON, &format!("{code} at {place}"), async || {
        let problems = status(edge).await?.problems;
        let found: Vec<_> = problems.iter().filter(|problem| problem.code.as_str().starts_with("TG012")).collect();
        let [problem] = found[..] else { bail!("there are {problems:#?}") };
        ensure!(problem.code == code && problem.subject.starts_with(place), "there is {problem}");
        Ok(problem.clone())
    })
    .await
}

async fn no_problems(edge: &Edge) -> Result<()> {
    until(SOON, "the end of all problems", async || {
        let problems = status(edge).await?.problems;
        ensure!(problems.is_empty(), "there are {problems:#?}");
        Ok(())
    })
    .await
}

/// Waits until this version answers.
async fn answered_by(edge: &Edge, service: &str, version: &str) -> Result<()> {
    until(SOON, &format!("{service} {version}"), async || {
        let answer = edge.get(&host(service)).await?;
        let by = answer.text().trim().to_owned();
        ensure!(answer.status == 200 && by.contains(version), "{}: {by}", answer.status);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn files_are_served_and_an_edit_moves_traffic() -> Result<()> {
    let (v1, v2) = (Local::start("shop", "v1").await?, Local::start("shop", "v2").await?);
    let cart = Local::start("cart", "v1").await?;
    let files = Files::new()?;
    files.write("shop.yaml", &v1.entry("shop", "v1"))?;
    files.write("cart.yaml", &cart.entry("cart", "v1"))?;
    let edge = Edge::on_files(&files.path(), "{}").await?;
    answered_by(&edge, "shop", "v1").await?;
    answered_by(&edge, "cart", "v1").await?;

    let witness = Load::get(edge.listener, &host("cart"), "/").rate(50.0, 4).duration(10 * SOON).start();
    let load = Load::get(edge.listener, &host("shop"), "/").rate(50.0, 4).duration(10 * SOON).start();
    // Both, so that the new one is ready before the old one goes.
    files.write("shop.yaml", &(v1.entry("shop", "v1") + &v2.entry("shop", "v2")))?;
    edge.healthy("shop/v2", 1).await?;
    files.write("shop.yaml", &v2.entry("shop", "v2"))?;
    until(SOON, "the old version's end", async || {
        ensure!(edge.envoy.endpoints("shop/v1").await?.is_none_or(|endpoints| endpoints.is_empty()), "it is there");
        Ok(())
    })
    .await?;
    answered_by(&edge, "shop", "v2").await?;
    let report = load.stop().await?;
    ensure!(report.count() > 0, "it was never asked");
    report.all_succeeded()?;

    fs::remove_file(files.path().join("shop.yaml"))?;
    edge.answers(&host("shop"), 404).await?;
    answered_by(&edge, "cart", "v1").await?;
    let report = witness.stop().await?;
    ensure!(report.count() > 0, "it was never asked");
    report.all_succeeded()
}

#[tokio::test]
async fn a_bad_edit_changes_nothing_and_is_told_with_line_and_column() -> Result<()> {
    let (left, right) = (Local::start("shop", "v1").await?, Local::start("cart", "v1").await?);
    let files = Files::new()?;
    let good = left.entry("shop", "v1") + &right.entry("cart", "v1");
    files.write("all.yaml", &good)?;
    let edge = Edge::on_files(&files.path(), "{}").await?;
    edge.healthy("shop/v1", 1).await?;
    edge.healthy("cart/v1", 1).await?;
    no_problems(&edge).await?;
    let load = Load::get(edge.listener, &host("shop"), "/").rate(50.0, 4).duration(10 * SOON).start();

    let entry = left.entry("shop", "v1");
    let column = |of: &str| entry.find(of).map(|at| at + 1).context("a word of the entry");
    let right = right.entry("cart", "v1");
    let cases = [
        (entry.replace("host:", "hots:"), Code::InvalidEntry, column("host:")?, "did you mean `host`?"),
        (entry.replace("\"127.0.0.1:", "\"localhost:"), Code::InvalidEntry, column("\"127")?, "write IP:PORT"),
        (entry.clone() + &entry, Code::DuplicateEntry, 3, "remove one of the two"),
        (entry.replace('}', ""), Code::InvalidInstances, 0, "mend the syntax"),
    ];
    for (text, code, column, cure) in cases {
        let line = 1 + usize::from(code == Code::DuplicateEntry);
        files.write("all.yaml", &(text + &right))?;
        let place = if column == 0 { "all.yaml:".to_owned() } else { format!("all.yaml:{line}:{column}") };
        let found = problem(&edge, code, &place).await?;
        assert!(found.cure.contains(cure), "{found}");
        let shown = edge.cli().run(["status"]).await?;
        assert!(shown.code == 1 && shown.stdout.contains(&found.to_string()), "{}", shown.stdout);
        edge.healthy("shop/v1", 1).await?;
        edge.healthy("cart/v1", 1).await?;
    }
    files.write("all.yaml", &good)?;
    no_problems(&edge).await?;

    let away = files.0.path().join("away");
    fs::rename(files.path(), &away)?;
    problem(&edge, Code::UnreadableInstances, &files.path().display().to_string()).await?;
    edge.healthy("shop/v1", 1).await?;
    fs::rename(away, files.path())?;
    no_problems(&edge).await?;
    let report = load.stop().await?;
    ensure!(report.count() > 0, "it was never asked");
    report.all_succeeded()
}

#[tokio::test]
async fn entries_are_shown_as_what_they_are() -> Result<()> {
    let backend = Local::start("shop", "v1").await?;
    let files = Files::new()?;
    let entry = backend.entry("shop", "v1");
    files.write(
        "shop.yaml",
        &(entry.replace("- {", "- { name: left,") + "- { service: gone, address: \"127.0.0.1:1\" }\n"),
    )?;
    let edge = Edge::on_files(&files.path(), "{}").await?;
    edge.healthy("shop/v1", 1).await?;

    let status = status(&edge).await?;
    let [provider] = status.providers.as_slice() else { panic!("{:?}", status.providers) };
    assert_eq!((provider.name.as_str(), provider.containers, provider.enabled), ("file", 2, 2));
    let subjects: Vec<&str> = status.problems.iter().map(|problem| problem.subject.as_str()).collect();
    assert!(subjects.contains(&"entry gone/default@127.0.0.1:1"), "{subjects:?}");

    let explained = edge.cli().run(["explain", "left"]).await?.ok()?.stdout;
    let subject = format!("entry left (shop/v1@{})", backend.address);
    for said in [&*subject, "every stage passed", "read at shop.yaml:1:3", "as the entry says"] {
        assert!(explained.contains(said), "{said:?} is not in\n{explained}");
    }
    assert!(!explained.contains("ocker"), "{explained}");
    let services = edge.cli().json(["ps"]).await?;
    let shop = services["services"].as_array().and_then(|all| all.iter().find(|of| of["name"] == "shop"));
    let instance = &shop.context("the service")?["versions"][0]["instances"][0];
    assert_eq!((&instance["container"], &instance["network"]), (&"left".into(), &"host".into()));
    Ok(())
}
