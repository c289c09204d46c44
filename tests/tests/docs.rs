//! README.md and docs/ are true: every YAML example is validated, every shell example is run, and every label, problem code,
//! command, link and test that they name exists.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tempfile::TempDir;
use tidegate_core::{
    Code, Problem, Timestamp,
    container::Container,
    instance::{Hint, Phase},
    instances_file,
    labels::{self, Placement, SCHEMA, Sighting},
};
use tidegate_tests::{
    client::Request,
    engine::{Engine, Spec},
    envoy,
    load::Load,
    poll::{SOON, until},
    ports,
    process::Process,
    run::LABEL,
    tidegate::{self, Cli},
};

/// The shell examples that the tests below run.
const RUN: [&str; 3] = ["first-canary", "own-envoy", "xds-tls"];

// --- what is written ---------------------------------------------------------------------------------------------------

/// A fenced block of a document.
struct Block {
    file: String,
    line: usize,
    language: String,
    /// The HTML comment right above it.
    marker: Option<String>,
    text: String,
}

impl Block {
    fn place(&self) -> String {
        format!("{}:{}", self.file, self.line)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Name and text of README.md and everything in docs/.
fn documents() -> Result<BTreeMap<String, String>> {
    let mut paths = vec![PathBuf::from("README.md")];
    for entry in fs::read_dir(root().join("docs"))? {
        let name = entry?.file_name();
        paths.push(Path::new("docs").join(name));
    }
    paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| Ok((path.display().to_string(), fs::read_to_string(root().join(&path))?)))
        .collect()
}

fn document(name: &str) -> Result<String> {
    documents()?.remove(name).with_context(|| format!("there is no {name}"))
}

fn blocks() -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for (file, text) in documents()? {
        let mut marker = None;
        let mut open: Option<Block> = None;
        for (index, line) in text.lines().enumerate() {
            match (&mut open, line.strip_prefix("```")) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text.push_str(&format!("{line}\n")),
                (None, Some(language)) => {
                    open = Some(Block {
                        file: file.clone(),
                        line: index + 1,
                        language: language.to_owned(),
                        marker: marker.take(),
                        text: String::new(),
                    });
                }
                (None, None) => {
                    let comment = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                    marker = comment.map(ToOwned::to_owned);
                }
            }
        }
        ensure!(open.is_none(), "{file}: a block is not closed");
    }
    Ok(blocks)
}

/// The cells of the rows of every table in a text, without its header.
fn rows(text: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inner = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
    };
    let lines: Vec<&str> = text.lines().collect();
    let mut rows = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_header = lines.get(index + 1).is_some_and(|next| next.starts_with("|---"));
        if !is_header && !line.starts_with("|---") {
            rows.extend(cells(line));
        }
    }
    rows
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

// --- examples of configuration ---------------------------------------------------------------------------------------

#[tokio::test]
async fn yaml_examples_are_valid_or_fail_as_shown() -> Result<()> {
    let blocks = blocks()?;
    let mut validated = 0;
    for (index, block) in blocks.iter().enumerate().filter(|(_, block)| block.language == "yaml") {
        if block.marker.as_deref() == Some("compose") {
            continue;
        }
        if block.marker.as_deref() == Some("instances") {
            let reading = instances_file::read("instances.yaml", &block.text);
            let reading = reading.map_err(|problem| anyhow!("{}: {problem}", block.place()))?;
            ensure!(reading.problems.is_empty(), "{}: {:#?}", block.place(), reading.problems);
            validated += 1;
            continue;
        }
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("tidegate.yaml"), &block.text)?;
        // What examples name.
        fs::create_dir(directory.path().join("instances"))?;
        fs::create_dir(directory.path().join("pki"))?;
        let authority = rcgen::generate_simple_self_signed(Vec::new())?.cert;
        fs::write(directory.path().join("pki/ca.pem"), authority.pem())?;
        let cli = Cli { directory: Some(directory.path().to_owned()), ..Cli::default() };
        let output = cli.run(["validate", "tidegate.yaml"]).await?;
        let place = block.place();
        match block.marker.as_deref() {
            None => ensure!(output.code == 0, "{place} is not valid:\n{}{}", output.stdout, output.stderr),
            Some("invalid") => {
                let shown = blocks.get(index + 1).filter(|next| next.language == "text" && next.file == block.file);
                let shown = shown.with_context(|| format!("{place}: a text block with the problems comes next"))?;
                assert_eq!((output.code, output.stdout.as_str()), (1, shown.text.as_str()), "{place}");
            }
            Some(other) => bail!("{place}: nobody knows what to do with {other:?}"),
        }
        validated += 1;
    }
    ensure!(validated > 5, "only {validated} examples were found");
    Ok(())
}

#[test]
fn every_key_of_the_configuration_is_documented_and_known() -> Result<()> {
    let keys: BTreeSet<String> = rows(&document("docs/configuration.md")?)
        .iter()
        .filter_map(|row| quoted(row.first()?).next().map(ToOwned::to_owned))
        .collect();
    // An unknown key of each mapping is told all that are known.
    let mapping = "services: { s: { stable: { x: 1 }, canary: { x: 1, match: { header: { x: 1 }, cookie: { x: 1 }, x: 1 }, \
                   sessionAffinity: { hashOn: [ { x: 1 } ], x: 1 }, steps: [ { x: 1 }, { pause: { x: 1 } } ], \
                   analysis: { metrics: [ { prometheus: { x: 1 }, thresholdRange: { x: 1 }, x: 1 } ], x: 1 }, \
                   breaker: { x: 1 }, webhooks: [ { x: 1 } ] }, tls: { x: 1 }, x: 1 } }\n\
                   edge: { groups: [ { name: g, nodes: { x: 1 }, x: 1 } ], x: 1 }\nxds: { tls: { x: 1 }, x: 1 }\n\
                   api: { x: 1 }\nownership: { allow: [ { x: 1 } ], x: 1 }\nproviders: { docker: { tls: { x: 1 }, engines: [ { tls: { x: 1 }, x: 1 } ], x: 1 }, file: { x: 1 }, x: 1 }\n";
    // So long that it is near to none.
    let mapping = mapping.replace("x: 1", "zzzzzzzzz: 1");
    let problems = tidegate_core::config::parse("f", &mapping).expect_err("it is invalid");
    let mut checked = 0;
    for problem in problems {
        let Some(path) = problem.reason.strip_prefix("there is no key `zzzzzzzzz` in ") else { continue };
        let path = path.trim_matches('`').replace("services.s", "services.NAME");
        for key in problem.cure.trim_start_matches("the keys are ").split(", ") {
            let key = format!("{path}.{key}");
            let documented = keys.iter().any(|known| *known == key || known.starts_with(&format!("{key}.")));
            ensure!(documented, "`{key}` is not documented in docs/configuration.md");
            checked += 1;
        }
    }
    ensure!(checked >= keys.len(), "{checked} keys were checked and {} are documented", keys.len());
    Ok(())
}

#[test]
fn every_word_of_an_entry_is_documented_and_known() -> Result<()> {
    let rows = rows(&document("docs/files.md")?);
    let documented: BTreeSet<&str> = rows.iter().filter_map(|row| quoted(row.first()?).next()).collect();
    // An unknown word is told all that are known.
    let reading = instances_file::read(
        "f",
        "- { zzzzzzzzz: 1, check: { zzzzzzzzz: 1 }, ready: { zzzzzzzzz: 1 }, canary: { zzzzzzzzz: 1 } }",
    );
    let mut known = BTreeSet::new();
    for problem in reading.map_err(|problem| anyhow!("{problem}"))?.problems {
        let Some(place) = problem.reason.strip_prefix("there is no key `zzzzzzzzz` in ") else { continue };
        let prefix = match place {
            "`check`" => "check.",
            "`ready`" => "ready.",
            "`canary`" => "canary.",
            _ => "",
        };
        known.extend(problem.cure.trim_start_matches("the keys are ").split(", ").map(|key| format!("{prefix}{key}")));
    }
    ensure!(["check", "ready", "canary"].iter().all(|word| known.remove(*word)), "their words are known");
    assert_eq!(documented.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), known);
    Ok(())
}

// --- labels and problems ---------------------------------------------------------------------------------------------

/// What a container with these labels, and `tidegate.enable=true` unless they say otherwise, is told.
fn told(labels: &[(&str, &str)]) -> Vec<Problem> {
    let mut all = BTreeMap::from([("tidegate.enable".to_owned(), "true".to_owned())]);
    all.extend(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let container = Container {
        id: "3f9c1a2b77d0".repeat(5),
        name: "shop-1".to_owned(),
        created: Timestamp::from_millis(1),
        started_at: "2026-01-01T00:00:00Z".to_owned(),
        phase: Phase::Running,
        health: None,
        labels: all,
        tcp_ports: vec![80],
        network_mode: "default".to_owned(),
        networks: [("bridge".to_owned(), Some([172, 17, 0, 2].into()))].into(),
        ..Container::default()
    };
    let at = Timestamp::from_millis(1);
    let sighting = Sighting { hint: Hint { action: "start".to_owned(), at }, observed_at: at, terminating: None };
    labels::interpret(&container, &Placement::default(), sighting).problems
}

fn label(cell: &str) -> Option<(&str, &str)> {
    quoted(cell).next()?.split_once('=')
}

#[test]
fn every_label_is_documented_with_an_example_that_works() -> Result<()> {
    let text = document("docs/labels.md")?;
    let rows = rows(text.split_once("## Errors").context("a section on errors")?.0);
    let documented: Vec<_> = rows.iter().filter(|row| row.len() == 4 && label(&row[3]).is_some()).collect();
    let names: Vec<&str> = documented.iter().filter_map(|row| quoted(&row[0]).next()).collect();
    assert_eq!(names, SCHEMA.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for row in documented {
        let (key, value) = label(&row[3]).context("an example")?;
        assert_eq!(Some(key), quoted(&row[0]).next(), "the example of another label");
        let mut labels = vec![(key, value)];
        // Some words are those of some types of checks only.
        match key.strip_prefix("tidegate.check.") {
            Some("path" | "host" | "status" | "header" | "body") => labels.push(("tidegate.check.type", "http")),
            Some("tls") => labels.push(("tidegate.check.type", "https")),
            Some("service") => labels.push(("tidegate.check.type", "grpc")),
            _ => {}
        }
        assert_eq!(told(&labels), [], "{key}={value}");
    }
    let readme = document("README.md")?;
    for (name, _) in SCHEMA {
        ensure!(readme.contains(&format!("| `{name}`")) || readme.contains(&format!(", `{name}` |")), "README: {name}");
    }
    Ok(())
}

#[test]
fn every_error_of_a_label_is_as_shown() -> Result<()> {
    let text = document("docs/labels.md")?;
    let errors = text.split_once("## Errors").context("a section on errors")?.1;
    let rows = rows(errors);
    ensure!(rows.len() > 10, "{} errors are shown", rows.len());
    for row in rows {
        let [of, code, reason, help] = row.as_slice() else { bail!("four cells, not {row:?}") };
        let problems = told(&[label(of).with_context(|| of.clone())?]);
        let said: Vec<_> = problems.iter().map(|p| (p.code.as_str(), p.reason.as_str(), p.cure.as_str())).collect();
        assert_eq!(said, [(code.as_str(), reason.as_str(), help.as_str())], "{of}");
    }
    Ok(())
}

#[test]
fn compose_examples_name_labels_that_exist() -> Result<()> {
    for block in blocks()?.iter().filter(|block| block.marker.as_deref() == Some("compose")) {
        for line in block.text.lines().map(str::trim).filter(|line| line.starts_with(labels::PREFIX)) {
            let (key, _) = line.split_once(':').with_context(|| block.place())?;
            let value = line.split_once(':').map_or("", |(_, value)| value.trim().trim_matches('"'));
            let unknown = told(&[(key, value)]).into_iter().find(|problem| problem.code == Code::UnknownLabel);
            ensure!(unknown.is_none(), "{}: {unknown:?}", block.place());
        }
    }
    Ok(())
}

#[test]
fn every_problem_code_is_documented_with_an_example() -> Result<()> {
    let text = document("docs/problems.md")?;
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    let titles: Vec<&str> = sections.iter().filter_map(|section| section.lines().next()).collect();
    let codes: Vec<String> = Code::ALL.iter().map(|code| format!("{code} {}", code.title())).collect();
    assert_eq!(titles, codes);
    for (section, code) in sections.iter().zip(Code::ALL) {
        let example = section.split("```text\n").nth(1).and_then(|rest| rest.split("```").next());
        let lines: Vec<&str> = example.with_context(|| format!("{code} has an example"))?.lines().collect();
        let [head, effect, help] = lines.as_slice() else { bail!("{code}: three lines, not {lines:?}") };
        let severe = ["error", "warning", "notice"].iter().any(|s| head.starts_with(&format!("{s}[{code}]: ")));
        ensure!(severe, "{code}: {head}");
        ensure!(effect.starts_with("  effect: ") && help.starts_with("  help: "), "{code}: {lines:?}");
    }
    Ok(())
}

// --- names -----------------------------------------------------------------------------------------------------------

#[test]
fn every_test_that_the_readme_names_exists() -> Result<()> {
    let readme = document("README.md")?;
    let invariants = readme.split_once("## Invariants").and_then(|(_, rest)| rest.split("\n## ").next());
    let is_test = |name: &&str| name.contains('_') && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let named: BTreeSet<&str> = quoted(invariants.context("the invariants")?).filter(is_test).collect();
    ensure!(named.len() > 10, "{named:?}");
    let mut sources = String::new();
    for folder in ["control-plane", "filter", "tests"] {
        read_sources(&root().join(folder), &mut sources)?;
    }
    let missing: Vec<_> = named.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
    ensure!(missing.is_empty(), "no tests: {missing:?}");
    Ok(())
}

#[test]
fn every_test_that_the_table_of_faults_names_exists() -> Result<()> {
    let mut sources = String::new();
    for folder in ["control-plane", "filter", "tests"] {
        read_sources(&root().join(folder), &mut sources)?;
    }
    let table = rows(&document("docs/faults.md")?);
    ensure!(table.len() >= 9, "{table:?}");
    for row in &table {
        let [fault, promise, tests, measured] = row.as_slice() else { bail!("four columns, not {row:?}") };
        ensure!(![fault, promise, measured].iter().any(|cell| cell.is_empty()), "{row:?}");
        let tests: Vec<&str> = quoted(tests).collect();
        ensure!(!tests.is_empty(), "{fault}: no test");
        let missing: Vec<_> = tests.iter().filter(|name| !sources.contains(&format!("fn {name}("))).collect();
        ensure!(missing.is_empty(), "{fault}: no tests: {missing:?}");
    }
    Ok(())
}

fn read_sources(folder: &Path, into: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            read_sources(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(path)?);
        }
    }
    Ok(())
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    for (file, text) in documents()? {
        let folder = root().join(&file).parent().context("a file is in a folder")?.to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            let path = if path.is_empty() { root().join(&file) } else { folder.join(path) };
            ensure!(path.is_file(), "{file}: {target} is not there");
            if let Some(anchor) = anchor {
                let there = fs::read_to_string(path)?.lines().any(|line| heading(line).as_deref() == Some(anchor));
                ensure!(there, "{file}: {target}: there is no such heading");
            }
        }
    }
    Ok(())
}

/// The anchor that a line makes, if it is a heading.
fn heading(line: &str) -> Option<String> {
    let text = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?.to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}

#[tokio::test]
async fn the_readme_lists_every_command() -> Result<()> {
    let help = Cli::default().run(["--help"]).await?.ok()?.stdout;
    let listed =
        help.split_once("Commands:\n").context("commands")?.1.lines().map_while(|line| line.strip_prefix("  "));
    let commands: Vec<&str> =
        listed.filter_map(|line| line.split(' ').next()).filter(|word| !word.is_empty()).collect();
    ensure!(commands.len() > 5, "{help}");
    let readme = document("README.md")?;
    for command in &commands {
        ensure!(readme.contains(&format!("\n| `tidegate {command}")), "README.md does not list `tidegate {command}`");
    }
    Ok(())
}

// --- shell examples --------------------------------------------------------------------------------------------------

#[test]
fn every_shell_example_is_run_or_says_why_not() -> Result<()> {
    let mut found = BTreeSet::new();
    for block in blocks()?.into_iter().filter(|block| block.language == "sh") {
        let marker = block.marker.clone().unwrap_or_default();
        match marker.split_once(": ") {
            Some(("test", name)) => {
                found.insert(name.to_owned());
            }
            Some(("not run", _)) => {}
            _ => bail!("{}: a comment above says `test: NAME` or `not run: WHY`", block.place()),
        }
    }
    assert_eq!(found, RUN.map(str::to_owned).into());
    Ok(())
}

/// An example at work, in an empty directory. What it starts in the background is killed on drop.
struct Example {
    cli: Cli,
    listener: std::net::SocketAddr,
    _process: Process,
    _directory: TempDir,
}

impl Example {
    /// Runs it to its last line. The default ports are replaced by free ones in its text and in what it writes to tidegate.yaml,
    /// which has to begin with `key`; `more` are further replacements.
    async fn run(name: &str, key: &str, more: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Self> {
        let marker = format!("test: {name}");
        let block = blocks()?.into_iter().find(|block| block.marker.as_ref() == Some(&marker));
        let mut script = block.with_context(|| format!("no example {name}"))?.text;
        let (listener, xds, api) = (ports::free()?, ports::free()?, ports::free()?);
        let listeners = format!("listeners: [ {{ name: web, address: \"{listener}\" }} ]");
        let addresses = format!("xds: {{ address: \"{xds}\" }}\napi: {{ address: \"{api}\" }}");
        let settings = match key {
            "edge: { " => format!("echo '{addresses}\nedge: {{ {listeners}, "),
            // The one that has an `edge` of its own on its second line.
            "xds: { " => {
                script = script.replace("\nedge: { ", &format!("\nedge: {{ {listeners}, "));
                format!("echo 'api: {{ address: \"{api}\" }}\nxds: {{ address: \"{xds}\", ")
            }
            key => format!("echo '{addresses}\nedge: {{ {listeners} }}\n{key}"),
        };
        // What others write may hold what we look for.
        let ours = [(format!("echo '{key}"), settings)];
        let theirs = more.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned()));
        for (from, to) in theirs.chain(ours) {
            ensure!(script.contains(&from), "{name} has no {from:?} to replace by {to:?}");
            script = script.replace(&from, &to);
        }
        script = script.replace("localhost:8080", &format!("localhost:{}", listener.port()));

        let directory = tempfile::tempdir()?;
        let bin = directory.path().join("bin");
        fs::create_dir(&bin)?;
        std::os::unix::fs::symlink(tidegate::locate()?, bin.join("tidegate"))?;
        std::os::unix::fs::symlink(envoy::locate()?, bin.join("envoy"))?;
        let work = directory.path().join("work");
        fs::create_dir(&work)?;
        let url = format!("http://{api}");
        let mut path = bin.into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command.args(["-euc", &format!("{script}\ntouch ../done\nwait\n")]).current_dir(&work);
        command.env("PATH", path).env("TIDEGATE_API", &url).env("NO_PROXY", "*").env("no_proxy", "*");
        command.env_remove("TIDEGATE_ENVOY").env_remove("STATE_DIRECTORY").envs(environment.iter().copied());
        let mut process = Process::spawn(name, &mut command, directory.path())?;
        let done = directory.path().join("done");
        let what = format!("the end of {name}");
        let ran = process.until(2 * SOON, &what, async || {
            ensure!(done.exists(), "it is at work");
            Ok(())
        });
        ran.await.with_context(|| format!("the script was\n{script}"))?;
        let cli = Cli { api: Some(url), directory: Some(work), environment: Vec::new() };
        Ok(Self { cli, listener, _process: process, _directory: directory })
    }
}

#[tokio::test]
async fn the_first_canary_by_hand_works() -> Result<()> {
    let engine = Engine::connect().await?;
    // Another run's `shop` on this engine would be the same service.
    let service = engine.unique("shop");
    let image = engine.sample_image().await?;
    let run = format!("docker run -d -l {LABEL}={}", engine.run_id());
    let replace = [("shop", service.as_str()), ("docker run -d", run.as_str())];
    let environment = [("IMAGE", image.as_str()), ("DOCKER_HOST", &engine.direct())];
    let example = Example::run("first-canary", "services: ", &replace, &environment).await?;

    until(SOON, "an edge that accepted half", async || {
        let canary = example.cli.json(["canary", "status", &service]).await?["canaries"][0].clone();
        ensure!(canary["canary"]["weight"] == 5_000 && canary["edges"][0]["state"] == "accepted", "{canary}");
        Ok(())
    })
    .await?;
    // Half of a thousand, and six standard deviations.
    let host = format!("{service}.localhost");
    until(SOON, "half of the answers", async || {
        let report = Load::get(example.listener, &host, "/").closed(8).requests(1_000).run().await?;
        report.all_succeeded()?;
        let by_v2 = |by: &String| by.ends_with(&format!("{service}-v2"));
        let canary = report.samples.iter().filter(|sample| sample.served_by.as_ref().is_some_and(by_v2)).count();
        ensure!((405..=595).contains(&canary), "{canary} of 1000 were answered by v2");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_envoy_of_ones_own_works_with_our_bootstrap() -> Result<()> {
    let engine = Engine::connect().await?;
    let service = engine.unique("own");
    let admin = ports::free()?.to_string();
    let example = Example::run("own-envoy", "edge: { ", &[("127.0.0.1:9901", &admin)], &[]).await?;
    let host = format!("{service}.localhost");
    let labels = [("tidegate.enable", "true"), ("tidegate.service", &service), ("tidegate.host", &host)];
    let spec = labels.iter().fold(Spec::sample("own"), |spec, (key, value)| spec.label(key, value));
    let _container = engine.run(spec).await?;
    until(SOON, "an answer", async || {
        let answer = Request::get(example.listener, "/").host(&host).timeout(Duration::from_secs(5)).send().await?;
        ensure!(answer.status == 200, "status {}", answer.status);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_edge_with_a_certificate_of_ones_own_is_served_over_tls() -> Result<()> {
    let admin = ports::free()?.to_string();
    let example = Example::run("xds-tls", "xds: { ", &[("127.0.0.1:9901", &admin)], &[]).await?;
    let status = example.cli.json(["status"]).await?;
    assert_eq!(status["edges"][0]["node"], "edge-1");
    Ok(())
}
