//! One HTTP/1 exchange over a loopback address or a unix socket, bounded in time and size: how the command line asks the API, and
//! how Envoy's admin interface is asked. No redirects, no pools, no TLS.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Larger answers are an error: ten thousand services with all their instances are some 20 MiB.
const MAX_BODY: usize = 64 << 20;

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `HOST:PORT`.
    Tcp(String),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What was answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why nothing was answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// Nobody listens there.
    #[error("cannot connect to {target}: {source}")]
    Connect {
        /// Where.
        target: Target,
        /// Why.
        source: std::io::Error,
    },
    /// The path is no path.
    #[error("{path:?} cannot be asked for")]
    Path {
        /// That path.
        path: String,
    },
    /// Who listens there does not speak HTTP, or broke off.
    #[error("{target} broke off: {reason}")]
    BrokeOff {
        /// Who.
        target: Target,
        /// What happened.
        reason: String,
    },
    /// More than is taken.
    #[error("the answer of {target} is larger than {} MiB", MAX_BODY >> 20)]
    TooLarge {
        /// Whose.
        target: Target,
    },
    /// No whole answer in time.
    #[error("no answer from {target} within {limit:?}")]
    TimedOut {
        /// Who.
        target: Target,
        /// How long was waited.
        limit: Duration,
    },
}

/// Asks `target`, and waits for the whole answer for `limit` at most.
pub(crate) async fn exchange(
    target: &Target,
    method: Method,
    path: &str,
    limit: Duration,
) -> Result<Answer, HttpError> {
    let timed_out = |_| HttpError::TimedOut { target: target.clone(), limit };
    let refused = |source| HttpError::Connect { target: target.clone(), source };
    let authority = match target {
        Target::Tcp(authority) => authority.as_str(),
        Target::Unix(_) => "localhost",
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|_| HttpError::Path { path: path.to_owned() })?;
    let conversation = async {
        match target {
            Target::Tcp(authority) => {
                converse(target, TcpStream::connect(authority).await.map_err(refused)?, request).await
            }
            Target::Unix(path) => converse(target, UnixStream::connect(path).await.map_err(refused)?, request).await,
        }
    };
    tokio::time::timeout(limit, conversation).await.map_err(timed_out)?
}

async fn converse(
    target: &Target,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, HttpError> {
    let broke = |reason: String| HttpError::BrokeOff { target: target.clone(), reason };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broke(e.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| broke(e.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() {
                HttpError::TooLarge { target: target.clone() }
            } else {
                broke(e.to_string())
            }
        })?;
        Ok(Answer { status, body: body.to_bytes() })
    };
    let (mut answer, mut connection) = (std::pin::pin!(answer), std::pin::pin!(connection));
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // Its error, if any, reaches the answer too.
            _ = &mut connection, if open => open = false,
        }
    }
}
