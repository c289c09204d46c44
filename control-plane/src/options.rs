//! What `tidegate run` was asked to do, resolved: defaults filled in, the environment read.

use std::path::PathBuf;

/// Options of `run`, and of `up`, which passes them on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The configuration file; `None`: there is none, and the defaults hold.
    pub config: Option<PathBuf>,
    /// Where state is kept: the filter, Envoy's bootstrap and admin socket.
    pub state_dir: PathBuf,
    /// Another build of the filter than the embedded one.
    pub filter_wasm: Option<PathBuf>,
    /// Started by `tidegate up`, which tells its problems on standard input and whose end ends this process.
    pub supervised: bool,
}

/// The configuration file that is read when none is named.
pub const DEFAULT_CONFIG: &str = "tidegate.yaml";
/// The state directory when none is named.
pub const DEFAULT_STATE_DIR: &str = "tidegate-state";
