//! From the tree to the [`Config`]: each key is read by the function of its place, and every mistake becomes a problem.

mod analysis;
mod canary;
mod docker;
mod groups;
mod ownership;
mod pattern;
mod services;
mod tls;
mod values;
mod webhooks;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::values::basis_points;
use super::tree::{Node, Place, Value};
use super::{Admin, Canary, Config, Listener, Reach, XdsTls, tree};
use crate::name::NameError;
use crate::{Code, Problem, ServiceName, VersionName, suggest};

/// More often costs more than it tells; more rarely, and nobody would watch.
const LOAD_REPORT_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(5);

const CONFIGURATION: Document = Document {
    code: Code::InvalidConfig,
    effect: "the file is not used; what was in force stays",
    root: "the file",
    in_root: "at the top of the file",
};

pub(super) fn read(file: &str, text: &str) -> Result<Config, Vec<Problem>> {
    let mut reader = Reader::new(file, &CONFIGURATION);
    let config = match tree::parse(text) {
        Ok(root) => reader.root(&root),
        Err((place, reason)) => {
            reader.report(place, &format!("this is not YAML: {reason}"), "mend the syntax at this place");
            Config::default()
        }
    };
    if reader.problems.is_empty() { Ok(config) } else { Err(reader.problems) }
}

const PLAN: Document = Document {
    code: Code::InvalidConfig,
    effect: "no rollout begins",
    root: "the plan",
    in_root: "at the top of the plan",
};

pub(super) fn read_canary(version: &VersionName, text: &str) -> Result<Arc<Canary>, Vec<Problem>> {
    let mut reader = Reader::new("plan", &PLAN);
    match tree::parse(text) {
        Ok(mut root) => {
            if let Value::Null = root.value {
                root.value = Value::Map(Vec::new());
            }
            if let Value::Map(entries) = &mut root.value {
                if let Some((place, ..)) = entries.iter().find(|(_, key, _)| key == "version") {
                    reader.report(*place, "the plan names a version", "name it by `--version`");
                    entries.retain(|(_, key, _)| key != "version");
                }
                let value = Value::Scalar(version.as_str().to_owned());
                entries.push((root.place, "version".to_owned(), Node { place: root.place, value }));
            }
            let canary = reader.canary("canary", &root);
            canary.filter(|_| reader.problems.is_empty()).ok_or(reader.problems)
        }
        Err((place, reason)) => {
            reader.report(place, &format!("this is not YAML: {reason}"), "mend the syntax at this place");
            Err(reader.problems)
        }
    }
}

/// What a file holds, as far as its problems tell.
pub(crate) struct Document {
    pub(crate) code: Code,
    pub(crate) effect: &'static str,
    /// What the outermost mapping is.
    pub(crate) root: &'static str,
    /// Where its keys stand.
    pub(crate) in_root: &'static str,
}

/// Reads nodes and keeps the problems it finds.
pub(crate) struct Reader<'a> {
    file: &'a str,
    document: &'static Document,
    pub(crate) problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// `file` is how problems name it.
    pub(crate) const fn new(file: &'a str, document: &'static Document) -> Self {
        Self { file, document, problems: Vec::new() }
    }

    pub(crate) fn report(&mut self, place: Place, reason: &str, cure: &str) {
        let subject = format!("{}:{place}", self.file);
        self.problems.push(Problem::error(self.document.code, subject, reason, self.document.effect, cure));
    }

    /// The entries of a mapping with known keys; `null` is an empty one. Unknown keys are reported.
    pub(crate) fn keys<'n>(&mut self, path: &str, node: &'n Node, known: &[&str]) -> BTreeMap<&'n str, &'n Node> {
        let entries = self.entries(path, node);
        for (place, key, _) in entries.iter().filter(|(_, key, _)| !known.contains(&key.as_str())) {
            let cure =
                suggest::did_you_mean(key, known.iter().copied(), || format!("the keys are {}", known.join(", ")));
            let of = if path.is_empty() { self.document.in_root.to_owned() } else { format!("in `{path}`") };
            self.report(*place, &format!("there is no key `{key}` {of}"), &cure);
        }
        entries.iter().map(|(_, key, value)| (key.as_str(), value)).collect()
    }

    fn entries<'n>(&mut self, path: &str, node: &'n Node) -> &'n [(Place, String, Node)] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                let of = if path.is_empty() { self.document.root.to_owned() } else { format!("`{path}`") };
                self.report(
                    node.place,
                    &format!("{of} is {}, not a mapping", other.kind()),
                    "write `key: value` lines below it",
                );
                &[]
            }
        }
    }

    fn items<'n>(&mut self, path: &str, node: &'n Node) -> &'n [Node] {
        match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            other => {
                self.report(
                    node.place,
                    &format!("`{path}` is {}, not a list", other.kind()),
                    "write `- item` lines below it",
                );
                &[]
            }
        }
    }

    pub(crate) fn text<'n>(&mut self, path: &str, node: &'n Node) -> Option<&'n str> {
        if let Value::Scalar(text) = &node.value {
            return Some(text);
        }
        self.report(node.place, &format!("`{path}` is {}, not a single value", node.value.kind()), "write one value");
        None
    }

    /// What the text stands for; the default where there is none. `noun` is what there is none of, where it is unknown.
    fn one_of<T: Copy + Default>(
        &mut self,
        noun: &str,
        path: &str,
        node: Option<&Node>,
        known: &[(&'static str, T)],
    ) -> T {
        node.and_then(|node| self.word(noun, path, node, known)).unwrap_or_default()
    }

    fn root(&mut self, root: &Node) -> Config {
        let mut config = Config::default();
        let keys = self.keys("", root, &["edge", "xds", "api", "providers", "ownership", "services"]);
        if let Some(node) = keys.get("edge") {
            self.edge(node, &mut config);
        }
        if let Some(node) = keys.get("xds") {
            self.xds(node, &mut config);
        }
        if let Some(node) = keys.get("api")
            && let Some(address) = self.keys("api", node, &["address"]).get("address")
            && let Some(address) = self.loopback("api.address", address)
        {
            config.api = address;
        }
        if let Some(node) = keys.get("providers") {
            self.providers(node, &mut config);
        }
        if let Some(node) = keys.get("ownership") {
            config.ownership = self.ownership(node);
        }
        if let Some(node) = keys.get("services") {
            for (place, name, node) in self.entries("services", node) {
                let service = self.name(*place, "a service", name, ServiceName::new);
                let declared = self.service(name, node);
                if let Some(service) = service {
                    config.services.insert(service, declared);
                }
            }
        }
        config
    }

    /// Whether an address needs TLS is for whoever serves there to say: [`Xds::exposed`].
    fn xds(&mut self, node: &Node, config: &mut Config) {
        let keys = self.keys("xds", node, &["address", "tls", "loadReportInterval"]);
        if let Some(address) = keys.get("address").and_then(|node| self.address("xds.address", node)) {
            config.xds.address = address;
        }
        if let Some(node) = keys.get("loadReportInterval")
            && let Some(interval) = self.duration("xds.loadReportInterval", node, &LOAD_REPORT_INTERVALS, "10s")
        {
            config.load_report_interval = interval;
        }
        let Some(node) = keys.get("tls") else { return };
        let files = self.keys("xds.tls", node, &["cert", "key", "clientCa"]);
        let mut file = |key: &str| {
            let path = format!("xds.tls.{key}");
            match files.get(key) {
                Some(file) => self.text(&path, file).filter(|text| !text.is_empty()).map(str::to_owned),
                None => {
                    self.report(
                        node.place,
                        &format!("`xds.tls` has no `{key}`"),
                        &format!("add `{key}: FILE`, a PEM file"),
                    );
                    None
                }
            }
        };
        if let (Some(cert), Some(key), Some(client_ca)) = (file("cert"), file("key"), file("clientCa")) {
            config.xds.tls = Some(XdsTls { cert, key, client_ca });
        }
    }

    fn providers(&mut self, node: &Node, config: &mut Config) {
        let keys = self.keys("providers", node, &["docker", "file"]);
        if let Some(node) = keys.get("file")
            && let Some(node) = self.keys("providers.file", node, &["path"]).get("path")
            && let Some(path) = self.text("providers.file.path", node)
        {
            if path.is_empty() {
                self.report(
                    node.place,
                    "`providers.file.path` is empty",
                    "name a file, or a directory of *.yaml files",
                );
            }
            config.file = Some(path.to_owned());
        }
        let Some(node) = keys.get("docker") else { return };
        config.docker = self.docker(node, config.file.is_some());
    }

    fn edge(&mut self, node: &Node, config: &mut Config) {
        let keys = self.keys("edge", node, &["listeners", "groups", "network", "reach", "node", "admin"]);
        if let Some(node) = keys.get("listeners") {
            let mut listeners: Vec<Listener> = Vec::new();
            for item in self.items("edge.listeners", node) {
                let Some(listener) = self.listener(item) else { continue };
                if let Some(twin) = listeners.iter().find(|l| l.name == listener.name || l.address == listener.address)
                {
                    let reason =
                        format!("the listener `{}` has the name or the address of `{}`", listener.name, twin.name);
                    self.report(item.place, &reason, "give each listener its own name and address");
                    continue;
                }
                listeners.push(listener);
            }
            if listeners.is_empty() && self.problems.is_empty() {
                self.report(
                    node.place,
                    "`edge.listeners` is empty",
                    "leave the key out for the default, or name a listener",
                );
            }
            config.edge.listeners = listeners;
        }
        if let Some(node) = keys.get("groups") {
            config.edge.groups = self.groups(node, &config.edge.listeners);
        }
        if let Some(node) = keys.get("network") {
            config.edge.network = self.text("edge.network", node).map(str::to_owned);
        }
        if let Some(node) = keys.get("reach") {
            let ways = [("containers", Reach::Containers), ("published", Reach::Published)];
            config.edge.reach = self.one_of("way", "edge.reach", Some(node), &ways);
            if config.edge.reach == Reach::Published && config.edge.network.is_some() {
                let reason =
                    "`edge.reach` is `published`, but `edge.network` says that Envoy is on the containers' network";
                self.report(node.place, reason, "leave one of the two out");
            }
        }
        if let Some(node) = keys.get("node") {
            let text = self.text("edge.node", node).unwrap_or_default();
            config.edge.node = text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast());
            if config.edge.node.is_none() {
                let reason = format!("`edge.node`: {text:?} is not the address of a node");
                self.report(node.place, &reason, "write an IP address, such as \"10.0.0.1\"");
            }
        }
        if let Some(node) = keys.get("admin") {
            config.edge.admin = match self.text("edge.admin", node) {
                Some(text) if text.starts_with("unix:") => {
                    Some(Admin::Unix(text.trim_start_matches("unix:").trim_start_matches("//").to_owned()))
                }
                Some(_) => self.loopback("edge.admin", node).map(Admin::Tcp),
                None => None,
            };
        }
    }

    fn listener(&mut self, node: &Node) -> Option<Listener> {
        let keys = self.keys("edge.listeners", node, &["name", "address"]);
        let (Some(name), Some(address)) = (keys.get("name"), keys.get("address")) else {
            self.report(
                node.place,
                "a listener needs `name` and `address`",
                "write { name: web, address: \"127.0.0.1:8080\" }",
            );
            return None;
        };
        let place = name.place;
        let name = self.text("edge.listeners.name", name)?;
        let name = self.name(place, "a listener", name, VersionName::new);
        let address = self.address("edge.listeners.address", address);
        Some(Listener { name: name?.as_str().to_owned(), address: address? })
    }

    fn address(&mut self, path: &str, node: &Node) -> Option<SocketAddr> {
        let text = self.text(path, node)?;
        match text.parse() {
            Ok(address) => Some(address),
            Err(_) => {
                self.report(
                    node.place,
                    &format!("`{path}`: {text:?} is not an address"),
                    "write IP:PORT, such as \"127.0.0.1:8080\"",
                );
                None
            }
        }
    }

    fn loopback(&mut self, path: &str, node: &Node) -> Option<SocketAddr> {
        let address = self.address(path, node)?;
        if address.ip().is_loopback() {
            return Some(address);
        }
        let reason =
            format!("`{path}`: {address} is not a loopback address, and nothing there would ask who is calling");
        self.report(node.place, &reason, "use 127.0.0.1 or [::1]; to reach it from elsewhere, tunnel to it");
        None
    }

    pub(crate) fn name<T>(
        &mut self,
        place: Place,
        what: &str,
        name: &str,
        new: fn(&str) -> Result<T, NameError>,
    ) -> Option<T> {
        match new(name) {
            Ok(name) => Some(name),
            Err(error) => {
                self.report(place, &format!("{name:?} cannot be the name of {what}: {error}"), "use another name");
                None
            }
        }
    }
}
