//! The words that labels and the entries of files share, such as `host`, `path` and `check.interval`: how each is read and what
//! it may say. What the words stand in, and what a mistake costs, is the business of whoever reads them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::instance::{Check, CheckKind, Claim};
use crate::traffic::{Protocol, Retry, Traffic};
use crate::{duration, suggest};

/// What a duration may be.
pub(crate) const DURATIONS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_hours(1);

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

    /// `check.*`. `healthcheck` says whether Docker has a HEALTHCHECK to go by; `None`: it is no container's.
    pub(crate) fn check(&self, healthcheck: Option<bool>) -> Result<Check, Vec<Fault>> {
        let default = Check::default();
        let path = self.get("check.path");
        if let Some(path) = path
            && let Err(reason) = validate_path(path.split('?').next().unwrap_or(path))
        {
            return Err(vec![Fault::new("check.path", reason, "write a path such as `/healthz`")]);
        }
        let mut faults = Vec::new();
        let kind = self.kind(path, healthcheck).map_err(|fault| faults.push(fault)).ok();
        if path.is_some() && !matches!(kind, Some(CheckKind::Http { .. }) | None) {
            let cure = format!("set `{}` to `http`", self.written("check.type"));
            faults.push(Fault::new("check.path", "only an http check has a path", cure));
        }
        let mut keep = |fault| faults.push(fault);
        let interval = self.duration("check.interval", default.interval).map_err(&mut keep).ok();
        let timeout = self.duration("check.timeout", default.timeout).map_err(&mut keep).ok();
        let rise = self.threshold("check.rise", default.rise).map_err(&mut keep).ok();
        let fall = self.threshold("check.fall", default.fall).map_err(&mut keep).ok();
        match (kind, interval, timeout, rise, fall) {
            (Some(kind), Some(interval), Some(timeout), Some(rise), Some(fall)) if faults.is_empty() => {
                Ok(Check { kind, interval, timeout, rise, fall })
            }
            _ => Err(faults),
        }
    }

    fn kind(&self, path: Option<&str>, healthcheck: Option<bool>) -> Result<CheckKind, Fault> {
        const WORD: &str = "check.type";
        match (self.get(WORD), healthcheck) {
            (None | Some("tcp"), _) => Ok(CheckKind::Tcp),
            (Some("http"), _) => Ok(CheckKind::Http { path: path.unwrap_or("/").to_owned() }),
            (Some("none"), _) => Ok(CheckKind::None),
            (Some("docker"), Some(true)) => Ok(CheckKind::Docker),
            (Some("docker"), Some(false)) => Err(Fault::new(
                WORD,
                "it is `docker`, but the container has no HEALTHCHECK",
                "add a HEALTHCHECK to the image, or use the type `tcp` or `http`",
            )),
            (Some("docker"), None) => {
                Err(Fault::new(WORD, "it is `docker`, but this is no container", "use tcp, http or none"))
            }
            (Some(other), Some(_)) => {
                let cure = suggest::did_you_mean(other, ["tcp", "http", "docker", "none"], || {
                    "use tcp, http, docker or none".to_owned()
                });
                Err(Fault::new(WORD, format!("there is no check {other:?}"), cure))
            }
            (Some(other), None) => {
                let cure = suggest::did_you_mean(other, ["tcp", "http", "none"], || "use tcp, http or none".to_owned());
                Err(Fault::new(WORD, format!("there is no check {other:?}"), cure))
            }
        }
    }

    /// `protocol`.
    pub(crate) fn protocol(&self) -> Result<Protocol, Fault> {
        Ok(self.one_of("protocol", &Protocol::WORDS)?.unwrap_or_default())
    }

    /// `timeout`, `retry` and `slowstart`.
    pub(crate) fn traffic(&self) -> Result<Traffic, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut keep = |fault| faults.push(fault);
        let timeout = self.duration_said("timeout").map_err(&mut keep);
        let retry = self.one_of("retry", &Retry::WORDS).map_err(&mut keep);
        let slow_start = self.duration_said("slowstart").map_err(&mut keep);
        match (timeout, retry, slow_start) {
            (Ok(timeout), Ok(retry), Ok(slow_start)) => Ok(Traffic { timeout, retry, slow_start }),
            _ => Err(faults),
        }
    }

    /// What one of these words stands for.
    fn one_of<T: Copy>(&self, word: &'static str, known: &[(&'static str, T)]) -> Result<Option<T>, Fault> {
        let Some(text) = self.get(word) else { return Ok(None) };
        if let Some((_, meant)) = known.iter().find(|(name, _)| *name == text) {
            return Ok(Some(*meant));
        }
        let names = || known.iter().map(|(name, _)| *name);
        let cure = suggest::did_you_mean(text, names(), || format!("use {}", listed(names())));
        Err(Fault::new(word, format!("there is no {word} {text:?}"), cure))
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

    fn threshold(&self, word: &'static str, default: u32) -> Result<u32, Fault> {
        let Some(text) = self.get(word) else { return Ok(default) };
        match text.parse::<u32>() {
            Ok(number @ 1..=100) => Ok(number),
            _ => {
                let reason = format!("{text:?} is not a whole number from 1 to 100");
                Err(Fault::new(word, reason, "write a number such as `2`"))
            }
        }
    }
}

/// `a, b or c`.
pub(crate) fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        [all @ .., before, last] => [all, &[&*format!("{before} or {last}")]].concat().join(", "),
        few => few.join(", "),
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
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&b);
    if let Some(bad) = path.chars().find(|c| !u8::try_from(*c).is_ok_and(allowed)) {
        return Err(format!("{path:?} has the character {bad:?}, which a path cannot have"));
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(format!("{path:?} has a dot segment"));
    }
    Ok(())
}
