//! Containers as the API shows them: the fields that are read, and a few that must not be.

use serde_json::{Map, Value, json};

use crate::clock::{SECOND, rfc3339};
use crate::container::{Container, Health, Restart, Status};

/// `GET /containers/ID/json`.
pub(crate) fn inspect(container: &Container) -> Value {
    let Container { id, spec, status, .. } = container;
    let time = |nanos: i64| if nanos == 0 { "0001-01-01T00:00:00Z".to_owned() } else { rfc3339(nanos) };
    let (policy, retries) = match spec.restart {
        Restart::No => ("no", 0),
        Restart::Always => ("always", 0),
        Restart::OnFailure(retries) => ("on-failure", retries),
    };
    let mut state = json!({
        "Status": status.as_str(),
        // A container in backoff counts as running too.
        "Running": status.is_alive() || *status == Status::Restarting,
        "Paused": *status == Status::Paused,
        "Restarting": *status == Status::Restarting,
        "OOMKilled": container.oom,
        "ExitCode": container.exit_code,
        "StartedAt": time(container.started_at),
        "FinishedAt": time(container.finished_at),
    });
    if let Some(health) = container.health {
        state["Health"] = json!({ "Status": health.as_str(), "FailingStreak": 0, "Log": [] });
    }
    let exposed: Map<String, Value> = spec.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let mut config = json!({
        "Image": spec.image,
        "Labels": spec.labels,
        "ExposedPorts": exposed,
        "Env": ["PATH=/bin", "SECRET=hunter2"],
    });
    if let Some(signal) = &spec.stop_signal {
        config["StopSignal"] = json!(signal);
    }
    if let Some(timeout) = spec.stop_timeout {
        config["StopTimeout"] = json!(timeout);
    }
    json!({
        "Id": id,
        "Name": format!("/{}", spec.name),
        "Created": rfc3339(container.created),
        "Image": image_id(&spec.image),
        "State": state,
        "RestartCount": container.restarts,
        "Config": config,
        "HostConfig": {
            "NetworkMode": spec.network_mode,
            "RestartPolicy": { "Name": policy, "MaximumRetryCount": retries },
        },
        "NetworkSettings": { "Networks": networks(container) },
    })
}

/// One entry of `GET /containers/json`.
pub(crate) fn summary(container: &Container) -> Value {
    let Container { id, spec, status, .. } = container;
    let ports = |port: &u16| json!({ "PrivatePort": port, "Type": "tcp" });
    let ports: Vec<Value> = if status.is_alive() { spec.ports.iter().map(ports).collect() } else { Vec::new() };
    json!({
        "Id": id,
        "Names": [format!("/{}", spec.name)],
        "Image": spec.image,
        "ImageID": image_id(&spec.image),
        "Created": container.created / SECOND,
        "State": status.as_str(),
        "Status": words(container),
        "Ports": ports,
        "Labels": spec.labels,
        "HostConfig": { "NetworkMode": spec.network_mode },
        "NetworkSettings": { "Networks": networks(container) },
    })
}

/// What `docker ps` shows; the times in it are read by nobody.
fn words(container: &Container) -> String {
    let code = container.exit_code;
    match (container.status, container.health) {
        (Status::Created, _) => "Created".to_owned(),
        (Status::Restarting, _) => format!("Restarting ({code}) Less than a second ago"),
        (Status::Exited, _) => format!("Exited ({code}) Less than a second ago"),
        (Status::Paused, _) => "Up Less than a second (Paused)".to_owned(),
        (Status::Running, None) => "Up Less than a second".to_owned(),
        (Status::Running, Some(Health::Starting)) => "Up Less than a second (health: starting)".to_owned(),
        (Status::Running, Some(health)) => format!("Up Less than a second ({})", health.as_str()),
    }
}

fn networks(container: &Container) -> Value {
    let ipv6 = container.spec.ipv6.filter(|_| container.status.is_alive());
    let networks = container.networks.iter().enumerate().map(|(place, (name, address))| {
        let ipv6 = ipv6.filter(|_| place == 0);
        let address = address.filter(|_| ipv6.is_none()).map(|address| address.to_string()).unwrap_or_default();
        let ipv6 = ipv6.map(|ipv6| ipv6.to_string()).unwrap_or_default();
        let endpoint = json!({ "NetworkID": network_id(name), "IPAddress": address, "GlobalIPv6Address": ipv6 });
        (name.clone(), endpoint)
    });
    networks.collect::<Map<_, _>>().into()
}

pub(crate) fn network_id(name: &str) -> String {
    format!("network-{name}")
}

/// The id of the image of that name.
pub(crate) fn image_id(name: &str) -> String {
    format!("sha256:{name}")
}
