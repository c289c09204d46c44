//! What operators order, and why an order is not carried out.

use std::sync::Arc;

use crate::config::Canary;
use crate::rollout::{Command, Refused};
use crate::{ServiceName, VersionName};

/// What an operator orders.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// A rollout that nobody declared.
    Start {
        /// The version that gets the rest; `None`: the declared one, the one promoted last, or the only other one.
        stable: Option<VersionName>,
        /// The trial.
        canary: Arc<Canary>,
    },
    /// To the one that there is.
    Lead(Command),
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is nothing to lead.
    #[error("the service `{0}` has no canary")]
    NoTrial(ServiceName),
    /// The engine says why.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// It has one already.
    #[error("the service `{service}` has a canary already: {canary}, declared by {by}")]
    UnderWay {
        /// The service.
        service: ServiceName,
        /// The version under trial.
        canary: VersionName,
        /// Who declared it.
        by: &'static str,
    },
    /// What it is to be compared with is not clear.
    #[error("which version of `{0}` is the stable one is not clear: there are {1}")]
    UnclearStable(ServiceName, String),
    /// A version cannot be its own canary.
    #[error("{1} is the stable version of `{0}` itself")]
    Itself(ServiceName, VersionName),
    /// Nobody has such a version.
    #[error("the service `{0}` has no version {1}: there are {2}")]
    UnknownVersion(ServiceName, VersionName, String),
}

impl OrderError {
    /// What to do about it.
    #[must_use]
    pub fn cure(&self) -> String {
        match self {
            Self::NoTrial(service) => {
                format!(
                    "declare one under `services.{service}`, or begin one with `tidegate canary start {service} --version V`"
                )
            }
            Self::Refused(_) => "see `tidegate canary status`".to_owned(),
            Self::UnderWay { by: "tidegate.yaml", .. } => "change or remove it there".to_owned(),
            Self::UnderWay { .. } => "abort it first".to_owned(),
            Self::UnclearStable(..) => "name it with `--stable`".to_owned(),
            Self::Itself(..) => "name another version".to_owned(),
            Self::UnknownVersion(..) => "start containers (or write entries) of it first".to_owned(),
        }
    }
}
