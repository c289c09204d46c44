//! What operators do at run time (`POST /v1/drain`, `/v1/undrain`), how far that is (`GET /v1/drain/CONTAINER`), and how far a version
//! is that somebody waits for (`GET /v1/deploy/SERVICE/VERSION`).

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use tidegate_core::drains::{Drain, Drains};
use tidegate_core::explain::container;
use tidegate_core::instance::{Discovered, short_id};
use tidegate_core::name::cluster_name;
use tidegate_core::problem::printable;
use tidegate_core::service::{InstanceView, left_to_nobody};
use tidegate_core::status::{API_VERSION, AcceptanceState, DeployStatus, DrainStatus, EdgeAcceptance, InstanceStatus};
use tidegate_core::{ServiceName, State as CoreState, VersionName};
use tidegate_xds::ResourceType;

use super::{Answered, ApiContext, Refusal, document, edges};
use crate::operator::OperatorError;
use crate::reconcile::Look;

/// What is asked for.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    /// A container or entry, by its name, its id, or the beginning of its id.
    pub(crate) container: String,
}

impl From<OperatorError> for Refusal {
    fn from(error: OperatorError) -> Self {
        let cure = "mend the state directory, or see its log; nothing was changed".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, reason: error.to_string(), cure }
    }
}

/// `POST /v1/drain`.
pub(super) async fn drain(State(context): State<ApiContext>, Json(asked): Json<Asked>) -> Answered {
    change(&context, asked.container, |look, container| {
        let Some(instance) = container.instances.first() else {
            let reason = format!("`{}` has nothing to drain", container.name);
            let cure = format!("`tidegate explain {}` says why it gets no requests", container.name);
            return Err(Refusal { status: StatusCode::CONFLICT, reason, cure });
        };
        if look.state.drains().since(&instance.id).is_none()
            && let Some(cluster) = alone_in(look.state, container)
        {
            let reason = format!("`{}` is the last that takes requests of {cluster}", container.name);
            let cure = "start another one first, and drain this one when that is ready".to_owned();
            return Err(Refusal { status: StatusCode::CONFLICT, reason, cure });
        }
        let drain = Drain { started_at: instance.id.started_at.clone(), since: look.now };
        Ok(current(look.state).with(&container.id, drain))
    })
    .await
}

/// `POST /v1/undrain`.
pub(super) async fn undrain(State(context): State<ApiContext>, Json(asked): Json<Asked>) -> Answered {
    change(&context, asked.container, |look, container| Ok(current(look.state).without(&container.id))).await
}

/// `GET /v1/drain/CONTAINER`.
pub(super) async fn drained(State(context): State<ApiContext>, Path(subject): Path<String>) -> Answered {
    progress(&context, subject).await
}

/// Keeps what `wanted` makes of what is drained now, and puts it in force.
async fn change(
    context: &ApiContext,
    subject: String,
    wanted: impl FnOnce(&Look<'_>, &Discovered) -> Result<Drains, Refusal> + Send + 'static,
) -> Answered {
    let _turn = context.operator.turn().await;
    let looked = context
        .observer
        .look(move |look| {
            let container = container(look.state, &subject)?;
            let drains = wanted(look, container)?;
            Ok((container.id.clone(), (drains != *look.state.drains()).then_some(drains)))
        })
        .await?;
    let (id, changed) = match looked {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Some(drains) = changed
        && let Err(error) = context.operator.drain(drains).await
    {
        return Ok(Err(error.into()));
    }
    progress(context, id).await
}

/// What is drained now; of what is over only as long as it is not known to be.
fn current(state: &CoreState) -> Drains {
    if !state.is_synced() {
        return state.drains().clone();
    }
    let runs: BTreeSet<(&str, &str)> = state
        .catalog()
        .containers()
        .filter_map(|container| Some((container.id.as_str(), container.instances.first()?.id.started_at.as_str())))
        .collect();
    state.drains().clone().of_runs(|container, started_at| runs.contains(&(container, started_at)))
}

/// The cluster whose requests nobody would take without this container.
fn alone_in(state: &CoreState, container: &Discovered) -> Option<String> {
    container.memberships.iter().find_map(|membership| {
        let view = state.service(&membership.service)?;
        let declared = state.config().services.get(&membership.service);
        left_to_nobody(view, declared, &container.id).map(|version| cluster_name(&view.name, version))
    })
}

/// How far a container is from having nothing to do.
async fn progress(context: &ApiContext, subject: String) -> Answered {
    let looked = context
        .observer
        .look(move |look| {
            let container = container(look.state, &subject)?;
            let groups = &look.state.config().edge.groups;
            let mut hosts = Vec::new();
            let mut seeing = BTreeSet::new();
            let mut instances = Vec::new();
            for view in container.memberships.iter().filter_map(|membership| look.state.service(&membership.service)) {
                seeing.extend(groups.seeing(&view.name).into_iter().map(str::to_owned));
                for (version, members) in &view.versions {
                    let own = |instance: &&InstanceView| instance.id.container == container.id;
                    for instance in members.instances.iter().filter(own) {
                        hosts.push((cluster_name(&view.name, version), instance.id.address));
                        instances.push(InstanceStatus::of(instance));
                    }
                }
            }
            let since = container.instances.first().and_then(|instance| look.state.drains().since(&instance.id));
            let status = DrainStatus {
                api_version: API_VERSION.to_owned(),
                at: look.now,
                container: container.name.clone(),
                id: short_id(&container.id).to_owned(),
                since,
                instances,
                edges: Vec::new(),
                in_flight: None,
                unobserved: Vec::new(),
            };
            Ok::<_, Refusal>((status, hosts, seeing))
        })
        .await?;
    let (mut status, hosts, seeing) = match looked {
        Ok(found) => found,
        Err(refusal) => return Ok(Err(refusal)),
    };
    status.edges = accepted(context, &seeing, hosts.iter().map(|(cluster, _)| cluster.as_str()));
    let local = context.envoy.in_flight(&hosts).await;
    let (node, in_flight) = local.map_or((None, None), |(node, count)| (Some(node), Some(count)));
    status.in_flight = in_flight;
    let others = status.edges.iter().map(|edge| &edge.node).filter(|edge| node.as_ref() != Some(*edge));
    status.unobserved = others.cloned().collect();
    Ok(Ok(document(&status)))
}

/// How far each edge is with the endpoints of these clusters: the least advanced counts.
fn accepted<'a>(
    context: &ApiContext,
    groups: &BTreeSet<String>,
    clusters: impl Iterator<Item = &'a str>,
) -> Vec<EdgeAcceptance> {
    let mut by_node: BTreeMap<String, EdgeAcceptance> = BTreeMap::new();
    for cluster in clusters {
        for edge in edges::acceptance(&context.store, groups, ResourceType::Endpoint, cluster) {
            let known = by_node.entry(edge.node.clone()).or_insert_with(|| edge.clone());
            if known.state == AcceptanceState::Accepted {
                *known = edge;
            }
        }
    }
    by_node.into_values().collect()
}

/// `GET /v1/deploy/SERVICE/VERSION`.
pub(super) async fn deploy(
    State(context): State<ApiContext>,
    Path((service, version)): Path<(String, String)>,
) -> Answered {
    let looked = context
        .observer
        .look(move |look| {
            let name = ServiceName::new(&service).ok();
            let Some(view) = name.as_ref().and_then(|name| look.state.service(name)) else {
                return Err(Refusal::no_service(&service, look.state));
            };
            let members = VersionName::new(&version).ok().and_then(|version| view.versions.get(&version));
            let instances = members.map(|members| &*members.instances).unwrap_or_default();
            let status = DeployStatus {
                api_version: API_VERSION.to_owned(),
                at: look.now,
                service: view.name.to_string(),
                version: printable(&version),
                ready: members.map_or(0, |members| members.census().ready),
                instances: instances.iter().map(InstanceStatus::of).collect(),
                edges: Vec::new(),
            };
            let groups = look.state.config().edge.groups.seeing(&view.name).into_iter().map(str::to_owned);
            let cluster =
                members.and(VersionName::new(&version).ok()).map(|version| cluster_name(&view.name, &version));
            Ok((status, groups.collect(), cluster))
        })
        .await?;
    Ok(looked.map(|(mut status, groups, cluster)| {
        status.edges = accepted(&context, &groups, cluster.iter().map(String::as_str));
        document(&status)
    }))
}
