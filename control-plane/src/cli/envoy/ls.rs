//! `envoy ls`: each edge, how far it is with each type, and what it refused, in its own words. Nothing here says "in effect":
//! synced is what was acknowledged.

use tidegate_core::status::{EdgeRejection, EdgeState, EdgeStatus, EdgeType, Edges};

use super::TYPES;
use crate::cli::ask::{Api, Shown, get};
use crate::cli::draw::{Drawn, Mood, plain};
use crate::cli::{Outcome, Output, moment};

pub(in crate::cli) async fn ls(api: &Api, output: Output) -> Shown {
    let answer = get::<Edges>(api, "/v1/edges").await?;
    Ok((answer.print(output, screen), found(&answer.value)))
}

fn found(seen: &Edges) -> Outcome {
    if refusals(seen).next().is_some() { Outcome::ProblemFound } else { Outcome::Well }
}

fn refusals(seen: &Edges) -> impl Iterator<Item = (&EdgeStatus, &EdgeType, &EdgeRejection)> {
    seen.edges.iter().flat_map(|edge| {
        edge.types.iter().flat_map(move |of| of.rejected.iter().map(move |rejection| (edge, of, rejection)))
    })
}

fn screen(seen: &Edges) -> String {
    if seen.edges.is_empty() {
        return "no Envoy is connected: start one with `tidegate up`, or your own with the output of \
                `tidegate envoy bootstrap`\n"
            .to_owned();
    }
    let head = ["EDGE", "CLUSTER", "GROUP", "VERSION", "PEER", "CONNECTED"];
    let mut table = Drawn::new(&[head.as_slice(), &TYPES].concat());
    for edge in &seen.edges {
        let head = [
            plain(or_dash(&edge.node)),
            plain(or_dash(&edge.cluster)),
            plain(edge.group.as_deref().unwrap_or("-")),
            plain(or_dash(&edge.version)),
            plain(edge.peer.as_deref().map_or("-", or_dash)),
            plain(moment::ago(seen.at, edge.connected_at)),
        ];
        table.row(head.into_iter().chain(TYPES.map(|kind| of_kind(edge, kind))));
    }
    let mut text = table.text();
    if refusals(seen).next().is_some() {
        let mut table = Drawn::new(&["EDGE", "REFUSED", "NAME", "VERSION", "WHEN", "IN ITS OWN WORDS"]);
        for (edge, of, EdgeRejection { name, version, message, at }) in refusals(seen) {
            table.row([
                plain(&edge.node),
                (of.kind.clone(), Mood::Bad),
                plain(name),
                plain(version),
                plain(moment::ago(seen.at, *at)),
                plain(message.trim_end()),
            ]);
        }
        text.push('\n');
        text.push_str(&table.text());
    }
    text
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

fn of_kind(edge: &EdgeStatus, kind: &str) -> (String, Mood) {
    let Some(of) = edge.types.iter().find(|of| of.kind == kind) else { return plain("-") };
    match of.state {
        EdgeState::Synced => ("synced".to_owned(), Mood::Good),
        EdgeState::Stale => (of.progress().replace('_', " "), Mood::Unsure),
        EdgeState::Rejected => (format!("{} rejected", of.rejected.len()), Mood::Bad),
        EdgeState::Unwanted => plain("unwanted"),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Timestamp;
    use tidegate_core::status::EdgeSubscription;

    use super::*;

    fn edges(types: Vec<EdgeType>) -> Edges {
        let edge = EdgeStatus {
            node: "edge".to_owned(),
            cluster: String::new(),
            group: Some("inner".to_owned()),
            version: "envoy 1.40.0".to_owned(),
            peer: Some("127.0.0.1:7".to_owned()),
            connected_at: Timestamp::from_millis(40_000),
            synced: false,
            types,
        };
        Edges { api_version: "tidegate/v1".to_owned(), at: Timestamp::from_millis(100_000), edges: vec![edge] }
    }

    fn of(kind: &str, state: EdgeState, in_flight: bool, rejected: Vec<EdgeRejection>) -> EdgeType {
        EdgeType {
            kind: kind.to_owned(),
            state,
            subscribed: EdgeSubscription::Everything,
            sent_sequence: 3,
            accepted_sequence: 2,
            in_flight,
            synced: state == EdgeState::Synced,
            rejected,
        }
    }

    #[test]
    fn each_type_has_its_word_and_a_refusal_is_quoted() {
        let rejection = EdgeRejection {
            name: "web".to_owned(),
            version: "6336208a8cb93344".to_owned(),
            message: "Error adding/updating listener(s) web: cannot bind '127.0.0.1:80'\n".to_owned(),
            at: Timestamp::from_millis(95_000),
        };
        let seen = edges(vec![
            of("CDS", EdgeState::Synced, false, vec![]),
            of("EDS", EdgeState::Stale, true, vec![]),
            of("LDS", EdgeState::Rejected, false, vec![rejection]),
            of("RDS", EdgeState::Stale, false, vec![]),
            of("ECDS", EdgeState::Unwanted, false, vec![]),
        ]);
        assert_eq!(
            screen(&seen),
            "\
EDGE  CLUSTER  GROUP  VERSION       PEER         CONNECTED  CDS     EDS        LDS         RDS    ECDS      RTDS
edge  -        inner  envoy 1.40.0  127.0.0.1:7  60 s ago   synced  in flight  1 rejected  stale  unwanted  -

EDGE  REFUSED  NAME  VERSION           WHEN     IN ITS OWN WORDS
edge  LDS      web   6336208a8cb93344  5 s ago  Error adding/updating listener(s) web: cannot bind '127.0.0.1:80'
"
        );
        assert_eq!(found(&seen), Outcome::ProblemFound);
        assert_eq!(found(&edges(vec![of("CDS", EdgeState::Stale, false, vec![])])), Outcome::Well);
    }
}
