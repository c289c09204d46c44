//! How a service's traffic is split over its versions, and how a canary's share of it grows or ends.

mod split;

pub use self::split::{Census, Declared, Share, Split, canary_buckets, runtime_prefix, salt, split};
