//! Reads a NACK's text: which resources of the refused response does it accuse? Pure. Only wordings that Envoy is known
//! to use count as an accusation; a name that merely occurs is a hint, for a resource may be called "cluster".

/// What a NACK says about the resources of the response that it refuses. Numbers are positions in the list of names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// These are bad, and Envoy has taken the others: `Error adding/updating cluster(s) a: REASON, b: REASON`.
    Only(Vec<usize>),
    /// This is bad, and Envoy has taken nothing of the response: a broken field rule, with a dump of the first resource
    /// that breaks one.
    First(usize),
    /// These names occur; perhaps one of them is it.
    Hints(Vec<usize>),
    Nobody,
}

const PARTLY_APPLIED: &str = "Error adding/updating";
const FIELD_RULE: &str = "Proto constraint validation failed";
/// How Protobuf begins a dump. Envoy cuts long texts, so the words after the dump may be missing.
const DUMP: &str = "goo.gle/debugproto";

pub(super) fn blame(message: &str, names: &[&str]) -> Blame {
    let found = |occurs: &dyn Fn(&str) -> bool| -> Vec<usize> {
        names.iter().enumerate().filter(|(_, name)| occurs(name)).map(|(at, _)| at).collect()
    };

    if message.contains(PARTLY_APPLIED) {
        let accused = found(&|name| {
            occurrences(message, name).any(|(before, after)| {
                after.starts_with(": ") && [") ", ", ", "\n"].iter().any(|it| before.ends_with(it))
            })
        });
        if !accused.is_empty() {
            return Blame::Only(accused);
        }
    }

    if (message.starts_with(DUMP) || message.contains(FIELD_RULE))
        && let Some(dumped) = first_name_field(message)
        && let Some(first) = names.iter().position(|name| *name == dumped)
    {
        return Blame::First(first);
    }

    let inside_a_name =
        |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-_/.+".contains(&byte));
    let hints = found(&|name| {
        occurrences(message, name).any(|(before, after)| {
            !inside_a_name(before.bytes().next_back())
                && !inside_a_name(after.bytes().next().filter(|byte| *byte != b'.'))
        })
    });
    if hints.is_empty() { Blame::Nobody } else { Blame::Hints(hints) }
}

/// The value of the first `name: "..."` or `cluster_name: "..."`: every resource has its name in its first field.
fn first_name_field(dump: &str) -> Option<&str> {
    let (_, rest) = dump.split_once("name:")?;
    let (value, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
    Some(value)
}

/// The text before and after each occurrence of a name.
fn occurrences<'a>(message: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    message.match_indices(name).map(move |(at, _)| (&message[..at], &message[at + name.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_bad_clusters_accuses_only_those() {
        let message = "Error adding/updating cluster(s) badB: unknown type, badC: also bad";
        assert_eq!(blame(message, &["good", "badC", "badB", "bad"]), Blame::Only(vec![1, 2]));
    }

    #[test]
    fn a_dump_accuses_the_resource_dumped_not_those_named_inside() {
        let rule =
            "Proto constraint validation failed (ClusterValidationError.ConnectTimeout: value must be greater than 0s)";
        let dump = "goo.gle/debugproto   \nname: \"shop/v1\"\ntransport_socket {\n  name: \"other\"\n}\n";
        let names = ["other", "shop/v1", "shop"];
        assert_eq!(blame(&format!("{dump}: {rule}"), &names), Blame::First(1));
        assert_eq!(blame(&format!("{rule}: {dump}"), &names), Blame::First(1));
        assert_eq!(blame(&format!("{dump}...(truncated)"), &names), Blame::First(1));
        let assignment =
            format!("goo.gle/debugproto \ncluster_name: \"shop\"\nendpoints {{\n  priority: 500\n}}\n: {rule}");
        assert_eq!(blame(&assignment, &names), Blame::First(2));
    }

    #[test]
    fn a_dump_of_something_inside_accuses_nobody() {
        let message =
            "Invalid duration: Duration out-of-range according to Protobuf: goo.gle/debugproto \nnanos: 1000000000\n";
        assert_eq!(blame(message, &["a", "b"]), Blame::Nobody);
    }

    #[test]
    fn a_list_of_bad_listeners_accuses_only_those() {
        let message = "Error adding/updating listener(s) busy: cannot bind '127.0.0.1:80': Address already in use\n\
                       foo: address is necessary\n";
        assert_eq!(blame(message, &["web", "busy", "foo"]), Blame::Only(vec![1, 2]));
    }

    #[test]
    fn a_name_that_merely_occurs_is_a_hint() {
        assert_eq!(blame("Unable to create Wasm plugin tidegate", &["other", "tidegate"]), Blame::Hints(vec![1]));
        assert_eq!(blame("duplicate shop/v1.", &["shop/v1", "shop", "v1"]), Blame::Hints(vec![0]));
    }

    #[test]
    fn a_text_without_names_accuses_nobody() {
        let message = "Sum of weights in the weighted_cluster must be greater than 0.";
        assert_eq!(blame(message, &["web", "a"]), Blame::Nobody);
    }
}
