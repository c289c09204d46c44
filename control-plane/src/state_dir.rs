//! The state directory belongs to one control plane at a time: two that were started on it by mistake would each write over
//! what the other keeps. Here are the lock, and how files get there; what is kept is the business of others.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tidegate_core::{Code, Problem};

/// Writes a file that its owner alone reads: beside, and renamed over what is there once everything is on the disk.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let written = write_new(&fresh, write).and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // Half a file is of no use, and may be what fills the disk.
        let _ = fs::remove_file(&fresh);
    }
    written?;
    // The rename itself.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    // What a killed process left there may be open to others, or be a link.
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()
}

/// The file that is locked. It stays when the lock goes: with the process that has it, however that ends.
const FILE: &str = "lock";

/// The state directory is ours for as long as this lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    _lock: File,
}

impl StateDir {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// When another process has it, or it cannot be locked.
    pub(crate) fn take(path: &Path) -> Result<Self, Problem> {
        let unusable = |error: io::Error| {
            refused(
                path,
                &format!("it cannot be locked: {error}"),
                "make it a directory, on a file system with locks; `--state-dir` names another",
            )
        };
        fs::create_dir_all(path).map_err(unusable)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path.join(FILE));
        // Where nothing can be written any more, the directory itself has a lock too.
        let mut file = file.or_else(|_| File::open(path)).map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok_and(|_| holder.trim().parse::<u32>().is_ok());
                let holder = if known { format!(" (process {})", holder.trim()) } else { String::new() };
                return Err(refused(
                    path,
                    &format!("another control plane uses it{holder}"),
                    "stop that one, or give this one a directory and addresses of its own with `--state-dir` and `--config`",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        // Only for the message above: on a full disk it goes without.
        let _ = file.rewind().and_then(|()| file.set_len(0)).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _lock: file })
    }
}

fn refused(path: &Path, reason: &str, cure: &str) -> Problem {
    let subject = format!("state directory {}", path.display());
    let effect = "this control plane does not start; an Envoy that runs keeps its configuration";
    Problem::error(Code::StateInUse, subject, reason, effect, cure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_has_one_control_plane_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let first = StateDir::take(&path).unwrap();
        for _ in 0..2 {
            let problem = StateDir::take(&path).unwrap_err();
            assert_eq!(problem.code, Code::StateInUse);
            let reason = format!("another control plane uses it (process {})", std::process::id());
            assert_eq!(problem.reason, reason);
        }
        drop(first);
        assert!(StateDir::take(&path).is_ok());

        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let problem = StateDir::take(&file).unwrap_err();
        assert!(problem.reason.starts_with("it cannot be locked: "), "{problem}");
    }
}
