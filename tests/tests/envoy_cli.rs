//! `tidegate envoy ls|diff|config`: what the control plane knows of an edge, what the edge says itself, and where the two part.
//! Real dockerd, real Envoy.

use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tidegate_tests::{
    client::Request,
    edge::{Edge, backend, host},
    engine::{Container, Engine},
    poll::{SOON, until},
    ports,
    process::Output,
    tidegate::Cli,
};

const TYPES: [&str; 6] = ["CDS", "EDS", "LDS", "RDS", "ECDS", "RTDS"];

/// An edge with a service of its own, a canary's half of it.
async fn start(name: &str) -> Result<(Engine, Edge, String, Vec<Container>)> {
    let engine = Engine::connect().await?;
    let service = engine.unique(name);
    let edge = Edge::start(&engine, &declared(&service)).await?;
    let containers = vec![engine.run(backend(&service, "v1")).await?, engine.run(backend(&service, "v2")).await?];
    for version in ["v1", "v2"] {
        edge.healthy(&format!("{service}/{version}"), 1).await?;
    }
    edge.answers(&host(&service), 200).await?;
    Ok((engine, edge, service, containers))
}

fn declared(service: &str) -> String {
    format!(
        "{{ \"{service}\": {{ stable: {{ version: v1 }}, canary: {{ version: v2, weight: 50, \
         sessionAffinity: {{ hashOn: [ {{ sourceIp: true }} ] }} }} }} }}"
    )
}

/// Waits until a command ends with this code. Containers of other tests come and go, and are served too.
async fn ends(cli: &Cli, arguments: &[&str], code: i32) -> Result<Output> {
    until(SOON, &format!("{arguments:?} to end with {code}"), async || {
        let output = cli.run(arguments).await?;
        ensure!(output.code == code, "it ended with {}: {}{}", output.code, output.stdout, output.stderr);
        Ok(output)
    })
    .await
}

/// The same, with what it printed read as JSON.
async fn says(cli: &Cli, arguments: &[&str], code: i32) -> Result<Value> {
    let output = ends(cli, &[arguments, &["-o", "json"]].concat(), code).await?;
    serde_json::from_str(&output.stdout).with_context(|| output.stdout)
}

fn find<'a>(resources: &'a Value, kind: &str, name: &str) -> Result<&'a Value> {
    let all = resources["resources"].as_array().context("resources")?;
    all.iter().find(|of| of["kind"] == kind && of["name"] == name).with_context(|| format!("{kind} {name} in {all:#?}"))
}

#[tokio::test]
async fn an_edge_that_has_everything_is_synced_and_the_same() -> Result<()> {
    let (_engine, edge, service, _containers) = start("same").await?;
    let cli = edge.cli();

    let diff = says(&cli, &["envoy", "diff"], 0).await?;
    assert_eq!((&diff["same"], &diff["connected"], &diff["notes"]), (&json!(true), &json!(true), &json!([])));
    let cluster = format!("{service}/v1");
    for (kind, name) in [
        ("CDS", cluster.as_str()),
        ("CDS", &format!("{service}/v2+spill")),
        ("EDS", &cluster),
        ("LDS", "web"),
        ("RDS", "web"),
        ("ECDS", "tidegate"),
        ("RTDS", "tidegate"),
    ] {
        let of = find(&diff, kind, name)?;
        assert_eq!(of["state"], "same", "{of}");
        let version = of["intended"].as_str().context("a version is published")?;
        ensure!(version.len() == 16, "{of}");
        // Over delta xDS Envoy says the version of each of these; of the others it says none.
        let is_versioned = !matches!(kind, "EDS" | "RTDS");
        assert_eq!(of["envoy"], if is_versioned { json!(version) } else { Value::Null }, "{of}");
    }
    let told = ends(&cli, &["envoy", "diff", "--type", "cds"], 0).await?.stdout;
    ensure!(told.starts_with("edge edge (envoy 1.") && told.ends_with("CDS; different: none\n"), "{told}");

    let seen = until(SOON, "an edge that is synced", async || {
        let seen = says(&cli, &["envoy", "ls"], 0).await?;
        let synced = TYPES.iter().all(|kind| {
            let types = seen["edges"][0]["types"].as_array().into_iter().flatten();
            types.into_iter().any(|of| of["kind"] == *kind && of["state"] == "synced")
        });
        ensure!(synced, "{seen}");
        Ok(seen)
    })
    .await?;
    let known = &seen["edges"][0];
    assert_eq!((&known["node"], &known["cluster"]), (&json!("edge"), &json!("tidegate")));
    assert_eq!(known["types"][0]["subscribed"], "everything", "{known}");
    ensure!(known["types"][1]["subscribed"]["names"].as_u64() >= Some(2), "{known}");
    ensure!(known["types"][0]["acceptedSequence"].as_u64() > Some(0), "{known}");
    let table = ends(&cli, &["envoy", "ls"], 0).await?.stdout;
    ensure!(table.contains("RTDS\n") && table.contains(" synced "), "{table}");
    ensure!(!table.contains("effect"), "{table}");

    let table = ends(&cli, &["envoy", "config"], 0).await?.stdout;
    ensure!(table.lines().any(|line| line.starts_with("CDS") && line.contains(&cluster) && line.ends_with("active")));
    ensure!(TYPES.iter().all(|kind| table.contains(&format!("\n{kind} "))), "{table}");
    let one = says(&cli, &["envoy", "config", "--type", "CDS", &cluster], 0).await?;
    let ours = find(&one, "CDS", &cluster)?;
    assert_eq!(ours["config"]["eds_cluster_config"]["eds_config"]["initial_fetch_timeout"], "2s", "{ours}");
    assert_eq!(one["resources"].as_array().map(Vec::len), Some(1), "{one}");
    let typo = ends(&cli, &["envoy", "config", &format!("{service}/v1x")], 1).await?;
    ensure!(typo.stderr.contains(&format!("did you mean `{service}/v")), "{typo:?}");
    Ok(())
}

#[tokio::test]
async fn a_resource_that_envoy_refuses_is_told_in_its_own_words() -> Result<()> {
    let (_engine, edge, service, _containers) = start("refused").await?;
    let cli = edge.cli();
    ends(&cli, &["envoy", "diff"], 0).await?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let clean = edge.file(&declared(&service));
    let listeners = "listeners: [ ";
    ensure!(clean.contains(listeners), "{clean}");
    let other = format!("{listeners}{{ name: taken, address: \"{address}\" }}, ");
    edge.tidegate.reconfigure(&clean.replace(listeners, &other))?;
    let words = format!("cannot bind '{address}': Address already in use");
    let answer = format!("Error adding/updating listener(s) taken: {words}");

    let listed = ends(&cli, &["envoy", "ls"], 1).await?.stdout;
    ensure!(listed.contains("1 rejected") && listed.contains(&answer), "{listed}");
    let seen = says(&cli, &["envoy", "ls"], 1).await?;
    let of_lds = &seen["edges"][0]["types"][2];
    assert_eq!((&of_lds["kind"], &of_lds["state"]), (&json!("LDS"), &json!("rejected")));
    let refusal = &of_lds["rejected"][0];
    assert_eq!(refusal["message"].as_str().map(str::trim_end), Some(answer.as_str()), "{refusal}");

    let diff = says(&cli, &["envoy", "diff"], 1).await?;
    let refused = find(&diff, "LDS", "taken")?;
    assert_eq!((&refused["state"], &refused["intended"]), (&json!("refused"), &refusal["version"]));
    assert_eq!((&refused["envoyError"], &refused["refusal"]), (&json!(words), &refusal["message"]));
    assert_eq!(find(&diff, "RDS", "taken")?["state"], "unwanted", "its listener is not there to ask for it");
    assert_eq!(find(&diff, "LDS", "web")?["state"], "same");
    let told = ends(&cli, &["envoy", "diff", "--type", "LDS"], 1).await?.stdout;
    ensure!(told.contains(&answer) && told.contains(&format!("dump: {words}\n")), "{told}");
    let held = ends(&cli, &["envoy", "config", "--type", "LDS"], 0).await?.stdout;
    ensure!(held.contains(&format!("LDS taken was refused: {words}")), "{held}");

    let api = cli.api.clone().context("an API")?;
    let metrics = Request::url(http::Method::GET, &format!("{api}/metrics"))?.send().await?.text().to_string();
    for line in [r#"tidegate_edges{type="LDS",state="rejected"} 1"#, r#"tidegate_xds_refused_resources{type="LDS"} 1"#]
    {
        ensure!(metrics.lines().any(|known| known == line), "{line} is not in\n{metrics}");
    }

    edge.tidegate.reconfigure(&clean)?;
    ends(&cli, &["envoy", "ls"], 0).await?;
    ends(&cli, &["envoy", "diff"], 0).await?;
    Ok(())
}

#[tokio::test]
async fn an_envoy_that_does_not_answer_is_told_with_its_address() -> Result<()> {
    let (_engine, mut edge, _service, _containers) = start("gone").await?;
    let cli = edge.cli();
    ends(&cli, &["envoy", "diff"], 0).await?;
    let socket = edge.tidegate.directory().join("tidegate-state/envoy-admin.sock").display().to_string();

    edge.envoy.process.freeze().await?;
    let asked = cli.run(["envoy", "diff"]).await?;
    ensure!(asked.code == 3 && asked.stderr.contains(&format!("no answer from unix:{socket} within 8s")), "{asked:?}");
    edge.envoy.process.thaw()?;
    ends(&cli, &["envoy", "diff"], 0).await?;

    edge.envoy.process.kill()?;
    for command in ["diff", "config"] {
        let asked = cli.run(["envoy", command]).await?;
        ensure!(asked.code == 3 && asked.stdout.is_empty(), "{asked:?}");
        ensure!(asked.stderr.starts_with("error: Envoy's admin interface: cannot connect to unix:"), "{asked:?}");
        ensure!(asked.stderr.contains(&format!("let `edge.admin` of tidegate.yaml, now unix:{socket}")), "{asked:?}");
    }
    let nobody = Cli { api: Some(format!("http://{}", ports::free()?)), ..Cli::default() };
    for command in ["ls", "diff", "config"] {
        let asked = nobody.run(["envoy", command]).await?;
        ensure!(asked.code == 3 && asked.stderr.contains("no control plane answers"), "{asked:?}");
    }
    Ok(())
}
