//! The xDS server and a real Envoy, in delta and in state of the world: routes by the thousand, either end killed and
//! started again, resources that Envoy refuses, connections cut at bad moments, a stream for each type. Asserted on what
//! clients saw and on what Envoy itself says.

#![allow(clippy::print_stderr, reason = "measured times belong in the test's log")]

mod library;

mod reconnects;
mod refusals;
mod restarts;
mod routes;
mod services;

use anyhow::{Result, ensure};
use tidegate_tests::{
    envoy::Envoy,
    load::{Load, Running},
    poll::{SOON, until},
};

/// One test of each variant.
macro_rules! in_both_variants {
    ($($name:ident),* $(,)?) => {
        mod delta {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name(tidegate_tests::edge::Variant::Delta).await
            })*
        }

        mod sotw {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name(tidegate_tests::edge::Variant::Sotw).await
            })*
        }
    };
}
pub(crate) use in_both_variants;

/// GETs of a host for as long as the test goes on, 200 a second.
fn load(listener: std::net::SocketAddr, host: &str) -> Running {
    Load::get(listener, host, "/").rate(200.0, 16).duration(40 * SOON).start()
}

/// So many requests more.
async fn asked(load: &Running, more: u64) -> Result<()> {
    let so_far = load.done();
    until(SOON, &format!("{more} requests more"), async || {
        ensure!(load.done() > so_far + more, "{}", load.done() - so_far);
        Ok(())
    })
    .await
}

/// Waits until Envoy has, or has not, a stream to its control plane.
async fn connected(envoy: &Envoy, is: bool) -> Result<()> {
    until(SOON, &format!("connected = {is}"), async || {
        let state = envoy.stat("control_plane.connected_state").await?;
        ensure!(state == u64::from(is), "it is {state}");
        Ok(())
    })
    .await
}
