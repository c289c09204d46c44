//! The sample backend for services over HTTP/2: it names itself in every answer, ends each with a gRPC status, and takes SIGTERM as
//! the other sample does. It speaks HTTP/2 with prior knowledge and nothing else; it knows gRPC's frames but no messages.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the console is its log")]

use std::{convert::Infallible, env, net::Ipv4Addr, process::ExitCode, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::{Body, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::sleep,
};

const USAGE: &str = "\
tidegate-sample-h2: a backend over HTTP/2 that names itself and echoes gRPC's frames

environment: PORT (8080)  VERSION (v1)  TERM (graceful | now | ignore)
             TERM_DELAY_MS     with graceful: go on accepting for so long

paths: /grpc.health.v1.Health/Check   SERVING
       /stream                        a frame each 100 ms for a second
       /fail/VERSION                  what was sent, and status 13 of that version
       any other                      what was sent";

const PAUSE: Duration = Duration::from_millis(100);
const PIECES: usize = 10;
/// A frame of gRPC: not compressed, two bytes, field 1 is 1.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
/// One with a message of six bytes.
const PIECE: &[u8] = b"\0\0\0\0\x06piece\n";
/// Nothing here needs more.
const MOST: usize = 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if env::args().nth(1).is_some() {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match serve().await {
        Ok(code) => code,
        Err(problem) => {
            eprintln!("tidegate-sample-h2: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

async fn serve() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let port: u16 = variable("PORT", "8080").parse()?;
    let delay = Duration::from_millis(variable("TERM_DELAY_MS", "0").parse()?);
    let on_term = variable("TERM", "graceful");
    let served_by =
        HeaderValue::try_from(format!("{}/{}", variable("VERSION", "v1"), variable("HOSTNAME", "unknown")))?;
    let mut terminated = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    println!("listens on {port}");

    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let accept = async {
        loop {
            // Who is already gone, or came when there were no descriptors, concerns one connection.
            let Ok((stream, _)) = listener.accept().await else { continue };
            let watcher = graceful.watcher();
            let served_by = served_by.clone();
            connections.spawn(async move {
                let connection = connection(stream, served_by);
                // How a connection ends is the client's business.
                let _ = watcher.watch(connection).await;
            });
            while connections.try_join_next().is_some() {}
        }
    };
    let ended = async {
        loop {
            terminated.recv().await;
            println!("SIGTERM: {on_term}");
            match on_term.as_str() {
                "ignore" => {}
                "now" => return Some(ExitCode::from(143)),
                _ => {
                    sleep(delay).await;
                    return None;
                }
            }
        }
    };
    let code = tokio::select! {
        code = ended => code,
        () = accept => None,
    };
    if let Some(code) = code {
        return Ok(code);
    }
    drop(listener);
    graceful.shutdown().await;
    println!("drained");
    Ok(ExitCode::SUCCESS)
}

fn connection(
    stream: TcpStream,
    served_by: HeaderValue,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let answer = service_fn(move |request| {
        let served_by = served_by.clone();
        async move { answer(request, served_by).await }
    });
    http2::Builder::new(TokioExecutor::new()).timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answer)
}

async fn answer(
    request: Request<Incoming>,
    served_by: HeaderValue,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let failing = request.uri().path().strip_prefix("/fail/").is_some_and(|version| {
        served_by.as_bytes().strip_prefix(version.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
    });
    let (first, pieces) = match request.uri().path() {
        "/grpc.health.v1.Health/Check" => (Bytes::from_static(SERVING), 0),
        "/stream" => (Bytes::from_static(PIECE), PIECES),
        _ => (echo(request.into_body()).await, 0),
    };
    let status = if failing { "13" } else { "0" };
    let mut response = Response::new(StreamBody::new(body(first, pieces, status)));
    response.headers_mut().insert("x-served-by", served_by);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}

/// What was sent; nothing, if that broke off or is too much.
async fn echo(body: Incoming) -> Bytes {
    let body = http_body_util::Limited::new(body, MOST);
    body.collect().await.map(|body| body.to_bytes()).unwrap_or_default()
}

/// The first frame at once, further pieces each after a pause, and a status. An empty frame is left out: Envoy takes two of them in
/// a row for a flood, and ends the connection.
fn body(first: Bytes, pieces: usize, status: &'static str) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold(usize::from(first.is_empty()), move |sent| {
        let first = first.clone();
        async move {
            let frame = match sent {
                0 => Frame::data(first),
                sent if sent <= pieces => {
                    sleep(PAUSE).await;
                    Frame::data(Bytes::from_static(PIECE))
                }
                sent if sent == pieces + 1 => Frame::trailers(HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    HeaderValue::from_static(status),
                )])),
                _ => return None,
            };
            Some((Ok(frame), sent + 1))
        }
    })
}
