//! The server's side of mutual TLS: certificate, key and client CA from PEM in memory, exchanged while the server runs,
//! and what a client's certificate says about it. Files, and when to read them, are the caller's business.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// The names of a certificate that are shown to someone whom they do not allow what he wants.
const SHOWN_NAMES: usize = 8;
/// How much of each, in bytes.
const SHOWN_BYTES: usize = 256;

/// What mutual TLS needs, as PEM.
#[derive(Clone, Copy)]
pub struct Pem<'a> {
    /// The server's certificate, and after it the intermediate ones that lead to what clients trust.
    pub cert: &'a [u8],
    /// Its private key: PKCS#8, SEC1 or PKCS#1.
    pub key: &'a [u8],
    /// The authorities whose certificates clients may show.
    pub client_ca: &'a [u8],
}

/// Why a server cannot use what it was given, by the part that is at fault. The texts go after the name of that part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate {0}")]
    Certificate(String),
    #[error("the private key {0}")]
    Key(String),
    #[error("the client CA {0}")]
    ClientCa(String),
}

/// Mutual TLS. Every client has to show a certificate of the client CA. Clones share what [`replace`](Self::replace)
/// exchanges.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<RwLock<Loaded>>);

#[derive(Clone, Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    expires: SystemTime,
}

impl ServerTls {
    /// TLS 1.2 and 1.3 with this certificate, for clients of this CA.
    ///
    /// # Errors
    /// When a part holds nothing that can be used, the key is another certificate's, or the certificate is not valid
    /// now.
    pub fn new(pem: Pem<'_>) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(RwLock::new(load(pem)?))))
    }

    /// Serves connections from now on with this. Those that are open stay.
    ///
    /// # Errors
    /// As [`new`](Self::new); what was in use stays.
    pub fn replace(&self, pem: Pem<'_>) -> Result<(), TlsError> {
        let loaded = load(pem)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// When the server's certificate ceases to be valid.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.0.read().unwrap_or_else(PoisonError::into_inner).expires
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).config)
    }
}

fn load(pem: Pem<'_>) -> Result<Loaded, TlsError> {
    let chain = certificates(pem.cert).map_err(TlsError::Certificate)?;
    let expires = validity(&chain[0]).map_err(TlsError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(pem.key).map_err(|error| TlsError::Key(unread(&error, "private key")))?;
    let mut authorities = RootCertStore::empty();
    for authority in certificates(pem.client_ca).map_err(TlsError::ClientCa)? {
        authorities.add(authority).map_err(|error| TlsError::ClientCa(format!("cannot be used: {error}")))?;
    }
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
        .build()
        .map_err(|error| TlsError::ClientCa(format!("cannot be used: {error}")))?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Certificate(format!("cannot be used: {error}")))?;
    let mut config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).map_err(refused)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not be held against the client CA again, nor against the clock. Connections last for days;
    // resumption would save nothing.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded { config: Arc::new(config), expires })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("holds no certificate in PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(unread(&error, "certificate")),
    }
}

fn unread(error: &pem::Error, what: &str) -> String {
    match error {
        pem::Error::NoItemsFound => format!("holds no {what} in PEM"),
        error => format!("cannot be read as PEM: {error}"),
    }
}

/// Until when, if it is valid now.
fn validity(certificate: &CertificateDer<'_>) -> Result<SystemTime, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| format!("cannot be read: {error}"))?;
    let (validity, now) = (parsed.validity(), ASN1Time::now());
    if now < validity.not_before {
        return Err(format!("is not valid before {}", validity.not_before));
    }
    if now > validity.not_after {
        return Err(format!("expired on {}", validity.not_after));
    }
    let seconds = u64::try_from(validity.not_after.timestamp()).unwrap_or_default();
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn refused(error: Error) -> TlsError {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::Key("belongs to another certificate".to_owned())
        }
        Error::InvalidCertificate(error) => TlsError::Certificate(format!("cannot be used: {error:?}")),
        error => TlsError::Key(format!("cannot be used: {error}")),
    }
}

/// The names that a verified client certificate bears (its DNS and URI subject alternative names); they say which nodes
/// the client may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity(Arc<[String]>);

impl PeerIdentity {
    /// No name if there is none, or none that can be read: such a client may be no node.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Self::nobody() };
        let Ok(Some(extension)) = parsed.subject_alternative_name() else { return Self::nobody() };
        let names = extension.value.general_names.iter().filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        });
        Self(names.collect())
    }

    /// Without a name.
    pub(crate) fn nobody() -> Self {
        Self(Arc::default())
    }

    /// The names, as in the certificate.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// Whether a client of this certificate may be that node: the id is one of the names, or the last path segment of
    /// one that is a SPIFFE id (`spiffe://TRUST-DOMAIN/…/NODE-ID`). A wildcard in a DNS name is a name like any other.
    #[must_use]
    pub fn allows(&self, node_id: &str) -> bool {
        !node_id.is_empty() && self.0.iter().any(|name| name == node_id || spiffe_segment(name) == Some(node_id))
    }
}

/// At most some names, cut to a sane length: they come from a certificate that someone else signed.
impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no DNS name or URI");
        }
        for (index, name) in self.0.iter().take(SHOWN_NAMES).enumerate() {
            write!(f, "{}{}", if index > 0 { ", " } else { "" }, shown(name))?;
        }
        match self.0.len().saturating_sub(SHOWN_NAMES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// As much of what a client says as is told and logged.
pub(crate) fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES)]
}

/// The last path segment of a SPIFFE id, which has neither query nor fragment.
fn spiffe_segment(name: &str) -> Option<&str> {
    let (_, path) = name.strip_prefix("spiffe://")?.split_once('/')?;
    (!path.contains(['?', '#'])).then(|| path.rsplit('/').next())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(names: &[&str]) -> PeerIdentity {
        PeerIdentity(names.iter().copied().map(str::to_owned).collect())
    }

    #[test]
    fn a_node_is_named_whole_or_by_the_last_segment_of_a_spiffe_id() {
        let identity = identity(&["edge-1", "*.edges.example", "spiffe://shop.example/ns/prod/edge-2", "urn:edge:3"]);
        for node_id in ["edge-1", "*.edges.example", "spiffe://shop.example/ns/prod/edge-2", "edge-2", "urn:edge:3"] {
            assert!(identity.allows(node_id), "{node_id}");
        }
        for node_id in ["", "edge", "edge-11", "EDGE-1", "a.edges.example", "prod", "shop.example", "prod/edge-2", "3"]
        {
            assert!(!identity.allows(node_id), "{node_id}");
        }
    }

    #[test]
    fn a_spiffe_id_without_a_clear_last_segment_names_no_node() {
        for (name, node_id) in [
            ("spiffe://edge-1", "edge-1"),
            ("spiffe://shop.example/", ""),
            ("spiffe://shop.example/ns/edge-1/", "edge-1"),
            ("spiffe://shop.example/ns/a?x=/edge-1", "edge-1"),
            ("spiffe://shop.example/ns/a#/edge-1", "edge-1"),
            ("https://shop.example/edge-1", "edge-1"),
        ] {
            assert!(!identity(&[name]).allows(node_id), "{name}");
        }
        assert!(!identity(&[]).allows("edge-1"));
        assert_eq!(identity(&[]).to_string(), "no DNS name or URI");
    }

    #[test]
    fn what_is_shown_of_a_certificate_is_bounded() {
        let long = "x".repeat(10_000);
        let shown = identity(&[long.as_str(); 20]).to_string();
        assert!(shown.len() < 3_000, "{} bytes", shown.len());
        assert!(shown.ends_with(" and 12 more"), "{shown}");
    }
}
