//! Where a key lands: the hash from a key to a bucket, and Envoy's own walk from a bucket to a weighted cluster. The
//! filter only computes the bucket; `pick` repeats what Envoy then does, so that the control plane can explain it and a
//! test can hold both against each other.

use std::io::Read;

/// Buckets a service's clients are spread over, and the sum of a service's weights: one bucket is one basis point.
pub const BUCKETS: u32 = 10_000;

/// The bytes of a key that are hashed. Envoy takes 60 KiB of headers from a client, and the hash is on the hot path.
pub const MAX_KEY: usize = 4096;

/// The bucket, 0–9,999, of `key`: `murmur3_x86_32("SERVICE:SALT:KEY") % 10000`, seed 0, of the key's first [`MAX_KEY`]
/// bytes. The service is in it so that one client is not the canary of every service at once, the salt so that an
/// operator can deal anew.
pub fn bucket(service: &str, salt: &str, key: &[u8]) -> u16 {
    bucket_of(hash(service, salt, key))
}

/// The bucket of a key with this [`hash`].
pub(crate) fn bucket_of(hash: u32) -> u16 {
    (hash % BUCKETS) as u16
}

/// What a [`bucket`] is taken of.
pub(crate) fn hash(service: &str, salt: &str, key: &[u8]) -> u32 {
    let key = key.get(..MAX_KEY).unwrap_or(key);
    let mut text = service.as_bytes().chain(&b":"[..]).chain(salt.as_bytes()).chain(&b":"[..]).chain(key);
    // Reading from slices cannot fail.
    murmur3::murmur3_32(&mut text, 0).unwrap_or_default()
}

/// Something that differs from client to client, where it is no [`bucket`]'s key.
pub fn key_hash(key: &[u8]) -> u32 {
    hash("", "", key)
}

/// The index that Envoy 1.40 picks from `weighted_clusters` whose `header_name` carries `bucket`: the value modulo the
/// sum of the weights, walking the clusters in the order listed. With `[10000 - w, w]` the second one, the canary, has
/// the buckets `[10000 - w, 10000)`, so raising `w` moves nobody off it. None when every weight is 0: no cluster.
pub fn pick(weights: &[u32], bucket: u16) -> Option<usize> {
    let sum = weights.iter().fold(0u64, |sum, &weight| sum.saturating_add(weight.into()));
    let mut left = u64::from(bucket).checked_rem(sum)?;
    for (index, &weight) in weights.iter().enumerate() {
        match left.checked_sub(weight.into()) {
            None => return Some(index),
            Some(rest) => left = rest,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: std::ops::Range<u16> = 0..BUCKETS as u16;

    fn murmur(text: &str) -> u32 {
        murmur3::murmur3_32(&mut text.as_bytes(), 0).unwrap()
    }

    #[test]
    fn hash_is_murmur3_x86_32() {
        // SMHasher's reference implementation, seed 0.
        let vectors = [
            ("", 0),
            ("a", 0x3c25_69b2),
            ("abc", 0xb3dd_93fa),
            ("test", 0xba6b_d213),
            ("Hello, world!", 0xc036_3e43),
            ("The quick brown fox jumps over the lazy dog", 0x2e4f_f723),
        ];
        for (text, hash) in vectors {
            assert_eq!(murmur(text), hash, "{text:?}");
        }
    }

    #[test]
    fn bucket_hashes_service_salt_and_key_joined_by_colons() {
        for (service, salt, key) in [("shop", "s1", "alice"), ("", "", ""), ("a", "bc", "d"), ("shop", "s1", "äöü")]
        {
            let whole = murmur(&format!("{service}:{salt}:{key}"));
            assert_eq!(u32::from(bucket(service, salt, key.as_bytes())), whole % BUCKETS, "{service}:{salt}:{key}");
        }
    }

    /// Written down once: a change here would move every client of every running rollout.
    #[test]
    fn known_keys_keep_their_buckets() {
        let known = [("alice", 9802), ("bob", 1578), ("", 9115)];
        for (key, expected) in known {
            assert_eq!(bucket("shop", "rollout-1", key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn key_is_hashed_up_to_its_cap() {
        let mut key = vec![b'k'; MAX_KEY];
        let capped = bucket("shop", "", &key);
        key.push(b'!');
        assert_eq!(bucket("shop", "", &key), capped, "bytes beyond the cap do not count");
        key[MAX_KEY - 1] = b'!';
        assert_ne!(bucket("shop", "", &key), capped, "the last byte within it does");
    }

    #[test]
    fn nine_thousand_to_one_thousand_is_exact() {
        let canary: Vec<u16> = ALL.filter(|&bucket| pick(&[9_000, 1_000], bucket) == Some(1)).collect();
        assert_eq!(canary, (9_000..10_000).collect::<Vec<u16>>());
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let canary = (0..20_000).filter(|n| bucket("shop", "r1", format!("user-{n}").as_bytes()) >= 9_000).count();
        assert!((1_800..2_200).contains(&canary), "{canary} of 20000 keys in a tenth of the buckets");
    }

    #[test]
    fn no_weight_is_no_cluster() {
        assert_eq!(pick(&[], 0), None);
        assert_eq!(pick(&[0, 0], 1), None);
        assert_eq!(pick(&[0, 1], 9_999), Some(1));
        assert_eq!(pick(&[u32::MAX, u32::MAX], u16::MAX), Some(0));
    }

    proptest! {
        #[test]
        fn raising_the_weight_moves_nobody_off_the_canary(w in 0..=BUCKETS, more in 0..=BUCKETS, bucket in ALL) {
            let (low, high) = (w.min(more), w.max(more));
            let on_canary = |w| pick(&[BUCKETS - w, w], bucket) == Some(1);
            prop_assert!(!on_canary(low) || on_canary(high));
            prop_assert_eq!(on_canary(w), u32::from(bucket) >= BUCKETS - w);
        }

        #[test]
        fn pick_agrees_with_its_definition(weights in proptest::collection::vec(0..50u32, 0..6), bucket: u16) {
            let slots: Vec<usize> = weights
                .iter()
                .enumerate()
                .flat_map(|(index, &weight)| std::iter::repeat_n(index, weight as usize))
                .collect();
            let expected = (!slots.is_empty()).then(|| slots[usize::from(bucket) % slots.len()]);
            prop_assert_eq!(pick(&weights, bucket), expected);
        }

        #[test]
        fn any_key_has_a_bucket(service: String, salt: String, key: Vec<u8>) {
            prop_assert!(u32::from(bucket(&service, &salt, &key)) < BUCKETS);
        }
    }
}
