//! What the xDS store knows of the connected edges, in the API's words. "Accepted" is an ACK; whether it is in effect is not
//! known here, and not said.

use std::collections::BTreeSet;

use tidegate_core::problem::printable;
use tidegate_core::status::{
    AcceptanceState, EdgeAcceptance, EdgeRejection, EdgeState, EdgeStatus, EdgeSubscription, EdgeType,
};
use tidegate_xds::{ClientStatus, ResourceType, Store, Subscribed, TypeStatus};

use crate::clock::timestamp;
use crate::groups;

/// Every connected edge, oldest first.
pub(crate) fn edges(store: &Store) -> Vec<EdgeStatus> {
    store.clients().iter().map(edge).collect()
}

/// How far each edge of these groups is with the newest version of one resource.
pub(crate) fn acceptance(
    store: &Store,
    groups: &BTreeSet<String>,
    resource_type: ResourceType,
    name: &str,
) -> Vec<EdgeAcceptance> {
    let of_edge = |acceptance: tidegate_xds::Acceptance| {
        use tidegate_xds::AcceptanceState as Seen;
        let (state, at, message) = match acceptance.state {
            Seen::NotSent => (AcceptanceState::NotSent, None, None),
            Seen::Sent => (AcceptanceState::Sent, None, None),
            Seen::Accepted { at } => (AcceptanceState::Accepted, Some(timestamp(at)), None),
            Seen::Rejected { message, at } => {
                (AcceptanceState::Rejected, Some(timestamp(at)), Some(printable(&message)))
            }
            Seen::HeldBack => (AcceptanceState::HeldBack, None, None),
        };
        EdgeAcceptance { node: printable(&acceptance.node_id), state, at, message }
    };
    let all = store.acceptance(resource_type, name).into_iter();
    all.filter(|acceptance| groups.contains(acceptance.group.name())).map(of_edge).collect()
}

fn edge(client: &ClientStatus) -> EdgeStatus {
    EdgeStatus {
        node: printable(&client.node.id),
        cluster: printable(&client.node.cluster),
        group: groups::shown(&client.group),
        version: printable(&client.node.user_agent),
        peer: client.peer.map(|peer| peer.to_string()),
        connected_at: timestamp(client.connected_at),
        synced: client.is_synced(),
        types: client.types.iter().map(edge_type).collect(),
    }
}

fn edge_type(status: &TypeStatus) -> EdgeType {
    let state = match status.subscribed {
        Subscribed::Names(0) => EdgeState::Unwanted,
        Subscribed::Names(_) | Subscribed::Everything if !status.rejected.is_empty() => EdgeState::Rejected,
        Subscribed::Names(_) | Subscribed::Everything if status.synced => EdgeState::Synced,
        Subscribed::Names(_) | Subscribed::Everything => EdgeState::Stale,
    };
    let rejected = status.rejected.iter().map(|rejection| EdgeRejection {
        name: printable(&rejection.name),
        version: rejection.version.to_string(),
        message: printable(&rejection.message),
        at: timestamp(rejection.at),
    });
    EdgeType {
        kind: status.resource_type.label().to_owned(),
        state,
        subscribed: match status.subscribed {
            Subscribed::Everything => EdgeSubscription::Everything,
            Subscribed::Names(names) => EdgeSubscription::Names(names),
        },
        sent_sequence: status.sent_sequence,
        accepted_sequence: status.accepted_sequence,
        in_flight: status.in_flight,
        synced: status.synced,
        rejected: rejected.collect(),
    }
}
