//! Which engine showed a container first. Two engines of the configuration may lead to one daemon; its containers are then
//! told once, by whoever was first, and the other says so.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tidegate_core::ProviderName;

/// Shared by all engines. Bounded by the number of their containers.
#[derive(Clone, Debug, Default)]
pub struct Sightings(Arc<Mutex<HashMap<String, ProviderName>>>);

impl Sightings {
    fn with<T>(&self, look: impl FnOnce(&mut HashMap<String, ProviderName>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `who` shows `id`; the engine that showed it first, if that is another one.
    pub(super) fn show(&self, id: &str, who: &ProviderName) -> Option<ProviderName> {
        self.with(|first| match first.get(id) {
            Some(first) if first == who => None,
            Some(first) => Some(first.clone()),
            None => {
                first.insert(id.to_owned(), who.clone());
                None
            }
        })
    }

    /// `who` does not show `id` any more; whether it was the one that had.
    pub(super) fn hide(&self, id: &str, who: &ProviderName) -> bool {
        self.with(|first| first.get(id) == Some(who) && first.remove(id).is_some())
    }

    /// `who` shows these, and nothing else.
    pub(super) fn show_only(&self, ids: &HashSet<&str>, who: &ProviderName) {
        self.with(|first| first.retain(|id, provider| provider != who || ids.contains(id.as_str())));
    }
}
