//! The file: read, set aside, and written so that whoever reads it sees one whole version or the other, also after the power
//! failed. It knows nothing of when.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tidegate_xds::{Snapshot, SnapshotError};

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

/// Writes beside, and renames over what is there once everything is on the disk.
pub(super) fn write(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let written = write_new(&fresh, snapshot).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // Half a file is of no use, and may be what fills the disk.
        let _ = fs::remove_file(&fresh);
    }
    written?;
    // The rename itself.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    // What a killed process left there may be open to others, or be a link.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::new(file);
    snapshot.write_to(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()
}
