use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

#[test]
fn versions_are_read_and_compared() {
    let parse =
        |version: &str| Version::parse(&format!("\nenvoy  version: 9e55809/{version}/Clean/RELEASE/BoringSSL\n"));
    assert_eq!(parse("1.40.0"), Some(Version { major: 1, minor: 40, patch: 0 }));
    assert_eq!(parse("1.41.0-dev").map(|v| (v.is_newer(), v.is_older())), Some((true, false)));
    assert_eq!(parse("1.40.7").map(|v| (v.is_newer(), v.is_older())), Some((false, false)));
    assert_eq!(parse("1.39.9").map(|v| (v.is_newer(), v.is_older())), Some((false, true)));
    for other in ["", "1.40", "x.y.z"] {
        assert_eq!(parse(other), None, "{other}");
    }
    assert_eq!(Version::parse("GNU bash, version 5.2.15"), None);
}

/// A script that stands for an Envoy.
fn script(directory: &Path, name: &str, says: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn what_was_found_instead_of_an_envoy_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let unreadable = directory.path().join("plain");
    std::fs::write(&unreadable, "").unwrap();
    let cases = [
        (directory.path().join("absent"), "there is no such file"),
        (unreadable, "it may not be executed"),
        (
            script(directory.path(), "old", "envoy  version: c/1.29.3/Clean/RELEASE/BoringSSL"),
            "it is Envoy 1.29.3, older",
        ),
        (script(directory.path(), "other", "nginx 1.2"), "said \"nginx 1.2\", which is not Envoy"),
    ];
    for (path, reason) in cases {
        let problem = find(Some(&path), None).await.unwrap_err();
        assert_eq!(problem.code, Code::EnvoyUnusable);
        assert!(problem.subject.contains(path.to_str().unwrap()), "{problem}");
        assert!(problem.reason.contains(reason), "{problem}");
        assert!(problem.cure.contains("TIDEGATE_ENVOY"), "{problem}");
    }
}

#[tokio::test]
async fn envoy_is_found_in_path_and_a_newer_one_is_warned_about() {
    let directory = tempfile::tempdir().unwrap();
    let path = script(directory.path(), "envoy", "envoy  version: c/1.41.2/Clean/RELEASE/BoringSSL");
    let path_variable = OsString::from(format!("/nowhere:{}", directory.path().display()));
    let found = find(None, Some(&path_variable)).await.unwrap();
    assert_eq!((found.path.clone(), found.version.to_string()), (path, "1.41.2".to_owned()));
    assert!(untested(&found).is_some_and(|problem| problem.reason.contains("1.41.2")));
    let problem = find(None, Some(&OsString::from("/nowhere"))).await.unwrap_err();
    assert!(problem.reason.contains("no `envoy` in any of the 1 directories"), "{problem}");
}

#[test]
fn a_socket_path_that_the_kernel_refuses_is_a_problem_with_a_cure() {
    let config = Config::default();
    assert!(matches!(admin(&config, Path::new("/state")), Ok(Admin::Unix(path)) if path == "/state/envoy-admin.sock"));
    let problem = admin(&config, Path::new(&format!("/{}", "x".repeat(99)))).unwrap_err();
    assert!(problem.reason.contains("117 bytes") && problem.cure.contains("edge.admin"), "{problem}");
}

#[tokio::test]
async fn the_admin_interface_is_asked_over_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let served = async {
        let mut asked = Vec::new();
        for answer in [
            "HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\nwasm.a.b: 3\nx: y\nh: P0(1,2)\nlast.one: 18446",
            "HTTP/1.1 405 No\r\ncontent-length: 0\r\n\r\n",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let read = stream.read(&mut head).await.unwrap();
            asked.push(String::from_utf8_lossy(&head[..read]).lines().next().unwrap().to_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    };
    let client = AdminClient::new(&Admin::Unix(socket.display().to_string()));
    let asking = async { (client.stats("^wasm.*").await, client.post("/quitquitquit").await) };
    let ((stats, refused), asked) = tokio::join!(asking, served);
    assert_eq!(stats.unwrap(), [("last.one".to_owned(), 18446), ("wasm.a.b".to_owned(), 3)].into());
    assert!(matches!(refused, Err(AdminError::Refused { status: 405, .. })), "{refused:?}");
    assert_eq!(asked, ["GET /stats?filter=%5Ewasm%2E%2A HTTP/1.1", "POST /quitquitquit HTTP/1.1"]);
    let gone = AdminClient::new(&Admin::Unix(directory.path().join("none").display().to_string()));
    assert!(matches!(gone.get("/").await, Err(AdminError::Unreachable(_))));
}
