//! What the file provider counts. Shared with whoever renders `/metrics`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the file provider. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct FileStats {
    /// Looks at what files there are.
    pub looks: Counter,
    /// Files read.
    pub reads: Counter,
    /// Files there are.
    pub files: Gauge,
    /// Entries in force.
    pub entries: Gauge,
}

impl FileStats {
    /// Registers everything as `file_…`; the registry's prefix comes before it.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("file_looks", "Looks at what files of instances there are", self.looks.clone());
        registry.register("file_reads", "Files of instances read", self.reads.clone());
        registry.register("file_files", "Files of instances there are", self.files.clone());
        registry.register("file_entries", "Entries of files in force", self.entries.clone());
    }
}
