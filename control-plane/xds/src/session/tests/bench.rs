//! A session on a bench: a store's tables, a clock that the test moves, and responses as `prost` reads them.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::cluster::v3::Cluster as Message;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc;
use prost::Message as _;

use super::*;
use crate::commit::Commit;
use crate::group::Group;

/// Changes do not wait for more here; what does has its own test.
pub(super) fn limits() -> Limits {
    Limits {
        ack_timeout: ACK_TIMEOUT,
        max_response_bytes: 2 << 20,
        changes: Rate { interval: Duration::ZERO, burst: 1 },
        max_names: 1000,
        max_name_bytes: 10_000,
        legacy_wildcard: TypeSet::of(&[Cluster, Listener]),
    }
}

pub(super) struct Bench {
    pub(super) tables: Tables,
    pub(super) session: Session,
    pub(super) now: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) resource_type: ResourceType,
    pub(super) nonce: String,
    pub(super) upserts: Vec<String>,
    pub(super) contents: Vec<String>,
    pub(super) versions: Vec<String>,
    pub(super) removed: Vec<String>,
}

impl Bench {
    pub(super) fn with(resources: &[(ResourceType, &str, &str)]) -> Self {
        Self::speaking(Variant::Delta, resources)
    }

    pub(super) fn speaking(variant: Variant, resources: &[(ResourceType, &str, &str)]) -> Self {
        let protocol = Protocol { variant, only: None };
        let session = Session::new(ClientId(1), Node::default(), protocol, limits());
        let mut bench = Self { tables: Tables::default(), session, now: Duration::ZERO };
        bench.commit(resources, &[]);
        bench
    }

    /// One resource of each type, subscribed as Envoy does it, and accepted.
    pub(super) fn envoy() -> Self {
        let mut bench = Self::with(&[
            (Cluster, "x", "1"),
            (Endpoint, "x", "1"),
            (Listener, "web", "1"),
            (Route, "web", "1"),
            (ExtensionConfig, "x", "1"),
            (Runtime, "x", "1"),
        ]);
        for (resource_type, names) in [
            (Cluster, &[][..]),
            (Endpoint, &["x"]),
            (Listener, &[]),
            (Route, &["web"]),
            (ExtensionConfig, &["x"]),
            (Runtime, &["x"]),
        ] {
            bench.subscribe(resource_type, names);
        }
        assert_eq!(bench.ack_all().len(), 6);
        bench
    }

    /// Another stream of the same store.
    pub(super) fn another(self, variant: Variant) -> Self {
        let protocol = Protocol { variant, only: None };
        Self { session: Session::new(ClientId(2), Node::default(), protocol, limits()), ..self }
    }

    /// The type of the message does not matter to a session: all are clusters here.
    pub(super) fn commit(&mut self, upserts: &[(ResourceType, &str, &str)], removals: &[(ResourceType, &str)]) {
        let commit = commit(upserts, removals);
        self.tables.apply(commit.changes_for(&Group::default()), self.now);
    }

    pub(super) fn commit_urgently(&mut self, upserts: &[(ResourceType, &str, &str)]) {
        let mut commit = commit(upserts, &[]);
        commit.mark_urgent();
        self.tables.apply(commit.changes_for(&Group::default()), self.now);
    }

    pub(super) fn version(&self, resource_type: ResourceType, name: &str) -> String {
        self.tables.table(resource_type).get(name).expect("it is published").version().to_string()
    }

    /// A state-of-the-world request; with the nonce of a response it is its ACK.
    pub(super) fn list(&mut self, resource_type: ResourceType, names: &[&str], nonce: &str, error: Option<&str>) {
        let request = self.listed(resource_type, names, nonce, error);
        self.take_list(&request);
    }

    pub(super) fn listed(
        &self,
        resource_type: ResourceType,
        names: &[&str],
        nonce: &str,
        error: Option<&str>,
    ) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: resource_type.type_url().to_owned(),
            resource_names: names.iter().copied().map(str::to_owned).collect(),
            response_nonce: nonce.to_owned(),
            error_detail: error.map(|message| rpc::Status { code: 13, message: message.to_owned(), details: vec![] }),
            ..Default::default()
        }
    }

    pub(super) fn take_list(&mut self, request: &DiscoveryRequest) -> Outcome {
        self.session.on_request(&request.into(), &self.tables, self.now).unwrap()
    }

    /// The next response in state of the world, or `None`.
    pub(super) fn whole(&mut self) -> Option<Whole> {
        let response = self.session.next_response(&self.tables, self.now)?;
        let mut wire = Vec::new();
        response.write_to(&mut wire);
        let response = DiscoveryResponse::decode(wire.as_slice()).unwrap();
        let messages = response.resources.iter().map(|any| Message::decode(any.value.as_slice()).unwrap());
        let mut resources: Vec<_> = messages.map(|it| format!("{}={}", it.name, it.alt_stat_name)).collect();
        resources.sort();
        Some(Whole {
            resource_type: ResourceType::from_type_url(&response.type_url).unwrap(),
            version: response.version_info,
            nonce: response.nonce,
            resources,
        })
    }

    pub(super) fn named(
        &self,
        resource_type: ResourceType,
        subscribe: &[&str],
        unsubscribe: &[&str],
    ) -> DeltaDiscoveryRequest {
        let strings = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
        DeltaDiscoveryRequest {
            type_url: resource_type.type_url().to_owned(),
            resource_names_subscribe: strings(subscribe),
            resource_names_unsubscribe: strings(unsubscribe),
            ..Default::default()
        }
    }

    pub(super) fn try_take(&mut self, request: &DeltaDiscoveryRequest) -> Result<Outcome, ProtocolError> {
        self.session.on_request(&request.into(), &self.tables, self.now)
    }

    pub(super) fn take(&mut self, request: &DeltaDiscoveryRequest) -> Outcome {
        self.try_take(request).unwrap()
    }

    pub(super) fn subscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        let request = self.named(resource_type, names, &[]);
        self.take(&request);
    }

    pub(super) fn unsubscribe(&mut self, resource_type: ResourceType, names: &[&str]) {
        let request = self.named(resource_type, &[], names);
        self.take(&request);
    }

    pub(super) fn reconnect(&mut self, resource_type: ResourceType, names: &[&str], held: &[(&str, &str)]) {
        let held: HashMap<_, _> =
            held.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        let request = self.named(resource_type, names, &[]);
        self.take(&DeltaDiscoveryRequest { initial_resource_versions: held, ..request });
    }

    pub(super) fn next(&mut self) -> Option<Got> {
        let response = self.session.next_response(&self.tables, self.now)?;
        let mut wire = Vec::new();
        response.write_to(&mut wire);
        let response = DeltaDiscoveryResponse::decode(wire.as_slice()).unwrap();
        let content = |value: &[u8]| Message::decode(value).unwrap().alt_stat_name;
        let got = Got {
            resource_type: ResourceType::from_type_url(&response.type_url).unwrap(),
            nonce: response.nonce,
            upserts: response.resources.iter().map(|resource| resource.name.clone()).collect(),
            contents: response.resources.iter().map(|it| content(&it.resource.as_ref().unwrap().value)).collect(),
            versions: response.resources.iter().map(|resource| resource.version.clone()).collect(),
            removed: response.removed_resources,
        };
        let mut names: Vec<_> = got.upserts.iter().chain(&got.removed).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), got.upserts.len() + got.removed.len(), "a name stands twice: {got:?}");
        Some(got)
    }

    /// The next response, which must exist.
    pub(super) fn one(&mut self) -> Got {
        self.next().expect("the stream has something to say")
    }

    /// What comes without any answer.
    pub(super) fn all(&mut self) -> Vec<Got> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// What comes when each response is accepted at once.
    pub(super) fn ack_all(&mut self) -> Vec<Got> {
        let mut all = Vec::new();
        while let Some(got) = self.next() {
            self.ack(&got);
            all.push(got);
        }
        all
    }

    pub(super) fn ack(&mut self, got: &Got) {
        self.answer(got, None);
    }

    pub(super) fn nack(&mut self, got: &Got, message: &str) {
        self.answer(got, Some(message));
    }

    pub(super) fn answer(&mut self, got: &Got, error: Option<&str>) -> Option<Verdict> {
        self.answer_nonce(got.resource_type, &got.nonce, error)
    }

    pub(super) fn answer_nonce(
        &mut self,
        resource_type: ResourceType,
        nonce: &str,
        error: Option<&str>,
    ) -> Option<Verdict> {
        let request = DeltaDiscoveryRequest {
            response_nonce: nonce.to_owned(),
            error_detail: error.map(|message| rpc::Status { code: 13, message: message.to_owned(), details: vec![] }),
            ..self.named(resource_type, &[], &[])
        };
        self.take(&request).verdict.map(|(_, verdict)| verdict)
    }

    pub(super) fn progress(&self, resource_type: ResourceType, name: &str) -> Progress {
        self.session.progress(resource_type, name, &self.tables).expect("the resource is published")
    }
}

/// A state-of-the-world response: its resources as `NAME=CONTENT`, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) resource_type: ResourceType,
    pub(super) version: String,
    pub(super) nonce: String,
    pub(super) resources: Vec<String>,
}

fn commit(upserts: &[(ResourceType, &str, &str)], removals: &[(ResourceType, &str)]) -> Commit {
    let mut commit = Commit::default();
    for (resource_type, name, content) in upserts {
        let message = Message { name: (*name).to_owned(), alt_stat_name: (*content).to_owned(), ..Default::default() };
        commit.upsert(*resource_type, *name, &message);
    }
    for (resource_type, name) in removals {
        commit.remove(*resource_type, *name);
    }
    commit
}
