//! When a stream acknowledged what, without a record for each resource: a few marks "everything up to this change, at
//! this time". Pure and of bounded size: old marks thin out, so old times become upper bounds.

use std::time::Duration;

/// How many marks are kept; 24 bytes each, a few types per stream.
const CAPACITY: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Acks {
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    /// The number of the response that was acknowledged.
    response: u64,
    /// The last change that the client has with it.
    sequence: u64,
    at: Duration,
}

impl Acks {
    pub(super) fn record(&mut self, response: u64, sequence: u64, at: Duration) {
        if self.marks.len() == CAPACITY {
            // Every other mark of the older half goes, never the newer of two: a time is then late, not early.
            let mut position = 0;
            self.marks.retain(|_| {
                position += 1;
                position > CAPACITY / 2 || position % 2 == 0
            });
        }
        self.marks.push(Mark { response, sequence, at });
    }

    /// When the client had acknowledged a change that no response before `since` can have carried; for an old change, a
    /// time that is not before it.
    pub(super) fn time_of(&self, sequence: u64, since: u64) -> Option<Duration> {
        self.marks.iter().find(|mark| mark.sequence >= sequence && mark.response >= since).map(|mark| mark.at)
    }

    /// Whether the client has acknowledged that change.
    pub(super) fn reach(&self, sequence: u64, since: u64) -> bool {
        self.marks.iter().rev().any(|mark| mark.sequence >= sequence && mark.response >= since)
    }

    /// The last change that the client is known to have.
    pub(super) fn sequence(&self) -> u64 {
        self.marks.last().map_or(0, |mark| mark.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_exact_while_recent_and_never_too_early() {
        let mut acks = Acks::default();
        for number in 1..=1000 {
            acks.record(number, number * 10, Duration::from_secs(number));
        }
        assert!(acks.marks.len() <= CAPACITY);
        assert_eq!(acks.time_of(9_995, 0), Some(Duration::from_secs(1000)));
        assert_eq!(acks.time_of(9_981, 0), Some(Duration::from_secs(999)));
        for sequence in 1..=10_000 {
            assert!(acks.time_of(sequence, 0).unwrap() >= Duration::from_secs(sequence.div_ceil(10)));
        }
        assert_eq!(acks.time_of(10_001, 0), None);
        assert_eq!(acks.time_of(5, 1000), Some(Duration::from_secs(1000)));
    }
}
