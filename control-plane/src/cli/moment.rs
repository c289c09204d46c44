//! Times as people read them.

use std::time::{Duration, UNIX_EPOCH};

use tidegate_core::Timestamp;

/// RFC 3339 in UTC, with milliseconds.
pub(super) fn utc(at: Timestamp) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.as_millis())).to_string()
}

/// How long ago, in its largest unit.
pub(super) fn ago(now: Timestamp, at: Timestamp) -> String {
    format!("{} ago", rough(now.since(at)))
}

/// A duration in its largest unit.
pub(super) fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_425_978_764, "2026-11-23T09:26:18.764Z"),
        ] {
            assert_eq!(utc(Timestamp::from_millis(millis)), text);
        }
    }

    #[test]
    fn durations_are_rough() {
        let said: Vec<String> =
            [0, 999, 1000, 119_999, 120_000, 7_200_000, 172_800_000].map(|ms| rough(Duration::from_millis(ms))).into();
        assert_eq!(said, ["0 ms", "999 ms", "1 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
