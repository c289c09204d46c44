//! A socket in front of a Docker engine's, for what one tidegate sees of it: it lets through what the rule that we ship
//! allows and refuses all else; and the engine seems to go away and come back, or is slow to list, while the engine itself and
//! everybody else's view of it stay as they are.

mod rule;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{UnixListener, UnixStream},
    sync::oneshot,
    task::JoinSet,
    time::sleep,
};

pub use self::rule::Rule;
use crate::engine::Engine;

/// How lists are asked for; an inspect has the id between the two words.
const LIST: &str = "/containers/json";

/// Far more than any request of ours has.
const MAX_HEAD: usize = 64 << 10;

pub struct DockerProxy {
    directory: TempDir,
    way: Way,
    /// Takes connections and carries them; none while the engine is away.
    tasks: JoinSet<()>,
}

/// What lies between a client and the engine.
#[derive(Clone)]
struct Way {
    engine: PathBuf,
    rule: Arc<Rule>,
    list_delay_ms: Arc<AtomicU64>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Way {
    fn to(engine: &Path) -> Result<Self> {
        let rule = Arc::new(Rule::shipped()?);
        Ok(Self { engine: engine.to_owned(), rule, list_delay_ms: Arc::default(), refused: Arc::default() })
    }
}

/// The proxy that stands in front of an [`Engine`] for as long as that lives, in a thread of its own: the runtime of a test may
/// end before.
pub(crate) struct Guard {
    directory: TempDir,
    refused: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Guard {
    pub(crate) fn before(engine: &Path) -> Result<Self> {
        let (directory, way) = (tempfile::tempdir()?, Way::to(engine)?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(socket(&directory))?
        };
        let refused = Arc::clone(&way.refused);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, way) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { directory, refused, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("unix://{}", socket(&self.directory).display())
    }

    /// Method and path of each request that was refused.
    pub(crate) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("docker.sock")
}

impl DockerProxy {
    pub fn start(engine: &Engine) -> Result<Self> {
        let way = Way::to(engine.socket())?;
        let mut proxy = Self { directory: tempfile::tempdir()?, way, tasks: JoinSet::new() };
        proxy.back()?;
        Ok(proxy)
    }

    /// As tidegate's `providers.docker.endpoint` takes it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Lists reach the engine so much later from now on.
    pub fn delay_lists(&self, delay: Duration) -> Result<()> {
        self.way.list_delay_ms.store(u64::try_from(delay.as_millis())?, Relaxed);
        Ok(())
    }

    /// No socket any more, and every connection ends.
    pub async fn away(&mut self) -> Result<()> {
        fs::remove_file(self.socket())?;
        self.tasks.shutdown().await;
        Ok(())
    }

    pub fn back(&mut self) -> Result<()> {
        let listener = UnixListener::bind(self.socket())?;
        self.tasks.spawn(serve(listener, self.way.clone()));
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        socket(&self.directory)
    }
}

async fn serve(listener: UnixListener, way: Way) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let way = way.clone();
        connections.spawn(async move {
            // Whoever ends it first ends it.
            let _ = carry(client, &way).await;
        });
    }
}

/// One request a connection, as tidegate makes them, and no body: what else comes goes nowhere.
async fn carry(mut client: UnixStream, way: &Way) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < MAX_HEAD && client.read_buf(&mut head).await? > 0, "no request");
    }
    let line = head.split(|byte| *byte == b'\r').next().context("split gives one at least")?;
    let line = String::from_utf8_lossy(line).into_owned();
    if !way.rule.allows(&line) {
        way.refused.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        let body = r#"{"message":"the proxy's rule does not allow it"}"#;
        let head = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n";
        client.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).await?;
        return Ok(());
    }
    if line.contains(LIST) {
        sleep(Duration::from_millis(way.list_delay_ms.load(Relaxed))).await;
    }
    let mut engine = UnixStream::connect(&way.engine).await?;
    engine.write_all(&head).await?;
    let (mut from_client, mut to_client) = client.split();
    let mut more = [0];
    tokio::select! {
        copied = copy(&mut engine, &mut to_client) => { copied?; }
        // The client went away, or says more than it may.
        _ = from_client.read(&mut more) => {}
    }
    Ok(())
}
