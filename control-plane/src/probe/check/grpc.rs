//! `grpc.health.v1.Health/Check` over HTTP/2 without TLS. The two messages are small enough to be written here.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, header};
use prost::Message;
use tidegate_core::instance::MAX_BODY;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connect::{Acks, connect};
use super::{Failure, MAX_HEAD, USER_AGENT, by, quoted};

const METHOD: &str = "/grpc.health.v1.Health/Check";
const STATUS: &str = "grpc-status";

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct Answered {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn health(
    address: SocketAddr,
    service: &str,
    host: Option<&str>,
    deadline: Instant,
) -> Result<String, Failure> {
    let authority = host.map_or_else(|| address.to_string(), str::to_owned);
    let request = Request::post(format!("http://{authority}{METHOD}"))
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(header::USER_AGENT, HeaderValue::from_static(USER_AGENT))
        .body(())
        .map_err(|_| Failure::Request(authority))?;
    let stream = connect(address, Acks::AtOnce, deadline).await?;
    by(deadline, "waiting for the answer", exchange(stream, request, service)).await
}

async fn exchange(stream: TcpStream, request: Request<()>, service: &str) -> Result<String, Failure> {
    let mut builder = h2::client::Builder::new();
    // hyper's least for a head is far below what a frame may have; both bound what is read.
    let head = u32::try_from(MAX_HEAD).unwrap_or(u32::MAX);
    builder.enable_push(false).max_header_list_size(head).initial_window_size(head);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(|error| no_answer(&error))?;
    // The answer matters, not the connection's end: an error of the latter shows in the former.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    let judged = async {
        let mut sender = sender.ready().await.map_err(|error| no_answer(&error))?;
        let (response, mut body) = sender.send_request(request, false).map_err(|error| no_answer(&error))?;
        body.send_data(frame(service), true).map_err(|error| no_answer(&error))?;
        let response = response.await.map_err(|error| no_answer(&error))?;
        if response.status() != 200 {
            return Err(Failure::Answer(format!("HTTP {}, no gRPC answer", response.status().as_u16())));
        }
        if response.headers().contains_key(STATUS) {
            return judge(response.headers(), &[], service);
        }
        let (message, trailers) = read(response.into_body()).await?;
        judge(&trailers, &message, service)
    };
    tokio::select! {
        judged = judged => judged,
        never = driven => never,
    }
}

/// A message behind its length, not compressed.
fn frame(service: &str) -> Bytes {
    let message = Asked { service: service.to_owned() }.encode_to_vec();
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

/// The body, which has one small message, and the trailers.
async fn read(mut body: RecvStream) -> Result<(Vec<u8>, HeaderMap), Failure> {
    let mut read = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| no_answer(&error))?;
        if read.len() + data.len() > MAX_BODY {
            return Err(Failure::Answer(format!("no gRPC answer: it is longer than {MAX_BODY} bytes")));
        }
        read.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.map_err(|error| no_answer(&error))?;
    Ok((read, trailers.unwrap_or_default()))
}

fn judge(trailers: &HeaderMap, message: &[u8], service: &str) -> Result<String, Failure> {
    let failed = |reason: String| Err(Failure::Answer(reason));
    match trailers.get(STATUS).map(HeaderValue::as_bytes) {
        None => return failed(format!("no gRPC answer: it has no `{STATUS}`")),
        Some(b"0") => {}
        Some(b"12") => {
            return failed("gRPC UNIMPLEMENTED: the server has no service grpc.health.v1.Health".to_owned());
        }
        Some(b"5") if !service.is_empty() => {
            return failed(format!("gRPC NOT_FOUND: the server does not know the health of a service {service:?}"));
        }
        Some(code) => {
            let said = trailers.get("grpc-message").map(|said| format!(": {}", quoted(said.as_bytes())));
            return failed(format!("gRPC {}{}", code_name(code), said.unwrap_or_default()));
        }
    }
    let mut rest = message;
    let fits = rest.len() >= 5 && rest.get_u8() == 0 && rest.get_u32() as usize == rest.len();
    let Some(answered) = fits.then(|| Answered::decode(rest).ok()).flatten() else {
        return failed("no gRPC answer: it is not the message of a health check".to_owned());
    };
    match answered.status {
        1 => Ok("gRPC SERVING".to_owned()),
        0 => failed("gRPC health UNKNOWN".to_owned()),
        2 => failed("gRPC health NOT_SERVING".to_owned()),
        3 => failed("gRPC health SERVICE_UNKNOWN".to_owned()),
        other => failed(format!("gRPC health {other}, which means nothing")),
    }
}

/// The name of a status code.
fn code_name(code: &[u8]) -> String {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    let number = std::str::from_utf8(code).ok().and_then(|code| code.parse::<usize>().ok());
    number.and_then(|number| NAMES.get(number)).map_or_else(|| quoted(code), |name| (*name).to_owned())
}

fn no_answer(error: &h2::Error) -> Failure {
    let why = if let Some(error) = error.get_io() {
        super::connect_reason(error)
    } else if error.is_remote() {
        format!("the server ended it ({})", error.reason().unwrap_or(Reason::NO_ERROR))
    } else if error.reason().is_some() {
        "what came is not HTTP/2".to_owned()
    } else {
        error.to_string()
    };
    Failure::Answer(format!("no gRPC answer: {why}"))
}
