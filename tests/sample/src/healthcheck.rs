//! The HEALTHCHECK client: an image `FROM scratch` has no curl. What it prints is what `docker inspect` shows of a check.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    process::ExitCode,
    time::Duration,
};

use crate::settings::Settings;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Docker reserves the exit codes above 1.
pub(crate) fn run(settings: &Settings, path: &str) -> ExitCode {
    let ip = match settings.address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    match status(SocketAddr::new(ip, settings.address.port()), path) {
        Ok(status) => {
            println!("GET {path}: {status}");
            if (200..400).contains(&status) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("GET {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn status(address: SocketAddr, path: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())?;
    // "HTTP/1.1 200": more is not needed.
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    let status = std::str::from_utf8(&start[9..]).ok().and_then(|digits| digits.parse().ok());
    status.ok_or_else(|| std::io::Error::other("not an HTTP answer"))
}
