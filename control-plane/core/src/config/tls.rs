//! Who issues the certificates of a service's instances. The file is named here and read elsewhere: what was in it is a value.

use serde::Serialize;

/// How the certificates of a service's instances are verified.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTls {
    /// A file of authorities, as PEM; relative to the working directory.
    pub ca: String,
    /// The name that certificates have to have, and that the server is told; `None`: any.
    pub server_name: Option<String>,
    /// What was in the file; set by who read it.
    #[serde(skip)]
    pub authorities: String,
}
