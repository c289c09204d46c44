//! What happened to a rollout: who, what, when, why, and the numbers it was decided by. Bounded: the oldest goes first.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Evidence;
use crate::Timestamp;

/// Events that are kept of a service.
pub const MOST_EVENTS: usize = 64;

/// Something that happened to a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When.
    pub at: Timestamp,
    /// Who did it: `operator NAME`, `analysis`, `breaker at EDGE`, `timer`, `readiness`, `webhook`, or where the trial is declared.
    pub by: String,
    /// What.
    pub what: What,
    /// The canary's share before, in basis points.
    pub from: u32,
    /// Its share after.
    pub to: u32,
    /// The stage, from 0, as of after; `None`: it has not begun with one.
    pub step: Option<usize>,
    /// Why.
    pub reason: String,
    /// The numbers.
    pub evidence: Option<Evidence>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// A trial was declared, or declared otherwise.
    Began,
    /// The next stage.
    Advanced,
    /// The canary gets everything.
    Promoted,
    /// It stays where it is: by an operator, because nothing could be decided, or until it is promoted.
    Paused,
    /// It goes on.
    Resumed,
    /// An operator chose the share.
    Set,
    /// The canary failed, and stays where it is.
    Frozen,
    /// The canary gets nothing any more.
    Aborted,
    /// After an abort, from the first stage.
    Retried,
    /// A promotion was taken back.
    Undone,
    /// Somebody outside did not agree.
    Held,
    /// Nothing: a dry run says what it would have done.
    WouldAct,
}

impl What {
    /// As history and logs name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Began => "began",
            Self::Advanced => "advanced",
            Self::Promoted => "promoted",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Set => "set",
            Self::Frozen => "frozen",
            Self::Aborted => "aborted",
            Self::Retried => "retried",
            Self::Undone => "undone",
            Self::Held => "held",
            Self::WouldAct => "would act",
        }
    }
}

/// Adds one, and forgets what is too old for it.
pub(super) fn note(history: &mut VecDeque<Event>, event: Event) {
    while history.len() >= MOST_EVENTS {
        history.pop_front();
    }
    history.push_back(event);
}
