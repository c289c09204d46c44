//! Signals by name and number, as `Config.StopSignal` and the `kill` event write them. Pure.

/// SIGKILL: the container is gone in a moment, whatever it would like.
pub(super) const KILL: u8 = 9;
/// SIGTERM: Docker's default stop signal.
pub(super) const TERM: u8 = 15;

/// Linux's names; real-time signals are counted from `RTMIN` and `RTMAX`.
const NAMES: &[(&str, u8)] = &[
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", KILL),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", TERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("RTMIN", 34),
    ("RTMAX", 64),
];

/// The number of `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3`; `None` for what is no signal.
pub(super) fn parse(text: &str) -> Option<u8> {
    let number = if let Ok(number) = text.parse::<u8>() {
        number
    } else {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = |name: &str| NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        if let Some(offset) = name.strip_prefix("RTMIN+") {
            named("RTMIN")?.checked_add(offset.parse().ok()?)?
        } else if let Some(offset) = name.strip_prefix("RTMAX-") {
            named("RTMAX")?.checked_sub(offset.parse().ok()?)?
        } else {
            named(name)?
        }
    };
    (1..=64).contains(&number).then_some(number)
}

/// A signal as people write it: `SIGTERM`.
pub(super) fn name(number: u8) -> String {
    let named = NAMES.iter().find(|(_, known)| *known == number);
    named.map_or_else(|| format!("signal {number}"), |(name, _)| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_by_name_and_number() {
        for (text, number) in [
            ("15", Some(15)),
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("SIGUSR1", Some(10)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN+200", None),
            ("0", None),
            ("65", None),
            ("SIGNAL", None),
            ("", None),
        ] {
            assert_eq!(parse(text), number, "{text:?}");
        }
    }
}
