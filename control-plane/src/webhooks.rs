//! What rollouts ask and tell outside: webhooks, and numbers of Prometheus. Each is one HTTP exchange, without redirects and TLS; what
//! hangs costs its timeout and holds up nothing but its like of the same service. What an answer means for a rollout is the state's.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tidegate_core::config::canary::{Webhook, WebhookKind};
use tidegate_core::state::trials::{Errand, Job};
use tidegate_core::{Input, ServiceName};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::http::{Answer, Target, escaped};

/// Exchanges at once, of all services.
const AT_ONCE: usize = 16;
/// Errands that wait here; more wait in the channel, and then nobody takes them.
const WAITING: usize = 256;
/// Bytes of an answer's body that are taken.
const MAX_BODY: usize = 64 << 10;
/// How long Prometheus may take to answer a query.
const QUERY: Duration = Duration::from_secs(5);
/// Characters of an answer that are shown as the reason of a refusal.
const SHOWN: usize = 200;

/// Carries out `errands` and tells `inbox` what came of them, until `shutdown`.
pub(crate) async fn run(mut errands: mpsc::Receiver<Errand>, inbox: mpsc::Sender<Input>, shutdown: CancellationToken) {
    let mut queue = Queue::default();
    let mut under_way = JoinSet::new();
    loop {
        while under_way.len() < AT_ONCE
            && let Some((lane, errand)) = queue.next()
        {
            under_way.spawn(async move { (lane, carry_out(errand).await) });
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            errand = errands.recv(), if queue.waiting.len() < WAITING => match errand {
                Some(errand) => queue.put(errand),
                None => return,
            },
            Some(ended) = under_way.join_next() => match ended {
                Ok((lane, answer)) => {
                    queue.busy.remove(&lane);
                    if let Some(answer) = answer
                        && inbox.send(answer).await.is_err()
                    {
                        return;
                    }
                }
                Err(error) => {
                    // Whose it was is not known any more: rather twice at once than never again.
                    tracing::error!(%error, "a webhook's task panicked");
                    queue.busy.clear();
                }
            },
        }
    }
}

/// What is asked one at a time: of each service, its webhooks of a kind, each of its metrics, and what it tells.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Ask(ServiceName, WebhookKind),
    Measure(ServiceName, String),
    Tell(ServiceName),
}

impl Lane {
    fn of(errand: &Errand) -> Self {
        let service = errand.service.clone();
        match &errand.job {
            Job::Ask { kind, .. } => Self::Ask(service, *kind),
            Job::Measure { metric, .. } => Self::Measure(service, metric.clone()),
            Job::Tell { .. } => Self::Tell(service),
        }
    }
}

/// Errands in the order in which they came.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Lane, Errand)>,
    busy: BTreeSet<Lane>,
}

impl Queue {
    /// A question that waits already is asked once, as it is asked now; what is told is told each time.
    fn put(&mut self, errand: Errand) {
        let lane = Lane::of(&errand);
        let same = self.waiting.iter_mut().find(|(other, _)| *other == lane && !matches!(lane, Lane::Tell(_)));
        match same {
            Some((_, waiting)) => *waiting = errand,
            None => self.waiting.push_back((lane, errand)),
        }
    }

    /// The first one whose lane is free; its lane is taken.
    fn next(&mut self) -> Option<(Lane, Errand)> {
        let place = self.waiting.iter().position(|(lane, _)| !self.busy.contains(lane))?;
        let (lane, errand) = self.waiting.remove(place)?;
        self.busy.insert(lane.clone());
        Some((lane, errand))
    }
}

async fn carry_out(Errand { service, generation, job }: Errand) -> Option<Input> {
    match job {
        Job::Ask { kind, webhooks, about } => {
            let body = json!({ "type": kind, "rollout": about });
            let mut answer = Ok(());
            for Webhook { url, timeout, .. } in webhooks {
                answer = ask(&url, timeout, &body).await;
                if answer.is_err() {
                    break;
                }
            }
            Some(Input::Hooked { service, generation, kind, answer })
        }
        Job::Measure { metric, address, query: text } => {
            let result = query(&address, &text, QUERY).await;
            Some(Input::Measured { service, generation, metric, result })
        }
        Job::Tell { webhooks, about, event } => {
            let body = json!({ "type": WebhookKind::Notify, "rollout": about, "event": event });
            for Webhook { url, timeout, .. } in webhooks {
                if let Err(reason) = ask(&url, timeout, &body).await {
                    tracing::warn!(%service, url, reason, "a webhook was not told");
                }
            }
            None
        }
    }
}

/// Posts `body` to a webhook and waits for its answer for `timeout` at most.
///
/// # Errors
/// Why it is no agreement: anything but a 2xx.
async fn ask(url: &str, timeout: Duration, body: &serde_json::Value) -> Result<(), String> {
    let (target, path) = place(url)?;
    let body = body.to_string().into_bytes();
    let answer = crate::http::tell(&target, &path, body, timeout, MAX_BODY).await.map_err(|error| error.to_string())?;
    if answer.status.is_success() { Ok(()) } else { Err(refusal(&target, &answer)) }
}

/// Asks the Prometheus at `address` for the one number that `text` stands for.
///
/// # Errors
/// Why there is none.
async fn query(address: &str, text: &str, timeout: Duration) -> Result<f64, String> {
    let address = address.trim_end_matches('/');
    let (target, path) = place(&format!("{address}/api/v1/query?query={}", escaped(text)))?;
    let answer = crate::http::ask(&target, &path, timeout, MAX_BODY).await.map_err(|error| error.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(refusal(&target, &answer));
    }
    let said: Said = serde_json::from_slice(&answer.body)
        .map_err(|_| format!("{target} answered something that is not JSON as Prometheus writes it"))?;
    let number = match said.data {
        Data::Scalar(Sample(_, number)) => number,
        Data::Vector(series) => match series.as_slice() {
            [] => return Err("the query has no value".to_owned()),
            [Series { value: Sample(_, number) }] => number.clone(),
            several => return Err(format!("the query has {} values, and one is needed", several.len())),
        },
        Data::Matrix(_) => return Err("the query has a range of values, and one is needed".to_owned()),
        Data::String(_) => return Err("the query has a text as its value".to_owned()),
    };
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("the query's value is {number}, which is no number to compare with")),
    }
}

/// What Prometheus answers (HTTP API, "Instant queries").
#[derive(Deserialize)]
struct Said {
    data: Data,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Scalar(Sample),
    Vector(Vec<Series>),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Series {
    value: Sample,
}

/// When, and what: a number as a text.
#[derive(Deserialize)]
struct Sample(serde::de::IgnoredAny, String);

/// Whom and what a URL means.
fn place(url: &str) -> Result<(Target, String), String> {
    let uri: http::Uri = url.parse().map_err(|_| format!("{url:?} is not a URL"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url:?} has no host"))?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Ok((Target::at(authority), path.to_owned()))
}

/// What was answered instead, in one line.
fn refusal(target: &Target, answer: &Answer) -> String {
    let status = answer.status;
    let said = String::from_utf8_lossy(&answer.body);
    let said: String = said.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let redirect = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    match said.trim() {
        "" => format!("{target} answered {}{redirect}", status.as_u16()),
        said => format!("{target} answered {}{redirect}: {said}", status.as_u16()),
    }
}

#[cfg(test)]
mod tests;
