//! `envoy diff`: what is published against what the local Envoy says it has.

use tidegate_core::status::{DiffState, EnvoyDiff, ResourceDiff};

use super::{TYPES, query};
use crate::cli::ask::{Api, Shown, get};
use crate::cli::draw::{Drawn, Mood, plain};
use crate::cli::{Outcome, Output};

pub(in crate::cli) async fn diff(api: &Api, output: Output, kind: Option<&str>) -> Shown {
    let answer = get::<EnvoyDiff>(api, &query("/v1/envoy/diff", &[("type", kind)])).await?;
    let outcome = if answer.value.same { Outcome::Well } else { Outcome::ProblemFound };
    Ok((answer.print(output, screen), outcome))
}

fn screen(seen: &EnvoyDiff) -> String {
    let EnvoyDiff { node, version, admin, notes, resources, .. } = seen;
    let mut text = format!("edge {node} ({version}) at {admin}: {}\n", summary(resources));
    for note in notes {
        text.push_str(&format!("note: {note}\n"));
    }
    let is_told = |diff: &&ResourceDiff| diff.state != DiffState::Same || diff.detail.is_some();
    let told: Vec<&ResourceDiff> = resources.iter().filter(is_told).collect();
    if told.is_empty() {
        return text;
    }
    let mut table = Drawn::new(&["TYPE", "NAME", "STATE", "PUBLISHED", "ENVOY", "DETAIL"]);
    for ResourceDiff { kind, name, state, intended, envoy, detail, .. } in &told {
        table.row([
            plain(kind),
            plain(name),
            word(*state),
            plain(intended.as_deref().unwrap_or("-")),
            plain(envoy.as_deref().unwrap_or("-")),
            plain(detail.as_deref().unwrap_or("-")),
        ]);
    }
    text.push('\n');
    text.push_str(&table.text());
    for ResourceDiff { kind, name, envoy_error, refusal, .. } in told {
        for (where_from, words) in [("over xDS", refusal), ("in its configuration dump", envoy_error)] {
            if let Some(words) = words {
                text.push_str(&format!("\n{kind} {name}, Envoy {where_from}: {}\n", words.trim_end()));
            }
        }
    }
    text
}

/// `3 CDS, 2 EDS are the same, 1 LDS is not`, in full.
fn summary(resources: &[ResourceDiff]) -> String {
    let count = |kind: &str, is: fn(DiffState) -> bool| {
        resources.iter().filter(|diff| diff.kind == kind && is(diff.state)).count()
    };
    let listed = |is: fn(DiffState) -> bool| {
        let counts = TYPES.map(|kind| (count(kind, is), kind));
        let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{count} {kind}"));
        counts.collect::<Vec<_>>().join(", ")
    };
    let or_none = |list: String| if list.is_empty() { "none".to_owned() } else { list };
    let same = or_none(listed(|state| state == DiffState::Same));
    let different = or_none(listed(DiffState::is_difference));
    format!("the same: {same}; different: {different}")
}

fn word(state: DiffState) -> (String, Mood) {
    let (word, mood) = match state {
        DiffState::Same => ("same", Mood::Good),
        DiffState::Missing => ("missing", Mood::Bad),
        DiffState::Extra => ("extra", Mood::Bad),
        DiffState::OtherVersion => ("other version", Mood::Bad),
        DiffState::OtherContent => ("other content", Mood::Bad),
        DiffState::Warming => ("warming", Mood::Unsure),
        DiffState::Refused => ("refused", Mood::Bad),
        DiffState::Unwanted => ("unwanted", Mood::Plain),
    };
    (word.to_owned(), mood)
}

#[cfg(test)]
mod tests {
    use tidegate_core::Timestamp;

    use super::*;

    fn of(kind: &str, name: &str, state: DiffState) -> ResourceDiff {
        ResourceDiff {
            kind: kind.to_owned(),
            name: name.to_owned(),
            state,
            intended: Some("6336208a8cb93344".to_owned()),
            envoy: None,
            detail: None,
            envoy_error: None,
            refusal: None,
        }
    }

    #[test]
    fn what_is_the_same_is_counted_and_the_rest_is_told() {
        let refused = ResourceDiff {
            envoy: Some("6da7aa132e4e2f3b".to_owned()),
            envoy_error: Some("cannot bind".to_owned()),
            refusal: Some("Error adding/updating listener(s) web: cannot bind\n".to_owned()),
            ..of("LDS", "web", DiffState::Refused)
        };
        let ejected = ResourceDiff {
            detail: Some("10.0.0.1:80 is put out by Envoy itself".to_owned()),
            ..of("EDS", "shop/v1", DiffState::Same)
        };
        let mut seen = EnvoyDiff {
            api_version: "tidegate/v1".to_owned(),
            at: Timestamp::from_millis(1),
            admin: "127.0.0.1:9901".to_owned(),
            node: "edge".to_owned(),
            version: "envoy 1.40.0".to_owned(),
            connected: true,
            same: false,
            notes: vec!["a note".to_owned()],
            resources: vec![
                of("CDS", "shop/v1", DiffState::Same),
                ejected,
                refused,
                of("RDS", "web", DiffState::Unwanted),
            ],
        };
        assert_eq!(
            screen(&seen),
            "\
edge edge (envoy 1.40.0) at 127.0.0.1:9901: the same: 1 CDS, 1 EDS; different: 1 LDS
note: a note

TYPE  NAME     STATE     PUBLISHED         ENVOY             DETAIL
EDS   shop/v1  same      6336208a8cb93344  -                 10.0.0.1:80 is put out by Envoy itself
LDS   web      refused   6336208a8cb93344  6da7aa132e4e2f3b  -
RDS   web      unwanted  6336208a8cb93344  -                 -

LDS web, Envoy over xDS: Error adding/updating listener(s) web: cannot bind

LDS web, Envoy in its configuration dump: cannot bind
"
        );
        seen.resources.truncate(1);
        seen.notes.clear();
        assert_eq!(screen(&seen), "edge edge (envoy 1.40.0) at 127.0.0.1:9901: the same: 1 CDS; different: none\n");
    }
}
