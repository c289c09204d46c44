//! What servers answer, well and badly, and what checks make of it. Each outcome is asserted word by word: people read it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tidegate_core::config::ServiceTls;
use tidegate_core::instance::{CheckTls, HeaderMatch, Statuses};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;

fn passed(text: &str) -> Outcome {
    Outcome::Passed(format!("{text} in under 1 ms"))
}

fn failed(text: &str) -> Outcome {
    Outcome::Failed(text.to_owned())
}

fn late(text: &str) -> Outcome {
    Outcome::TimedOut(format!("timed out after 1s, {text}"))
}

/// Hands each connection to `serve`.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream));
        }
    });
    address
}

async fn got(address: SocketAddr, http: HttpCheck) -> Outcome {
    check::perform(address, &Check { kind: CheckKind::Http(http), ..Check::default() }).await
}

#[tokio::test(start_paused = true)]
async fn an_answer_passes_only_if_all_that_is_expected_is_so() {
    const ANSWER: &str =
        "HTTP/1.1 200 OK\r\nX-Ready: no\r\nx-ready: yes\r\ncontent-length: 15\r\n\r\n{\"status\":\"up\"}";
    let mut tasks = JoinSet::new();
    let address = server(&mut tasks, Some(ANSWER)).await;
    let status = |ranges: &[std::ops::RangeInclusive<u16>]| HttpCheck {
        status: Statuses(ranges.to_vec()),
        ..HttpCheck::get("/")
    };
    let header = |name: &str, value: Option<&str>| HttpCheck {
        header: Some(HeaderMatch { name: name.to_owned(), value: value.map(str::to_owned) }),
        ..HttpCheck::get("/")
    };
    let body = |text: &str| HttpCheck { body: Some(text.to_owned()), ..HttpCheck::get("/") };
    for (http, expected) in [
        (status(&[200..=204]), passed("HTTP 200")),
        (status(&[204..=204, 400..=499]), failed("HTTP 200, which is none of 204,400-499")),
        (header("x-ready", None), passed("HTTP 200")),
        (header("x-ready", Some("yes")), passed("HTTP 200")),
        (header("x-ready", Some("maybe")), failed("HTTP 200, but its header `x-ready` is \"no\", not \"maybe\"")),
        (header("x-absent", None), failed("HTTP 200, but it has no header `x-absent`")),
        (body("\"up\""), passed("HTTP 200")),
        (body("\"down\""), failed("HTTP 200, but its body does not contain \"\\\"down\\\"\"")),
        (
            HttpCheck { body: Some("up".to_owned()), ..header("x-absent", None) },
            failed("HTTP 200, but it has no header `x-absent`"),
        ),
    ] {
        assert_eq!(got(address, http.clone()).await, expected, "{http:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_names_the_host_it_is_told_and_else_the_address() {
    let mut tasks = JoinSet::new();
    let (sender, mut requests) = mpsc::channel(4);
    let address = listen(&mut tasks, move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            sender.send(String::from_utf8_lossy(&request[..length]).into_owned()).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let named = HttpCheck { host: Some("shop.localhost".to_owned()), ..HttpCheck::get("/ready?deep=1") };
    for (http, host) in [(HttpCheck::get("/ready?deep=1"), address.to_string()), (named, "shop.localhost".to_owned())] {
        assert_eq!(got(address, http).await, passed("HTTP 200"));
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with("GET /ready?deep=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("host: {host}\r\n")), "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_passes_only_where_it_is_asked_for_and_is_never_followed() {
    let mut tasks = JoinSet::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let address = listen(&mut tasks, move |mut stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    let found = HttpCheck { status: Statuses(vec![200..=302]), ..HttpCheck::get("/") };
    assert_eq!(got(address, HttpCheck::get("/")).await, failed("HTTP 302, a redirect, which checks do not follow"));
    assert_eq!(got(address, found).await, passed("HTTP 302"));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn what_trickles_never_lasts_longer_than_the_timeout() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    let mut tasks = JoinSet::new();
    for (at_once, wanted) in [(0, None), (17, None), (HEAD.len(), Some("x".repeat(1024)))] {
        let address = listen(&mut tasks, move |mut stream| async move {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(&HEAD[..at_once]).await;
            for byte in HEAD[at_once..].iter().chain(std::iter::repeat(&b'x')) {
                sleep(Duration::from_secs(1)).await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let began = Instant::now();
        let http = HttpCheck { body: wanted, ..HttpCheck::get("/") };
        assert_eq!(got(address, http).await, late("waiting for the answer"), "{at_once}");
        assert!(began.elapsed() <= Duration::from_millis(1005), "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_long_body_only_the_beginning_is_read_and_only_if_asked_for() {
    const LENGTH: usize = 10 << 20;
    let mut tasks = JoinSet::new();
    let written = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&written);
    let address = listen(&mut tasks, move |mut stream| {
        let written = Arc::clone(&counted);
        async move {
            written.store(0, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
            let text = [b"a".repeat(4090), b"needle".to_vec(), b"late".to_vec()].concat();
            let _ = stream.write_all(&text).await;
            while written.load(Ordering::Relaxed) < LENGTH && stream.write_all(&[b'z'; 4096]).await.is_ok() {
                written.fetch_add(4096, Ordering::Relaxed);
            }
        }
    })
    .await;
    let body = |text: &str| HttpCheck { body: Some(text.to_owned()), ..HttpCheck::get("/") };
    for (http, expected) in [
        (HttpCheck::get("/"), passed("HTTP 200")),
        (body("needle"), passed("HTTP 200")),
        (body("late"), failed("HTTP 200, but the first 4096 bytes of its body do not contain \"late\"")),
    ] {
        assert_eq!(got(address, http.clone()).await, expected, "{http:?}");
        assert!(written.load(Ordering::Relaxed) < LENGTH, "nobody took it");
    }
}

#[tokio::test(start_paused = true)]
async fn what_speaks_first_is_no_http() {
    let mut tasks = JoinSet::new();
    let address = listen(&mut tasks, |mut stream| async move {
        let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    // Whether it is heard before or after the request is sent is a matter of chance.
    let Outcome::Failed(reason) = got(address, HttpCheck::get("/")).await else { panic!("it failed") };
    let known = ["what came is not HTTP", "it spoke before it was asked"];
    assert!(known.iter().any(|known| reason == format!("no HTTP answer: {known}")), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn old_and_broken_http_is_told_apart() {
    let body = |text: &str| HttpCheck { body: Some(text.to_owned()), ..HttpCheck::get("/") };
    let mut tasks = JoinSet::new();
    for (answer, expected) in [
        ("HTTP/1.0 200 OK\r\n\r\nall is well", passed("HTTP 200")),
        ("<html>all is well</html>", failed("no HTTP answer: what came is not HTTP")),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nall",
            failed("HTTP 200, but its body broke off: the connection was closed before its end"),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nall\r\n8\r\n is well\r\n0\r\n\r\n",
            passed("HTTP 200"),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            failed("HTTP 200, but its body broke off: what came is not HTTP"),
        ),
    ] {
        let address = server(&mut tasks, Some(answer)).await;
        assert_eq!(got(address, body("all is well")).await, expected, "{answer:?}");
    }
}

// --- TLS ---------------------------------------------------------------------------------------------------------------

/// A server whose certificate is for these names and years; where `asks`, clients have to show one, too.
async fn tls_server(tasks: &mut JoinSet<()>, names: &[&str], years: (i32, i32), asks: bool) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 2, 3), date_time_ymd(years.1, 2, 3));
    tls_server_as(tasks, &params.self_signed(&key).unwrap(), &key, asks).await
}

async fn tls_server_as(
    tasks: &mut JoinSet<()>,
    certificate: &rcgen::Certificate,
    key: &KeyPair,
    asks: bool,
) -> SocketAddr {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let builder = match asks {
        true => builder.unwrap().with_client_cert_verifier(verifier),
        false => builder.unwrap().with_no_client_auth(),
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap()));
    listen(tasks, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            let _ = stream.shutdown().await;
        }
    })
    .await
}

async fn got_over_tls(address: SocketAddr, host: Option<&str>, tls: CheckTls) -> Outcome {
    let http = HttpCheck { host: host.map(str::to_owned), body: Some("ok".to_owned()), ..HttpCheck::get("/") };
    check::perform(address, &Check { kind: CheckKind::Https { http, tls }, ..Check::default() }).await
}

/// Without the time it took, which is that of a handshake.
fn in_time(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Passed(text) => passed(text.rsplit_once(" in ").map_or("", |(what, _)| what)),
        other => other,
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_refused_for_its_dates_and_its_name_with_the_field_and_the_date() {
    const NOW: (i32, i32) = (2020, 2120);
    let mut tasks = JoinSet::new();
    let expired = failed("the certificate expired on 2021-02-03T00:00:00Z (notAfter)");
    let early = failed("the certificate is not valid before 2119-02-03T00:00:00Z (notBefore)");
    let other =
        |names: &str, host: &str| failed(&format!("the certificate is for {names} (subjectAltName), not for `{host}`"));
    let fine = passed("HTTP 200");
    for (names, years, host, expected) in [
        (&["shop.localhost"][..], NOW, Some("shop.localhost"), fine.clone()),
        (&["*.shop.localhost"][..], NOW, Some("a.shop.localhost"), fine.clone()),
        (&["shop.localhost"][..], NOW, None, fine.clone()),
        (&["shop.localhost"][..], (2020, 2021), Some("shop.localhost"), expired.clone()),
        (&["shop.localhost"][..], (2020, 2021), None, expired),
        (&["shop.localhost"][..], (2119, 2120), None, early),
        (
            &["a.localhost", "b.localhost"][..],
            NOW,
            Some("shop.localhost"),
            other("\"a.localhost\", \"b.localhost\"", "shop.localhost"),
        ),
        (&["a", "b", "c", "d", "e", "f"][..], NOW, Some("x"), other("\"a\", \"b\", \"c\", \"d\" and 2 more", "x")),
        (&["10.1.2.3"][..], NOW, Some("10.1.2.4"), other("10.1.2.3", "10.1.2.4")),
        (&["10.1.2.3"][..], NOW, Some("10.1.2.3"), fine.clone()),
        (&[][..], NOW, Some("shop.localhost"), other("no host", "shop.localhost")),
    ] {
        let address = tls_server(&mut tasks, names, years, false).await;
        let outcome = in_time(got_over_tls(address, host, CheckTls::Verify).await);
        assert_eq!(outcome, expected, "{names:?} {years:?} {host:?}");
        assert_eq!(in_time(got_over_tls(address, host, CheckTls::Skip).await), fine, "nothing is looked at");
    }
}

/// An authority, and its certificate as PEM.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

#[tokio::test(start_paused = true)]
async fn where_authorities_are_named_a_certificate_has_to_be_from_them() {
    let mut tasks = JoinSet::new();
    let ((ours, ours_pem), (_, theirs_pem)) = (authority("ours"), authority("theirs"));
    // Made anew under the same name, or by somebody else.
    let (_, namesake_pem) = authority("ours");
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["shop.internal".to_owned()]).unwrap();
    let signed = tls_server_as(&mut tasks, &params.signed_by(&key, &ours).unwrap(), &key, false).await;
    params.not_after = date_time_ymd(2021, 2, 3);
    let expired = tls_server_as(&mut tasks, &params.signed_by(&key, &ours).unwrap(), &key, false).await;
    let own = tls_server(&mut tasks, &["shop.internal"], (2020, 2120), false).await;
    let issued = |authorities: &str, name: Option<&str>| {
        let (ca, server_name) = ("ca.pem".to_owned(), name.map(str::to_owned));
        CheckTls::Issued(Arc::new(ServiceTls { ca, server_name, authorities: authorities.to_owned() }))
    };
    let fine = passed("HTTP 200");
    let foreign = failed("the certificate is from \"CN=ours\" (issuer), and no authority of ca.pem stands behind it");
    let no_name = "the certificate is for \"shop.internal\" (subjectAltName), not for `other`";
    for (address, host, tls, expected) in [
        (signed, None, issued(&ours_pem, None), fine.clone()),
        (signed, None, issued(&ours_pem, Some("shop.internal")), fine.clone()),
        (signed, Some("shop.internal"), issued(&ours_pem, Some("other")), fine.clone()),
        (signed, None, issued(&format!("{theirs_pem}{ours_pem}"), None), fine),
        (signed, None, issued(&theirs_pem, None), foreign.clone()),
        (signed, None, issued(&namesake_pem, None), foreign),
        (signed, None, issued(&ours_pem, Some("other")), failed(no_name)),
        (signed, Some("other"), issued(&ours_pem, Some("shop.internal")), failed(no_name)),
        (expired, None, issued(&ours_pem, None), failed("the certificate expired on 2021-02-03T00:00:00Z (notAfter)")),
    ] {
        assert_eq!(in_time(got_over_tls(address, host, tls.clone()).await), expected, "{host:?} {tls:?}");
    }
    let Outcome::Failed(reason) = got_over_tls(own, None, issued(&ours_pem, None)).await else { panic!("it failed") };
    assert!(reason.ends_with("(issuer), and no authority of ca.pem stands behind it"), "{reason}");
    // One service with two kinds of checks.
    let (CheckTls::Issued(tls), at) = (issued(&ours_pem, None), CheckTls::Issued) else { unreachable!() };
    assert_eq!(in_time(got_over_tls(signed, None, at(Arc::clone(&tls))).await), passed("HTTP 200"));
    assert_eq!(in_time(got_over_tls(signed, Some("other"), at(tls)).await), failed(no_name));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_tls_says_so() {
    let mut tasks = JoinSet::new();
    let plain = server(&mut tasks, Some("HTTP/1.1 400 Bad Request\r\n\r\n")).await;
    let closing = listen(&mut tasks, |stream| async move { drop(stream) }).await;
    let hanging = server(&mut tasks, None).await;
    let asking = tls_server(&mut tasks, &["shop.localhost"], (2020, 2120), true).await;
    for (address, expected) in [
        (plain, failed("no TLS handshake: what came is not TLS")),
        (hanging, late("in the TLS handshake")),
        (asking, failed("no HTTP answer: the server refuses the TLS connection: CertificateRequired")),
        (nowhere().await, failed("connection refused")),
    ] {
        assert_eq!(got_over_tls(address, None, CheckTls::Verify).await, expected);
    }
    // How a close is seen depends on what was sent before it.
    let Outcome::Failed(reason) = got_over_tls(closing, None, CheckTls::Verify).await else { panic!("it failed") };
    assert!(reason.starts_with("no TLS handshake: ") && reason.contains("connection"), "{reason}");
}

// --- gRPC --------------------------------------------------------------------------------------------------------------

/// A gRPC server that answers each call with this status, head and body; an empty body: with the head alone.
async fn grpc_server(
    tasks: &mut JoinSet<()>,
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
    trailers: &'static [(&'static str, &'static str)],
) -> (SocketAddr, mpsc::Receiver<(http::request::Parts, Bytes)>) {
    let (sender, requests) = mpsc::channel(8);
    let address = listen(tasks, move |stream| {
        let sender = sender.clone();
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let (parts, mut asked) = request.into_parts();
                let mut answer = Response::builder().status(status).header("content-type", "application/grpc");
                for (name, value) in headers {
                    answer = answer.header(*name, *value);
                }
                let mut stream = respond.send_response(answer.body(()).unwrap(), body.is_empty()).unwrap();
                if !body.is_empty() {
                    stream.send_data(Bytes::from_static(body), trailers.is_empty()).unwrap();
                }
                if !trailers.is_empty() {
                    let trailers = trailers.iter().map(|(name, value)| {
                        (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
                    });
                    stream.send_trailers(trailers.collect()).unwrap();
                }
                let sender = sender.clone();
                let read = async move {
                    let data = asked.data().await.and_then(Result::ok).unwrap_or_default();
                    let _ = sender.try_send((parts, data));
                };
                // The body is read while the connection is driven.
                tokio::select! {
                    () = read => {}
                    _ = std::future::poll_fn(|context| connection.poll_closed(context)) => return,
                }
            }
        }
    })
    .await;
    (address, requests)
}

async fn health(address: SocketAddr, service: &str) -> Outcome {
    let kind = CheckKind::Grpc { service: service.to_owned(), host: None };
    in_time(check::perform(address, &Check { kind, ..Check::default() }).await)
}

#[tokio::test(start_paused = true)]
async fn only_serving_passes_and_each_other_answer_has_its_reason() {
    const OK: &[(&str, &str)] = &[("grpc-status", "0")];
    const LONG: &[u8] = &[0; 5000];
    let mut tasks = JoinSet::new();
    for (status, headers, body, trailers, expected) in [
        (200, &[][..], &b"\0\0\0\0\x02\x08\x01"[..], OK, passed("gRPC SERVING")),
        (200, &[], b"\0\0\0\0\x02\x08\x02", OK, failed("gRPC health NOT_SERVING")),
        (200, &[], b"\0\0\0\0\x02\x08\x03", OK, failed("gRPC health SERVICE_UNKNOWN")),
        (200, &[], b"\0\0\0\0\0", OK, failed("gRPC health UNKNOWN")),
        (200, &[], b"\0\0\0\0\x02\x08\x63", OK, failed("gRPC health 99, which means nothing")),
        (200, &[], b"\0\0\0\0\x09\x08\x01", OK, failed("no gRPC answer: it is not the message of a health check")),
        (200, &[], b"\x01\0\0\0\x02\x08\x01", OK, failed("no gRPC answer: it is not the message of a health check")),
        (200, OK, b"", &[], failed("no gRPC answer: it is not the message of a health check")),
        (200, &[], b"\0\0\0\0\x02\x08\x01", &[], failed("no gRPC answer: it has no `grpc-status`")),
        (200, &[], LONG, OK, failed("no gRPC answer: it is longer than 4096 bytes")),
        (
            200,
            &[("grpc-status", "12")],
            b"",
            &[],
            failed("gRPC UNIMPLEMENTED: the server has no service grpc.health.v1.Health"),
        ),
        (
            200,
            &[("grpc-status", "5")],
            b"",
            &[],
            failed("gRPC NOT_FOUND: the server does not know the health of a service \"shop.v1.Carts\""),
        ),
        (
            200,
            &[("grpc-status", "14"), ("grpc-message", "no database")],
            b"",
            &[],
            failed("gRPC UNAVAILABLE: \"no database\""),
        ),
        (200, &[("grpc-status", "77")], b"", &[], failed("gRPC \"77\"")),
        (404, &[], b"", &[], failed("HTTP 404, no gRPC answer")),
        (302, &[("location", "http://169.254.169.254/")], b"", &[], failed("HTTP 302, no gRPC answer")),
    ] {
        let (address, _) = grpc_server(&mut tasks, status, headers, body, trailers).await;
        assert_eq!(health(address, "shop.v1.Carts").await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_check_asks_for_its_service() {
    let mut tasks = JoinSet::new();
    let (address, mut requests) =
        grpc_server(&mut tasks, 200, &[], b"\0\0\0\0\x02\x08\x01", &[("grpc-status", "0")]).await;
    for (service, host, message) in [("", None, &b"\0\0\0\0\0"[..]), ("ab", Some("shop"), b"\0\0\0\0\x04\x0a\x02ab")] {
        let kind = CheckKind::Grpc { service: service.to_owned(), host: host.map(str::to_owned) };
        let outcome = check::perform(address, &Check { kind, ..Check::default() }).await;
        assert_eq!(in_time(outcome), passed("gRPC SERVING"));
        let (parts, asked) = requests.recv().await.unwrap();
        assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/grpc.health.v1.Health/Check"));
        let authority = parts.uri.authority().unwrap().to_string();
        assert_eq!(authority, host.map_or_else(|| address.to_string(), str::to_owned));
        assert_eq!(parts.headers["content-type"], "application/grpc");
        assert_eq!(&asked[..], message);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_grpc_says_so() {
    let mut tasks = JoinSet::new();
    let http1 = server(&mut tasks, Some("HTTP/1.1 400 Bad Request\r\n\r\nthis is an old server")).await;
    let hanging = server(&mut tasks, None).await;
    assert_eq!(health(http1, "").await, failed("no gRPC answer: what came is not HTTP/2"));
    assert_eq!(health(hanging, "").await, late("waiting for the answer"));
    assert_eq!(health(nowhere().await, "").await, failed("connection refused"));
}
