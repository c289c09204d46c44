//! Connections to a Docker engine: one for each request, over a unix socket or TCP.

use std::io;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::engine::EngineError;
use super::facts;

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A socket's path.
    Unix(String),
    /// Host and port.
    Tcp(String),
}

impl Endpoint {
    /// Reads `unix:///path` or `tcp://host[:port]`.
    pub(super) fn parse(text: &str) -> Result<Self, EngineError> {
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.to_owned())),
            Some(("tcp" | "http", address)) if !address.is_empty() => {
                let address = address.trim_end_matches('/');
                let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                Ok(Self::Tcp(if has_port { address.to_owned() } else { format!("{address}:2375") }))
            }
            _ => Err(EngineError::Endpoint { endpoint: text.to_owned() }),
        }
    }
}

/// Opens connections, and asks by the negotiated version once there is one.
#[derive(Debug)]
pub(super) struct Dialer {
    endpoint: Endpoint,
    version: OnceLock<String>,
    /// The engine's clock when it first answered, in nanoseconds since the Unix epoch.
    date: OnceLock<i64>,
}

impl Dialer {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, version: OnceLock::new(), date: OnceLock::new() }
    }

    /// From now on, asks by this version.
    pub(super) fn speak(&self, version: String) {
        let _ = self.version.set(version);
    }

    /// The version it asks by.
    pub(super) fn version(&self) -> Option<&str> {
        self.version.get().map(String::as_str)
    }

    /// The engine's clock when it first answered, if it said.
    pub(super) fn date(&self) -> Option<i64> {
        self.date.get().copied()
    }

    /// One request over a connection of its own, up to the head of the answer.
    pub(super) async fn send<B>(&self, request: Request<B>) -> io::Result<Response<Incoming>>
    where
        B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let request = self.addressed(request)?;
        let response = match &self.endpoint {
            Endpoint::Unix(path) => exchange(UnixStream::connect(path).await?, request).await?,
            Endpoint::Tcp(address) => exchange(TcpStream::connect(address).await?, request).await?,
        };
        if let Some(date) = response.headers().get(header::DATE).and_then(|date| date.to_str().ok())
            && let Some(seconds) = http_date(date)
        {
            // Whole seconds, cut off: the middle of the second is the best guess.
            let _ = self.date.set(seconds.saturating_mul(1_000_000_000).saturating_add(500_000_000));
        }
        Ok(response)
    }

    /// The request as it goes over the wire: the version in the path, and a `Host`.
    fn addressed<B>(&self, mut request: Request<B>) -> io::Result<Request<B>> {
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let unversioned = path.starts_with("/_ping") || path.starts_with("/version");
        let path = match self.version.get().filter(|_| !unversioned) {
            Some(version) => format!("/v{version}{path}"),
            None => path.to_owned(),
        };
        *request.uri_mut() = path.parse::<Uri>().map_err(io::Error::other)?;
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("docker"));
        Ok(request)
    }
}

async fn exchange<B>(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<B>,
) -> io::Result<Response<Incoming>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
    // Bollard's transports give out a response whose body is still to come, so its connection needs someone to drive it. It
    // ends with the body, or when that is dropped.
    TokioExecutor::new().execute(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a connection to the Docker engine ended");
        }
    });
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Seconds since the Unix epoch of an HTTP date (`Sun, 06 Nov 1994 08:49:37 GMT`), the only form that Go writes.
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    facts::nanos(&format!("{year}-{month}-{day}T{time}Z")).map(|nanos| nanos / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_sockets_and_addresses() {
        let parse = |text: &str| Endpoint::parse(text).ok();
        assert_eq!(parse("unix:///var/run/docker.sock"), Some(Endpoint::Unix("/var/run/docker.sock".into())));
        assert_eq!(parse("tcp://127.0.0.1:2375"), Some(Endpoint::Tcp("127.0.0.1:2375".into())));
        assert_eq!(parse("tcp://proxy"), Some(Endpoint::Tcp("proxy:2375".into())));
        for bad in ["", "/var/run/docker.sock", "unix://relative", "tcp://", "ssh://host"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn http_dates_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }
}
