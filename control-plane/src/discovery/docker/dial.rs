//! Connections to a Docker engine: one for each request, over a unix socket, TCP or TLS.

use std::io;
use std::sync::OnceLock;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use hyper::body::{Body, Incoming};
use hyper::rt::Executor;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidegate_core::config::DockerTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::engine::EngineError;
use super::facts;
use super::tls::Tls;

/// Where the engine listens.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    /// A socket's path.
    Unix(String),
    /// Host and port, and how to shake hands there.
    Tcp(String, Option<Tls>),
}

impl Endpoint {
    /// Reads `unix:///path` or `tcp://host[:port]`, and the files of TLS.
    pub(super) async fn new(text: &str, tls: Option<&DockerTls>) -> Result<Self, EngineError> {
        let invalid = || EngineError::Endpoint { endpoint: text.to_owned() };
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.to_owned()));
        }
        // Docker's own ports.
        let address = address(text, if tls.is_some() { 2376 } else { 2375 }).ok_or_else(invalid)?;
        let tls = match tls {
            Some(files) => Some(Tls::load(files, &address).await?),
            None => None,
        };
        Ok(Self::Tcp(address, tls))
    }
}

/// `HOST:PORT` of `tcp://HOST[:PORT]`.
fn address(text: &str, default_port: u16) -> Option<String> {
    let address = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://"))?.trim_end_matches('/');
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    (!address.is_empty()).then(|| if has_port { address.to_owned() } else { format!("{address}:{default_port}") })
}

/// Whether an endpoint is TCP to another machine.
pub(super) fn is_elsewhere(endpoint: &str) -> bool {
    let Some(address) = address(endpoint, 0) else { return false };
    let host = address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
    host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
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
            Endpoint::Tcp(address, None) => exchange(TcpStream::connect(address).await?, request).await?,
            Endpoint::Tcp(address, Some(tls)) => {
                exchange(tls.connect(TcpStream::connect(address).await?).await?, request).await?
            }
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

    #[tokio::test]
    async fn endpoints_are_sockets_and_addresses() {
        let parse = async |text: &str| match Endpoint::new(text, None).await {
            Ok(Endpoint::Unix(path)) => Some(path),
            Ok(Endpoint::Tcp(address, None)) => Some(address),
            _ => None,
        };
        assert_eq!(parse("unix:///var/run/docker.sock").await.as_deref(), Some("/var/run/docker.sock"));
        assert_eq!(parse("tcp://127.0.0.1:2375").await.as_deref(), Some("127.0.0.1:2375"));
        assert_eq!(parse("tcp://proxy").await.as_deref(), Some("proxy:2375"));
        for bad in ["", "/var/run/docker.sock", "unix://relative", "tcp://", "ssh://host"] {
            assert_eq!(parse(bad).await, None, "{bad:?}");
        }
    }

    #[test]
    fn only_tcp_to_another_machine_is_elsewhere() {
        for (endpoint, elsewhere) in [
            ("unix:///var/run/docker.sock", false),
            ("tcp://127.0.0.1:2375", false),
            ("tcp://[::1]:2375", false),
            ("tcp://localhost", false),
            ("tcp://10.0.0.2:2375", true),
            ("tcp://build", true),
        ] {
            assert_eq!(is_elsewhere(endpoint), elsewhere, "{endpoint}");
        }
    }

    #[test]
    fn http_dates_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("yesterday"), None);
    }
}
