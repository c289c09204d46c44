//! The delta protocol on one stream, as a state machine: requests in, responses out. Pure: no socket, no task, no
//! clock; `now` is the time since the store was made. It reads the store's tables and changes only itself.
//!
//! Types wait for each other here, and nowhere else (make before break). A stream's listeners and routes wait until it
//! has confirmed the clusters that came before them; its removals of clusters wait until it has confirmed the listeners
//! and routes that came before those; endpoints wait for nobody, because Envoy acknowledges clusters only when they are
//! warm and warming needs the endpoints. Nobody waits longer than a few ACK time-outs.

mod acks;
mod blame;
mod draft;
mod identity;
mod nonce;
mod watch;

pub(crate) use identity::Identity;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use crate::resource::{PerType, ResourceType, Version};
use crate::session::identity::truncated;
use crate::session::nonce::Nonce;
use crate::session::watch::{Gates, Held, Watch};
use crate::status::{ClientId, Subscribed};
use crate::store::table::Tables;
use crate::subscription::{Change, Owed};

/// What bounds a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long an answer may take before the stream goes on without it.
    pub(crate) ack_timeout: Duration,
    /// Where a response is cut.
    pub(crate) max_response_bytes: usize,
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

/// One stream's side of the protocol.
#[derive(Debug)]
pub(crate) struct Session {
    client: ClientId,
    limits: Limits,
    identity: Option<Identity>,
    watches: PerType<Watch>,
    /// The number of the last response on this stream, of any type.
    responses: u64,
}

/// A response, ready to be written: everything but the resources is small, and those are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) type_url: Arc<str>,
    pub(crate) nonce: String,
    /// The store's number as of this response; for reading logs, nothing depends on it.
    pub(crate) sequence: u64,
    pub(crate) fragments: Vec<Bytes>,
    pub(crate) removed: Vec<Arc<str>>,
}

/// What became of a request.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// An answer that owes nothing to the store.
    pub(crate) reply: Option<Response>,
    pub(crate) verdict: Option<(ResourceType, Verdict)>,
}

/// A client's answer to a response.
#[derive(Debug)]
pub(crate) enum Verdict {
    Accepted { sequence: u64 },
    Rejected { resources: Vec<(Arc<str>, Version)>, message: Arc<str> },
}

/// Why a stream must end.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("the request names no type: type_url is empty")]
    MissingTypeUrl,
    #[error("the stream belongs to node '{first}', a later request says '{later}'")]
    NodeChanged { first: Arc<str>, later: Arc<str> },
}

/// What a client has of one resource.
#[derive(Debug)]
pub(crate) enum Progress {
    Unsubscribed,
    NotSent,
    Sent,
    Accepted { at: Duration },
    Rejected { message: Arc<str>, at: Duration },
}

/// The state of one watch, for those who look from outside.
#[derive(Debug)]
pub(crate) struct WatchStatus {
    pub(crate) subscribed: Subscribed,
    pub(crate) sent_sequence: u64,
    pub(crate) accepted_sequence: u64,
    pub(crate) in_flight: bool,
    pub(crate) synced: bool,
    pub(crate) rejected: Vec<(Arc<str>, Version, Arc<str>, Duration)>,
}

impl Session {
    pub(crate) fn new(client: ClientId, limits: Limits) -> Self {
        Self { client, limits, identity: None, watches: PerType::default(), responses: 0 }
    }

    /// Takes one request: an answer to a response, a change of subscription, or both.
    pub(crate) fn on_request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        tables: &Tables,
        now: Duration,
    ) -> Result<Outcome, ProtocolError> {
        self.identify(request.node.as_ref())?;
        if request.type_url.is_empty() {
            return Err(ProtocolError::MissingTypeUrl);
        }
        let Some(resource_type) = ResourceType::from_type_url(&request.type_url) else {
            return Ok(Outcome { reply: self.reply_to_unknown_type(request, tables), verdict: None });
        };

        let first = !self.watches[resource_type].requested;
        // "the nonce is valid only in the context of an individual xDS stream; it does not survive stream restarts":
        // whatever nonce the first request of a type carries, it is not ours.
        let verdict = if first { None } else { self.judge(resource_type, request, now) };

        // "the server must honor changes to the subscription state even if the nonce is stale".
        let watch = &mut self.watches[resource_type];
        let table = tables.table(resource_type);
        let change = Change {
            subscribe: &request.resource_names_subscribe,
            unsubscribe: &request.resource_names_unsubscribe,
            legacy_wildcard_possible: first && resource_type.has_legacy_wildcard(),
            next_response: self.responses + 1,
        };
        let owed = watch.subscription.apply(&change, |name| table.intern(name));
        if first {
            // What it holds is believed where the server decides what there is to hold. A client that names its
            // resources gets them: one that reconnects may have forgotten them.
            let held = resource_type.has_legacy_wildcard().then_some(&request.initial_resource_versions);
            watch.start(tables, held, owed, table);
        } else if owed != Owed::default() || !request.resource_names_unsubscribe.is_empty() {
            watch.owe(owed, table);
        }
        Ok(Outcome { reply: None, verdict: verdict.map(|verdict| (resource_type, verdict)) })
    }

    /// What the stream should send now, in the order of delivery. Call until it answers `None`.
    pub(crate) fn next_response(&mut self, tables: &Tables, now: Duration) -> Option<Response> {
        for watch in self.watches.values_mut() {
            watch.settle(&self.limits, now);
        }
        for resource_type in ResourceType::ALL {
            let gates = self.gates(resource_type, now);
            let watch = &mut self.watches[resource_type];
            let Some(mut draft) = watch.compose(resource_type, tables, gates, &self.limits, now) else { continue };
            self.responses += 1;
            let fragments = std::mem::take(&mut draft.fragments);
            let removed = draft.removed.clone();
            let upserted = watch.sent(self.responses, draft, now);
            if resource_type == ResourceType::Cluster {
                // "Warming of Cluster is completed only when a new ClusterLoadAssignment response is supplied by
                // management server even though there is no change in endpoints", and in delta Envoy may not ask for
                // one.
                let endpoints = &mut self.watches[ResourceType::Endpoint];
                for name in &upserted {
                    endpoints.refresh(name, tables.table(ResourceType::Endpoint));
                }
            }
            return Some(Response {
                type_url: Arc::from(resource_type.type_url()),
                nonce: Nonce { client: self.client, resource_type, number: self.responses }.to_string(),
                sequence: tables.sequence(),
                fragments,
                removed,
            });
        }
        None
    }

    /// When `next_response` may have more to say although nothing else happened.
    pub(crate) fn deadline(&self, now: Duration) -> Option<Duration> {
        self.watches.iter().flat_map(|(_, watch)| watch.deadlines(&self.limits)).filter(|at| *at > now).min()
    }

    /// The types that this stream wants anything of, as a set of [`ResourceType::bit`]s.
    pub(crate) fn interest(&self) -> u8 {
        let wanted = self.watches.iter().filter(|(_, watch)| !watch.subscription.is_empty());
        wanted.fold(0, |set, (resource_type, _)| set | resource_type.bit())
    }

    /// Withdrawals up to here are of no more use to this stream.
    pub(crate) fn removal_cursor(&self, resource_type: ResourceType) -> u64 {
        self.watches[resource_type].removal_cursor()
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    pub(crate) fn progress(&self, resource_type: ResourceType, name: &str, tables: &Tables) -> Option<Progress> {
        let entry = tables.table(resource_type).get(name)?;
        let watch = &self.watches[resource_type];
        if !watch.subscription.covers(name) {
            return Some(Progress::Unsubscribed);
        }
        Some(match watch.held(name, entry) {
            Held::Not => Progress::NotSent,
            Held::InFlight => Progress::Sent,
            Held::Accepted(at) => Progress::Accepted { at },
            Held::Refused(refusal) => Progress::Rejected { message: refusal.message, at: refusal.at },
        })
    }

    pub(crate) fn watch_status(&self, resource_type: ResourceType, tables: &Tables) -> WatchStatus {
        let watch = &self.watches[resource_type];
        let table = tables.table(resource_type);
        WatchStatus {
            subscribed: match &watch.subscription {
                subscription if subscription.is_wildcard() => Subscribed::Everything,
                subscription => Subscribed::Names(subscription.names()),
            },
            sent_sequence: watch.sent_sequence(),
            accepted_sequence: watch.accepted_sequence(),
            in_flight: watch.in_flight(),
            synced: watch.is_synced(table),
            rejected: watch
                .rejections(table)
                .map(|(name, refusal)| (Arc::clone(name), refusal.version, Arc::clone(&refusal.message), refusal.at))
                .collect(),
        }
    }

    /// "Only the first request on a stream is guaranteed to carry the node identifier. [...] The node identifier should
    /// always be identical if present more than once on the stream."
    fn identify(&mut self, node: Option<&Node>) -> Result<(), ProtocolError> {
        match (&self.identity, node) {
            (None, node) => self.identity = Some(node.map(Identity::of).unwrap_or_default()),
            (Some(first), Some(node)) if *first.node_id != *truncated(&node.id) && !node.id.is_empty() => {
                let (first, later) = (Arc::clone(&first.node_id), Arc::from(truncated(&node.id)));
                return Err(ProtocolError::NodeChanged { first, later });
            }
            (Some(_), _) => {}
        }
        Ok(())
    }

    /// "ACK or NACK is determined by the absence or presence of error_detail."
    fn judge(
        &mut self,
        resource_type: ResourceType,
        request: &DeltaDiscoveryRequest,
        now: Duration,
    ) -> Option<Verdict> {
        let number = Nonce::parse(&request.response_nonce, self.client, resource_type)?;
        let watch = &mut self.watches[resource_type];
        match &request.error_detail {
            None => watch
                .accept(number, &self.limits, now)
                .then(|| Verdict::Accepted { sequence: watch.accepted_sequence() }),
            Some(error) => {
                let refused = watch.refuse(number, &error.message, &self.limits, now)?;
                Some(Verdict::Rejected { resources: refused.quarantined, message: refused.message })
            }
        }
    }

    /// A type that this server does not serve has no resources: say so, so that the client does not wait, and only when
    /// it asks, so that its ACK is not answered in turn.
    fn reply_to_unknown_type(&mut self, request: &DeltaDiscoveryRequest, tables: &Tables) -> Option<Response> {
        let asks = !request.resource_names_subscribe.is_empty() || request.response_nonce.is_empty();
        let removes = !request.resource_names_unsubscribe.is_empty() && request.resource_names_subscribe.is_empty();
        if !asks || removes {
            return None;
        }
        self.responses += 1;
        let mut names: Vec<Arc<str>> = request
            .resource_names_subscribe
            .iter()
            .filter(|name| *name != "*")
            .map(|name| Arc::from(name.as_str()))
            .collect();
        names.sort_unstable();
        names.dedup();
        Some(Response {
            type_url: Arc::from(request.type_url.as_str()),
            nonce: format!("{}-unknown-{}", self.client, self.responses),
            sequence: tables.sequence(),
            fragments: Vec::new(),
            removed: names,
        })
    }

    /// What a type may send now, given what the stream has confirmed of the others.
    fn gates(&self, resource_type: ResourceType, now: Duration) -> Gates {
        let confirmed = |other| self.watches[other].confirmed();
        let settled = |other| confirmed(other).min(self.watches[other].confirmed_removals());
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
            ResourceType::Endpoint => self.watches[ResourceType::Cluster].confirmed_removals(),
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
