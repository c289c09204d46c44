//! The published resources as a list, for those who compare it with what a client says it has.

use std::sync::Arc;

use super::Store;
use crate::resource::{ResourceType, Version};

impl Store {
    /// Name and version of every published resource of a type, by name.
    pub fn list(&self, resource_type: ResourceType) -> Vec<(Arc<str>, Version)> {
        let tables = self.tables();
        let table = tables.table(resource_type);
        let names = table.names().into_iter();
        names.filter_map(|name| table.get(&name).map(|entry| (Arc::clone(&name), entry.version()))).collect()
    }
}
