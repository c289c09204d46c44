//! Addresses that are in use: found before anything is started on them, and named with whoever has them.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use tidegate_core::{Code, Problem};

/// The problem of an address that cannot be listened on; `None` when it can. `key` is where the configuration sets it.
pub(crate) fn check(key: &str, address: SocketAddr) -> Option<Problem> {
    let effect = "nothing is served there; it is tried again";
    TcpListener::bind(address).err().map(|error| describe(key, address, &error, effect))
}

/// The problem of an address that `run` could not bind.
pub(crate) fn problem(key: &str, address: SocketAddr, error: &std::io::Error) -> Problem {
    describe(key, address, error, "the control plane does not start; an Envoy that runs keeps its configuration")
}

fn describe(key: &str, address: SocketAddr, error: &std::io::Error, effect: &str) -> Problem {
    let (reason, cure) = match error.kind() {
        ErrorKind::AddrInUse => (
            match holder(address) {
                Some(holder) => format!("the address is in use by {holder}"),
                None => "the address is in use by another process".to_owned(),
            },
            format!("stop that process, or set `{key}` in tidegate.yaml to another address"),
        ),
        ErrorKind::AddrNotAvailable => (
            "this machine has no such address".to_owned(),
            format!("set `{key}` in tidegate.yaml to an address of this machine"),
        ),
        ErrorKind::PermissionDenied => (
            "listening there is not permitted".to_owned(),
            format!("set `{key}` in tidegate.yaml to a port above 1023, or grant CAP_NET_BIND_SERVICE"),
        ),
        _ => (format!("it cannot be listened on: {error}"), format!("set `{key}` in tidegate.yaml to another address")),
    };
    Problem::error(Code::AddressInUse, format!("`{key}` {address}"), reason, effect, cure)
}

/// Who listens on an address: name and process id, as far as this user may know.
fn holder(address: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .find_map(|table| listening_inode(&table, address.port()).map(str::to_owned))?;
    let wanted = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else { continue };
        if holds(&process.path(), &wanted) {
            let command = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("`{}` (process {pid})", command.trim()));
        }
    }
    None
}

fn holds(process: &Path, wanted: &str) -> bool {
    let Ok(descriptors) = std::fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted))
}

/// The inode of the socket that listens on a port, in the format of `/proc/net/tcp` (state `0A` is LISTEN).
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (_, hex) = local.rsplit_once(':')?;
        (u16::from_str_radix(hex, 16).ok()? == port && *state == "0A").then_some(*inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_an_address_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let problem = check("edge.listeners", address).unwrap();
        assert_eq!(problem.code, Code::AddressInUse);
        assert!(problem.reason.contains(&format!("(process {})", std::process::id())), "{problem}");
        assert!(problem.cure.contains("`edge.listeners`"), "{problem}");
        drop(listener);
        assert_eq!(check("edge.listeners", address), None);
    }
}
