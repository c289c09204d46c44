//! Addresses of containers: what they ask for, else the lowest of the network that is free, so that they are used again soon.

use std::net::Ipv4Addr;

use super::Engine;

/// An address for `id` on `network`; `None` when all are taken.
pub(super) fn free(engine: &Engine, id: &str, network: &str) -> Option<Ipv4Addr> {
    let container = engine.containers.get(id)?;
    let first = container.networks.keys().next().is_some_and(|name| name == network);
    if let Some(address) = container.spec.address.filter(|_| first) {
        return Some(address);
    }
    let subnet = match engine.networks.iter().position(|name| name == network) {
        None => 30,
        Some(position) => 31 + u8::try_from(position % 200).unwrap_or(0),
    };
    (2..=u16::MAX)
        .map(|host| {
            let [high, low] = host.to_be_bytes();
            Ipv4Addr::new(172, subnet, high, low)
        })
        .find(|address| !engine.in_use(id, network, *address))
}
