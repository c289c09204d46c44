//! How an edge speaks to the instances of a service: the protocol, and how long and how often it tries. Containers and entries say
//! it in words, and the configuration says otherwise where it wants.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an instance understands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 in plain text.
    #[default]
    Http1,
    /// HTTP/2 in plain text, with prior knowledge.
    H2c,
    /// gRPC: HTTP/2 in plain text, where a client's own deadline (`grpc-timeout`) holds at the edge, too.
    Grpc,
    /// TLS; HTTP/2 where the instance offers it, else HTTP/1.1. Its certificate is not verified: who it is, is known by its
    /// address.
    Https,
}

/// What is tried on another instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retry {
    /// What reached no application, whatever its method; and what may be repeated (GET, HEAD, OPTIONS) when its connection ended,
    /// or its time, before the answer began.
    #[default]
    Safe,
    /// Nothing.
    Off,
    /// What [`Safe`](Self::Safe) tries, as if every method could be repeated.
    All,
}

/// What is said of the requests to a service; `None`: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Traffic {
    /// How long a try may take from the request's end to the beginning of its answer. Without one there is no limit: an answer may
    /// take its time.
    pub timeout: Option<Duration>,
    /// What is tried again.
    pub retry: Option<Retry>,
    /// How long a newcomer takes to get its full share.
    pub slow_start: Option<Duration>,
    /// How long a request waits at the edge for an instance to be ready.
    pub hold: Option<Duration>,
}

impl Protocol {
    /// Each with the word for it.
    pub const WORDS: [(&'static str, Self); 4] =
        [("http1", Self::Http1), ("h2c", Self::H2c), ("grpc", Self::Grpc), ("https", Self::Https)];
}

impl Retry {
    /// Each with the word for it.
    pub const WORDS: [(&'static str, Self); 3] = [("safe", Self::Safe), ("off", Self::Off), ("all", Self::All)];
}

impl Traffic {
    /// What this says, and what `other` says where this says nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            timeout: self.timeout.or(other.timeout),
            retry: self.retry.or(other.retry),
            slow_start: self.slow_start.or(other.slow_start),
            hold: self.hold.or(other.hold),
        }
    }
}

/// In the words that it was said in.
impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retry = Retry::WORDS.into_iter().find(|(_, retry)| Some(*retry) == self.retry);
        let said = [
            self.timeout.map(|timeout| format!("timeout {timeout:?}")),
            retry.map(|(word, _)| format!("retry {word}")),
            self.slow_start.map(|window| format!("slowstart {window:?}")),
            self.hold.map(|hold| format!("ready.hold {hold:?}")),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        f.write_str(if said.is_empty() { "nothing" } else { "" })?;
        f.write_str(&said.join(", "))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::WORDS.into_iter().find(|(_, protocol)| protocol == self).map_or("", |(word, _)| word))
    }
}
