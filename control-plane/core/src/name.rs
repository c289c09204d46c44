//! Names of providers, services and versions. They end up in cluster names (`SERVICE/VERSION`), runtime keys and metrics, so
//! their alphabet is fixed here and nowhere else.

use std::fmt;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Longest service or version name: a DNS label, which is also what Docker's own names keep to.
pub const MAX_NAME: usize = 63;

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("it is empty")]
    Empty,
    /// Longer than [`MAX_NAME`].
    #[error("it is longer than {MAX_NAME} characters")]
    TooLong,
    /// A character outside `[A-Za-z0-9._-]`, or a first one that is not a letter or digit.
    #[error(
        "{0:?} is not allowed there: a name is letters, digits, `.`, `_` and `-`, and begins with a letter or digit"
    )]
    Character(char),
}

fn validate(text: &str) -> Result<(), NameError> {
    let first = text.chars().next().ok_or(NameError::Empty)?;
    if !first.is_ascii_alphanumeric() {
        return Err(NameError::Character(first));
    }
    if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        return Err(NameError::Character(bad));
    }
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates `text`.
            ///
            /// # Errors
            /// When `text` is empty, too long or has a character outside the alphabet of names.
            pub fn new(text: &str) -> Result<Self, NameError> {
                validate(text).map(|()| Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name!(
    /// What clients ask for.
    ServiceName
);
name!(
    /// The named subset of a service's instances.
    VersionName
);
name!(
    /// A source of instances, such as `docker`.
    ProviderName
);

/// Reads a name as [`new`](ServiceName::new) does. A provider's is never read: those of engines have a colon.
macro_rules! read {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(D::Error::custom)
            }
        }
    )*};
}

read!(ServiceName, VersionName);

impl VersionName {
    /// The version of an instance that names none.
    #[must_use]
    pub fn default_version() -> Self {
        Self("default".into())
    }
}

impl ProviderName {
    /// The local Docker engine.
    #[must_use]
    pub fn docker() -> Self {
        Self("docker".into())
    }

    /// One of several Docker engines, by its name in the configuration.
    #[must_use]
    pub fn docker_engine(name: &str) -> Self {
        Self(format!("docker:{name}").into())
    }

    /// Files of instances.
    #[must_use]
    pub fn file() -> Self {
        Self("file".into())
    }
}

/// The EDS cluster of one version: `SERVICE/VERSION`.
#[must_use]
pub fn cluster_name(service: &ServiceName, version: &VersionName) -> String {
    format!("{service}/{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["shop", "v1.8.2", "my_project-api-1", "9lives", &"a".repeat(MAX_NAME)] {
            assert!(ServiceName::new(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", NameError::Empty),
            (&*"a".repeat(MAX_NAME + 1), NameError::TooLong),
            ("shop/v1", NameError::Character('/')),
            ("v2+spill", NameError::Character('+')),
            ("-x", NameError::Character('-')),
            ("caf\u{e9}", NameError::Character('\u{e9}')),
            ("\u{1b}[31m", NameError::Character('\u{1b}')),
        ] {
            assert_eq!(ServiceName::new(bad), Err(why), "{bad:?}");
        }
    }
}
