//! What is served beside xDS, on the same connections and to the same clients: small bodies, POSTed to one path, each answered with
//! a status. What they mean is somebody else's business; here is only who sent them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tonic::body::Body;
use tonic::codegen::Service;

use crate::server::incoming::{Pass, peer};

/// How long a body may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// A path beside xDS, and what answers there. Clones are the same.
#[derive(Clone)]
pub struct Beside(Arc<Place>);

struct Place {
    path: String,
    max_body_bytes: usize,
    answer: Box<dyn Fn(Posted) -> StatusCode + Send + Sync>,
}

/// What a client sent.
#[derive(Debug)]
pub struct Posted {
    pub body: Bytes,
    from: Option<SocketAddr>,
    pass: Option<Pass>,
}

impl Beside {
    /// `answer` is asked for each body of at most so many bytes that is POSTed to `path`; it must not block.
    pub fn new(
        path: impl Into<String>,
        max_body_bytes: usize,
        answer: impl Fn(Posted) -> StatusCode + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Place { path: path.into(), max_body_bytes, answer: Box::new(answer) }))
    }

    async fn answer(self, request: Request<Body>) -> StatusCode {
        if request.method() != Method::POST {
            return StatusCode::METHOD_NOT_ALLOWED;
        }
        let (from, pass) = peer(request.extensions());
        let body = Limited::new(request.into_body(), self.0.max_body_bytes).collect();
        match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => (self.0.answer)(Posted { body: body.to_bytes(), from, pass }),
            Ok(Err(error)) if error.is::<LengthLimitError>() => StatusCode::PAYLOAD_TOO_LARGE,
            Ok(Err(_)) => StatusCode::BAD_REQUEST,
            Err(_) => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Beside").field(&self.0.path).finish()
    }
}

impl Posted {
    /// Where the client is; `None`: nowhere that is known.
    #[must_use]
    pub fn from(&self) -> Option<SocketAddr> {
        self.from
    }

    /// Whether the client may be that node, as on an xDS stream: its certificate names it. Without TLS everyone may be everybody.
    #[must_use]
    pub fn may_be(&self, node_id: &str) -> bool {
        self.pass.as_ref().is_none_or(|pass| pass.check(node_id).is_ok())
    }
}

/// A service with places beside it.
#[derive(Clone, Debug)]
pub(super) struct Besides<S> {
    pub(super) service: S,
    pub(super) places: Vec<Beside>,
}

impl<S> Service<Request<Body>> for Besides<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let place = self.places.iter().find(|place| place.0.path == request.uri().path());
        let Some(place) = place.cloned() else { return Box::pin(self.service.call(request)) };
        Box::pin(async move {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = place.answer(request).await;
            Ok(response)
        })
    }
}
