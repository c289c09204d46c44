//! The local Envoy, asked for what it has: as it says, and against what is published. Its admin interface is asked with GET for
//! three fixed paths, whatever the caller says, and by one caller at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use envoy_types::pb::envoy::config::core::v3::address::Address;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use prost::Message;
use serde::Deserialize;
use tidegate_core::compile::RuntimeLayer;
use tidegate_core::config::Admin;
use tidegate_core::problem::printable;
use tidegate_core::status::{API_VERSION, EnvoyConfig, EnvoyDiff, HeldResource};
use tidegate_core::suggest;
use tidegate_xds::{ClientStatus, Group, ResourceType, Store};
use tokio::sync::Semaphore;

use super::{ApiContext, Refusal, document};
use crate::envoy::diff::{Content, Published, compare, health_of, notes};
use crate::envoy::dump::{Dump, Held, endpoint};
use crate::envoy::{AdminClient, AdminError};
use crate::reconcile::Gone;

/// The Envoy of this machine.
#[derive(Clone, Debug)]
pub struct LocalEnvoy {
    /// As `edge.admin` is written.
    admin: String,
    client: AdminClient,
    /// A dump costs Envoy's main thread time, and memory here.
    turn: Arc<Semaphore>,
}

/// What is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(rename = "type")]
    kind: Option<String>,
    name: Option<String>,
}

impl LocalEnvoy {
    /// The one whose admin interface listens at `admin`.
    #[must_use]
    pub fn new(admin: &Admin) -> Self {
        let written = match admin {
            Admin::Tcp(address) => address.to_string(),
            Admin::Unix(path) => format!("unix:{path}"),
        };
        Self { admin: written, client: AdminClient::new(admin), turn: Arc::new(Semaphore::new(1)) }
    }

    async fn dump(&self) -> Result<Dump, Refusal> {
        let _turn = self.turn.acquire().await;
        self.client.dump().await.map_err(|error| self.silent(&error))
    }

    /// Who it is, and what is under way from it to these hosts of clusters; `None`: it does not answer.
    pub(super) async fn in_flight(&self, hosts: &[(String, SocketAddr)]) -> Option<(String, u64)> {
        let _turn = self.turn.acquire().await;
        let node = self.client.node().await.ok()?;
        Some((printable(&node), self.client.in_flight(hosts).await.ok()?))
    }

    /// The answer while Envoy gives none.
    fn silent(&self, error: &AdminError) -> Refusal {
        let admin = &self.admin;
        let cure = match error {
            AdminError::Unreachable(_) => format!(
                "start Envoy, and let `edge.admin` of tidegate.yaml, now {admin}, be where its admin interface listens: \
                 `tidegate envoy bootstrap` prints a bootstrap that fits"
            ),
            AdminError::TooLarge(_) => {
                "ask Envoy itself for a part: `/config_dump?resource=dynamic_active_clusters`".to_owned()
            }
            AdminError::Refused { .. } | AdminError::Strange(_) => {
                format!("let `edge.admin` of tidegate.yaml, now {admin}, be where Envoy's admin interface listens")
            }
        };
        Refusal { status: StatusCode::BAD_GATEWAY, reason: printable(&error.to_string()), cure }
    }
}

impl Asked {
    /// The kinds that are asked about.
    fn kinds(&self) -> Result<Vec<ResourceType>, Refusal> {
        let Some(wanted) = &self.kind else { return Ok(ResourceType::ALL.to_vec()) };
        let kind = ResourceType::ALL.into_iter().find(|kind| kind.label().eq_ignore_ascii_case(wanted));
        kind.map(|kind| vec![kind]).ok_or_else(|| {
            let labels = ResourceType::ALL.map(ResourceType::label).join(", ");
            Refusal {
                status: StatusCode::BAD_REQUEST,
                reason: format!("there is no type of resource `{}`", printable(wanted)),
                cure: format!("the types are {labels}"),
            }
        })
    }
}

/// `GET /v1/envoy/config[?type=CDS][&name=NAME]`; the resources themselves only where one is named.
pub(super) async fn config(
    State(context): State<ApiContext>,
    Query(asked): Query<Asked>,
) -> Result<Result<Response, Refusal>, Gone> {
    let at = context.observer.look(|look| look.now).await?;
    Ok(async {
        let kinds = asked.kinds()?;
        let dump = context.envoy.dump().await?;
        let of_kind = |held: &&Held| kinds.contains(&held.kind);
        let held: Vec<&Held> = dump.held.iter().filter(of_kind).collect();
        let wanted = |held: &&Held| asked.name.as_ref().is_none_or(|name| *name == held.name);
        let resources: Vec<HeldResource> =
            held.iter().copied().filter(wanted).map(|held| resource(held, asked.name.is_some())).collect();
        if let (Some(name), true) = (&asked.name, resources.is_empty()) {
            let cure = suggest::did_you_mean(name, held.iter().map(|held| held.name.as_str()), || {
                "`tidegate envoy config` lists what it has, and `tidegate envoy diff` what it should have".to_owned()
            });
            let reason = format!("Envoy has no resource `{}`", printable(name));
            return Err(Refusal { status: StatusCode::NOT_FOUND, reason, cure: printable(&cure) });
        }
        Ok(document(&EnvoyConfig {
            api_version: API_VERSION.to_owned(),
            at,
            admin: context.envoy.admin.clone(),
            node: printable(&dump.node),
            version: printable(&dump.software),
            resources,
        }))
    }
    .await)
}

/// `GET /v1/envoy/diff[?type=CDS]`.
pub(super) async fn diff(
    State(context): State<ApiContext>,
    Query(asked): Query<Asked>,
) -> Result<Result<Response, Refusal>, Gone> {
    let at = context.observer.look(|look| look.now).await?;
    Ok(async {
        let kinds = asked.kinds()?;
        let mut dump = context.envoy.dump().await?;
        dump.held.retain(|held| kinds.contains(&held.kind) || held.kind == ResourceType::Cluster);
        let clients: Vec<ClientStatus> =
            context.store.clients().into_iter().filter(|client| *client.node.id == *dump.node).collect();
        let published = published(&context.store, &kinds, &clients, &dump);
        let mut resources = compare(&published, &dump);
        // Clusters say whether endpoints are awaited; whether they differ themselves was perhaps not asked.
        resources.retain(|diff| kinds.iter().any(|kind| kind.label() == diff.kind));
        let mut notes = notes(&dump, &kinds);
        if clients.is_empty() {
            notes.push(format!(
                "no edge `{}` is connected to this control plane; it goes on with what it has",
                printable(&dump.node)
            ));
        }
        Ok(document(&EnvoyDiff {
            api_version: API_VERSION.to_owned(),
            at,
            admin: context.envoy.admin.clone(),
            node: printable(&dump.node),
            version: printable(&dump.software),
            connected: !clients.is_empty(),
            same: !resources.iter().any(|diff| diff.state.is_difference()),
            notes,
            resources,
        }))
    }
    .await)
}

fn resource(held: &Held, whole: bool) -> HeldResource {
    HeldResource {
        kind: held.kind.label().to_owned(),
        name: printable(&held.name),
        version: held.version.as_deref().map(printable),
        updated: held.updated.as_deref().map(printable),
        state: held.state,
        error: held.error.as_deref().map(printable),
        config: whole.then(|| serde_json::from_str(&held.json).unwrap_or_default()),
    }
}

/// What is published of these kinds, and what these clients, which are the same Envoy, said of it.
fn published(store: &Store, kinds: &[ResourceType], clients: &[ClientStatus], dump: &Dump) -> Vec<Published> {
    let held: BTreeSet<(ResourceType, &str)> = dump.held.iter().map(|held| (held.kind, held.name.as_str())).collect();
    // An Envoy that is not connected belongs to a group that is not known: then it is held against the default one.
    let group = clients.first().map(|client| client.group.clone()).unwrap_or_default();
    let mut all = Vec::new();
    for kind in kinds.iter().copied() {
        let statuses = || clients.iter().flat_map(|client| &client.types).filter(move |of| of.resource_type == kind);
        let refusals: BTreeMap<&str, &Arc<str>> =
            statuses().flat_map(|of| &of.rejected).map(|refused| (&*refused.name, &refused.message)).collect();
        for (name, version) in store.list_for(&group, kind) {
            // It takes a look at each client, and is of interest only where something is missing.
            let is_asked = !clients.is_empty() && !held.contains(&(kind, &*name));
            all.push(Published {
                kind,
                version: version.to_string(),
                content: content(store, &group, kind, &name),
                refusal: refusals.get(&*name).map(|message| Arc::clone(message)),
                subscribed: is_asked.then(|| wants(store, kind, &name, clients)),
                name,
            });
        }
    }
    all
}

fn wants(store: &Store, kind: ResourceType, name: &str, clients: &[ClientStatus]) -> bool {
    let is_ours = |of: &tidegate_xds::Acceptance| clients.iter().any(|client| client.client == of.client);
    store.acceptance(kind, name).iter().any(|of| of.subscribed && is_ours(of))
}

/// What can be compared where Envoy says no version. What cannot be decoded was not made by us, and has a version all the same.
fn content(store: &Store, group: &Group, kind: ResourceType, name: &str) -> Content {
    let bytes = || store.content_for(group, kind, name).unwrap_or_default();
    match kind {
        ResourceType::Endpoint => match ClusterLoadAssignment::decode(bytes().as_slice()) {
            Ok(assignment) => Content::Hosts(hosts(&assignment)),
            Err(_) => Content::Version,
        },
        ResourceType::Runtime => match RuntimeLayer::decode(bytes().as_slice()) {
            Ok(layer) => Content::Values(values(layer)),
            Err(_) => Content::Version,
        },
        _ => Content::Version,
    }
}

fn hosts(assignment: &ClusterLoadAssignment) -> BTreeMap<String, &'static str> {
    let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    let host = |endpoint: &LbEndpoint| Some((address(endpoint)?, health_of(endpoint.health_status().as_str_name())));
    endpoints.filter_map(host).collect()
}

fn address(of: &LbEndpoint) -> Option<String> {
    let HostIdentifier::Endpoint(of) = of.host_identifier.as_ref()? else { return None };
    let Address::SocketAddress(of) = of.address.as_ref()?.address.as_ref()? else { return None };
    let Some(PortSpecifier::PortValue(port)) = of.port_specifier else { return None };
    Some(endpoint(&of.address, port))
}

fn values(layer: RuntimeLayer) -> BTreeMap<String, Option<f64>> {
    let fields = layer.layer.unwrap_or_default().fields;
    let number = |value: prost_types::Value| match value.kind {
        Some(prost_types::value::Kind::NumberValue(number)) => Some(number),
        _ => None,
    };
    fields.into_iter().map(|(key, value)| (key, number(value))).collect()
}
