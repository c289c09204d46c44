//! The labels of images, each read once: those that a container has from its image are told apart from its own by them. An
//! image never changes under its id.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tidegate_core::labels;
use tokio::sync::OnceCell;

use super::engine::EngineError;

/// Images that are remembered; when there are more, all are forgotten and read once more, which costs a call for each.
const MAX_IMAGES: usize = 1024;

type Labels = BTreeMap<String, String>;

/// What is known of images, by their ids.
#[derive(Debug, Default)]
pub(super) struct Images {
    known: Mutex<HashMap<String, Arc<OnceCell<Labels>>>>,
}

impl Images {
    /// The labels of an image that anything is read of. Who asks while it is being read waits for the same answer; a failure is
    /// not remembered.
    pub(super) async fn labels(
        &self,
        id: &str,
        read: impl Future<Output = Result<Image, EngineError>>,
    ) -> Result<Labels, EngineError> {
        let cell = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_IMAGES && !known.contains_key(id) {
                known.clear();
            }
            Arc::clone(known.entry(id.to_owned()).or_default())
        };
        let labels =
            cell.get_or_try_init(|| async { Ok(labels::kept(read.await?.config.unwrap_or_default().labels())) });
        labels.await.cloned()
    }
}

/// The parts of `GET /images/{id}/json` that are read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Image {
    #[serde(default)]
    config: Option<Config>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<Labels>,
}

impl Config {
    fn labels(self) -> Labels {
        self.labels.unwrap_or_default()
    }
}
