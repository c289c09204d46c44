//! The cases: each starts its own server, plays its clients, and answers with rows.

pub(crate) mod change;
pub(crate) mod counters;
pub(crate) mod lag;
pub(crate) mod reconnect;
pub(crate) mod sync;

use std::time::Duration;

/// How long any one thing may take before the bench gives up; a server that is far from its budgets still has its figure.
const PATIENCE: Duration = Duration::from_secs(180);

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[expect(clippy::cast_precision_loss, reason = "far less than 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / f64::from(1 << 20)
}

/// With a comma at the thousands.
fn thousands(number: usize) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}
