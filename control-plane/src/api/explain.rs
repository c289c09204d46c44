//! The stages of an explanation that the state does not know: whether it was committed, and what the edges said of it.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::Timestamp;
use tidegate_core::config::DEFAULT_GROUP;
use tidegate_core::explain::StageState::{Failed, Passed, Pending, Unknown};
use tidegate_core::explain::{Explanation, Part, Stage};
use tidegate_core::name::cluster_name;
use tidegate_core::status::{AcceptanceState, EdgeAcceptance};
use tidegate_xds::ResourceType;

use crate::reconcile::{Look, Publication};

/// Edges named in one stage; more are counted.
const NAMED: usize = 8;

/// What has to be asked about the parts of an explanation, taken from the state while it was at hand.
pub(super) struct Edge {
    listeners: Vec<String>,
    /// Whether there are groups of nodes beside the default one.
    grouped: bool,
    awaiting: Option<String>,
    /// When what the edges get until then was kept.
    kept_at: Option<Timestamp>,
    services: BTreeMap<String, Service>,
}

struct Service {
    published: Option<Publication>,
    /// The EDS clusters of the versions that the split names.
    clusters: Vec<String>,
    several_versions: bool,
    has_route: bool,
    /// The groups that see it.
    groups: BTreeSet<String>,
}

impl Edge {
    pub(super) fn of(look: &Look<'_>, explanation: &Explanation) -> Self {
        let groups = &look.state.config().edge.groups;
        let services = explanation.parts.iter().filter_map(|part| {
            let name = tidegate_core::ServiceName::new(part.service.as_deref()?).ok()?;
            let view = look.state.service(&name)?;
            let service = Service {
                published: look.published.get(&name).copied(),
                clusters: view.split.versions().into_iter().map(|version| cluster_name(&name, version)).collect(),
                several_versions: view.split.versions().len() > 1,
                has_route: !view.hosts.is_empty(),
                groups: groups.seeing(&name).into_iter().map(str::to_owned).collect(),
            };
            Some((name.to_string(), service))
        });
        Self {
            listeners: look.state.config().edge.listeners.iter().map(|listener| listener.name.clone()).collect(),
            grouped: !groups.is_empty(),
            awaiting: look.state.awaiting(),
            kept_at: look.state.serves_kept(),
            services: services.collect(),
        }
    }
}

/// Adds the stages, and concludes anew. `connected` are the groups of the edges that are connected; `acceptance` is asked about
/// the edges of some groups.
pub(super) fn complete(
    explanation: &mut Explanation,
    edge: &Edge,
    connected: &BTreeSet<String>,
    acceptance: impl Fn(&BTreeSet<String>, ResourceType, &str) -> Vec<EdgeAcceptance>,
) {
    for part in &mut explanation.parts {
        let Some(service) = part.service.as_deref().and_then(|name| edge.services.get(name)) else { continue };
        part.push(committed(edge, service));
        if service.published.is_none() {
            continue;
        }
        if edge.grouped {
            let seen = seen(service, connected);
            let hidden = seen.state == Failed;
            part.push(seen);
            if hidden {
                continue;
            }
        }
        for stage in accepted(part, edge, service, connected, &acceptance) {
            part.push(stage);
        }
    }
    explanation.conclude();
}

fn committed(edge: &Edge, service: &Service) -> Stage {
    match (service.published, &edge.awaiting) {
        (Some(Publication { sequence, at }), _) => {
            Stage::new("committed", Passed, Some(at), format!("published for the edges with change {sequence}"))
        }
        (None, Some(awaited)) => {
            let until = match edge.kept_at {
                None => format!("nothing is published before {awaited}"),
                Some(at) => {
                    format!(
                        "nothing of this is published before {awaited}; until then edges get what was published until {at}"
                    )
                }
            };
            Stage::new("committed", Pending, None, until)
        }
        (None, None) => Stage::new("committed", Pending, None, "it is published with the next round"),
    }
}

/// Which groups of nodes get the service, and whether any of their edges is there.
fn seen(service: &Service, connected: &BTreeSet<String>) -> Stage {
    let said = |groups: &mut dyn Iterator<Item = &String>| {
        let named = |group: &String| match group.as_str() {
            DEFAULT_GROUP => "the edges of no group".to_owned(),
            name => format!("`{name}`"),
        };
        groups.map(named).collect::<Vec<_>>().join(", ")
    };
    let all = said(&mut service.groups.iter());
    if connected.is_empty() || !connected.is_disjoint(&service.groups) {
        return Stage::new("groups", Passed, None, format!("seen by {all}"));
    }
    let there = said(&mut connected.iter());
    Stage::new(
        "groups",
        Failed,
        None,
        format!("it is seen by {all}, and of these no edge is connected, only of {there}"),
    )
}

fn accepted(
    part: &Part,
    edge: &Edge,
    service: &Service,
    connected: &BTreeSet<String>,
    acceptance: impl Fn(&BTreeSet<String>, ResourceType, &str) -> Vec<EdgeAcceptance>,
) -> Vec<Stage> {
    let mut stages = Vec::new();
    let acceptance = |resource_type, name: &str| acceptance(&service.groups, resource_type, name);
    if let Some(cluster) = part.cluster() {
        stages.push(if service.clusters.contains(&cluster) {
            stage("endpoints", &acceptance(ResourceType::Endpoint, &cluster))
        } else {
            Stage::new("endpoints", Unknown, None, "they are not published while the version gets no traffic")
        });
    }
    if service.several_versions {
        let weights = acceptance(ResourceType::Runtime, tidegate_core::compile::TIDEGATE);
        stages.push(stage("weights", &weights));
    }
    if service.has_route {
        for listener in &edge.listeners {
            let name = if edge.listeners.len() == 1 { "routes".to_owned() } else { format!("routes of {listener}") };
            let edges = acceptance(ResourceType::Route, listener);
            // The edges that see the service have other listeners.
            let elsewhere = edges.is_empty() && !connected.is_disjoint(&service.groups);
            if !elsewhere {
                stages.push(stage(&name, &edges));
            }
        }
    }
    stages
}

/// What the edges said of one resource. One refusal fails it; else one that has not answered keeps it pending.
fn stage(name: &str, edges: &[EdgeAcceptance]) -> Stage {
    let named = |edges: &[&EdgeAcceptance]| {
        let names = edges.iter().take(NAMED).map(|edge| format!("`{}`", edge.node)).collect::<Vec<_>>().join(", ");
        if edges.len() > NAMED { format!("{names} and {} more", edges.len() - NAMED) } else { names }
    };
    let those = |state: AcceptanceState| edges.iter().filter(|edge| edge.state == state).collect::<Vec<_>>();
    if edges.is_empty() {
        return Stage::new(name, Failed, None, "no Envoy is connected");
    }
    if let Some(first) = those(AcceptanceState::Rejected).first() {
        let words = first.message.as_deref().unwrap_or_default();
        return Stage::new(name, Failed, first.at, format!("edge `{}` refused them: {words}", first.node));
    }
    let held_back = those(AcceptanceState::HeldBack);
    if !held_back.is_empty() {
        let reason = format!("{} got the last accepted version: another edge refused the newest", named(&held_back));
        return Stage::new(name, Failed, None, reason);
    }
    let sent = those(AcceptanceState::Sent);
    if !sent.is_empty() {
        return Stage::new(name, Pending, None, format!("sent to {}, which has not answered yet", named(&sent)));
    }
    let not_sent = those(AcceptanceState::NotSent);
    if !not_sent.is_empty() {
        return Stage::new(
            name,
            Pending,
            None,
            format!("not sent to {} yet, which has not asked for them", named(&not_sent)),
        );
    }
    let last: Option<Timestamp> = edges.iter().filter_map(|edge| edge.at).max();
    let all = named(&edges.iter().collect::<Vec<_>>());
    Stage::new(name, Passed, last, format!("accepted by {all} (acknowledged, which is not yet in effect)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(node: &str, state: AcceptanceState) -> EdgeAcceptance {
        let message = (state == AcceptanceState::Rejected).then(|| "Sum of weights must be greater than 0".to_owned());
        let at =
            matches!(state, AcceptanceState::Accepted | AcceptanceState::Rejected).then_some(Timestamp::from_millis(7));
        EdgeAcceptance { node: node.to_owned(), state, at, message }
    }

    #[test]
    fn one_edge_that_refused_fails_the_stage_with_its_own_words() {
        let (accepted, rejected) = (edge("a", AcceptanceState::Accepted), edge("b", AcceptanceState::Rejected));
        let sent = edge("c", AcceptanceState::Sent);
        let not_sent = edge("d", AcceptanceState::NotSent);
        for (edges, state, detail) in [
            (vec![], Failed, "no Envoy is connected"),
            (vec![accepted.clone()], Passed, "accepted by `a` (acknowledged, which is not yet in effect)"),
            (vec![accepted.clone(), sent.clone()], Pending, "sent to `c`, which has not answered yet"),
            (vec![accepted.clone(), not_sent], Pending, "not sent to `d` yet, which has not asked for them"),
            (vec![sent, accepted, rejected], Failed, "edge `b` refused them: Sum of weights must be greater than 0"),
        ] {
            let stage = stage("routes", &edges);
            assert_eq!((stage.state, stage.detail.as_str()), (state, detail));
        }
    }

    #[test]
    fn a_service_that_no_connected_edge_sees_says_so() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let service = Service {
            published: None,
            clusters: Vec::new(),
            several_versions: false,
            has_route: true,
            groups: names(&["", "inner"]),
        };
        for (connected, state, detail) in [
            (names(&[]), Passed, "seen by the edges of no group, `inner`"),
            (names(&["inner", "outer"]), Passed, "seen by the edges of no group, `inner`"),
            (
                names(&["outer"]),
                Failed,
                "it is seen by the edges of no group, `inner`, and of these no edge is connected, only of `outer`",
            ),
        ] {
            let stage = seen(&service, &connected);
            assert_eq!((stage.state, stage.detail.as_str()), (state, detail));
        }
    }

    #[test]
    fn many_edges_are_counted() {
        let edges: Vec<EdgeAcceptance> = (0..20).map(|n| edge(&format!("e{n}"), AcceptanceState::Accepted)).collect();
        assert!(stage("routes", &edges).detail.contains("`e7` and 12 more"));
    }
}
