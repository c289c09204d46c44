//! Everything that can happen to the state. Whatever the world does becomes one [`Input`], enters by one inbox and is applied by
//! one task.

use crate::config::Config;
use crate::config::canary::WebhookKind;
use crate::drains::Drains;
use crate::health::Verdict;
use crate::journal::EdgeProgress;
use crate::rollout::Sample;
use crate::{InstanceId, Problem, ProviderName, ServiceName, Timestamp, Update};
use tidegate_filter_core::Report;

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
    /// What the edges' load reports say of the two versions of a rollout, since they said it last.
    Sampled {
        /// Whose.
        service: ServiceName,
        /// What.
        sample: Box<Sample>,
    },
    /// What the filter of an edge says.
    EdgeReport(Box<Report>),
    /// What webhooks of this kind said.
    Hooked {
        /// Whose.
        service: ServiceName,
        /// Of which rollout.
        generation: String,
        /// The kind.
        kind: WebhookKind,
        /// Whether all of them agree, and if not, why.
        answer: Result<(), String>,
    },
    /// What Prometheus said.
    Measured {
        /// Whose.
        service: ServiceName,
        /// Of which rollout.
        generation: String,
        /// The metric.
        metric: String,
        /// Its value, or why there is none.
        result: Result<f64, String>,
    },
    /// The rollouts are on disk up to this revision, or cannot be.
    RolloutsKept(u64),
    /// The filter crashed in an Envoy: a fresh version of its configuration heals it.
    FilterCrashed,
    /// Time passed: deadlines are looked at.
    Tick,
}
