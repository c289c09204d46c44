//! A Docker engine for tests. It speaks the part of Docker's API that only reads, on a unix socket or TCP; what changes its
//! containers are the methods of [`Engine`], which emit the events that a real engine emits
//! (`the_fake_engine_tells_what_a_real_one_tells` of tidegate-tests compares the two). [`Faults`] says what goes wrong. All
//! its time is tokio's, so a paused test is in command of it. It must know nothing of tidegate.

mod clock;
mod container;
mod engine;
mod events;
mod faults;
mod render;
mod serve;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

pub use self::clock::rfc3339;
pub use self::container::{Container, Health, Restart, Spec, Status};
pub use self::engine::{Engine, Hook};
pub use self::events::Delivery;
pub use self::faults::{Answer, Call, Faults};

/// The engine with its socket. Everything ends when it is dropped.
#[derive(Debug)]
pub struct FakeDocker {
    directory: TempDir,
    shared: Arc<Shared>,
    /// Takes connections; none while the engine is away.
    server: JoinSet<()>,
    /// Does what was scheduled: restarts after a backoff, ends of containers that were told to stop, delayed events.
    _timer: JoinSet<()>,
}

/// What the connections and the test share.
#[derive(Debug)]
pub(crate) struct Shared {
    engine: Mutex<Engine>,
    /// Something was scheduled, or the engine thawed.
    changed: Arc<Notify>,
    thawed: watch::Receiver<bool>,
}

impl Shared {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FakeDocker {
    /// An engine without containers that does not listen yet.
    ///
    /// # Panics
    /// Where there is no room for a directory, or outside a tokio runtime.
    #[must_use]
    pub fn new() -> Self {
        let changed = Arc::new(Notify::new());
        let (frozen, thawed) = watch::channel(false);
        let engine = Mutex::new(Engine::new(Arc::clone(&changed), frozen));
        let shared = Arc::new(Shared { engine, changed, thawed });
        let mut timer = JoinSet::new();
        timer.spawn(serve::keep_time(Arc::clone(&shared)));
        let directory = tempfile::tempdir().expect("a directory for a socket can be made");
        Self { directory, shared, server: JoinSet::new(), _timer: timer }
    }

    /// The socket's file; its directory is a new one.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// As `providers.docker.endpoint` takes it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Where the socket is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The engine itself. Nothing is answered while this is held.
    pub fn engine(&self) -> MutexGuard<'_, Engine> {
        self.shared.engine()
    }

    /// Takes connections at [`Self::socket`].
    ///
    /// # Panics
    /// When something listens there already.
    pub fn listen(&mut self) {
        let listener = UnixListener::bind(self.socket()).expect("nothing listens at the fake engine's socket");
        self.server.spawn(serve::unix(listener, Arc::clone(&self.shared)));
    }

    /// Takes connections on a free TCP port of loopback too.
    ///
    /// # Errors
    /// When there is none.
    pub async fn listen_tcp(&mut self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        self.server.spawn(serve::tcp(listener, Arc::clone(&self.shared)));
        Ok(address)
    }

    /// The engine is gone, as after SIGKILL: connections break, the socket's file stays and nobody listens on it, and the events
    /// it remembered are forgotten. Containers go on, and what happens to them now is told by no event, ever.
    pub async fn go_away(&mut self) {
        self.server.shutdown().await;
        self.engine().set_down(true);
    }

    /// The engine is started again, at a socket with another inode.
    pub fn come_back(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        self.engine().set_down(false);
        self.listen();
    }
}

impl Default for FakeDocker {
    fn default() -> Self {
        Self::new()
    }
}
