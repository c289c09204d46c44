//! YAML as a tree in which every node knows its line and column, and every scalar the text it was written as: `1.10` stays
//! `1.10` where a version is asked for. serde's own errors stop at the first; a tree can be read to its end.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Where in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// One node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    /// A scalar, as written (quotes and escapes resolved).
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file; keys with their own place.
    Map(Vec<(Place, String, Node)>),
}

impl Value {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Parses `text`; `Err` holds where and why it is no YAML.
pub(super) fn parse(text: &str) -> Result<Node, (Place, String)> {
    if text.trim().is_empty() {
        return Ok(Node { place: Place { line: 1, column: 1 }, value: Value::Null });
    }
    let parsed: Result<Spanned<Raw>, _> = serde_saphyr::from_str(text);
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

/// The plain scalar (number, boolean) that stands at `location`.
fn written(location: &serde_saphyr::Location, source: &str) -> String {
    let line =
        source.lines().nth(usize::try_from(location.line().saturating_sub(1)).unwrap_or(usize::MAX)).unwrap_or("");
    let column = usize::try_from(location.column().saturating_sub(1)).unwrap_or(usize::MAX);
    let rest: String = line.chars().skip(column).collect();
    let end = rest.find([',', '}', ']', '#']).unwrap_or(rest.len());
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
        while let Some((key, value)) = entries.next_entry::<Spanned<String>, Spanned<Raw>>()? {
            if map.iter().any(|(known, _)| known.value == key.value) {
                return Err(A::Error::custom(format!("the key {:?} stands twice", key.value)));
            }
            map.push((key, value));
        }
        Ok(Raw::Map(map))
    }
}
