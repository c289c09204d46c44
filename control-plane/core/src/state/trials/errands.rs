//! What is to be asked and told outside for rollouts.

use serde::Serialize;

use crate::config::canary::{MetricKind, Webhook, WebhookKind};
use crate::rollout::{Effect, Event, Plan, Share};
use crate::{ServiceName, VersionName};

/// Something to be asked or told outside for a rollout.
#[derive(Clone, Debug, PartialEq)]
pub struct Errand {
    /// Whose.
    pub service: ServiceName,
    /// Of which rollout: an answer to another one is nothing.
    pub generation: String,
    /// What.
    pub job: Job,
}

/// What is to be asked or told.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Whether the share may grow.
    Ask {
        /// Of which kind they are.
        kind: WebhookKind,
        /// All of them have to agree.
        webhooks: Vec<Webhook>,
        /// The versions, and the share now.
        about: Box<About>,
    },
    /// A number of Prometheus.
    Measure {
        /// The metric.
        metric: String,
        /// The server, `http://HOST:PORT`.
        address: String,
        /// The query.
        query: String,
    },
    /// What happened.
    Tell {
        /// Whom.
        webhooks: Vec<Webhook>,
        /// The versions, and the share now.
        about: Box<About>,
        /// What.
        event: Box<Event>,
    },
}

/// What a rollout is about, for those outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// The service.
    pub service: ServiceName,
    /// The stable version.
    pub stable: VersionName,
    /// The canary.
    pub canary: VersionName,
    /// Its share in basis points.
    pub weight: u32,
}

/// What is to be asked and told for what a rollout did.
pub(super) fn errands<'a>(
    service: &'a ServiceName,
    plan: &'a Plan,
    share: &'a Share,
    effects: &'a [Effect],
) -> impl Iterator<Item = Errand> + 'a {
    let of = |kind: WebhookKind| -> Vec<Webhook> {
        plan.canary.webhooks.iter().filter(|webhook| webhook.kind == kind).cloned().collect()
    };
    let about = || {
        let (stable, canary) = (plan.stable.clone(), plan.canary.version.clone());
        Box::new(About { service: service.clone(), stable, canary, weight: share.weight })
    };
    let job = move |effect: &Effect| match effect {
        Effect::Ask(kind) => Some(Job::Ask { kind: *kind, webhooks: of(*kind), about: about() }),
        Effect::Measure(name) => {
            let metric = plan.canary.analysis.as_ref()?.metrics.iter().find(|metric| metric.name == *name)?;
            let MetricKind::Prometheus { address, query } = &metric.kind else { return None };
            Some(Job::Measure { metric: name.clone(), address: address.clone(), query: query.clone() })
        }
        Effect::Tell(event) => {
            let webhooks = of(WebhookKind::Notify);
            (!webhooks.is_empty()).then(|| Job::Tell { webhooks, about: about(), event: Box::new(event.clone()) })
        }
    };
    let generation = plan.generation();
    effects.iter().filter_map(job).map(move |job| Errand {
        service: service.clone(),
        generation: generation.clone(),
        job,
    })
}
