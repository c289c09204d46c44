use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// On a machine that is busy.
const LIMIT: Duration = Duration::from_secs(30);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key.
    fn sign(&self, years: (i32, i32)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["tidegate.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Three files that fit.
pub(crate) struct World {
    directory: TempDir,
    authority: Authority,
    pub(crate) files: XdsTls,
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let files = XdsTls { cert: path("cert.pem"), key: path("key.pem"), client_ca: path("ca.pem") };
        let world = Self { directory, authority: Authority::new(), files };
        let (cert, key) = world.authority.sign((2020, 2120));
        for (name, text) in [("cert.pem", &cert), ("key.pem", &key), ("ca.pem", &world.authority.pem)] {
            world.write(name, text);
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// What is wrong with the files: subject and reason.
    fn problem(&self) -> (String, String) {
        let problem = load(&self.files).map(drop).unwrap_err();
        assert_eq!(problem.code, Code::UnusableCertificate);
        (problem.subject.replace(&format!("{}/", self.directory.path().display()), ""), problem.reason)
    }
}

#[test]
fn the_file_at_fault_is_named_with_the_reason() {
    let problem = |change: fn(&World)| {
        let world = World::new();
        assert!(load(&world.files).is_ok());
        change(&world);
        world.problem()
    };
    let at = |key: &str, name: &str, reason: &str| (format!("`xds.tls.{key}` {name}"), reason.to_owned());
    assert_eq!(
        problem(|world| std::fs::remove_file(world.path("key.pem")).unwrap()),
        at("key", "key.pem", "it cannot be read: No such file or directory (os error 2)")
    );
    assert_eq!(problem(|world| world.write("cert.pem", "")), at("cert", "cert.pem", "it holds no certificate in PEM"));
    assert_eq!(problem(|world| world.write("ca.pem", "x")), at("clientCa", "ca.pem", "it holds no certificate in PEM"));
    assert_eq!(problem(|world| world.write("key.pem", "x")), at("key", "key.pem", "it holds no private key in PEM"));
    assert_eq!(
        problem(|world| world.write("key.pem", &world.authority.sign((2020, 2120)).1)),
        at("key", "key.pem", "it belongs to another certificate")
    );
    let expired = problem(|world| {
        let (cert, key) = world.authority.sign((2020, 2021));
        world.write("cert.pem", &cert);
        world.write("key.pem", &key);
    });
    assert_eq!(expired, at("cert", "cert.pem", "it expired on Jan  1 00:00:00 2021 +00:00"));
    let early = problem(|world| world.write("cert.pem", &world.authority.sign((2119, 2120)).0));
    assert_eq!(early, at("cert", "cert.pem", "it is not valid before Jan  1 00:00:00 2119 +00:00"));
    let cut = problem(|world| {
        let whole = std::fs::read_to_string(world.path("cert.pem")).unwrap();
        world.write("cert.pem", &whole[..whole.len() / 2]);
    });
    assert!(cut.1.starts_with("it cannot be read as PEM: "), "{cut:?}");
}

#[test]
fn the_end_of_a_certificate_is_told_before_it_comes() {
    let files = World::new().files;
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(expiry(&files, Some(30 * day)), None);
    let soon = expiry(&files, Some(3 * day / 2)).unwrap();
    assert_eq!(soon.reason, "it expires in less than 2 days");
    let over = expiry(&files, None).unwrap();
    assert!(over.severity < soon.severity, "{over}");
}

#[tokio::test]
async fn files_that_change_are_used_and_bad_ones_are_told_and_leave_what_was() {
    let world = World::new();
    let served = load(&world.files).unwrap();
    let at_start = served.expires();
    let (inbox, mut inputs) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let watch = CertificateWatch::new(world.files.clone(), served.clone(), Clock::start(), inbox);
    let acting = async {
        world.write("cert.pem", "none");
        let mut told = async || match tokio::time::timeout(LIMIT, inputs.recv()).await {
            Ok(Some(Input::Reported { part: PART, problems })) => problems,
            other => panic!("{other:?}"),
        };
        let problems = told().await;
        assert_eq!(problems.len(), 1);
        assert_eq!((problems[0].effect.as_str(), served.expires()), (WHILE_RUNNING, at_start));

        let (cert, key) = world.authority.sign((2020, 2110));
        world.write("key.pem", &key);
        world.write("cert.pem", &cert);
        assert_eq!(told().await, []);
        assert!(served.expires() < at_start, "the new one is in use");
        shutdown.cancel();
    };
    tokio::join!(watch.run(shutdown.clone()), acting);
}

#[test]
fn an_edge_and_its_configuration_agree_on_tls() {
    let mut config = Config::default();
    let shown = EdgeTls { cert: "/c".to_owned(), key: "/k".to_owned(), ca: "a.pem".to_owned(), server_name: None };
    assert_eq!(edge(&config, None), Ok(None));
    assert!(edge(&config, Some(&shown)).unwrap_err().cure.contains("`xds.tls`"));
    config.xds.tls = Some(World::new().files);
    assert!(edge(&config, None).unwrap_err().cure.contains("--tls-cert"));
    let absolute = edge(&config, Some(&shown)).unwrap().unwrap();
    assert_eq!(absolute.cert, "/c");
    assert!(
        absolute.ca.starts_with('/') && absolute.ca.ends_with("/a.pem"),
        "Envoy may run elsewhere: {}",
        absolute.ca
    );
}
