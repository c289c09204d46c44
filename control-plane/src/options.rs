//! What `tidegate run` was asked to do, resolved: defaults filled in, the environment read.

use std::path::{Path, PathBuf};

/// Options of `run`, and of `up`, which passes them on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The configuration file; `None`: there is none, and the defaults hold.
    pub config: Option<PathBuf>,
    /// Where state is kept: the filter, the last known good, Envoy's bootstrap and admin socket.
    pub state_dir: PathBuf,
    /// Another build of the filter than the embedded one.
    pub filter_wasm: Option<PathBuf>,
    /// Serves xDS without TLS on any address.
    pub insecure_xds: bool,
    /// Started by `tidegate up`, which tells its problems on standard input and whose end ends this process.
    pub supervised: bool,
}

impl RunOptions {
    /// The configuration file as of now: the default one may have appeared since.
    #[must_use]
    pub fn config_now(&self) -> Option<PathBuf> {
        config_file(self.config.clone())
    }
}

/// The configuration file that is meant: the named one, else the default one if it exists.
#[must_use]
pub fn config_file(named: Option<PathBuf>) -> Option<PathBuf> {
    named.or_else(|| Path::new(DEFAULT_CONFIG).exists().then(|| PathBuf::from(DEFAULT_CONFIG)))
}

/// The configuration file that is read when none is named.
pub const DEFAULT_CONFIG: &str = "tidegate.yaml";
/// The state directory when none is named.
pub const DEFAULT_STATE_DIR: &str = "tidegate-state";
