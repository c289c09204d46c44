//! The one task that owns the state. Everything enters by its inbox; it applies, derives, compiles and commits, and answers those
//! who want to look. Nobody else changes the state or the store.

use std::collections::BTreeMap;
use tidegate_core::{ServiceName, State, Timestamp};
use tokio::sync::{mpsc, oneshot};

/// When a service's newest resources were committed to the xDS store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The store's sequence of that commit.
    pub sequence: u64,
    /// When it was committed.
    pub at: Timestamp,
}

/// What a look at the state sees.
pub struct Look<'a> {
    /// The state.
    pub state: &'a State,
    /// What was committed, by service.
    pub published: &'a BTreeMap<ServiceName, Publication>,
    /// Now.
    pub now: Timestamp,
}

type Looker = Box<dyn FnOnce(&Look<'_>) + Send>;

/// Lets others look at the state, between two rounds of the task that owns it.
#[derive(Clone, Debug)]
pub struct Observer(mpsc::Sender<Looker>);

/// The reconcile task is gone: the process is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the control plane is shutting down")]
pub struct Gone;

impl Observer {
    /// Runs `look` on the state as it is between two rounds. It must be quick: nothing is reconciled meanwhile.
    ///
    /// # Errors
    /// [`Gone`] when the reconcile task has ended.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&Look<'_>) -> T + Send + 'static) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        let looker: Looker = Box::new(move |seen| {
            // The asker may have gone away; then nobody wants the answer.
            let _ = reply.send(look(seen));
        });
        self.0.send(looker).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}
