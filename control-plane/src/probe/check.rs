//! One check of one address: a TCP connection, or one HTTP request over a fresh one. It goes to the instance's own address and
//! nowhere else: no names are resolved, no redirects followed, and no body is read.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tidegate_core::instance::{Check, CheckKind};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// The largest response head that is read; hyper's own least.
const MAX_HEAD: usize = 8 << 10;

/// What one check came to, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It answered as it should.
    Passed(String),
    /// It did not.
    Failed(String),
    /// It did not answer in time.
    TimedOut(String),
    /// The check could not be made, for a reason of our own.
    Inconclusive(String),
}

/// Makes one check. Takes no longer than the check's timeout.
pub(super) async fn perform(address: SocketAddr, check: &Check) -> Outcome {
    let began = Instant::now();
    let result = match &check.kind {
        CheckKind::Tcp => timeout(check.timeout, tcp(address)).await,
        CheckKind::Http { path } => timeout(check.timeout, http(address, path)).await,
        CheckKind::Docker | CheckKind::None => return Outcome::Inconclusive("this is no active check".to_owned()),
    };
    match result {
        Ok(Ok(what)) => Outcome::Passed(format!("{what} in {}", in_words(began.elapsed()))),
        Ok(Err(failure)) => failure.into(),
        Err(_) => Outcome::TimedOut(format!("timed out after {:?}", check.timeout)),
    }
}

/// Why a check did not pass.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", connect_reason(.0))]
    Connect(io::Error),
    #[error("the path {0:?} cannot be asked for")]
    Path(String),
    #[error("no HTTP answer: {}", http_reason(.0))]
    Exchange(hyper::Error),
    #[error("HTTP {0}, a redirect, which checks do not follow")]
    Redirect(u16),
    #[error("HTTP {0}")]
    Status(u16),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Connect(error) if is_ours(&error) => Self::Inconclusive(text),
            Failure::Connect(error) if error.kind() == ErrorKind::TimedOut => Self::TimedOut(text),
            _ => Self::Failed(text),
        }
    }
}

async fn tcp(address: SocketAddr) -> Result<String, Failure> {
    TcpStream::connect(address).await.map(|_| "connected".to_owned()).map_err(Failure::Connect)
}

async fn http(address: SocketAddr, path: &str) -> Result<String, Failure> {
    let mut request = Request::get(path).body(Empty::<Bytes>::new()).map_err(|_| Failure::Path(path.to_owned()))?;
    let host = HeaderValue::from_str(&address.to_string()).map_err(|_| Failure::Path(path.to_owned()))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("tidegate-check"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let stream = TcpStream::connect(address).await.map_err(Failure::Connect)?;
    let response = exchange(stream, request).await.map_err(Failure::Exchange)?;
    match response.status().as_u16() {
        status @ 200..=299 => Ok(format!("HTTP {status}")),
        status @ 300..=399 => Err(Failure::Redirect(status)),
        status => Err(Failure::Status(status)),
    }
}

async fn exchange(stream: TcpStream, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    // The answer matters, not the connection's end: an error of the latter shows in the former.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    tokio::select! {
        response = sender.send_request(request) => response,
        never = driven => never,
    }
}

/// Whether an error is about us and says nothing about the target: out of file descriptors, ports or memory.
fn is_ours(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::OutOfMemory | ErrorKind::PermissionDenied)
}

fn connect_reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::TimedOut => "the connection timed out".to_owned(),
        ErrorKind::HostUnreachable => "no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => error.to_string(),
    }
}

fn http_reason(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        "the connection was closed before one".to_owned()
    } else if error.is_parse_too_large() {
        format!("its head is longer than {MAX_HEAD} bytes")
    } else if error.is_parse() {
        "what came is not HTTP".to_owned()
    } else {
        error.to_string()
    }
}

fn in_words(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "under 1 ms".to_owned(),
        millis => format!("{millis} ms"),
    }
}
