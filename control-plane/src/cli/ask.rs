//! Asks the API, and says in plain words when nobody answers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Outcome, Output, draw};
use crate::api::token::Token;
use crate::http::{Following, HttpError, Target, exchange};

/// How long an answer is waited for.
const LIMIT: Duration = Duration::from_secs(10);
/// Whoever is followed says something four times as often.
const SILENCE: Duration = Duration::from_mins(1);
/// From one look to the next, with `--watch`.
const LOOK: Duration = Duration::from_secs(1);

/// The address of a control plane's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Api(Target);

impl FromStr for Api {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let wrong = || "write it as http://HOST:PORT, such as http://127.0.0.1:18001".to_owned();
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http")).ok_or_else(wrong)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        Ok(Self(Target::at(authority)))
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why there is nothing to show.
#[derive(Debug)]
pub(super) enum AskError {
    /// Nobody answers.
    Unreachable { api: Api, reason: String },
    /// What was asked for does not exist, or cannot be said now.
    Refused { error: String, cure: String },
    /// The control plane answers, but whom it would have to ask, an Envoy or a part of itself, does not.
    Beyond { error: String, cure: String },
    /// The answer cannot be understood.
    Strange { reason: String },
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { api, reason } => write!(
                f,
                "error: no control plane answers at {api}\n  reason: {reason}\n  help: start it with `tidegate run` or `tidegate up`, or name it with `--api`"
            ),
            Self::Refused { error, cure } | Self::Beyond { error, cure } => write!(f, "error: {error}\n  help: {cure}"),
            Self::Strange { reason } => write!(
                f,
                "error: the answer cannot be read: {reason}\n  help: use the `tidegate` of the same version as the control plane, or `-o json`"
            ),
        }
    }
}

impl AskError {
    pub(super) const fn outcome(&self) -> Outcome {
        match self {
            Self::Unreachable { .. } | Self::Beyond { .. } | Self::Strange { .. } => Outcome::Unreachable,
            Self::Refused { .. } => Outcome::ProblemFound,
        }
    }
}

/// An answer, as the API said it and as it is understood.
pub(super) struct Answer<T> {
    pub(super) value: T,
    json: Vec<u8>,
}

impl<T> Answer<T> {
    /// The text to print: the API's own words, or a drawing.
    pub(super) fn print(&self, output: Output, draw: impl FnOnce(&T) -> String) -> String {
        match output {
            Output::Json => format!("{}\n", String::from_utf8_lossy(&self.json)),
            Output::Table => draw(&self.value),
        }
    }
}

/// Asks for a document.
pub(super) async fn get<T: DeserializeOwned>(api: &Api, path: &str) -> Result<Answer<T>, AskError> {
    let answer = exchange(&api.0, Method::GET, path, LIMIT).await.map_err(|error| unreachable(api, error))?;
    read(api, &answer)
}

/// Asks for a change, as whoever may make one.
pub(super) async fn post<T: DeserializeOwned>(
    api: &Api,
    path: &str,
    token: &Token,
    body: &impl Serialize,
) -> Result<Answer<T>, AskError> {
    let body = serde_json::to_vec(body).map_err(|error| AskError::Strange { reason: error.to_string() })?;
    let answer = crate::http::post(&api.0, path, &token.header(), body, LIMIT).await;
    read(api, &answer.map_err(|error| unreachable(api, error))?)
}

fn read<T: DeserializeOwned>(api: &Api, answer: &crate::http::Answer) -> Result<Answer<T>, AskError> {
    if !answer.status.is_success() {
        return Err(refusal(api, answer.status, &answer.body));
    }
    let value =
        serde_json::from_slice(&answer.body).map_err(|error| AskError::Strange { reason: error.to_string() })?;
    Ok(Answer { value, json: answer.body.to_vec() })
}

/// Asks for lines, and gives each to `take` as it comes, until the answer ends. Empty lines say nothing.
pub(super) async fn follow(
    api: &Api,
    path: &str,
    mut take: impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), AskError> {
    let mut answer = Following::open(&api.0, path, LIMIT).await.map_err(|error| unreachable(api, error))?;
    if !answer.status.is_success() {
        let body = answer.rest(LIMIT).await.map_err(|error| unreachable(api, error))?;
        return Err(refusal(api, answer.status, &body));
    }
    while let Some(line) = answer.line(SILENCE).await.map_err(|error| unreachable(api, error))? {
        if !line.is_empty() {
            take(&line).map_err(|reason| AskError::Strange { reason })?;
        }
    }
    Ok(())
}

fn unreachable(api: &Api, error: HttpError) -> AskError {
    let reason = match error {
        HttpError::Connect { source, .. } => source.to_string(),
        other => other.to_string(),
    };
    AskError::Unreachable { api: api.clone(), reason }
}

/// What the API says where it has no answer.
fn refusal(api: &Api, status: StatusCode, body: &[u8]) -> AskError {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
        cure: String,
    }
    let Ok(Refusal { error, cure }) = serde_json::from_slice(body) else {
        return AskError::Strange { reason: format!("{api} answered {status}, and is perhaps no tidegate") };
    };
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => AskError::Beyond { error, cure },
        _ => AskError::Refused { error, cure },
    }
}

/// What a command has to print, and what it found.
pub(super) type Shown = Result<(String, Outcome), AskError>;

/// Runs a command that prints by itself.
pub(super) fn once(command: impl Future<Output = Outcome>) -> Outcome {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => draw::fail(&format!("error: {error}"), Outcome::ProblemFound),
    }
}

/// Prints what `show` makes: once, or every second until interrupted.
pub(super) fn shown<F: Future<Output = Shown>>(show: impl Fn() -> F, watch: bool) -> Outcome {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return draw::fail(&format!("error: {error}"), Outcome::ProblemFound),
    };
    runtime.block_on(async {
        loop {
            let outcome = match show().await {
                Ok((text, outcome)) => {
                    draw::page(&text, watch);
                    outcome
                }
                Err(error) if watch => {
                    draw::page(&format!("{error}\n"), watch);
                    error.outcome()
                }
                Err(error) => draw::fail(&error.to_string(), error.outcome()),
            };
            if !watch {
                return outcome;
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}
