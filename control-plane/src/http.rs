//! One HTTP/1 exchange over TCP or a unix socket, bounded in time and size: how the command line asks the API, how Envoy's admin
//! interface is asked, and webhooks and Prometheus; and an answer that comes line by line. No redirects, no pools, no TLS.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

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

impl Target {
    /// Who listens at the authority of an `http` URL.
    pub(crate) fn at(authority: &http::uri::Authority) -> Self {
        Self::Tcp(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "http://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text as a segment of a path, or a value of a query.
pub(crate) fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
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
    #[error("the answer of {target} is larger than {}", in_words(*most))]
    TooLarge {
        /// Whose.
        target: Target,
        /// Bytes that are taken.
        most: usize,
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
    let authority = match target {
        Target::Tcp(authority) => authority.as_str(),
        Target::Unix(_) => "localhost",
    };
    send(target, request(method, path, authority)?, limit, MAX_BODY).await
}

/// As [`exchange`], of somebody who is not ours: of the answer's body only `most` bytes are taken.
pub(crate) async fn ask(target: &Target, path: &str, limit: Duration, most: usize) -> Result<Answer, HttpError> {
    let Target::Tcp(authority) = target else { return Err(HttpError::Path { path: path.to_owned() }) };
    send(target, request(Method::GET, path, authority)?, limit, most).await
}

/// Sends `body`, which is JSON, showing who asks, and waits for the whole answer for `limit` at most.
pub(crate) async fn post(
    target: &Target,
    path: &str,
    authorization: &str,
    body: Vec<u8>,
    limit: Duration,
) -> Result<Answer, HttpError> {
    send(target, with_json(target, path, Some(authorization), body)?, limit, MAX_BODY).await
}

/// Sends `body`, which is JSON, to somebody who is not ours, and waits for the whole answer for `limit` at most, of whose body `most`
/// bytes are taken.
pub(crate) async fn tell(
    target: &Target,
    path: &str,
    body: Vec<u8>,
    limit: Duration,
    most: usize,
) -> Result<Answer, HttpError> {
    send(target, with_json(target, path, None, body)?, limit, most).await
}

fn with_json(
    target: &Target,
    path: &str,
    authorization: Option<&str>,
    body: Vec<u8>,
) -> Result<Request<Full<Bytes>>, HttpError> {
    let invalid = || HttpError::Path { path: path.to_owned() };
    let Target::Tcp(authority) = target else { return Err(invalid()) };
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(http::header::HOST, authority)
        .header(http::header::CONTENT_TYPE, "application/json");
    if let Some(authorization) = authorization {
        request = request.header(http::header::AUTHORIZATION, authorization);
    }
    request.body(Full::from(body)).map_err(|_| invalid())
}

/// As many MiB or KiB.
fn in_words(bytes: usize) -> String {
    if bytes >= 1 << 20 { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

async fn send<B>(target: &Target, request: Request<B>, limit: Duration, most: usize) -> Result<Answer, HttpError>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let timed_out = |_| HttpError::TimedOut { target: target.clone(), limit };
    let refused = |source| HttpError::Connect { target: target.clone(), source };
    let conversation = async {
        match target {
            Target::Tcp(authority) => {
                converse(target, TcpStream::connect(authority).await.map_err(refused)?, request, most).await
            }
            Target::Unix(path) => {
                converse(target, UnixStream::connect(path).await.map_err(refused)?, request, most).await
            }
        }
    };
    tokio::time::timeout(limit, conversation).await.map_err(timed_out)?
}

/// An answer that comes line by line.
pub(crate) struct Following {
    pub(crate) status: StatusCode,
    target: Target,
    body: Incoming,
    /// What has arrived of the next lines.
    buffer: BytesMut,
    /// Drives the connection; it ends with this.
    _connection: JoinSet<()>,
}

/// Longer lines are an error.
const MAX_LINE: usize = 1 << 20;

impl Following {
    /// Asks `target`, and waits for the head of the answer for `limit` at most.
    pub(crate) async fn open(target: &Target, path: &str, limit: Duration) -> Result<Self, HttpError> {
        let Target::Tcp(authority) = target else {
            return Err(HttpError::Path { path: path.to_owned() });
        };
        let broke = |reason: String| HttpError::BrokeOff { target: target.clone(), reason };
        let opened = async {
            let stream = TcpStream::connect(authority)
                .await
                .map_err(|source| HttpError::Connect { target: target.clone(), source })?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broke(e.to_string()))?;
            let mut driven = JoinSet::new();
            driven.spawn(async {
                // Its error, if any, reaches the answer too.
                let _ = connection.await;
            });
            let request = request(Method::GET, path, authority)?;
            let response = sender.send_request(request).await.map_err(|e| broke(e.to_string()))?;
            Ok(Self {
                status: response.status(),
                target: target.clone(),
                body: response.into_body(),
                buffer: BytesMut::new(),
                _connection: driven,
            })
        };
        let timed_out = |_| HttpError::TimedOut { target: target.clone(), limit };
        tokio::time::timeout(limit, opened).await.map_err(timed_out)?
    }

    /// The next line without its end; `None`: there is no more. Nothing at all for longer than `silence` is an error.
    pub(crate) async fn line(&mut self, silence: Duration) -> Result<Option<Bytes>, HttpError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1).freeze();
                return Ok(Some(line.slice(..end)));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(HttpError::TooLarge { target: self.target.clone(), most: MAX_LINE });
            }
            if !self.more(silence).await? {
                return Ok((!self.buffer.is_empty()).then(|| self.buffer.split().freeze()));
            }
        }
    }

    /// All of it.
    pub(crate) async fn rest(&mut self, limit: Duration) -> Result<Bytes, HttpError> {
        while self.buffer.len() <= MAX_LINE && self.more(limit).await? {}
        Ok(self.buffer.split().freeze())
    }

    async fn more(&mut self, limit: Duration) -> Result<bool, HttpError> {
        let timed_out = |_| HttpError::TimedOut { target: self.target.clone(), limit };
        match tokio::time::timeout(limit, self.body.frame()).await.map_err(timed_out)? {
            None => Ok(false),
            Some(Ok(frame)) => {
                self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                Ok(true)
            }
            Some(Err(error)) => Err(HttpError::BrokeOff { target: self.target.clone(), reason: error.to_string() }),
        }
    }
}

fn request(method: Method, path: &str, authority: &str) -> Result<Request<Empty<Bytes>>, HttpError> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, authority)
        .body(Empty::new())
        .map_err(|_| HttpError::Path { path: path.to_owned() })
}

async fn converse<B>(
    target: &Target,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<B>,
    most: usize,
) -> Result<Answer, HttpError>
where
    B: Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let broke = |reason: String| HttpError::BrokeOff { target: target.clone(), reason };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broke(e.to_string()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| broke(e.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), most).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() {
                HttpError::TooLarge { target: target.clone(), most }
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
