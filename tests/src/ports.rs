//! Free loopback ports for what cannot listen on port 0 and tell.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use anyhow::{Result, bail};

/// Below Linux's ephemeral range (from 32768): a client's outgoing connection must not take the port in between.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A loopback address on whose port nobody listens, by TCP or UDP. Not handed out again by this process until all have
/// been; processes start at different places.
pub fn free() -> Result<SocketAddr> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) * 97 % u32::from(COUNT);
    for _ in 0..COUNT {
        let offset = (start + u32::from(NEXT.fetch_add(1, Relaxed))) % u32::from(COUNT);
        let port = FIRST + u16::try_from(offset)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // A listener on 0.0.0.0 conflicts as well; std sets SO_REUSEADDR, so old connections do not.
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port from {FIRST} to {} is free on loopback", FIRST + COUNT - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_free_and_differ() {
        let taken: Vec<_> = (0..50).map(|_| TcpListener::bind(free().unwrap()).unwrap()).collect();
        assert_eq!(taken.len(), 50);
    }
}
