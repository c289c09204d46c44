//! The rules of the protocol that are about the wire and the server, in both variants, and the table of all rules:
//! docs/xds-rules.md says which test keeps which rule, and `make mutants` breaks each and looks whether the test notices.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/client.rs"]
#[expect(dead_code, reason = "the client of the protocol's tests; these need less of it")]
mod client;

/// Makes a test of each variant of a function that is generic over it.
macro_rules! both {
    ($($name:ident)*) => {
        mod delta {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<crate::client::Delta>().await;
            })*
        }
        mod sotw {
            $(#[tokio::test]
            async fn $name() {
                super::$name::<crate::client::Sotw>().await;
            })*
        }
    };
}

mod server;
mod services;
mod table;
