//! Deployments under load: three services of real containers, requests of every kind to all of them through any edge, and a script
//! that replaces their containers one after another, each of which ends in its own way. It judges nothing: tests and benches do.

mod http2;
mod script;
mod traffic;

pub use http2::Http2;
pub use script::{End, Ended, REPLICAS, Script, Service};
pub use traffic::{Kind, Seen, Traffic};

use std::env;

use anyhow::{Context, Result};

/// A number from the environment.
pub fn number(variable: &str, default: u64) -> Result<u64> {
    match env::var(variable) {
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{variable}={text} is no number")),
        _ => Ok(default),
    }
}
