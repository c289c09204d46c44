//! What the filter decides, without Envoy: the policy that the control plane writes and the filter reads, the bucket a
//! client's key hashes to, and what to do with a request. Both sides compile against this crate, so neither can hold
//! another opinion on where a key lands. Facts come in, a decision goes out; nothing here reads a header, a clock or a
//! file, and nothing here panics, because a panic in the filter ends a worker's wasm VM (`failure_policy: FAIL_OPEN`).

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod bucket;
mod client_id;
mod decide;
mod outcome;
mod breaker;
mod histogram;
mod names;
mod policy;
mod report;

pub use breaker::{BreakerState, CanaryAnswer, StableAnswers};
pub use bucket::{BUCKETS, MAX_KEY, bucket, key_hash, pick};
pub use client_id::{client_id, is_client_id};
pub use decide::{Decision, Refusal, cookie, decide, source_ip};
pub use histogram::Histogram;
pub use names::{
    BUCKET_HEADER, CAPABILITIES, CHOICE_HEADER, Counter, HEARTBEAT_COUNTER, REASON_HEADER, RouteKind,
    UNKNOWN_SCHEMA_COUNTER, VERSION_HEADER, breaker_gauge_name, counter_name, service_of_route, version_counter_name,
};
pub use outcome::{Answer, Outcome};
pub use policy::{BreakerPolicy, ClientCookie, Failure, HashOn, Policy, PolicyError, SCHEMA, ServicePolicy};
pub use report::{Answers, REPORT_PATH, Report, ServiceReport, Trip};
