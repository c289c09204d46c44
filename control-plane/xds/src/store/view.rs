//! What the clients of one group see: the tables, and who is woken by what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::clients::Clients;
use crate::group::{Group, Grouping};
use crate::node::Node;
use crate::resource::ResourceType;
use crate::store::index::Index;
use crate::store::table::Tables;

/// Withdrawals are kept until every stream has seen them; below this many it is not worth asking the streams.
pub(super) const MIN_TOMBSTONES: usize = 256;

/// One group's view.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) group: Group,
    tables: RwLock<Tables>,
    index: RwLock<Index>,
    /// How many withdrawals there may be before it is worth asking again which are still of use.
    patience: AtomicUsize,
}

impl View {
    pub(crate) fn new(group: Group) -> Self {
        Self { group, ..Self::default() }
    }

    pub(crate) fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the withdrawals that every stream has seen. Asks the streams only when there are twice as many as the
    /// last time left, so that one stream that lags does not make every commit ask them all.
    pub(crate) fn forget_tombstones(&self, clients: &Clients) {
        let count = |tables: &Tables| ResourceType::ALL.into_iter().map(|it| tables.table(it).tombstones()).sum();
        let kept: usize = count(&self.tables());
        if kept < self.patience.load(Ordering::Relaxed).max(MIN_TOMBSTONES) {
            return;
        }
        let cursors = ResourceType::ALL.map(|resource_type| clients.min_removal_cursor(self, resource_type));
        let mut tables = self.tables_mut();
        for (resource_type, upto) in ResourceType::ALL.into_iter().zip(cursors) {
            let upto = upto.min(tables.sequence());
            tables.forget_tombstones(resource_type, upto);
        }
        self.patience.store(count(&tables) * 2, Ordering::Relaxed);
    }
}

/// All views, and which client gets which.
#[derive(Clone, Debug, Default)]
pub(crate) struct Views {
    grouping: Grouping,
    default: Arc<View>,
    others: BTreeMap<Group, Arc<View>>,
}

impl Views {
    pub(crate) fn default_view(&self) -> &Arc<View> {
        &self.default
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<View>> {
        std::iter::once(&self.default).chain(self.others.values())
    }

    pub(crate) fn get(&self, group: &Group) -> Option<&Arc<View>> {
        if *group == Group::default() { Some(&self.default) } else { self.others.get(group) }
    }

    pub(crate) fn of(&self, node: &Node) -> &Arc<View> {
        self.get(&self.grouping.of(node)).unwrap_or(&self.default)
    }

    /// The views of another grouping: those of groups that stay are the same.
    pub(crate) fn regrouped(&self, grouping: Grouping) -> Self {
        let others = grouping.groups().iter().map(|group| {
            let view = self.others.get(group).cloned().unwrap_or_else(|| Arc::new(View::new(group.clone())));
            (group.clone(), view)
        });
        Self { default: Arc::clone(&self.default), others: others.collect(), grouping }
    }
}
