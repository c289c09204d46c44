//! `tidegate.yaml`: as typed ([`ConfigFile`]) and as valid ([`Config`]).

/// The valid configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {}
