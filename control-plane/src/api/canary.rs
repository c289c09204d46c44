//! Rollouts: how far each is (`GET /v1/canary`), what became of it (`GET /v1/canary/SERVICE/history`), and what operators order
//! (`POST /v1/canary/SERVICE`). An order is answered when it is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tidegate_core::compile::TIDEGATE;
use tidegate_core::problem::printable;
use tidegate_core::rollout::Command;
use tidegate_core::state::trials::{Order, OrderError};
use tidegate_core::status::{API_VERSION, Canaries, CanaryEdge, CanaryHistory, CanaryStatus, EdgeAcceptance};
use tidegate_core::{ServiceName, State as CoreState, Timestamp, VersionName, config};
use tidegate_filter_core::Trip;
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
    let (at, all) = context
        .observer
        .look(|look| {
            let versions = look.state.trials().versions();
            (look.now, versions.filter_map(|(service, ..)| Seen::of(look.state, &service)).collect())
        })
        .await?;
    Ok(document(&canaries(at, all, &context.store)))
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
    let looked = context.observer.look(move |look| Some((look.now, Seen::of(look.state, &name)?))).await?;
    let Some((at, seen)) = looked else {
        let (reason, cure) = ("its service is gone meanwhile".to_owned(), "see `tidegate ps`".to_owned());
        return Ok(Err(Refusal { status: StatusCode::CONFLICT, reason, cure }));
    };
    Ok(Ok(document(&canaries(at, vec![seen], &context.store))))
}

/// A rollout as the state knows it, and what is needed to ask the edges for the rest.
struct Seen {
    status: CanaryStatus,
    /// The groups that see its service.
    groups: BTreeSet<String>,
    /// By edge, breakers that are open.
    trips: BTreeMap<String, Trip>,
}

impl Seen {
    fn of(state: &CoreState, service: &ServiceName) -> Option<Self> {
        Some(Self {
            status: CanaryStatus::of(state.service(service)?, state.trials())?,
            groups: state.config().edge.groups.seeing(service).into_iter().map(str::to_owned).collect(),
            trips: state.trials().trips(service).map(|(edge, trip)| (edge.to_owned(), trip.clone())).collect(),
        })
    }
}

/// What is seen of these, completed by what the edges say.
fn canaries(at: Timestamp, all: Vec<Seen>, store: &Store) -> Canaries {
    let reporters = store.load_reports().reporters();
    let reported = |node: &str| {
        let of_node = reporters.iter().filter(|reporter| printable(&reporter.node_id) == node);
        of_node.filter_map(|reporter| reporter.reported_at).max().map(timestamp)
    };
    let complete = |Seen { mut status, groups, trips }: Seen| {
        // The weights of all rollouts that a group sees are one resource, and each group has one.
        let weights = edges::acceptance(store, &groups, ResourceType::Runtime, TIDEGATE).into_iter();
        let edge = |weight: EdgeAcceptance| CanaryEdge {
            reported_at: reported(&weight.node),
            trip: trips.get(&weight.node).cloned(),
            weight,
        };
        status.edges = weights.map(edge).collect();
        status
    };
    let canaries = all.into_iter().map(complete).collect();
    Canaries { api_version: API_VERSION.to_owned(), at, canaries }
}

/// The name of a service that there is, or of which rollouts are known.
fn known(state: &CoreState, service: &str) -> Result<ServiceName, Refusal> {
    let name = ServiceName::new(service).ok();
    let is_known = |name: &ServiceName| state.service(name).is_some() || state.trials().rollouts().get(name).is_some();
    name.filter(is_known).ok_or_else(|| Refusal::no_service(service, state))
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
