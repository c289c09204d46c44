//! YAML as a tree in which every node knows its line and column, and every scalar the text it was written as: `1.10` stays
//! `1.10` where a version is asked for. serde's own errors stop at the first; a tree can be read to its end.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Where in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: u64,
    /// From 1, in characters.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Nodes of one file: a file of 64 MiB with 100,000 entries has two million.
const MAX_NODES: usize = 4_000_000;

/// One node.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    /// A scalar, as written (quotes and escapes resolved).
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file; keys with their own place.
    Map(Vec<(Place, String, Node)>),
}

impl Value {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Parses `text`; `Err` holds where and why it is no YAML.
pub(crate) fn parse(text: &str) -> Result<Node, (Place, String)> {
    if text.trim().is_empty() {
        return Ok(Node { place: Place { line: 1, column: 1 }, value: Value::Null });
    }
    // An event opens, closes or is a node.
    let budget = serde_saphyr::budget! { max_nodes: MAX_NODES, max_events: 2 * MAX_NODES };
    let options = serde_saphyr::options! { budget: budget };
    let parsed: Result<Spanned<Raw>, _> = serde_saphyr::from_str_with_options(text, options);
    match parsed {
        Ok(raw) => Ok(resolve(raw, text)),
        Err(error) => {
            let place = error.location().map(|l| Place { line: l.line(), column: l.column() }).unwrap_or_default();
            let message = error.without_snippet().to_string();
            let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
            Err((place, message))
        }
    }
}

/// The tree as serde hands it over, before scalars are given back the text they were written as.
enum Raw {
    Null,
    Plain,
    Text(String),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Spanned<Self>)>),
}

fn resolve(raw: Spanned<Raw>, source: &str) -> Node {
    let place = Place { line: raw.referenced.line(), column: raw.referenced.column() };
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Text(text) => Value::Scalar(text),
        Raw::Plain => Value::Scalar(written(&raw.defined, source)),
        Raw::List(items) => Value::List(items.into_iter().map(|item| resolve(item, source)).collect()),
        Raw::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let place = Place { line: key.referenced.line(), column: key.referenced.column() };
                    (place, key.value, resolve(value, source))
                })
                .collect(),
        ),
    };
    Node { place, value }
}

/// The plain scalar (number, boolean) that stands at `location`. Found by its offset: by line and column the cost of a file
/// would grow with the square of its length.
fn written(location: &serde_saphyr::Location, source: &str) -> String {
    let offset = location.span().byte_offset().and_then(|offset| usize::try_from(offset).ok());
    let rest = offset.and_then(|offset| source.get(offset..)).unwrap_or("");
    let end = rest.find([',', '}', ']', '#', '\n', '\r']).unwrap_or(rest.len());
    rest.get(..end).unwrap_or("").trim().to_owned()
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Plain)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_bytes<E: serde::de::Error>(self, _: &[u8]) -> Result<Raw, E> {
        Err(E::custom("binary values have no use here"))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map: Vec<(Spanned<String>, Spanned<Raw>)> = Vec::new();
        let mut known = HashSet::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Spanned<Raw>>()? {
            if !known.insert(key.value.clone()) {
                return Err(A::Error::custom(format!("the key {:?} stands twice", key.value)));
            }
            map.push((key, value));
        }
        Ok(Raw::Map(map))
    }
}
