//! How the backend behaves now: what `/control` switches while it runs, and what it counts. Shared by all connections.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::{
    request::Request,
    settings::{Settings, percent},
};

/// Longer waits are cut to this, so that no request can occupy a thread for ever.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(60);

/// Enough for any limit that a test sets, and not for the machine.
const MAX_EATEN_MIB: usize = 256;

pub(crate) struct Behaviour {
    pub(crate) settings: Settings,
    /// `version/hostname`, as every answer carries it.
    pub(crate) served_by: String,
    started: Instant,
    ready: AtomicBool,
    healthy: AtomicBool,
    errors: AtomicU8,
    delay_ms: AtomicU64,
    requests: AtomicU64,
}

impl Behaviour {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            served_by: format!("{}/{}", settings.version, settings.hostname),
            started: Instant::now(),
            ready: AtomicBool::new(true),
            healthy: AtomicBool::new(true),
            errors: AtomicU8::new(settings.errors),
            delay_ms: AtomicU64::new(millis(settings.delay)),
            requests: AtomicU64::new(0),
            settings,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) && self.started.elapsed() >= self.settings.ready_after
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy.load(Relaxed)
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Relaxed))
    }

    /// Counts a request of a client (not a check, not `/control`) and says which one it is.
    pub(crate) fn count(&self) -> u64 {
        self.requests.fetch_add(1, Relaxed) + 1
    }

    /// Whether that request is to fail: `errors` percent of all, in a scattered but repeatable order.
    pub(crate) fn fails(&self, request: u64) -> bool {
        scatter(request) % 100 < u64::from(self.errors.load(Relaxed))
    }

    /// Applies every parameter of a `/control` request, or none if one is wrong.
    pub(crate) fn control(&self, request: &Request) -> Result<(), String> {
        let mut changes: Vec<Box<dyn Fn()>> = Vec::new();
        for (name, value) in request.query_pairs() {
            let wrong = || format!("{name}={value} is not understood\n");
            match name {
                "ready" | "health" => {
                    let value = value.parse::<bool>().map_err(|_| wrong())?;
                    let target = if name == "ready" { &self.ready } else { &self.healthy };
                    changes.push(Box::new(move || target.store(value, Relaxed)));
                }
                "errors" => {
                    let value = percent(value).map_err(|_| wrong())?;
                    changes.push(Box::new(move || self.errors.store(value, Relaxed)));
                }
                "delay_ms" => {
                    let value = value.parse::<u64>().map_err(|_| wrong())?.min(millis(MAX_DELAY));
                    changes.push(Box::new(move || self.delay_ms.store(value, Relaxed)));
                }
                "eat_mib" => {
                    let mib = value.parse::<usize>().map_err(|_| wrong())?.min(MAX_EATEN_MIB);
                    changes.push(Box::new(move || eat(mib)));
                }
                _ => return Err(wrong()),
            }
        }
        for change in changes {
            change();
        }
        Ok(())
    }

    /// What `/control` answers.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{{\"ready\":{},\"health\":{},\"errors\":{},\"delay_ms\":{},\"requests\":{}}}\n",
            self.is_ready(),
            self.is_healthy(),
            self.errors.load(Relaxed),
            self.delay_ms.load(Relaxed),
            self.requests.load(Relaxed),
        )
    }
}

/// Takes memory, uses all of it, and never gives it back.
fn eat(mib: usize) {
    // Not zeros: those would be pages that nobody has touched.
    std::mem::forget(vec![1_u8; mib << 20]);
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.min(MAX_DELAY).as_millis()).unwrap_or(u64::MAX)
}

/// SplitMix64's finaliser: neighbouring numbers end far apart, so that a retry is not bound to succeed.
fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn behaviour() -> Behaviour {
        Behaviour::new(Settings {
            address: "127.0.0.1:0".parse().unwrap(),
            second_port: None,
            service: "shop".to_owned(),
            version: "v2".to_owned(),
            hostname: "box".to_owned(),
            start_delay: Duration::ZERO,
            ready_after: Duration::ZERO,
            errors: 0,
            delay: Duration::ZERO,
            on_term: crate::settings::OnTerm::Now,
            exit_after: Duration::ZERO,
        })
    }

    fn control(behaviour: &Behaviour, query: &str) -> Result<(), String> {
        let text = format!("POST /control?{query} HTTP/1.1\r\n\r\n");
        behaviour.control(&Request::parse(text.as_bytes()).unwrap().unwrap().0)
    }

    #[test]
    fn control_switches_what_it_names() {
        let behaviour = behaviour();
        control(&behaviour, "ready=false&errors=30&delay_ms=5").unwrap();
        assert!(!behaviour.is_ready());
        assert!(behaviour.is_healthy());
        assert_eq!(behaviour.delay(), Duration::from_millis(5));
        assert_eq!(
            behaviour.describe(),
            "{\"ready\":false,\"health\":true,\"errors\":30,\"delay_ms\":5,\"requests\":0}\n"
        );
    }

    #[test]
    fn a_wrong_parameter_changes_nothing() {
        let behaviour = behaviour();
        for query in ["ready=false&errors=101", "ready=false&what=1", "ready=false&delay_ms=-1", "ready=no"] {
            control(&behaviour, query).unwrap_err();
        }
        assert!(behaviour.is_ready());
    }

    #[test]
    fn errors_are_the_share_that_was_asked_for() {
        let behaviour = behaviour();
        for (percent, expected) in [(0, 0..=0), (10, 900..=1100), (50, 4800..=5200), (100, 10_000..=10_000)] {
            control(&behaviour, &format!("errors={percent}")).unwrap();
            let failed = (0..10_000).filter(|request| behaviour.fails(*request)).count();
            assert!(expected.contains(&failed), "{percent} %: {failed}");
        }
    }
}
