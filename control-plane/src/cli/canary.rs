//! `canary`: where rollouts are, what became of them, and leading them.

pub(super) mod history;
pub(super) mod plan;
pub(super) mod order;
pub(super) mod status;
