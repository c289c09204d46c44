//! Requests of every kind to every service through one edge, for as long as it lasts, and what came of each.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use http::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{Http2, Service};
use crate::{
    client::SERVED_BY,
    load::{Ask, Load, Outcome, Running},
};

/// Of one request, from its beginning to the end of its answer.
const LIMIT: Duration = Duration::from_secs(10);
/// An upgraded connection echoes so often, and then is done.
const ECHOES: usize = 15;
const BETWEEN_ECHOES: Duration = Duration::from_millis(100);

/// In the order of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// GET and, each tenth time, HEAD.
    Get,
    /// A GET that is answered after 300 ms.
    Slow,
    /// A GET of a client that speaks HTTP/2.
    Http2,
    /// A GET whose answer begins at once and takes a second.
    Download,
    Post,
    /// A connection that is upgraded, as by a WebSocket, and echoes for a while.
    Upgrade,
    /// A gRPC call with one answer.
    Call,
    /// One whose answer takes a second.
    Stream,
}

/// What came of one request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub kind: Kind,
    /// Its place among the services.
    pub service: usize,
    pub began: Instant,
    pub ended: Instant,
    /// Of an upgrade that echoed to its end, 200.
    pub outcome: Outcome,
    /// `VERSION/CONTAINER`, where an answer began.
    pub served_by: Option<String>,
}

/// Requests that are under way until they are stopped.
pub struct Traffic {
    loads: Vec<(Kind, usize, Instant, Running)>,
    workers: JoinSet<Result<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Kind {
    pub const ALL: [Self; 8] =
        [Self::Get, Self::Slow, Self::Http2, Self::Download, Self::Post, Self::Upgrade, Self::Call, Self::Stream];

    /// Whether it may be repeated on another instance as long as no answer has begun, so that it must never fail before.
    pub fn may_be_repeated(self) -> bool {
        matches!(self, Self::Get | Self::Slow | Self::Http2 | Self::Download)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Get => "GET and HEAD",
            Self::Slow => "slow GET",
            Self::Http2 => "GET over HTTP/2",
            Self::Download => "download",
            Self::Post => "POST",
            Self::Upgrade => "upgrade",
            Self::Call => "gRPC call",
            Self::Stream => "gRPC stream",
        })
    }
}

impl Seen {
    pub fn failed(&self) -> bool {
        !self.outcome.is_success()
    }

    /// Before its answer began.
    pub fn failed_before_headers(&self) -> bool {
        self.failed() && self.outcome != Outcome::Body && self.served_by.is_none()
    }

    /// The short id of the container whose answer began.
    pub fn container(&self) -> Option<&str> {
        self.served_by.as_deref()?.rsplit_once('/').map(|(_, container)| container)
    }
}

impl Traffic {
    /// Some 100 requests a second to each service.
    pub fn start(edge: SocketAddr, services: &[Service]) -> Self {
        let mut traffic = Self { loads: Vec::new(), workers: JoinSet::new(), stop: Arc::default() };
        for (number, service) in services.iter().enumerate() {
            if service.is_grpc {
                traffic.work(Kind::Call, number, edge, service, Duration::from_millis(50));
                for _ in 0..3 {
                    traffic.work(Kind::Stream, number, edge, service, Duration::from_millis(200));
                }
            } else {
                let load = |path: &str| Load::get(edge, &service.host, path).duration(Duration::MAX / 4).timeout(LIMIT);
                let mixed = |n: u64| match n % 10 {
                    0 => Ask { method: Method::HEAD, ..Ask::get("/") },
                    _ => Ask::get("/"),
                };
                let post = |_| Ask { method: Method::POST, body: "tide".into(), ..Ask::get("/echo") };
                traffic.load(Kind::Get, number, load("/").rate(40.0, 8).asking(mixed));
                traffic.load(Kind::Slow, number, load("/slow?ms=300").rate(6.0, 4));
                traffic.load(Kind::Download, number, load("/stream?ms=1000").rate(3.0, 6));
                traffic.load(Kind::Post, number, load("/echo").rate(20.0, 4).asking(post));
                traffic.work(Kind::Upgrade, number, edge, service, BETWEEN_ECHOES);
                traffic.work(Kind::Upgrade, number, edge, service, BETWEEN_ECHOES);
            }
            traffic.work(Kind::Http2, number, edge, service, Duration::from_millis(50));
        }
        traffic
    }

    fn load(&mut self, kind: Kind, service: usize, load: Load) {
        self.loads.push((kind, service, Instant::now(), load.requests(u64::MAX).start()));
    }

    fn work(&mut self, kind: Kind, number: usize, edge: SocketAddr, service: &Service, every: Duration) {
        let (stop, host) = (Arc::clone(&self.stop), service.host.clone());
        self.workers.spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut connection = Http2::new(edge, &host);
            let mut all = Vec::new();
            while !stop.load(Relaxed) {
                ticks.tick().await;
                let began = Instant::now();
                let (outcome, served_by) = match kind {
                    Kind::Upgrade => upgrade(edge, &host).await,
                    Kind::Call => connection.call("/echo", LIMIT).await?,
                    Kind::Stream => connection.call("/stream", LIMIT).await?,
                    _ => connection.get("/", LIMIT).await?,
                };
                all.push(Seen { kind, service: number, began, ended: Instant::now(), outcome, served_by });
            }
            Ok(all)
        });
    }

    /// Sends no more, and tells of all when the last one has ended; in the order in which they began.
    pub async fn stop(mut self) -> Result<Vec<Seen>> {
        self.stop.store(true, Relaxed);
        let mut all = Vec::new();
        for (kind, service, started, load) in self.loads {
            all.extend(load.stop().await?.samples.into_iter().map(|sample| {
                let began = started + sample.at;
                let ended = began + sample.latency;
                Seen { kind, service, began, ended, outcome: sample.outcome, served_by: sample.served_by }
            }));
        }
        while let Some(worker) = self.workers.join_next().await {
            all.append(&mut worker.context("a worker")??);
        }
        all.sort_by_key(|seen| seen.began);
        Ok(all)
    }
}

async fn upgrade(edge: SocketAddr, host: &str) -> (Outcome, Option<String>) {
    let mut served_by = None;
    let outcome = match timeout(LIMIT, echoes(edge, host, &mut served_by)).await {
        Ok(Ok(())) => Outcome::Status(200),
        Ok(Err(status)) if served_by.is_none() => {
            status.downcast().map_or(Outcome::BeforeHeaders, |Refused(status)| Outcome::Status(status))
        }
        Ok(Err(_)) => Outcome::Body,
        Err(_) => Outcome::Timeout,
    };
    (outcome, served_by)
}

/// Another status than 101.
#[derive(Debug)]
struct Refused(u16);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "status {}", self.0)
    }
}

impl std::error::Error for Refused {}

async fn echoes(edge: SocketAddr, host: &str, served_by: &mut Option<String>) -> Result<()> {
    let mut socket = TcpStream::connect(edge).await?;
    socket.set_nodelay(true)?;
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(ask.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head)?.to_lowercase();
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    if status != 101 {
        return Err(Refused(status).into());
    }
    let by = head.lines().find_map(|line| line.strip_prefix(SERVED_BY)?.strip_prefix(": "));
    *served_by = by.map(str::to_owned);
    let mut ticks = interval(BETWEEN_ECHOES);
    for _ in 0..ECHOES {
        ticks.tick().await;
        socket.write_all(b"tide").await?;
        let mut echo = [0; 4];
        socket.read_exact(&mut echo).await?;
        ensure!(&echo == b"tide", "it echoes {echo:?}");
    }
    Ok(())
}
