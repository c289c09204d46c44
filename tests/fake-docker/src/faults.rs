//! What goes wrong with the fake engine: which answers are slow, wrong or never come, and how old what it shows is.

use std::collections::HashMap;
use std::time::Duration;

/// The questions that are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `/version`.
    Version,
    /// `/_ping`.
    Ping,
    /// `/events`.
    Events,
    /// `/containers/json`.
    List,
    /// `/containers/ID/json`.
    Inspect,
    /// `/images/ID/json`.
    Image,
}

/// How a question is answered, other than well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Well, but so late; what it shows is what is then.
    After(Duration),
    /// What is shown is what was when it was asked for, but it arrives so late.
    Old(Duration),
    /// Not at all.
    Never,
    /// By this status and message.
    Status(u16, &'static str),
    /// With the first half of the body, after which the connection breaks.
    Half,
    /// With a body that is no JSON.
    Garbage,
}

/// What goes wrong. All of it may be changed at any time, and holds for what is asked afterwards.
#[derive(Debug, Default)]
pub struct Faults {
    /// Connections are closed as soon as they are made.
    pub refusing: bool,
    /// Events are remembered but not sent, and everything answers: a proxy that lost the stream.
    pub mute: bool,
    /// By question.
    pub answers: HashMap<Call, Answer>,
    /// Inspects of single containers, by id; before [`Self::answers`].
    pub looks: HashMap<String, Answer>,
    /// For so long after a run has ended, inspect and list go on to show it.
    pub stale: Duration,
}
