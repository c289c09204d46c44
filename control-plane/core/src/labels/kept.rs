//! What is kept of a container's labels: ours and what is read of Compose's, within the limits, and no secret. Whoever puts
//! labels on a container may make them many and long; what is kept of them is little, whatever they are.

use std::collections::BTreeMap;

use super::ours::{COMPOSE, MAX_KEY, MAX_LABELS, MAX_VALUE, is_known, is_ours};

/// What is kept in place of the value of a label that is named like a secret.
pub(super) const MASKED: &str = "***";

/// Those of Compose's labels that are read, or tell that Compose made a container and not its image.
pub(super) const OF_COMPOSE: &[&str] = &["project", "service", "oneoff", "hook", "config-hash", "container-number"];

/// The names of foreign secrets that are kept, to be told of.
pub(super) const MAX_SECRETS: usize = 8;

/// The labels that anything is read of, blanks around values cut off. The values of those that are [named like secrets](is_secret)
/// are masked. Of more or longer ones than are allowed so much is kept that they are still too many or too long.
#[must_use]
pub fn kept(labels: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    let (mut ours, mut secrets) = (0, 0);
    // In one order, whatever that of the answer: what is kept of too many is always the same.
    let labels: BTreeMap<String, String> = labels.into_iter().collect();
    for (key, value) in labels {
        let secret = is_secret(&key);
        if is_ours(&key) {
            ours += 1;
            if ours > MAX_LABELS + 1 && key != super::ENABLE {
                continue;
            }
        } else if secret {
            secrets += 1;
            if secrets > MAX_SECRETS {
                continue;
            }
        } else if !key.strip_prefix(COMPOSE).is_some_and(|word| OF_COMPOSE.contains(&word)) {
            continue;
        }
        let value = if secret { MASKED } else { beginning(value.trim(), MAX_VALUE) };
        kept.insert(beginning(&key, MAX_KEY).to_owned(), value.to_owned());
    }
    kept
}

/// Whether a label's name says that its value is a secret (threats T5). None of ours does.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    ["secret", "token", "password"].iter().any(|word| lower.contains(word)) && !is_known(key)
}

/// A text that is longer than allowed to the first character beyond.
fn beginning(text: &str, allowed: usize) -> &str {
    &text[..text.ceil_char_boundary(allowed + 1)]
}
