//! What the connected Envoys say: who is there, and which resources they refused. It watches the xDS store's events and reports
//! problems; it changes nothing.

use std::time::Duration;

use tidegate_core::{Code, Input, Problem};
use tidegate_xds::{ClientEvent, ClientStatus, Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The name under which these problems are reported.
pub const PART: &str = "xds";

/// Events are hints, and the less important ones may be dropped: what is true is looked at this often anyway.
const LOOK: Duration = Duration::from_secs(1);

/// Watches `store` and tells `inbox` until `shutdown`.
pub async fn watch(store: Store, inbox: mpsc::Sender<Input>, shutdown: CancellationToken) {
    let mut events = store.events();
    let mut reported = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            Some(event) = events.recv() => log(&event),
            () = tokio::time::sleep(LOOK) => {}
        }
        let problems = problems(&store.clients(), store.is_open());
        if reported.as_ref() == Some(&problems) {
            continue;
        }
        reported = Some(problems.clone());
        if inbox.send(Input::Reported { part: PART, problems }).await.is_err() {
            return;
        }
    }
}

fn log(event: &ClientEvent) {
    match event {
        ClientEvent::Connected { node, peer, .. } => {
            tracing::info!(node = %node.id, user_agent = %node.user_agent, ?peer, "edge connected");
        }
        ClientEvent::Disconnected { node_id, .. } => tracing::info!(node = %node_id, "edge disconnected"),
        ClientEvent::Accepted { node_id, resource_type, sequence, .. } => {
            tracing::debug!(node = %node_id, %resource_type, sequence, "accepted");
        }
        ClientEvent::Rejected { node_id, resource_type, resources, message, .. } => {
            let names: Vec<&str> = resources.iter().map(|(name, _)| &**name).collect();
            tracing::error!(node = %node_id, %resource_type, ?names, %message, "edge refused resources; their last accepted version stays");
        }
    }
}

fn problems(clients: &[ClientStatus], open: bool) -> Vec<Problem> {
    if clients.is_empty() && open {
        let problem = Problem::error(
            Code::NoEnvoy,
            "edge",
            "no Envoy is connected",
            "nothing is routed by this control plane; an Envoy that had its configuration keeps it",
            "start Envoy with `tidegate up`, or your own with the output of `tidegate envoy bootstrap`",
        );
        return vec![problem.warning()];
    }
    let mut problems = Vec::new();
    for client in clients {
        for of_type in &client.types {
            for rejection in &of_type.rejected {
                problems.push(Problem::error(
                    Code::ResourceRejected,
                    format!("{} {} at edge {}", of_type.resource_type, rejection.name, client.node.id),
                    format!("Envoy refused version {}: {}", rejection.version, rejection.message),
                    "the edge keeps the version it accepted last; other resources are unaffected",
                    "see Envoy's words above; the refused version is not sent again until it changes",
                ));
            }
        }
    }
    problems
}
