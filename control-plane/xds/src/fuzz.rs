//! What `make fuzz` and its twin among the tests drive: bytes that nobody chose, read as what two clients, one of each
//! variant, and a writer do to a store, in any order. Some requests are the bytes themselves, as they come off a socket;
//! others are made of them, so that answers and names meet what is there. Nothing may panic, and what [`Driver::check`]
//! and [`Driver::rest`] say holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc;
use prost::Message;

use crate::clients::Client;
use crate::commit::Commit;
use crate::node::Node;
use crate::pace::Rate;
use crate::resource::{ResourceType, TypeSet, Variant};
use crate::session::{Limits, Protocol, Request, Response};
use crate::store::Store;

const NAMES: [&str; 8] = ["a", "b", "c", "d", "bad", "a/b", "*", ""];
const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// More responses than this in a row, or rounds until a client that accepts everything has everything, are endless.
const ENDLESS: usize = 1000;

/// Plays the bytes.
///
/// # Panics
/// When the library does what it must not.
pub fn requests(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let mut driver = Driver::new();
    while let Some(step) = bytes.byte() {
        driver.step(step, &mut bytes);
    }
    driver.rest();
}

/// What is left of the input.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// 0 at the end.
    fn next(&mut self) -> u8 {
        self.byte().unwrap_or_default()
    }

    fn take(&mut self, wanted: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.next()) % all.len()]
    }

    fn names(&mut self) -> Vec<String> {
        let chosen = self.next();
        let chosen = NAMES.iter().enumerate().filter(|(index, _)| chosen & (1 << index) != 0);
        chosen.map(|(_, name)| (*name).to_owned()).collect()
    }
}

struct Driver {
    store: Store,
    streams: [Stream; 2],
    now: Duration,
}

struct Stream {
    client: Arc<Client>,
    variant: Variant,
    /// The responses that were not answered yet, by type, and when they were sent.
    outstanding: BTreeMap<ResourceType, (String, Duration)>,
}

impl Driver {
    fn new() -> Self {
        let store = Store::new();
        store.open();
        let now = Duration::from_secs(3600);
        let streams = [Variant::Delta, Variant::Sotw].map(|variant| Stream::connect(&store, variant, now));
        Self { store, streams, now }
    }

    fn step(&mut self, step: u8, bytes: &mut Bytes<'_>) {
        let of = usize::from(step >> 7);
        match step & 0x7f {
            0..=31 => {
                let length = usize::from(bytes.next());
                let raw = bytes.take(length);
                self.raw(of, raw);
            }
            32..=63 => self.answer(of, bytes),
            64..=79 => self.ask(of, bytes),
            80..=103 => self.commit(bytes),
            104..=111 => self.now += Duration::from_millis(u64::from(bytes.next()) * 100),
            112..=115 => self.reconnect(of),
            _ => {
                self.receive(of);
            }
        }
    }

    /// The bytes as they are.
    fn raw(&mut self, of: usize, raw: &[u8]) {
        match self.streams[of].variant {
            Variant::Delta => {
                if let Ok(request) = DeltaDiscoveryRequest::decode(raw) {
                    self.take(of, &(&request).into());
                }
            }
            Variant::Sotw => {
                if let Ok(request) = DiscoveryRequest::decode(raw) {
                    self.take(of, &(&request).into());
                }
            }
        }
    }

    /// Accepts or refuses what is outstanding of a type, perhaps with another nonce, and perhaps asks in one.
    fn answer(&mut self, of: usize, bytes: &mut Bytes<'_>) {
        let resource_type = bytes.one_of(&ResourceType::ALL);
        let how = bytes.next();
        let nonce = match self.streams[of].outstanding.get(&resource_type) {
            Some((nonce, _)) if how & 1 == 0 => nonce.clone(),
            _ => format!("{}-{}-{}", how & 3, resource_type.label(), how >> 2),
        };
        let message = match how & 0b1110 {
            0 => Some("goo.gle/debugproto\nname: \"bad\"\n: Proto constraint validation failed (x)"),
            2 => Some("Error adding/updating cluster(s) bad: no, a: no"),
            4 => Some(""),
            _ => None,
        };
        let error = message.map(|message| rpc::Status { code: 13, message: message.to_owned(), details: vec![] });
        let names = if how & 16 == 0 { bytes.names() } else { Vec::new() };
        self.request(of, resource_type, nonce, error, names, Vec::new());
    }

    fn ask(&mut self, of: usize, bytes: &mut Bytes<'_>) {
        let resource_type = bytes.one_of(&ResourceType::ALL);
        let (subscribe, unsubscribe) = (bytes.names(), bytes.names());
        self.request(of, resource_type, String::new(), None, subscribe, unsubscribe);
    }

    fn request(
        &mut self,
        of: usize,
        resource_type: ResourceType,
        nonce: String,
        error_detail: Option<rpc::Status>,
        names: Vec<String>,
        unsubscribe: Vec<String>,
    ) {
        let type_url = resource_type.type_url().to_owned();
        match self.streams[of].variant {
            Variant::Delta => {
                let request = DeltaDiscoveryRequest {
                    type_url,
                    resource_names_subscribe: names,
                    resource_names_unsubscribe: unsubscribe,
                    response_nonce: nonce,
                    error_detail,
                    ..Default::default()
                };
                self.take(of, &(&request).into());
            }
            Variant::Sotw => {
                let request = DiscoveryRequest {
                    type_url,
                    resource_names: names,
                    response_nonce: nonce,
                    error_detail,
                    ..Default::default()
                };
                self.take(of, &(&request).into());
            }
        }
    }

    fn take(&mut self, of: usize, request: &Request<'_>) {
        let stream = &mut self.streams[of];
        if stream.client.take(request, self.now).is_err() {
            self.reconnect(of);
        } else if let Some(resource_type) = ResourceType::from_type_url(request.type_url) {
            // An answer, if it has the nonce of what is outstanding.
            let answers = |(nonce, _): &(String, Duration)| nonce == request.nonce;
            if stream.outstanding.get(&resource_type).is_some_and(answers) {
                stream.outstanding.remove(&resource_type);
            }
        }
    }

    fn commit(&mut self, bytes: &mut Bytes<'_>) {
        let mut commit = Commit::default();
        let how = bytes.next();
        for _ in 0..=how & 3 {
            let (resource_type, name) = (bytes.one_of(&ResourceType::ALL), bytes.one_of(&NAMES));
            let content = bytes.next();
            if content & 7 == 0 {
                commit.remove(resource_type, name);
            } else {
                // What it is does not matter to a store.
                let content = "x".repeat(usize::from(content));
                let message = Cluster { name: name.to_owned(), alt_stat_name: content, ..Default::default() };
                commit.upsert(resource_type, name, &message);
            }
        }
        if how & 4 != 0 {
            commit.mark_urgent();
        }
        self.store.commit(commit);
    }

    fn reconnect(&mut self, of: usize) {
        let stream = &mut self.streams[of];
        self.store.streams().disconnect(&stream.client);
        *stream = Stream::connect(&self.store, stream.variant, self.now);
    }

    /// All that a stream has to say now.
    fn receive(&mut self, of: usize) -> usize {
        let mut received = 0;
        while let Some(response) = self.streams[of].client.next_response(self.now) {
            self.check(of, &response);
            received += 1;
            assert!(received < ENDLESS, "responses without end");
        }
        received
    }

    /// What is true of every response: it is what `prost` reads, names nothing twice, and no other of its type is on its
    /// way.
    fn check(&mut self, of: usize, response: &Response) {
        let wire = response.message();
        assert_eq!(wire.len(), response.encoded_len());
        let resource_type = ResourceType::from_type_url(&response.type_url).expect("a type that is served");
        let stream = &mut self.streams[of];
        let (nonce, mut names) = match stream.variant {
            Variant::Delta => {
                let read = DeltaDiscoveryResponse::decode(&*wire).expect("a response");
                let names = read.resources.into_iter().map(|resource| resource.name);
                (read.nonce, names.chain(read.removed_resources).collect::<Vec<_>>())
            }
            Variant::Sotw => {
                let read = DiscoveryResponse::decode(&*wire).expect("a response");
                let names = read.resources.iter().map(|any| Cluster::decode(&*any.value).expect("a cluster").name);
                (read.nonce, names.collect())
            }
        };
        let named = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), named, "a name twice");
        assert!(!nonce.is_empty());
        let before = stream.outstanding.insert(resource_type, (nonce, self.now));
        if let Some((nonce, sent)) = before {
            let waited = self.now - sent;
            assert!(waited >= ACK_TIMEOUT, "{resource_type}: another response {waited:?} after {nonce}, which waits");
        }
    }

    /// Clients that accept whatever comes end with nothing outstanding, and leave nothing behind.
    fn rest(mut self) {
        for of in 0..self.streams.len() {
            for round in 0.. {
                self.now += Duration::from_secs(1);
                let received = self.receive(of);
                let outstanding = std::mem::take(&mut self.streams[of].outstanding);
                let types: BTreeSet<ResourceType> = outstanding.keys().copied().collect();
                for (resource_type, (nonce, sent)) in outstanding {
                    self.streams[of].outstanding.insert(resource_type, (nonce.clone(), sent));
                    // In state of the world an answer says the names again; none ends the subscription, or is a wildcard.
                    self.request(of, resource_type, nonce, None, Vec::new(), Vec::new());
                }
                let deadline = self.streams[of].client.session().deadline(self.now);
                if received == 0 && types.is_empty() && deadline.is_none() {
                    break;
                }
                assert!(round < ENDLESS, "it does not come to rest");
            }
            assert_eq!(self.streams[of].client.session().unanswered_since(), None);
        }
        for stream in &self.streams {
            self.store.streams().disconnect(&stream.client);
        }
        assert!(self.store.clients().is_empty());
    }
}

impl Stream {
    fn connect(store: &Store, variant: Variant, now: Duration) -> Self {
        let limits = Limits {
            ack_timeout: ACK_TIMEOUT,
            max_response_bytes: 256,
            changes: Rate { interval: Duration::from_millis(50), burst: 2 },
            max_names: 16,
            max_name_bytes: 256,
            legacy_wildcard: TypeSet::of(&[ResourceType::Cluster, ResourceType::Listener]),
        };
        let node = Node::default();
        let protocol = Protocol { variant, only: None };
        let client = store.streams().connect(store.view_of(&node), node, protocol, None, limits, now);
        Self { client, variant, outstanding: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A step that the driver knows, followed by what it reads.
    fn step() -> impl Strategy<Value = Vec<u8>> {
        let bytes = |most: usize| proptest::collection::vec(any::<u8>(), 1..=most);
        let of = |steps: std::ops::Range<u8>, bytes: BoxedStrategy<Vec<u8>>| {
            (steps, any::<bool>(), bytes)
                .prop_map(|(step, second, bytes)| [&[step | if second { 0x80 } else { 0 }], bytes.as_slice()].concat())
        };
        let request = (proptest::sample::select(&ResourceType::ALL[..]), bytes(24)).prop_map(|(of, noise)| {
            // Field 4 of both requests is the type; the rest is noise.
            let request = DiscoveryRequest { type_url: of.type_url().to_owned(), ..Default::default() };
            let raw = [request.encode_to_vec(), noise].concat();
            [&[u8::try_from(raw.len()).unwrap()], raw.as_slice()].concat()
        });
        prop_oneof![
            2 => of(0..32, request.boxed()),
            1 => of(0..32, bytes(64).boxed()),
            4 => of(32..64, bytes(3).boxed()),
            3 => of(64..80, bytes(3).boxed()),
            4 => of(80..104, bytes(13).boxed()),
            1 => of(104..112, bytes(1).boxed()),
            1 => of(112..116, Just(Vec::new()).boxed()),
            6 => of(116..128, Just(Vec::new()).boxed()),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn bytes_that_nobody_chose_break_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            requests(&bytes);
        }

        #[test]
        fn clients_that_nobody_thought_of_break_nothing(steps in proptest::collection::vec(step(), 0..80)) {
            requests(&steps.concat());
        }
    }
}
