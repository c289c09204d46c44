//! Several services in one container.

use anyhow::{Result, ensure};
use tidegate_core::Code;
use tidegate_tests::{
    edge::Edge,
    engine::{Engine, Spec},
    poll::{SOON, until},
};

use super::{explained, problem, subject};

#[tokio::test]
async fn each_service_of_a_container_is_reached_at_its_own_port() -> Result<()> {
    let engine = Engine::connect().await?;
    let edge = Edge::start(&engine, "{}").await?;
    let (api, admin) = (engine.unique("api"), engine.unique("admin"));
    let spec = Spec::sample("both").env("SECOND_PORT", "9000").label("tidegate.enable", "true");
    let spec = [(&api, "8080"), (&admin, "9000")].into_iter().fold(spec, |spec, (name, port)| {
        spec.label(&format!("tidegate.svc.{name}.port"), port)
            .label(&format!("tidegate.svc.{name}.host"), &format!("{name}.localhost"))
            .label(&format!("tidegate.svc.{name}.check.interval"), "200ms")
    });
    // A third one has a label that does not exist, and stays out alone.
    let typo = engine.unique("typo");
    let container = engine.run(spec.label(&format!("tidegate.svc.{typo}.prot"), "9001")).await?;

    let answer = edge.answers(&format!("{api}.localhost"), 200).await?;
    assert_eq!(answer.version(), Some("v1"));
    let answer = edge.answers(&format!("{admin}.localhost"), 200).await?;
    assert_eq!(answer.version(), Some("v1-second"));
    for (service, port) in [(&api, "8080"), (&admin, "9000")] {
        let endpoints = edge.envoy.endpoints(&format!("{service}/default")).await?.unwrap_or_default();
        let ports: Vec<&str> = endpoints.iter().filter_map(|at| Some(at.address.rsplit_once(':')?.1)).collect();
        assert_eq!(ports, [port], "the endpoints of {service}/default");
    }
    let found = problem(&edge.cli(), Code::UnknownLabel, &format!("{}, service {typo}", subject(&container))).await?;
    ensure!(found.cure == format!("did you mean `tidegate.svc.{typo}.port`?"), "{found}");
    explained(&edge.cli(), &container.name, &format!("service {typo} gets no traffic: labels failed")).await?;

    container.remove().await?;
    for service in [&api, &admin] {
        let host = format!("{service}.localhost");
        until(SOON, "no route any more", async || {
            let status = edge.get(&host).await?.status;
            ensure!(status == 404, "status {status}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
