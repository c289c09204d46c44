//! The loopback HTTP API: it shows what is known, and takes what operators ask for. Everything passes the `guard` first. One connection costs
//! little, many are not taken, and none may dawdle.

pub(crate) mod canary;
pub(crate) mod edges;
mod envoy;
pub(crate) mod events;
mod explain;
mod guard;
pub(crate) mod operate;
pub(crate) mod load;
pub mod token;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::json;
use tidegate_core::explain::{self as core_explain, SubjectError};
use tidegate_core::forecast::InForce;
use tidegate_core::problem::printable;
use tidegate_core::status::{API_VERSION, Edges, Services, Status};
use tidegate_core::suggest;
use tidegate_xds::Store;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::canary::Rollouts;
pub use self::envoy::LocalEnvoy;
use self::token::Token;
use crate::metrics::{self, Figures};
use crate::operator::Operator;
use crate::reconcile::{Gone, Observer};

/// Connections at once: a few people, a few scrapers, a dashboard in many tabs.
const MAX_CONNECTIONS: usize = 128;
/// How long a client may take to send its request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long an answer may take to come about.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may live; a stuck reader is cut off.
const CONNECTION_LIMIT: Duration = Duration::from_mins(5);
/// How long connections have to end after `shutdown`.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// After a failed accept (no descriptors left), time to let some end.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the API reads.
#[derive(Clone)]
pub struct ApiContext {
    /// The state.
    pub observer: Observer,
    /// The published resources, and who has them.
    pub store: Store,
    /// What the parts count.
    pub counted: Arc<Registry>,
    /// The Envoy of this machine.
    pub envoy: LocalEnvoy,
    /// What operators ask for.
    pub operator: Operator,
    /// What whoever changes something has to show.
    pub token: Token,
    /// The way to lead rollouts.
    pub rollouts: Rollouts,
    /// Places for those who follow the timeline.
    followers: Arc<Semaphore>,
}

impl ApiContext {
    /// What there is to read.
    #[must_use]
    pub fn new(
        observer: Observer,
        store: Store,
        counted: Arc<Registry>,
        envoy: LocalEnvoy,
        operator: Operator,
        token: Token,
        rollouts: Rollouts,
    ) -> Self {
        Self {
            observer,
            store,
            counted,
            envoy,
            operator,
            token,
            rollouts,
            followers: Arc::new(Semaphore::new(events::MAX_FOLLOWERS)),
        }
    }
}

/// Serves until `shutdown`.
pub async fn serve(listener: TcpListener, context: ApiContext, shutdown: CancellationToken) {
    let Ok(address) = listener.local_addr() else { return };
    let guard = guard::Guard::new(address, context.token.clone());
    let service = TowerToHyperService::new(router(context, guard));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            Ok(permit) = Arc::clone(&room).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (service, shutdown) = (service.clone(), shutdown.clone());
                connections.spawn(async move {
                    connection(stream, service, shutdown).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the API cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    // Whoever dawdles is cut off when the set is dropped.
    let _ = tokio::time::timeout(DRAIN_LIMIT, ended).await;
}

async fn connection(stream: TcpStream, service: TowerToHyperService<Router>, shutdown: CancellationToken) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let limited = tokio::time::timeout(CONNECTION_LIMIT, async {
        tokio::select! {
            ended = &mut connection => return ended,
            () = shutdown.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    });
    if let Ok(Err(error)) = limited.await {
        tracing::debug!(%error, "an API connection broke off");
    }
}

fn router(context: ApiContext, guard: guard::Guard) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/explain/{subject}", get(explained))
        .route("/v1/events", get(events::events))
        .route("/v1/canary", get(canary::status))
        .route("/v1/canary/{service}", post(canary::order))
        .route("/v1/config/services", get(in_force))
        .route("/v1/canary/{service}/history", get(canary::history))
        .route("/v1/drain", post(operate::drain))
        .route("/v1/undrain", post(operate::undrain))
        .route("/v1/drain/{container}", get(operate::drained))
        .route("/v1/deploy/{service}/{version}", get(operate::deploy))
        .route("/v1/edges", get(edge_list))
        .route("/v1/load", get(load_report))
        .route("/v1/envoy/config", get(envoy::config))
        .route("/v1/envoy/diff", get(envoy::diff))
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(unknown)
        .with_state(context)
        .layer(axum::middleware::from_fn(limit))
        .layer(axum::middleware::from_fn_with_state(guard, guard::check))
}

/// An answer takes so long at most.
async fn limit(request: axum::extract::Request, next: axum::middleware::Next) -> Result<Response, Infallible> {
    Ok(tokio::time::timeout(ANSWER_LIMIT, next.run(request))
        .await
        .unwrap_or_else(|_| refuse(StatusCode::SERVICE_UNAVAILABLE, "no answer in time", "try again, or see the log")))
}

async fn status(State(context): State<ApiContext>) -> Result<Response, Gone> {
    let edges = edges::edges(&context.store);
    let seen = context.observer.look(move |look| Status::of(look.state, edges, look.now)).await?;
    Ok(document(&seen))
}

async fn services(State(context): State<ApiContext>) -> Result<Response, Gone> {
    let seen = context.observer.look(|look| Services::of(look.state, look.now)).await?;
    Ok(document(&seen))
}

async fn in_force(State(context): State<ApiContext>) -> Result<Response, Gone> {
    let seen = context.observer.look(|look| InForce::of(look.state, look.now)).await?;
    Ok(document(&seen))
}

async fn edge_list(State(context): State<ApiContext>) -> Result<Response, Gone> {
    let at = context.observer.look(|look| look.now).await?;
    let edges = edges::edges(&context.store);
    Ok(document(&Edges { api_version: API_VERSION.to_owned(), at, edges }))
}

async fn load_report(State(context): State<ApiContext>) -> Result<Response, Gone> {
    let (versions, now) = context.observer.look(|look| (load::known(look.state), look.now)).await?;
    Ok(document(&load::report(&context.store, versions, now)))
}

async fn explained(State(context): State<ApiContext>, Path(subject): Path<String>) -> Result<Response, Gone> {
    let known = context
        .observer
        .look(move |look| {
            let explanation = core_explain::explain(look.state, &subject, look.now)?;
            let edge = explain::Edge::of(look, &explanation);
            Ok::<_, Refusal>((explanation, edge))
        })
        .await?;
    Ok(match known {
        Ok((mut explanation, edge)) => {
            let connected: BTreeSet<String> =
                context.store.clients().into_iter().map(|client| client.group.name().to_owned()).collect();
            explain::complete(&mut explanation, &edge, &connected, |groups, kind, name| {
                edges::acceptance(&context.store, groups, kind, name)
            });
            document(&explanation)
        }
        Err(refusal) => refusal.into_response(),
    })
}

async fn scrape(State(context): State<ApiContext>) -> Result<Response, Gone> {
    let figures = context.observer.look(|look| Figures::of(look.state, look.now)).await?;
    Ok(match metrics::encode(&figures, &context.store, &context.counted) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics: {error}"), "report this"),
    })
}

/// Alive: the task that owns the state answers.
async fn healthz(State(context): State<ApiContext>) -> Result<Response, Gone> {
    context.observer.look(|_| ()).await?;
    Ok("ok\n".into_response())
}

/// Ready: the first full picture was published. The last known good is not one: nothing of it was seen by this process.
async fn readyz(State(context): State<ApiContext>) -> Result<Response, Gone> {
    let (awaited, kept_at) = context.observer.look(|look| (look.state.awaiting(), look.state.serves_kept())).await?;
    let Some(awaited) = awaited else { return Ok("ok\n".into_response()) };
    let reason = match kept_at {
        None => format!("waiting for {awaited}"),
        Some(at) => format!("waiting for {awaited}; what was published until {at} is served meanwhile"),
    };
    Ok(refuse(StatusCode::SERVICE_UNAVAILABLE, &reason, "see `tidegate status`"))
}

async fn unknown() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is nothing at this path", "begin with /v1/status")
}

fn document(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &format!("the answer: {error}"), "report this"),
    }
}

/// A document, or why there is none.
type Answered = Result<Result<Response, Refusal>, Gone>;

/// Why there is no document, and what to do about it.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: String,
    cure: String,
}

impl Refusal {
    /// There is no service of this name.
    fn no_service(name: &str, state: &tidegate_core::State) -> Self {
        let names = state.services().map(|view| view.name.as_str());
        let cure = suggest::did_you_mean(name, names, || "`tidegate ps` lists the services".to_owned());
        let reason = format!("there is no service `{}`", printable(name));
        Self { status: StatusCode::NOT_FOUND, reason, cure: printable(&cure) }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        refuse(self.status, &self.reason, &self.cure)
    }
}

impl From<SubjectError> for Refusal {
    fn from(error: SubjectError) -> Self {
        Self { status: StatusCode::NOT_FOUND, reason: error.to_string(), cure: error.cure().to_owned() }
    }
}

/// A refusal, with its reason and what to do about it.
fn refuse(status: StatusCode, reason: &str, cure: &str) -> Response {
    let body = json!({ "apiVersion": API_VERSION, "error": reason, "cure": cure });
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

impl IntoResponse for Gone {
    fn into_response(self) -> Response {
        refuse(StatusCode::SERVICE_UNAVAILABLE, &self.to_string(), "try again in a moment")
    }
}

#[cfg(test)]
pub(crate) mod tests;
