//! Damping: a container that falls again and again is kept out for a while, so that it costs its service and the edges little.
//!
//! Each fall (a ready instance ends, or its check fails) adds to a penalty that halves every [`HALF_LIFE`], as in BGP's route flap
//! damping (RFC 2439): the past counts, but ever less, one number is all there is to keep, and when it ends can be said in
//! advance. At [`SUPPRESS`] the container is out, below [`REUSE`] it is back. The numbers are chosen so that
//!
//! - one fall never damps, two within a minute do: before the second the penalty was half of a fall at least;
//! - no minute has more than two falls of a container that is published, so no more than four changes: whoever comes back has
//!   at most one fall in the minute before;
//! - who was asked to go (a signal by the engine, a pause) falls half as hard: a deploy and a `docker restart`, even three in a
//!   minute, are not damped; a restart in a loop is;
//! - [`MOST`] bounds the wait to two minutes after the last fall. What goes on falling while it is out, stays out.
//!
//! The penalty is the container's, not the run's, and ends with it. Whether a damped container really is out is for the view of
//! its service to decide: it is not while too few others would take its requests. Pure: told `now`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{ServiceName, Timestamp};

/// In which a penalty halves.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// What a fall adds that nobody asked for.
const FALL: f64 = 1.0;
/// What one adds that somebody asked for.
const ASKED: f64 = 0.5;
/// At this penalty a container is out.
const SUPPRESS: f64 = 1.5;
/// Below this it is back.
const REUSE: f64 = 0.75;
/// It grows no further.
const MOST: f64 = 3.0;

/// The containers that fell lately.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    fallen: BTreeMap<String, Flap>,
    /// Those that are out, by when they are back.
    out: BTreeSet<(Timestamp, String)>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Flap {
    /// As of `at`.
    penalty: f64,
    at: Timestamp,
    services: BTreeSet<ServiceName>,
    /// Falls since it was last forgotten.
    pub(crate) falls: u32,
    /// When it is back; `None`: it is not out.
    pub(crate) until: Option<Timestamp>,
}

impl Flaps {
    /// An instance of the container was ready and is not any more. What falls at one moment, as an instance of several services,
    /// falls once.
    pub(crate) fn fell(&mut self, container: &str, service: &ServiceName, asked: bool, now: Timestamp) {
        let flap = self.fallen.entry(container.to_owned()).or_insert_with(|| Flap {
            penalty: 0.0,
            at: Timestamp::default(),
            services: BTreeSet::new(),
            falls: 0,
            until: None,
        });
        flap.services.insert(service.clone());
        if flap.at == now {
            return;
        }
        let left = flap.left(now);
        // Long forgotten: it begins anew.
        flap.falls = if left < 0.01 { 1 } else { flap.falls.saturating_add(1) };
        flap.penalty = (left + if asked { ASKED } else { FALL }).min(MOST);
        flap.at = now;
        if flap.until.is_none() && flap.penalty < SUPPRESS {
            return;
        }
        let until = now.after(HALF_LIFE.mul_f64((flap.penalty / REUSE).log2().max(0.0)));
        if let Some(before) = flap.until.replace(until) {
            self.out.remove(&(before, container.to_owned()));
        }
        self.out.insert((until, container.to_owned()));
    }

    /// The container does not exist any more.
    pub(crate) fn forget(&mut self, container: &str) {
        if let Some(until) = self.fallen.remove(container).and_then(|flap| flap.until) {
            self.out.remove(&(until, container.to_owned()));
        }
    }

    /// Lets back in whose time has come, and returns the services for which that matters.
    pub(crate) fn release(&mut self, now: Timestamp) -> BTreeSet<ServiceName> {
        let mut services = BTreeSet::new();
        while self.out.first().is_some_and(|(until, _)| *until <= now) {
            let Some((_, container)) = self.out.pop_first() else { break };
            if let Some(flap) = self.fallen.get_mut(&container) {
                flap.until = None;
                services.extend(flap.services.iter().cloned());
            }
        }
        services
    }

    /// Whether a container is out.
    pub(crate) fn damped(&self, container: &str) -> Option<(&Flap, Timestamp)> {
        let flap = self.fallen.get(container)?;
        Some((flap, flap.until?))
    }

    /// When [`Self::release`] has something to do although nothing happened.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.out.first().map(|(until, _)| *until)
    }
}

impl Flap {
    fn left(&self, now: Timestamp) -> f64 {
        self.penalty * 0.5_f64.powf(now.since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64())
    }
}

#[cfg(test)]
mod tests;
