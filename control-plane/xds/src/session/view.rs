//! What can be seen of a session from outside. Changes nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::resource::{ResourceType, Version};
use crate::session::Session;
use crate::session::watch::Held;
use crate::status::Subscribed;
use crate::store::table::Tables;

/// What a client has of one resource.
#[derive(Debug)]
pub(crate) enum Progress {
    Unsubscribed,
    NotSent,
    Sent,
    Accepted {
        at: Duration,
    },
    Rejected {
        message: Arc<str>,
        at: Duration,
    },
    /// Another client refused it and nobody accepted it: this one has the last accepted version.
    HeldBack,
}

/// The state of one watch, for those who look from outside.
#[derive(Debug)]
pub(crate) struct WatchStatus {
    pub(crate) subscribed: Subscribed,
    pub(crate) sent_sequence: u64,
    pub(crate) accepted_sequence: u64,
    pub(crate) in_flight: bool,
    pub(crate) synced: bool,
    pub(crate) responses: u64,
    pub(crate) acks: u64,
    pub(crate) nacks: u64,
    pub(crate) rejected: Vec<(Arc<str>, Version, Arc<str>, Duration)>,
}

impl Session {
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
            Held::Another => Progress::HeldBack,
        })
    }

    pub(crate) fn watch_status(&self, resource_type: ResourceType, tables: &Tables) -> WatchStatus {
        let watch = &self.watches[resource_type];
        let table = tables.table(resource_type);
        WatchStatus {
            subscribed: match &watch.subscription {
                subscription if subscription.is_wildcard() => Subscribed::Everything,
                subscription => Subscribed::Names(subscription.len()),
            },
            sent_sequence: watch.sent_sequence(),
            accepted_sequence: watch.accepted_sequence(),
            in_flight: watch.in_flight(),
            synced: watch.is_synced(table),
            responses: watch.tally().sent,
            acks: watch.tally().accepted,
            nacks: watch.tally().rejected,
            rejected: watch
                .rejections(table)
                .map(|(name, refusal)| (Arc::clone(name), refusal.version, Arc::clone(&refusal.message), refusal.at))
                .collect(),
        }
    }
}
