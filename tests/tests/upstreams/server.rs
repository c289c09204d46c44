//! Upstreams of all protocols, in this process and on loopback.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// Says in every answer which version of HTTP it was asked in. `/stream` sends a piece each 100 ms for a second, `/never` says
/// nothing, and every answer ends with a gRPC status.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    _server: JoinSet<()>,
}

#[derive(Clone)]
pub(crate) enum Wire {
    /// HTTP/2 with prior knowledge, and nothing else.
    H2c,
    /// TLS with these protocols on offer, under a certificate that nobody has signed.
    Tls(&'static [&'static str]),
    /// TLS under this certificate.
    Certified(Identity),
}

/// A certificate and its private key, both as DER.
#[derive(Clone)]
pub(crate) struct Identity(Vec<u8>, Vec<u8>);

impl Identity {
    fn unsigned() -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(["whoever.example".to_owned()])?.self_signed(&key)?;
        Ok(Self(certificate.der().to_vec(), key.serialize_der()))
    }
}

/// Who signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    pub(crate) fn sign(&self, name: &str) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([name.to_owned()])?;
        // With the authority's own name it would be taken for one that signed itself.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity(certificate.der().to_vec(), key.serialize_der()))
    }
}

impl Upstream {
    pub(crate) async fn start(wire: Wire) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tls = match &wire {
            Wire::H2c => None,
            Wire::Tls(protocols) => Some(acceptor(protocols, Identity::unsigned()?)?),
            Wire::Certified(identity) => Some(acceptor(&["http/1.1"], identity.clone())?),
        };
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                connections.spawn(async move {
                    let Some(tls) = tls else { return serve(stream, true).await };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    serve(stream, is_h2).await;
                });
            }
        });
        Ok(Self { address, _server: server })
    }

    /// Its entry in a file of instances, in one line, with these further words; it is not checked.
    pub(crate) fn entry(&self, service: &str, words: &str) -> String {
        self.checked(service, words, "type: none")
    }

    /// The same, checked as these words say.
    pub(crate) fn checked(&self, service: &str, words: &str, check: &str) -> String {
        let address = self.address;
        format!(
            "- {{ service: {service}, host: {service}.localhost, address: \"{address}\", check: {{ {check} }}, {words} }}\n"
        )
    }
}

fn acceptor(protocols: &[&str], Identity(certificate, key): Identity) -> Result<TlsAcceptor> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![CertificateDer::from(certificate)], key)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, is_h2: bool) {
    let stream = TokioIo::new(stream);
    // How a connection ends is the client's business.
    let _ = if is_h2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server.serve_connection(stream, service_fn(answer)).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(stream, service_fn(answer)).await
    };
}

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let spoken = match request.version() {
        Version::HTTP_2 => "h2",
        _ => "http1",
    };
    let mut pieces = 1;
    match request.uri().path() {
        "/never" => std::future::pending().await,
        "/stream" => pieces = 10,
        _ => {}
    }
    let body = futures_util::stream::unfold(0, move |sent| async move {
        if sent > pieces {
            return None;
        }
        if sent == pieces {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().ok()?, HeaderValue::from_static("0"))]);
            return Some((Ok(Frame::trailers(trailers)), sent + 1));
        }
        if sent > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some((Ok(Frame::data(Bytes::from_static(b"piece\n"))), sent + 1))
    });
    let response = Response::builder().header("x-spoken", spoken).header("content-type", "application/grpc");
    Ok(response.body(BodyExt::boxed(StreamBody::new(body))).unwrap_or_default())
}
