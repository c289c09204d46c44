//! The words that labels and the entries of files share, such as `host`, `path` and `check.interval`: how each is read and what
//! it may say. What the words stand in, and what a mistake costs, is the business of whoever reads them.

mod check;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) use self::check::CHECK;
use crate::config::parse_weight;
use crate::instance::Claim;
use crate::traffic::{Protocol, Retry, Traffic};
use crate::{ServiceName, duration, suggest};

/// What a duration may be.
pub(crate) const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(1);

/// Longer, and clients and Envoy's own limit for idle streams would have given up.
const LONGEST_HOLD: Duration = Duration::from_mins(2);

/// Host names of one container or entry (threats T13).
const MAX_HOSTS: usize = 32;

/// Words and what they say, blanks around it cut off.
#[derive(Clone, Debug)]
pub(crate) struct Words<'a> {
    prefix: String,
    said: BTreeMap<&'a str, &'a str>,
}

/// A word that says what it cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The word, without prefix.
    pub(crate) word: &'static str,
    /// What is wrong with it.
    pub(crate) reason: String,
    /// What to do about it.
    pub(crate) cure: String,
}

impl Fault {
    fn new(word: &'static str, reason: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { word, reason: reason.into(), cure: cure.into() }
    }
}

impl<'a> Words<'a> {
    /// `prefix` is what people write before each word.
    pub(crate) fn new(prefix: &str, said: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { prefix: prefix.to_owned(), said: said.into_iter().map(|(word, text)| (word, text.trim())).collect() }
    }

    /// The word as people write it.
    pub(crate) fn written(&self, word: &str) -> String {
        format!("{}{word}", self.prefix)
    }

    pub(crate) fn get(&self, word: &str) -> Option<&'a str> {
        self.said.get(word).copied()
    }

    /// `path`, and the hosts, which come one by one.
    pub(crate) fn claim<'h>(&self, hosts: impl IntoIterator<Item = &'h str>) -> Result<Claim, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut own = Vec::new();
        for host in hosts {
            match validate_host(host.trim()) {
                Ok(host) => own.push(host),
                Err(reason) => {
                    let cure = "write host names such as `shop.example.com`, separated by commas";
                    faults.push(Fault::new("host", reason, cure));
                }
            }
        }
        if own.len() > MAX_HOSTS {
            let reason = format!("{} hosts; {MAX_HOSTS} are allowed", own.len());
            faults.push(Fault::new("host", reason, "name fewer hosts"));
        }
        own.sort_unstable();
        own.dedup();
        let path = self.get("path").unwrap_or("/");
        if let Err(reason) = validate_path(path) {
            faults.push(Fault::new("path", reason, "write a prefix such as `/` or `/api`"));
        }
        if faults.is_empty() { Ok(Claim { hosts: own, path: path.to_owned() }) } else { Err(faults) }
    }

    /// `protocol`.
    pub(crate) fn protocol(&self) -> Result<Protocol, Fault> {
        Ok(self.one_of("protocol", &Protocol::WORDS)?.unwrap_or_default())
    }

    /// `timeout`, `retry`, `slowstart` and `ready.hold`.
    pub(crate) fn traffic(&self) -> Result<Traffic, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut keep = |fault| faults.push(fault);
        let timeout = self.duration_said("timeout").map_err(&mut keep);
        let retry = self.one_of("retry", &Retry::WORDS).map_err(&mut keep);
        let slow_start = self.duration_said("slowstart").map_err(&mut keep);
        let hold = self.hold().map_err(&mut keep);
        match (timeout, retry, slow_start, hold) {
            (Ok(timeout), Ok(retry), Ok(slow_start), Ok(hold)) => Ok(Traffic { timeout, retry, slow_start, hold }),
            _ => Err(faults),
        }
    }

    /// `depends_on`: names of services, separated by commas.
    pub(crate) fn depends_on(&self) -> Result<Vec<ServiceName>, Fault> {
        const WORD: &str = "depends_on";
        let names = self.get(WORD).into_iter().flat_map(|names| names.split(',')).map(str::trim);
        names
            .map(|name| {
                ServiceName::new(name).map_err(|error| {
                    let cure = "write the names of services, separated by commas";
                    Fault::new(WORD, format!("{name:?} is not the name of a service: {error}"), cure)
                })
            })
            .collect()
    }

    /// `canary.weight`: a share in basis points.
    pub(crate) fn canary_weight(&self) -> Result<Option<u32>, Fault> {
        const WORD: &str = "canary.weight";
        let Some(text) = self.get(WORD) else { return Ok(None) };
        let cure = "write percent from 0 to 100 with at most two decimals, without a sign: 12.5";
        parse_weight(text).map(Some).ok_or_else(|| Fault::new(WORD, format!("{text:?} is not a weight"), cure))
    }

    fn hold(&self) -> Result<Option<Duration>, Fault> {
        const WORD: &str = "ready.hold";
        let hold = self.duration_said(WORD)?;
        if hold.is_some_and(|hold| hold > LONGEST_HOLD) {
            let reason = format!("{:?} is out of range", self.get(WORD).unwrap_or_default());
            return Err(Fault::new(WORD, reason, "use a duration from 10ms to 2m"));
        }
        Ok(hold)
    }

    /// What one of these words stands for.
    fn one_of<T: Copy>(&self, word: &'static str, known: &[(&'static str, T)]) -> Result<Option<T>, Fault> {
        let Some(text) = self.get(word) else { return Ok(None) };
        let meant = suggest::one_of(text, known);
        meant.map(Some).map_err(|cure| Fault::new(word, format!("there is no {word} {text:?}"), cure))
    }

    pub(crate) fn duration(&self, word: &'static str, default: Duration) -> Result<Duration, Fault> {
        self.duration_said(word).map(|said| said.unwrap_or(default))
    }

    fn duration_said(&self, word: &'static str) -> Result<Option<Duration>, Fault> {
        let Some(text) = self.get(word) else { return Ok(None) };
        match duration::parse(text) {
            Ok(duration) if DURATIONS.contains(&duration) => Ok(Some(duration)),
            Ok(_) => Err(Fault::new(word, format!("{text:?} is out of range"), "use a duration from 10ms to 1h")),
            Err(reason) => Err(Fault::new(word, reason, "use a duration such as `500ms` or `2s`")),
        }
    }
}

/// A host name as Envoy matches it: lower-case ASCII labels (RFC 1123), without port.
pub(crate) fn validate_host(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err("a host name is empty".to_owned());
    }
    if !host.is_ascii() {
        return Err(format!("{host:?} is not ASCII: write international names in their `xn--` form"));
    }
    if host.len() > 253 {
        return Err("a host name is longer than 253 characters".to_owned());
    }
    let host = host.to_ascii_lowercase();
    for label in host.split('.') {
        let fits = !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-');
        if !fits {
            return Err(format!("{host:?} is not a host name"));
        }
    }
    Ok(host)
}

/// A path of RFC 3986 characters that begins with `/`, without query, fragment and dot segments.
pub(crate) fn validate_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("{path:?} does not begin with `/`"));
    }
    validate_characters(path, path)?;
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(format!("{path:?} has a dot segment"));
    }
    Ok(())
}

/// Whether `part` of a path, or of its query, has only characters that it can have.
fn validate_characters(part: &str, path: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&b);
    match part.chars().find(|c| !u8::try_from(*c).is_ok_and(allowed)) {
        Some(bad) => Err(format!("{path:?} has the character {bad:?}, which a path cannot have")),
        None => Ok(()),
    }
}
