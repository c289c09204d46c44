//! The command line. Results go to standard output, messages to standard error; the exit code says what was found: 0 all is well,
//! 1 a problem, 2 wrong usage, 3 nobody to ask. What is shown comes from the API and is drawn here; `-o json` prints the API's own
//! words.

mod ask;
mod canary;
mod draw;
mod envoy;
mod events;
mod explain;
mod load;
mod moment;
mod operate;
mod start;
mod status;
mod token;
mod validate;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::ask::Api;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Well = 0,
    ProblemFound = 1,
    /// What clap, too, ends with.
    WrongUsage = 2,
    Unreachable = 3,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}

/// The Docker control plane for Envoy.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    /// The control plane to ask
    #[arg(long, global = true, env = "TIDEGATE_API", default_value = "http://127.0.0.1:18001", value_name = "URL")]
    api: Api,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// For programs: stable, versioned JSON
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the control plane
    Run(RunArgs),
    /// Runs the control plane and an Envoy, and starts either again when it ends
    Up(UpArgs),
    /// Shows providers, edges, services and problems on one screen
    Status(WatchArgs),
    /// Lists the services
    Ps(WatchArgs),
    /// Says why a service or container gets traffic, or does not
    Explain {
        /// A service, or a container by its name or the beginning of its id
        subject: String,
    },
    /// Shows what happened, why, and what the edges said of it
    Events(EventsArgs),
    /// Keeps new requests from a container, and lets it end those it has
    ///
    /// It holds until `undrain`, or until this run of the container ends. The last container that takes the requests of a
    /// version is not drained.
    Drain {
        #[command(flatten)]
        of: DrainArgs,
        /// Returns when every edge has accepted it and nothing is under way from the local Envoy
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Ends what `drain` began
    Undrain {
        #[command(flatten)]
        of: DrainArgs,
    },
    /// What concerns deployments
    #[command(subcommand)]
    Deploy(DeployCommand),
    /// Shows the rollouts, and leads them
    #[command(subcommand)]
    Canary(CanaryCommand),
    /// Checks a configuration file, offline
    Validate {
        /// The file
        file: PathBuf,
    },
    /// What concerns Envoy itself
    #[command(subcommand)]
    Envoy(EnvoyCommand),
    /// Prints the versions of tidegate and its filter
    Version,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The configuration file [default: ./tidegate.yaml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where state is kept [default: $STATE_DIRECTORY, else ./tidegate-state]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Another build of the filter than the embedded one
    #[arg(long, value_name = "FILE")]
    filter_wasm: Option<PathBuf>,
    /// Serves xDS without TLS to whoever can reach `xds.address`, loopback or not
    #[arg(long)]
    insecure_xds: bool,
    /// How logs are written to standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    log_format: LogFormat,
    /// Started by `tidegate up`
    #[arg(long, hide = true)]
    supervised: bool,
}

#[derive(Debug, Args)]
struct UpArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Envoy's binary [default: `envoy` in PATH]
    #[arg(long, env = "TIDEGATE_ENVOY", value_name = "FILE")]
    envoy: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    tls: TlsArgs,
}

/// What the edge says of itself.
#[derive(Debug, Args)]
struct NodeArgs {
    /// The id by which the edge is known
    #[arg(long, default_value = tidegate_core::bootstrap::NODE_ID, value_name = "ID")]
    node_id: String,
    /// The cluster of its node, by which `edge.groups` may know it
    #[arg(long, default_value = tidegate_core::bootstrap::NODE_CLUSTER, value_name = "NAME")]
    node_cluster: String,
    /// An entry of its node's metadata, by which `edge.groups` may know it, too; as often as needed
    #[arg(long, value_name = "KEY=VALUE", value_parser = envoy::parse_metadata)]
    node_metadata: Vec<(String, String)>,
}

/// The edge's side of TLS, which it needs where the configuration has `xds.tls`.
#[derive(Debug, Default, Args)]
struct TlsArgs {
    /// The edge's certificate, whose names have the node id among them; needed with `xds.tls`
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,
    /// The private key of that certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities that may have signed the certificate of xDS
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// The DNS name in the certificate of xDS [default: the address of xDS, as an IP address]
    #[arg(long, value_name = "NAME", requires = "tls_cert")]
    tls_server_name: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One object a line
    Json,
}

#[derive(Clone, Copy, Debug, Args)]
struct WatchArgs {
    /// Shows it again every second
    #[arg(short, long)]
    watch: bool,
}

#[derive(Debug, Args)]
struct EventsArgs {
    /// A service, or a container by its name or the beginning of its id [default: all]
    subject: Option<String>,
    /// Goes on with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Begins so long ago, such as `10m`; with `--follow` else now, without it with the oldest that is kept
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
}

#[derive(Debug, Args)]
struct DrainArgs {
    /// A container by its name or the beginning of its id
    container: String,
    /// The state directory of the control plane, which holds the token of such commands [default: $STATE_DIRECTORY, else
    /// ./tidegate-state]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct OrderArgs {
    /// The service
    service: String,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// The state directory of the control plane, which holds the token of such commands [default: $STATE_DIRECTORY, else
    /// ./tidegate-state]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Args)]
struct LimitArgs {
    /// Gives up after so long, and says what is missing
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Debug, Subcommand)]
enum DeployCommand {
    /// Returns when so many instances of a version are ready and every edge has accepted them
    Wait {
        /// The service
        service: String,
        /// Its version
        #[arg(long, default_value = "default")]
        version: String,
        /// How many have to be ready
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        replicas: u32,
        #[command(flatten)]
        limit: LimitArgs,
    },
}

#[derive(Debug, Subcommand)]
enum CanaryCommand {
    /// Shows where each rollout is and why, what was observed of it, and which edges accepted it
    Status {
        /// One service; else all that have a canary
        service: Option<String>,
        #[command(flatten)]
        watch: WatchArgs,
    },
    /// Shows what became of a service's rollouts: who or what, when, and on what evidence
    History {
        /// The service
        service: String,
    },
    /// Says what a changed configuration would do to the rollouts, before it does it
    Plan {
        /// The configuration file, as it would be
        file: PathBuf,
    },
    /// Begins a rollout that the configuration does not declare
    Start {
        #[command(flatten)]
        of: OrderArgs,
        /// The version to try
        #[arg(long, value_name = "VERSION")]
        version: String,
        /// The version that gets everything else [default: the declared one, else the one promoted last, else the only
        /// other one]
        #[arg(long, value_name = "VERSION")]
        stable: Option<String>,
        /// Its share in percent, which stays until it is promoted
        #[arg(long, default_value = "0", value_name = "PERCENT", conflicts_with = "plan")]
        weight: String,
        /// A file with what `canary:` of a service may say, but its version
        #[arg(long, value_name = "FILE")]
        plan: Option<PathBuf>,
    },
    /// Sets the canary's share, which then stays until the rollout is resumed, promoted or aborted
    Set {
        #[command(flatten)]
        of: OrderArgs,
        /// Percent with at most two decimals, such as 12.5
        percent: String,
    },
    /// Goes on with the next step at once
    Promote {
        #[command(flatten)]
        of: OrderArgs,
        /// Gives the canary everything at once
        #[arg(long)]
        full: bool,
    },
    /// Stays where it is until it is resumed
    Pause {
        #[command(flatten)]
        of: OrderArgs,
    },
    /// Goes on where it was paused
    Resume {
        #[command(flatten)]
        of: OrderArgs,
    },
    /// Gives the canary nothing any more, at once
    Abort {
        #[command(flatten)]
        of: OrderArgs,
    },
    /// Begins an aborted rollout anew
    Retry {
        #[command(flatten)]
        of: OrderArgs,
    },
    /// Gives a promoted canary nothing any more
    Undo {
        #[command(flatten)]
        of: OrderArgs,
    },
}

#[derive(Debug, Subcommand)]
enum EnvoyCommand {
    /// Prints the bootstrap of an edge
    Bootstrap(Box<BootstrapArgs>),
    /// Lists the edges, how far each is with each type, and what it refused, in its own words
    ///
    /// An edge is synced when it has acknowledged all that concerns it, which is not yet in effect.
    Ls(WatchArgs),
    /// Compares what is published with what the local Envoy says it has; ends with 1 if anything differs
    Diff {
        #[command(flatten)]
        of: TypeArgs,
    },
    /// Shows what the local Envoy itself says it has
    Config {
        #[command(flatten)]
        of: TypeArgs,
        /// One resource, shown in full
        name: Option<String>,
    },
    /// Shows what the edges report of their traffic
    Load(WatchArgs),
    /// Becomes another program that ends when its parent does
    #[command(hide = true)]
    Exec {
        /// The process that has to be the parent
        #[arg(long)]
        parent: i32,
        /// Program and arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

#[derive(Debug, Args)]
struct TypeArgs {
    /// One type of resource
    #[arg(long = "type", value_name = "TYPE", ignore_case = true, value_parser = envoy::TYPES)]
    kind: Option<String>,
}

#[derive(Debug, Args)]
struct BootstrapArgs {
    /// The configuration file [default: ./tidegate.yaml, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    /// Where the state of `run` is kept [default: $STATE_DIRECTORY, else ./tidegate-state]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the admin interface listens: a loopback ADDRESS:PORT, or `unix:PATH` [default: `edge.admin` of the
    /// configuration, else `envoy-admin.sock` in the state directory]
    #[arg(long, value_name = "ADDRESS", value_parser = envoy::parse_admin)]
    admin: Option<tidegate_core::config::Admin>,
    /// Where this Envoy reaches xDS [default: `xds.address` of the configuration; loopback for all addresses]
    #[arg(long, value_name = "ADDRESS")]
    xds_address: Option<SocketAddr>,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let Cli { api, output, command } = Cli::parse();
    let outcome = match command {
        Command::Run(args) => start::run(args),
        Command::Up(args) => start::up(args),
        Command::Status(watch) => ask::shown(|| status::status(&api, output), watch.watch),
        Command::Ps(watch) => ask::shown(|| status::ps(&api, output), watch.watch),
        Command::Explain { subject } => ask::shown(|| explain::explain(&api, output, &subject), false),
        Command::Events(args) => ask::once(events::events(&api, output, &args)),
        Command::Drain { of, wait, limit } => ask::once(operate::drain(&api, output, &of, wait, limit.timeout)),
        Command::Undrain { of } => ask::once(operate::undrain(&api, output, &of)),
        Command::Deploy(DeployCommand::Wait { service, version, replicas, limit }) => {
            ask::once(operate::deployed(&api, output, (&service, &version), replicas, limit.timeout))
        }
        Command::Canary(CanaryCommand::Status { service, watch }) => {
            ask::shown(|| canary::status::status(&api, output, service.as_deref()), watch.watch)
        }
        Command::Canary(CanaryCommand::History { service }) => {
            ask::shown(|| canary::history::history(&api, output, &service), false)
        }
        Command::Canary(CanaryCommand::Plan { file }) => ask::shown(|| canary::plan::plan(&api, output, &file), false),
        Command::Canary(ordered) => ask::once(canary::order::order(&api, output, ordered)),
        Command::Validate { file } => validate::validate(&file, output),
        Command::Envoy(EnvoyCommand::Bootstrap(args)) => envoy::bootstrap(&args, output),
        Command::Envoy(EnvoyCommand::Ls(watch)) => ask::shown(|| envoy::ls(&api, output), watch.watch),
        Command::Envoy(EnvoyCommand::Diff { of }) => {
            ask::shown(|| envoy::diff(&api, output, of.kind.as_deref()), false)
        }
        Command::Envoy(EnvoyCommand::Config { of, name }) => {
            ask::shown(|| envoy::config(&api, output, of.kind.as_deref(), name.as_deref()), false)
        }
        Command::Envoy(EnvoyCommand::Load(watch)) => ask::shown(|| load::load(&api, output), watch.watch),
        Command::Envoy(EnvoyCommand::Exec { parent, command }) => envoy::exec(parent, &command),
        Command::Version => start::version(output),
    };
    outcome.into()
}

#[cfg(test)]
mod tests;
