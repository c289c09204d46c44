//! What the environment says, read once and validated.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) address: SocketAddr,
    /// Another server of the same process, whose version says so.
    pub(crate) second_port: Option<u16>,
    pub(crate) service: String,
    pub(crate) version: String,
    /// The container's short id, as Docker sets it, unless `--hostname` says otherwise.
    pub(crate) hostname: String,
    pub(crate) start_delay: Duration,
    pub(crate) ready_after: Duration,
    pub(crate) errors: u8,
    pub(crate) delay: Duration,
    pub(crate) on_term: OnTerm,
    /// Zero: never.
    pub(crate) exit_after: Duration,
}

impl Settings {
    /// Those of the second server, if there is to be one.
    pub(crate) fn second(&self) -> Option<Self> {
        let address = SocketAddr::new(self.address.ip(), self.second_port?);
        Some(Self { address, version: format!("{}-second", self.version), second_port: None, ..self.clone() })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnTerm {
    /// Go on for `delay`, then accept no more, answer what is in flight, exit 0.
    Graceful {
        delay: Duration,
    },
    Now,
    Ignore,
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, String> {
        Self::from_lookup(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let millis = |name: &str| number(&lookup, name, 0).map(Duration::from_millis);
        let ip = match lookup("ADDRESS") {
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(text) => text.parse().map_err(|_| format!("ADDRESS: {text:?} is not an IP address"))?,
        };
        let on_term = match lookup("TERM").as_deref() {
            Some("now") => OnTerm::Now,
            Some("ignore") => OnTerm::Ignore,
            // A terminal's type, when run by hand: TERM is taken only where it is one of our words.
            _ => OnTerm::Graceful { delay: millis("TERM_DELAY_MS")? },
        };
        Ok(Self {
            address: SocketAddr::new(ip, number(&lookup, "PORT", 8080)?),
            second_port: Some(number(&lookup, "SECOND_PORT", 0)?).filter(|port| *port > 0),
            service: lookup("SERVICE").unwrap_or_else(|| "sample".to_owned()),
            version: lookup("VERSION").unwrap_or_else(|| "v1".to_owned()),
            hostname: lookup("HOSTNAME").or_else(kernel_hostname).unwrap_or_else(|| "unknown".to_owned()),
            start_delay: millis("START_DELAY_MS")?,
            ready_after: millis("READY_AFTER_MS")?,
            errors: percent(&number::<u64>(&lookup, "ERRORS", 0)?.to_string())
                .map_err(|why| format!("ERRORS: {why}"))?,
            delay: millis("DELAY_MS")?,
            on_term,
            exit_after: millis("EXIT_AFTER_MS")?,
        })
    }
}

/// A percentage as `ERRORS` and `/control` take it.
pub(crate) fn percent(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(percent @ 0..=100) => Ok(percent),
        _ => Err(format!("{text:?} is not a whole number from 0 to 100")),
    }
}

fn number<T: std::str::FromStr>(lookup: impl Fn(&str) -> Option<String>, name: &str, default: T) -> Result<T, String> {
    match lookup(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("{name}: {text:?} is not a whole number in range")),
    }
}

fn kernel_hostname() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        Settings::from_lookup(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn empty_environment_is_enough() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.address.to_string(), "0.0.0.0:8080");
        assert!(settings.second().is_none());
        assert_eq!(settings.on_term, OnTerm::Graceful { delay: Duration::ZERO });
    }

    #[test]
    fn a_terminal_type_in_term_is_not_a_behaviour() {
        let on_term = settings(&[("TERM", "xterm-256color"), ("TERM_DELAY_MS", "20")]).unwrap().on_term;
        assert_eq!(on_term, OnTerm::Graceful { delay: Duration::from_millis(20) });
    }

    #[test]
    fn wrong_values_name_the_variable() {
        for (name, value) in [("PORT", "70000"), ("ADDRESS", "here"), ("ERRORS", "101"), ("DELAY_MS", "-1")] {
            let problem = settings(&[(name, value)]).unwrap_err();
            assert!(problem.starts_with(name), "{problem}");
        }
    }
}
