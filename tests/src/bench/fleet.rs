//! Containers of the fake engine that answer: each is a listener on loopback in this process. As far as tidegate knows they are
//! on the node's own network, because no container leads it to a loopback address otherwise (threats T8).

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tidegate_fake_docker::{FakeDocker, Spec};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    client::SERVED_BY,
    edge::{Edge, host},
    poll::until,
};

/// Until so many services are in Envoy.
const LIMIT: Duration = Duration::from_secs(120);

/// The engine and what answers for its containers.
pub(super) struct Fleet {
    pub(super) docker: FakeDocker,
    backends: BTreeMap<String, (SocketAddr, JoinSet<()>)>,
    count: usize,
}

impl Fleet {
    /// An engine without containers.
    pub(super) fn new() -> Self {
        let mut docker = FakeDocker::new();
        docker.engine().image("fake", &[]);
        docker.listen();
        Self { docker, backends: BTreeMap::new(), count: 0 }
    }

    /// `docker create` of a container of this service, with further labels; its id. It answers with its id, although it was not
    /// started.
    pub(super) async fn create(&mut self, service: &str, labels: &[(&str, &str)]) -> Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        self.count += 1;
        let id = format!("{:012x}{}", self.count, "f".repeat(52));
        let (host, port) = (host(service), address.port().to_string());
        let own = [
            ("tidegate.enable", "true"),
            ("tidegate.service", service),
            ("tidegate.host", &host),
            ("tidegate.port", &port),
        ];
        let spec = Spec {
            id: Some(id.clone()),
            network_mode: "host".to_owned(),
            ..Spec::new(&format!("fake-{}", self.count), &[&own, labels].concat())
        };
        self.docker.engine().create(spec);
        let mut backend = JoinSet::new();
        backend.spawn(answer(listener, id.clone()));
        self.backends.insert(id.clone(), (address, backend));
        Ok(id)
    }

    /// `docker run` of so many, each the only one of its service, `s0`, `s1` and so on.
    pub(super) async fn run(&mut self, count: usize, labels: &[(&str, &str)]) -> Result<()> {
        for number in 0..count {
            let id = self.create(&format!("s{number}"), labels).await?;
            self.docker.engine().start(&id);
        }
        Ok(())
    }

    /// Where it answers.
    pub(super) fn address(&self, id: &str) -> Option<SocketAddr> {
        self.backends.get(id).map(|(address, _)| *address)
    }

    /// `docker rm -f`; it answers no more.
    pub(super) fn remove(&mut self, id: &str) {
        self.docker.engine().remove(id);
        self.backends.remove(id);
    }

    /// How often a container was inspected, and how often all were listed.
    pub(super) fn asked(&self) -> (usize, usize) {
        let engine = self.docker.engine();
        let lists = engine.requests.iter().filter(|request| request.ends_with("/containers/json")).count();
        let looks =
            engine.requests.iter().filter(|request| request.contains("/containers/") && request.ends_with("/json"));
        (looks.count() - lists, lists)
    }
}

async fn answer(listener: TcpListener, id: String) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => drop(connections.spawn(speak(stream, id.clone()))),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn speak(stream: TcpStream, id: String) {
    let service = service_fn(|_| {
        let answer = Response::builder().header(SERVED_BY, &id).body(Full::<Bytes>::default());
        async move { Ok::<_, Infallible>(answer.unwrap_or_default()) }
    });
    // Whoever asks may close it at any time.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Waits until Envoy itself has so many healthy endpoints of services.
pub(super) async fn routed(edge: &Edge, count: usize) -> Result<()> {
    until(LIMIT, &format!("{count} healthy endpoints in Envoy"), async || {
        let clusters = edge.envoy.clusters().await?;
        let clusters = clusters["cluster_statuses"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of_services = clusters.iter().filter(|cluster| cluster["name"].as_str().is_some_and(|n| n.contains('/')));
        let hosts = of_services.filter_map(|cluster| cluster["host_statuses"].as_array()).flatten();
        let healthy = hosts.filter(|host| host["health_status"]["eds_health_status"] == "HEALTHY").count();
        ensure!(healthy == count, "{healthy}");
        Ok(())
    })
    .await
}
