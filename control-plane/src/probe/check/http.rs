//! A GET over HTTP/1.1, plain or over TLS, and whether its answer is what is expected.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tidegate_core::instance::{CheckTls, HeaderMatch, HttpCheck, MAX_BODY, Statuses};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::connect::{Acks, connect};
use super::{Failure, MAX_HEAD, USER_AGENT, by, quoted, tls};

const WAITING: &str = "waiting for the answer";

pub(super) async fn plain(address: SocketAddr, check: &HttpCheck, deadline: Instant) -> Result<String, Failure> {
    let request = request(address, check)?;
    // The head comes in one piece; what a body comes in may have to be acknowledged one by one.
    let acks = if check.body.is_none() { Acks::Late } else { Acks::AtOnce };
    let stream = connect(address, acks, deadline).await?;
    by(deadline, WAITING, exchange(stream, request, check)).await
}

pub(super) async fn over_tls(
    address: SocketAddr,
    check: &HttpCheck,
    tls: &CheckTls,
    deadline: Instant,
) -> Result<String, Failure> {
    let request = request(address, check)?;
    let stream = connect(address, Acks::AtOnce, deadline).await?;
    let shake_hands = tls::handshake(stream, address.ip(), check.host.as_deref(), tls);
    let stream = by(deadline, "in the TLS handshake", shake_hands).await?;
    by(deadline, WAITING, exchange(stream, request, check)).await
}

fn request(address: SocketAddr, check: &HttpCheck) -> Result<Request<Empty<Bytes>>, Failure> {
    let unfit = |what: &str| Failure::Request(what.to_owned());
    let mut request = Request::get(&check.path).body(Empty::new()).map_err(|_| unfit(&check.path))?;
    let host = check.host.clone().unwrap_or_else(|| address.to_string());
    let host = HeaderValue::from_str(&host).map_err(|_| unfit(&host))?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    check: &HttpCheck,
) -> Result<String, Failure> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    let (mut sender, connection) =
        builder.max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(|error| no_answer(&error))?;
    let mut connection = pin!(connection);
    let mut judged = pin!(async {
        let response = sender.send_request(request).await.map_err(|error| no_answer(&error))?;
        judge(response, check).await
    });
    let mut is_open = true;
    loop {
        tokio::select! {
            judged = &mut judged => return judged,
            // The answer matters, not the connection's end: an error of the latter shows in the former.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

async fn judge(response: Response<Incoming>, check: &HttpCheck) -> Result<String, Failure> {
    let status = response.status().as_u16();
    if !check.status.contains(status) {
        return Err(Failure::Answer(match status {
            300..=399 => format!("HTTP {status}, a redirect, which checks do not follow"),
            status if check.status == Statuses::default() => format!("HTTP {status}"),
            status => format!("HTTP {status}, which is none of {}", check.status),
        }));
    }
    if let Some(wanted) = &check.header
        && let Err(reason) = has(response.headers(), wanted)
    {
        return Err(Failure::Answer(format!("HTTP {status}, but {reason}")));
    }
    if let Some(wanted) = &check.body
        && let Err(reason) = contains(response.into_body(), wanted).await
    {
        return Err(Failure::Answer(format!("HTTP {status}, but {reason}")));
    }
    Ok(format!("HTTP {status}"))
}

fn has(headers: &HeaderMap, wanted: &HeaderMatch) -> Result<(), String> {
    let HeaderMatch { name, value } = wanted;
    let mut found = headers.get_all(name).iter().peekable();
    match (value, found.peek()) {
        (_, None) => Err(format!("it has no header `{name}`")),
        (None, Some(_)) => Ok(()),
        (Some(value), Some(first)) => {
            let other = quoted(first.as_bytes());
            let is_there = found.any(|found| found.as_bytes() == value.as_bytes());
            if is_there { Ok(()) } else { Err(format!("its header `{name}` is {other}, not {value:?}")) }
        }
    }
}

/// Reads until it is found, and no further than [`MAX_BODY`].
async fn contains(mut body: Incoming, wanted: &str) -> Result<(), String> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("its body broke off: {}", reason(&error)))?;
        let Ok(data) = frame.into_data() else { continue };
        let from = read.len().saturating_sub(wanted.len());
        read.extend_from_slice(data.get(..MAX_BODY - read.len()).unwrap_or(&data));
        if read[from..].windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
            return Ok(());
        }
        if read.len() == MAX_BODY {
            return Err(format!("the first {MAX_BODY} bytes of its body do not contain {wanted:?}"));
        }
    }
    Err(format!("its body does not contain {wanted:?}"))
}

fn no_answer(error: &hyper::Error) -> Failure {
    Failure::Answer(format!("no HTTP answer: {}", reason(error)))
}

fn reason(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection was closed before one".to_owned();
    } else if error.is_parse_too_large() {
        return format!("its head is longer than {MAX_HEAD} bytes");
    } else if error.is_parse() {
        return "what came is not HTTP".to_owned();
    } else if error.is_canceled() {
        return "it spoke before it was asked".to_owned();
    }
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(error) => tls::reason(error).unwrap_or_else(|| match error.kind() {
            ErrorKind::UnexpectedEof => "the connection was closed before its end".to_owned(),
            ErrorKind::InvalidData | ErrorKind::InvalidInput => "what came is not HTTP".to_owned(),
            _ => super::connect_reason(error),
        }),
        None => error.to_string(),
    }
}
