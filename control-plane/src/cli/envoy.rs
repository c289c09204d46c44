//! What concerns Envoy itself: `envoy bootstrap` prints what an edge starts with, `envoy exec` is how `up` starts one that does
//! not outlive it, and `envoy ls`, `config` and `diff` ask the control plane.

mod config;
mod diff;
mod ls;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::anyhow;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tidegate_core::bootstrap::{self, BootstrapOptions, EdgeNode, EdgeTls};
use tidegate_core::config::{Admin, Config};

pub(super) use self::config::config;
pub(super) use self::diff::diff;
pub(super) use self::ls::ls;
use super::{BootstrapArgs, NodeArgs, Outcome, Output, TlsArgs, draw, start};
use crate::http::escaped;
use crate::options::config_file;
use crate::tls;

/// The types of resources, in the order of their columns.
pub(super) const TYPES: [&str; 6] = ["CDS", "EDS", "LDS", "RDS", "ECDS", "RTDS"];

/// A path with those parameters that have a value.
fn query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| value.map(|value| format!("{name}={}", escaped(value))));
    let given: Vec<String> = given.collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

pub(super) fn parse_admin(text: &str) -> Result<Admin, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.is_empty() { Err("the path is empty".to_owned()) } else { Ok(Admin::Unix(path.to_owned())) };
    }
    let address: SocketAddr =
        text.parse().map_err(|_| "write a loopback address such as 127.0.0.1:9901, or unix:PATH".to_owned())?;
    if !address.ip().is_loopback() {
        return Err(
            "the admin interface can shut Envoy down and asks nobody who is calling: use a loopback address".to_owned()
        );
    }
    Ok(Admin::Tcp(address))
}

pub(super) fn parse_metadata(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, such as tier=inside".to_owned()),
    }
}

impl NodeArgs {
    pub(super) fn edge(&self) -> EdgeNode {
        EdgeNode {
            id: self.node_id.clone(),
            cluster: self.node_cluster.clone(),
            metadata: self.node_metadata.iter().cloned().collect(),
        }
    }
}

impl TlsArgs {
    /// All of the three files, or none: clap sees to it.
    pub(super) fn edge(&self) -> Option<EdgeTls> {
        let [cert, key, ca] = [&self.tls_cert, &self.tls_key, &self.tls_ca]
            .map(|path| path.as_ref().map(|path| path.display().to_string()));
        Some(EdgeTls { cert: cert?, key: key?, ca: ca?, server_name: self.tls_server_name.clone() })
    }
}

pub(super) fn bootstrap(args: &BootstrapArgs, output: Output) -> Outcome {
    let config = match crate::config::load(config_file(args.config.clone()).as_deref()) {
        Ok(config) => config,
        Err(problems) => {
            for problem in problems {
                draw::say(&problem.to_string());
            }
            return Outcome::ProblemFound;
        }
    };
    match render(&config, args, output) {
        Ok(text) => draw::page(&text, false),
        Err(error) => return draw::fail(&format!("error: {error}"), Outcome::ProblemFound),
    }
    Outcome::Well
}

/// The bootstrap as it is printed.
pub(super) fn render(config: &Config, args: &BootstrapArgs, output: Output) -> anyhow::Result<String> {
    // Where `run` with the same options looks for it, to see whether the filter lives.
    let admin = match &args.admin {
        Some(admin) => admin.clone(),
        None => crate::envoy::admin(config, &start::state_dir(args.state_dir.clone()))
            .map_err(|problem| anyhow!("{problem}"))?,
    };
    let tls = tls::edge(config, args.tls.edge().as_ref()).map_err(|problem| anyhow!("{problem}"))?;
    let options = BootstrapOptions { node: args.node.edge(), admin, xds: args.xds_address, tls };
    let value = bootstrap::bootstrap(config, &options);
    match output {
        Output::Json => Ok(format!("{value:#}\n")),
        Output::Table => Ok(bootstrap::to_yaml(&value)?),
    }
}

/// Becomes another program, which the kernel ends by SIGTERM when the thread that started this process ends.
pub(super) fn exec(parent: i32, command: &[OsString]) -> Outcome {
    let Some((program, arguments)) = command.split_first() else { return Outcome::WrongUsage };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        draw::say(&format!("warning: the program will outlive a killed parent: {error}"));
    }
    // The parent may have ended before the line above.
    if getppid() != Pid::from_raw(parent) {
        return Outcome::ProblemFound;
    }
    let error = Command::new(program).args(arguments).exec();
    draw::fail(&format!("error: {} cannot be executed: {error}", program.display()), Outcome::ProblemFound)
}
