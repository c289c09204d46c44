//! gRPC's frames, both ways, for the streams of discovery. By hand, because the ordinary way keeps two buffers for each
//! stream for as long as it lives, each as long as the longest message that ever went through it: on thousands of idle
//! streams that is most of the memory. Here a buffer goes with its message.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{BoxStream, Stream};
use http_body::Frame;
use http_body_util::BodyExt;
use tonic::Status;
use tonic::body::Body;

use crate::codec::{Asks, FRAME, Seen};
use crate::session::Response;

/// The requests of a stream.
pub(super) struct Requests<R> {
    body: Body,
    buffer: BytesMut,
    max_len: usize,
    seen: Seen,
    of: PhantomData<R>,
}

impl<R: Asks> Requests<R> {
    /// `max_len` is that of one message, in bytes.
    pub(super) fn new(body: Body, max_len: usize) -> Self {
        Self { body, buffer: BytesMut::new(), max_len, seen: Seen::default(), of: PhantomData }
    }

    /// The next request; `None` when the client is done. Nothing is lost if it is dropped before it is ready.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no request; the stream then has to end.
    pub(super) async fn next(&mut self) -> Result<Option<R>, Status> {
        loop {
            if let Some(request) = self.read()? {
                return Ok(Some(request));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(status)) => return Err(status),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::invalid_argument("the stream ends in the middle of a request")),
            }
        }
    }

    /// A request, if all of it is there.
    fn read(&mut self) -> Result<Option<R>, Status> {
        let Some(head) = self.buffer.first_chunk::<FRAME>() else { return Ok(None) };
        let [compressed, length @ ..] = *head;
        if compressed != 0 {
            return Err(Status::unimplemented("a request is compressed, which was not agreed upon"));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.max_len {
            return Err(Status::resource_exhausted(format!("a request is longer than {} bytes", self.max_len)));
        }
        if self.buffer.len() - FRAME < length {
            return Ok(None);
        }
        self.buffer.advance(FRAME);
        let message = self.buffer.split_to(length);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        let request = R::read(&message, &mut self.seen);
        request.map(Some).map_err(|error| Status::invalid_argument(format!("a request cannot be read: {error}")))
    }
}

/// The responses of a stream, as the body of the HTTP response.
pub(super) struct Responses {
    stream: BoxStream<'static, Result<Response, Status>>,
    /// Of the response that is under way.
    pieces: std::vec::IntoIter<Bytes>,
    ended: bool,
}

impl Responses {
    pub(super) fn new(stream: BoxStream<'static, Result<Response, Status>>) -> Self {
        Self { stream, pieces: Vec::new().into_iter(), ended: false }
    }

    /// The HTTP response of which this is the body.
    pub(super) fn into_http(self) -> http::Response<Body> {
        let mut response = http::Response::new(Body::new(self));
        response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
        response
    }
}

impl http_body::Body for Responses {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let status = loop {
            if let Some(piece) = self.pieces.next() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            match ready!(Pin::new(&mut self.stream).poll_next(context)) {
                Some(Ok(response)) => self.pieces = response.framed().into_iter(),
                Some(Err(status)) => break status,
                None => break Status::ok(""),
            }
        };
        self.ended = true;
        let mut trailers = http::HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
    use http_body_util::{Full, StreamBody};
    use prost::Message;

    use super::*;

    fn framed(type_url: &str) -> Vec<u8> {
        let message = DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..Default::default() }.encode_to_vec();
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        framed
    }

    fn requests(bytes: &[u8], in_pieces_of: usize) -> Requests<DeltaDiscoveryRequest> {
        let pieces: Vec<_> = bytes.chunks(in_pieces_of).map(|it| Ok(Frame::data(Bytes::copy_from_slice(it)))).collect();
        let body = StreamBody::new(futures_util::stream::iter(pieces.into_iter().map(|it: Result<_, Status>| it)));
        Requests::new(Body::new(body), 100)
    }

    #[tokio::test]
    async fn requests_are_read_however_they_come() {
        let bytes = [framed("a"), framed("b")].concat();
        for piece in [1, 3, 7, bytes.len()] {
            let mut requests = requests(&bytes, piece);
            assert_eq!(requests.next().await.unwrap().unwrap().type_url, "a");
            assert_eq!(requests.next().await.unwrap().unwrap().type_url, "b");
            assert_eq!(requests.buffer.capacity(), 0, "nothing is kept");
            assert!(requests.next().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn what_is_no_request_ends_the_stream_with_a_reason() {
        let long = [&[0, 0, 0, 0, 101][..], &[0; 200]].concat();
        let compressed = [&[1][..], &framed("a")[1..]].concat();
        let garbage = [0, 0, 0, 0, 3, 0xff, 0xff, 0xff];
        for (bytes, reason) in [
            (&long[..], "a request is longer than 100 bytes"),
            (&compressed, "a request is compressed, which was not agreed upon"),
            (&garbage, "a request cannot be read"),
            (&framed("a")[..4], "the stream ends in the middle of a request"),
        ] {
            let status = requests(bytes, bytes.len()).next().await.unwrap_err();
            assert!(status.message().starts_with(reason), "{status}");
        }
        let mut empty: Requests<DeltaDiscoveryRequest> = Requests::new(Body::new(Full::new(Bytes::new())), 100);
        assert!(empty.next().await.unwrap().is_none());
    }
}
