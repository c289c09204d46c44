//! From what went wrong with the engine to a problem: what exactly, what follows, and what to do. Looks at the socket's file to
//! tell apart what the error alone does not.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use tidegate_core::{Code, Problem, ProviderName, Timestamp};

use super::engine::{EngineError, IMAGE};

/// What follows from an engine that does not answer.
const EFFECT: &str = "what was known of its containers stays in force and checks go on, but changes are not seen; tidegate tries again until it \
     answers";

/// Why the engine at `endpoint` cannot be used (TG0110).
pub(super) fn unreachable(endpoint: &str, error: &EngineError) -> Problem {
    let (reason, cure) = match error {
        EngineError::Endpoint { .. } => (
            format!("{error}"),
            "write `unix:///var/run/docker.sock` or `tcp://HOST:PORT` as `providers.docker.endpoint`".to_owned(),
        ),
        EngineError::Connect { source } => match endpoint.strip_prefix("unix://") {
            Some(path) => socket(path, source),
            None => address(endpoint, source),
        },
        EngineError::TimedOut { .. } => (
            error.to_string(),
            "see whether `docker ps` answers; if it hangs too, look at the engine's log, else restart tidegate"
                .to_owned(),
        ),
        EngineError::Refused { status: 403 | 405, .. } => (
            error.to_string(),
            "let the socket proxy pass GET on /version, /_ping, /events, /containers/json, /containers/ID/json and /images/ID/json"
                .to_owned(),
        ),
        EngineError::Refused { status: 400, .. } => (
            error.to_string(),
            "the engine does not accept the API version: use Docker 20.10 or newer, and a tidegate as new as it"
                .to_owned(),
        ),
        EngineError::Tls { key, .. } => (
            error.to_string(),
            format!("put a PEM file that tidegate may read there, or name another one as `tls.{key}` of the engine"),
        ),
        EngineError::ApiTooOld { .. } => (error.to_string(), "use Docker 20.10 or newer".to_owned()),
        EngineError::Refused { .. } | EngineError::Protocol { .. } | EngineError::StreamEnded => {
            (error.to_string(), format!("see whether a Docker engine listens at {endpoint}, and look at its log"))
        }
    };
    Problem::error(Code::DockerUnreachable, format!("Docker engine {endpoint}"), reason, EFFECT, cure)
}

/// That nothing confirmed since `at` what was told of the engine's containers (TG0112).
pub(super) fn stale(endpoint: &str, at: Timestamp) -> Problem {
    Problem::error(
        Code::StaleView,
        format!("Docker engine {endpoint}"),
        format!("nothing has confirmed what is known of its containers since {at}"),
        "endpoints stay as they were then and checks go on; what started, stopped or moved since is not seen",
        "see why the engine does not answer (TG0110); it passes by itself when it does",
    )
    .warning()
}

/// An engine on another machine that is asked without TLS (TG0113).
pub(super) fn plain(endpoint: &str) -> Problem {
    Problem::error(
        Code::PlainEngine,
        format!("Docker engine {endpoint}"),
        "it is on another machine and is asked without TLS",
        "who is on the way can read and change what tidegate is told, and who reaches the port controls that machine",
        "set `tls` for it, and let the engine ask for certificates",
    )
    .warning()
}

/// An engine that shows what `twin` shows (TG0114).
pub(super) fn twin(endpoint: &str, twin: &ProviderName) -> Problem {
    Problem::error(
        Code::TwinEngines,
        format!("Docker engine {endpoint}"),
        format!("it shows containers that `{twin}` shows too"),
        "those are taken from there; from here only what that one does not show",
        "remove one of the two from `providers.docker.engines`",
    )
    .warning()
}

/// Why one container could not be inspected (TG0111).
pub(super) fn inspect_failed(subject: &str, error: &EngineError) -> Problem {
    use EngineError::{Protocol, Refused, TimedOut};
    let of_image = matches!(
        error,
        Protocol { phase, .. } | Refused { phase, .. } | TimedOut { phase, .. } if *phase == IMAGE
    );
    let cure = if of_image {
        "none needed if it passes: tidegate tries again; else let it read `/images/ID/json`, or set \
         `providers.docker.trustImageLabels: true`"
    } else {
        "none needed if it passes: tidegate tries again; else see what `docker inspect` says"
    };
    Problem::error(
        Code::InspectFailed,
        subject,
        format!("it could not be inspected: {error}"),
        "what was known of it stays in force; its changes are not seen",
        cure,
    )
    .warning()
}

fn socket(path: &str, error: &std::io::Error) -> (String, String) {
    let file = std::fs::metadata(path);
    let start = "start Docker (`systemctl start docker`), or set `providers.docker.endpoint`";
    match (error.kind(), file) {
        (ErrorKind::NotFound, _) => (
            format!("there is no socket at {path}"),
            format!("{start}; in a container, mount the directory that holds the socket"),
        ),
        (ErrorKind::PermissionDenied, file) => {
            let owner = file.map_or_else(
                |_| String::new(),
                |file| format!(" (mode {:03o}, group {})", file.mode() & 0o777, file.gid()),
            );
            (
                format!("permission to use the socket {path} is denied{owner}"),
                "run tidegate with the socket's group (`usermod -aG docker USER`, systemd `SupplementaryGroups=docker`), or \
                 through a socket proxy"
                    .to_owned(),
            )
        }
        (_, Ok(file)) if !file.file_type().is_socket() => (
            format!("{path} is not a socket"),
            "a container's bind mount of a missing socket makes a directory: remove it, start Docker, and mount again"
                .to_owned(),
        ),
        // A bind mount of the file itself goes on naming the old inode when the engine makes a new socket.
        (ErrorKind::ConnectionRefused, Ok(file)) if file.nlink() == 0 => (
            format!("the socket {path} was replaced by another one, which this mount does not show"),
            "mount the directory that holds the socket instead of the socket (`/run:/host/run:ro`), and restart this container"
                .to_owned(),
        ),
        (ErrorKind::ConnectionRefused, Ok(_)) => (
            format!("the socket {path} is there, but nothing listens on it"),
            format!("{start}; in a container whose engine was restarted, mount the socket's directory, not the socket"),
        ),
        _ => (format!("the socket {path} cannot be used: {error}"), start.to_owned()),
    }
}

fn address(endpoint: &str, error: &std::io::Error) -> (String, String) {
    let reason = match error.kind() {
        ErrorKind::ConnectionRefused => format!("nothing listens at {endpoint}"),
        // What rustls says no to.
        ErrorKind::InvalidData => {
            let cure = "let `tls.ca` be the authority of the engine's certificate, and the certificate name the endpoint's \
                        host; or, if the engine speaks no TLS there, leave `tls` out";
            return (format!("TLS to {endpoint} failed: {error}"), cure.to_owned());
        }
        _ => format!("{endpoint} cannot be reached: {error}"),
    };
    (reason, "start the engine or its socket proxy there, or set `providers.docker.endpoint`".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::time::Duration;

    use super::*;

    fn reason(endpoint: &str, error: &EngineError) -> String {
        unreachable(endpoint, error).reason
    }

    #[test]
    fn a_problem_says_which_of_the_many_ways_it_is() {
        let connect = |kind: ErrorKind| EngineError::Connect { source: io::Error::from(kind) };
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| format!("unix://{}", directory.path().join(name).display());
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead.sock")).unwrap());
        std::fs::write(directory.path().join("file"), "").unwrap();
        for (endpoint, error, expected) in [
            (path("none"), connect(ErrorKind::NotFound), "there is no socket at"),
            (path("dead.sock"), connect(ErrorKind::ConnectionRefused), "nothing listens on it"),
            (path("dead.sock"), connect(ErrorKind::PermissionDenied), "is denied (mode "),
            (path("file"), connect(ErrorKind::ConnectionRefused), "is not a socket"),
            ("tcp://127.0.0.1:1".into(), connect(ErrorKind::ConnectionRefused), "nothing listens at tcp://127.0.0.1:1"),
            (
                "x".into(),
                EngineError::TimedOut { phase: "a ping", after: Duration::from_secs(2) },
                "no answer to a ping within 2s",
            ),
            ("x".into(), EngineError::ApiTooOld { version: "1.40".into() }, "the API version 1.40"),
        ] {
            let text = reason(&endpoint, &error);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_socket_behind_a_dead_mount_is_told_apart() {
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::OpenOptionsExt;
        /// The only way to open a socket's file (x86-64 and arm64 Linux).
        const O_PATH: i32 = 0o10_000_000;
        // A mount cannot be made here; an open file descriptor names an inode without a name just the same.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("docker.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop(listener);
        let pinned = std::fs::File::options().read(true).custom_flags(O_PATH).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let via = format!("unix:///proc/self/fd/{}", pinned.as_raw_fd());
        let error = EngineError::Connect { source: io::Error::from(ErrorKind::ConnectionRefused) };
        assert!(reason(&via, &error).contains("was replaced by another one"), "{}", reason(&via, &error));
    }
}
