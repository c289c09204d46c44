//! Rollouts: how far each is (`GET /v1/canary`), what became of it (`GET /v1/canary/SERVICE/history`), and what operators order
//! (`POST /v1/canary/SERVICE`). An order is answered when it is on disk.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_core::problem::printable;
use tidegate_core::rollout::Command;
use tidegate_core::state::trials::{Order, OrderError};
use tidegate_core::status::{API_VERSION, Canaries, CanaryEdge, CanaryHistory, CanaryStatus};
use tidegate_core::{ServiceName, State as CoreState, Timestamp, VersionName, config, suggest};
use tidegate_xds::{ResourceType, Store};
use tokio::sync::watch;

use super::{Answered, ApiContext, Refusal, document, edges};
use crate::clock::timestamp;
use crate::reconcile::{Gone, Orders};
use crate::rollouts::Kept;

/// How long the disk may take.
const KEEPING: Duration = Duration::from_secs(5);
/// Characters of who orders, and of why.
const LONGEST_NAME: usize = 200;

/// The way to lead rollouts.
#[derive(Clone, Debug)]
pub struct Rollouts {
    /// To the task that owns them.
    pub orders: Orders,
    /// How far they are on disk.
    pub kept: watch::Receiver<Kept>,
}

/// What is ordered.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Asked {
    pub(crate) order: AskedOrder,
    /// Who orders it, for the history.
    pub(crate) by: String,
    /// Why, for the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum AskedOrder {
    Lead(Command),
    Start { start: Begin },
}

/// A rollout to begin.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Begin {
    pub(crate) version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stable: Option<String>,
    /// What `canary:` of a service may say in the configuration, but its version, as YAML.
    pub(crate) plan: String,
}

/// `GET /v1/canary`.
pub(super) async fn status(State(context): State<ApiContext>) -> Result<Response, Gone> {
    let mut seen = context.observer.look(|look| seen(look.state, look.now)).await?;
    for (status, groups, trips) in &mut seen.1 {
        complete(status, groups, trips, &context.store);
    }
    seen.0.canaries = seen.1.into_iter().map(|(status, ..)| status).collect();
    Ok(document(&seen.0))
}

/// `GET /v1/canary/SERVICE/history`.
pub(super) async fn history(State(context): State<ApiContext>, Path(service): Path<String>) -> Answered {
    let looked = context
        .observer
        .look(move |look| {
            let name = known(look.state, &service)?;
            CanaryHistory::of(look.state, &name, look.now).ok_or_else(|| Refusal {
                status: StatusCode::NOT_FOUND,
                reason: format!("the service `{name}` never had a canary, as far as is known"),
                cure: "`tidegate canary status` lists those that have one".to_owned(),
            })
        })
        .await?;
    Ok(looked.map(|history| document(&history)))
}

/// `POST /v1/canary/SERVICE`.
pub(super) async fn order(
    State(context): State<ApiContext>,
    Path(service): Path<String>,
    Json(asked): Json<Asked>,
) -> Answered {
    let name = match context.observer.look(move |look| known(look.state, &service)).await? {
        Ok(name) => name,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let order = match asked.order {
        AskedOrder::Lead(command) => Order::Lead(command),
        AskedOrder::Start { start } => match begin(&start) {
            Ok(order) => order,
            Err(refusal) => return Ok(Err(refusal)),
        },
    };
    let by = match asked.reason {
        Some(reason) => format!("{}, because {}", short(&asked.by), short(&reason)),
        None => short(&asked.by),
    };
    let revision = match context.rollouts.orders.give(name.clone(), order, by).await? {
        Ok(revision) => revision,
        Err(error) => return Ok(Err(error.into())),
    };
    let mut kept = context.rollouts.kept.clone();
    let failed = match tokio::time::timeout(KEEPING, kept.wait_for(|kept| kept.revision >= revision)).await {
        Ok(Ok(kept)) => kept.failed.clone(),
        Ok(Err(_)) => return Err(Gone),
        Err(_) => Some(format!("the disk has not taken it within {} s", KEEPING.as_secs())),
    };
    if let Some(reason) = failed {
        let reason = format!("it is done, but a restart would undo it: {reason}");
        let cure = "make room in the state directory; it is written as soon as it can be".to_owned();
        return Ok(Err(Refusal { status: StatusCode::SERVICE_UNAVAILABLE, reason, cure }));
    }
    let looked = context.observer.look(move |look| of_service(look.state, &name, look.now)).await?;
    let Some((mut status, groups, trips)) = looked else {
        let (reason, cure) = ("its service is gone meanwhile".to_owned(), "see `tidegate ps`".to_owned());
        return Ok(Err(Refusal { status: StatusCode::CONFLICT, reason, cure }));
    };
    complete(&mut status, &groups, &trips, &context.store);
    let at = context.observer.look(|look| look.now).await?;
    Ok(Ok(document(&Canaries { api_version: API_VERSION.to_owned(), at, canaries: vec![status] })))
}

/// A status, the groups that see its service, and the edges' filters: when they reported, and what they tripped on.
type Seen = (CanaryStatus, Vec<String>, BTreeMap<String, tidegate_filter_core::Trip>);

fn seen(state: &CoreState, now: Timestamp) -> (Canaries, Vec<Seen>) {
    let of_service = |(service, ..): (ServiceName, VersionName, VersionName)| of_service(state, &service, now);
    let all = state.under_trial().into_iter().filter_map(of_service).collect();
    (Canaries { api_version: API_VERSION.to_owned(), at: now, canaries: Vec::new() }, all)
}

fn of_service(state: &CoreState, service: &ServiceName, _now: Timestamp) -> Option<Seen> {
    let status = CanaryStatus::of(state.service(service)?, state.trials())?;
    let groups = state.config().edge.groups.seeing(service).into_iter().map(str::to_owned).collect();
    let trips = state.trials().trips(service).map(|(edge, trip)| (edge.to_owned(), trip.clone())).collect();
    Some((status, groups, trips))
}

/// What the edges say.
fn complete(
    status: &mut CanaryStatus,
    groups: &[String],
    trips: &BTreeMap<String, tidegate_filter_core::Trip>,
    store: &Store,
) {
    // The weights of all rollouts that a group sees are one resource, and each group has one.
    let weights = tidegate_core::compile::TIDEGATE;
    let seeing = groups.iter().cloned().collect();
    let reporters = store.load_reports().snapshot().reporters;
    let reported = |node: &str| {
        let of_node = reporters.iter().filter(|reporter| printable(&reporter.node_id) == node);
        of_node.filter_map(|reporter| reporter.reported_at).max().map(timestamp)
    };
    status.edges = edges::acceptance(store, &seeing, ResourceType::Runtime, weights)
        .into_iter()
        .map(|weight| CanaryEdge {
            reported_at: reported(&weight.node),
            trip: trips.get(&weight.node).cloned(),
            weight,
        })
        .collect();
}

/// The name of a service that there is.
fn known(state: &CoreState, service: &str) -> Result<ServiceName, Refusal> {
    let name = ServiceName::new(service).ok();
    let is_known = |name: &ServiceName| state.service(name).is_some() || state.trials().rollouts().get(name).is_some();
    name.filter(is_known).ok_or_else(|| {
        let names = state.services().map(|view| view.name.as_str());
        let cure = suggest::did_you_mean(service, names, || "`tidegate ps` lists the services".to_owned());
        let reason = format!("there is no service `{}`", printable(service));
        Refusal { status: StatusCode::NOT_FOUND, reason, cure: printable(&cure) }
    })
}

/// Reads the plan as the configuration does.
fn begin(begin: &Begin) -> Result<Order, Refusal> {
    let version = |text: &str| {
        VersionName::new(text).map_err(|error| Refusal {
            status: StatusCode::BAD_REQUEST,
            reason: format!("{:?} cannot be the name of a version: {error}", printable(text)),
            cure: "use a value of the label `tidegate.version`".to_owned(),
        })
    };
    let stable = begin.stable.as_deref().map(version).transpose()?;
    let canary = config::parse_canary(&version(&begin.version)?, &begin.plan).map_err(|problems| {
        let first = problems.into_iter().next();
        let (reason, cure) = first.map(|problem| (problem.reason, problem.cure)).unwrap_or_default();
        Refusal { status: StatusCode::BAD_REQUEST, reason, cure }
    })?;
    Ok(Order::Start { stable, canary })
}

fn short(text: &str) -> String {
    printable(&text.chars().take(LONGEST_NAME).collect::<String>()).replace('\n', " ")
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        let status = match error {
            OrderError::NoTrial(_) | OrderError::UnknownVersion(..) => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self { status, reason: error.to_string(), cure: error.cure() }
    }
}
