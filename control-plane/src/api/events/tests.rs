use tidegate_core::config::Config;
use tidegate_core::{Discovered, Input, ProviderName, Update};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::api::tests::{World, container};

const SOON: Duration = Duration::from_secs(60);

/// Small enough that the kernel keeps little for a reader that does not read, and large enough that reading it is quick.
const BUFFER: u32 = 64 << 10;

/// The lines of an answer whose head is read: with chunks' lengths between them.
async fn following(world: &World, query: &str) -> Lines<BufReader<TcpStream>> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(BUFFER).unwrap();
    let mut stream = socket.connect(world.address).await.unwrap();
    let request = format!("GET /v1/events?{query} HTTP/1.1\r\nHost: {}\r\n\r\n", world.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::with_capacity(256, stream).lines();
    let status = lines.next_line().await.unwrap().unwrap();
    assert!(status.starts_with("HTTP/1.1 200"), "{status}");
    while !lines.next_line().await.unwrap().unwrap().is_empty() {}
    lines
}

/// The next line of JSON; `None`: the answer ended.
async fn next(lines: &mut Lines<BufReader<TcpStream>>) -> Option<Line> {
    loop {
        let line = timeout(SOON, lines.next_line()).await.expect("a line in time").unwrap()?;
        if line == "0" {
            return None;
        }
        if line.starts_with('{') {
            let line: Line = serde_json::from_str(&line).unwrap();
            assert_eq!(line.api_version, API_VERSION);
            return Some(line);
        }
    }
}

fn names(lines: &[Line]) -> Vec<&str> {
    lines
        .iter()
        .filter_map(|line| match &line.said {
            Said::Entry(entry) => Some(entry.container.as_str()),
            Said::Missed { .. } => None,
        })
        .collect()
}

impl World {
    async fn told(&self, update: Update) {
        self.inbox.send(Input::Provider { provider: ProviderName::docker(), update }).await.unwrap();
    }

    async fn appears(&self, service: &str, name: &str) {
        self.told(Update::Upsert(Box::new(container(service, name, "v1", 9)))).await;
    }
}

#[tokio::test]
async fn who_follows_gets_what_happens_from_then_on_and_of_its_subject_alone() {
    let world = World::new(Config::default(), Some(vec![container("shop", "old", "v1", 2)])).await;
    let mut all = following(&world, "follow=true&after=now").await;
    let mut of_shop = following(&world, "follow=true&after=now&subject=shop").await;
    world.appears("cart", "basket").await;
    world.appears("shop", "new").await;
    let seen = [next(&mut all).await.unwrap(), next(&mut all).await.unwrap()];
    assert_eq!(names(&seen), ["basket", "new"]);
    assert_eq!(names(&[next(&mut of_shop).await.unwrap()]), ["new"]);
}

#[tokio::test]
async fn without_following_the_answer_ends_with_what_is_kept() {
    let world = World::new(Config::default(), Some(vec![container("shop", "old", "v1", 2)])).await;
    let mut lines = following(&world, "").await;
    let mut seen = Vec::new();
    while let Some(line) = next(&mut lines).await {
        seen.push(line);
    }
    assert_eq!(names(&seen)[0], "old");
    let last = match &seen[seen.len() - 1].said {
        Said::Entry(entry) => entry.id,
        Said::Missed { .. } => panic!("nothing was missed"),
    };
    let mut lines = following(&world, &format!("after={last}")).await;
    assert!(next(&mut lines).await.is_none());
    let later = Timestamp::from_millis(u64::MAX / 2);
    let mut lines = following(&world, &format!("since={}", later.as_millis())).await;
    assert!(next(&mut lines).await.is_none());
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_how_much_it_missed_and_costs_nobody_else() {
    let world = World::new(Config::default(), Some(Vec::new())).await;
    let mut slow = following(&world, "follow=true").await;
    let many = |generation: u32| -> Vec<Discovered> {
        (0..4_000).map(|n| container("shop", &format!("g{generation}-{n}"), "v1", 2)).collect()
    };
    for generation in 0..8 {
        world.told(Update::Reset(many(generation))).await;
        // The others see the newest meanwhile. What comes at once is one round, and only its end is told.
        let newest =
            async { while world.get(&format!("/v1/events?subject=g{generation}-0")).await.status != StatusCode::OK {} };
        timeout(SOON, newest).await.unwrap();
    }
    let mut entries = 0;
    let missed = loop {
        match next(&mut slow).await.expect("a word before the end").said {
            Said::Entry(_) => entries += 1,
            Said::Missed { missed } => break missed,
        }
    };
    assert!(missed > 0 && entries > 0, "{entries} entries, {missed} missed");
    assert!(next(&mut slow).await.is_none(), "its answer ends");
}

#[tokio::test]
async fn as_many_follow_as_there_is_room_and_the_next_is_told_so() {
    let world = World::new(Config::default(), Some(vec![container("shop", "old", "v1", 2)])).await;
    let mut followers = Vec::new();
    for _ in 0..MAX_FOLLOWERS {
        followers.push(following(&world, "follow=true").await);
    }
    let answer = world.get("/v1/events?follow=true").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(String::from_utf8_lossy(&answer.body).contains("64 readers follow"), "{answer:?}");
    assert_eq!(world.get("/v1/events").await.status, StatusCode::OK);
    // One that leaves makes room.
    drop(followers.pop());
    world.appears("shop", "new").await;
    let mut byte = [0];
    let mut one = following_when_there_is_room(&world).await;
    assert_eq!(one.read(&mut byte).await.unwrap(), 1);
}

/// The hung-up reader is noticed when something is written to it.
async fn following_when_there_is_room(world: &World) -> TcpStream {
    timeout(SOON, async {
        loop {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            let request = format!("GET /v1/events?follow=true HTTP/1.1\r\nHost: {}\r\n\r\n", world.address);
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut head = [0; 12];
            stream.read_exact(&mut head).await.unwrap();
            if head.ends_with(b"200") {
                return stream;
            }
        }
    })
    .await
    .unwrap()
}
