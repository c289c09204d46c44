//! One check of one address, over a connection of its own. It goes to the instance's own address and nowhere else: no names are
//! resolved, no redirects followed, and no more is read than is asked for (threats T8). What each kind says is in the modules below.

mod connect;
mod grpc;
mod http;
mod tls;

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::FutureExt;
use rustix::net::sockopt::set_socket_linger;
use tidegate_core::instance::{Check, CheckKind};
use tokio::time::{Instant, timeout_at};

use self::connect::{Acks, open};

/// The largest response head that is read; hyper's own least.
const MAX_HEAD: usize = 8 << 10;
/// How checks name themselves to what they check.
const USER_AGENT: &str = "tidegate-check";

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

/// Makes one check. Takes no longer than the check's timeout. What few checks need is kept apart: a future is as large as all that it
/// may come to hold, and is moved and allocated with each check.
pub(super) async fn perform(address: SocketAddr, check: &Check) -> Outcome {
    let began = Instant::now();
    let deadline = began + check.timeout;
    let result = match &check.kind {
        CheckKind::Tcp => tcp(address, deadline).await,
        CheckKind::Http(http) => http::plain(address, http, deadline).await,
        CheckKind::Https { http, tls } => Box::pin(http::over_tls(address, http, tls, deadline)).await,
        CheckKind::Grpc { service, host } => Box::pin(grpc::health(address, service, host.as_deref(), deadline)).await,
        CheckKind::Docker | CheckKind::None => return Outcome::Inconclusive("this is no active check".to_owned()),
    };
    match result {
        Ok(what) => Outcome::Passed(format!("{what} in {}", in_words(began.elapsed()))),
        Err(Failure::Late(stage)) => Outcome::TimedOut(format!("timed out after {:?}, {stage}", check.timeout)),
        Err(failure) => failure.into(),
    }
}

/// Why a check did not pass.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("timed out, {0}")]
    Late(&'static str),
    #[error("{}", connect_reason(.0))]
    Connect(io::Error),
    #[error("{0:?} cannot be asked for")]
    Request(String),
    #[error("{0}")]
    Answer(String),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Connect(error) if is_ours(&error) => Self::Inconclusive(text),
            Failure::Connect(error) if error.kind() == ErrorKind::TimedOut => Self::TimedOut(text),
            Failure::Late(_) => Self::TimedOut(text),
            _ => Self::Failed(text),
        }
    }
}

/// What ends by the deadline; else `stage` says what it was at. No `async fn`: that would keep `future` twice.
fn by<T>(
    deadline: Instant,
    stage: &'static str,
    future: impl Future<Output = Result<T, Failure>>,
) -> impl Future<Output = Result<T, Failure>> {
    timeout_at(deadline, future).map(move |done| done.unwrap_or(Err(Failure::Late(stage))))
}

/// The kernel answers for what listens. That is not woken by a connection that is reset before its handshake ends, so it logs nothing,
/// and neither side keeps anything of it.
async fn tcp(address: SocketAddr, deadline: Instant) -> Result<String, Failure> {
    let stream = open(address, Acks::Late, deadline).await?;
    set_socket_linger(&stream, Some(Duration::ZERO)).map_err(|error| Failure::Connect(error.into()))?;
    Ok("connected".to_owned())
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

/// What a target said, as it may be shown: in quotes, escaped, and not long.
fn quoted(text: &[u8]) -> String {
    const LONGEST: usize = 64;
    let text = String::from_utf8_lossy(text);
    let short: String = text.chars().take(LONGEST).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{:?}", format!("{short}{more}"))
}

fn in_words(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "under 1 ms".to_owned(),
        millis => format!("{millis} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of HTTP/1.1 takes half of it.
    #[test]
    fn a_check_is_moved_cheaply() {
        let size = size_of_val(&perform(([127, 0, 0, 1], 1).into(), &Check::default()));
        assert!(size <= 4 << 10, "{size} bytes");
    }
}
