use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

/// On a machine that is busy.
const LIMIT: Duration = Duration::from_secs(30);

fn authority() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

#[tokio::test]
async fn a_file_of_authorities_is_read_again_when_it_changes_and_what_cannot_be_used_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ca) = (directory.path().join("tidegate.yaml"), directory.path().join("elsewhere").join("ca.pem"));
    std::fs::create_dir(ca.parent().unwrap()).unwrap();
    let text = format!("services: {{ shop: {{ tls: {{ ca: {} }} }} }}", ca.display());
    std::fs::write(&file, text).unwrap();
    let [missing] = &load(Some(&file)).unwrap_err()[..] else { panic!("one problem") };
    assert_eq!(missing.subject, format!("`services.shop.tls.ca` {}", ca.display()));
    assert!(missing.reason.starts_with("it cannot be read: "), "{missing}");

    let (first, second) = (authority(), authority());
    let key = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&ca, format!("{key}# ours\n{first}{key}")).unwrap();
    let config = load(Some(&file)).unwrap();
    let authorities =
        |config: &Config| config.services.values().next().unwrap().tls.as_ref().unwrap().authorities.clone();
    assert_eq!(authorities(&config).trim_end(), first.trim_end(), "a key that stands beside it goes nowhere");

    let (inbox, mut inputs) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(ConfigWatch::new(file, config, inbox).run(shutdown.clone()));
    let mut next = async || timeout(LIMIT, inputs.recv()).await.expect("it is seen").unwrap();
    std::fs::write(&ca, "no PEM").unwrap();
    let Input::Reported { problems, .. } = next().await else { panic!("nothing is configured") };
    assert_eq!(problems.iter().map(|problem| problem.reason.as_str()).collect::<Vec<_>>(), ["it holds no certificate"]);
    std::fs::write(&ca, &second).unwrap();
    let Input::Configured(config) = next().await else { panic!("it is used") };
    assert_eq!(authorities(&config).trim_end(), second.trim_end());
    let Input::Reported { problems, .. } = next().await else { panic!("the problem is over") };
    assert_eq!(problems, []);
    shutdown.cancel();
}
