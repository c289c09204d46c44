//! What the connected Envoys say: who is there, how much they have accepted, and which resources they refused. It watches the
//! xDS store's events and commits and reports; it changes nothing.

use std::time::Duration;

use tidegate_core::journal::EdgeProgress;
use tidegate_core::{Code, Input, Problem};
use tidegate_xds::{ClientEvent, ClientStatus, ResourceType, Store, Subscribed};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// The name under which these problems are reported.
pub const PART: &str = "xds";

/// Events are hints, and the less important ones may be dropped: what is true is looked at this often anyway.
const LOOK: Duration = Duration::from_secs(1);

/// Events that one look answers.
const BATCH: usize = 256;

/// A look at thousands of edges takes a while: between two of them passes so many times as long.
const REST: u32 = 9;
/// Shorter rests are not worth a timer.
const SHORTEST: Duration = Duration::from_millis(1);

/// Watches `store`, whose commits `commits` tells, and tells `inbox` until `shutdown`.
pub async fn watch(
    store: Store,
    mut commits: watch::Receiver<u64>,
    inbox: mpsc::Sender<Input>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let mut events = store.events();
    let mut batch = Vec::with_capacity(BATCH);
    let mut reported = None;
    let mut told = None;
    let mut rest = Duration::ZERO;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            received = events.recv_many(&mut batch, BATCH) => {
                if received == 0 {
                    return;
                }
            }
            Ok(()) = commits.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        batch.drain(..).for_each(|event| log(&event));
        if rest >= SHORTEST {
            tokio::time::sleep(rest).await;
        }
        let began = Instant::now();
        // In this order: who is synced then has at least what was newest before.
        let sequence = store.sequence();
        let clients = store.clients();
        let edges: Vec<EdgeProgress> = clients.iter().map(|client| progress(client, sequence)).collect();
        let problems = problems(&clients, store.is_open());
        rest = began.elapsed() * REST;
        if told.as_ref() != Some(&(sequence, edges.clone())) {
            told = Some((sequence, edges.clone()));
            if inbox.send(Input::Accepted { edges, sequence, at: clock.now() }).await.is_err() {
                return;
            }
        }
        if reported.as_ref() == Some(&problems) {
            continue;
        }
        reported = Some(problems.clone());
        if inbox.send(Input::Reported { part: PART, problems }).await.is_err() {
            return;
        }
    }
}

/// Up to which change a client has accepted all clusters and endpoints that concern it, when `sequence` was the newest one. What
/// it refused it has not accepted.
fn progress(client: &ClientStatus, sequence: u64) -> EdgeProgress {
    let of_type = client.types.iter().filter(|of_type| {
        matches!(of_type.resource_type, ResourceType::Cluster | ResourceType::Endpoint)
            && of_type.subscribed != Subscribed::Names(0)
    });
    let accepted = of_type.map(|of_type| {
        if of_type.synced {
            sequence
        } else if of_type.rejected.is_empty() {
            of_type.accepted_sequence.min(sequence)
        } else {
            0
        }
    });
    EdgeProgress {
        node: client.node.id.to_string(),
        group: client.group.name().to_owned(),
        accepted: accepted.min().unwrap_or(sequence),
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
