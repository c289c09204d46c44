//! Why something gets traffic, or does not: the stages that lead from a Docker event to an edge's ACK, each with what was
//! observed, and the first that did not pass as the answer. Here are the stages that the state knows; whoever sees the store and
//! the edges [appends](Part::push) the rest. A stage says `unknown` where an earlier one hides it, never what is merely likely.

mod stages;
mod subject;

pub use self::subject::container;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::journal::Entry;
use crate::status::API_VERSION;
use crate::{ServiceName, State, Timestamp, VersionName};

/// The answer to `explain SUBJECT`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// [`API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// The answer in one sentence.
    pub answer: String,
    /// A service and then its containers, oldest first; or one container, once for each of its services.
    pub parts: Vec<Part>,
}

/// The stages of one service or container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// `service shop`, `container shop-1 (3f9c1a2b77d0)`.
    pub subject: String,
    /// The service that it is, or belongs to.
    pub service: Option<String>,
    /// The version that a container belongs to.
    pub version: Option<String>,
    /// What follows when every stage has passed.
    pub outcome: String,
    /// In order.
    pub stages: Vec<Stage>,
    /// What happened to a container last, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Entry>,
}

/// One step on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub state: StageState,
    /// When.
    pub at: Option<Timestamp>,
    /// What was observed.
    pub detail: String,
}

/// Whether a stage passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StageState {
    /// It passed.
    Passed,
    /// It did not.
    Failed,
    /// It has not been decided yet.
    Pending,
    /// An earlier stage hides it.
    Unknown,
}

impl fmt::Display for StageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
        })
    }
}

/// Nothing, or more than one thing, has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Nothing has it.
    #[error("there is no service, container or entry `{subject}`")]
    Unknown {
        /// What was asked for, fit for a terminal.
        subject: String,
        /// What to do about it.
        cure: String,
    },
    /// A service has it, and a container or entry is meant.
    #[error("`{subject}` is a service")]
    Service {
        /// What was asked for, fit for a terminal.
        subject: String,
        /// What to do about it.
        cure: String,
    },
    /// A prefix of several ids.
    #[error("`{subject}` is the beginning of several container ids: {}", .candidates.join(", "))]
    Ambiguous {
        /// What was asked for, fit for a terminal.
        subject: String,
        /// The containers it could be.
        candidates: Vec<String>,
    },
}

impl SubjectError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> &str {
        match self {
            Self::Unknown { cure, .. } | Self::Service { cure, .. } => cure,
            Self::Ambiguous { .. } => "give more characters of the id, or the container's name",
        }
    }
}

/// The stages of a service, or of a container by its name or the beginning of its id. A service goes before a container of
/// the same name: its explanation holds that of the container.
///
/// # Errors
/// When nothing, or more than one container, has that name.
pub fn explain(state: &State, subject: &str, now: Timestamp) -> Result<Explanation, SubjectError> {
    let mut explanation = Explanation {
        api_version: API_VERSION.to_owned(),
        at: now,
        answer: String::new(),
        parts: match subject::find(state, subject)? {
            subject::Found::Service(name) => {
                let members = state.catalog().members(&name);
                let service = stages::service(state, &name);
                let containers = members
                    .iter()
                    .map(|(container, membership)| stages::container(state, container, Some(*membership)));
                std::iter::once(service).chain(containers).collect()
            }
            subject::Found::Container(container) => stages::container_with_its_services(state, container),
        },
    };
    explanation.conclude();
    Ok(explanation)
}

impl Explanation {
    /// Names the first stage that did not pass. Call again after stages were added.
    pub fn conclude(&mut self) {
        let Some(first) = self.parts.first() else { return };
        self.answer = first.answer();
    }

    /// Whether some stage of the subject itself failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.parts.first().is_some_and(|part| part.stages.iter().any(|stage| stage.state == StageState::Failed))
    }
}

impl Part {
    /// Adds a stage at the end.
    pub fn push(&mut self, stage: Stage) {
        self.stages.push(stage);
    }

    /// The name of its EDS cluster, if it is a container that belongs to a service.
    #[must_use]
    pub fn cluster(&self) -> Option<String> {
        let service = ServiceName::new(self.service.as_deref()?).ok()?;
        let version = VersionName::new(self.version.as_deref()?).ok()?;
        Some(crate::name::cluster_name(&service, &version))
    }

    /// The first stage that failed, else the first that is not decided, else the outcome.
    #[must_use]
    pub fn answer(&self) -> String {
        let first = |state| self.stages.iter().find(|stage| stage.state == state);
        let subject = &self.subject;
        if let Some(stage) = first(StageState::Failed) {
            return format!("{subject} gets no traffic: {} failed: {}", stage.name, stage.detail);
        }
        if let Some(stage) = first(StageState::Pending) {
            return format!("{subject} waits for {}: {}", stage.name, stage.detail);
        }
        if let Some(stage) = first(StageState::Unknown) {
            return format!("{subject}: {} is not known: {}", stage.name, stage.detail);
        }
        format!("{subject}: every stage passed; {}", self.outcome)
    }
}

impl Stage {
    /// A stage.
    #[must_use]
    pub fn new(name: &str, state: StageState, at: Option<Timestamp>, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state, at, detail: detail.into() }
    }
}

#[cfg(test)]
mod tests;
