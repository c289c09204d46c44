//! The pure half of tidegate's control plane: what labels mean, which instances exist, which of them are ready, how
//! traffic is split, and which Envoy resources follow from all that. It has no clock, no IO, no async and no environment:
//! time comes in as [`Timestamp`], facts come in as [`Input`]s, and equal facts give equal resources whatever their order.

pub mod name;
pub mod problem;
pub mod instance;
pub mod container;
pub mod labels;
pub mod config;
pub mod instances_file;
pub mod input;
pub mod catalog;
mod claims;
mod addresses;
mod flaps;
pub mod drains;
pub mod ownership;
pub mod health;
pub mod rollout;
pub mod service;
pub mod state;
pub mod journal;
pub mod compile;
pub mod status;
pub mod forecast;
pub mod explain;
pub mod bootstrap;
pub mod traffic;
mod words;
mod duration;
pub mod suggest;
mod time;
#[cfg(test)]
mod testing;

pub use input::Input;
pub use instance::{Discovered, Instance, InstanceId, Update};
pub use name::{ProviderName, ServiceName, VersionName};
pub use problem::{Code, Problem, Severity};
pub use state::State;
pub use time::Timestamp;
