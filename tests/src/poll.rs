//! Waiting without sleeping through it: ask until the answer is the wanted one, or say what was last seen.

use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::deploys::number;

/// Between two questions. Short, because tests measure with it; long enough not to be the load that is measured.
const PAUSE: Duration = Duration::from_millis(10);

/// Long enough for anything that should happen at once, on a machine that is busy with other things.
pub const SOON: Duration = Duration::from_secs(30);

/// How long what breaks stays broken: so many seconds as `TIDEGATE_OUTAGE` says, else `usual`.
pub fn outage(usual: Duration) -> Result<Duration> {
    number("TIDEGATE_OUTAGE", usual.as_secs()).map(Duration::from_secs)
}

/// Since 1970, for what is compared with a time that the control plane tells.
#[allow(clippy::disallowed_methods, reason = "it is compared with the control plane's wall clock")]
pub fn wall_clock() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Asks `probe` until it gives Ok, and gives that. An Err of the probe means "not yet", and is what the error after
/// `limit` reports as last seen. `what` completes the sentence "waited for ...".
pub async fn until<T>(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + limit;
    let mut last = "no answer at all".to_owned();
    while Instant::now() < deadline {
        match timeout_at(deadline, probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = format!("{seen:#}"),
            // What was seen before says more than that the last question hung.
            Err(_) => break,
        }
        sleep_until(deadline.min(Instant::now() + PAUSE)).await;
    }
    bail!("waited {limit:?} for {what}; last seen: {last}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn asks_until_it_holds() {
        let mut asked = 0;
        let answer = until(SOON, "the third question", async || {
            asked += 1;
            if asked < 3 { bail!("only {asked}") } else { Ok("done") }
        });
        assert_eq!(answer.await.unwrap(), "done");
    }

    #[tokio::test]
    async fn says_what_was_awaited_and_last_seen() {
        let limit = Duration::from_millis(30);
        let error = until::<()>(limit, "the impossible", async || bail!("status 503")).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 30ms for the impossible; last seen: status 503");
        let error = until::<()>(limit, "an answer", std::future::pending).await.unwrap_err();
        assert_eq!(error.to_string(), "waited 30ms for an answer; last seen: no answer at all");
    }
}
