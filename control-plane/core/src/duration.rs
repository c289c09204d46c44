//! Durations as people write them: `250ms`, `2s`, `1m`. A unit is required: a bare number is how seconds become minutes.

use std::time::Duration;

/// Parses a whole number followed by `ms`, `s`, `m` or `h`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("{text:?} is not a duration such as `500ms`, `2s` or `1m`"))?;
    let millis = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" => return Err(format!("{text:?} has no unit: write `{text}s` or `{text}ms`")),
        other => return Err(format!("{text:?} has the unknown unit {other:?}: use `ms`, `s`, `m` or `h`")),
    };
    millis.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

/// In the largest unit of which it is a whole number: `90s`, `5m`.
pub(crate) fn written(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (unit, of) = [("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
        .into_iter()
        .find(|(_, of)| millis > 0 && millis.is_multiple_of(*of))
        .unwrap_or(("ms", 1));
    format!("{}{unit}", millis / of)
}
