//! The file: read, set aside, and written so that whoever reads it sees one whole version or the other, also after the power
//! failed. It knows nothing of when.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use tidegate_xds::{Snapshot, SnapshotError};

use crate::state_dir;

/// So many unusable files are kept; one more takes the place of the last.
const ASIDE: u32 = 5;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Content(SnapshotError),
}

/// `None`: there is none.
pub(super) fn read(path: &Path) -> Result<Option<Snapshot>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Snapshot::decode(&bytes).map(Some).map_err(FileError::Content),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::Read(error)),
    }
}

/// Renames it, and returns to what: `last-known-good.damaged-1`.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let numbered = |number: u32| path.with_extension(format!("damaged-{number}"));
    let free = (1..ASIDE).map(numbered).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| numbered(ASIDE));
    fs::rename(path, &aside)?;
    Ok(aside)
}

/// Writes it as every file of the state directory.
pub(super) fn write(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    state_dir::replace(path, |out| snapshot.write_to(out))
}
