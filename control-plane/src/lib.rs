//! The control plane's IO and wiring: discovery, probing, the reconcile loop, the servers and the command line. What any
//! of it means is decided in `tidegate-core`.

pub mod clock;
mod authorities;
mod watch;
pub mod config;
pub mod discovery;
pub mod probe;
pub mod filter;
mod groups;
pub mod reconcile;
pub mod reports;
pub mod rollouts;
mod samples;
mod webhooks;
mod state_dir;
pub mod operator;
pub mod last_known_good;
pub mod edges;
pub mod heartbeat;
pub mod metrics;
pub mod api;
mod http;
mod ports;
pub mod tls;
pub mod envoy;
pub mod options;
pub mod run;
pub mod supervised;
pub mod up;
pub mod cli;
