//! Whose a container is: made by Compose, from an image that says things, and what it may claim.

use std::time::Duration;

use anyhow::{Result, ensure};
use bollard::{
    models::ContainerConfig,
    query_parameters::{CommitContainerOptions, RemoveContainerOptions, RemoveImageOptions},
};
use tidegate_core::Code;
use tidegate_tests::{
    edge::{Edge, backend, host},
    engine::{Engine, Spec},
    load::Load,
};

use super::{explained, problem, subject};

/// As Compose labels the containers of a service.
fn composed(spec: Spec, project: &str, service: &str, number: u32, oneoff: bool) -> Spec {
    spec.label("com.docker.compose.project", project)
        .label("com.docker.compose.service", service)
        .label("com.docker.compose.container-number", &number.to_string())
        .label("com.docker.compose.config-hash", "0123456789abcdef")
        .label("com.docker.compose.oneoff", if oneoff { "True" } else { "False" })
}

#[tokio::test]
async fn a_service_of_compose_is_scaled_and_recreated_without_a_failed_request() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let project = engine.unique("project");
    let name = format!("{project}-api");
    let host = host(&name);
    let (cluster, cli) = (format!("{name}/default"), edge.cli());
    let replica = |number, oneoff| {
        let spec = Spec::sample(&format!("api-{number}-{oneoff}")).label("tidegate.enable", "true");
        let spec = spec.label("tidegate.host", &host).label("tidegate.check.interval", "200ms");
        composed(spec, &project, "api", number, oneoff)
    };
    let first = engine.run(replica(1, false)).await?;
    edge.answers(&host, 200).await?;
    let load = Load::get(edge.listener, &host, "/").rate(200.0, 16).duration(Duration::from_secs(120)).start();

    let second = engine.run(replica(2, false)).await?;
    edge.healthy(&cluster, 2).await?;
    // `docker compose run` labels its container like one of the service.
    let command = engine.run(replica(3, true)).await?;
    let found = problem(&cli, Code::LeftOut, &subject(&command)).await?;
    ensure!(found.reason.contains("`com.docker.compose.oneoff`"), "{found}");
    explained(&cli, &command.name, "gets no traffic: labels failed: Compose runs it for one command").await?;

    first.stop(Duration::from_secs(5)).await?;
    first.remove().await?;
    edge.healthy(&cluster, 1).await?;
    // Recreated: another container in the place of the one before, with the same number.
    let recreated = engine.run(Spec { name: "again".to_owned(), ..replica(2, false) }).await?;
    edge.healthy(&cluster, 2).await?;
    second.stop(Duration::from_secs(5)).await?;
    second.remove().await?;
    edge.healthy(&cluster, 1).await?;
    let endpoints = edge.envoy.endpoints(&cluster).await?.unwrap_or_default();
    assert_eq!(endpoints.len(), 1, "{endpoints:?}");
    assert_eq!(endpoints[0].address, recreated.address().await?.to_string());
    let report = load.stop().await?;
    ensure!(report.count() > 0, "it was never asked");
    report.all_succeeded()
}

#[tokio::test]
async fn what_an_image_says_is_not_taken_for_the_containers_own() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let (evil, own) = (engine.unique("evil"), engine.unique("own"));
    let base = engine.create(Spec::sample("base")).await?;
    let image = format!("{}:latest", engine.unique("baked"));
    let labels = [("tidegate.enable", "true"), ("tidegate.host", &host(&evil)), ("tidegate.port", "8080")];
    let options = CommitContainerOptions {
        container: Some(base.id.clone()),
        repo: image.strip_suffix(":latest").map(ToOwned::to_owned),
        tag: Some("latest".to_owned()),
        changes: Some(labels.map(|(key, value)| format!("LABEL {key}={value}")).join("\n")),
        ..CommitContainerOptions::default()
    };
    engine.docker().commit_container(options, ContainerConfig::default()).await?;
    let from_it = |name: &str| {
        let mut spec = Spec::sample(name);
        spec.body.image = Some(image.clone());
        spec
    };
    let baked = engine.run(from_it("baked")).await?;
    let found = problem(&edge.cli(), Code::ImageLabels, &subject(&baked)).await?;
    ensure!(found.reason.contains("`tidegate.enable`, `tidegate.host`, `tidegate.port`"), "{found}");
    assert_eq!(edge.get(&host(&evil)).await?.status, 404, "the image opts nobody in");
    explained(&edge.cli(), &baked.name, "gets no traffic: enabled failed: its image has the same").await?;

    // Of an image without the opt-in, the container's own labels count, and no other.
    let options = CommitContainerOptions {
        container: Some(base.id.clone()),
        repo: image.strip_suffix(":latest").map(ToOwned::to_owned),
        tag: Some("other".to_owned()),
        changes: Some(format!("LABEL tidegate.path=/hidden\nLABEL tidegate.host={}", host(&evil))),
        ..CommitContainerOptions::default()
    };
    engine.docker().commit_container(options, ContainerConfig::default()).await?;
    let mut spec = from_it("mine").label("tidegate.enable", "true").label("tidegate.port", "8080");
    spec.body.image = Some(image.replace(":latest", ":other"));
    let _mine = engine.run(spec.label("tidegate.service", &own).label("tidegate.host", &host(&own))).await?;
    edge.answers(&host(&own), 200).await?;
    assert_eq!(edge.get(&host(&evil)).await?.status, 404);
    engine.clean().await?;
    for image in [image.clone(), image.replace(":latest", ":other")] {
        engine.docker().remove_image(&image, None::<RemoveImageOptions>, None).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_host_goes_only_to_the_project_that_may_claim_it() -> Result<()> {
    let engine = Engine::connect().await?;
    let (shop, evil) = (engine.unique("shop"), engine.unique("evil"));
    let rules = format!("{{}}\nownership: {{ allow: [ {{ project: {shop}, hosts: [ {} ] }} ] }}", host(&shop));
    let edge = Edge::start(&engine, &rules).await?;
    // It comes first, claims the host, and says that it is of the same service.
    let intruder = composed(backend(&shop, "v1"), &evil, "web", 1, false);
    let intruder = engine.run(intruder).await?;
    let found = problem(&edge.cli(), Code::HostRefused, &subject(&intruder)).await?;
    ensure!(found.reason.contains(&format!("the Compose project `{evil}` may not")), "{found}");
    assert_eq!(edge.get(&host(&shop)).await?.status, 404);
    // What nobody's rule names is free for all.
    let _free = engine.run(composed(backend(&evil, "v1"), &evil, "other", 1, false)).await?;
    edge.answers(&host(&evil), 200).await?;

    let owner = engine.run(composed(backend(&shop, "v1").version("owner"), &shop, "web", 1, false)).await?;
    edge.answers(&host(&shop), 200).await?;
    let report = Load::get(edge.listener, &host(&shop), "/").closed(4).requests(200).run().await?;
    report.all_succeeded()?;
    assert_eq!(report.by_version().into_iter().collect::<Vec<_>>(), [("owner".to_owned(), 200)]);
    explained(&edge.cli(), &intruder.name, "gets no traffic: service failed: it claims").await?;
    // Without the rule the older container is one of the service.
    edge.declare("{}")?;
    edge.healthy(&format!("{shop}/v1"), 2).await?;
    edge.declare(&rules)?;
    edge.healthy(&format!("{shop}/v1"), 1).await?;
    owner.remove().await?;
    edge.answers(&host(&shop), 404).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_asked_of_docker_but_what_the_shipped_rule_allows() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let service = engine.unique("least");
    let container = engine.run(backend(&service, "v1")).await?;
    edge.answers(&host(&service), 200).await?;
    container.pause().await?;
    edge.answers(&host(&service), 503).await?;
    container.remove().await?;
    edge.answers(&host(&service), 404).await?;
    assert_eq!(engine.refused(), [""; 0], "all of it went through the proxy, and nothing was refused");

    // It does refuse: this is the same socket.
    let socket = engine.endpoint();
    let path = socket.strip_prefix("unix://").unwrap_or_default();
    let version = bollard::ClientVersion { major_version: 1, minor_version: 41 };
    let docker = bollard::Docker::connect_with_unix(path, 10, &version)?;
    let refused = docker.remove_container(&service, None::<RemoveContainerOptions>).await.expect_err("a DELETE");
    ensure!(refused.to_string().contains("403"), "{refused}");
    let refused = engine.refused();
    ensure!(refused.len() == 1 && refused[0].starts_with("DELETE ") && refused[0].contains(&service), "{refused:?}");
    Ok(())
}
