//! A small Docker engine on a unix socket: containers that the test changes, the answers to the five questions that are asked,
//! events with a memory, and the faults that are needed so far.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::clock::Clock;

/// The id of the image that every container has.
const IMAGE: &str = "sha256:77d03f9c1a2b";

type Body = BoxBody<Bytes, Infallible>;

/// One container.
#[derive(Clone, Debug)]
pub(super) struct FakeContainer {
    pub(super) status: &'static str,
    pub(super) started_at: i64,
    pub(super) exit_code: i64,
    pub(super) address: &'static str,
    pub(super) labels: BTreeMap<String, String>,
}

/// What goes wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Containers whose inspect answers 500.
    pub(super) broken: HashSet<String>,
    /// Images are not told of.
    pub(super) images_refused: bool,
    /// Inspects never answer.
    pub(super) inspects_hang: bool,
    /// Nothing answers, and no event is sent: a stopped process.
    pub(super) frozen: bool,
    /// Events are not sent, but everything answers: a proxy that lost the stream.
    pub(super) mute: bool,
    /// Connections are closed as soon as they are made.
    pub(super) refusing: bool,
    /// Done once, after the next list is made up and before it is sent.
    pub(super) after_list: Option<(String, FakeContainer)>,
}

#[derive(Debug)]
pub(super) struct FakeState {
    clock: Clock,
    pub(super) containers: BTreeMap<String, FakeContainer>,
    /// What the image of every container says.
    pub(super) image_labels: BTreeMap<String, String>,
    pub(super) faults: Faults,
    /// Method and path of every request, in order.
    pub(super) requests: Vec<String>,
    memory: Vec<(i64, String)>,
    subscribers: Vec<mpsc::Sender<String>>,
}

impl FakeState {
    pub(super) fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_millis()).unwrap() * 1_000_000
    }

    /// A container that runs since now. No event is sent.
    pub(super) fn runs(&self, labels: &[(&str, &str)]) -> FakeContainer {
        FakeContainer {
            status: "running",
            started_at: self.now(),
            exit_code: 0,
            address: "172.30.0.2",
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    pub(super) fn emit(&mut self, id: &str, action: &str, attributes: &[(&str, &str)]) {
        let at = self.now();
        self.emit_at(at, id, action, attributes);
    }

    pub(super) fn emit_at(&mut self, at: i64, id: &str, action: &str, attributes: &[(&str, &str)]) {
        let mut all = json!({ "name": id, "image": "fake" });
        let all_of_them = all.as_object_mut().unwrap();
        if let Some(container) = self.containers.get(id) {
            all_of_them.extend(container.labels.iter().map(|(key, value)| (key.clone(), json!(value))));
        }
        all_of_them.extend(attributes.iter().map(|(key, value)| ((*key).to_owned(), json!(value))));
        let event = json!({ "Type": "container", "Action": action, "Actor": { "ID": id, "Attributes": all },
                            "time": at / 1_000_000_000, "timeNano": at });
        let line = format!("{event}\n");
        self.memory.push((at, line.clone()));
        if !self.faults.mute && !self.faults.frozen {
            self.subscribers.retain(|subscriber| subscriber.try_send(line.clone()).is_ok());
        }
    }

    /// The container is started, and says so.
    pub(super) fn start(&mut self, id: &str, container: FakeContainer) {
        self.containers.insert(id.to_owned(), container);
        self.emit(id, "start", &[]);
    }

    /// Ends every stream of events.
    pub(super) fn cut(&mut self) {
        self.subscribers.clear();
    }

    pub(super) fn inspects_of(&self, id: &str) -> usize {
        self.requests.iter().filter(|request| request.ends_with(&format!("/containers/{id}/json"))).count()
    }

    fn inspect(&self, id: &str) -> Option<Value> {
        let container = self.containers.get(id)?;
        let alive = matches!(container.status, "running" | "paused");
        let address = if alive { container.address } else { "" };
        Some(json!({
            "Id": id, "Name": format!("/{id}"), "Created": rfc3339(0), "Image": IMAGE,
            "State": { "Status": container.status, "StartedAt": rfc3339(container.started_at), "ExitCode": container.exit_code },
            "Config": { "Labels": container.labels, "ExposedPorts": { "80/tcp": {} }, "Env": ["SECRET=hunter2"] },
            "HostConfig": { "NetworkMode": "default" },
            "NetworkSettings": { "Networks": { "bridge": { "IPAddress": address, "GlobalIPv6Address": "" } } }
        }))
    }

    fn list(&self) -> Value {
        let entry = |(id, container): (&String, &FakeContainer)| {
            let address = if matches!(container.status, "running" | "paused") { container.address } else { "" };
            json!({
                "Id": id, "Names": [format!("/{id}")], "Created": 0, "State": container.status, "Status": "",
                "Labels": container.labels, "HostConfig": { "NetworkMode": "default" },
                "NetworkSettings": { "Networks": { "bridge": { "IPAddress": address, "GlobalIPv6Address": "" } } }
            })
        };
        self.containers.iter().map(entry).collect()
    }
}

fn rfc3339(nanos: i64) -> String {
    // Whole days since 1970 as days of January 1970 would not be a date; a test needs no calendar, only an order.
    let (seconds, fraction) = (nanos.div_euclid(1_000_000_000), nanos.rem_euclid(1_000_000_000));
    let days = seconds / 86_400;
    let (mut year, mut day) = (1970, days);
    let length = |year: i64| if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 };
    while day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let mut month = 1;
    for days in [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let time = seconds % 86_400;
    format!("{year}-{month:02}-{:02}T{:02}:{:02}:{:02}.{fraction:09}Z", day + 1, time / 3600, time / 60 % 60, time % 60)
}

/// The engine. It ends when it is dropped.
pub(super) struct Fake {
    directory: tempfile::TempDir,
    state: Arc<Mutex<FakeState>>,
    server: JoinSet<()>,
}

impl Fake {
    /// An engine that does not listen yet.
    pub(super) fn new(clock: Clock) -> Self {
        let state = FakeState {
            clock,
            containers: BTreeMap::new(),
            image_labels: BTreeMap::new(),
            faults: Faults::default(),
            requests: Vec::new(),
            memory: Vec::new(),
            subscribers: Vec::new(),
        };
        Self { directory: tempfile::tempdir().unwrap(), state: Arc::new(Mutex::new(state)), server: JoinSet::new() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    pub(super) fn listen(&mut self) {
        let listener = UnixListener::bind(self.path()).unwrap();
        self.server.spawn(serve(listener, Arc::clone(&self.state)));
    }

    pub(super) fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }
}

impl AsRef<Path> for Fake {
    fn as_ref(&self) -> &Path {
        self.directory.path()
    }
}

async fn serve(listener: UnixListener, state: Arc<Mutex<FakeState>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                if state.lock().unwrap().faults.refusing {
                    continue;
                }
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let service = service_fn(|request| answer(request, Arc::clone(&state)));
                    let server = hyper::server::conn::http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(stream), service);
                    let _ = server.await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>, state: Arc<Mutex<FakeState>>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let (hangs, known) = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{} {path}", request.method()));
        let inspects = path.starts_with("/v1.41/containers/") && !path.ends_with("/containers/json");
        (state.faults.frozen || (inspects && state.faults.inspects_hang), request.method() == Method::GET)
    };
    if hangs {
        tokio::time::sleep(Duration::from_secs(3600)).await;
    }
    let mut state = state.lock().unwrap();
    let id = path.strip_prefix("/v1.41/containers/").and_then(|rest| rest.strip_suffix("/json"));
    Ok(match (path.as_str(), id) {
        _ if !known => plain(StatusCode::METHOD_NOT_ALLOWED, &json!({ "message": "no" })),
        ("/version", _) => plain(StatusCode::OK, &json!({ "ApiVersion": "1.41", "MinAPIVersion": "1.12" })),
        ("/_ping", _) => plain(StatusCode::OK, &json!("OK")),
        ("/v1.41/containers/json", _) => {
            let list = state.list();
            if let Some((id, container)) = state.faults.after_list.take() {
                state.start(&id, container);
            }
            plain(StatusCode::OK, &list)
        }
        ("/v1.41/events", _) => events(&request, &mut state),
        (image, _) if image.strip_prefix("/v1.41/images/").is_some_and(|rest| rest == format!("{IMAGE}/json")) => {
            if state.faults.images_refused {
                plain(StatusCode::FORBIDDEN, &json!({ "message": "not allowed" }))
            } else {
                plain(
                    StatusCode::OK,
                    &json!({ "Id": IMAGE, "Config": { "Labels": state.image_labels, "Env": ["A=b"] } }),
                )
            }
        }
        (_, Some(id)) if state.faults.broken.contains(id) => {
            plain(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "message": "it is broken" }))
        }
        (_, Some(id)) => match state.inspect(id) {
            Some(inspect) => plain(StatusCode::OK, &inspect),
            None => plain(StatusCode::NOT_FOUND, &json!({ "message": format!("No such container: {id}") })),
        },
        _ => plain(StatusCode::BAD_REQUEST, &json!({ "message": "client version is not supported" })),
    })
}

fn events(request: &Request<Incoming>, state: &mut FakeState) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default();
    let since = query.split('&').find_map(|pair| pair.strip_prefix("since=")).unwrap();
    let (seconds, fraction) = since.split_once('.').unwrap();
    let since = seconds.parse::<i64>().unwrap() * 1_000_000_000 + fraction.parse::<i64>().unwrap();
    let (sender, receiver) = mpsc::channel(1024);
    // As moby does: the last 256 events, of which those since then.
    for (at, line) in state.memory.iter().rev().take(256).rev() {
        if *at >= since {
            sender.try_send(line.clone()).unwrap();
        }
    }
    state.subscribers.push(sender);
    let stream = ReceiverStream::new(receiver).map(|line| Ok(Frame::data(Bytes::from(line))));
    Response::new(BodyExt::boxed(StreamBody::new(stream)))
}

fn plain(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed());
    *response.status_mut() = status;
    response
}
