//! The fake engine's clock: the wall clock at start, and tokio's time from then on, so that it can be paused. It may differ
//! from everybody else's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

pub(crate) const SECOND: i64 = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    wall: i64,
    since: Instant,
    /// How much it is ahead of the machine's clock.
    pub(crate) ahead: i64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "an engine has a clock of its own")]
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: nanos(wall), since: Instant::now(), ahead: 0 }
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn now(&self) -> i64 {
        self.wall + self.ahead + nanos(self.since.elapsed())
    }
}

pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// The parts of a time by the calendar, in UTC.
struct Civil {
    year: i64,
    month: usize,
    day: i64,
    seconds: i64,
    days: i64,
}

fn civil(nanos: i64) -> Civil {
    let seconds = nanos.div_euclid(SECOND);
    let days = seconds.div_euclid(86_400);
    let (mut year, mut day) = (1970, days);
    let length = |year: i64| if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 };
    while day >= length(year) {
        day -= length(year);
        year += 1;
    }
    let mut month = 1;
    for length in [31, length(year) - 337, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    Civil { year, month, day: day + 1, seconds: seconds.rem_euclid(86_400), days }
}

/// A time as inspect writes it: `2026-11-25T21:41:38.394697109Z`. Only for times since 1970.
#[must_use]
pub fn rfc3339(nanos: i64) -> String {
    let Civil { year, month, day, seconds, .. } = civil(nanos);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = format!("{:09}", nanos.rem_euclid(SECOND));
    let fraction = match fraction.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// A time as the `Date` header writes it.
pub(crate) fn http_date(nanos: i64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let Civil { year, month, day, seconds, days } = civil(nanos);
    let weekday = DAYS[usize::try_from(days.rem_euclid(7)).unwrap_or(0)];
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT", MONTHS[month - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_docker_and_http_write_them() {
        assert_eq!(rfc3339(1_795_642_898_394_697_109), "2026-11-25T21:41:38.394697109Z");
        assert_eq!(rfc3339(951_827_696 * SECOND + 500_000_000), "2000-02-29T12:34:56.5Z");
        assert_eq!(http_date(784_111_777 * SECOND), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(1_795_642_903 * SECOND), "Wed, 25 Nov 2026 21:41:43 GMT");
    }
}
