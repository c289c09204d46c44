//! Everything that can happen to the state. Whatever the world does becomes one [`Input`], enters by one inbox and is applied by
//! one task.

use tidegate_filter_core::Report;

use crate::config::Config;
use crate::drains::Drains;
use crate::health::Verdict;
use crate::journal::EdgeProgress;
use crate::{InstanceId, Problem, ProviderName, Timestamp, Update};

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A provider found something out.
    Provider {
        /// Which one.
        provider: ProviderName,
        /// What.
        update: Update,
    },
    /// The checks of an instance reached a verdict, or changed it.
    Checked {
        /// Which instance.
        id: InstanceId,
        /// The verdict.
        verdict: Verdict,
    },
    /// The configuration was (re)loaded and is valid.
    Configured(Box<Config>),
    /// The problems of one part of the control plane that is no provider (the configuration file, the xDS server, the local
    /// Envoy), replacing those it reported before.
    Reported {
        /// Which part: `config`, `xds`, `envoy`.
        part: &'static str,
        /// Its problems now.
        problems: Vec<Problem>,
    },
    /// How far the connected edges are.
    Accepted {
        /// All of them.
        edges: Vec<EdgeProgress>,
        /// The newest commit when this was seen.
        sequence: u64,
        /// When that was.
        at: Timestamp,
    },
    /// An operator wants just these containers drained.
    Drained(Drains),
    /// What a filter saw of the answers of versions, as it says.
    EdgeReport(Box<Report>),
    /// The filter crashed in an Envoy: a fresh version of its configuration heals it.
    FilterCrashed,
    /// Time passed: deadlines are looked at.
    Tick,
}
