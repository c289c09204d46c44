//! A client's HTTP/2 connection, and what comes of a request on it: plain ones, and gRPC calls with their status.

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{client::SERVED_BY, load::Outcome};

/// A frame of gRPC with a message of four bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x04tide";
const GRPC_STATUS: &str = "grpc-status";

/// Opened when it is needed, and again when it was closed.
pub struct Http2 {
    address: SocketAddr,
    host: String,
    open: Option<(SendRequest<Full<Bytes>>, JoinSet<()>)>,
}

impl Http2 {
    pub fn new(address: SocketAddr, host: &str) -> Self {
        Self { address, host: host.to_owned(), open: None }
    }

    /// `GET path`: what came of it, and who served it. Errors only for a request that cannot be built.
    pub async fn get(&mut self, path: &str, limit: Duration) -> Result<(Outcome, Option<String>)> {
        let request = Request::get(self.uri(path)).body(Full::default())?;
        self.ask(request, limit, false).await
    }

    /// A body to this path, by this method.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Outcome> {
        let request = Request::builder().method(method).uri(self.uri(path)).body(Full::new(body.into()))?;
        Ok(self.ask(request, limit, false).await?.0)
    }

    /// A gRPC call, which failed where its status is not 0.
    pub async fn call(&mut self, path: &str, limit: Duration) -> Result<(Outcome, Option<String>)> {
        let request = Request::builder().method(Method::POST).uri(self.uri(path));
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        self.ask(request.body(Full::new(Bytes::from_static(MESSAGE)))?, limit, true).await
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: Duration,
        is_call: bool,
    ) -> Result<(Outcome, Option<String>)> {
        let deadline = Instant::now() + limit;
        let sender = match timeout_at(deadline, self.sender()).await {
            Ok(Ok(sender)) => sender,
            Ok(Err(_)) => return Ok((Outcome::Connect, None)),
            Err(_) => return Ok((Outcome::Timeout, None)),
        };
        let answer = match timeout_at(deadline, sender.send_request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Ok((Outcome::BeforeHeaders, None)),
            Err(_) => return Ok((Outcome::Timeout, None)),
        };
        let (head, body) = answer.into_parts();
        let served_by = head.headers.get(SERVED_BY).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = Outcome::Status(head.status.as_u16());
        let outcome = match timeout_at(deadline, body.collect()).await {
            Err(_) => Outcome::Timeout,
            Ok(Err(_)) => Outcome::Body,
            Ok(Ok(_)) if !is_call || !status.is_success() => status,
            // A call that was refused has its status in the head, and that is 503 in HTTP's words.
            Ok(Ok(_)) if head.headers.contains_key(GRPC_STATUS) && !is_ok(&head.headers) => Outcome::Status(503),
            Ok(Ok(body)) if body.trailers().is_some_and(is_ok) => status,
            Ok(Ok(_)) => Outcome::Body,
        };
        Ok((outcome, served_by))
    }

    async fn sender(&mut self) -> Result<&mut SendRequest<Full<Bytes>>> {
        let usable = match &mut self.open {
            Some((sender, _)) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.open = None;
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            // Its errors reach the sender.
            let driver = JoinSet::from_iter([async move { drop(connection.await) }]);
            sender.ready().await?;
            self.open = Some((sender, driver));
        }
        let (sender, _) = self.open.as_mut().ok_or_else(|| anyhow::anyhow!("it is open"))?;
        Ok(sender)
    }
}

fn is_ok(headers: &HeaderMap) -> bool {
    headers.get(GRPC_STATUS).is_some_and(|status| status == "0")
}
