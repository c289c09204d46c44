//! Sources of instances. Each sends updates into the inbox and knows nothing of Envoy.

pub mod docker;
pub mod file;
