//! A small model of clients that keep the rules, beside the sessions that serve them: what each asked for, holds and
//! refuses. It looks at every response, and at the end at what each client holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use envoy_types::pb::envoy::config::cluster::v3::Cluster as Message;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::rpc;
use prost::Message as _;

use super::*;
use crate::commit::{Commit, Encoded};
use crate::group::Group;
use crate::store::table::Entry;

pub(super) const NAMES: [&str; 4] = ["a", "b", "c", "d"];
pub(super) const TYPES: [ResourceType; 5] = [Cluster, Endpoint, Listener, Route, Runtime];
/// What there may be under a name: nothing, two contents that all take, one that nobody takes, and one that the picky
/// refuse.
pub(super) const CONTENTS: [&str; 5] = ["", "1", "2", "bad", "odd"];

/// How a client words a refusal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wording {
    /// Names all bad ones; the good ones are taken.
    List,
    /// Dumps the first bad one; nothing is taken.
    Dump,
    /// Says nothing useful; nothing is taken.
    Nothing,
    /// Mentions a name, perhaps of a good one; nothing is taken.
    Misleading,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) variant: Variant,
    pub(super) wording: Wording,
    pub(super) picky: bool,
}

#[derive(Clone)]
pub(super) enum Step {
    /// Type, name and content, by number.
    Commit(Vec<(usize, usize, usize)>, bool),
    /// A client, a type, and a name or, past the last, `*`.
    Subscribe(usize, usize, usize),
    Unsubscribe(usize, usize, usize),
    Send(usize),
    Answer(usize),
    Reconnect(usize),
    Wait,
}

/// On one line, as it is read best where a failure tells how it came about.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &usize| NAMES.get(*name).unwrap_or(&"*");
        match self {
            Self::Commit(changes, urgent) => {
                f.write_str(if *urgent { "commit urgently" } else { "commit" })?;
                changes
                    .iter()
                    .try_for_each(|(of, it, content)| write!(f, " {} {}={}", TYPES[*of], name(it), CONTENTS[*content]))
            }
            Self::Subscribe(client, of, it) => write!(f, "{client} subscribes to {} {}", TYPES[*of], name(it)),
            Self::Unsubscribe(client, of, it) => write!(f, "{client} lets go of {} {}", TYPES[*of], name(it)),
            Self::Send(client) => write!(f, "{client} is sent something"),
            Self::Answer(client) => write!(f, "{client} answers"),
            Self::Reconnect(client) => write!(f, "{client} reconnects"),
            Self::Wait => f.write_str("wait"),
        }
    }
}

type Name = (ResourceType, &'static str);
type Content = (ResourceType, &'static str, &'static str);

/// What a client asks for of one type.
#[derive(Clone, Debug, Default)]
struct Wanted {
    wildcard: bool,
    names: BTreeSet<&'static str>,
    /// Whether the stream ever named anything.
    has_named: bool,
    /// Whether it changed since the stream began.
    changed: bool,
}

/// A response, read.
#[derive(Clone, Debug)]
struct Got {
    resource_type: ResourceType,
    nonce: String,
    version: String,
    upserts: Vec<(&'static str, &'static str)>,
    removed: Vec<&'static str>,
    at: Duration,
}

struct Client {
    kind: Kind,
    session: Session,
    /// The commit that the stream began after.
    began: usize,
    wanted: BTreeMap<ResourceType, Wanted>,
    /// The types that it has yet to ask for on this stream.
    to_ask: VecDeque<ResourceType>,
    /// The commit that it first asked for clusters after, and whether it said then that it has some.
    asked_for_clusters: (usize, bool),
    /// Clusters that it was told are gone, with the commit: it may have refused the response and be told again.
    told_gone: BTreeSet<(&'static str, usize)>,
    /// What the index was told to wake it for.
    interest: BTreeMap<ResourceType, (bool, BTreeSet<String>)>,
    held: BTreeMap<Name, &'static str>,
    /// The last accepted version of each type, and the nonce of any response.
    versions: BTreeMap<ResourceType, String>,
    nonces: BTreeMap<ResourceType, String>,
    inbox: VecDeque<Got>,
    /// What this stream was sent, what it accepted, and what was singled out as refused; and of that, for what there was
    /// something else.
    sent: BTreeSet<Content>,
    taken: BTreeSet<Content>,
    spared: BTreeMap<Content, &'static str>,
    refused: BTreeSet<Content>,
    /// What others had refused when the stream began, came to its type or to the thing itself, so that it got, or kept, an
    /// earlier version.
    withheld: BTreeSet<Content>,
    /// Whether it had nothing to say when it was last asked, and nothing happened to it since.
    is_quiet: bool,
}

pub(super) struct World {
    tables: Tables,
    now: Duration,
    commits: usize,
    /// In which commit a name last changed.
    changed_in: BTreeMap<Name, usize>,
    /// What was ever withdrawn.
    withdrawn: BTreeSet<Name>,
    clients: Vec<Client>,
    streams: u64,
}

impl Wanted {
    fn covers(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    /// All that is wanted, as state of the world lists it and as a new delta stream subscribes to it.
    fn list(&self) -> Vec<String> {
        let star = self.wildcard && (self.has_named || !self.names.is_empty());
        star.then_some("*").into_iter().chain(self.names.iter().copied()).map(str::to_owned).collect()
    }
}

impl Client {
    fn covers(&self, resource_type: ResourceType, name: &str) -> bool {
        self.wanted.get(&resource_type).is_some_and(|wanted| wanted.covers(name))
    }

    /// Whether it wants everything of a type since its stream began.
    fn always_wanted_all(&self, resource_type: ResourceType) -> bool {
        self.wanted.get(&resource_type).is_some_and(|wanted| wanted.wildcard && !wanted.changed)
    }

    fn refuses(&self, content: &str) -> bool {
        content == "bad" || (content == "odd" && self.kind.picky)
    }

    fn is_interested(&self, changed: &[Name]) -> bool {
        changed.iter().any(|(resource_type, name)| {
            self.interest.get(resource_type).is_some_and(|(all, names)| *all || names.contains(*name))
        })
    }
}

impl World {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        let mut world = Self {
            tables: Tables::default(),
            now: Duration::ZERO,
            commits: 0,
            changed_in: BTreeMap::new(),
            withdrawn: BTreeSet::new(),
            clients: Vec::new(),
            streams: 0,
        };
        for kind in kinds {
            let session = world.session(kind.variant);
            let all = Wanted { wildcard: true, ..Wanted::default() };
            world.clients.push(Client {
                kind: *kind,
                session,
                began: 0,
                wanted: BTreeMap::from([(Cluster, all.clone()), (Listener, all)]),
                to_ask: VecDeque::new(),
                asked_for_clusters: (0, false),
                told_gone: BTreeSet::new(),
                interest: BTreeMap::new(),
                held: BTreeMap::new(),
                versions: BTreeMap::new(),
                nonces: BTreeMap::new(),
                inbox: VecDeque::new(),
                sent: BTreeSet::new(),
                taken: BTreeSet::new(),
                spared: BTreeMap::new(),
                refused: BTreeSet::new(),
                withheld: BTreeSet::new(),
                is_quiet: false,
            });
            world.begin(world.clients.len() - 1);
            world.greet(world.clients.len() - 1);
        }
        world
    }

    fn session(&mut self, variant: Variant) -> Session {
        self.streams += 1;
        Session::new(ClientId(self.streams), Node::default(), Protocol { variant, only: None }, limits())
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Commit(changes, urgent) => self.commit(changes, *urgent),
            Step::Subscribe(client, resource_type, name) => {
                let client = client % self.clients.len();
                self.ask(client, TYPES[*resource_type], NAMES.get(*name).copied(), true);
            }
            Step::Unsubscribe(client, resource_type, name) => {
                let client = client % self.clients.len();
                self.ask(client, TYPES[*resource_type], NAMES.get(*name).copied(), false);
            }
            Step::Send(client) => {
                self.ask_for_one(client % self.clients.len());
                self.receive(client % self.clients.len());
            }
            Step::Answer(client) => self.answer(client % self.clients.len()),
            Step::Reconnect(client) => self.reconnect(client % self.clients.len()),
            Step::Wait => {
                self.now += Duration::from_secs(4);
                self.clients.iter_mut().for_each(|client| client.is_quiet = false);
            }
        }
    }

    fn commit(&mut self, changes: &[(usize, usize, usize)], urgent: bool) {
        let mut commit = Commit::default();
        for (resource_type, name, content) in changes {
            let (resource_type, name, content) = (TYPES[*resource_type], NAMES[*name], CONTENTS[*content]);
            if content.is_empty() {
                commit.remove(resource_type, name);
            } else {
                let message =
                    Message { name: name.to_owned(), alt_stat_name: content.to_owned(), ..Default::default() };
                commit.upsert(resource_type, name, &message);
            }
        }
        if urgent {
            commit.mark_urgent();
        }
        let changed = self.tables.apply(commit.changes_for(&Group::default()), self.now).changed;
        let changed: Vec<Name> = changed.iter().map(|(resource_type, name)| (*resource_type, known(name))).collect();
        self.commits += 1;
        self.changed_in.extend(changed.iter().map(|name| (*name, self.commits)));
        let gone = changed.iter().filter(|(of, name)| self.tables.table(*of).get(name).is_none());
        for name in gone {
            self.withdrawn.insert(*name);
            // What it fell back to went with the name.
            self.clients.iter_mut().for_each(|client| client.spared.retain(|(of, it, _), _| (*of, *it) != *name));
        }
        self.wake(&changed);
    }

    /// Those that want none of this are not woken: they must have nothing to say.
    fn wake(&mut self, changed: &[Name]) {
        for (at, client) in self.clients.iter_mut().enumerate() {
            if client.is_interested(changed) {
                client.is_quiet = false;
            } else if client.is_quiet {
                let missed = client.session.next_response(&self.tables, self.now);
                assert!(
                    missed.is_none(),
                    "client {at} is not woken for {changed:?}, and there is something: {missed:?}"
                );
            }
        }
    }

    /// Hands a request to a session.
    fn tell(&mut self, at: usize, request: &Request<'_>) -> Option<Verdict> {
        let client = &mut self.clients[at];
        client.is_quiet = false;
        let outcome = client.session.on_request(request, &self.tables, self.now).unwrap();
        if let Some(interest) = outcome.interest {
            let (all, names) = client.interest.entry(interest.resource_type).or_default();
            *all = interest.everything;
            names.retain(|name| !interest.lost.iter().any(|lost| **lost == **name));
            let listed = interest.list.iter().flat_map(|list| list.names());
            names.extend(listed.chain(&interest.gained).map(ToString::to_string));
        }
        for (resource_type, wanted) in &client.wanted {
            let (all, names) = client.interest.get(resource_type).cloned().unwrap_or_default();
            let asked = client.session.watches[*resource_type].requested;
            let same = all == wanted.wildcard && names.iter().map(String::as_str).eq(wanted.names.iter().copied());
            assert!(!asked || same, "client {at}: the index thinks that it wants {all} {names:?}, not {wanted:?}");
        }
        outcome.verdict.map(|(_, verdict)| verdict)
    }

    /// A stream begins. Its client asks for its types one after the other, in between it may be sent something.
    fn begin(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.withheld = TYPES.into_iter().flat_map(|of| withheld(&self.tables, of)).collect();
        client.began = self.commits;
        client.interest.clear();
        for wanted in client.wanted.values_mut() {
            wanted.has_named = !wanted.names.is_empty();
            wanted.changed = false;
        }
        client.wanted.retain(|_, wanted| wanted.wildcard || !wanted.names.is_empty());
        client.to_ask = TYPES.into_iter().filter(|of| client.wanted.contains_key(of)).collect();
    }

    /// The first requests of a stream, as many as there are still to come.
    fn greet(&mut self, at: usize) {
        while self.ask_for_one(at) {}
    }

    /// The first request of a type, with what an earlier stream left; false when all were made.
    fn ask_for_one(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let Some(resource_type) = client.to_ask.pop_front() else { return false };
        let Some(wanted) = client.wanted.get_mut(&resource_type) else { return true };
        wanted.has_named |= wanted.wildcard && !matches!(resource_type, Cluster | Listener);
        let list = wanted.list();
        let type_url = resource_type.type_url().to_owned();
        client.withheld.extend(withheld(&self.tables, resource_type));
        if resource_type == Cluster {
            let has_some = match client.kind.variant {
                Variant::Delta => client.held.keys().any(|(of, _)| *of == Cluster),
                Variant::Sotw => client.versions.contains_key(&Cluster),
            };
            client.asked_for_clusters = (self.commits, has_some);
        }
        if client.kind.variant == Variant::Sotw {
            let request = DiscoveryRequest {
                type_url,
                resource_names: list,
                version_info: client.versions.get(&resource_type).cloned().unwrap_or_default(),
                response_nonce: client.nonces.get(&resource_type).cloned().unwrap_or_default(),
                ..Default::default()
            };
            self.tell(at, &(&request).into());
            return true;
        }
        let version = |name: &str, content: &str| {
            let message = Message { name: name.to_owned(), alt_stat_name: content.to_owned(), ..Default::default() };
            Version::of(&message.encode_to_vec()).to_string()
        };
        let of_type = client.held.iter().filter(|((of, _), _)| *of == resource_type);
        let held = of_type.map(|((_, name), content)| ((*name).to_owned(), version(name, content)));
        let request = DeltaDiscoveryRequest {
            type_url,
            resource_names_subscribe: list,
            initial_resource_versions: held.collect(),
            ..Default::default()
        };
        self.tell(at, &(&request).into());
        true
    }

    fn reconnect(&mut self, at: usize) {
        let session = self.session(self.clients[at].kind.variant);
        let client = &mut self.clients[at];
        client.session = session;
        client.inbox.clear();
        client.refused.clear();
        client.sent.clear();
        client.spared.clear();
        // What it says that it holds counts as taken in delta.
        client.taken = match client.kind.variant {
            Variant::Delta => client.held.iter().map(|((of, name), content)| (*of, *name, *content)).collect(),
            Variant::Sotw => BTreeSet::new(),
        };
        self.begin(at);
    }

    /// Asks for one name more or less; `None` is `*`.
    fn ask(&mut self, at: usize, resource_type: ResourceType, name: Option<&'static str>, more: bool) {
        self.greet(at);
        let client = &mut self.clients[at];
        if !more && !client.wanted.contains_key(&resource_type) {
            return;
        }
        let wanted = client.wanted.entry(resource_type).or_default();
        let has_legacy = matches!(resource_type, Cluster | Listener);
        if name.is_none() && !more && client.kind.variant == Variant::Sotw && has_legacy && !wanted.has_named {
            // It has no words for that: no names would still mean everything.
            return;
        }
        wanted.changed = true;
        match (name, more) {
            (None, more) => wanted.wildcard = more,
            (Some(name), true) => drop(wanted.names.insert(name)),
            (Some(name), false) => drop(wanted.names.remove(name)),
        }
        wanted.has_named |= more;
        let list = wanted.list();
        let now_wanted = wanted.clone();
        client.held.retain(|(of, name), _| *of != resource_type || now_wanted.covers(name));
        let type_url = resource_type.type_url().to_owned();
        if client.kind.variant == Variant::Sotw {
            let response_nonce = client.nonces.get(&resource_type).cloned().unwrap_or_default();
            let request = DiscoveryRequest { type_url, resource_names: list, response_nonce, ..Default::default() };
            // The nonce of the last response that it answered: stale, or, if nothing else came, no news.
            self.tell(at, &(&request).into());
        } else {
            let names = vec![name.unwrap_or("*").to_owned()];
            let (subscribe, unsubscribe) = if more { (names, Vec::new()) } else { (Vec::new(), names) };
            let request = DeltaDiscoveryRequest {
                type_url,
                resource_names_subscribe: subscribe,
                resource_names_unsubscribe: unsubscribe,
                ..Default::default()
            };
            self.tell(at, &(&request).into());
        }
    }

    /// Takes the next response of a stream, if there is one, and holds it against the rules.
    fn receive(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let Some(response) = client.session.next_response(&self.tables, self.now) else {
            client.is_quiet = true;
            return false;
        };
        let got = read(&response, client.kind.variant, self.now);
        self.check_response(at, &got);
        let client = &mut self.clients[at];
        for (name, content) in &got.upserts {
            let entry = self.tables.table(got.resource_type).get(name);
            if let Some(entry) = entry.filter(|entry| entry.encoded.standing.is_quarantined())
                && content_of(entry) != *content
            {
                client.withheld.insert((got.resource_type, name, content_of(entry)));
            }
        }
        if got.resource_type == Cluster {
            // State of the world says it by leaving it out.
            let is_left_out =
                |name: &&str| client.kind.variant == Variant::Sotw && !got.upserts.iter().any(|(it, _)| it == name);
            let gone = got.removed.iter().copied().chain(NAMES.into_iter().filter(is_left_out));
            let gone = gone.filter_map(|name| Some((name, *self.changed_in.get(&(Cluster, name))?)));
            client.told_gone.extend(gone.collect::<Vec<_>>());
        }
        client.sent.extend(got.upserts.iter().map(|(name, content)| (got.resource_type, *name, *content)));
        client.inbox.push_back(got);
        true
    }

    fn check_response(&self, at: usize, got: &Got) {
        let client = &self.clients[at];
        let of = got.resource_type;
        let names: BTreeSet<_> = got.upserts.iter().map(|(name, _)| *name).chain(got.removed.iter().copied()).collect();
        assert_eq!(names.len(), got.upserts.len() + got.removed.len(), "client {at}: a name stands twice: {got:?}");
        let overdue = |sent: &Got| sent.resource_type != of || self.now >= sent.at + ACK_TIMEOUT;
        assert!(client.inbox.iter().all(overdue), "client {at}: two responses are outstanding: {got:?}");
        for (name, content) in &got.upserts {
            assert!(!client.refused.contains(&(of, name, content)), "client {at}: a refused version again: {got:?}");
            if matches!(of, Listener | Route) {
                self.check_made(at, of, name, content);
            }
            let entry = self.tables.table(of).get(name);
            if let Some(entry) = entry.filter(|entry| content_of(entry) == *content) {
                let is_new =
                    self.changed_in[&(of, *name)] > client.began || client.sent.contains(&(of, *name, *content));
                let refuses = |fallback: &Encoded| client.refused.contains(&(of, name, content_in(fallback.message())));
                let has_fallback = entry.fallback().is_some_and(|fallback| !refuses(fallback));
                let spared = entry.encoded.standing.is_quarantined() && has_fallback;
                assert!(is_new || !spared, "client {at} is offered what others refused: {of} {name} {content}");
            }
        }
        let is_whole = client.kind.variant == Variant::Sotw && of.is_sent_whole();
        let told = |name: &str| got.upserts.iter().any(|(it, _)| *it == name);
        for ((_, name), content) in client.held.iter().filter(|((it, _), _)| *it == of) {
            let is_lost = got.removed.contains(name) || (is_whole && !told(name));
            if !is_lost {
                continue;
            }
            match self.tables.table(of).get(name) {
                None if of == Cluster => self.check_let_go(at, name),
                None => {}
                // What it holds may be lost if it refuses both what replaced that and what it could fall back to, or
                // if there is nothing to fall back to because it was withdrawn meanwhile.
                Some(entry) => {
                    let refuses = |content| client.refused.contains(&(of, *name, content));
                    let has_none = match entry.fallback() {
                        Some(fallback) => refuses(content_of(entry)) && refuses(content_in(fallback.message())),
                        None => refuses(content_of(entry)) || self.withdrawn.contains(&(of, *name)),
                    };
                    assert!(has_none, "client {at} loses {of} {name} {content} although it is there: {got:?}");
                }
            }
        }
    }

    /// What refers to clusters comes after the answer to those that came with it or before. Time opens every gate, so
    /// this holds as long as none has passed.
    fn check_made(&self, at: usize, of: ResourceType, name: &'static str, content: &str) {
        let client = &self.clients[at];
        let is_newest = self.tables.table(of).get(name).is_some_and(|entry| content_of(entry) == content);
        if self.now > Duration::ZERO || !client.always_wanted_all(Cluster) || !is_newest {
            return;
        }
        let upto = self.changed_in[&(of, name)];
        for (cluster, entry) in self.tables.table(Cluster).changes_after(0) {
            let cluster = known(cluster);
            let key = (Cluster, cluster, content_of(entry));
            let came_before = self.changed_in[&(Cluster, cluster)] <= upto;
            let settled = client.taken.contains(&key) || client.refused.contains(&key);
            // It has an earlier version of those that it did not get at once.
            let spared = entry.encoded.standing.is_quarantined() || client.withheld.contains(&key);
            assert!(!came_before || settled || spared, "client {at}: {of} {name} comes before cluster {cluster}");
        }
    }

    /// A cluster goes after the answer to the routes and listeners that changed with its removal or before.
    fn check_let_go(&self, at: usize, cluster: &'static str) {
        let client = &self.clients[at];
        let removed_in = self.changed_in[&(Cluster, cluster)];
        // One that is asked for by its name is answered at once.
        let is_named = client.wanted.get(&Cluster).is_some_and(|wanted| wanted.names.contains(cluster));
        // In delta also what was removed while it had no stream: it says what it has.
        let (asked_after, had_some) = client.asked_for_clusters;
        let is_known = removed_in > asked_after || client.kind.variant == Variant::Delta;
        let is_again = client.told_gone.contains(&(cluster, removed_in));
        let is_strict = self.now == Duration::ZERO && is_known && !is_named && !is_again;
        if !is_strict || !client.always_wanted_all(Cluster) {
            return;
        }
        // One that has no clusters yet has nothing that refers to them.
        for of in [Listener, Route].into_iter().filter(|of| had_some || !client.to_ask.contains(of)) {
            for (name, entry) in self.tables.table(of).changes_after(0).filter(|_| client.always_wanted_all(of)) {
                let name = known(name);
                let key = (of, name, content_of(entry));
                let came_before = self.changed_in[&(of, name)] <= removed_in;
                let settled = client.taken.contains(&key) || client.refused.contains(&key);
                let spared = entry.encoded.standing.is_quarantined() || client.withheld.contains(&key);
                assert!(!came_before || settled || spared, "client {at}: cluster {cluster} goes before {of} {name}");
            }
        }
    }

    /// Answers the oldest response, as a client that keeps the rules does.
    fn answer(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(got) = client.inbox.pop_front() else { return };
        let of = got.resource_type;
        let bad: Vec<_> = got.upserts.iter().filter(|(_, content)| client.refuses(content)).collect();
        let message = match (bad.first(), client.kind.wording) {
            (None, _) => None,
            (Some(_), Wording::List) => {
                let list: Vec<_> = bad.iter().map(|(name, _)| format!("{name}: is bad")).collect();
                Some(format!("Error adding/updating cluster(s) {}", list.join(", ")))
            }
            (Some((name, _)), Wording::Dump) => {
                Some(format!("goo.gle/debugproto  \nname: \"{name}\"\n: Proto constraint validation failed (x)"))
            }
            (Some(_), Wording::Nothing) => Some("something is wrong".to_owned()),
            (Some(_), Wording::Misleading) => Some(format!("something like {} is wrong", got.upserts[0].0)),
        };
        if message.is_none() || matches!(client.kind.wording, Wording::List) {
            let is_whole = client.kind.variant == Variant::Sotw && of.is_sent_whole();
            let told = |name: &str| got.upserts.iter().any(|(it, _)| *it == name);
            client.held.retain(|(it, name), _| *it != of || !(got.removed.contains(name) || (is_whole && !told(name))));
            for (name, content) in &got.upserts {
                if !client.refuses(content) && client.covers(of, name) {
                    client.held.insert((of, name), content);
                    let spared = client.spared.iter_mut().filter(|((it, of_name, _), _)| (*it, of_name) == (of, name));
                    spared.for_each(|(_, instead)| *instead = content);
                }
            }
        }
        if message.is_none() {
            client.taken.extend(got.upserts.iter().map(|(name, content)| (of, *name, *content)));
            client.versions.insert(of, got.version.clone());
        } else if matches!(client.kind.wording, Wording::List) {
            let taken: Vec<_> = got.upserts.iter().filter(|(_, content)| !client.refuses(content)).collect();
            client.taken.extend(taken.into_iter().map(|(name, content)| (of, *name, *content)));
        }
        client.nonces.insert(of, got.nonce.clone());

        let error_detail = message.map(|message| rpc::Status { code: 13, message, details: vec![] });
        let (type_url, response_nonce) = (of.type_url().to_owned(), got.nonce.clone());
        let verdict = if client.kind.variant == Variant::Delta {
            let request = DeltaDiscoveryRequest { type_url, response_nonce, error_detail, ..Default::default() };
            self.tell(at, &(&request).into())
        } else {
            let resource_names = client.wanted.get(&of).map(Wanted::list).unwrap_or_default();
            let version_info = client.versions.get(&of).cloned().unwrap_or_default();
            let request = DiscoveryRequest {
                type_url,
                response_nonce,
                resource_names,
                version_info,
                error_detail,
                ..Default::default()
            };
            self.tell(at, &(&request).into())
        };
        let Some(verdict) = verdict else { return };
        let (Verdict::Accepted { released, .. } | Verdict::Rejected { released, .. }) = &verdict;
        let released: Vec<Name> = released.iter().map(|name| (of, known(name))).collect();
        self.wake(&released);
        let Verdict::Rejected { resources, .. } = verdict else { return };
        let client = &mut self.clients[at];
        for (name, _) in resources {
            let (name, content) = *got.upserts.iter().find(|(it, _)| **it == *name).unwrap();
            assert!(client.refuses(content), "client {at}: a good resource is quarantined: {of} {name}");
            client.refused.insert((of, name, content));
            let entry = self.tables.table(of).get(name).filter(|entry| content_of(entry) == content);
            let fallback = entry.and_then(Entry::fallback).map(|it| content_in(it.message()));
            if let Some(fallback) = fallback.filter(|fallback| !client.refused.contains(&(of, name, *fallback))) {
                client.spared.insert((of, name, content), fallback);
            }
        }
    }

    /// Lets everybody answer everything until nobody has anything more to say, and looks at what each holds.
    pub(super) fn finish(&mut self) {
        (0..self.clients.len()).for_each(|at| self.greet(at));
        let mut quiet = 0;
        for _ in 0..10_000 {
            let mut is_quiet = true;
            for at in 0..self.clients.len() {
                while !self.clients[at].inbox.is_empty() {
                    self.answer(at);
                }
                is_quiet &= !self.receive(at);
            }
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if is_quiet {
                self.now += ACK_TIMEOUT;
                self.clients.iter_mut().for_each(|client| client.is_quiet = false);
            }
            if quiet > 4 {
                (0..self.clients.len()).for_each(|at| self.check_end(at));
                return;
            }
        }
        panic!("the server does not come to rest");
    }

    fn check_end(&self, at: usize) {
        let client = &self.clients[at];
        for of in TYPES {
            for name in NAMES.into_iter().filter(|name| client.covers(of, name)) {
                let held = client.held.get(&(of, name)).copied();
                let what = format!("client {at}, {of} {name}: {held:?}");
                let Some(entry) = self.tables.table(of).get(name) else {
                    // Endpoints end with their cluster, and state of the world has no words for the end of most.
                    let is_told = client.kind.variant == Variant::Delta || of.is_sent_whole();
                    assert!(held.is_none() || of == Endpoint || !is_told, "{what} is gone");
                    continue;
                };
                let newest = content_of(entry);
                let refuses = |content: &'static str| client.refused.contains(&(of, name, content));
                let fallback = entry.fallback().map(|it| content_in(it.message())).filter(|it| !refuses(it));
                let progress = client.session.progress(of, name, &self.tables).unwrap();
                if refuses(newest) {
                    // There may be another by now, which was accepted late: it is not sent to those that have one.
                    let spared = client.spared.get(&(of, name, newest)).copied();
                    let has_one = held == fallback || held == spared;
                    assert!(spared.is_none_or(refuses) || has_one, "{what}, and {fallback:?} is left");
                    assert!(matches!(progress, Progress::Rejected { .. }), "{what}: {progress:?}");
                } else if matches!(progress, Progress::HeldBack) {
                    assert!(entry.encoded.standing.is_quarantined(), "{what} is held back");
                    assert!(held.is_some() || client.kind.picky, "{what} is held back and has nothing");
                } else {
                    assert_eq!(held, Some(newest), "{what}: {progress:?}");
                    // What it said that it holds counts once anything was sent, or nothing was to be sent.
                    let is_silent = client.session.watches[of].tally().sent == 0;
                    assert!(matches!(progress, Progress::Accepted { .. }) || is_silent, "{what}: {progress:?}");
                }
            }
            let (watch, table) = (&client.session.watches[of], self.tables.table(of));
            let held_back = NAMES
                .iter()
                .any(|name| matches!(client.session.progress(of, name, &self.tables), Some(Progress::HeldBack)));
            let is_synced = watch.requested && watch.rejections(table).next().is_none() && !held_back;
            assert_eq!(watch.is_synced(table), is_synced, "client {at}, {of}");
        }
    }
}

/// What of a type others have refused and nobody has accepted, where there is something to get instead.
fn withheld(tables: &Tables, of: ResourceType) -> impl Iterator<Item = Content> {
    let all = tables.table(of).changes_after(0);
    let withheld = all.filter(|(_, entry)| entry.offered().version != entry.version());
    withheld.map(move |(name, entry)| (of, known(name), content_of(entry)))
}

fn known(name: &str) -> &'static str {
    NAMES.into_iter().find(|it| *it == name).unwrap()
}

fn content_of(entry: &Entry) -> &'static str {
    content_in(entry.encoded.message())
}

fn content_in(message: &[u8]) -> &'static str {
    let message = Message::decode(message).unwrap();
    CONTENTS.into_iter().find(|it| *it == message.alt_stat_name).unwrap()
}

fn read(response: &Response, variant: Variant, at: Duration) -> Got {
    let wire = response.message();
    let name_of = |message: &[u8]| known(&Message::decode(message).unwrap().name);
    let upsert = |message: &[u8]| (name_of(message), content_in(message));
    let resource_type = |url: &str| ResourceType::from_type_url(url).unwrap();
    match variant {
        Variant::Delta => {
            let response = DeltaDiscoveryResponse::decode(wire.as_slice()).unwrap();
            Got {
                resource_type: resource_type(&response.type_url),
                nonce: response.nonce,
                version: String::new(),
                upserts: response.resources.iter().map(|it| upsert(&it.resource.as_ref().unwrap().value)).collect(),
                removed: response.removed_resources.iter().map(|name| known(name)).collect(),
                at,
            }
        }
        Variant::Sotw => {
            let response = DiscoveryResponse::decode(wire.as_slice()).unwrap();
            Got {
                resource_type: resource_type(&response.type_url),
                nonce: response.nonce,
                version: response.version_info,
                upserts: response.resources.iter().map(|any| upsert(&any.value)).collect(),
                removed: Vec::new(),
                at,
            }
        }
    }
}
