//! `status`: one screen. `ps`: the services.

use tidegate_core::Timestamp;
use tidegate_core::config::percent;
use tidegate_core::service::{Condition, ConditionKind};
use tidegate_core::status::{EdgeState, EdgeStatus, ServiceStatus, Status, VersionStatus};

use super::ask::{Api, Shown, get};
use super::draw::{Drawn, Mood, plain};
use super::{Outcome, Output, moment};

pub(super) async fn status(api: &Api, output: Output) -> Shown {
    let answer = get::<Status>(api, "/v1/status").await?;
    Ok((answer.print(output, screen), found(&answer.value)))
}

pub(super) async fn ps(api: &Api, output: Output) -> Shown {
    // The JSON of `ps` is that of the services, with their instances.
    if output == Output::Json {
        let answer = get::<tidegate_core::status::Services>(api, "/v1/services").await?;
        return Ok((answer.print(output, |_| String::new()), Outcome::Well));
    }
    let answer = get::<Status>(api, "/v1/status").await?;
    Ok((answer.print(output, |seen| services(&seen.services, seen.at)), Outcome::Well))
}

fn found(status: &Status) -> Outcome {
    if status.has_errors() || !status.synced { Outcome::ProblemFound } else { Outcome::Well }
}

fn screen(seen: &Status) -> String {
    let mut text = match (&seen.awaiting, seen.last_known_good) {
        (None, _) => String::new(),
        (Some(awaited), None) => format!("starting: waiting for {awaited}; nothing is published before\n\n"),
        (Some(awaited), Some(at)) => {
            let kept = moment::ago(seen.at, at);
            format!("starting: waiting for {awaited}; what was published until {kept} is served meanwhile\n\n")
        }
    };
    text.push_str(&providers(seen));
    text.push('\n');
    text.push_str(&edges(seen));
    text.push('\n');
    if seen.services.is_empty() && seen.awaiting.is_some() {
        text.push_str("no services are known yet\n");
    } else if seen.services.is_empty() {
        text.push_str(
            "no services: start a container with the label `tidegate.enable=true`, or write an entry into a file of \
             `providers.file.path`\n",
        );
    } else {
        text.push_str(&services(&seen.services, seen.at));
    }
    text.push('\n');
    if seen.problems.is_empty() {
        text.push_str("no problems\n");
    }
    for problem in &seen.problems {
        text.push_str(&format!("{problem}\n"));
    }
    text
}

fn providers(seen: &Status) -> String {
    let mut table = Drawn::new(&["PROVIDER", "LAST HEARD", "CONTAINERS", "ENABLED", "RECONNECTS", "REPAIRED", "STATE"]);
    for provider in &seen.providers {
        let heard = provider.last_heard.map_or_else(|| "never".to_owned(), |at| moment::ago(seen.at, at));
        let state = match (provider.problems, provider.last_heard) {
            _ if provider.stale => ("stale".to_owned(), Mood::Bad),
            (0, Some(_)) => ("ok".to_owned(), Mood::Good),
            (0, None) => ("waiting".to_owned(), Mood::Unsure),
            (n, _) => (format!("{n} problem(s)"), Mood::Bad),
        };
        table.row([
            plain(&provider.name),
            plain(heard),
            plain(provider.containers.to_string()),
            plain(provider.enabled.to_string()),
            plain(provider.reconnects.to_string()),
            plain(provider.repaired.to_string()),
            state,
        ]);
    }
    table.text()
}

fn edges(seen: &Status) -> String {
    if seen.edges.is_empty() {
        return "no Envoy is connected\n".to_owned();
    }
    let mut table = Drawn::new(&["EDGE", "GROUP", "VERSION", "CONNECTED", "CDS", "EDS", "LDS", "RDS", "ECDS", "RTDS"]);
    for edge in &seen.edges {
        let head = [
            plain(&edge.node),
            plain(edge.group.as_deref().unwrap_or("-")),
            plain(&edge.version),
            plain(moment::ago(seen.at, edge.connected_at)),
        ];
        let kinds = ["CDS", "EDS", "LDS", "RDS", "ECDS", "RTDS"].map(|kind| of_kind(edge, kind));
        table.row(head.into_iter().chain(kinds));
    }
    table.text()
}

fn of_kind(edge: &EdgeStatus, kind: &str) -> (String, Mood) {
    match edge.types.iter().find(|of| of.kind == kind).map(|of| (of.state, of.rejected.len())) {
        Some((EdgeState::Synced, _)) => ("accepted".to_owned(), Mood::Good),
        Some((EdgeState::Stale, _)) => ("stale".to_owned(), Mood::Unsure),
        Some((EdgeState::Rejected, n)) => (format!("{n} refused"), Mood::Bad),
        Some((EdgeState::Unwanted, _)) | None => plain("-"),
    }
}

fn services(services: &[ServiceStatus], at: Timestamp) -> String {
    let mut table = Drawn::new(&["SERVICE", "HOSTS", "READY", "VERSIONS", "PROBLEMS"]);
    for service in services {
        let path = if service.path == "/" { "" } else { service.path.as_str() };
        let hosts = service.hosts.iter().map(|host| format!("{host}{path}")).collect::<Vec<_>>().join(", ");
        let mood = match (service.ready, service.total) {
            (0, _) => Mood::Bad,
            (ready, total) if ready < total => Mood::Unsure,
            _ => Mood::Good,
        };
        let versions = service.versions.iter().map(share).collect::<Vec<_>>().join(", ");
        let problems = if service.problems == 0 { plain("-") } else { (service.problems.to_string(), Mood::Unsure) };
        table.row([
            plain(&service.name),
            plain(if hosts.is_empty() { "-".to_owned() } else { hosts }),
            (format!("{}/{}", service.ready, service.total), mood),
            plain(versions),
            problems,
        ]);
    }
    let conditions = services.iter().flat_map(|service| service.conditions.iter().map(move |it| (service, it)));
    table.text() + &conditions.map(|(service, condition)| kept_back(service, condition, at)).collect::<String>()
}

/// One line on a container that is kept from requests for a while.
fn kept_back(service: &ServiceStatus, condition: &Condition, at: Timestamp) -> String {
    let Condition { kind, container, id, reason, until, in_force } = condition;
    let left = moment::rough(until.since(at));
    let what = match (kind, in_force) {
        (ConditionKind::HeldBack, _) => format!("is held back for {left} at most"),
        (ConditionKind::Damped, true) => format!("is kept out for {left}"),
        (ConditionKind::Damped, false) => "flaps, but too few others would take its requests".to_owned(),
    };
    format!("{}: `{container}` ({id}) {what}: {reason}\n", service.name)
}

fn share(version: &VersionStatus) -> String {
    format!("{} {}", version.name, percent(version.weight))
}

#[cfg(test)]
mod tests {
    use tidegate_core::status::{EdgeRejection, EdgeSubscription, EdgeType, ProviderStatus, Role};
    use tidegate_core::{Code, Problem};

    use super::*;

    #[test]
    fn one_screen() {
        let at = Timestamp::from_millis(100_000);
        let version = |name: &str, role, weight, ready| VersionStatus {
            name: name.to_owned(),
            role,
            weight,
            ready,
            total: 2,
            instances: Vec::new(),
        };
        let rejected = EdgeRejection { name: "web".to_owned(), version: "v".to_owned(), message: "no".to_owned(), at };
        let kind = |kind: &str, state, rejected| EdgeType {
            kind: kind.to_owned(),
            state,
            subscribed: EdgeSubscription::Everything,
            sent_sequence: 2,
            accepted_sequence: 1,
            in_flight: false,
            synced: false,
            rejected,
        };
        let status = Status {
            api_version: "tidegate/v1".to_owned(),
            at,
            synced: true,
            awaiting: None,
            last_known_good: None,
            providers: vec![ProviderStatus {
                name: "docker".to_owned(),
                last_heard: Some(Timestamp::from_millis(97_000)),
                containers: 12,
                enabled: 4,
                problems: 0,
                stale: false,
                reconnects: 2,
                repaired: 1,
            }],
            edges: vec![EdgeStatus {
                node: "edge".to_owned(),
                cluster: "tidegate".to_owned(),
                group: None,
                version: "envoy 1.40.0".to_owned(),
                peer: None,
                connected_at: Timestamp::from_millis(40_000),
                synced: false,
                types: vec![
                    kind("CDS", EdgeState::Synced, vec![]),
                    kind("EDS", EdgeState::Stale, vec![]),
                    kind("RDS", EdgeState::Rejected, vec![rejected]),
                ],
            }],
            services: vec![ServiceStatus {
                name: "shop".to_owned(),
                hosts: vec!["shop.localhost".to_owned()],
                path: "/api".to_owned(),
                split: "rollout".to_owned(),
                ready: 3,
                total: 4,
                versions: vec![version("v1", Role::Stable, 8750, 2), version("v2", Role::Canary, 1250, 1)],
                conditions: vec![Condition {
                    kind: ConditionKind::Damped,
                    container: "shop-4".to_owned(),
                    id: "3f9c1a2b77d0".to_owned(),
                    reason: "it ended or failed its check 3 times lately".to_owned(),
                    until: Timestamp::from_millis(184_000),
                    in_force: true,
                }],
                problems: 1,
            }],
            problems: vec![Problem::error(Code::NotReady, "container shop-3", "not ready", "no traffic", "mend it")],
        };
        assert_eq!(
            screen(&status),
            "\
PROVIDER  LAST HEARD  CONTAINERS  ENABLED  RECONNECTS  REPAIRED  STATE
docker    3 s ago     12          4        2           1         ok

EDGE  GROUP  VERSION       CONNECTED  CDS       EDS    LDS  RDS        ECDS  RTDS
edge  -      envoy 1.40.0  60 s ago   accepted  stale  -    1 refused  -     -

SERVICE  HOSTS               READY  VERSIONS              PROBLEMS
shop     shop.localhost/api  3/4    v1 87.5 %, v2 12.5 %  1
shop: `shop-4` (3f9c1a2b77d0) is kept out for 84 s: it ended or failed its check 3 times lately

error[TG0210]: container shop-3: not ready
  effect: no traffic
  help: mend it
"
        );
        assert_eq!(found(&status), Outcome::ProblemFound);
    }
}
