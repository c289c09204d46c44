//! A connection to what is checked, opened with as few calls of the kernel as can be: most of what is checked is on this node, and
//! there the handshake is over when the call returns that begins it.

use std::io;
use std::net::{SocketAddr, TcpStream};

use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_quickack;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::TcpStream as Stream;
use tokio::time::{Instant, timeout};

use super::{Failure, by};

/// When what comes is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acks {
    /// At once, as the kernel does by itself.
    AtOnce,
    /// With what is sent next, or 40 ms later. The last packet of the handshake is then saved: it goes with the request, or not at
    /// all where nothing is said and the connection is reset.
    Late,
}

/// To speak over.
pub(super) async fn connect(address: SocketAddr, acks: Acks, deadline: Instant) -> Result<Stream, Failure> {
    Stream::from_std(open(address, acks, deadline).await?).map_err(Failure::Connect)
}

/// Nobody waits for what is read or written: it does not block.
///
/// The kernel repeats a lost packet of a handshake after a second, which is all that a check has by default. So another connection is
/// tried beside one that has not come about after a third of the time, and whichever ends first counts.
pub(super) async fn open(address: SocketAddr, acks: Acks, deadline: Instant) -> Result<TcpStream, Failure> {
    let first = match Dial::begin(address, acks).map_err(Failure::Connect)? {
        Dial::Connected(stream) => return Ok(stream),
        Dial::Begun(stream) => stream,
    };
    let patience = deadline.saturating_duration_since(Instant::now()) / 3;
    let another = async {
        match Dial::begin(address, acks)? {
            Dial::Connected(stream) => Ok(stream),
            Dial::Begun(stream) => end(stream).await,
        }
    };
    let race = Box::pin(async {
        let mut first = std::pin::pin!(end(first));
        if let Ok(done) = timeout(patience, &mut first).await {
            return done;
        }
        tokio::select! {
            done = first => done,
            done = another => done,
        }
    });
    by(deadline, "connecting", async { race.await.map_err(Failure::Connect) }).await
}

/// A handshake.
enum Dial {
    Connected(TcpStream),
    Begun(TcpStream),
}

impl Dial {
    fn begin(address: SocketAddr, acks: Acks) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        if acks == Acks::Late {
            set_tcp_quickack(&socket, false)?;
        }
        let begun = rustix::net::connect(&socket, &address);
        // Asked a second time, the kernel says what became of the first.
        let so_far = if begun == Err(Errno::INPROGRESS) { rustix::net::connect(&socket, &address) } else { begun };
        match so_far {
            Ok(()) => Ok(Self::Connected(socket.into())),
            Err(Errno::INPROGRESS | Errno::ALREADY) => Ok(Self::Begun(socket.into())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits for the end of a handshake.
async fn end(stream: TcpStream) -> io::Result<TcpStream> {
    let stream = Stream::from_std(stream)?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => stream.into_std(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tidegate_core::instance::Check;
    use tokio::net::{TcpListener, TcpSocket};

    use super::super::{Outcome, perform};
    use super::*;

    /// A full queue of connections drops handshakes as a network does that loses packets.
    #[tokio::test]
    async fn one_lost_packet_fails_no_check() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), Stream::connect(address)).await {
            queued.push(stream);
        }
        let room = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            for _ in &queued {
                let _ = listener.accept().await;
            }
            std::future::pending::<()>().await;
        };
        // Less than the second after which the kernel tries again.
        let deadline = Instant::now() + Duration::from_millis(900);
        tokio::select! {
            connected = open(address, Acks::AtOnce, deadline) => assert!(connected.is_ok(), "{:?}", connected.err()),
            () = room => {}
        }
    }

    /// What listens is handed connections in the order of their handshakes.
    #[tokio::test]
    async fn what_is_checked_by_tcp_alone_is_not_woken() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..3 {
            let check = Check { timeout: Duration::from_secs(30), ..Check::default() };
            let outcome = perform(address, &check).await;
            assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
        }
        let marked = Stream::connect(address).await.unwrap();
        let (_, first) = listener.accept().await.unwrap();
        assert_eq!(first, marked.local_addr().unwrap());
    }
}
