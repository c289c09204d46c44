//! Files of instances: a list of entries, in the words that labels have. [`read`] takes a file to its end: entries where
//! everything is clear, and a problem with line, column and cure where it is not. An entry with a mistake is left out alone.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::config::Place;
use crate::config::reader::{Document, Reader};
use crate::config::tree::{self, Node, Value};
use crate::instance::{Check, Claim, DEFAULT_DRAIN, Discovered, Hint, Instance, InstanceId, Membership, Phase};
use crate::traffic::{Protocol, Traffic};
use crate::words::{CHECK, Fault, Words};
use crate::{Code, Problem, ProviderName, ServiceName, Timestamp, VersionName};

/// Bytes of one file: 100,000 entries have 20 MiB at most, and more is no file of instances.
pub const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Problems of one file that are told one by one; the rest are counted.
const MAX_PROBLEMS: usize = 100;

/// On what network the address of an entry holds: that of the machine.
const NETWORK: &str = "host";

const KEYS: [&str; 15] = [
    "service",
    "version",
    "name",
    "host",
    "path",
    "address",
    "check",
    "drain",
    "protocol",
    "timeout",
    "retry",
    "slowstart",
    "ready",
    "depends_on",
    "canary",
];

const ENTRY: Document = Document {
    code: Code::InvalidEntry,
    effect: "this entry is not used, or stays as it was when it was last good; others are unaffected",
    root: "an entry",
    in_root: "in an entry",
};

/// What makes an entry the same one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The service it belongs to.
    pub service: ServiceName,
    /// The version of that service.
    pub version: VersionName,
    /// Where it listens.
    pub address: SocketAddr,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.service, self.version, self.address)
    }
}

/// One instance, as its file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its identity.
    pub id: EntryId,
    /// The name people know it by.
    pub name: String,
    /// Hosts and path.
    pub claim: Claim,
    /// What it understands.
    pub protocol: Protocol,
    /// How it is to be asked.
    pub traffic: Traffic,
    /// The services that it needs, as it says.
    pub depends_on: Vec<ServiceName>,
    /// The share of its version as a canary, in basis points, as it says.
    pub canary_weight: Option<u32>,
    /// How it is checked.
    pub check: Check,
    /// How long requests in flight may take once it is being stopped.
    pub drain: Duration,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The entries that are clear, each once, in the order of the file.
    pub entries: Vec<(Place, Entry)>,
    /// What is known of those that are not.
    pub unclear: Vec<Unclear>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// As much of an entry's identity as could be read; `None`: it says nothing valid of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unclear {
    /// Its service.
    pub service: Option<ServiceName>,
    /// Its version.
    pub version: Option<VersionName>,
    /// Its address.
    pub address: Option<SocketAddr>,
}

impl Unclear {
    /// Whether it may be meant to be this entry.
    #[must_use]
    pub fn could_be(&self, id: &EntryId) -> bool {
        self.service.as_ref().is_none_or(|service| *service == id.service)
            && self.version.as_ref().is_none_or(|version| *version == id.version)
            && self.address.is_none_or(|address| address == id.address)
    }
}

impl Entry {
    /// The instance that it stands for. It has no runs, so that it keeps its verdict for as long as it stands somewhere.
    #[must_use]
    pub fn discovered(&self, created: Timestamp, hint: Hint, observed_at: Timestamp) -> Discovered {
        let EntryId { service, version, address } = &self.id;
        let id = discovered_id(&self.id);
        let instance = Instance {
            id: InstanceId {
                container: id.clone(),
                started_at: String::new(),
                network: NETWORK.to_owned(),
                address: *address,
            },
            service: service.clone(),
            version: version.clone(),
            has_own_address: false,
            check: self.check.clone(),
            drain: self.drain,
        };
        Discovered {
            id,
            name: self.name.clone(),
            created,
            project: None,
            enabled: true,
            phase: Phase::Running,
            health: None,
            terminating: None,
            memberships: vec![Membership {
                service: service.clone(),
                version: version.clone(),
                claim: self.claim.clone(),
                protocol: self.protocol,
                traffic: self.traffic,
                depends_on: self.depends_on.clone(),
                canary_weight: self.canary_weight,
            }],
            instances: vec![instance],
            problems: Vec::new(),
            hint,
            observed_at,
        }
    }
}

/// The full id of the instance that an entry stands for.
#[must_use]
pub fn discovered_id(id: &EntryId) -> String {
    format!("{}:{id}", ProviderName::file())
}

/// Reads one file. `file` is how problems name it.
///
/// # Errors
/// When `text` is no YAML, or no list.
pub fn read(file: &str, text: &str) -> Result<Reading, Problem> {
    let invalid = |place: Place, reason: &str, cure: &str| {
        let effect = "nothing of this file is used; what it held when it was last good stays in force";
        Problem::error(Code::InvalidInstances, format!("{file}:{place}"), reason, effect, cure)
    };
    let root = tree::parse(text).map_err(|(place, reason)| {
        invalid(place, &format!("this is not YAML: {reason}"), "mend the syntax at this place")
    })?;
    let items = match &root.value {
        Value::List(items) => items.as_slice(),
        Value::Null => &[],
        other => {
            let reason = format!("the file is {}, not a list of entries", other.kind());
            return Err(invalid(root.place, &reason, "write `- { service: shop, address: \"127.0.0.1:9001\" }` lines"));
        }
    };
    let mut reader = Reader::new(file, &ENTRY);
    let mut reading = Reading::default();
    let mut seen: BTreeMap<EntryId, Place> = BTreeMap::new();
    for item in items {
        let entry = match reader.entry(item) {
            Ok(entry) => entry,
            Err(unclear) => {
                reading.unclear.push(unclear);
                continue;
            }
        };
        match seen.entry(entry.id.clone()) {
            Slot::Occupied(first) => {
                reader.problems.push(duplicate(file, item.place, &entry.id, &format!("{file}:{}", first.get())));
            }
            Slot::Vacant(slot) => {
                slot.insert(item.place);
                reading.entries.push((item.place, entry));
            }
        }
    }
    reading.problems = reader.problems;
    let more = reading.problems.len().saturating_sub(MAX_PROBLEMS);
    if more > 0 {
        reading.problems.truncate(MAX_PROBLEMS);
        let reason = format!("{more} more problems are not shown");
        reading.problems.push(Problem::error(Code::InvalidEntry, file, reason, ENTRY.effect, "mend those shown first"));
    }
    Ok(reading)
}

/// That the entry at `place` says again what the one at `first` said (TG0123).
#[must_use]
pub fn duplicate(file: &str, place: Place, id: &EntryId, first: &str) -> Problem {
    Problem::error(
        Code::DuplicateEntry,
        format!("{file}:{place}"),
        format!("`{id}` stands at {first} already"),
        "this entry is not used while that one is there; others are unaffected",
        "remove one of the two, or give this one another address, version or service",
    )
}

impl Reader<'_> {
    fn entry(&mut self, node: &Node) -> Result<Entry, Unclear> {
        let before = self.problems.len();
        let keys = self.keys("", node, &KEYS);
        let key = |word: &str| keys.get(word).copied();
        if matches!(node.value, Value::Map(_) | Value::Null) && (key("service").is_none() || key("address").is_none()) {
            let cure = "write { service: shop, address: \"127.0.0.1:9001\" }";
            self.report(node.place, "an entry needs `service` and `address`", cure);
        }
        let service = key("service").and_then(|node| {
            let text = self.text("service", node)?;
            self.name(node.place, "a service", text, ServiceName::new)
        });
        let version = match key("version") {
            None => matches!(node.value, Value::Map(_)).then(VersionName::default_version),
            Some(node) => {
                self.text("version", node).and_then(|text| self.name(node.place, "a version", text, VersionName::new))
            }
        };
        let address = key("address").and_then(|node| self.instance_address(node));
        let name = key("name").and_then(|node| {
            let text = self.text("name", node)?;
            self.name(node.place, "an entry", text, VersionName::new)
        });
        let hosts = key("host").map(|node| self.hosts(node)).unwrap_or_default();
        let check = key("check").map(|node| self.keys("check", node, &CHECK.map(bare))).unwrap_or_default();

        let mut places: BTreeMap<&str, Place> = key("host").map(|node| ("host", node.place)).into_iter().collect();
        let mut said = Vec::new();
        let words =
            ["path", "drain", "protocol", "timeout", "retry", "slowstart", "depends_on"].map(|word| (word, key(word)));
        let of_check = CHECK.map(|word| (word, check.get(bare(word)).copied()));
        let ready = key("ready").map(|node| self.keys("ready", node, &["hold"])).unwrap_or_default();
        let of_ready = [("ready.hold", ready.get("hold").copied())];
        let canary = key("canary").map(|node| self.keys("canary", node, &["weight"])).unwrap_or_default();
        let of_canary = [("canary.weight", canary.get("weight").copied())];
        for (word, node) in words.into_iter().chain(of_check).chain(of_ready).chain(of_canary) {
            if let Some(node) = node
                && let Some(text) = self.text(word, node)
            {
                places.insert(word, node.place);
                said.push((word, text));
            }
        }
        let words = Words::new("", said);
        let claim = self.sound(words.claim(hosts), &places);
        let check = self.sound(words.check(None), &places);
        let check_port = self.sound(words.check_port(), &places);
        let drain = self.sound(words.duration("drain", DEFAULT_DRAIN).map_err(|fault| vec![fault]), &places);
        let protocol = self.sound(words.protocol().map_err(|fault| vec![fault]), &places);
        let traffic = self.sound(words.traffic(), &places);
        let depends_on = self.sound(words.depends_on().map_err(|fault| vec![fault]), &places);
        let canary_weight = self.sound(words.canary_weight().map_err(|fault| vec![fault]), &places);
        let asked = protocol.zip(traffic).zip(depends_on.zip(canary_weight));
        match (service, version, address, claim, asked, check.zip(check_port), drain) {
            (
                Some(service),
                Some(version),
                Some(address),
                Some(claim),
                Some(((protocol, traffic), (depends_on, canary_weight))),
                Some((check, port)),
                Some(drain),
            ) if self.problems.len() == before => {
                let check = Check { address: port.map(|port| (address.ip(), port).into()), ..check };
                let id = EntryId { service, version, address };
                let name = name.map_or_else(|| id.to_string(), |name| name.as_str().to_owned());
                Ok(Entry { id, name, claim, protocol, traffic, depends_on, canary_weight, check, drain })
            }
            (service, version, address, ..) => Err(Unclear { service, version, address }),
        }
    }

    /// What a word says; its faults are reported at its place.
    fn sound<T>(&mut self, read: Result<T, Vec<Fault>>, places: &BTreeMap<&str, Place>) -> Option<T> {
        let faults = match read {
            Ok(sound) => return Some(sound),
            Err(faults) => faults,
        };
        for Fault { word, reason, cure } in faults {
            let place = places.get(word).copied().unwrap_or_default();
            self.report(place, &format!("`{word}`: {reason}"), &cure);
        }
        None
    }

    /// One text with commas, as a label has it, or a list.
    fn hosts<'n>(&mut self, node: &'n Node) -> Vec<&'n str> {
        match &node.value {
            Value::Scalar(text) => text.split(',').collect(),
            Value::List(items) => items.iter().filter_map(|item| self.text("host", item)).collect(),
            other => {
                let reason = format!("`host` is {}, not a name or a list of names", other.kind());
                self.report(
                    node.place,
                    &reason,
                    "write `host: shop.localhost` or `host: [ a.localhost, b.localhost ]`",
                );
                Vec::new()
            }
        }
    }

    /// Any address that something can listen at: who writes the file may name this machine's, too (threats T8).
    fn instance_address(&mut self, node: &Node) -> Option<SocketAddr> {
        const CURE: &str = "write IP:PORT, such as \"127.0.0.1:9001\"";
        let text = self.text("address", node)?;
        let reason = match text.parse::<SocketAddr>() {
            Ok(address) if address.port() == 0 => "has no port".to_owned(),
            Ok(address) if address.ip().is_unspecified() || address.ip().is_multicast() => {
                "is not the address of one instance".to_owned()
            }
            Ok(address) => return Some(address),
            Err(_) if is_named(text) => "names a host, and names are not looked up".to_owned(),
            Err(_) => "is not an address".to_owned(),
        };
        self.report(node.place, &format!("`address`: {text:?} {reason}"), CURE);
        None
    }
}

/// A word of a check as the mapping `check` has it.
fn bare(word: &'static str) -> &'static str {
    word.trim_start_matches("check.")
}

/// `HOST:PORT`, where the host is a name.
fn is_named(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        port.parse::<u16>().is_ok()
            && host.contains(|c: char| c.is_ascii_alphabetic())
            && crate::words::validate_host(host).is_ok()
    })
}

#[cfg(test)]
mod tests;
