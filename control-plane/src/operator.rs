//! What operators asked for at run time, kept in the state directory so that a restart does not forget it. Whoever changes it comes
//! here; it is written before it is in force, so that nothing is in force that a restart would undo.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_core::drains::Drains;
use tidegate_core::{Code, Input, Problem};
use tokio::sync::{Mutex, mpsc};

use crate::state_dir;

/// The name under which this part reports.
pub const PART: &str = "operator";

/// The file in the state directory.
const FILE: &str = "drains.json";

/// Changes what operators want, one change at a time.
#[derive(Clone, Debug)]
pub struct Operator {
    path: Arc<PathBuf>,
    turn: Arc<Mutex<()>>,
    inbox: mpsc::Sender<Input>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// It cannot be kept.
    #[error("it cannot be kept in {}: {source}", .path.display())]
    Unkept {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The control plane stops.
    #[error("the control plane is shutting down")]
    Gone,
}

impl Operator {
    /// What is kept in this state directory, and what is wrong with it: what cannot be read counts as nothing.
    #[must_use]
    pub fn restore(state_dir: &Path) -> (Drains, Option<Problem>) {
        let path = state_dir.join(FILE);
        let read = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Drains::default()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(drains) => (drains, None),
            Err(reason) => {
                let problem = Problem::error(
                    Code::OperatorState,
                    path.display().to_string(),
                    reason,
                    "nothing is drained; what was drained before gets requests again",
                    "drain it again with `tidegate drain`, which replaces the file",
                );
                (Drains::default(), Some(problem))
            }
        }
    }

    /// Keeps it in this state directory, and tells `inbox`.
    #[must_use]
    pub fn new(state_dir: &Path, inbox: mpsc::Sender<Input>) -> Self {
        Self { path: Arc::new(state_dir.join(FILE)), turn: Arc::default(), inbox }
    }

    /// Waits for its turn; what is read until it is given back is what is changed.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Keeps this and puts it in force.
    ///
    /// # Errors
    /// When it cannot be kept: then nothing is changed.
    pub(crate) async fn drain(&self, drains: Drains) -> Result<(), OperatorError> {
        let (path, text) = (Arc::clone(&self.path), serde_json::to_vec_pretty(&drains).unwrap_or_default());
        let written = tokio::task::spawn_blocking(move || state_dir::replace(&path, |out| out.write_all(&text)))
            .await
            .map_err(|_| OperatorError::Gone)?;
        written.map_err(|source| OperatorError::Unkept { path: self.path.to_path_buf(), source })?;
        self.inbox.send(Input::Drained(drains)).await.map_err(|_| OperatorError::Gone)
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Timestamp;
    use tidegate_core::drains::Drain;

    use super::*;

    #[tokio::test]
    async fn what_is_drained_is_kept_before_it_is_in_force() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Operator::restore(directory.path()), (Drains::default(), None));
        let (inbox, mut inputs) = mpsc::channel(1);
        let operator = Operator::new(directory.path(), inbox);
        let drain = Drain { started_at: "then".to_owned(), since: Timestamp::from_millis(1) };
        let drains = Drains::default().with("abc", drain);
        operator.drain(drains.clone()).await.unwrap();
        assert!(matches!(inputs.try_recv(), Ok(Input::Drained(told)) if told == drains));
        assert_eq!(Operator::restore(directory.path()), (drains.clone(), None));

        fs::remove_file(directory.path().join(FILE)).unwrap();
        fs::create_dir(directory.path().join(FILE)).unwrap();
        let refused = operator.drain(drains).await.unwrap_err();
        assert!(matches!(refused, OperatorError::Unkept { .. }));
        assert!(inputs.try_recv().is_err(), "what is not kept is not in force");
        let (nothing, problem) = Operator::restore(directory.path());
        assert_eq!((nothing, problem.unwrap().code), (Drains::default(), Code::OperatorState));
    }
}
