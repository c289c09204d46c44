//! The words `check.*`: what a check does, what it expects, and how often.

use std::ops::RangeInclusive;

use super::{Fault, Words, validate_host, validate_path};
use crate::instance::{Check, CheckKind, CheckTls, DEFAULT_GRACE, HeaderMatch, HttpCheck, Statuses};
use crate::suggest;

/// All of them.
pub(crate) const CHECK: [&str; 14] = [
    "check.type",
    "check.port",
    "check.path",
    "check.host",
    "check.status",
    "check.header",
    "check.body",
    "check.tls",
    "check.service",
    "check.interval",
    "check.timeout",
    "check.rise",
    "check.fall",
    "check.grace",
];

/// The types, as they are suggested; `docker` is for containers alone.
const TYPES: [&str; 6] = ["tcp", "http", "https", "grpc", "none", "docker"];
/// The words that only some types have.
const ONLY_OF: [(&str, &[&str]); 9] = [
    ("check.port", &["tcp", "http", "https", "grpc"]),
    ("check.path", &["http", "https"]),
    ("check.host", &["http", "https", "grpc"]),
    ("check.status", &["http", "https"]),
    ("check.header", &["http", "https"]),
    ("check.body", &["http", "https"]),
    ("check.tls", &["https"]),
    ("check.service", &["grpc"]),
    ("check.grace", &["tcp", "http", "https", "grpc"]),
];

/// The statuses that an answer can have.
const STATUSES: RangeInclusive<u16> = 200..=599;
/// Ranges of statuses.
const MAX_RANGES: usize = 32;
/// Bytes of what has to stand in a header or a body, as of a label's value.
const MAX_TEXT: usize = 1024;

impl Words<'_> {
    /// `check.*`. `healthcheck` says whether Docker has a HEALTHCHECK to go by; `None`: it is no container's. Where
    /// [`check.port`](Self::check_port) leads is not said here.
    pub(crate) fn check(&self, healthcheck: Option<bool>) -> Result<Check, Vec<Fault>> {
        let default = Check::default();
        let mut faults = Vec::new();
        let mut keep = |fault| faults.push(fault);
        let kind = self.kind(healthcheck).map_err(&mut keep).ok();
        let http = self.http(&mut keep);
        let host = self.optional("check.host", check_host).map_err(&mut keep).ok();
        let tls = self.tls().map_err(&mut keep).ok();
        let service = self.optional("check.service", grpc_service).map_err(&mut keep).ok();
        let interval = self.duration("check.interval", default.interval).map_err(&mut keep).ok();
        let timeout = self.duration("check.timeout", default.timeout).map_err(&mut keep).ok();
        let rise = self.threshold("check.rise", default.rise).map_err(&mut keep).ok();
        let fall = self.threshold("check.fall", default.fall).map_err(&mut keep).ok();
        let grace = self.duration("check.grace", DEFAULT_GRACE).map_err(&mut keep).ok();
        if let Some(kind) = kind {
            // Of a word that says nothing sound it is told what is wrong with it, and first that.
            let sound = |word: &str| faults.iter().all(|fault| fault.word != word);
            let misplaced = ONLY_OF.iter().filter(|(word, _)| sound(word));
            let misplaced: Vec<Fault> =
                misplaced.filter_map(|(word, types)| self.misplaced(word, types, kind)).collect();
            faults.extend(misplaced);
        }
        match (kind, http, host, tls, service, interval.zip(timeout), rise.zip(fall), grace) {
            (
                Some(kind),
                Some(http),
                Some(host),
                Some(tls),
                Some(service),
                Some((interval, timeout)),
                Some((rise, fall)),
                Some(grace),
            ) if faults.is_empty() => {
                let kind = match kind {
                    "http" => CheckKind::Http(HttpCheck { host, ..http }),
                    "https" => CheckKind::Https { http: HttpCheck { host, ..http }, tls },
                    "grpc" => CheckKind::Grpc { service: service.unwrap_or_default(), host },
                    "docker" => CheckKind::Docker,
                    "none" => CheckKind::None,
                    _ => CheckKind::Tcp,
                };
                Ok(Check { kind, address: None, interval, timeout, rise, fall, grace })
            }
            _ => Err(faults),
        }
    }

    /// `check.port`, another port of the same container or entry.
    pub(crate) fn check_port(&self) -> Result<Option<u16>, Vec<Fault>> {
        self.optional("check.port", |text| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err((format!("{text:?} is not a port"), "write a number from 1 to 65535")),
        })
        .map_err(|fault| vec![fault])
    }

    fn kind(&self, healthcheck: Option<bool>) -> Result<&'static str, Fault> {
        const WORD: &str = "check.type";
        const ENTRY: &str = "use tcp, http, https, grpc or none";
        const CONTAINER: &str = "use tcp, http, https, grpc, docker or none";
        let Some(text) = self.get(WORD) else { return Ok("tcp") };
        match (TYPES.into_iter().find(|known| *known == text), healthcheck) {
            (Some("docker"), Some(false)) => Err(Fault::new(
                WORD,
                "it is `docker`, but the container has no HEALTHCHECK",
                "add a HEALTHCHECK to the image, or use the type `tcp` or `http`",
            )),
            (Some("docker"), None) => Err(Fault::new(WORD, "it is `docker`, but this is no container", ENTRY)),
            (Some(known), _) => Ok(known),
            (None, _) => {
                let (known, otherwise) = match healthcheck {
                    Some(_) => (&TYPES[..], CONTAINER),
                    None => (&TYPES[..5], ENTRY),
                };
                let cure = suggest::did_you_mean(text, known.iter().copied(), || otherwise.to_owned());
                Err(Fault::new(WORD, format!("there is no check {text:?}"), cure))
            }
        }
    }

    /// That a word is there which checks of this type do not have.
    fn misplaced(&self, word: &'static str, types: &[&'static str], kind: &str) -> Option<Fault> {
        let (last, others) = types.split_last()?;
        if types.contains(&kind) || self.get(word).is_none() {
            return None;
        }
        let types = match others {
            [] => format!("`{last}`"),
            others => {
                format!("{} or `{last}`", others.iter().map(|of| format!("`{of}`")).collect::<Vec<_>>().join(", "))
            }
        };
        let cure = format!("set `{}` to {types}, or leave this out", self.written("check.type"));
        Some(Fault::new(word, format!("checks of the type `{kind}` have none, only those of {types}"), cure))
    }

    /// What an HTTP check asks and expects, without its host.
    fn http(&self, keep: &mut impl FnMut(Fault)) -> Option<HttpCheck> {
        let default = HttpCheck::get("/");
        let path = self.optional("check.path", check_path).map_err(&mut *keep).ok();
        let status = self.optional("check.status", statuses).map_err(&mut *keep).ok();
        let header = self.optional("check.header", header).map_err(&mut *keep).ok();
        let body = self.optional("check.body", body).map_err(&mut *keep).ok();
        Some(HttpCheck {
            path: path?.unwrap_or(default.path),
            host: None,
            status: status?.unwrap_or(default.status),
            header: header?,
            body: body?,
        })
    }

    fn tls(&self) -> Result<CheckTls, Fault> {
        let tls = self.optional("check.tls", |text| match text {
            "verify" => Ok(CheckTls::Verify),
            "skip" => Ok(CheckTls::Skip),
            other => Err((format!("it is {other:?}"), "write `verify` or `skip`")),
        })?;
        Ok(tls.unwrap_or_default())
    }

    fn threshold(&self, word: &'static str, default: u32) -> Result<u32, Fault> {
        let number = self.optional(word, |text| match text.parse::<u32>() {
            Ok(number @ 1..=100) => Ok(number),
            _ => Err((format!("{text:?} is not a whole number from 1 to 100"), "write a number such as `2`")),
        })?;
        Ok(number.unwrap_or(default))
    }

    /// A word that need not be there; what is wrong with it comes as reason and cure.
    fn optional<T>(
        &self,
        word: &'static str,
        read: impl FnOnce(&str) -> Result<T, (String, &'static str)>,
    ) -> Result<Option<T>, Fault> {
        let read = self.get(word).map(read).transpose();
        read.map_err(|(reason, cure)| Fault::new(word, reason, cure))
    }
}

type Said<T> = Result<T, (String, &'static str)>;

/// A path of the instance itself, never an absolute URL (threats T8).
fn check_path(text: &str) -> Said<String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    // What a query may have, a path may have, too, but for further `?`.
    let read = validate_path(path).and_then(|()| super::validate_characters(&query.replace('?', "/"), text));
    read.map(|()| text.to_owned()).map_err(|reason| (reason, "write a path such as `/healthz`"))
}

fn check_host(text: &str) -> Said<String> {
    validate_host(text).map_err(|reason| (reason, "write one host name such as `shop.example.com`"))
}

fn statuses(text: &str) -> Said<Statuses> {
    const CURE: &str = "write statuses such as `200-299` or `200,204`";
    let mut ranges = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (start, end) = part.split_once('-').unwrap_or((part, part));
        match (start.trim().parse::<u16>(), end.trim().parse::<u16>()) {
            (Ok(start), Ok(end)) if STATUSES.contains(&start) && STATUSES.contains(&end) && start <= end => {
                ranges.push(start..=end);
            }
            _ => return Err((format!("{part:?} is not a status or a range of them, from 200 to 599"), CURE)),
        }
    }
    if ranges.len() > MAX_RANGES {
        return Err((format!("{} ranges; {MAX_RANGES} are allowed", ranges.len()), CURE));
    }
    Ok(Statuses(ranges))
}

fn header(text: &str) -> Said<HeaderMatch> {
    const CURE: &str = "write a name such as `x-ready`, or a name and its value such as `x-ready: yes`";
    let (name, value) = text.split_once(':').map_or((text, None), |(name, value)| (name.trim(), Some(value.trim())));
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err((format!("{name:?} is not the name of a header"), CURE));
    }
    if let Some(value) = value
        && (value.is_empty() || value.len() > MAX_TEXT || !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()))
    {
        return Err((format!("{value:?} is not a value of visible ASCII characters, {MAX_TEXT} at most"), CURE));
    }
    Ok(HeaderMatch { name: name.to_ascii_lowercase(), value: value.map(str::to_owned) })
}

fn body(text: &str) -> Said<String> {
    match text.len() {
        1..=MAX_TEXT => Ok(text.to_owned()),
        0 => Err(("it is empty".to_owned(), "write what the body has to contain, such as `ok`")),
        length => Err((format!("it has {length} bytes; {MAX_TEXT} are allowed"), "write a shorter part of the body")),
    }
}

/// A name such as `shop.v1.Carts`; Envoy and others ask for names with further characters.
fn grpc_service(text: &str) -> Said<String> {
    let fits = (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    let reason = || format!("{text:?} is not the name of a gRPC service");
    if fits { Ok(text.to_owned()) } else { Err((reason(), "write a name such as `shop.v1.Carts`")) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(said: &[(&str, &str)]) -> Result<Check, Vec<Fault>> {
        Words::new("", said.iter().copied()).check(Some(true))
    }

    #[test]
    fn every_word_is_of_the_types_that_have_it_and_of_no_other() {
        for kind in TYPES {
            for word in CHECK {
                let value = match word {
                    "check.type" => continue,
                    "check.path" => "/x",
                    "check.tls" => "skip",
                    "check.port" | "check.rise" | "check.fall" => "80",
                    "check.status" => "204",
                    "check.interval" | "check.timeout" | "check.grace" => "1s",
                    _ => "x",
                };
                let has = ONLY_OF.iter().find(|(only, _)| *only == word).is_none_or(|(_, types)| types.contains(&kind));
                let faults = read(&[("check.type", kind), (word, value)]).err().unwrap_or_default();
                let words: Vec<&str> = faults.iter().map(|fault| fault.word).collect();
                assert_eq!(words, if has { vec![] } else { vec![word] }, "{kind} {word}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_read_of_statuses_is_what_was_said(text in "[0-9]{3}(-[0-9]{3})?(, ?[0-9]{3}(-[0-9]{3})?){0,3}") {
            if let Ok(read) = statuses(&text) {
                prop_assert_eq!(statuses(&read.to_string()), Ok(read.clone()));
                let said = |status: u16| text.split(',').map(str::trim).any(|part| {
                    let (start, end) = part.split_once('-').unwrap_or((part, part));
                    (start..=end).contains(&status.to_string().as_str())
                });
                for status in 100..=599 {
                    prop_assert_eq!(read.contains(status), said(status), "{}", status);
                }
            }
        }

        #[test]
        fn whatever_a_check_says_is_sound_or_has_a_reason(
            kind in proptest::sample::select(TYPES.to_vec()),
            said in proptest::collection::btree_map(proptest::sample::select(CHECK[1..].to_vec()), ".{0,20}", 0..6),
        ) {
            let said = said.iter().map(|(word, text)| (*word, text.as_str())).chain([("check.type", kind)]);
            let words = Words::new("", said);
            match words.check(Some(true)) {
                Ok(check) => prop_assert_eq!(check.kind.word(), kind),
                Err(faults) => prop_assert!(!faults.is_empty() && faults.iter().all(|fault| !fault.cure.is_empty())),
            }
        }
    }
}
