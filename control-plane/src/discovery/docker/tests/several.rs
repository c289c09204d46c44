//! Several engines at once, and engines over TCP and TLS.

use rcgen::{CertificateParams, Issuer, KeyPair};
use tidegate_core::State;
use tidegate_core::config::parse;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

/// Providers at work on several engines, and the state that they make.
struct Fleet {
    state: State,
    inbox: mpsc::Receiver<Input>,
    clock: Clock,
    _tasks: JoinSet<()>,
}

impl Fleet {
    fn new(engines: Vec<(&str, String, Option<DockerTls>)>) -> Self {
        let clock = Clock::start();
        let (sender, inbox) = mpsc::channel(16);
        let sightings = Sightings::default();
        let mut tasks = JoinSet::new();
        let mut names = Vec::new();
        for (name, endpoint, tls) in engines {
            let name = ProviderName::docker_engine(name);
            names.push(name.clone());
            let settings =
                DockerSettings { name, endpoint, tls, sightings: sightings.clone(), ..DockerSettings::default() };
            let provider = DockerProvider::new(settings, DockerStats::default());
            tasks.spawn(provider.run(sender.clone(), clock, CancellationToken::new()));
        }
        let state = State::new(parse("tidegate.yaml", "{}").unwrap(), names, 0);
        Self { state, inbox, clock, _tasks: tasks }
    }

    async fn until(&mut self, what: &str, done: impl Fn(&State) -> bool) -> Duration {
        let begin = Instant::now();
        while !done(&self.state) {
            let Ok(input) = timeout_at(begin + Duration::from_secs(60), self.inbox.recv()).await else {
                panic!("{what} did not come: {:#?}", self.state.problems());
            };
            self.state.apply(input.unwrap(), self.clock.now());
            self.state.settle(self.clock.now());
        }
        begin.elapsed()
    }
}

fn known(state: &State) -> Vec<String> {
    state.catalog().entries().map(|(key, container)| format!("{} {}", key.provider, container.id)).collect()
}

fn codes(state: &State, provider: &str) -> Vec<Code> {
    state
        .catalog()
        .provider_problems(&ProviderName::docker_engine(provider))
        .iter()
        .map(|problem| problem.code)
        .collect()
}

fn engine(container: &str) -> FakeDocker {
    let mut fake = FakeDocker::new();
    fake.listen();
    fake.engine().run(Spec::new(container, ENABLED));
    fake
}

#[tokio::test(start_paused = true)]
async fn events_of_a_second_engine_are_seen_at_once() {
    let (one, two) = (engine("a"), engine("b"));
    let mut fleet = Fleet::new(vec![("one", one.endpoint(), None), ("two", two.endpoint(), None)]);
    fleet.until("both", |state| known(state) == ["docker:one a", "docker:two b"]).await;
    two.engine().run(Spec::new("c", ENABLED));
    let took = fleet.until("the newcomer", |state| known(state).contains(&"docker:two c".to_owned())).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_hurts_no_other_and_the_first_sync_says_that_it_waits_for_it() {
    let (one, mut two) = (engine("a"), FakeDocker::new());
    two.engine().run(Spec::new("b", ENABLED));
    let mut fleet = Fleet::new(vec![("one", one.endpoint(), None), ("two", two.endpoint(), None)]);
    fleet.until("the one", |state| known(state) == ["docker:one a"]).await;
    fleet.until("the problem", |state| codes(state, "two") == [Code::DockerUnreachable]).await;
    assert_eq!(fleet.state.awaiting().unwrap(), "the first full answer of docker:two");
    assert!(codes(&fleet.state, "one").is_empty());
    two.listen();
    fleet.until("the other", |state| known(state) == ["docker:one a", "docker:two b"]).await;
    assert!(!fleet.state.awaiting().is_some_and(|what| what.contains("answer")), "{:?}", fleet.state.awaiting());
    // Its containers stay when it goes, and the other's events go on.
    two.go_away().await;
    fleet.until("the problem", |state| codes(state, "two").contains(&Code::StaleView)).await;
    one.engine().run(Spec::new("c", ENABLED));
    fleet.until("the newcomer", |state| known(state) == ["docker:one a", "docker:one c", "docker:two b"]).await;
    assert!(codes(&fleet.state, "one").is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_names_for_one_engine_are_one_problem_and_no_container_is_told_twice() {
    let mut one = engine("a");
    let address = one.listen_tcp().await.unwrap();
    let mut fleet = Fleet::new(vec![("one", one.endpoint(), None), ("two", format!("tcp://{address}"), None)]);
    let twins = |state: &State| codes(state, "one").len() + codes(state, "two").len();
    fleet.until("the problem", |state| twins(state) == 1).await;
    one.engine().run(Spec::new("b", ENABLED));
    fleet.until("the newcomer", |state| known(state).iter().any(|entry| entry.ends_with(" b"))).await;
    fleet.until("some time", |state| state.catalog().entries().count() >= 2).await;
    assert_eq!(fleet.state.catalog().entries().count(), 2, "{:?}", known(&fleet.state));
    one.engine().remove("a");
    fleet.until("the removal", |state| known(state).len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_over_plain_tcp_from_elsewhere_is_a_warning() {
    let mut fleet = Fleet::new(vec![("far", "tcp://203.0.113.1:2375".to_owned(), None)]);
    fleet.until("the problem", |state| codes(state, "far").contains(&Code::PlainEngine)).await;
}

/// An authority, and a certificate of it for loopback: their PEM, and the key's.
fn certificates() -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (ca.pem(), leaf.pem(), key.serialize_pem())
}

#[tokio::test]
async fn an_engine_over_tls_is_followed_and_one_of_another_authority_is_refused() {
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    let mut fake = engine("a");
    let plain = fake.listen_tcp().await.unwrap();
    let (ca, cert, key) = certificates();
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let server = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut front = JoinSet::new();
    front.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(mut outer) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(plain).await.unwrap();
                let _ = copy_bidirectional(&mut outer, &mut inner).await;
            });
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let right = DockerTls { ca: file("ca.pem", &ca), shown: None };
    let wrong = DockerTls { ca: file("other.pem", &certificates().0), shown: None };
    let missing = DockerTls { ca: directory.path().join("none.pem").display().to_string(), shown: None };
    let endpoint = format!("tcp://{address}");
    let mut fleet = Fleet::new(vec![
        ("right", endpoint.clone(), Some(right)),
        ("wrong", endpoint.clone(), Some(wrong)),
        ("missing", endpoint, Some(missing)),
    ]);
    fleet.until("the container", |state| known(state) == ["docker:right a"]).await;
    let reason = |state: &State, name: &str| {
        let problems = state.catalog().provider_problems(&ProviderName::docker_engine(name));
        problems.first().map(|problem| problem.reason.clone()).unwrap_or_default()
    };
    fleet.until("the refusal", |state| reason(state, "wrong").contains("invalid peer certificate")).await;
    fleet.until("the missing file", |state| reason(state, "missing").contains("none.pem")).await;
    assert!(reason(&fleet.state, "missing").contains("`tls.ca`"));
}
