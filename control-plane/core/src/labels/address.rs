//! Where a container is reached: which network's address, or why none.

use std::net::IpAddr;

use super::NETWORK;
use super::ours::Ours;
use super::reader::Reader;
use crate::container::Container;
use crate::instance::Phase;
use crate::{Code, suggest};

/// Where Envoy stands, as far as the choice of an address needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The network that Envoy shares with containers (`edge.network`).
    pub network: Option<String>,
}

impl Reader {
    /// The choice of a network: the label, else the network that Envoy shares, else the only one, else Compose's default of
    /// the project, else a problem: never a guess (`docker-events.md`, traefik/traefik#5040).
    pub(super) fn address(
        &mut self,
        container: &Container,
        ours: &Ours<'_>,
        placement: &Placement,
    ) -> Option<(String, IpAddr)> {
        if !matches!(container.phase, Phase::Running | Phase::Paused) {
            return None;
        }
        let candidates = || container.networks.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if matches!(container.network_mode.as_str(), "host" | "none")
            || container.network_mode.starts_with("container:")
        {
            self.report(
                Code::NoAddress,
                &format!("its network mode is `{}`, which has no address of its own", container.network_mode),
                "put it on a bridge network",
            );
            return None;
        }
        let compose_default =
            container.labels.get("com.docker.compose.project").map(|project| format!("{project}_default"));
        let name = if let Some(name) = ours.get(NETWORK) {
            if !container.networks.contains_key(name) {
                let cure = suggest::did_you_mean(name, container.networks.keys().map(String::as_str), || {
                    format!(
                        "it is on {}",
                        if container.networks.is_empty() { "no network".to_owned() } else { candidates() }
                    )
                });
                self.invalid(NETWORK, &format!("the container is not on a network {name:?}"), &cure);
                return None;
            }
            name
        } else if let Some(name) = placement.network.as_deref().filter(|name| container.networks.contains_key(*name)) {
            name
        } else if container.networks.len() == 1 {
            container.networks.keys().next()?
        } else if let Some(name) = compose_default.as_deref().filter(|name| container.networks.contains_key(*name)) {
            name
        } else if container.networks.is_empty() {
            self.report(Code::NoAddress, "it is on no network", "connect it to a network that Envoy reaches");
            return None;
        } else {
            self.report(
                Code::AmbiguousNetwork,
                &format!("it is on several networks ({}) and nothing says which one Envoy reaches", candidates()),
                "set the label `tidegate.network`, or `edge.network` in tidegate.yaml",
            );
            return None;
        };
        match container.networks.get(name).copied().flatten() {
            Some(ip) if is_refused(ip) => {
                self.report(
                    Code::NoAddress,
                    &format!("its address on `{name}` is {ip}, which is not a container's own"),
                    "put it on a bridge network",
                );
                None
            }
            Some(ip) => Some((name.to_owned(), ip)),
            None => {
                self.report(
                    Code::NoAddress,
                    &format!("it has no address on the network `{name}` (yet)"),
                    "none needed when it is just starting; else reconnect it with `docker network connect`",
                );
                None
            }
        }
    }
}

/// An address that no container has of its own: a check or a route to it would reach the host or its cloud's metadata
/// service (threats T8).
pub(super) fn is_refused(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast(),
    }
}
