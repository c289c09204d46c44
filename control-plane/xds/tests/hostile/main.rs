//! Clients that are slow, stuck, greedy or hostile, over real sockets: each is closed, with the reason where it can hear
//! one, and the honest ones beside it get every update in its turn.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/client.rs"]
#[expect(dead_code, reason = "the client of the protocol's tests; these need less of it")]
mod client;
mod raw;

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use client::{Client, Delta, Got, Served, cluster, serve_with, wait_until};
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use raw::{Connection, PREFACE, frame};
use tidegate_xds::ResourceType::{Cluster, Endpoint};
use tidegate_xds::{Commit, ResourceType, ServerConfig, Store, Subscribed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tonic::Code;

/// Longer than any of this takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Held by the tests that measure memory, and by those that use much of it.
static MEMORY: Mutex<()> = Mutex::const_new(());

/// Soon stuck.
fn impatient() -> ServerConfig {
    ServerConfig {
        ack_timeout: Duration::from_millis(200),
        stall_timeout: Duration::from_secs(1),
        keepalive_interval: Duration::from_secs(1),
        keepalive_timeout: Duration::from_secs(2),
        ..Default::default()
    }
}

fn commit(store: &Store, resource_type: ResourceType, names: impl IntoIterator<Item = String>, content: &str) {
    let mut commit = Commit::default();
    for name in names {
        let message = cluster(&name, content);
        commit.upsert(resource_type, name, &message);
    }
    store.commit(commit);
}

/// Clients that behave.
struct Honest {
    store: Store,
    clients: Vec<Client<Delta>>,
    round: usize,
}

impl Honest {
    async fn connect(store: &Store, address: SocketAddr) -> Self {
        commit(store, Endpoint, ["honest".to_owned()], "0");
        let mut clients = Vec::new();
        for number in 0..3 {
            let mut client = Client::connect(address, &format!("honest-{number}")).await;
            client.subscribe(Endpoint, &["honest"]).await;
            let got = client.next().await;
            client.ack(&got).await;
            clients.push(client);
        }
        Self { store: store.clone(), clients, round: 0 }
    }

    /// Each gets the next update, and nothing in between.
    async fn are_served(&mut self) {
        self.round += 1;
        let content = self.round.to_string();
        commit(&self.store, Endpoint, ["honest".to_owned()], &content);
        let version = self.store.version(Endpoint, "honest").unwrap().to_string();
        for client in &mut self.clients {
            let got = client.next().await;
            assert_eq!(got.names(), ["honest"]);
            assert_eq!(got.resources[0].version, version, "in round {content}");
            client.ack(&got).await;
        }
    }

    /// Each gets every update until something is so, and at least some.
    async fn are_served_until(&mut self, what: &str, condition: impl Fn() -> bool) {
        let served = async {
            let first = self.round;
            while self.round < first + 20 || !condition() {
                self.are_served().await;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, served).await.is_ok(), "{what}");
    }
}

/// Reads to the end, or to the error, of a connection that the server closes.
async fn closed(mut socket: TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut rest)).await;
    read.expect("the server closes the connection").ok();
}

/// Memory of this process that is in use, in bytes: of the server and of the test's own clients.
fn resident() -> usize {
    let pages: usize = fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

#[tokio::test]
async fn clients_that_do_not_read_are_cut_and_nobody_waits_for_them() {
    let config = impatient();
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    commit(&store, Cluster, (0..64).map(|number| format!("c{number}")), &"x".repeat(16 << 10));
    store.open();
    let mut honest = Honest::connect(&store, address).await;

    // The server can send nothing.
    let mut none = Connection::open(address, 0).await;
    let _none = none.subscribed("none", &[Cluster, Endpoint]).await;
    // It can send a part of what it has; all of that is on its way, and it has nothing else to say.
    let mut some = Connection::open(address, 65_535).await;
    let _some = some.subscribed("some", &[Cluster]).await;
    // What it sends is acknowledged, but not taken.
    let mut blind = Connection::open(address, 100).await;
    let mut answers = blind.subscribed("blind", &[Endpoint]).await;
    wait_until(|| store.clients().len() == honest.clients.len() + 3).await;
    let client = store.clients().iter().find(|client| &*client.node.id == "blind").unwrap().client;
    let mut sent = 0;

    for _ in 0..20 {
        sent += 1;
        answers.send(&DeltaDiscoveryRequest {
            type_url: Endpoint.type_url().to_owned(),
            response_nonce: format!("{client}-EDS-{sent}"),
            ..Default::default()
        });
        honest.are_served().await;
    }
    honest.are_served_until("all three are cut", || connections.open() == 3).await;
    assert!(connections.stalled() >= 3, "{connections:?}");
    assert_eq!(store.clients().len(), 3);
    for connection in [none, some, blind] {
        let ended = tokio::time::timeout(DEADLINE, connection.driver).await;
        assert!(ended.is_ok(), "the client sees the end of its connection");
    }
}

#[tokio::test]
async fn a_client_that_reads_and_never_answers_is_closed_with_the_reason() {
    let config = impatient();
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    commit(&store, Cluster, ["a".to_owned()], "1");
    store.open();
    let mut honest = Honest::connect(&store, address).await;
    let mut mute = Client::connect(address, "mute").await;
    mute.subscribe(Cluster, &["*"]).await;
    assert_eq!(mute.next().await.names(), ["a"]);
    honest.are_served_until("it is closed", || connections.stalled() == 1).await;
    let status = mute.end().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("a response was not answered for 1s"), "{status}");
    // A client that has nothing to answer is not stuck, however long it says nothing.
    assert_eq!(store.clients().len(), 3);
}

#[tokio::test]
async fn who_leaves_what_it_was_sent_behind_is_cut_too() {
    let config = ServerConfig { max_requests_per_second: 1, ..impatient() };
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    commit(&store, Cluster, (0..64).map(|number| format!("c{number}")), &"x".repeat(16 << 10));
    store.open();
    // One ends its stream, the other has it ended; both without having read.
    let mut done = Connection::open(address, 65_535).await;
    let mut stream = done.subscribed("done", &[Cluster]).await;
    wait_until(|| store.counters().responses == 1).await;
    stream.request.send_data(bytes::Bytes::new(), true).unwrap();
    // Whose window takes the whole response: one that is full would not be read from.
    let mut greedy = Connection::open(address, 4 << 20).await;
    let mut flood = greedy.subscribed("greedy", &[Cluster]).await;
    wait_until(|| store.counters().responses == 2).await;
    (0..20).for_each(|_| {
        flood.send(&DeltaDiscoveryRequest { type_url: Cluster.type_url().to_owned(), ..Default::default() });
    });
    wait_until(|| connections.open() == 0).await;
    assert_eq!((connections.stalled(), connections.over_limit()), (2, 1));
}

#[tokio::test]
async fn what_is_too_long_or_too_much_closes_the_stream_with_the_reason() {
    let config = ServerConfig {
        max_request_bytes: 4000,
        max_names: 3,
        max_name_bytes: 1000,
        max_requests_per_second: 10,
        ..Default::default()
    };
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    store.open();
    let mut honest = Honest::connect(&store, address).await;
    let (long, longer) = ("x".repeat(1001), "x".repeat(4001));
    for (closed, (names, reason)) in [
        (&["a", "b", "c", "d"][..], "the stream asks for more than 3 names"),
        (&[long.as_str()], "the names that the stream asks for are longer than 1000 bytes together"),
        (&[longer.as_str()], "a request is longer than 4000 bytes"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::connect(address, "greedy").await;
        client.subscribe(Endpoint, names).await;
        let status = client.end().await;
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, reason));
        assert_eq!(connections.over_limit(), closed as u64 + 1);
        honest.are_served().await;
    }
    // As many names in three requests as may not be in one.
    let mut client = Client::connect(address, "patient").await;
    for name in ["a", "b", "c", "d"] {
        client.subscribe(Endpoint, &[name]).await;
    }
    let status = loop {
        if let Err(status) = client.message().await {
            break status;
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);

    let mut flood = Connection::open(address, 1 << 20).await;
    let mut stream = flood.subscribed("flood", &[]).await;
    for _ in 0..=101 {
        stream.send(&DeltaDiscoveryRequest { type_url: Cluster.type_url().to_owned(), ..Default::default() });
    }
    let (code, message) = stream.end().await.unwrap();
    assert_eq!((code.as_str(), message.as_str()), ("8", "the%20stream%20sends%20too%20many%20requests"));
    assert_eq!(connections.over_limit(), 5);
    honest.are_served().await;
}

/// As an Envoy asks for endpoints that starts with as many clusters, if it asks for each by itself.
#[tokio::test]
async fn ten_thousand_requests_at_once_are_no_flood() {
    let config = ServerConfig::default();
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    store.open();
    let mut client = Client::connect(address, "edge").await;
    for number in 0..9_999 {
        client.subscribe(Endpoint, &[&format!("s{number}")]).await;
    }
    let all = |store: &Store| {
        let clients = store.clients();
        let types = clients.iter().flat_map(|client| &client.types);
        types.filter(|of| of.resource_type == Endpoint).map(|of| of.subscribed).collect::<Vec<_>>()
    };
    wait_until(|| all(&store) == [Subscribed::Names(9_999)]).await;
    assert_eq!(connections.over_limit(), 0);
}

#[tokio::test]
async fn what_is_no_request_closes_the_stream_and_what_is_no_http2_the_connection() {
    let config = ServerConfig { handshake_timeout: Duration::from_secs(2), ..impatient() };
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    store.open();
    let mut honest = Honest::connect(&store, address).await;

    let mut garbage = Connection::open(address, 1 << 20).await;
    for message in [&b"\xff\xff\xff\xff"[..], b"\x0a\xff", b"\x22\x02\xc3\x28", &[0; 64]] {
        let mut stream = garbage.stream().await.unwrap();
        stream.write(message);
        let (code, reason) = stream.end().await.unwrap();
        assert_eq!(code, "3", "{message:?}: {reason}");
    }
    // The same connection: only the streams were closed.
    let mut stream = garbage.subscribed("garbage", &[Endpoint]).await;
    assert!(stream.opened().await.is_ok());
    drop((garbage, stream));

    // Noise from the start, and noise after a preface that raises hopes.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = || {
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..200).flat_map(|_| word()).collect::<Vec<u8>>()
    };
    for number in 0..100 {
        let noise = noise();
        let start = if number % 2 == 0 { PREFACE } else { b"" };
        let mut socket = TcpStream::connect(address).await.unwrap();
        // Fails if the server is quicker.
        socket.write_all(&[start, &noise].concat()).await.ok();
        socket.shutdown().await.ok();
        closed(socket).await;
        if number % 10 == 0 {
            honest.are_served().await;
        }
    }
    wait_until(|| connections.open() == 3).await;
    honest.are_served().await;
}

/// The answers to such frames have to be written; who does not read them is not read from, and is cut by the kernel.
#[tokio::test]
async fn floods_of_frames_are_not_read_and_end() {
    let _alone = MEMORY.lock().await;
    let config = impatient();
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    store.open();
    let mut honest = Honest::connect(&store, address).await;
    let before = resident();
    let (ping, settings) = (frame(6, 0, 0, &[7; 8]), frame(4, 0, 0, &[]));
    let mut floods = Vec::new();
    for frames in [ping.repeat(1000), settings.repeat(1000)] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(PREFACE).await.unwrap();
        floods.push(async move {
            while socket.write_all(&frames).await.is_ok() {}
            socket
        });
    }
    let flooding = futures_util::future::join_all(floods);
    let (_sockets, ()) = tokio::join!(flooding, honest.are_served_until("both end", || connections.open() == 3));
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_opened_cost_nobody_else() {
    let _alone = MEMORY.lock().await;
    let config = impatient();
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    store.open();
    let mut honest = Honest::connect(&store, address).await;
    let before = resident();
    // HPACK without a table.
    let field = |name: &str, value: &str| {
        let length = |text: &str| u8::try_from(text.len()).unwrap();
        [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
    };
    let half = [field(":method", "POST"), field(":scheme", "http")].concat();
    let whole = [half.clone(), field(":path", raw::DELTA), field(":authority", "a")].concat();
    let opened_and_reset = |stream| [frame(1, 4, stream, &whole), frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
    let malformed = |stream| frame(1, 4, stream, &half);
    type Flood<'a> = (&'a str, &'a dyn Fn(u32) -> Vec<u8>);
    let kinds: [Flood<'_>; 2] = [("opened and reset", &opened_and_reset), ("malformed", &malformed)];
    for (kind, frames) in kinds {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(PREFACE).await.unwrap();
        let (mut reads, mut writes) = socket.into_split();
        let flood = async {
            for number in 0..20_000 {
                if writes.write_all(&frames(2 * number + 1)).await.is_err() {
                    return;
                }
            }
        };
        // Until the server closes, which it does for the flood: nobody else would.
        let mut rest = Vec::new();
        let closed = async { tokio::time::timeout(DEADLINE, reads.read_to_end(&mut rest)).await.map(drop) };
        let honest = honest.are_served_until("they are served", || true);
        let ((), closed, ()) = tokio::join!(flood, closed, honest);
        assert!(closed.is_ok(), "{kind}: it was borne");
    }
    wait_until(|| connections.open() == 3).await;
    let grown = resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes");
    assert_eq!(store.clients().len(), 3);
}

/// Row 61. Server and clients are in this process; so is what the clients hold.
#[tokio::test]
#[expect(clippy::print_stderr, reason = "the figure of docs/faults.md")]
async fn ten_thousand_streams_that_nobody_reads_are_bounded_and_disturb_nobody() {
    let _alone = MEMORY.lock().await;
    let config = ServerConfig::default();
    let connections = config.connections.clone();
    let Served { store, address, .. } = serve_with(config).await;
    commit(&store, Cluster, (0..100).map(|number| format!("c{number}")), &"x".repeat(100));
    store.open();
    let mut honest = Honest::connect(&store, address).await;
    let before = resident();
    let mut hostile = Vec::new();
    for number in 0..100 {
        let mut connection = Connection::open(address, 0).await;
        let mut streams = Vec::new();
        for stream in 0..100 {
            streams.push(connection.subscribed(&format!("hostile-{number}-{stream}"), &[Cluster]).await);
        }
        hostile.push((connection, streams));
        if number % 10 == 0 {
            honest.are_served().await;
        }
    }
    wait_until(|| store.clients().len() == 10_003).await;
    honest.are_served().await;
    let grown = resident().saturating_sub(before);
    eprintln!("row 61: 10,000 streams that nobody reads: {} KiB each, clients included", grown / 10_000 / 1024);
    assert!(grown < 10_000 * (128 << 10), "{grown} bytes");
    drop(hostile);
    honest.are_served_until("they are gone", || connections.open() == 3).await;
    assert_eq!(store.clients().len(), 3);
}

/// Row 50: what a client that does not read costs, when there is as much to send as there may be.
#[tokio::test]
#[expect(clippy::print_stderr, reason = "the figure of docs/faults.md")]
async fn a_stream_that_nobody_reads_takes_less_than_two_megabytes() {
    const STREAMS: usize = 20;
    let _alone = MEMORY.lock().await;
    let Served { store, address, .. } = serve_with(ServerConfig::default()).await;
    for resource_type in ResourceType::ALL {
        commit(&store, resource_type, (0..1000).map(|number| format!("r{number}")), &"x".repeat(4 << 10));
    }
    store.open();
    let mut honest = Honest::connect(&store, address).await;
    let before = resident();
    let mut hostile = Vec::new();
    for number in 0..STREAMS {
        let mut connection = Connection::open(address, 65_535).await;
        let stream = connection.subscribed(&format!("hostile-{number}"), &ResourceType::ALL).await;
        hostile.push((connection, stream));
    }
    wait_until(|| store.clients().len() == STREAMS + 3).await;
    // Until nothing more is written for them.
    let mut written = 0;
    loop {
        honest.are_served().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = store.counters().responses - 3 * (1 + honest.round as u64);
        if now >= STREAMS as u64 && now == written {
            break;
        }
        written = now;
    }
    let each = resident().saturating_sub(before) / STREAMS;
    eprintln!("row 50: a stream that nobody reads: {} KiB, its client included", each / 1024);
    assert!(each < 2_000_000, "{each} bytes");
}
