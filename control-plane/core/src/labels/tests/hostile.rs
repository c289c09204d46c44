//! Whatever containers are labelled with: see `hostile`. Keys and values are nearly right, or anything.

use proptest::prelude::*;

use crate::labels::{SCHEMA, hostile};

fn key() -> impl Strategy<Value = String> {
    let known = || prop::sample::select(SCHEMA).prop_map(|(key, _)| key.to_owned());
    prop_oneof![
        4 => known(),
        2 => ("[a-c]", known()).prop_map(|(name, key)| key.replace("tidegate.", &format!("tidegate.svc.{name}."))),
        1 => "tidegate(\\.|\\.svc\\.)?[a-z.]{0,8}",
        1 => "(tidegate\\.|)[a-z.]{0,3}(secret|Token|PASSWORD)[a-z]{0,3}",
        1 => "com\\.docker\\.compose\\.(project|service|oneoff|hook|config-hash)",
        1 => "[^=\n]{0,200}",
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "true|false|http|tcp|none|/|/[a-z]{0,4}|[0-9]{1,6}|[0-9]{1,3}(ms|s|m|h)",
        2 => "([a-c]\\.localhost,?){0,4}",
        1 => "[^\n]{0,40}",
        1 => "x{1000,1100}",
    ]
}

proptest! {
    #[test]
    fn nothing_that_labels_say_panics_or_goes_unanswered(
        containers in prop::collection::vec(
            prop::collection::vec((any::<bool>(), key(), value()), 0..12).prop_union(
                prop::collection::vec((any::<bool>(), key(), value()), 60..80)), 1..4),
        rubbish in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = Vec::new();
        for labels in containers {
            for (of_image, key, value) in labels {
                let mark = if of_image { "@" } else { "" };
                bytes.extend(format!("{mark}{key}={value}\n").into_bytes());
            }
            bytes.push(b'\n');
        }
        bytes.extend(rubbish);
        hostile(&bytes);
    }
}
