//! How an instance is checked, as its labels or its entry say. Nothing here checks anything.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::{InstanceId, as_millis};
use crate::config::ServiceTls;

/// How an instance is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What is done.
    pub kind: CheckKind,
    /// Where: another port of the same container or entry; `None`: at the instance's own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// From the end of one check to the start of the next.
    #[serde(serialize_with = "as_millis", rename = "intervalMs")]
    pub interval: Duration,
    /// How long one check may take.
    #[serde(serialize_with = "as_millis", rename = "timeoutMs")]
    pub timeout: Duration,
    /// Successes in a row that make an instance ready again. One suffices for an instance that was never ready.
    pub rise: u32,
    /// Failures in a row that make it not ready.
    pub fall: u32,
    /// How long an instance that never passed counts as starting, from when it was first seen.
    #[serde(serialize_with = "as_millis", rename = "graceMs")]
    pub grace: Duration,
}

/// What a check does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CheckKind {
    /// A TCP connection is accepted.
    Tcp,
    /// A GET is answered as expected.
    Http(HttpCheck),
    /// The same over TLS.
    Https {
        /// What is asked and expected.
        #[serde(flatten)]
        http: HttpCheck,
        /// What of the certificate is looked at.
        tls: CheckTls,
    },
    /// `grpc.health.v1.Health/Check`, over HTTP/2 without TLS, says SERVING.
    Grpc {
        /// The service that is asked for; empty: the server as a whole.
        service: String,
        /// What `:authority` says; `None`: the address.
        #[serde(skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
    /// Docker's HEALTHCHECK alone decides.
    Docker,
    /// Running is ready.
    None,
}

/// What an HTTP check asks for, and what it expects. All that is said has to be so. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HttpCheck {
    /// Path and query, beginning with `/`.
    pub path: String,
    /// What `Host` says, and over TLS the name that the certificate has to have; `None`: the address, and any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The statuses that pass.
    pub status: Statuses,
    /// The header that has to be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderMatch>,
    /// What has to stand in the first [`MAX_BODY`] bytes of the body; `None`: no body is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

impl HttpCheck {
    /// A GET of `path` that is answered with 200 to 299.
    #[must_use]
    pub fn get(path: &str) -> Self {
        Self { path: path.to_owned(), host: None, status: Statuses::default(), header: None, body: None }
    }
}

/// Bytes of a body that are read at most (threats T8).
pub const MAX_BODY: usize = 4 << 10;

/// What a check over TLS looks at. The issuer is looked at only where the configuration says whom it may be: whoever a container's own
/// certificate is from, no authority knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckTls {
    /// The certificate is valid now, and for the host of the check where it names one.
    #[default]
    Verify,
    /// Nothing of the certificate.
    Skip,
    /// As `Verify`, and that one of these has issued it; for their name where the check names no host.
    Issued(Arc<ServiceTls>),
}

/// Statuses that pass, as ranges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Statuses(pub Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Whether a status passes.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self(vec![200..=299])
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (only, end) if only == end => write!(f, "{comma}{only}")?,
                (start, end) => write!(f, "{comma}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A header that an answer has to have.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct HeaderMatch {
    /// Its name, in lower case.
    pub name: String,
    /// Its value, exactly; `None`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl CheckKind {
    /// Whether tidegate itself has to probe.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !matches!(self, Self::Docker | Self::None)
    }

    /// The word that labels have for it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(_) => "http",
            Self::Https { .. } => "https",
            Self::Grpc { .. } => "grpc",
            Self::Docker => "docker",
            Self::None => "none",
        }
    }
}

impl Check {
    /// Where the check of an instance goes.
    #[must_use]
    pub fn target(&self, id: &InstanceId) -> SocketAddr {
        self.address.unwrap_or(id.address)
    }

    /// What is done to check an instance, in words; `None`: tidegate does nothing.
    #[must_use]
    pub fn action(&self, id: &InstanceId) -> Option<String> {
        let at = self.target(id);
        let named = |host: &Option<String>| host.as_ref().map(|host| format!(" as `{host}`")).unwrap_or_default();
        match &self.kind {
            CheckKind::Tcp => Some(format!("TCP connection to {at}")),
            CheckKind::Http(http) => Some(format!("GET http://{at}{}{}", http.path, named(&http.host))),
            CheckKind::Https { http, .. } => Some(format!("GET https://{at}{}{}", http.path, named(&http.host))),
            CheckKind::Grpc { service, host } if service.is_empty() => {
                Some(format!("gRPC health of {at}{}", named(host)))
            }
            CheckKind::Grpc { service, host } => Some(format!("gRPC health of `{service}` at {at}{}", named(host))),
            CheckKind::Docker | CheckKind::None => None,
        }
    }
}

/// Default interval: with `fall` 2 and a timeout of 1 s, a silent instance is out after 4 s at the latest.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
/// Default timeout of one check.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// Default `rise` and `fall`: one lost packet flips nothing.
pub const DEFAULT_THRESHOLD: u32 = 2;
/// Default grace: none, so that what does not listen is told at once.
pub const DEFAULT_GRACE: Duration = Duration::ZERO;

impl Default for Check {
    fn default() -> Self {
        Self {
            kind: CheckKind::Tcp,
            address: None,
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            rise: DEFAULT_THRESHOLD,
            fall: DEFAULT_THRESHOLD,
            grace: DEFAULT_GRACE,
        }
    }
}
