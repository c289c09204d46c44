//! The filter's code: embedded in this binary, and written as `SHA256.wasm` into the state directory, from where the local
//! Envoy reads it. A path that names its content is never read half-written, and another build never hides behind it.

use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

const EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tidegate_filter.wasm"));

/// Why the filter's code is not where Envoy could read it.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The build named by `--filter-wasm` cannot be read.
    #[error("the filter {path} cannot be read: {source}")]
    Read {
        /// That path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The code cannot be written into the state directory.
    #[error("the filter cannot be written to {path}: {source}")]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The SHA-256 of the embedded filter, in hex.
#[must_use]
pub fn wasm_sha256() -> String {
    hex(EMBEDDED)
}

/// Puts the filter (the embedded one, or the build at `other`) into `state_dir`; returns its absolute path.
///
/// # Errors
/// When `other` cannot be read or the state directory cannot be written.
pub fn install(state_dir: &Path, other: Option<&Path>) -> Result<PathBuf, FilterError> {
    let read;
    let code = match other {
        None => EMBEDDED,
        Some(path) => {
            read = std::fs::read(path).map_err(|source| FilterError::Read { path: path.to_owned(), source })?;
            &read
        }
    };
    let path = state_dir.join(format!("{}.wasm", hex(code)));
    let failed = |source| FilterError::Write { path: path.clone(), source };
    std::fs::create_dir_all(state_dir).map_err(failed)?;
    let path = std::path::absolute(&path).map_err(failed)?;
    if std::fs::read(&path).is_ok_and(|known| known == code) {
        return Ok(path);
    }
    // Written beside and renamed: an Envoy that reads meanwhile sees the whole file or none.
    let fresh = path.with_extension(format!("wasm.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(code)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &path)
    };
    write().map_err(failed)?;
    Ok(path)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_named_by_its_content_and_mended_when_damaged() {
        let state = tempfile::tempdir().unwrap();
        let path = install(state.path(), None).unwrap();
        assert_eq!(path.file_name().unwrap().to_string_lossy(), format!("{}.wasm", wasm_sha256()));
        std::fs::write(&path, b"damaged").unwrap();
        assert_eq!(install(state.path(), None).unwrap(), path);
        assert_eq!(hex(&std::fs::read(&path).unwrap()), wasm_sha256());
    }

    #[test]
    fn another_build_has_another_name() {
        let state = tempfile::tempdir().unwrap();
        let other = state.path().join("mine.wasm");
        std::fs::write(&other, b"\0asm").unwrap();
        assert_ne!(install(state.path(), Some(&other)).unwrap(), install(state.path(), None).unwrap());
        assert!(matches!(install(state.path(), Some(Path::new("/nope.wasm"))), Err(FilterError::Read { .. })));
    }
}
