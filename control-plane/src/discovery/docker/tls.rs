//! TLS to an engine: from the files that the configuration names to what a connection is made with. Read at each connection,
//! so that renewed files are used without a restart.

use std::fmt;
use std::io;
use std::sync::Arc;

use tidegate_core::config::DockerTls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::engine::EngineError;
use crate::authorities;

/// What connections to one engine are made with.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    server: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads `files`, for the engine at `address`, which is `HOST:PORT`.
    pub(super) async fn load(files: &DockerTls, address: &str) -> Result<Self, EngineError> {
        let ca = read("ca", &files.ca).await?;
        let roots = authorities::parse(&ca).map_err(|reason| unusable("ca", &files.ca, &reason))?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("ca", &files.ca, &error.to_string()))?
            .with_root_certificates(roots);
        let config = match &files.shown {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read("cert", cert).await?).collect();
                let chain = chain.map_err(|error| unusable("cert", cert, &error.to_string()))?;
                let private = PrivateKeyDer::from_pem_slice(&read("key", key).await?);
                let private = private.map_err(|error| unusable("key", key, &error.to_string()))?;
                config
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| unusable("cert", cert, &error.to_string()))?
            }
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let server = ServerName::try_from(host).map_err(|_| EngineError::Endpoint { endpoint: address.to_owned() })?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), server })
    }

    /// Shakes hands.
    pub(super) async fn connect<T>(&self, stream: T) -> io::Result<TlsStream<T>>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        self.connector.connect(self.server.clone(), stream).await
    }
}

async fn read(key: &'static str, path: &str) -> Result<Vec<u8>, EngineError> {
    tokio::fs::read(path).await.map_err(|error| unusable(key, path, &error.to_string()))
}

fn unusable(key: &'static str, path: &str, reason: &str) -> EngineError {
    EngineError::Tls { key, path: path.to_owned(), reason: reason.to_owned() }
}
