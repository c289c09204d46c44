//! Whatever happens in whatever order: a version that was singled out as rejected is never sent to that client again,
//! and a client that answers everything ends with what is published, but for what it refuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const TYPES: [ResourceType; 5] = [Cluster, Endpoint, Listener, Route, Runtime];

#[derive(Clone, Debug)]
enum Step {
    /// Content 0 is a removal; content 3 is one that the client refuses.
    Commit(Vec<(usize, usize, u8)>),
    Subscribe(usize, usize),
    Unsubscribe(usize, usize),
    Send,
    Answer,
    Wait,
}

/// How the client words a refusal.
#[derive(Clone, Copy, Debug)]
enum Wording {
    /// Names all bad ones; the good ones are taken.
    List,
    /// Dumps the first bad one; nothing is taken.
    Dump,
    /// Says nothing useful; nothing is taken.
    Nothing,
    /// Mentions a name, perhaps of a good one; nothing is taken.
    Misleading,
}

struct Client {
    bench: Bench,
    wording: Wording,
    inbox: VecDeque<Got>,
    held: BTreeMap<(ResourceType, String), String>,
    singled_out: BTreeSet<(ResourceType, String, String)>,
    subscribed: BTreeSet<(ResourceType, &'static str)>,
}

impl Client {
    fn new(wording: Wording) -> Self {
        let mut bench = Bench::with(&[]);
        bench.subscribe(Cluster, &[]);
        bench.subscribe(Listener, &[]);
        Self {
            bench,
            wording,
            inbox: VecDeque::new(),
            held: BTreeMap::new(),
            singled_out: BTreeSet::new(),
            subscribed: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Commit(changes) => {
                let content = ["", "1", "2", "bad"];
                let is_removal = |change: &&(usize, usize, u8)| change.2 == 0;
                let name = |change: &(usize, usize, u8)| (TYPES[change.0], NAMES[change.1]);
                let upserts: Vec<_> = changes
                    .iter()
                    .filter(|change| !is_removal(change))
                    .map(|change| (name(change).0, name(change).1, content[usize::from(change.2)]))
                    .collect();
                let removals: Vec<_> = changes.iter().filter(is_removal).map(name).collect();
                self.bench.commit(&upserts, &removals);
            }
            Step::Subscribe(resource_type, name) => {
                let (resource_type, name) = (TYPES[*resource_type], NAMES[*name]);
                if !matches!(resource_type, Cluster | Listener) {
                    self.subscribed.insert((resource_type, name));
                    self.bench.subscribe(resource_type, &[name]);
                }
            }
            Step::Unsubscribe(resource_type, name) => {
                let (resource_type, name) = (TYPES[*resource_type], NAMES[*name]);
                if self.subscribed.remove(&(resource_type, name)) {
                    self.held.remove(&(resource_type, name.to_owned()));
                    self.bench.unsubscribe(resource_type, &[name]);
                }
            }
            Step::Send => {
                self.receive();
            }
            Step::Answer => self.answer(),
            Step::Wait => self.bench.now += Duration::from_secs(4),
        }
    }

    fn receive(&mut self) -> bool {
        let Some(got) = self.bench.next() else { return false };
        for (name, version) in got.upserts.iter().zip(&got.versions) {
            let resource = (got.resource_type, name.clone(), version.clone());
            assert!(!self.singled_out.contains(&resource), "a rejected version is sent again: {resource:?}");
        }
        self.inbox.push_back(got);
        true
    }

    fn answer(&mut self) {
        let Some(got) = self.inbox.pop_front() else { return };
        let bad: Vec<_> = got.upserts.iter().zip(&got.contents).filter(|(_, content)| *content == "bad").collect();
        let message = match (bad.first(), self.wording) {
            (None, _) => None,
            (Some(_), Wording::List) => {
                let list: Vec<_> = bad.iter().map(|(name, _)| format!("{name}: is bad")).collect();
                Some(format!("Error adding/updating cluster(s) {}", list.join(", ")))
            }
            (Some((name, _)), Wording::Dump) => {
                Some(format!("goo.gle/debugproto  \nname: \"{name}\"\n: Proto constraint validation failed (x)"))
            }
            (Some(_), Wording::Nothing) => Some("something is wrong".to_owned()),
            (Some(_), Wording::Misleading) => Some(format!("something like {} is wrong", got.upserts[0])),
        };
        if message.is_none() || matches!(self.wording, Wording::List) {
            for (name, (version, content)) in got.upserts.iter().zip(got.versions.iter().zip(&got.contents)) {
                if content != "bad" && self.wants(got.resource_type, name) {
                    self.held.insert((got.resource_type, name.clone()), version.clone());
                }
            }
            for name in &got.removed {
                self.held.remove(&(got.resource_type, name.clone()));
            }
        }
        let verdict = self.bench.answer(&got, message.as_deref());
        if let Some(Verdict::Rejected { resources, .. }) = verdict {
            for (name, version) in resources {
                let at = got.upserts.iter().position(|it| **it == *name).unwrap();
                assert_eq!(got.contents[at], "bad", "a good resource is quarantined: {name}");
                self.singled_out.insert((got.resource_type, name.to_string(), version.to_string()));
            }
        }
    }

    fn wants(&self, resource_type: ResourceType, name: &str) -> bool {
        matches!(resource_type, Cluster | Listener) || self.subscribed.iter().any(|it| *it == (resource_type, name))
    }

    /// Answers everything until there is nothing more to say.
    fn finish(&mut self) {
        let mut quiet = 0;
        for _ in 0..10_000 {
            while !self.inbox.is_empty() {
                self.answer();
            }
            if self.receive() {
                quiet = 0;
                continue;
            }
            quiet += 1;
            self.bench.now += ACK_TIMEOUT;
            if quiet > 4 {
                return;
            }
        }
        panic!("the server does not come to rest");
    }

    fn check(&self) {
        for resource_type in TYPES {
            for name in NAMES {
                let held = self.held.get(&(resource_type, name.to_owned()));
                if !self.wants(resource_type, name) {
                    continue;
                }
                match self.bench.tables.table(resource_type).get(name) {
                    Some(entry) => {
                        let version = entry.version().to_string();
                        let refused = self.singled_out.contains(&(resource_type, name.to_owned(), version.clone()));
                        assert_eq!(held == Some(&version), !refused, "{resource_type} {name}");
                        match self.bench.progress(resource_type, name) {
                            Progress::Accepted { .. } => assert!(!refused, "{resource_type} {name}"),
                            Progress::Rejected { .. } => assert!(refused, "{resource_type} {name}"),
                            other => panic!("{resource_type} {name}: {other:?}"),
                        }
                    }
                    // Endpoints may outlive their resource: they end with their cluster.
                    None if resource_type == Endpoint => {}
                    None => assert_eq!(held, None, "{resource_type} {name}"),
                }
            }
            let watch = &self.bench.session.watches[resource_type];
            let table = self.bench.tables.table(resource_type);
            assert_eq!(watch.is_synced(table), watch.requested && watch.rejections(table).next().is_none());
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..TYPES.len(), 0..NAMES.len(), 0_u8..4);
    prop_oneof![
        3 => prop::collection::vec(change, 1..6).prop_map(Step::Commit),
        2 => (0..TYPES.len(), 0..NAMES.len()).prop_map(|(resource_type, name)| Step::Subscribe(resource_type, name)),
        1 => (0..TYPES.len(), 0..NAMES.len()).prop_map(|(resource_type, name)| Step::Unsubscribe(resource_type, name)),
        5 => Just(Step::Send),
        4 => Just(Step::Answer),
        1 => Just(Step::Wait),
    ]
}

fn wording() -> impl Strategy<Value = Wording> {
    prop_oneof![Just(Wording::List), Just(Wording::Dump), Just(Wording::Nothing), Just(Wording::Misleading)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rejected_versions_stay_away_and_everything_else_arrives(
        wording in wording(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut client = Client::new(wording);
        for step in &steps {
            client.step(step);
        }
        client.finish();
        client.check();
    }
}
