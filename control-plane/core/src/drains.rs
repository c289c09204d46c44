//! What an operator wants left alone: containers that get no new requests until they are told otherwise, or end. It holds for one run of
//! a container: the next one begins anew.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::instance::InstanceId;

/// The runs that are drained, by the full id of their container or entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Drains(BTreeMap<String, Drain>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// When the run began, verbatim as the provider says it.
    pub started_at: String,
    /// Since when it is drained.
    pub since: Timestamp,
}

impl Drains {
    /// Since when this run is drained.
    #[must_use]
    pub fn since(&self, id: &InstanceId) -> Option<Timestamp> {
        self.0.get(&id.container).filter(|drain| drain.started_at == id.started_at).map(|drain| drain.since)
    }

    /// The same, with that one; one that is drained already keeps its time.
    #[must_use]
    pub fn with(mut self, container: &str, drain: Drain) -> Self {
        let known = self.0.get(container).is_some_and(|known| known.started_at == drain.started_at);
        if !known {
            self.0.insert(container.to_owned(), drain);
        }
        self
    }

    /// The same without that container.
    #[must_use]
    pub fn without(mut self, container: &str) -> Self {
        self.0.remove(container);
        self
    }

    /// Leaves out what is over: of which `lasts` does not know, by the container's id and the start of its run.
    #[must_use]
    pub fn of_runs(mut self, lasts: impl Fn(&str, &str) -> bool) -> Self {
        self.0.retain(|container, drain| lasts(container, &drain.started_at));
        self
    }

    /// The containers.
    pub fn containers(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}
