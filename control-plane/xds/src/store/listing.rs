//! The published resources as a list, for those who compare it with what a client says it has.

use std::sync::Arc;

use super::Store;
use crate::group::Group;
use crate::resource::{ResourceType, Version};

impl Store {
    /// Name and version of every resource of a type that is published to the default group, by name.
    pub fn list(&self, resource_type: ResourceType) -> Vec<(Arc<str>, Version)> {
        self.list_for(&Group::default(), resource_type)
    }

    /// The same for another group; nothing for one that does not exist.
    pub fn list_for(&self, group: &Group, resource_type: ResourceType) -> Vec<(Arc<str>, Version)> {
        let views = self.views();
        let Some(view) = views.get(group) else { return Vec::new() };
        let tables = view.tables();
        let table = tables.table(resource_type);
        let names = table.names().into_iter();
        names.filter_map(|name| table.get(&name).map(|entry| (Arc::clone(&name), entry.version()))).collect()
    }
}
