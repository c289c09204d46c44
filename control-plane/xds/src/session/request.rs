//! A request as the session reads it, whichever variant it came in.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};

use crate::subscription::Asked;

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) node: Option<&'a Node>,
    pub(crate) type_url: &'a str,
    pub(crate) nonce: &'a str,
    /// What the client has, as it calls that; empty if nothing, and always in delta.
    pub(crate) version: &'a str,
    /// Why the client refused the response that the nonce names.
    pub(crate) error: Option<&'a str>,
    pub(crate) names: Names<'a>,
}

/// What it says of resources.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Names<'a> {
    Delta {
        subscribe: &'a [String],
        unsubscribe: &'a [String],
        /// What a reconnecting client has, with versions.
        held: &'a HashMap<String, String>,
    },
    /// All names; `None`: those of the request before.
    Sotw(Option<&'a [String]>),
}

impl Request<'_> {
    /// The same, but that it lists what the last one of its type did.
    pub(crate) fn with_names_of_before(self) -> Self {
        Self { names: Names::Sotw(None), ..self }
    }

    /// Whether it says that the client has something. The first request of a type on a stream speaks of an earlier stream.
    pub(super) fn states_something(&self) -> bool {
        let held = self.names.held().is_some_and(|held| !held.is_empty());
        held || !self.version.is_empty()
    }

    /// Whether it says that the client has something from an earlier stream, wherever it stands on this one: it does not
    /// answer a response.
    pub(crate) fn has_something(&self) -> bool {
        self.nonce.is_empty() && self.states_something()
    }
}

impl<'a> Names<'a> {
    /// What it asks for, if that is news.
    pub(super) fn asked(self) -> Option<Asked<'a>> {
        match self {
            Self::Delta { subscribe, unsubscribe, .. } => Some(Asked::Delta { subscribe, unsubscribe }),
            Self::Sotw(names) => names.map(Asked::Sotw),
        }
    }

    /// The names that it asks for.
    pub(super) fn wanted(self) -> &'a [String] {
        match self {
            Self::Delta { subscribe, .. } => subscribe,
            Self::Sotw(names) => names.unwrap_or_default(),
        }
    }

    pub(super) fn held(self) -> Option<&'a HashMap<String, String>> {
        match self {
            Self::Delta { held, .. } => Some(held),
            Self::Sotw(_) => None,
        }
    }

    /// How many names it asks for and lets go of.
    pub(crate) fn counts(self) -> (usize, usize) {
        match self {
            Self::Delta { subscribe, unsubscribe, .. } => (subscribe.len(), unsubscribe.len()),
            Self::Sotw(names) => (names.map_or(0, <[String]>::len), 0),
        }
    }
}

impl<'a> From<&'a DeltaDiscoveryRequest> for Request<'a> {
    fn from(request: &'a DeltaDiscoveryRequest) -> Self {
        Self {
            node: request.node.as_ref(),
            type_url: &request.type_url,
            nonce: &request.response_nonce,
            version: "",
            error: request.error_detail.as_ref().map(|error| error.message.as_str()),
            names: Names::Delta {
                subscribe: &request.resource_names_subscribe,
                unsubscribe: &request.resource_names_unsubscribe,
                held: &request.initial_resource_versions,
            },
        }
    }
}

impl<'a> From<&'a DiscoveryRequest> for Request<'a> {
    fn from(request: &'a DiscoveryRequest) -> Self {
        Self {
            node: request.node.as_ref(),
            type_url: &request.type_url,
            nonce: &request.response_nonce,
            version: &request.version_info,
            error: request.error_detail.as_ref().map(|error| error.message.as_str()),
            names: Names::Sotw(Some(&request.resource_names)),
        }
    }
}
