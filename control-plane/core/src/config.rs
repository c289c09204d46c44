//! `tidegate.yaml`, validated: [`parse`] reads the whole file and returns either a [`Config`] or every problem in it, each with
//! line, column and cure. Nothing in it is guessed, and an unknown key is an error.

pub(crate) mod tree;
pub mod canary;
mod docker;
mod groups;
mod tls;
pub(crate) mod reader;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use self::canary::{Canary, HashOn, Salt};
pub use self::docker::{Docker, DockerEngine, DockerTls};
pub use self::groups::{DEFAULT_GROUP, NodeGroup, NodeGroups, NodeMatch, ServiceFilter, ServicePattern};
pub use self::tls::ServiceTls;
pub use self::tree::Place;
use crate::ownership::Ownership;
use crate::traffic::Traffic;
use crate::{Code, Problem, ServiceName, VersionName};

/// Where the edge listens unless the file says otherwise.
pub const DEFAULT_EDGE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where xDS is served unless the file says otherwise.
pub const DEFAULT_XDS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 18000);
/// Where the API is served unless the file says otherwise.
pub const DEFAULT_API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 18001);
/// How often edges report their load unless the file says otherwise: often enough to watch, and little to read.
pub const DEFAULT_LOAD_REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The local Docker engine.
pub const DEFAULT_DOCKER: &str = "unix:///var/run/docker.sock";

/// Basis points: a weight of 10,000 is all traffic.
pub const WHOLE: u32 = tidegate_filter_core::BUCKETS;

/// The valid configuration.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// The Envoys that face clients.
    pub edge: Edge,
    /// How xDS is served.
    pub xds: Xds,
    /// How often edges report their load.
    pub load_report_interval: Duration,
    /// Where the API is served.
    pub api: SocketAddr,
    /// The Docker engines as sources of instances.
    pub docker: Docker,
    /// A file of instances, or a directory of such files; relative to the working directory. `None`: none are read.
    pub file: Option<String>,
    /// Who may claim which hosts.
    pub ownership: Ownership,
    /// What is declared about services.
    pub services: BTreeMap<ServiceName, ServiceConfig>,
}

/// How xDS is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Xds {
    /// Where.
    pub address: SocketAddr,
    /// Mutual TLS; `None`: in plain text, to whoever connects.
    pub tls: Option<XdsTls>,
}

/// The files of mutual TLS, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct XdsTls {
    /// The server's certificate, and after it the intermediate ones.
    pub cert: String,
    /// Its private key.
    pub key: String,
    /// The authorities whose certificates edges show.
    pub client_ca: String,
}

impl Xds {
    /// The problem of an xDS that asks nobody who is calling where others than this machine can call: an error, unless it
    /// is `allowed`.
    #[must_use]
    pub fn exposed(&self, allowed: bool) -> Option<Problem> {
        if self.tls.is_some() || self.address.ip().is_loopback() {
            return None;
        }
        let subject = format!("`xds.address` {}", self.address);
        let reason = "it is not a loopback address, and without `xds.tls` nothing there asks who is calling";
        Some(if allowed {
            let effect = "whoever reaches it can read every host, route and endpoint, and say that it is an edge";
            Problem::error(Code::OpenXds, subject, reason, effect, "set `xds.tls`, and leave `--insecure-xds` out")
                .warning()
        } else {
            let effect = "the control plane does not start; an Envoy that runs keeps its configuration";
            let cure = "set `xds.tls`, or use 127.0.0.1 or [::1]; `--insecure-xds` serves it all the same";
            Problem::error(Code::OpenXds, subject, reason, effect, cure)
        })
    }
}

/// What an edge is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Edge {
    /// Listeners by name; the name is also that of the route configuration.
    pub listeners: Vec<Listener>,
    /// Which edges get only some of the listeners and services.
    pub groups: NodeGroups,
    /// The network that Envoy shares with containers; `None`: Envoy runs on the host.
    pub network: Option<String>,
    /// At which addresses Envoy reaches containers.
    pub reach: Reach,
    /// The node as Envoy reaches it, never an unspecified address; `None`: Envoy runs on it, unless it shares a `network`.
    pub node: Option<IpAddr>,
    /// Where Envoy's admin interface listens; `None`: a unix socket in the state directory.
    pub admin: Option<Admin>,
}

/// At which addresses Envoy reaches containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// At their own, on their networks.
    #[default]
    Containers,
    /// At the ports that they publish on the node.
    Published,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Where Envoy's admin interface listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Admin {
    /// A loopback address.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(String),
}

/// What is declared about one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceConfig {
    /// The version that gets all traffic that no canary gets; ends the pool.
    pub stable: Option<VersionName>,
    /// The version under trial. Never without a stable one, never equal to it.
    pub canary: Option<Arc<Canary>>,
    /// How its instances are to be asked, whatever they say themselves.
    #[serde(skip)]
    pub traffic: Traffic,
    /// Who issues the certificates of its instances; `None`: anybody.
    pub tls: Option<Arc<ServiceTls>>,
    /// What becomes of an instance that starts.
    pub when_starting: WhenStarting,
    /// What its clients get while none of its instances is ready.
    pub when_none_ready: WhenNoneReady,
}

/// What becomes of an instance that starts: whose HEALTHCHECK has not said anything yet, or whose check never passed and whose grace
/// is not over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenStarting {
    /// It waits until it is ready.
    #[default]
    Wait,
    /// It gets requests.
    Route,
}

/// What the clients of a service get while none of its instances is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenNoneReady {
    /// An error that says so, at once.
    #[default]
    Error,
    /// What those have to say that were ready last: a check that is wrong about all of them does not end the service.
    ServeLast,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            edge: Edge {
                listeners: vec![Listener { name: "web".to_owned(), address: DEFAULT_EDGE }],
                groups: NodeGroups::default(),
                network: None,
                reach: Reach::default(),
                node: None,
                admin: None,
            },
            xds: Xds { address: DEFAULT_XDS, tls: None },
            load_report_interval: DEFAULT_LOAD_REPORT_INTERVAL,
            api: DEFAULT_API,
            docker: Docker::default(),
            file: None,
            ownership: Ownership::default(),
            services: BTreeMap::new(),
        }
    }
}

impl Config {
    /// What differs from `other` and is read at start only; each is named as in the file.
    #[must_use]
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let mut keys = Vec::new();
        if self.xds.address != other.xds.address {
            keys.push("xds.address");
        }
        if self.xds.tls != other.xds.tls {
            keys.push("xds.tls");
        }
        if self.api != other.api {
            keys.push("api.address");
        }
        keys.extend(self.docker.changed(&other.docker));
        if self.file != other.file {
            keys.push("providers.file.path");
        }
        if self.edge.network != other.edge.network {
            keys.push("edge.network");
        }
        if self.edge.reach != other.edge.reach {
            keys.push("edge.reach");
        }
        if self.edge.node != other.edge.node {
            keys.push("edge.node");
        }
        if self.edge.admin != other.edge.admin {
            keys.push("edge.admin");
        }
        keys
    }
}

/// Reads a configuration. `file` is how problems name it.
///
/// # Errors
/// Every problem found, in the order of the file.
pub fn parse(file: &str, text: &str) -> Result<Config, Vec<Problem>> {
    reader::read(file, text)
}

/// The plan of a canary: what `canary:` of a service may say, but its version, as YAML.
///
/// # Errors
/// Every problem found, in the order of the text.
pub fn parse_canary(version: &VersionName, text: &str) -> Result<Arc<Canary>, Vec<Problem>> {
    reader::read_canary(version, text)
}

/// Basis points that people wrote as percent with at most two decimals; `None`: they did not, or it is more than everything.
#[must_use]
pub fn parse_weight(text: &str) -> Option<u32> {
    reader::basis_points(text).filter(|weight| *weight <= WHOLE)
}

/// A weight in basis points as people write it: `12.5 %`, `10 %`.
#[must_use]
pub fn percent(basis_points: u32) -> String {
    let (whole, rest) = (basis_points / 100, basis_points % 100);
    match rest {
        0 => format!("{whole} %"),
        rest if rest % 10 == 0 => format!("{whole}.{} %", rest / 10),
        rest => format!("{whole}.{rest:02} %"),
    }
}

#[cfg(test)]
mod tests;
