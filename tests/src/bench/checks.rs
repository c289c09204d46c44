//! The checks of 5,000 instances every 2 s, 100 of which hang: the share of a core that the control plane takes, and how late checks
//! begin. The instances stand in a file and are checked over HTTP; who answers them is this program, which is not counted.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{Row, filter::processor};
use crate::{client::Request, poll::until, ports, tidegate::Tidegate};

/// Instances of one service; each of them at an address that other services have, too.
const ADDRESSES: usize = 100;
const ANSWERING: usize = 49;
const HANGING: usize = 1;
const MEASURED: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(120);
/// Of one core.
const CPU_BUDGET: f64 = 25.0;
const LATENESS_BUDGET: f64 = 100.0;

/// Measures once everything that answers is ready and everything that hangs is known to.
pub(super) async fn run() -> Result<Vec<Row>> {
    let mut servers = JoinSet::new();
    let answering = servers_of(&mut servers, true).await?;
    let hanging = servers_of(&mut servers, false).await?;
    let mut text = String::new();
    for service in 0..ANSWERING + HANGING {
        for address in if service < ANSWERING { &answering } else { &hanging } {
            text.push_str(&format!(
                "- {{ service: s{service}, host: s{service}.localhost, address: \"{address}\", \
                 check: {{ type: http, path: /ready }} }}\n"
            ));
        }
    }
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("instances.yaml");
    std::fs::write(&file, text)?;
    let (listener, xds, api) = (ports::free()?, ports::free()?, ports::free()?);
    let mut tidegate = Tidegate::run(&format!(
        "edge: {{ listeners: [ {{ name: web, address: \"{listener}\" }} ] }}\nxds: {{ address: \"{xds}\" }}\n\
         api: {{ address: \"{api}\" }}\n\
         providers: {{ docker: {{ enabled: false }}, file: {{ path: \"{}\" }} }}\n",
        file.display()
    ))?;
    tidegate.synced(api, LIMIT).await?;
    until(LIMIT, "all to be checked, those that hang again and again", async || {
        let now = Counted::of(api).await?;
        let (all, wanted) = (now.passed, (ANSWERING * ADDRESSES * 3) as f64);
        ensure!(all >= wanted, "{all} checks passed, not {wanted}");
        let (hung, wanted) = (now.timed_out, (HANGING * ADDRESSES * 3) as f64);
        ensure!(hung >= wanted, "{hung} checks timed out, not {wanted}");
        Ok(())
    })
    .await?;

    let pid = tidegate.process.pid();
    let (before, busy, began) = (Counted::of(api).await?, processor(pid)?, Instant::now());
    sleep(MEASURED).await;
    let (after, busy, took) = (Counted::of(api).await?, processor(pid)? - busy, began.elapsed());
    let checks = after.ended - before.ended;
    ensure!(after.failed == before.failed, "{} checks failed that should not", after.failed - before.failed);
    let per_second = checks / took.as_secs_f64();
    let named = format!("{} instances checked every 2 s, {} of them hang", 50 * ADDRESSES, HANGING * ADDRESSES);
    let row = |what: &str| format!("{named}, {what}");
    Ok(vec![
        Row::new(row("checks made"), per_second, "/s"),
        Row::at_most(row("share of a core"), busy.as_secs_f64() / took.as_secs_f64() * 1e2, CPU_BUDGET, "%"),
        Row::new(row("processor time of a check"), busy.as_secs_f64() * 1e6 / checks, "µs"),
        Row::at_most(row("p99 of how late they begin, at most"), after.late(&before, 99.0)?, LATENESS_BUDGET, "ms"),
    ])
}

/// A hundred addresses where every request is answered, or none.
async fn servers_of(tasks: &mut JoinSet<()>, answers: bool) -> Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for _ in 0..ADDRESSES {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        addresses.push(listener.local_addr()?);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut request = [0; 1024];
                    // Who hangs reads the request, and then the end of the connection.
                    while stream.read(&mut request).await.is_ok_and(|length| length > 0) && !answers {}
                    let _ =
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
    }
    Ok(addresses)
}

/// What the prober counted.
struct Counted {
    ended: f64,
    passed: f64,
    failed: f64,
    timed_out: f64,
    /// Upper bounds in seconds, and how many checks began no later.
    lateness: Vec<(f64, f64)>,
}

impl Counted {
    async fn of(api: SocketAddr) -> Result<Self> {
        let answer = Request::get(api, "/metrics").timeout(LIMIT).send().await?;
        ensure!(answer.status == 200, "GET /metrics: {}", answer.status);
        let mut counted = Self { ended: 0.0, passed: 0.0, failed: 0.0, timed_out: 0.0, lateness: Vec::new() };
        for line in answer.text().lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            if let Some(labels) = series.strip_prefix("tidegate_checks_total") {
                let value: f64 = value.parse()?;
                counted.ended += value;
                for (result, of) in [
                    ("passed", &mut counted.passed),
                    ("failed", &mut counted.failed),
                    ("timed_out", &mut counted.timed_out),
                ] {
                    *of += if labels.contains(&format!("result=\"{result}\"")) { value } else { 0.0 };
                }
            } else if let Some(bound) = series.strip_prefix("tidegate_check_lateness_seconds_bucket{le=\"") {
                let bound = bound.trim_end_matches("\"}").replace("+Inf", "inf");
                counted.lateness.push((bound.parse()?, value.parse()?));
            }
        }
        ensure!(!counted.lateness.is_empty(), "/metrics says nothing of how late checks are");
        Ok(counted)
    }

    /// The bound in milliseconds that so many percent of the checks since then did not exceed.
    fn late(&self, before: &Self, percent: f64) -> Result<f64> {
        let since = |index: usize| self.lateness[index].1 - before.lateness[index].1;
        let all = since(self.lateness.len() - 1);
        let index = (0..self.lateness.len()).find(|index| since(*index) >= all * percent / 100.0);
        Ok(self.lateness[index.context("a bound")?].0 * 1e3)
    }
}
