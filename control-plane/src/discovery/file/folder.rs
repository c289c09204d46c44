//! The files on disk: which there are, and which changed since they were read. Everything here blocks, for as long as the disk
//! and the parsing take.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tidegate_core::instances_file::MAX_FILE;
use tidegate_core::{Code, Problem};

use super::book::Book;
use super::stats::FileStats;

/// A file of instances, or a directory of them.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    stats: FileStats,
    /// The files that were read, as they were then.
    read: BTreeMap<String, Stamp>,
    /// Why the path cannot be looked at.
    away: Option<Problem>,
    pub(super) book: Book,
}

/// What tells a file from what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    length: u64,
    inode: u64,
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { modified: (file.mtime(), file.mtime_nsec()), length: file.len(), inode: file.ino() }
    }
}

impl Folder {
    pub(super) fn new(path: PathBuf, stats: FileStats) -> Self {
        Self { path, stats, read: BTreeMap::new(), away: None, book: Book::default() }
    }

    /// Reads what changed into the book. False when the path itself cannot be looked at; then everything stays as it was.
    pub(super) fn look(&mut self) -> bool {
        self.stats.looks.inc();
        let files = match list(&self.path) {
            Ok(files) => files,
            Err(error) => {
                self.away = Some(self.away(&error));
                return false;
            }
        };
        self.away = None;
        self.stats.files.set(i64::try_from(files.len()).unwrap_or(i64::MAX));
        let gone: Vec<String> = self.book.files().filter(|known| !files.contains_key(*known)).cloned().collect();
        for name in gone {
            self.read.remove(&name);
            self.book.remove(&name);
        }
        for (name, (path, found)) in files {
            let stamp = found.as_ref().ok().map(Stamp::of);
            if stamp.is_some() && self.read.get(&name) == stamp.as_ref() {
                continue;
            }
            match found.and_then(|found| self.text(&path, &found)) {
                // The stamp is older than the text: what is written meanwhile makes another one.
                Ok(text) => {
                    self.book.write(&name, &text);
                    self.read.extend(stamp.map(|stamp| (name, stamp)));
                }
                Err(error) => {
                    self.read.remove(&name);
                    self.book.spoil(&name, unreadable(&name, &error));
                }
            }
        }
        true
    }

    /// Everything that is wrong.
    pub(super) fn problems(&self) -> Vec<Problem> {
        self.away.iter().cloned().chain(self.book.problems()).collect()
    }

    fn text(&self, path: &Path, found: &Metadata) -> io::Result<String> {
        if !found.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        if found.len() > MAX_FILE {
            return Err(io::Error::other(format!("it has {} bytes; {MAX_FILE} are allowed", found.len())));
        }
        self.stats.reads.inc();
        fs::read_to_string(path)
    }

    fn away(&self, error: &io::Error) -> Problem {
        let reason = match error.kind() {
            ErrorKind::NotFound => "it is not there".to_owned(),
            _ => format!("it cannot be looked at: {error}"),
        };
        Problem::error(
            Code::UnreadableInstances,
            self.path.display().to_string(),
            reason,
            "what was known of its entries stays in force; while none was ever read, nothing is published",
            "make it a file or a directory that tidegate may read, or set `providers.file.path`; it is looked at again \
             until it is there",
        )
    }
}

fn unreadable(file: &str, error: &io::Error) -> Problem {
    Problem::error(
        Code::UnreadableInstances,
        file,
        format!("it cannot be read: {error}"),
        "nothing of this file is used; what it held when it was last good stays in force",
        "let tidegate read it, or remove it; it is tried again until it can be read",
    )
}

type Files = BTreeMap<String, (PathBuf, io::Result<Metadata>)>;

/// The files by name. Of a directory: `*.yaml` and `*.yml` that are not hidden; editors hide what they are not done with.
fn list(path: &Path) -> io::Result<Files> {
    if !fs::metadata(path)?.is_dir() {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        return Ok([(name, (path.to_owned(), fs::metadata(path)))].into());
    }
    let mut files = Files::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        let fits = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if !fits || name.starts_with('.') {
            continue;
        }
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => {}
            // It went away since, or is a link to nothing.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            found => {
                files.insert(name, (path, found));
            }
        }
    }
    Ok(files)
}
