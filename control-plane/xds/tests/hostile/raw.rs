//! HTTP/2 as nobody should speak it: windows that are never given, bytes that are no request, frames by the thousand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use prost::Message;
use tidegate_xds::ResourceType;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub(crate) const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

pub(crate) struct Connection {
    pub(crate) requests: SendRequest<Bytes>,
    pub(crate) driver: JoinHandle<Result<(), h2::Error>>,
}

/// A stream whose response is read when the test says so. What it reads it gives no window for.
pub(crate) struct Stream {
    pub(crate) request: SendStream<Bytes>,
    pub(crate) response: ResponseFuture,
}

impl Connection {
    /// Each stream may be sent so many bytes, and never more.
    #[expect(clippy::disallowed_methods, reason = "ends with the connection")]
    pub(crate) async fn open(address: SocketAddr, window: u32) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        let mut builder = Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(1 << 30);
        let (requests, connection) = builder.handshake(socket).await.unwrap();
        Self { requests, driver: tokio::spawn(connection) }
    }

    pub(crate) async fn stream(&mut self) -> Result<Stream, h2::Error> {
        let request = http::Request::post(format!("http://tidegate.example{DELTA}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut requests = self.requests.clone().ready().await?;
        let (response, request) = requests.send_request(request, false)?;
        Ok(Stream { request, response })
    }

    /// A stream that asks for everything of these types.
    pub(crate) async fn subscribed(&mut self, node_id: &str, types: &[ResourceType]) -> Stream {
        let mut stream = self.stream().await.unwrap();
        for resource_type in types {
            stream.send(&DeltaDiscoveryRequest {
                node: Some(Node { id: node_id.to_owned(), ..Default::default() }),
                type_url: resource_type.type_url().to_owned(),
                resource_names_subscribe: vec!["*".to_owned()],
                ..Default::default()
            });
        }
        stream
    }
}

impl Stream {
    pub(crate) fn send(&mut self, request: &DeltaDiscoveryRequest) {
        self.write(&request.encode_to_vec());
    }

    /// A gRPC frame with anything in it.
    pub(crate) fn write(&mut self, message: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).unwrap());
        frame.put_slice(message);
        // Fails once the stream is closed, which the test finds out elsewhere.
        let _ = self.request.send_data(frame.freeze(), false);
    }

    /// gRPC's code and message, which the stream ends with.
    pub(crate) async fn end(self) -> Result<(String, String), h2::Error> {
        let response = self.response.await?;
        let (headers, mut body) = (response.headers().clone(), response.into_body());
        while let Some(data) = body.data().await {
            data?;
        }
        let trailers = body.trailers().await?.unwrap_or(headers);
        let field = |name| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        Ok((field("grpc-status"), field("grpc-message")))
    }

    /// What the server answers is on its way: it has seen the stream.
    pub(crate) async fn opened(&mut self) -> Result<RecvStream, h2::Error> {
        (&mut self.response).await.map(http::Response::into_body)
    }
}

/// A frame: type, flags, stream, payload.
pub(crate) fn frame(of: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[of, flags], &stream.to_be_bytes(), payload].concat()
}
