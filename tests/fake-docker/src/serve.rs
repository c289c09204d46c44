//! The API over HTTP, and the engine's timer. Any method but GET and HEAD is refused: nothing may change a real engine.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use crate::Shared;
use crate::clock::{SECOND, http_date};
use crate::engine::Engine;
use crate::events::Filter;
use crate::faults::{Answer, Call};

type Body = BoxBody<Bytes, std::io::Error>;

/// Does what the engine has scheduled, when it is due.
pub(crate) async fn keep_time(shared: Arc<Shared>) {
    loop {
        let due = shared.engine().next_due();
        let due = async {
            match due {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => shared.engine().keep_up(),
            () = shared.changed.notified() => {}
        }
    }
}

pub(crate) async fn unix(listener: UnixListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => take(stream, &shared, &mut connections),
            Some(_) = connections.join_next() => {}
        }
    }
}

pub(crate) async fn tcp(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => take(stream, &shared, &mut connections),
            Some(_) = connections.join_next() => {}
        }
    }
}

fn take(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    shared: &Arc<Shared>,
    connections: &mut JoinSet<()>,
) {
    if shared.engine().faults.refusing {
        return;
    }
    let shared = Arc::clone(shared);
    connections.spawn(async move {
        let service = service_fn(|request| respond(request, Arc::clone(&shared)));
        let mut server = hyper::server::conn::http1::Builder::new();
        let _ = server.auto_date_header(false).serve_connection(TokioIo::new(stream), service).await;
    });
}

async fn respond(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    let mut response = answer(&request, &shared).await;
    let mut engine = shared.engine();
    let date = HeaderValue::from_str(&http_date(engine.now()));
    let version = HeaderValue::from_static(engine.api.1);
    drop(engine);
    let headers = response.headers_mut();
    headers.insert("api-version", version);
    headers.extend(date.ok().map(|date| (header::DATE, date)));
    Ok(response)
}

async fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Body> {
    let path = request.uri().path();
    shared.engine().requests.push(format!("{} {path}", request.method()));
    thawed(shared).await;
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "nothing may be changed");
    }
    let (version, rest) = split_version(path);
    if let Some(refused) = version.and_then(|version| unspoken(&shared.engine(), version)) {
        return refused;
    }
    let Some((call, id)) = parse(rest) else { return refusal(StatusCode::NOT_FOUND, "page not found") };
    let fault = {
        let engine = shared.engine();
        let look = if call == Call::Inspect { engine.faults.looks.get(id) } else { None };
        look.or_else(|| engine.faults.answers.get(&call)).cloned()
    };
    match fault {
        Some(Answer::Never) => std::future::pending().await,
        Some(Answer::After(delay)) => sleep(delay).await,
        Some(Answer::Old(delay)) => {
            let old = say(call, id, request, &mut shared.engine());
            sleep(delay).await;
            thawed(shared).await;
            return old;
        }
        Some(Answer::Status(status, message)) => {
            return refusal(StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT), message);
        }
        Some(Answer::Garbage) => return json_of(StatusCode::OK, Bytes::from_static(b"<html>not an engine</html>")),
        Some(Answer::Half) => {
            let whole = say(call, id, request, &mut shared.engine());
            return half(whole).await;
        }
        None => {}
    }
    thawed(shared).await;
    say(call, id, request, &mut shared.engine())
}

async fn thawed(shared: &Shared) {
    let _ = shared.thawed.clone().wait_for(|frozen| !frozen).await;
}

/// `/v1.41/rest`, or just `/rest`.
fn split_version(path: &str) -> (Option<&str>, &str) {
    let versioned = path.strip_prefix("/v").and_then(|rest| rest.split_once('/'));
    match versioned {
        Some((version, _)) if version.starts_with(|digit: char| digit.is_ascii_digit()) => {
            (Some(version), &path[version.len() + 2..])
        }
        _ => (None, path),
    }
}

/// What a version outside of what is spoken is told, in dockerd's words.
fn unspoken(engine: &Engine, version: &str) -> Option<Response<Body>> {
    let number =
        |text: &str| text.split_once('.').and_then(|(a, b)| Some((a.parse::<u32>().ok()?, b.parse::<u32>().ok()?)));
    let (oldest, newest) = engine.api;
    let message = if number(version) > number(newest) {
        format!("client version {version} is too new. Maximum supported API version is {newest}")
    } else if number(version) < number(oldest) {
        format!(
            "client version {version} is too old. Minimum supported API version is {oldest}, please upgrade your client to \
             a newer version"
        )
    } else {
        return None;
    };
    Some(refusal(StatusCode::BAD_REQUEST, &message))
}

fn parse(path: &str) -> Option<(Call, &str)> {
    let call = match path {
        "/version" => Call::Version,
        "/_ping" => Call::Ping,
        "/events" => Call::Events,
        "/containers/json" => Call::List,
        _ => {
            let of = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("/json");
            return of("/containers/").map(|id| (Call::Inspect, id)).or(of("/images/").map(|id| (Call::Image, id)));
        }
    };
    Some((call, ""))
}

fn say(call: Call, id: &str, request: &Request<Incoming>, engine: &mut Engine) -> Response<Body> {
    let found = |value: Option<Value>, what: &str| match value {
        Some(value) => json_of(StatusCode::OK, value.to_string().into()),
        None => refusal(StatusCode::NOT_FOUND, &format!("No such {what}: {id}")),
    };
    match call {
        Call::Version => {
            let (oldest, newest) = engine.api;
            found(Some(json!({ "ApiVersion": newest, "MinAPIVersion": oldest })), "")
        }
        Call::Ping => json_of(StatusCode::OK, Bytes::from_static(b"OK")),
        Call::List => {
            let list = found(Some(engine.list()), "");
            engine.listed();
            list
        }
        Call::Inspect => found(engine.inspect(id), "container"),
        Call::Image => {
            let id = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
            found(engine.inspect_image(&id), "image")
        }
        Call::Events => {
            let query = request.uri().query().unwrap_or_default();
            let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            let filter = value("filters").map(|text| percent_encoding::percent_decode_str(text).decode_utf8_lossy());
            let filter = Filter::parse(&filter.unwrap_or_default());
            let lines = engine.subscribe(value("since").and_then(since), filter);
            let stream = ReceiverStream::new(lines).map(|line| Ok(Frame::data(line)));
            Response::new(BodyExt::boxed(StreamBody::new(stream)))
        }
    }
}

/// `SECONDS.NANOSECONDS`, the second part with nine digits.
fn since(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(seconds.parse::<i64>().ok()? * SECOND + fraction)
}

/// The first half of a body, and then the connection breaks.
async fn half(response: Response<Body>) -> Response<Body> {
    let (head, body) = response.into_parts();
    let whole = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let first = Ok(Frame::data(whole.slice(..whole.len() / 2)));
    let broken = async {
        sleep(Duration::from_millis(1)).await;
        Err(std::io::Error::other("the fake engine breaks this connection"))
    };
    let stream = futures_util::stream::iter([first]).chain(futures_util::stream::once(broken));
    Response::from_parts(head, BodyExt::boxed(StreamBody::new(stream)))
}

fn refusal(status: StatusCode, message: &str) -> Response<Body> {
    json_of(status, json!({ "message": message }).to_string().into())
}

fn json_of(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
