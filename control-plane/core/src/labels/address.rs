//! Where Envoy reaches a container: which network's address, or which published port, or why none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::NETWORK;
use super::ours::Ours;
use super::reader::Reader;
use crate::container::Container;
use crate::instance::{Phase, short_id};
use crate::{Code, suggest};

/// What instances call the network of the node itself.
const HOST: &str = "host";
/// What instances call ports that are published on the node.
const PUBLISHED: &str = "published";

/// Where Envoy stands, as far as the choice of an address needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The network that Envoy shares with containers (`edge.network`).
    pub network: Option<String>,
    /// Envoy is on no network of the containers and uses the ports they publish (`edge.reach`).
    pub published: bool,
    /// The node as Envoy reaches it (`edge.node`); `None`: Envoy runs on it, unless it shares a `network`.
    pub node: Option<IpAddr>,
    /// What a container has from its image is not believed (`providers.docker.trustImageLabels`).
    pub distrusts_images: bool,
    /// Ports of the node that are tidegate's or Envoy's own: no label leads there.
    pub reserved: BTreeSet<u16>,
}

impl Placement {
    fn node(&self) -> Option<IpAddr> {
        self.node.or(self.network.is_none().then_some(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }
}

/// Where all ports of a container are reached.
pub(super) enum Reached {
    /// At its own address on a network.
    Own { network: String, ip: IpAddr },
    /// At the node's address: it shares the node's network.
    Node(IpAddr),
    /// Where Docker publishes them, by port.
    Published(BTreeMap<u16, SocketAddr>),
}

impl Container {
    /// The container whose network it is on: itself, or the one that lends it its own.
    pub(super) fn on_network_of(&self) -> Option<&Self> {
        match borrowed_from(&self.network_mode) {
            None => Some(self),
            Some(_) => self.lender.as_deref(),
        }
    }

    /// No other container can have an address of its: it is on no network but its own.
    pub(super) fn has_own_address(&self) -> bool {
        self.network_mode != HOST && borrowed_from(&self.network_mode).is_none()
    }

    /// It shares the node's network, and with it all ports of the node.
    pub(super) fn is_on_host(&self) -> bool {
        self.on_network_of().is_some_and(|container| container.network_mode == HOST)
    }
}

/// The id in the network mode `container:ID`.
#[must_use]
pub fn borrowed_from(network_mode: &str) -> Option<&str> {
    network_mode.strip_prefix("container:")
}

const fn is_up(phase: &Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Paused)
}

impl Reader {
    /// `None` without a problem when it does not run.
    pub(super) fn reached(&mut self, container: &Container, ours: &Ours<'_>, placement: &Placement) -> Option<Reached> {
        if !is_up(&container.phase) {
            return None;
        }
        let Some(on) = container.on_network_of().filter(|on| on.id == container.id || is_up(&on.phase)) else {
            let reason = match (&container.lender, borrowed_from(&container.network_mode)) {
                (Some(lender), _) => format!("it is on the network of `{}`, which is {}", lender.name, lender.phase),
                (None, id) => {
                    format!("it is on the network of {}, which is not known", short_id(id.unwrap_or_default()))
                }
            };
            self.report(Code::NoAddress, &reason, "start that container, and then this one again");
            return None;
        };
        match on.network_mode.as_str() {
            HOST => {
                let node = placement.node();
                if node.is_none() {
                    let reason = "it is on the node's own network, and nothing says where Envoy reaches the node";
                    self.report(Code::NoAddress, reason, "set `edge.node` in tidegate.yaml to the node's address");
                }
                node.map(Reached::Node)
            }
            "none" => {
                let reason = "its network mode is `none`: it is on no network";
                self.report(Code::NoAddress, reason, "put it on a network that Envoy reaches");
                None
            }
            _ if placement.published => Some(Reached::Published(published(on, placement))),
            _ => self.own(container, on, ours, placement),
        }
    }

    /// The choice of a network: the label, else the network that Envoy shares, else the only one, else Compose's default of
    /// the project, else a problem: never a guess (`docker-events.md`, traefik/traefik#5040).
    fn own(
        &mut self,
        container: &Container,
        on: &Container,
        ours: &Ours<'_>,
        placement: &Placement,
    ) -> Option<Reached> {
        let networks = &on.networks;
        let candidates = || networks.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let compose_default = ours.project().map(|project| format!("{project}_default"));
        let there = |name: &&str| networks.contains_key(*name);
        let name = if let Some(name) = ours.get(NETWORK) {
            if !there(&name) {
                let cure = suggest::did_you_mean(name, networks.keys().map(String::as_str), || {
                    format!("it is on {}", if networks.is_empty() { "no network".to_owned() } else { candidates() })
                });
                self.invalid(NETWORK, &format!("the container is not on a network {name:?}"), &cure);
                return None;
            }
            name
        } else if let Some(name) = placement.network.as_deref().filter(there) {
            name
        } else if networks.len() == 1 {
            networks.keys().next()?
        } else if let Some(name) = compose_default.as_deref().filter(there) {
            name
        } else if networks.is_empty() {
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
        let whose =
            if on.id == container.id { "its address".to_owned() } else { format!("the address of `{}`", on.name) };
        match networks.get(name).copied().flatten() {
            // A macvlan can be told to give a container the node's address.
            Some(ip) if is_refused(ip) || placement.node == Some(ip) => {
                let reason = format!("{whose} on `{name}` is {ip}, which is not a container's own");
                self.report(Code::NoAddress, &reason, "put it on a bridge network");
                None
            }
            Some(ip) => Some(Reached::Own { network: name.to_owned(), ip }),
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

    /// The network and address at which one of its ports is reached.
    pub(super) fn socket(
        &mut self,
        reached: &Reached,
        port: u16,
        placement: &Placement,
    ) -> Option<(String, SocketAddr)> {
        match reached {
            Reached::Own { network, ip } => Some((network.clone(), (*ip, port).into())),
            Reached::Node(_) if placement.reserved.contains(&port) => {
                let reason = format!("the port {port} of the node is one of tidegate's or Envoy's own");
                self.report(Code::NoAddress, &reason, "let it listen on another port");
                None
            }
            Reached::Node(ip) => Some((HOST.to_owned(), (*ip, port).into())),
            Reached::Published(ports) => {
                if let Some(address) = ports.get(&port) {
                    return Some((PUBLISHED.to_owned(), *address));
                }
                let others = ports.keys().map(u16::to_string).collect::<Vec<_>>().join(", ");
                let (reason, cure) = if others.is_empty() {
                    (format!("its port {port} is not published where Envoy reaches it"), String::new())
                } else {
                    let reason = format!("its port {port} is not published where Envoy reaches it, only {others}");
                    (reason, ", or name another port by its label".to_owned())
                };
                let cure = format!("publish it (`docker run -p {port}`, or `ports:` in Compose){cure}");
                self.report(Code::NoAddress, &reason, &cure);
                None
            }
        }
    }
}

/// Where Envoy reaches each published port: IPv4 before IPv6, and the lowest address of several. A port that is published on
/// all addresses is reached at the node's; one that is published on loopback, only where Envoy runs on the node.
fn published(on: &Container, placement: &Placement) -> BTreeMap<u16, SocketAddr> {
    let node = placement.node.filter(|node| !node.is_loopback());
    let reached = |at: &SocketAddr| -> Option<SocketAddr> {
        let ip = match at.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => node.unwrap_or(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => node.unwrap_or(Ipv6Addr::LOCALHOST.into()),
            ip if ip.is_loopback() && node.is_some() => return None,
            ip => ip,
        };
        // Docker publishes an unspecified address of each family by itself.
        let same_family = !at.ip().is_unspecified() || ip.is_ipv4() == at.is_ipv4();
        same_family.then(|| SocketAddr::new(ip, at.port()))
    };
    let first = |bound: &Vec<SocketAddr>| bound.iter().filter_map(reached).min();
    on.published.iter().filter_map(|(port, bound)| Some((*port, first(bound)?))).collect()
}

/// An address that no container has of its own: a check or a route to it would reach the host or its cloud's metadata
/// service (threats T8).
pub(super) fn is_refused(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast(),
    }
}
