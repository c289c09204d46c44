//! Thousands of clients on one thread: each a TCP connection of its own, as Envoys are, all reading into one buffer. What
//! they have seen is in the [`Tally`].

use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

use crate::ads::Ads;
use crate::http2::Http2;
use crate::plan::Plan;
use crate::tally::{Tally, now};

/// How much is read at once.
const BUFFER: usize = 256 << 10;
/// How often a case looks whether what it waits for has come; times are taken by the fleet, not by this.
const LOOK: Duration = Duration::from_micros(200);

#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) tally: Arc<Tally>,
    pub(crate) streams: usize,
    /// Dropped, it ends the thread and with it every connection.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Fleet {
    /// Begins to connect so many streams, one after the other.
    pub(crate) fn start(address: SocketAddr, plan: Plan, streams: usize) -> Result<Self> {
        let tally = Arc::new(Tally::new(streams));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&tally);
        let clients = thread::Builder::new().name("clients".to_owned());
        let thread = clients.spawn(move || clients_run(address, plan, streams, &shared, stopped))?;
        Ok(Self { tally, streams, stop: Some(stop), thread: Some(thread) })
    }

    /// Waits until the condition holds, which takes all streams to be alive.
    pub(crate) fn wait(&self, what: &str, patience: Duration, holds: impl Fn(&Tally) -> bool) -> Result<()> {
        let deadline = now() + u64::try_from(patience.as_nanos())?;
        while !holds(&self.tally) {
            let broken = self.tally.broken.load(Relaxed);
            ensure!(broken == 0, "{what}: {broken} streams broke");
            ensure!(!self.thread.as_ref().is_none_or(JoinHandle::is_finished), "{what}: the clients ended");
            if now() > deadline {
                let (synced, news) = (self.tally.synced.load(Relaxed), self.tally.news.load(Relaxed));
                bail!("{what}: not within {patience:?}; {synced} of {} synced, {news} news", self.streams);
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    pub(crate) fn synced(&self, patience: Duration) -> Result<()> {
        self.wait("first sync", patience, |tally| tally.synced.load(Relaxed) == self.streams)
    }

    /// Ends every connection, without a word, as a machine that is switched off.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.stop.take());
        self.thread.take().context("it ends once")?.join().map_err(|_| anyhow::anyhow!("the clients panicked"))?
    }
}

fn clients_run(
    address: SocketAddr,
    plan: Plan,
    streams: usize,
    tally: &Arc<Tally>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let plan = Rc::new(plan);
    let buffer = Rc::new(RefCell::new(vec![0; BUFFER]));
    LocalSet::new().block_on(&runtime, async {
        let mut clients = JoinSet::new();
        let connect = async {
            for stream in 0..streams {
                let socket = TcpStream::connect(address).await.with_context(|| format!("stream {stream}"))?;
                socket.set_nodelay(true)?;
                let ads = Ads::new(stream, Rc::clone(&plan), Arc::clone(tally));
                let http = Http2::open(&address.to_string(), plan.variant.method());
                let (tally, buffer) = (Arc::clone(tally), Rc::clone(&buffer));
                clients.spawn_local(async move {
                    if let Err(error) = run(&socket, http, ads, &tally, &buffer).await {
                        tally.broken();
                        crate::say(&format!("stream {stream}: {error:#}"));
                    }
                });
            }
            anyhow::Ok(())
        };
        tokio::pin!(stopped);
        tokio::select! {
            _ = &mut stopped => return Ok(()),
            connected = connect => connected?,
        }
        let _ = stopped.await;
        Ok(())
    })
}

async fn run(
    socket: &TcpStream,
    mut http: Http2,
    mut ads: Ads,
    tally: &Tally,
    buffer: &RefCell<Vec<u8>>,
) -> Result<()> {
    loop {
        for reply in ads.replies.drain(..) {
            http.send(&reply);
        }
        while !http.out.is_empty() {
            match socket.try_write(&http.out) {
                Ok(written) => {
                    tally.sent.fetch_add(written as u64, Relaxed);
                    http.out.drain(..written);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("write"),
            }
        }
        // 5,000 of these stay empty most of the time.
        if http.out.is_empty() {
            http.out = Vec::new();
        }
        let interest = if http.out.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        if !socket.ready(interest).await?.is_readable() {
            continue;
        }
        let mut buffer = buffer.borrow_mut();
        match socket.try_read(&mut buffer) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(read) => {
                tally.received.fetch_add(read as u64, Relaxed);
                let at = now();
                http.feed(&buffer[..read], |message| ads.on_message(message, at))?;
                ensure!(!http.ended(), "the server ended the stream");
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("read"),
        }
    }
}
