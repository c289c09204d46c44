//! What can be observed of the streams: plain values, copied out of the sessions. "Accepted" means that the client
//! acknowledged a resource, not that it is in effect.
//!
//! Times are the wall clock at the making of the store plus the time that has passed since, so they never run backwards
//! and are read in one place.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::group::Group;
use crate::node::Node;
use crate::resource::{ResourceType, Variant, Version};

/// One stream. A client that reconnects gets a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub(crate) u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A client as of now. A stream is listed from its first request on, which is read once the store is open.
#[derive(Clone, Debug)]
pub struct ClientStatus {
    pub client: ClientId,
    pub node: Node,
    /// The group that the client belongs to.
    pub group: Group,
    pub variant: Variant,
    pub peer: Option<SocketAddr>,
    pub connected_at: SystemTime,
    /// One for each type, in the order of [`ResourceType::ALL`].
    pub types: Vec<TypeStatus>,
}

impl ClientStatus {
    /// Whether the client has accepted everything that it is subscribed to.
    pub fn is_synced(&self) -> bool {
        self.types.iter().all(|it| it.synced || it.subscribed == Subscribed::Names(0))
    }
}

/// How far one client is with one type.
#[derive(Clone, Debug)]
pub struct TypeStatus {
    pub resource_type: ResourceType,
    pub subscribed: Subscribed,
    /// Changes up to this number had been taken into account when the last response was sent.
    pub sent_sequence: u64,
    /// The newest change that the client has acknowledged, with all before it that concern it.
    pub accepted_sequence: u64,
    /// Responses sent on this stream, and how many of them the client accepted and rejected.
    pub responses: u64,
    pub acks: u64,
    pub nacks: u64,
    /// Whether a response awaits its answer.
    pub in_flight: bool,
    /// Whether the client has accepted all that is published now and concerns it.
    pub synced: bool,
    /// What is published now and was refused by this client.
    pub rejected: Vec<Rejection>,
}

/// What a client wants of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    Everything,
    /// This many names; 0 if the client does not want the type.
    Names(usize),
}

/// A version of a resource that a client refused. It is not sent to it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub name: Arc<str>,
    pub version: Version,
    /// The client's words, unchanged.
    pub message: Arc<str>,
    pub at: SystemTime,
}

/// Whether one client has the newest version of one resource.
#[derive(Clone, Debug)]
pub struct Acceptance {
    pub client: ClientId,
    pub node_id: Arc<str>,
    /// The group that the client belongs to.
    pub group: Group,
    /// Whether the client wants the resource. If not, nothing was sent and the state is `NotSent`.
    pub subscribed: bool,
    pub state: AcceptanceState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AcceptanceState {
    NotSent,
    /// Sent, not answered.
    Sent,
    /// Acknowledged, at the latest at this time: exact for recent changes, coarser for old ones.
    Accepted {
        at: SystemTime,
    },
    Rejected {
        message: Arc<str>,
        at: SystemTime,
    },
    /// Not sent: another client refused it and none has accepted it. This one has the last version that was accepted.
    HeldBack,
}

/// A published resource, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The number of the change that published this version; [`Committed::sequence`](crate::Committed::sequence) of its
    /// commit is not below it.
    pub sequence: u64,
    pub version: Version,
    /// The length of the encoded message.
    pub bytes: usize,
    pub committed_at: SystemTime,
}

/// News about a client. Events are hints: whatever they say can be asked of the store, which also knows more. When
/// nobody takes them they are dropped, acceptances first.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    Connected {
        client: ClientId,
        node: Node,
        peer: Option<SocketAddr>,
    },
    Disconnected {
        client: ClientId,
        node_id: Arc<str>,
    },
    /// The client acknowledged a response.
    Accepted {
        client: ClientId,
        node_id: Arc<str>,
        resource_type: ResourceType,
        /// The client has every change up to this number that concerns it, but for what it refused.
        sequence: u64,
    },
    /// The client refused a response.
    Rejected {
        client: ClientId,
        node_id: Arc<str>,
        resource_type: ResourceType,
        /// The culprits, now parked for this client. Empty while the search for the culprit goes on; another event will
        /// name it.
        resources: Vec<(Arc<str>, Version)>,
        /// The client's words, unchanged.
        message: Arc<str>,
    },
}

/// What has been counted since the store was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub commits: u64,
    /// Resources encoded: one for each upsert, whatever the number of streams.
    pub encodes: u64,
    /// Resources whose content really changed, removals included.
    pub changes: u64,
    /// Streams woken by commits.
    pub wakes: u64,
    pub responses: u64,
    /// Bytes of responses, without gRPC's and HTTP's own.
    pub response_bytes: u64,
    pub accepted: u64,
    pub rejected: u64,
    /// Events that found no room.
    pub events_dropped: u64,
}
