//! A disk that can be full: a file system in memory of a size of its own.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

/// A small disk, for as long as it lives.
pub struct Disk(TempDir);

impl Disk {
    /// One of this size, such as `1m`.
    pub fn new(size: &str) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "mounting a small disk needs root");
        let directory = tempfile::tempdir()?;
        let options = std::ffi::CString::new(format!("size={size}"))?;
        mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), options.as_c_str())?;
        Ok(Self(directory))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves no room; returns the file that takes it.
    pub fn fill(&self) -> Result<PathBuf> {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path)?;
        while file.write_all(&[0; 256]).is_ok() {}
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}
