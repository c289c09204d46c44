//! The stages that the state knows, one function each.

use super::StageState::{Failed, Passed, Pending, Unknown};
use super::{Part, Stage};
use crate::config::percent;
use crate::health::Verdict;
use crate::instance::{
    CheckKind, Discovered, DockerHealth, Instance, Membership, Phase, is_entry, noun, service_subject,
};
use crate::rollout::{Split, canary_buckets};
use crate::service::{Condition, ConditionKind, InstanceView, ServiceView};
use crate::traffic::{Protocol, Retry};
use crate::{Code, Problem, ServiceName, State, VersionName};

/// What happened last, so much of it.
const EVENTS: usize = 10;

/// The stages of a service.
pub(super) fn service(state: &State, name: &ServiceName) -> Part {
    let subject = format!("service {name}");
    let members = state.catalog().members(name);
    let discovered = Stage::new(
        "discovered",
        Passed,
        members.iter().map(|(container, _)| container.hint.at).min(),
        belong(&members),
    );
    let Some(view) = state.service(name) else {
        let refused =
            members.iter().find_map(|(container, member)| state.config().ownership.refusal(container, member));
        let settled = match refused {
            Some(problem) => Stage::new("host", Failed, None, format!("{}: {}", problem.subject, told(&problem))),
            None => not_settled(state),
        };
        let stages = vec![discovered, settled];
        let (service, outcome) = (Some(name.to_string()), String::new());
        return Part { subject, service, version: None, outcome, stages, events: Vec::new() };
    };
    Part {
        subject,
        service: Some(name.to_string()),
        version: None,
        outcome: format!("it is published at {}", places(view)),
        stages: [discovered, host(view), split(state, view), traffic(state, view)]
            .into_iter()
            .chain(depends_on(state, view))
            .chain([ready(view)])
            .collect(),
        events: Vec::new(),
    }
}

/// The stages of a container, once for each of its services; first those that are not routed for what their labels say.
pub(super) fn container_with_its_services(state: &State, container: &Discovered) -> Vec<Part> {
    if container.memberships.is_empty() {
        return vec![self::container(state, container, None)];
    }
    let whole = container.subject();
    let members: Vec<String> =
        container.memberships.iter().map(|m| service_subject(&whole, m.service.as_str())).collect();
    let mut unclear: Vec<&String> = container.problems.iter().map(|problem| &problem.subject).collect();
    unclear.retain(|subject| **subject != whole && !members.contains(subject));
    unclear.dedup();
    let unclear = unclear.into_iter().map(|subject| Part {
        subject: subject.clone(),
        service: None,
        version: None,
        outcome: String::new(),
        stages: vec![discovered(container), enabled(container), labels(container, Some(subject))],
        events: Vec::new(),
    });
    let members = container.memberships.iter().map(|membership| self::container(state, container, Some(membership)));
    unclear.chain(members).collect()
}

/// The stages of a container, as a member of a service if it is one.
pub(super) fn container(state: &State, container: &Discovered, membership: Option<&Membership>) -> Part {
    let view = membership.and_then(|membership| state.service(&membership.service));
    let of_file = is_entry(&container.id);
    let whole = container.subject();
    let own = membership.map(|membership| service_subject(&whole, membership.service.as_str()));
    let mut stages = vec![discovered(container)];
    if !of_file {
        stages.extend([enabled(container), labels(container, own.as_deref())]);
    }
    if let Some(membership) = membership {
        stages.push(member(state, container, membership, view));
    }
    let instance = membership.and_then(|m| container.instances.iter().find(|i| i.service == m.service));
    let judged = instance.and_then(|instance| find(view?, instance));
    stages.push(address(container, own.as_deref(), instance));
    if !of_file {
        stages.extend([running(container), healthcheck(container)]);
    }
    stages.push(check(instance, judged));
    stages.extend(judged.and_then(|judged| judged.drained).map(|since| {
        let detail = "an operator drains it; `tidegate undrain` ends that, as does the end of this run";
        Stage::new("drain", Failed, Some(since), detail)
    }));
    let conditions = view.into_iter().flat_map(|view| &view.conditions);
    stages.extend(conditions.filter(|condition| condition.id == container.id).map(kept_back));
    let mut outcome = String::new();
    match (membership, view) {
        (Some(membership), Some(view)) => {
            stages.extend([share(state, view, &membership.version), host(view)]);
            let weight = percent(view.split.weight(&membership.version));
            outcome = format!("its version has {weight} of `{}`, published at {}", view.name, places(view));
        }
        (Some(_), None) => stages.push(not_settled(state)),
        (None, _) => {}
    }
    Part {
        subject: own.filter(|_| container.memberships.len() > 1).unwrap_or(whole),
        service: membership.map(|membership| membership.service.to_string()),
        version: membership.map(|membership| membership.version.to_string()),
        outcome,
        stages,
        events: state.journal().newest_of(&container.id, EVENTS).into_iter().cloned().collect(),
    }
}

/// What belongs to a service, counted by kind.
fn belong(members: &[(&Discovered, &Membership)]) -> String {
    let entries = members.iter().filter(|(member, _)| is_entry(&member.id)).count();
    let entries_said = format!("{entries} {}", if entries == 1 { "entry" } else { "entries" });
    match (members.len() - entries, entries) {
        (containers, 0) => format!("{containers} container(s) belong to it"),
        (0, _) => format!("{entries_said} of files belong to it"),
        (containers, _) => format!("{containers} container(s) and {entries_said} of files belong to it"),
    }
}

/// What it needs, and whether that is ready. Whether it gets traffic does not depend on it.
fn depends_on(state: &State, view: &ServiceView) -> Option<Stage> {
    let said = |name: &ServiceName| match state.service(name) {
        None => Err(format!("`{name}`, which is not known")),
        Some(needed) if needed.has_ready_instance() => Ok(format!("`{name}`, which is ready")),
        Some(needed) => Err(format!("`{name}`, which is not: {}", ready(needed).detail)),
    };
    let needed: Vec<_> = view.depends_on.iter().map(said).collect();
    if needed.is_empty() {
        return None;
    }
    let waits = needed.iter().any(Result::is_err) && !view.has_ready_instance();
    let detail = needed.into_iter().map(|said| said.unwrap_or_else(|said| said)).collect::<Vec<_>>().join("; ");
    Some(Stage::new("depends on", if waits { Pending } else { Passed }, None, detail))
}

/// How its instances are asked, and who says so.
fn traffic(state: &State, view: &ServiceView) -> Stage {
    let declared = state.config().services.get(&view.name).map(|declared| declared.traffic).unwrap_or_default();
    let members = state.config().ownership.members(state.catalog(), &view.name);
    let told_in = members.first().filter(|(oldest, _)| is_entry(&oldest.id)).map_or(" (labels)", |_| " (its file)");
    let origin = |is_declared: bool| if is_declared { " (tidegate.yaml)" } else { told_in };
    let mut protocols: Vec<String> = view.versions.values().map(|version| version.protocol.to_string()).collect();
    protocols.sort_unstable();
    protocols.dedup();
    let timeout = view.traffic.timeout.map_or_else(
        || "an answer may take its time".to_owned(),
        |timeout| format!("an answer begins within {timeout:?}{}", origin(declared.timeout.is_some())),
    );
    let retry = match view.traffic.retry {
        None | Some(Retry::Safe) => "what reached nobody is tried elsewhere, and what may be repeated".to_owned(),
        Some(Retry::Off) => format!("nothing is tried elsewhere{}", origin(declared.retry.is_some())),
        Some(Retry::All) => {
            format!("what got no answer is tried elsewhere, whatever its method{}", origin(declared.retry.is_some()))
        }
    };
    let slow = view.traffic.slow_start.map(|window| {
        format!("; a newcomer has its full share after {window:?}{}", origin(declared.slow_start.is_some()))
    });
    let verified = view.tls.as_ref().map(|tls| format!(", its certificates verified with {}", tls.ca));
    let verified = verified.filter(|_| view.versions.values().any(|version| version.protocol == Protocol::Https));
    let detail = format!(
        "{}{}; {timeout}; {retry}{}",
        protocols.join(" and "),
        verified.unwrap_or_default(),
        slow.unwrap_or_default()
    );
    Stage::new("traffic", Passed, None, detail)
}

fn discovered(container: &Discovered) -> Stage {
    let hint = &container.hint;
    if is_entry(&container.id) {
        return Stage::new("discovered", Passed, Some(hint.at), format!("read at {}", hint.action));
    }
    let found = match hint.action.as_str() {
        "list" => "found when listing".to_owned(),
        "resync" => "found when listing again".to_owned(),
        event => format!("event `{event}`"),
    };
    let took = container.observed_at.since(hint.at).as_millis();
    Stage::new("discovered", Passed, Some(hint.at), format!("{found}; its facts were read {took} ms later"))
}

fn enabled(container: &Discovered) -> Stage {
    if container.enabled {
        return Stage::new("enabled", Passed, Some(container.observed_at), "it has the label `tidegate.enable=true`");
    }
    if let Some(said) = said(container, None, &[Code::ImageLabels]) {
        return Stage::new("enabled", Failed, Some(container.observed_at), said);
    }
    let reason = container.problems.first().map_or("it is not enabled", |problem| problem.reason.as_str());
    let cure = "create it with the label `tidegate.enable=true` to have it routed";
    Stage::new("enabled", Failed, Some(container.observed_at), format!("{reason}; {cure}"))
}

fn labels(container: &Discovered, service: Option<&str>) -> Stage {
    let at = Some(container.observed_at);
    let wrong = [Code::InvalidLabel, Code::UnknownLabel, Code::LabelLimit, Code::LabelConflict, Code::LeftOut];
    match said(container, service, &wrong) {
        Some(reasons) => Stage::new("labels", Failed, at, reasons),
        None if container.enabled => Stage::new("labels", Passed, at, "they are all understood"),
        None => Stage::new("labels", Unknown, None, "they are not read while it is not enabled"),
    }
}

fn member(state: &State, container: &Discovered, membership: &Membership, view: Option<&ServiceView>) -> Stage {
    if let Some(problem) = state.config().ownership.refusal(container, membership) {
        return Stage::new("service", Failed, Some(container.observed_at), told(&problem));
    }
    let subject = container.subject();
    let dispute = view
        .into_iter()
        .flat_map(|view| &view.problems)
        .find(|problem| problem.code == Code::Disagreement && problem.subject == subject);
    match dispute {
        Some(problem) => Stage::new("service", Failed, Some(container.observed_at), told(problem)),
        None => Stage::new(
            "service",
            Passed,
            Some(container.observed_at),
            format!("version `{}` of the service `{}`", membership.version, membership.service),
        ),
    }
}

fn address(container: &Discovered, service: Option<&str>, instance: Option<&Instance>) -> Stage {
    let unclear = [Code::UnclearPort, Code::AmbiguousNetwork, Code::NoAddress];
    if let Some(reasons) = said(container, service, &unclear) {
        return Stage::new("address", Failed, Some(container.observed_at), reasons);
    }
    match instance {
        Some(instance) if is_entry(&container.id) => {
            let detail = format!("{}, as the entry says", instance.id.address);
            Stage::new("address", Passed, Some(container.observed_at), detail)
        }
        Some(instance) => {
            let detail = format!("{} on the network `{}`", instance.id.address, instance.id.network);
            Stage::new("address", Passed, Some(container.observed_at), detail)
        }
        None => {
            Stage::new("address", Unknown, None, "no address is chosen while an earlier stage fails or it does not run")
        }
    }
}

fn running(container: &Discovered) -> Stage {
    let at = Some(container.observed_at);
    match (&container.phase, container.terminating) {
        (Phase::Running, None) => Stage::new("running", Passed, at, "Docker says that it is running"),
        (Phase::Running, Some(until)) => {
            let left = until.since(container.observed_at).as_secs();
            Stage::new("running", Failed, at, format!("it was told to stop, and is given up after {left} s at most"))
        }
        (phase @ (Phase::Restarting | Phase::Created), _) => {
            Stage::new("running", Pending, at, format!("it is {phase}"))
        }
        (phase, _) => Stage::new("running", Failed, at, format!("it is {phase}")),
    }
}

fn healthcheck(container: &Discovered) -> Stage {
    let at = Some(container.observed_at);
    match container.health {
        None => Stage::new("healthcheck", Passed, None, "the container has no Docker HEALTHCHECK"),
        Some(_) if container.phase != Phase::Running => {
            Stage::new("healthcheck", Unknown, None, "Docker checks only what runs")
        }
        Some(DockerHealth::Healthy) => Stage::new("healthcheck", Passed, at, "Docker says healthy"),
        Some(DockerHealth::Starting) => Stage::new("healthcheck", Pending, at, "it has not passed yet"),
        Some(DockerHealth::Unhealthy) => Stage::new("healthcheck", Failed, at, "Docker says unhealthy"),
    }
}

fn check(instance: Option<&Instance>, judged: Option<&InstanceView>) -> Stage {
    let Some(instance) = instance else {
        return Stage::new("check", Unknown, None, "there is no address to check");
    };
    let what = match (instance.check.action(&instance.id), &instance.check.kind) {
        (Some(what), _) => what,
        (None, CheckKind::Docker) => return Stage::new("check", Passed, None, "Docker's HEALTHCHECK alone decides"),
        (None, _) => return Stage::new("check", Passed, None, no_check(instance)),
    };
    let Some(judged) = judged else {
        return Stage::new("check", Unknown, None, format!("{what}: an earlier stage hides its verdict"));
    };
    match &judged.verdict {
        None => Stage::new("check", Pending, None, format!("{what}: none has ended yet")),
        Some(verdict) => {
            let after = verdict.since.since(judged.first_seen).as_millis();
            let state = match verdict {
                Verdict { passing: true, .. } => Passed,
                Verdict { starting: true, .. } => Pending,
                Verdict { .. } => Failed,
            };
            let noun = noun(&instance.id.container);
            let detail = format!("{what}: {} ({after} ms after the {noun} was first seen)", verdict.detail);
            Stage::new("check", state, Some(verdict.since), detail)
        }
    }
}

/// Only what is kept back has this stage.
fn kept_back(condition: &Condition) -> Stage {
    let Condition { kind, reason, until, in_force, .. } = condition;
    let (name, ends) = match kind {
        ConditionKind::HeldBack => ("hold-back", format!("it ends with the last acknowledgement, or at {until}")),
        ConditionKind::Damped => ("damping", format!("it ends at {until}, later if it goes on")),
    };
    if *in_force {
        return Stage::new(name, Pending, None, format!("{reason}; {ends}"));
    }
    let all_the_same = "it gets its traffic all the same, because too few others would take it";
    Stage::new(name, Passed, None, format!("{reason}; {all_the_same}"))
}

fn no_check(instance: &Instance) -> &'static str {
    if is_entry(&instance.id.container) { "the entry asks for no check" } else { "the labels ask for no check" }
}

/// The share of one version.
fn share(state: &State, view: &ServiceView, version: &VersionName) -> Stage {
    let weight = view.split.weight(version);
    let share = percent(weight);
    let detail = match &view.split {
        Split::Single { version: only } if only == version => "it is the only version with traffic: 100 %".to_owned(),
        Split::Pool { weights } if weights.contains_key(version) => {
            format!("{share}, by its number of ready instances among {} versions", weights.len())
        }
        Split::Rollout { canary, share: given, .. } if canary.version == *version => {
            let buckets = canary_buckets(given.weight);
            let rollout = rollout(state, view);
            format!("it is the canary with {share}: buckets [{}, {}){rollout}", buckets.start, buckets.end)
        }
        Split::Rollout { stable, share: given, .. } if stable == version => {
            format!("it is the stable version with {share}: buckets [0, {})", canary_buckets(given.weight).start)
        }
        Split::Single { .. } | Split::Pool { .. } | Split::Rollout { .. } => {
            let named = view.split.versions().iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and ");
            format!("version `{version}` gets no traffic: the configuration sends all of it to {named}")
        }
    };
    let state = if weight > 0 { Passed } else { Failed };
    Stage::new("split", state, None, detail)
}

/// How far the rollout of a service is, and why.
fn rollout(state: &State, view: &ServiceView) -> String {
    let known = state.trials().get(&view.name);
    known.map_or_else(String::new, |(plan, record)| {
        format!("; {}: {}", record.rollout.phase().as_str(), record.rollout.reason(plan))
    })
}

/// How a service's traffic is split.
fn split(state: &State, view: &ServiceView) -> Stage {
    let shares: Vec<String> = view
        .split
        .versions()
        .into_iter()
        .map(|version| format!("{version} {}", percent(view.split.weight(version))))
        .collect();
    let kind = match &view.split {
        Split::Single { .. } => "one version".to_owned(),
        Split::Pool { .. } => "a pool, by ready instances".to_owned(),
        Split::Rollout { share, .. } => {
            let buckets = canary_buckets(share.weight);
            let rollout = rollout(state, view);
            format!("a rollout, the canary has the buckets [{}, {}){rollout}", buckets.start, buckets.end)
        }
    };
    let unknown = view.problems.iter().find(|problem| problem.code == Code::UnknownReference);
    match unknown {
        Some(problem) => {
            Stage::new("split", Passed, None, format!("{} ({kind}), but {}", shares.join(", "), problem.reason))
        }
        None => Stage::new("split", Passed, None, format!("{} ({kind})", shares.join(", "))),
    }
}

/// Whether a route at the edge leads to the service.
fn host(view: &ServiceView) -> Stage {
    let lost = view.problems.iter().find(|problem| matches!(problem.code, Code::HostClaimed | Code::NoHost));
    match (view.hosts.is_empty(), lost) {
        (true, Some(problem)) => Stage::new("host", Failed, None, told(problem)),
        (true, None) => Stage::new("host", Failed, None, "no host is its own"),
        (false, Some(problem)) => Stage::new("host", Passed, None, format!("{}, but {}", places(view), problem.reason)),
        (false, None) => Stage::new("host", Passed, None, format!("{} is its own", places(view))),
    }
}

fn ready(view: &ServiceView) -> Stage {
    let named = view.split.versions();
    let instances = || named.iter().filter_map(|version| view.versions.get(*version)).flat_map(|v| &v.instances);
    let (serving, total) = (instances().filter(|instance| instance.is_serving()).count(), instances().count());
    if let Some(since) = instances().filter(|instance| instance.is_serving()).map(|instance| instance.since).min() {
        return Stage::new("ready", Passed, Some(since), format!("{serving} of {total} instance(s) ready"));
    }
    match instances().next() {
        Some(first) => {
            let reason = if first.terminating.is_some() {
                "it was told to stop".to_owned()
            } else if let (true, Some(condition)) = (first.readiness.is_ready(), &first.condition) {
                condition.reason.clone()
            } else {
                first.readiness.to_string()
            };
            let detail = format!("0 of {total} instance(s) ready; `{}`: {reason}", first.container);
            Stage::new("ready", Failed, Some(first.since), detail)
        }
        None => Stage::new("ready", Failed, None, "nothing of the versions that get traffic is running"),
    }
}

fn not_settled(state: &State) -> Stage {
    let detail = state.awaiting().map_or_else(
        || "this was found a moment ago".to_owned(),
        |awaited| format!("nothing is decided before {awaited}"),
    );
    Stage::new("settled", Pending, None, detail)
}

fn find<'a>(view: &'a ServiceView, instance: &Instance) -> Option<&'a InstanceView> {
    view.versions.get(&instance.version)?.instances.iter().find(|judged| judged.id == instance.id)
}

/// Where clients reach a service.
fn places(view: &ServiceView) -> String {
    if view.hosts.is_empty() {
        return "no host".to_owned();
    }
    let path = if view.path == "/" { "" } else { view.path.as_str() };
    view.hosts.iter().map(|host| format!("`{host}{path}`")).collect::<Vec<_>>().join(", ")
}

/// The reasons of a container's problems of these kinds; where one of its services is meant, those of that and of the whole.
fn said(container: &Discovered, service: Option<&str>, codes: &[Code]) -> Option<String> {
    let whole = container.subject();
    let concerns =
        |problem: &&Problem| service.is_none_or(|service| problem.subject == service || problem.subject == whole);
    let problems = container.problems.iter().filter(|problem| codes.contains(&problem.code)).filter(concerns);
    let reasons: Vec<String> = problems.map(told).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn told(problem: &Problem) -> String {
    if problem.cure.is_empty() {
        return format!("{} [{}]", problem.reason, problem.code);
    }
    format!("{} [{}]: {}", problem.reason, problem.code, problem.cure)
}
