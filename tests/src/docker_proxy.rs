//! A socket in front of a Docker engine's, for what one tidegate sees of it: the engine seems to go away and come back, or is
//! slow to list, while the engine itself and everybody else's view of it stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{UnixListener, UnixStream},
    task::JoinSet,
    time::sleep,
};

use crate::engine::Engine;

/// How lists are asked for; an inspect has the id between the two words.
const LIST: &[u8] = b"/containers/json";

pub struct DockerProxy {
    directory: TempDir,
    engine: PathBuf,
    list_delay_ms: Arc<AtomicU64>,
    /// Takes connections and carries them; none while the engine is away.
    tasks: JoinSet<()>,
}

impl DockerProxy {
    pub fn start(engine: &Engine) -> Result<Self> {
        let mut proxy = Self {
            directory: tempfile::tempdir()?,
            engine: engine.socket().to_owned(),
            list_delay_ms: Arc::default(),
            tasks: JoinSet::new(),
        };
        proxy.back()?;
        Ok(proxy)
    }

    /// As tidegate's `providers.docker.endpoint` takes it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Lists reach the engine so much later from now on.
    pub fn delay_lists(&self, delay: Duration) -> Result<()> {
        self.list_delay_ms.store(u64::try_from(delay.as_millis())?, Relaxed);
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
        self.tasks.spawn(serve(listener, self.engine.clone(), Arc::clone(&self.list_delay_ms)));
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }
}

async fn serve(listener: UnixListener, engine: PathBuf, list_delay_ms: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (engine, list_delay_ms) = (engine.clone(), Arc::clone(&list_delay_ms));
        connections.spawn(async move {
            // Whoever ends it first ends it.
            let _ = carry(client, &engine, &list_delay_ms).await;
        });
    }
}

/// tidegate opens a connection for each request, so its head is the first that comes.
async fn carry(mut client: UnixStream, engine: &Path, list_delay_ms: &AtomicU64) -> Result<()> {
    let mut head = vec![0; 4096];
    let read = client.read(&mut head).await?;
    head.truncate(read);
    let line = head.split(|byte| *byte == b'\r').next().context("split gives one at least")?;
    if line.windows(LIST.len()).any(|window| window == LIST) {
        sleep(Duration::from_millis(list_delay_ms.load(Relaxed))).await;
    }
    let mut engine = UnixStream::connect(engine).await?;
    engine.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut engine).await?;
    Ok(())
}
