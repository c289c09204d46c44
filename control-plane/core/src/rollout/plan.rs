//! What a rollout follows: the declared trial beside the version it is compared with, and its steps as stages. Nothing here changes.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::VersionName;
use crate::config::canary::{Step, WebhookKind};
use crate::config::{Canary, WHOLE};

/// A trial, as it is declared now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The version that the canary is compared with, and that gets the rest.
    pub stable: VersionName,
    /// The trial.
    pub canary: Arc<Canary>,
    /// By whom it is declared.
    pub origin: Origin,
}

/// By whom a trial is declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// `tidegate.yaml`.
    File,
    /// `tidegate canary start`.
    Operator,
    /// A label of the canary's containers.
    Label,
}

/// A share of the canary, and how long it stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// Basis points of the requests.
    pub weight: u32,
    /// Basis points of the requests that are sent to it besides.
    pub mirror: u32,
    /// How long it stays at least: the sum of the pauses after it.
    pub bake: Duration,
    /// Whether it is left only by `promote`, because a pause after it has no end.
    pub until_promoted: bool,
}

impl Plan {
    /// What run-time state belongs to: 16 hexadecimal digits that are the same for the same versions and text, wherever they are
    /// declared, and others for others.
    #[must_use]
    pub fn generation(&self) -> String {
        // A canary is plain data with names for keys, so it always has a JSON.
        let text = serde_json::to_string(&(&self.stable, &*self.canary)).unwrap_or_default();
        format!("{:016x}", xxh3_64(text.as_bytes()))
    }

    /// The steps, as stages. After the last one the canary gets everything.
    #[must_use]
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = Vec::new();
        for step in &self.canary.steps {
            match *step {
                Step::SetWeight(weight) => stages.push(Stage { weight: weight.min(WHOLE), ..Stage::default() }),
                Step::Mirror(mirror) => stages.push(Stage { mirror: mirror.min(WHOLE), ..Stage::default() }),
                Step::Pause(pause) => {
                    if stages.is_empty() {
                        stages.push(Stage::default());
                    }
                    if let Some(stage) = stages.last_mut() {
                        stage.bake = stage.bake.saturating_add(pause.unwrap_or_default());
                        stage.until_promoted |= pause.is_none();
                    }
                }
            }
        }
        stages
    }

    /// The stage of this number; `None`: there is none, so everything.
    #[must_use]
    pub fn stage(&self, number: usize) -> Option<Stage> {
        self.stages().get(number).copied()
    }

    /// Who has to agree to a share that grows to this one, if anybody.
    pub(super) fn confirmation(&self, from: u32, to: u32) -> Option<WebhookKind> {
        let kind = if to >= WHOLE { WebhookKind::ConfirmPromotion } else { WebhookKind::ConfirmTrafficIncrease };
        (to > from && self.canary.webhooks.iter().any(|webhook| webhook.kind == kind)).then_some(kind)
    }

    /// How long those may take to answer.
    pub(super) fn patience(&self, kind: WebhookKind) -> Duration {
        let of_kind = self.canary.webhooks.iter().filter(|webhook| webhook.kind == kind);
        of_kind.map(|webhook| webhook.timeout).max().unwrap_or_default()
    }
}

impl Origin {
    /// As the history names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "tidegate.yaml",
            Self::Operator => "operator",
            Self::Label => "label",
        }
    }
}
