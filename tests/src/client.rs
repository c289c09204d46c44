//! One HTTP/1.1 request on a connection of its own. The address is separate from the Host header, as it must be to talk
//! to an edge; unix sockets are addresses too. It talks to this machine only.

use std::{
    fmt,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::timeout,
};

/// Which container answered, as the sample backend says it: `VERSION/HOSTNAME`.
pub const SERVED_BY: &str = "x-served-by";

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub endpoint: Endpoint,
    pub method: Method,
    /// With the query.
    pub path: String,
    /// The Host header; the endpoint's address unless set.
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    /// For the whole of it, from connecting to the end of the body.
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// `GET http://IP:PORT/path`.
pub async fn get(url: &str) -> Result<Answer> {
    Request::url(Method::GET, url)?.send().await
}

impl Request {
    pub fn new(method: Method, endpoint: impl Into<Endpoint>, path: &str) -> Self {
        Self {
            endpoint: endpoint.into(),
            method,
            path: path.to_owned(),
            host: None,
            headers: Vec::new(),
            body: Bytes::new(),
            timeout: TIMEOUT,
        }
    }

    pub fn get(endpoint: impl Into<Endpoint>, path: &str) -> Self {
        Self::new(Method::GET, endpoint, path)
    }

    pub fn post(endpoint: impl Into<Endpoint>, path: &str, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::new(Method::POST, endpoint, path) }
    }

    /// From `http://IP:PORT/path`: names are not resolved, nothing here leaves the machine.
    pub fn url(method: Method, url: &str) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let authority = uri.authority().with_context(|| format!("{url} names no host"))?;
        let text = authority.as_str().replace("localhost", "127.0.0.1");
        let text = if authority.port().is_some() { text } else { format!("{text}:80") };
        let address: SocketAddr = text.parse().with_context(|| format!("{url} names no IP address"))?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Self::new(method, address, path))
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Any status is an answer; an error means that there was none.
    pub async fn send(self) -> Result<Answer> {
        let what = format!("{} {} at {}", self.method, self.path, self.endpoint);
        timeout(self.timeout, self.exchange()).await.unwrap_or_else(|_| Err(anyhow!("timed out"))).context(what)
    }

    async fn exchange(&self) -> Result<Answer> {
        let mut connection = Connection::open(&self.endpoint).await?;
        let answer = connection.sender.send_request(self.encode()?).await?;
        let (head, body) = answer.into_parts();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    fn encode(&self) -> Result<http::Request<Full<Bytes>>> {
        encode(
            &self.method,
            &self.path,
            self.host.as_deref().unwrap_or(&self.endpoint.host()),
            &self.headers,
            &self.body,
        )
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The version of the sample backend that answered.
    pub fn version(&self) -> Option<&str> {
        self.header(SERVED_BY).map(version_of)
    }
}

impl Endpoint {
    /// The Host header where none is given.
    pub(crate) fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl From<&Self> for Endpoint {
    fn from(endpoint: &Self) -> Self {
        endpoint.clone()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(formatter, "{address}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

/// An open HTTP/1.1 connection; dropping it closes it.
pub(crate) struct Connection {
    pub(crate) sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self> {
        let mut driver = JoinSet::new();
        let sender = match endpoint {
            Endpoint::Tcp(address) => {
                ensure!(stays_here(*address)?, "{address} is not on this machine");
                let stream = connect(*address).await.context("connect")?;
                stream.set_nodelay(true)?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                // Its errors reach the sender.
                driver.spawn(async move { drop(connection.await) });
                sender
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.context("connect")?;
                let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                driver.spawn(async move { drop(connection.await) });
                sender
            }
        };
        Ok(Self { sender, _driver: driver })
    }
}

/// Whoever last knocked on an address that nobody had made the kernel ask three times, a second apart, who has it; a
/// container that gets the address meanwhile is called unreachable when they are over. The next attempt asks afresh.
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    match TcpStream::connect(address).await {
        Err(error) if error.kind() == std::io::ErrorKind::HostUnreachable => TcpStream::connect(address).await,
        outcome => outcome,
    }
}

/// Whether packets to that address stay on this machine. The addresses of a bridge that is gone do not: they follow the
/// default route, to wherever it leads, and something may even answer. Connecting a UDP socket sends nothing.
fn stays_here(address: SocketAddr) -> Result<bool> {
    let source = |to: SocketAddr| -> std::io::Result<IpAddr> {
        let any = if to.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0_u16; 8], 0)) };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    // Addresses for documentation, which no machine has.
    let elsewhere = if address.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let outward = source(elsewhere.parse()?).ok();
    let from = source(address).with_context(|| format!("no route to {address}"))?;
    Ok(Some(from) != outward || from == address.ip())
}

pub(crate) fn encode(
    method: &Method,
    path: &str,
    host: &str,
    headers: &[(String, String)],
    body: &Bytes,
) -> Result<http::Request<Full<Bytes>>> {
    let mut request = http::Request::builder().method(method).uri(path).body(Full::new(body.clone()))?;
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(host)?);
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    Ok(request)
}

/// The version in `VERSION/HOSTNAME`.
pub(crate) fn version_of(served_by: &str) -> &str {
    served_by.split_once('/').map_or(served_by, |(version, _)| version)
}

/// Switches the behaviour of the sample backend at this address: `ready=false&errors=50`.
pub async fn control(sample: SocketAddr, query: &str) -> Result<()> {
    let answer = Request::post(sample, &format!("/control?{query}"), "").send().await?;
    ensure!(answer.status == 200, "control {query}: {}", answer.text());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_this_machine_is_talked_to() {
        assert!(stays_here("127.0.0.1:80".parse().unwrap()).unwrap());
        let refused = get("http://192.0.2.7/").await.unwrap_err();
        let text = format!("{refused:#}");
        assert!(text.contains("not on this machine") || text.contains("no route"), "{text}");
        assert!(get("http://example.org/").await.is_err(), "names are not resolved");
    }
}
