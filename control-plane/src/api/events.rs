//! `GET /v1/events`: the timeline as lines of JSON, to its end or onwards. A reader takes at its own pace: for each there is one
//! place in the timeline and one chunk of lines, made when its connection has room. One that is so slow that the timeline has
//! dropped what it has not read is told how much it missed, and its answer ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tidegate_core::explain as core_explain;
use tidegate_core::journal::{Entry, Journal};
use tidegate_core::status::API_VERSION;
use tidegate_core::{Timestamp, explain::SubjectError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::{ApiContext, refuse};
use crate::reconcile::{Gone, Observer};

/// Readers that follow at once. They leave connections to those who only look.
pub(crate) const MAX_FOLLOWERS: usize = 64;
/// Entries in one chunk: some 40 KiB, 140 KiB with the longest texts.
const CHUNK: usize = 64;
/// A connection lives for five minutes at most: an answer ends before, and its reader asks on with `after`.
const LONGEST: Duration = Duration::from_mins(4);
/// An empty line so often shows both ends that the other one is there.
const BEAT: Duration = Duration::from_secs(15);

/// What is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    /// Only entries from this moment on, in milliseconds since the Unix epoch.
    since: Option<u64>,
    /// Only entries after the one with this number; `now`: only those to come.
    after: Option<String>,
    /// A service, or a container by its name or the beginning of its id.
    subject: Option<String>,
    /// Whether to go on when there is no more.
    follow: bool,
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) api_version: String,
    #[serde(flatten)]
    pub(crate) said: Said,
}

/// What a line says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Said {
    /// Entries are missing here: the timeline had no more room for them.
    Missed { missed: u64 },
    /// Something happened.
    Entry(Box<Entry>),
}

/// A reader and its place.
struct Reader {
    observer: Observer,
    news: watch::Receiver<u64>,
    asked: Asked,
    /// It has all entries up to this one.
    cursor: u64,
    /// Entries up to this one may be missing without a word.
    silent_until: u64,
    ends: Instant,
    ended: bool,
    /// Of those who follow.
    _place: Option<OwnedSemaphorePermit>,
}

pub(super) async fn events(
    State(context): State<ApiContext>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Gone> {
    let cure = "`since` is in milliseconds since 1970, `after` the number of an entry or `now`, `subject` a name, \
                `follow` true or false";
    let bad = |reason: &str| refuse(StatusCode::BAD_REQUEST, reason, cure);
    let Query(asked) = match asked {
        Ok(asked) => asked,
        Err(rejection) => return Ok(bad(&rejection.body_text())),
    };
    let after = match asked.after.as_deref() {
        None | Some("now") => None,
        Some(number) => match number.parse::<u64>() {
            Ok(number) => Some(number),
            Err(_) => return Ok(bad(&format!("`after` is {number:?}, which is no number"))),
        },
    };
    let place = if asked.follow {
        let Ok(place) = Arc::clone(&context.followers).try_acquire_owned() else {
            let reason = format!("{MAX_FOLLOWERS} readers follow the timeline already");
            return Ok(refuse(StatusCode::SERVICE_UNAVAILABLE, &reason, "end one of them, or ask without `follow`"));
        };
        Some(place)
    } else {
        None
    };
    let subject = asked.subject.clone();
    let known = context.observer.look(move |look| {
        let journal = look.state.journal();
        match subject {
            Some(subject) if !journal.after(0).any(|entry| entry.is_about(&subject)) => {
                core_explain::explain(look.state, &subject, look.now).map(|_| journal.last())
            }
            _ => Ok(journal.last()),
        }
    });
    let last = match known.await? {
        Ok(last) => last,
        Err(error) => {
            let error: SubjectError = error;
            return Ok(refuse(StatusCode::NOT_FOUND, &error.to_string(), error.cure()));
        }
    };
    // A number from an earlier life of the control plane says nothing here.
    let after = after.filter(|after| *after <= last);
    let cursor = if asked.after.as_deref() == Some("now") { last } else { after.unwrap_or(0) };
    let reader = Reader {
        news: context.observer.news(),
        observer: context.observer,
        cursor,
        silent_until: if after.is_some() { cursor } else { last },
        asked,
        ends: Instant::now() + LONGEST,
        ended: false,
        _place: place,
    };
    let chunks = futures_util::stream::unfold(reader, |mut reader| async {
        reader.chunk().await.map(|chunk| (Ok::<Bytes, Infallible>(chunk), reader))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(chunks)).into_response())
}

impl Reader {
    /// The next lines; `None`: the answer ends.
    async fn chunk(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            let seen = *self.news.borrow_and_update();
            let (asked, cursor, silent_until) = (self.asked.clone(), self.cursor, self.silent_until);
            let look = self.observer.look(move |look| read(look.state.journal(), &asked, cursor, silent_until));
            let Read { cursor, missed, entries } = look.await.ok()?;
            let progress = cursor > self.cursor;
            self.cursor = cursor;
            self.ended = missed > 0 && self.asked.follow;
            let mut said = Vec::new();
            if missed > 0 {
                said.push(Said::Missed { missed });
            }
            if !self.ended {
                said.extend(entries.into_iter().map(|entry| Said::Entry(Box::new(entry))));
            }
            if !said.is_empty() {
                return lines(said);
            }
            if progress || seen > cursor {
                continue;
            }
            if !self.asked.follow {
                return None;
            }
            tokio::select! {
                changed = self.news.changed() => changed.ok()?,
                () = tokio::time::sleep(BEAT) => return Some(Bytes::from_static(b"\n")),
                () = tokio::time::sleep_until(self.ends) => return None,
            }
        }
    }
}

/// What one look at the timeline gives a reader.
struct Read {
    cursor: u64,
    missed: u64,
    entries: Vec<Entry>,
}

fn read(journal: &Journal, asked: &Asked, cursor: u64, silent_until: u64) -> Read {
    let since = Timestamp::from_millis(asked.since.unwrap_or(0));
    let wanted = |entry: &&Entry| entry.at >= since && asked.subject.as_deref().is_none_or(|it| entry.is_about(it));
    let chunk: Vec<&Entry> = journal.after(cursor).take(CHUNK).collect();
    let end = chunk.last().map_or(journal.last(), |entry| entry.id);
    let missed = if end > silent_until { journal.missed(cursor.max(silent_until), end) } else { 0 };
    Read { cursor: end, missed, entries: chunk.into_iter().filter(wanted).cloned().collect() }
}

fn lines(said: Vec<Said>) -> Option<Bytes> {
    let mut bytes = Vec::new();
    for said in said {
        let line = Line { api_version: API_VERSION.to_owned(), said };
        serde_json::to_writer(&mut bytes, &line).ok()?;
        bytes.push(b'\n');
    }
    Some(bytes.into())
}

#[cfg(test)]
mod tests;
