//! An xDS server: a [`Store`] of resources, encoded once, and [`serve`], which gives every Envoy that connects what it
//! lacks: on the aggregated stream (ADS) or on one for each [type](ResourceType), in [delta](Variant::Delta) or in
//! [state of the world](Variant::Sotw), as the client chooses. It knows resources and commits; where they come from is
//! the caller's business. Which rules of the protocol it keeps, and which test holds it to each, is in
//! `docs/xds-rules.md`.
//!
//! ```no_run
//! use envoy_types::pb::envoy::config::cluster::v3::Cluster;
//! use tidegate_xds::{Commit, ResourceType, ServerConfig, Store, serve};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::new();
//! let mut commit = Commit::default();
//! commit.upsert(ResourceType::Cluster, "shop", &Cluster { name: "shop".to_owned(), ..Default::default() });
//! store.commit(commit);
//! store.open();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:18000").await?;
//! serve(store, listener, ServerConfig::default(), std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/static_cluster.rs` is a whole program.
//!
//! # What it promises
//! - **Nothing before [`Store::open`].** Streams are held until the first full set is committed.
//! - **An update costs what changed.** Versions are content hashes; equal content reaches nobody. A stream remembers a
//!   cursor, not what the client has.
//! - **Make before break.** To each stream: clusters first, and with each changed cluster its endpoints, changed or
//!   not; listeners, routes, extension configurations and runtime once the clusters that came before them are
//!   acknowledged; removed clusters once the listeners and routes that came before are; removed endpoints after their
//!   clusters. A commit of endpoints alone, or of extension configurations or runtime alone, waits for nothing. No wait
//!   outlasts a few [`ServerConfig::ack_timeout`]s. Streams of one type each know nothing of each other: the order holds
//!   on the aggregated one. References are the committer's business: commit a cluster with its assignment, and remove a
//!   cluster with or after the routes that name it.
//! - **A refused version is not sent again** to the client that refused it, until the content changes. The others of
//!   the same response are: if the refusal names no culprit, halves of the response are tried until it stands alone.
//!   Clients that come later get the last version that any client accepted, until one accepts the new one.
//! - **Groups of clients may get different resources.** A [`Grouping`] says by its [`Node`] where a client belongs,
//!   [`Commit::upsert_for`] what a [`Group`] gets; what several get is encoded once.
//! - **What a client may cost is bounded** by [`ServerConfig`]: the names it asks for, the length and the rate of its
//!   requests, the time it may take to answer, connections and streams. Past a limit its stream ends with the reason.
//! - **A cut leaves no cluster empty.** What a reconnecting client says that it has is not sent again, but for the
//!   endpoints of clusters that it may still be warming: all of them if it asks for endpoints before it asks for
//!   clusters, as Envoy does then. What names clusters waits for these, too, and the removal of clusters for the listeners
//!   and routes that the client is about to ask for. In state of the world its version tells what it had, if that was not
//!   long ago: of that, clusters that went meanwhile are repeated until its routes have moved.
//! - **A slow client delays nobody**, and gets the newest state, merged, when it comes to it. One that does not answer or
//!   read for [`ServerConfig::stall_timeout`] is closed, and so is one that breaks a limit, with the reason.
//! - **A restart empties nobody.** [`Store::snapshot`] is all that is published, and can be written and read back;
//!   [`Store::restore`] publishes it again, with the same versions, until [`Store::replace`] puts the newest full set in its
//!   place.
//! - **A client is who its certificate says.** With [`ServerConfig::tls`] every connection needs a certificate of the
//!   client CA, whatever the method, and a stream whose node the certificate does not name is closed. Handshakes and
//!   silent peers delay nobody; connections have a limit.
//! - **Load is what clients say.** [`Store::load_reports`] adds up what they report of each cluster (LRS).
//! - **Accepted is not in effect.** [`Store::acceptance`] says what a client acknowledged, nothing more.

mod resource;

mod node;
mod group;

mod commit;
mod status;
mod store;

mod pace;

mod names;
mod subscription;

mod session;

mod clients;

mod load;

mod codec;
mod tls;

mod server;

#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;

pub use commit::Commit;
pub use group::{Group, Grouping};
pub use load::{
    ClusterLoad, Load, LoadReports, LoadSnapshot, Locality, MIN_LOAD_REPORT_INTERVAL, Metric, Reporter, Requests,
};
pub use node::Node;
pub use resource::{ResourceType, TypeSet, Variant, Version};
pub use server::{Beside, Connections, Posted, ServeError, ServerConfig, serve};
pub use status::{
    Acceptance, AcceptanceState, ClientEvent, ClientId, ClientStatus, Counters, Published, Rejection, Subscribed,
    TypeStatus,
};
pub use store::{Committed, Snapshot, SnapshotError, Store};
pub use tls::{PeerIdentity, Pem, ServerTls, TlsError};
