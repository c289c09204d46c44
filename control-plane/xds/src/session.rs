//! The protocol on one stream, in either variant, as a state machine: requests in, responses out. Pure: no socket, no
//! task, no clock; `now` is the time since the store was made. It reads the store's tables and changes only itself.
//!
//! Types wait for each other here, and nowhere else (make before break). A stream's listeners and routes wait until it
//! has confirmed the clusters that came before them; its removals of clusters wait until it has confirmed the listeners
//! and routes that came before those; endpoints wait for nobody, because Envoy acknowledges clusters only when they are
//! warm and warming needs the endpoints. Nobody waits longer than a few ACK time-outs.

mod acks;
mod blame;
mod draft;
mod nonce;
mod parcel;
mod refusals;
mod request;
mod view;
mod watch;

pub(crate) use parcel::{Parcel, Parcels};
pub(crate) use request::Request;
pub(crate) use view::Progress;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::names::NameList;
use crate::node::{Node, truncated};
use crate::pace::Rate;
use crate::resource::{PerType, ResourceType, TypeSet, Variant, Version};
use crate::session::nonce::Nonce;
use crate::session::request::Names;
use crate::session::watch::{Gates, Refused, Scene, Watch};
use crate::status::ClientId;
use crate::store::table::Tables;
use crate::subscription::{Context, Owed};

/// What bounds a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long an answer may take before the stream goes on without it.
    pub(crate) ack_timeout: Duration,
    /// Where a response is cut.
    pub(crate) max_response_bytes: usize,
    /// How often a type's changes are sent, so that those of a storm are sent together.
    pub(crate) changes: Rate,
    /// How many names a stream may ask for, over all types, and how long they may be together.
    pub(crate) max_names: usize,
    pub(crate) max_name_bytes: usize,
    /// The types of which no names at all mean everything.
    pub(crate) legacy_wildcard: TypeSet,
}

impl Limits {
    /// How long routes wait for clusters.
    fn upsert_patience(&self) -> Duration {
        self.ack_timeout
    }

    /// How long removals wait for routes: these may have waited for clusters before, and then for their own ACK.
    fn removal_patience(&self) -> Duration {
        self.ack_timeout * 3
    }
}

/// What a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) variant: Variant,
    /// The one type that a stream of its own carries; `None`: the aggregated stream carries all.
    pub(crate) only: Option<ResourceType>,
}

/// One stream's side of the protocol.
#[derive(Debug)]
pub(crate) struct Session {
    client: ClientId,
    protocol: Protocol,
    limits: Limits,
    node: Node,
    watches: PerType<Watch>,
    /// The bytes of all names that are subscribed to.
    name_bytes: usize,
    /// The number of the last response on this stream, of any type.
    responses: u64,
    /// Until when a client that has something from an earlier stream is expected to ask for all types that others wait
    /// for; `None`: it has nothing.
    asks_until: Option<Duration>,
}

/// A response, ready to be written: everything but the resources is small, and those are shared.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) type_url: Arc<str>,
    pub(crate) nonce: String,
    /// In state of the world a hash of the resources in the response. In delta the store's number as of the response,
    /// for reading logs: nothing depends on it.
    pub(crate) version: String,
    pub(crate) resources: Resources,
    pub(crate) removed: Vec<Arc<str>>,
}

/// The resources of a response, each as it is in there.
#[derive(Clone, Debug)]
pub(crate) enum Resources {
    Own(Vec<Bytes>),
    /// All together, as other streams have them, too.
    Shared(Arc<Parcel>),
}

impl Resources {
    /// The bytes in order.
    pub(crate) fn pieces(&self) -> &[Bytes] {
        match self {
            Self::Own(fragments) => fragments,
            Self::Shared(parcel) => std::slice::from_ref(&parcel.resources),
        }
    }
}

/// What became of a request.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// An answer that owes nothing to the store.
    pub(crate) reply: Option<Response>,
    pub(crate) verdict: Option<(ResourceType, Verdict)>,
    /// How the request changed what wakes the stream.
    pub(crate) interest: Option<Interest>,
}

/// How a request changed what a stream wants to be woken for.
#[derive(Debug)]
pub(crate) struct Interest {
    pub(crate) resource_type: ResourceType,
    pub(crate) everything: bool,
    /// All that it wants by name, where it shares that with others; the rest are changes to that.
    pub(crate) list: Option<Arc<NameList>>,
    pub(crate) gained: Vec<Arc<str>>,
    pub(crate) lost: Vec<Arc<str>>,
}

/// A client's answer to a response.
#[derive(Debug)]
pub(crate) enum Verdict {
    Accepted {
        sequence: u64,
        /// What had been refused by other clients, and is now accepted for the first time.
        released: Vec<Arc<str>>,
    },
    Rejected {
        resources: Vec<(Arc<str>, Version)>,
        message: Arc<str>,
        /// As above: of a response that is refused in part the client takes the rest.
        released: Vec<Arc<str>>,
    },
}

/// Why a stream must end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("the request names no type: type_url is empty")]
    MissingTypeUrl,
    #[error("this stream carries {of} alone, the request is for '{asked}'")]
    OtherType { of: ResourceType, asked: Arc<str> },
    #[error("the stream belongs to node '{first}', a later request says '{later}'")]
    NodeChanged { first: Arc<str>, later: Arc<str> },
    #[error("the stream asks for more than {0} names")]
    TooManyNames(usize),
    #[error("the names that the stream asks for are longer than {0} bytes together")]
    NamesTooLong(usize),
}

impl Session {
    pub(crate) fn new(client: ClientId, node: Node, protocol: Protocol, limits: Limits) -> Self {
        Self {
            client,
            protocol,
            limits,
            node,
            watches: PerType::default(),
            name_bytes: 0,
            responses: 0,
            asks_until: None,
        }
    }

    /// Takes one request: an answer to a response, a change of subscription, or both.
    pub(crate) fn on_request(
        &mut self,
        request: &Request<'_>,
        tables: &Tables,
        now: Duration,
    ) -> Result<Outcome, ProtocolError> {
        self.check_node(request)?;
        let Some(resource_type) = self.type_of(request)? else {
            return Ok(Outcome { reply: self.reply_to_unknown_type(request, tables), ..Outcome::default() });
        };

        let first = !self.watches[resource_type].requested;
        // "the nonce is valid only in the context of an individual xDS stream; it does not survive stream restarts":
        // whatever nonce the first request of a type carries, it is not ours.
        let verdict = if first { None } else { self.judge(resource_type, request, tables, now) };

        // "the server must honor changes to the subscription state even if the nonce is stale". In state of the world,
        // too: with one response outstanding the newest request has the newest names.
        let context = Context {
            first,
            legacy_wildcard: self.limits.legacy_wildcard.contains(resource_type),
            next_response: self.responses + 1,
        };
        self.check_names(&request.names)?;
        if first && self.asks_until.is_none() && request.states_something() {
            self.asks_until = Some(now + self.limits.upsert_patience());
        }
        let may_be_warming = resource_type == ResourceType::Endpoint && self.awaits_clusters();
        let held = if may_be_warming { None } else { request.names.held() };
        let watch = &mut self.watches[resource_type];
        let table = tables.table(resource_type);
        let was_wildcard = watch.subscription.is_wildcard();
        let mut owed = match request.names.asked() {
            Some(asked) => {
                watch.subscription.apply(asked, context, |name| table.intern(name), |names| table.share(names))
            }
            None => Owed::default(),
        };
        let interest = Interest {
            resource_type,
            everything: watch.subscription.is_wildcard(),
            list: owed.list.clone(),
            gained: std::mem::take(&mut owed.gained),
            lost: owed.lost.clone(),
        };
        let bytes = |names: &[Arc<str>]| names.iter().map(|name| name.len()).sum::<usize>();
        let of_list = interest.list.as_ref().map_or(0, |list| list.bytes());
        self.name_bytes = self.name_bytes + of_list + bytes(&interest.gained) - bytes(&interest.lost);
        let changed = was_wildcard != interest.everything
            || interest.list.is_some()
            || !interest.gained.is_empty()
            || !interest.lost.is_empty();
        if first {
            watch.start(tables, table, held, owed, context.next_response, now);
            if let Some(state) = table.state(request.version) {
                watch.go_on_from(state, table);
            }
        } else if changed || !owed.is_nothing() {
            watch.owe(owed, tables.sequence());
        }
        self.check_limits()?;
        Ok(Outcome {
            reply: None,
            verdict: verdict.map(|verdict| (resource_type, verdict)),
            interest: changed.then_some(interest),
        })
    }

    /// What the stream should send now, in the order of delivery. Call until it answers `None`.
    pub(crate) fn next_response(&mut self, tables: &Tables, now: Duration) -> Option<Response> {
        for watch in self.watches.values_mut() {
            watch.settle(&self.limits, now);
        }
        let response = self.next_of_any_type(tables, now);
        // A type that had nothing to send may have let an earlier one go on.
        if response.is_none() && self.watches.values().any(Watch::is_blocked) {
            return self.next_of_any_type(tables, now);
        }
        response
    }

    fn next_of_any_type(&mut self, tables: &Tables, now: Duration) -> Option<Response> {
        for resource_type in ResourceType::ALL {
            let gates = self.gates(resource_type, now);
            let (variant, limits) = (self.protocol.variant, &self.limits);
            let scene = Scene { resource_type, variant, tables, gates, limits, now };
            let watch = &mut self.watches[resource_type];
            let Some(mut draft) = watch.compose(scene) else { continue };
            self.responses += 1;
            let version = match variant {
                Variant::Delta => tables.sequence().to_string(),
                Variant::Sotw => draft.version().to_string(),
            };
            let resources = match &draft.parcel {
                Some(parcel) => Resources::Shared(Arc::clone(parcel)),
                None => Resources::Own(std::mem::take(&mut draft.fragments)),
            };
            let removed = draft.removed.clone();
            let from_nothing = watch.began_with_nothing();
            let upserted = watch.sent(self.responses, draft, now);
            if resource_type == ResourceType::Cluster && self.protocol.only.is_none() {
                // "Warming of Cluster is completed only when a new ClusterLoadAssignment response is supplied by
                // management server even though there is no change in endpoints", and in delta Envoy may not ask for
                // one.
                let endpoints = &mut self.watches[ResourceType::Endpoint];
                endpoints.refresh(&upserted, from_nothing, tables.table(ResourceType::Endpoint));
            }
            return Some(Response {
                type_url: Arc::from(resource_type.type_url()),
                nonce: Nonce { client: self.client, resource_type, number: self.responses }.to_string(),
                version,
                resources,
                removed,
            });
        }
        None
    }

    /// When `next_response` may have more to say although nothing else happened.
    pub(crate) fn deadline(&self, now: Duration) -> Option<Duration> {
        let of_watches = self.watches.iter().flat_map(|(_, watch)| watch.deadlines(&self.limits));
        of_watches.chain(self.asks_until).filter(|at| *at > now).min()
    }

    /// Since when the oldest response of any type waits for its answer.
    pub(crate) fn unanswered_since(&self) -> Option<Duration> {
        self.watches.values().filter_map(Watch::unanswered_since).min()
    }

    /// Withdrawals up to here are of no more use to this stream.
    pub(crate) fn removal_cursor(&self, resource_type: ResourceType) -> u64 {
        self.watches[resource_type].removal_cursor()
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn variant(&self) -> Variant {
        self.protocol.variant
    }

    /// Whether clusters may yet be asked for. Envoy asks for them first, but not while it warms any. So if it begins with
    /// another type, the last stream may have been cut between a cluster and its endpoints: the cluster needs them anew,
    /// whatever the client says that it has of them (envoy#22418), and routes have to wait for clusters.
    fn awaits_clusters(&self) -> bool {
        self.protocol.only.is_none() && !self.watches[ResourceType::Cluster].requested
    }

    /// "Only the first request on a stream is guaranteed to carry the node identifier. [...] The node identifier should
    /// always be identical if present more than once on the stream."
    fn check_node(&self, request: &Request<'_>) -> Result<(), ProtocolError> {
        match request.node {
            Some(node) if *self.node.id != *truncated(&node.id) && !node.id.is_empty() => {
                let (first, later) = (Arc::clone(&self.node.id), Arc::from(truncated(&node.id)));
                Err(ProtocolError::NodeChanged { first, later })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The type that a request is for; `None` for one that is not served. "type_url [...] is implicit in requests made
    /// via singleton xDS APIs".
    fn type_of(&self, request: &Request<'_>) -> Result<Option<ResourceType>, ProtocolError> {
        let asked = ResourceType::from_type_url(request.type_url);
        match self.protocol.only {
            None if request.type_url.is_empty() => Err(ProtocolError::MissingTypeUrl),
            None => Ok(asked),
            Some(only) if request.type_url.is_empty() || asked == Some(only) => Ok(Some(only)),
            Some(of) => Err(ProtocolError::OtherType { of, asked: Arc::from(truncated(request.type_url)) }),
        }
    }

    /// Before the names of a request are taken in: so that a single request cannot make the server keep too many.
    fn check_names(&self, names: &Names<'_>) -> Result<(), ProtocolError> {
        let asked = names.wanted();
        if asked.len() > self.limits.max_names {
            return Err(ProtocolError::TooManyNames(self.limits.max_names));
        }
        if asked.iter().map(String::len).sum::<usize>() > self.limits.max_name_bytes {
            return Err(ProtocolError::NamesTooLong(self.limits.max_name_bytes));
        }
        Ok(())
    }

    /// What the stream asks for, over all its requests.
    fn check_limits(&self) -> Result<(), ProtocolError> {
        let names: usize = self.watches.values().map(|watch| watch.subscription.len()).sum();
        if names > self.limits.max_names {
            return Err(ProtocolError::TooManyNames(self.limits.max_names));
        }
        if self.name_bytes > self.limits.max_name_bytes {
            return Err(ProtocolError::NamesTooLong(self.limits.max_name_bytes));
        }
        Ok(())
    }

    /// "ACK or NACK is determined by the absence or presence of error_detail."
    fn judge(
        &mut self,
        resource_type: ResourceType,
        request: &Request<'_>,
        tables: &Tables,
        now: Duration,
    ) -> Option<Verdict> {
        let number = Nonce::parse(request.nonce, self.client, resource_type)?;
        let watch = &mut self.watches[resource_type];
        match request.error {
            None => {
                let released = watch.accept(number, &self.limits, now)?;
                Some(Verdict::Accepted { sequence: watch.accepted_sequence(), released })
            }
            Some(message) => {
                let refused = watch.refuse(number, message, tables.table(resource_type), &self.limits, now)?;
                let Refused { quarantined, message, released } = refused;
                Some(Verdict::Rejected { resources: quarantined, message, released })
            }
        }
    }

    /// A type that this server does not serve has no resources. Delta has words for that, so that the client does not
    /// wait; they are said only when it asks, so that its ACK is not answered in turn.
    fn reply_to_unknown_type(&mut self, request: &Request<'_>, tables: &Tables) -> Option<Response> {
        let Names::Delta { subscribe, unsubscribe, .. } = request.names else { return None };
        let asks = !subscribe.is_empty() || request.nonce.is_empty();
        let removes = !unsubscribe.is_empty() && subscribe.is_empty();
        if !asks || removes {
            return None;
        }
        self.responses += 1;
        let mut names: Vec<Arc<str>> =
            subscribe.iter().filter(|name| *name != "*").map(|name| Arc::from(name.as_str())).collect();
        names.sort_unstable();
        names.dedup();
        Some(Response {
            type_url: Arc::from(request.type_url),
            nonce: format!("{}-unknown-{}", self.client, self.responses),
            version: tables.sequence().to_string(),
            resources: Resources::Own(Vec::new()),
            removed: names,
        })
    }

    /// What a type may send now, given what the stream has confirmed of the others. Of a type that a client is about to
    /// ask for again, it has what was in force when its last stream was cut: nothing of what others wait for.
    fn gates(&self, resource_type: ResourceType, now: Duration) -> Gates {
        let comes_back = self.protocol.only.is_none() && self.asks_until.is_some_and(|until| now < until);
        let is_to_come = |other| comes_back && !self.watches[other].requested;
        let confirmed = |other| if is_to_come(other) { 0 } else { self.watches[other].confirmed() };
        let confirmed_removals = |other| if is_to_come(other) { 0 } else { self.watches[other].confirmed_removals() };
        let settled = |other| confirmed(other).min(confirmed_removals(other));
        let upserts = match resource_type {
            ResourceType::Cluster | ResourceType::Endpoint => Gates::OPEN,
            ResourceType::Listener | ResourceType::Route | ResourceType::ExtensionConfig | ResourceType::Runtime => {
                confirmed(ResourceType::Cluster)
            }
        };
        let removals = match resource_type {
            ResourceType::Listener | ResourceType::Runtime => Gates::OPEN,
            ResourceType::Route | ResourceType::ExtensionConfig => settled(ResourceType::Listener),
            ResourceType::Cluster => settled(ResourceType::Listener).min(settled(ResourceType::Route)),
            ResourceType::Endpoint => confirmed_removals(ResourceType::Cluster),
        };
        let blocked_for = self.watches[resource_type].blocked_for(now);
        Gates {
            upserts: if blocked_for >= self.limits.upsert_patience() { Gates::OPEN } else { upserts },
            removals: if blocked_for >= self.limits.removal_patience() { Gates::OPEN } else { removals },
        }
    }
}

#[cfg(test)]
mod tests;
