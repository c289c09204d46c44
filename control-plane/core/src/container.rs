//! What Docker says of one container, reduced to what tidegate may know: no environment, no mounts, no secrets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::Timestamp;
use crate::instance::{DockerHealth, Phase};

/// The facts of one container, from inspect (or, for one that is not enabled, from the list alone).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Full id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// `State.StartedAt`, verbatim.
    pub started_at: String,
    /// What it is doing.
    pub phase: Phase,
    /// Docker's HEALTHCHECK; `None` when there is none.
    pub health: Option<DockerHealth>,
    /// The labels that [anything is read of](crate::labels::kept).
    pub labels: BTreeMap<String, String>,
    /// The same of its image, which it shows as its own, too. `None`: not known.
    pub image_labels: Option<BTreeMap<String, String>>,
    /// Exposed TCP ports, sorted.
    pub tcp_ports: Vec<u16>,
    /// `HostConfig.NetworkMode`.
    pub network_mode: String,
    /// The networks it is on, with the address it has there, if it has one yet.
    pub networks: BTreeMap<String, Option<IpAddr>>,
    /// Where its TCP ports are published on the node, by the port in the container.
    pub published: BTreeMap<u16, Vec<SocketAddr>>,
    /// With the network mode `container:ID`: what is known of that container. `None`: nothing, or it has another mode.
    pub lender: Option<Box<Self>>,
}
