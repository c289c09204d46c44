//! How long answers took: counts in buckets whose width grows with the value, as in HdrHistogram, so that a sum of many workers'
//! and edges' histograms is as exact as each one was.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Buckets to each doubling of the value: a value is known to within a 32nd, some 3 %.
const PARTS: u64 = 32;
/// The doublings below which each value has a bucket of its own: 2^5 is [`PARTS`].
const EXACT: u32 = 5;
/// Longer ones count as this: some 71 minutes.
const LONGEST: u64 = u32::MAX as u64;

/// Counted durations in microseconds. Its wire form lists the buckets that are not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(BTreeMap<u16, u64>);

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, micros: u64) {
        let count = self.0.entry(bucket(micros)).or_default();
        *count = count.saturating_add(1);
    }

    /// Counts what another has counted.
    pub fn add(&mut self, other: &Self) {
        for (bucket, more) in &other.0 {
            let count = self.0.entry(*bucket).or_default();
            *count = count.saturating_add(*more);
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How many buckets are not empty.
    pub fn buckets(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The duration in microseconds that so many percent of all do not exceed: the upper end of its bucket. `None`: nothing was
    /// counted.
    pub fn percentile(&self, percent: u32) -> Option<u64> {
        let all = u128::from(self.count());
        let rank = all.saturating_mul(percent.min(100).into()).div_ceil(100).max(1);
        let mut seen = 0_u128;
        for (bucket, count) in &self.0 {
            seen = seen.saturating_add((*count).into());
            if seen >= rank {
                return Some(upper(*bucket));
            }
        }
        None
    }
}

fn bucket(micros: u64) -> u16 {
    let micros = micros.min(LONGEST);
    let Some(doublings) = micros.checked_ilog2().and_then(|log| log.checked_sub(EXACT)) else {
        return micros as u16;
    };
    // Within its doubling: PARTS ..= 2 * PARTS - 1.
    let part = micros >> doublings;
    u64::from(doublings).saturating_mul(PARTS).saturating_add(part) as u16
}

/// The largest value that falls into this bucket.
fn upper(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let Some(doublings) = (bucket / PARTS).checked_sub(1) else { return bucket };
    let part = (bucket % PARTS).saturating_add(PARTS);
    // What another side's JSON says may be no bucket of ours.
    let shift = u32::try_from(doublings).unwrap_or(u32::MAX);
    part.saturating_add(1).checked_shl(shift).unwrap_or(LONGEST).saturating_sub(1).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(99), None);
        (1..=1_000).for_each(|ms| histogram.record(ms * 1_000));
        for (percent, ms) in [(50, 500), (90, 900), (99, 990), (100, 1_000)] {
            let found = histogram.percentile(percent).unwrap();
            let exact = ms * 1_000;
            assert!((exact..=exact + exact / 32).contains(&found), "p{percent}: {found}");
        }
        assert_eq!(histogram.percentile(0), Some(upper(bucket(1_000))));
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_value_and_is_narrow(micros in 0..=LONGEST) {
            let upper = upper(bucket(micros));
            prop_assert!(micros <= upper && upper <= micros + micros / PARTS, "{micros} in a bucket up to {upper}");
        }

        #[test]
        fn larger_values_have_no_lower_bucket(a in 0..=LONGEST, b in 0..=LONGEST) {
            prop_assert!(bucket(a.min(b)) <= bucket(a.max(b)));
        }

        #[test]
        fn a_sum_is_what_one_histogram_had_counted(a in prop::collection::vec(any::<u32>(), 0..50), b in prop::collection::vec(any::<u32>(), 0..50)) {
            let of = |values: &[u32]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|value| histogram.record((*value).into()));
                histogram
            };
            let mut sum = of(&a);
            sum.add(&of(&b));
            prop_assert_eq!(&sum, &of(&[a.as_slice(), b.as_slice()].concat()));
            let json = serde_json::to_string(&sum).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), sum);
        }

        #[test]
        fn no_foreign_bucket_makes_it_panic(buckets in prop::collection::btree_map(any::<u16>(), any::<u64>(), 0..9), percent: u32) {
            let _ = Histogram(buckets).percentile(percent);
        }
    }
}
