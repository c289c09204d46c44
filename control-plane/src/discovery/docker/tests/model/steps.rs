//! What happens in a history: to which containers, and what goes wrong.

use std::fmt;
use std::time::Duration;

use tidegate_fake_docker::{Answer, Delivery, Health};

/// What a container is made with.
#[derive(Clone, Copy)]
pub(super) struct Make {
    pub(super) name: &'static str,
    pub(super) enabled: bool,
    pub(super) policy: bool,
    pub(super) healthcheck: bool,
}

/// The containers there may be. Nothing ever happens to the first one, so that the service always has an instance: what is
/// left of a service that stops whole goes on serving.
pub(super) const MAKES: [Make; 6] = [
    Make { name: "anchor", enabled: true, policy: false, healthcheck: false },
    Make { name: "plain", enabled: true, policy: false, healthcheck: false },
    Make { name: "other", enabled: true, policy: false, healthcheck: false },
    Make { name: "always", enabled: true, policy: true, healthcheck: false },
    Make { name: "checked", enabled: true, policy: false, healthcheck: true },
    Make { name: "stranger", enabled: false, policy: true, healthcheck: false },
];
/// How many of them things happen to.
pub(in super::super) const SUBJECTS: usize = MAKES.len() - 1;
/// Addresses that the enabled ones share; each has one of its own too.
pub(in super::super) const SHARED: u8 = 3;

/// One thing that happens. Containers are numbered from the first that is a subject; times are milliseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Step {
    /// `docker run` or `docker start`, at one of the shared addresses.
    Start(usize, u8),
    Exit(usize),
    OutOfMemory(usize),
    Stop(usize, u64),
    Kill(usize),
    /// SIGTERM by `docker kill`, which it survives.
    Term(usize),
    Hup(usize),
    Restart(usize, u64),
    Pause(usize),
    Unpause(usize),
    Rename(usize),
    Remove(usize),
    Judge(usize, Health),
    Disconnect(usize),
    Connect(usize),
    /// So many commands are run in the anchor.
    Noise(u16),
    Wait(u64),
    /// Where nothing went wrong since the last quiet point: compares. Where only looks went wrong: what events tell at once is
    /// known.
    Look,
    /// Everything that goes wrong ends, and there is time to notice: compares.
    Quiet,
    /// What goes wrong from now on.
    Deliver(Delivery),
    Mute,
    Cut,
    Freeze,
    Refuse,
    GoAway,
    Stale(u64),
    Break(Option<usize>, Fault),
    BreakList(Fault),
    BreakPing(Fault),
}

impl Step {
    /// Whether it is something that goes wrong.
    pub(in super::super) const fn is_fault(self) -> bool {
        matches!(
            self,
            Self::Deliver(_)
                | Self::Mute
                | Self::Cut
                | Self::Freeze
                | Self::Refuse
                | Self::GoAway
                | Self::Stale(_)
                | Self::Break(..)
                | Self::BreakList(_)
                | Self::BreakPing(_)
        )
    }
}

/// How an answer goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fault {
    After(u64),
    Old(u64),
    Never,
    Refused,
    Half,
    Garbage,
}

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::After(millis) => Self::After(Duration::from_millis(millis)),
            Fault::Old(millis) => Self::Old(Duration::from_millis(millis)),
            Fault::Never => Self::Never,
            Fault::Refused => Self::Status(500, "it is broken"),
            Fault::Half => Self::Half,
            Fault::Garbage => Self::Garbage,
        }
    }
}

pub(super) const fn name(subject: usize) -> &'static str {
    MAKES[subject + 1].name
}

/// On one line, as it is read best where a failure tells how it came about.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Start(it, address) => write!(f, "start {} at {address}", name(it)),
            Self::Exit(it) => write!(f, "{} exits", name(it)),
            Self::OutOfMemory(it) => write!(f, "{} runs out of memory", name(it)),
            Self::Stop(it, takes) => write!(f, "stop {}, which takes {takes} ms", name(it)),
            Self::Kill(it) => write!(f, "kill {}", name(it)),
            Self::Term(it) => write!(f, "{} survives SIGTERM", name(it)),
            Self::Hup(it) => write!(f, "HUP {}", name(it)),
            Self::Restart(it, takes) => write!(f, "restart {}, which takes {takes} ms", name(it)),
            Self::Pause(it) => write!(f, "pause {}", name(it)),
            Self::Unpause(it) => write!(f, "unpause {}", name(it)),
            Self::Rename(it) => write!(f, "rename {}", name(it)),
            Self::Remove(it) => write!(f, "remove {}", name(it)),
            Self::Judge(it, health) => write!(f, "{} is {}", name(it), health.as_str()),
            Self::Disconnect(it) => write!(f, "disconnect {}", name(it)),
            Self::Connect(it) => write!(f, "connect {}", name(it)),
            Self::Noise(count) => write!(f, "{count} commands"),
            Self::Wait(millis) => write!(f, "wait {millis} ms"),
            Self::Look => f.write_str("look"),
            Self::Quiet => f.write_str("quiet"),
            Self::Deliver(delivery) => write!(f, "the next event: {delivery:?}"),
            Self::Mute => f.write_str("no events"),
            Self::Cut => f.write_str("the stream ends"),
            Self::Freeze => f.write_str("freeze"),
            Self::Refuse => f.write_str("connections refused"),
            Self::GoAway => f.write_str("the engine is killed"),
            Self::Stale(millis) => write!(f, "looks are {millis} ms stale"),
            Self::Break(None, fault) => write!(f, "inspects: {fault:?}"),
            Self::Break(Some(it), fault) => write!(f, "inspects of {}: {fault:?}", name(it)),
            Self::BreakList(fault) => write!(f, "lists: {fault:?}"),
            Self::BreakPing(fault) => write!(f, "pings: {fault:?}"),
        }
    }
}
