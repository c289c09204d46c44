//! Single values of the configuration: what each kind is, where it ends, and what is said of one that is none.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::canary::Figure;
use super::super::tree::{Node, Value};
use super::super::{WHOLE, percent};
use super::Reader;
use crate::{duration, suggest};

/// Bytes of the name of a header or cookie.
const MAX_TOKEN: usize = 128;

/// Bytes of a URL.
const MAX_URL: usize = 1024;

/// Items of one list of a canary.
const MAX_ITEMS: usize = 64;

impl Reader<'_> {
    /// The items of a list that has some, and not too many.
    pub(super) fn some_items<'n>(&mut self, path: &str, node: &'n Node) -> &'n [Node] {
        let items = self.items(path, node);
        if items.is_empty() && matches!(node.value, Value::List(_) | Value::Null) {
            self.report(
                node.place,
                &format!("`{path}` is empty"),
                "leave the key out, or write `- item` lines below it",
            );
        }
        match items.get(..MAX_ITEMS) {
            Some(first) if items.len() > MAX_ITEMS => {
                let reason = format!("`{path}` has {} items; {MAX_ITEMS} are allowed", items.len());
                self.report(node.place, &reason, "write fewer");
                first
            }
            _ => items,
        }
    }

    /// What the text stands for; `None`, and a problem, where it is unknown. `noun` is what there is none of then.
    pub(super) fn word<T: Copy>(
        &mut self,
        noun: &str,
        path: &str,
        node: &Node,
        known: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(path, node)?;
        match suggest::one_of(text, known) {
            Ok(meant) => Some(meant),
            Err(cure) => {
                self.report(node.place, &format!("`{path}`: there is no {noun} {text:?}"), &cure);
                None
            }
        }
    }

    pub(super) fn truth(&mut self, path: &str, node: &Node) -> Option<bool> {
        match self.text(path, node)? {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let reason = format!("`{path}`: {other:?} is neither true nor false");
                self.report(node.place, &reason, "write `true` or `false`");
                None
            }
        }
    }

    pub(super) fn whole<T>(&mut self, path: &str, node: &Node, range: &RangeInclusive<T>) -> Option<T>
    where
        T: std::str::FromStr + PartialOrd + std::fmt::Display,
    {
        let text = self.text(path, node)?;
        let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        let found = number.filter(|number| range.contains(number));
        if found.is_none() {
            let (from, to) = (range.start(), range.end());
            let reason = format!("`{path}`: {text:?} is not a whole number from {from} to {to}");
            self.report(node.place, &reason, "write digits alone");
        }
        found
    }

    /// A number with or without decimals.
    pub(super) fn figure(&mut self, path: &str, node: &Node, range: &RangeInclusive<f64>) -> Option<Figure> {
        let text = self.text(path, node)?;
        let found = figure(text).filter(|figure| range.contains(&figure.get()));
        if found.is_none() {
            let reason = format!("`{path}`: {text:?} is not a number from {} to {}", range.start(), range.end());
            self.report(node.place, &reason, "write a number such as `99.5`, without a unit");
        }
        found
    }

    pub(super) fn duration(
        &mut self,
        path: &str,
        node: &Node,
        range: &RangeInclusive<Duration>,
        example: &str,
    ) -> Option<Duration> {
        let text = self.text(path, node)?;
        let reason = match duration::parse(text) {
            Ok(duration) if range.contains(&duration) => return Some(duration),
            Ok(_) => format!("{text:?} is out of range"),
            Err(reason) => reason,
        };
        let (from, to) = (duration::written(*range.start()), duration::written(*range.end()));
        let cure = format!("write a duration from {from} to {to}, such as {example}");
        self.report(node.place, &format!("`{path}`: {reason}"), &cure);
        None
    }

    /// Percent with at most two decimals, as basis points. `noun` is what it is not, where it is none.
    pub(super) fn percent(&mut self, noun: &str, path: &str, node: &Node, range: &RangeInclusive<u32>) -> Option<u32> {
        let text = self.text(path, node)?;
        let found = basis_points(text).filter(|points| range.contains(points));
        if found.is_none() {
            let bare = |points: &u32| percent(*points).trim_end_matches(" %").to_owned();
            let (from, to) = (bare(range.start()), bare(range.end()));
            let reason = format!("`{path}`: {text:?} is not a {noun}");
            let cure = format!("write percent from {from} to {to} with at most two decimals, without a sign: 12.5");
            self.report(node.place, &reason, &cure);
        }
        found
    }

    /// The name of a header or cookie (RFC 9110, 5.6.2).
    pub(super) fn token<'n>(&mut self, noun: &str, path: &str, node: &'n Node, example: &str) -> Option<&'n str> {
        let name = self.text(path, node)?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if !name.is_empty() && name.len() <= MAX_TOKEN && name.bytes().all(fits) {
            return Some(name);
        }
        self.report(
            node.place,
            &format!("`{path}`: {name:?} is not a {noun} name"),
            &format!("write a name such as {example}"),
        );
        None
    }

    /// The name of a header that clients send, in lower case. `so` is what follows where none can.
    pub(super) fn header(&mut self, path: &str, node: &Node, so: &str, cure: &str) -> Option<String> {
        let name = self.token("header", path, node, "X-User-Id")?.to_ascii_lowercase();
        if name.starts_with("x-tg-") || name.starts_with("x-tidegate-") {
            let reason = format!("`{path}`: `{name}` is stripped from every request, so {so}");
            self.report(node.place, &reason, cure);
            return None;
        }
        Some(name)
    }

    /// An address of plain HTTP: `http://HOST`, with a port and a path or without.
    pub(super) fn url(&mut self, path: &str, node: &Node, example: &str) -> Option<String> {
        let text = self.text(path, node)?;
        let reason = match text.parse::<http::Uri>() {
            _ if text.len() > MAX_URL => format!("it has more than {MAX_URL} bytes"),
            Err(_) => format!("{text:?} is not a URL"),
            Ok(uri) => match (uri.scheme_str(), uri.authority()) {
                (Some("http"), Some(authority)) if authority.as_str().contains('@') => {
                    format!("{text:?} has a user in it, and nobody would send it")
                }
                (Some("http"), Some(authority)) if authority.host().is_empty() || text.contains('#') => {
                    format!("{text:?} is not a URL")
                }
                // A port that is too large is none to the parser.
                (Some("http"), Some(authority))
                    if authority.as_str() != authority.host() && authority.port_u16().unwrap_or(0) == 0 =>
                {
                    format!("{text:?} has a port that is none")
                }
                (Some("http"), Some(_)) => return Some(text.to_owned()),
                (Some("https"), _) => format!("{text:?} is HTTPS, which is not spoken here"),
                (Some(scheme), _) => format!("{text:?} has the scheme `{scheme}`"),
                (None, _) => format!("{text:?} does not begin with `http://HOST`"),
            },
        };
        self.report(node.place, &format!("`{path}`: {reason}"), &format!("write such as \"{example}\""));
        None
    }
}

/// A finite number, as people write it.
pub(super) fn figure(text: &str) -> Option<Figure> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    plain.then(|| text.parse().ok().and_then(Figure::new)).flatten()
}

/// Percent with at most two decimals, to basis points up to the whole; by hand, because 0.29 × 100 is no whole number in floating
/// point.
pub(crate) fn basis_points(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.len() <= 3 && s.bytes().all(|b| b.is_ascii_digit());
    let decimals = decimals.trim_end_matches('0');
    if !digits(whole) || whole.is_empty() || !digits(decimals) || decimals.len() > 2 {
        return None;
    }
    let points = whole.parse::<u32>().ok()? * 100 + format!("{decimals:0<2}").parse::<u32>().ok()?;
    (points <= WHOLE).then_some(points)
}
