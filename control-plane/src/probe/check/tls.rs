//! TLS to what is checked. A container's own certificate is from whoever made it, so its issuer says nothing here, unless the
//! configuration names authorities: what is looked at is what breaks clients one day, its dates and its names, and that the
//! container has its key.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use tidegate_core::config::ServiceTls;
use tidegate_core::instance::CheckTls;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::{Failure, quoted};
use crate::authorities;

/// Names of a certificate that are told.
const MAX_NAMES: usize = 4;

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Nothing,
    Dates,
    DatesAndName,
}

/// Nothing is kept from one handshake to the next: a session that is resumed shows no certificate.
fn config(look: Look, issuers: Option<Issuers>) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { provider: Arc::clone(&provider), look, issuers };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has what the default versions need")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

static NOTHING: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(Look::Nothing, None));
static DATES: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(Look::Dates, None));
static DATES_AND_NAME: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| config(Look::DatesAndName, None));

/// Whom a certificate may be from.
#[derive(Debug)]
struct Issuers {
    /// As the configuration names them.
    file: String,
    roots: RootCertStore,
}

/// What a service's instances are asked with, as long as the service is declared so.
type Issued = (Weak<ServiceTls>, Look, Arc<ClientConfig>);

/// What is made of authorities, as long as some check has them.
static ISSUED: Mutex<Vec<Issued>> = Mutex::new(Vec::new());

fn issued(tls: &Arc<ServiceTls>, look: Look) -> Result<Arc<ClientConfig>, Failure> {
    let mut all = ISSUED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_known = |(known, at, _): &&(Weak<ServiceTls>, Look, _)| known.as_ptr() == Arc::as_ptr(tls) && *at == look;
    if let Some((_, _, config)) = all.iter().find(is_known) {
        return Ok(Arc::clone(config));
    }
    let roots = authorities::parse(tls.authorities.as_bytes())
        .map_err(|reason| Failure::Answer(format!("{} cannot be used: {reason}", tls.ca)))?;
    let config = config(look, Some(Issuers { file: tls.ca.clone(), roots }));
    all.retain(|(known, ..)| known.strong_count() > 0);
    all.push((Arc::downgrade(tls), look, Arc::clone(&config)));
    Ok(config)
}

/// `host` is named to the server, and has to be in its certificate.
pub(super) async fn handshake(
    stream: TcpStream,
    ip: IpAddr,
    host: Option<&str>,
    tls: &CheckTls,
) -> Result<TlsStream<TcpStream>, Failure> {
    let host = match tls {
        CheckTls::Issued(tls) => host.or(tls.server_name.as_deref()),
        CheckTls::Verify | CheckTls::Skip => host,
    };
    let look = if host.is_some() { Look::DatesAndName } else { Look::Dates };
    let config = match (tls, look) {
        (CheckTls::Issued(tls), look) => issued(tls, look)?,
        (CheckTls::Verify, Look::DatesAndName) => Arc::clone(&DATES_AND_NAME),
        (CheckTls::Verify, _) => Arc::clone(&DATES),
        (CheckTls::Skip, _) => Arc::clone(&NOTHING),
    };
    let name = match host {
        Some(host) => ServerName::try_from(host.to_owned()).map_err(|_| Failure::Request(host.to_owned()))?,
        None => ServerName::from(ip),
    };
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        Failure::Answer(reason(&error).unwrap_or_else(|| {
            let why = match error.kind() {
                ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
                _ => super::connect_reason(&error),
            };
            format!("no TLS handshake: {why}")
        }))
    })
}

/// What TLS says of an error; `None`: it is not one of TLS.
pub(super) fn reason(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(refused))) => refused.to_string(),
        Error::InvalidCertificate(error) => format!("the certificate cannot be used: {error}"),
        Error::InvalidMessage(_) => "no TLS handshake: what came is not TLS".to_owned(),
        Error::AlertReceived(alert) => format!("the server refuses the TLS connection: {alert:?}"),
        Error::PeerIncompatible(why) => format!("no TLS handshake: the server speaks it otherwise ({why:?})"),
        other => format!("no TLS handshake: {other}"),
    })
}

/// Why a certificate does not pass.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the certificate expired on {0} (notAfter)")]
    Expired(String),
    #[error("the certificate is not valid before {0} (notBefore)")]
    NotYet(String),
    #[error("the certificate is for {1} (subjectAltName), not for `{0}`")]
    Name(String, String),
    #[error("the certificate is from {0} (issuer), and no authority of {1} stands behind it")]
    Issuer(String, String),
    #[error("the certificate's chain to an authority of {1} does not hold: {0}")]
    Chain(String, String),
    #[error("the certificate cannot be read")]
    Unreadable,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    look: Look,
    /// `None`: anybody.
    issuers: Option<Issuers>,
}

impl Verifier {
    fn signature(
        &self,
        verify: impl FnOnce(&WebPkiSupportedAlgorithms) -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.look == Look::Nothing {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify(&self.provider.signature_verification_algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.look != Look::Nothing {
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Refused::Unreadable)?;
            dates(&parsed, now)?;
            if self.look == Look::DatesAndName {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
                    .map_err(|_| Refused::Name(name.to_str().into_owned(), names(&parsed)))?;
            }
            if let Some(Issuers { file, roots }) = &self.issuers {
                let algorithms = self.provider.signature_verification_algorithms.all;
                let certificate = ParsedCertificate::try_from(certificate)?;
                verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)
                    .map_err(|error| match error {
                        // A bad signature is that of an authority with the name of one of these, and another key.
                        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                            Refused::Issuer(quoted(parsed.issuer().to_string().as_bytes()), file.clone())
                        }
                        error => Refused::Chain(error.to_string(), file.clone()),
                    })?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(|algorithms| verify_tls12_signature(message, certificate, signature, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(|algorithms| verify_tls13_signature(message, certificate, signature, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn dates(certificate: &X509Certificate<'_>, now: UnixTime) -> Result<(), Refused> {
    let validity = certificate.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        Err(Refused::NotYet(day(&validity.not_before)))
    } else if now > validity.not_after.timestamp() {
        Err(Refused::Expired(day(&validity.not_after)))
    } else {
        Ok(())
    }
}

/// As all moments are shown, RFC 3339 in UTC.
fn day(time: &ASN1Time) -> String {
    let millis = u64::try_from(time.timestamp()).unwrap_or_default().saturating_mul(1000);
    tidegate_core::Timestamp::from_millis(millis).to_string()
}

/// The hosts that a certificate is for, as far as they are told.
fn names(certificate: &X509Certificate<'_>) -> String {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let all = extension.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let hosts = all.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(quoted(name.as_bytes())),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(IpAddr::from([*a, *b, *c, *d]).to_string()),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    });
    let hosts: Vec<String> = hosts.collect();
    match hosts.len() {
        0 => "no host".to_owned(),
        count @ ..=MAX_NAMES => hosts[..count].join(", "),
        count => format!("{} and {} more", hosts[..MAX_NAMES].join(", "), count - MAX_NAMES),
    }
}
