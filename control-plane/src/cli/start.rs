//! `run`, `up` and `version`: what starts something, or says what would be started.

use std::io::IsTerminal;
use std::path::PathBuf;

use serde_json::json;
use tidegate_core::status::API_VERSION;
use tracing_subscriber::EnvFilter;

use super::{LogFormat, Outcome, Output, RunArgs, UpArgs, draw};
use crate::options::{DEFAULT_STATE_DIR, RunOptions, config_file};
use crate::run::StartError;
use crate::up::UpOptions;
use crate::{envoy, filter};

/// The log levels when `RUST_LOG` says nothing.
const LEVELS: &str = "info";

pub(super) fn run(args: RunArgs) -> Outcome {
    init_log(args.log_format);
    let options = resolve(args);
    ended(on_runtime(tokio::runtime::Builder::new_multi_thread(), crate::run::run(options)))
}

pub(super) fn up(args: UpArgs) -> Outcome {
    init_log(args.run.log_format);
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            return draw::fail(&format!("error: this program's own file is not known: {error}"), Outcome::ProblemFound);
        }
    };
    let options = UpOptions {
        json_logs: args.run.log_format == LogFormat::Json,
        run: resolve(args.run),
        envoy: args.envoy,
        path: std::env::var_os("PATH"),
        program,
        node: args.node.edge(),
        tls: args.tls.edge(),
        tell: |problem| draw::say(&problem.to_string()),
    };
    // One thread: a child's death signal comes when the thread that started it ends.
    ended(on_runtime(tokio::runtime::Builder::new_current_thread(), crate::up::up(options)))
}

pub(super) fn version(output: Output) -> Outcome {
    let (version, schema) = (env!("CARGO_PKG_VERSION"), tidegate_filter_core::SCHEMA);
    let wasm = filter::wasm_sha256();
    let (major, minor) = envoy::SUPPORTED;
    let text = match output {
        Output::Table => {
            format!("tidegate {version}\nfilter schema {schema}, sha256 {wasm}\ntested with Envoy {major}.{minor}\n")
        }
        Output::Json => {
            let value = json!({
                "apiVersion": API_VERSION,
                "version": version,
                "filter": { "schema": schema, "sha256": wasm },
                "envoy": format!("{major}.{minor}"),
            });
            format!("{value}\n")
        }
    };
    draw::page(&text, false);
    Outcome::Well
}

fn resolve(args: RunArgs) -> RunOptions {
    RunOptions {
        config: config_file(args.config),
        state_dir: state_dir(args.state_dir),
        filter_wasm: args.filter_wasm,
        insecure_xds: args.insecure_xds,
        supervised: args.supervised,
    }
}

/// The state directory when `named` is what was asked for.
pub(super) fn state_dir(named: Option<PathBuf>) -> PathBuf {
    // systemd may name several directories; the first is ours.
    let from_systemd = || {
        let directories = std::env::var_os("STATE_DIRECTORY").filter(|value| !value.is_empty())?;
        directories.to_string_lossy().split(':').next().map(PathBuf::from)
    };
    named.or_else(from_systemd).unwrap_or_else(|| DEFAULT_STATE_DIR.into())
}

fn on_runtime(
    mut builder: tokio::runtime::Builder,
    task: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    builder.enable_all().build()?.block_on(task)
}

fn ended(result: anyhow::Result<()>) -> Outcome {
    let Err(error) = result else { return Outcome::Well };
    match error.downcast_ref::<StartError>() {
        Some(StartError { problems }) => {
            for problem in problems {
                draw::say(&problem.to_string());
            }
        }
        None => draw::say(&format!("error: {error:#}")),
    }
    Outcome::ProblemFound
}

fn init_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LEVELS));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
}
