//! What tidegate is measured against: a tonic server that pushes messages which were encoded before it began, the same bytes
//! to every stream, copied once into the stream's buffer. It reads requests and obeys none.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::{Buf, BufMut, Bytes};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Writes messages where [`serve`] finds them.
pub(crate) fn store(messages: &[Vec<u8>], path: &Path) -> Result<()> {
    let mut file = Vec::new();
    for message in messages {
        file.put_u64(message.len() as u64);
        file.put_slice(message);
    }
    Ok(std::fs::write(path, file)?)
}

pub(crate) fn serve(runtime: &Runtime, messages: &Path) -> Result<SocketAddr> {
    let mut file = Bytes::from(std::fs::read(messages)?);
    let mut messages = Vec::new();
    while file.has_remaining() {
        let len = usize::try_from(file.try_get_u64()?)?;
        messages.push(file.split_to(len));
    }
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let incoming = TcpListenerStream::new(listener).inspect(|accepted| {
        // An error means that the client is gone.
        let _ = accepted.as_ref().map(|stream| stream.set_nodelay(true));
    });
    let serving = Server::builder().add_service(Plain { messages: messages.into() }).serve_with_incoming(incoming);
    runtime.spawn(async {
        if let Err(error) = serving.await {
            crate::say(&format!("the plain server ended: {error}"));
        }
    });
    Ok(address)
}

#[derive(Clone, Debug)]
struct Plain {
    messages: Arc<[Bytes]>,
}

impl NamedService for Plain {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl tonic::codegen::Service<http::Request<Body>> for Plain {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(Grpc::new(Copying).streaming(service, request).await) })
    }
}

impl StreamingService<()> for Plain {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<()>>) -> Self::Future {
        let messages = Arc::clone(&self.messages);
        let all = (0..messages.len()).map(move |at| Ok(messages[at].clone()));
        let requests = request.into_inner().filter_map(|request| std::future::ready(request.err().map(Err)));
        Box::pin(async move { Ok(Response::new(stream::iter(all).chain(requests).boxed())) })
    }
}

/// Copies bytes out and throws bytes away.
#[derive(Clone, Copy, Debug)]
struct Copying;

impl Codec for Copying {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Copying {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.len());
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Copying {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}
