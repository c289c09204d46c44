//! How a service's traffic is split over its versions, and how a canary's share of it grows or ends. Pure: told `now`, facts and
//! samples, it says which share a canary has, whom to ask, and why.

mod split;
mod plan;
mod engine;
mod fate;
mod command;
mod stats;
mod judge;
mod history;
mod rollouts;

pub use self::command::{Command, Refused};
pub use self::engine::{Effect, Facts, Hold, LONGEST_GAP, Phase, Rollout};
pub use self::history::{Event, MOST_EVENTS, What};
pub use self::judge::{Counts, Evidence, Finding, Numbers, Sample, Verdict};
pub use self::plan::{Origin, Plan, Stage};
pub use self::rollouts::{Record, Rollouts};
pub use self::split::{Census, Declared, Share, Split, canary_buckets, runtime_prefix, salt, split, weight_keys};
pub use self::stats::share_interval;
