//! The server's process: does what the bench tells it on its standard input, a line at a time, and answers on its standard
//! output. It has nothing to itself but the store that it serves.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tidegate_xds::{Commit, ResourceType, ServerConfig, Store};
use tokio::net::TcpListener;

use crate::plan::{RUNTIME_LAYER, name};
use crate::tally::{Load, now, processor};
use crate::{plain, resources};

/// Threads of the server's runtime: one for each of the two cores that the budgets speak of.
const WORKERS: usize = 2;
/// Time between the order to begin a load and its first commit.
const LEAD: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Serves a store that is empty and open once something is published.
    Serve,
    /// Serves the messages of a file, as fast as tonic can; see [`plain`].
    ServePlain(PathBuf),
    /// Publishes so many services: a cluster and its endpoints each.
    Publish {
        services: usize,
        endpoints: usize,
    },
    /// Publishes the endpoints of some more, without clusters.
    PublishEndpoints {
        from: usize,
        services: usize,
        endpoints: usize,
    },
    /// Changes the weight of a service's first endpoint.
    Change {
        service: usize,
        endpoints: usize,
        weight: u32,
    },
    /// Changes the one weight in the runtime layer.
    Weigh(u32),
    /// Begins to commit at a steady rate, for so many commits.
    Begin {
        per_second: u64,
        commits: u64,
        endpoints: usize,
        from: usize,
        of: usize,
    },
    /// Waits for the end of the load.
    Finish,
    Look,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Serving(SocketAddr),
    /// When the change was handed to the store, in nanoseconds of the monotonic clock.
    Done {
        at: u64,
        encodes: usize,
    },
    Begun(Load),
    Finished {
        took: Duration,
    },
    Seen(Seen),
}

/// The server as of now.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) processor: Duration,
    /// Resident memory in bytes, now and at its highest.
    pub(crate) memory: u64,
    pub(crate) peak: u64,
    pub(crate) wakes: u64,
    pub(crate) responses: u64,
    /// Responses that were acknowledged or refused.
    pub(crate) answered: u64,
}

pub(crate) fn run() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let store = Store::new();
    let mut load: Option<JoinHandle<Duration>> = None;
    for line in std::io::stdin().lock().lines() {
        let command = serde_json::from_str(&line?)?;
        let reply = match command {
            Command::Serve => {
                let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
                let address = listener.local_addr()?;
                let serving =
                    tidegate_xds::serve(store.clone(), listener, ServerConfig::default(), std::future::pending());
                runtime.spawn(async {
                    if let Err(error) = serving.await {
                        crate::say(&format!("the server ended: {error}"));
                    }
                });
                Reply::Serving(address)
            }
            Command::ServePlain(messages) => Reply::Serving(plain::serve(&runtime, &messages)?),
            Command::Publish { services, endpoints } => {
                let mut commit = assignments(0, services, endpoints);
                for service in 0..services {
                    commit.upsert(ResourceType::Cluster, name(service), &resources::cluster(service));
                }
                commit.upsert(ResourceType::Runtime, RUNTIME_LAYER, &resources::weights(0));
                let done = commit_to(&store, commit);
                store.open();
                done
            }
            Command::PublishEndpoints { from, services, endpoints } => {
                commit_to(&store, assignments(from, services, endpoints))
            }
            Command::Change { service, endpoints, weight } => {
                let at = now();
                let mut commit = Commit::default();
                let assignment = resources::assignment(service, endpoints, weight);
                commit.upsert(ResourceType::Endpoint, name(service), &assignment);
                Reply::Done { at, encodes: store.commit(commit).encodes }
            }
            Command::Weigh(weight) => {
                let at = now();
                let mut commit = Commit::default();
                commit.upsert(ResourceType::Runtime, RUNTIME_LAYER, &resources::weights(weight));
                Reply::Done { at, encodes: store.commit(commit).encodes }
            }
            Command::Begin { per_second, commits, endpoints, from, of } => {
                let start = now() + u64::try_from(LEAD.as_nanos())?;
                let begun = Load { start, interval: 1_000_000_000 / per_second, from, of };
                let store = store.clone();
                load = Some(thread::spawn(move || commit_steadily(&store, begun, commits, endpoints)));
                Reply::Begun(begun)
            }
            Command::Finish => {
                let load = load.take().context("no load has begun")?;
                let Ok(took) = load.join() else { bail!("the load panicked") };
                Reply::Finished { took }
            }
            Command::Look => Reply::Seen(look(&store)?),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&reply)?)?;
        out.flush()?;
    }
    Ok(())
}

fn assignments(from: usize, services: usize, endpoints: usize) -> Commit {
    let mut commit = Commit::default();
    for service in from..from + services {
        commit.upsert(ResourceType::Endpoint, name(service), &resources::assignment(service, endpoints, 1));
    }
    commit
}

fn commit_to(store: &Store, commit: Commit) -> Reply {
    let at = now();
    Reply::Done { at, encodes: store.commit(commit).encodes }
}

/// Commits when each is due, or at once when it is overdue; answers how long all took.
fn commit_steadily(store: &Store, load: Load, commits: u64, endpoints: usize) -> Duration {
    for number in 0..commits {
        if let Some(early) = load.due(number).checked_sub(now()) {
            thread::sleep(Duration::from_nanos(early));
        }
        let service = load.service(number);
        let mut commit = Commit::default();
        let assignment = resources::assignment(service, endpoints, Load::weight(number));
        commit.upsert(ResourceType::Endpoint, name(service), &assignment);
        store.commit(commit);
    }
    Duration::from_nanos(now().saturating_sub(load.start))
}

fn look(store: &Store) -> Result<Seen> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kilobytes = |key: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    };
    let counters = store.counters();
    Ok(Seen {
        processor: processor(),
        memory: kilobytes("VmRSS:")?,
        peak: kilobytes("VmHWM:")?,
        wakes: counters.wakes,
        responses: counters.responses,
        answered: counters.accepted + counters.rejected,
    })
}
