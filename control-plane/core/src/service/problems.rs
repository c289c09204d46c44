//! What is wrong with a service, told by its view and by what its containers say.

use super::{Condition, ConditionKind, ServiceView};
use crate::config::ServiceConfig;
use crate::config::canary::WhenNotReady;
use crate::health::Readiness;
use crate::instance::{Claim, Discovered, Membership, Phase, is_entry, noun, subject};
use crate::rollout::Split;
use crate::traffic::Protocol;
use crate::{Code, Problem, ServiceName, VersionName};

pub(super) fn flapping(condition: &Condition) -> Option<Problem> {
    if condition.kind != ConditionKind::Damped {
        return None;
    }
    let effect = if condition.in_force {
        format!("it gets no traffic until {}, and longer if it goes on", condition.until)
    } else {
        "it gets its traffic all the same: too few others would take it".to_owned()
    };
    let problem = Problem::error(
        Code::Flapping,
        subject(&condition.container, &condition.id),
        &condition.reason,
        effect,
        "see its log for why it ends, or make its check less strict with `check.fall` and `check.timeout`",
    );
    Some(problem.warning())
}

pub(super) fn disagreement(
    name: &ServiceName,
    container: &Discovered,
    membership: &Membership,
    claim: &Claim,
    eldest: &Discovered,
) -> Problem {
    let say = |claim: &Claim| format!("[{}]{}", claim.hosts.join(", "), claim.path);
    Problem::error(
        Code::Disagreement,
        container.subject(),
        format!(
            "it claims {} for the service `{name}`, whose oldest {} `{}` claims {}",
            say(&membership.claim),
            noun(&eldest.id),
            eldest.name,
            say(claim)
        ),
        format!("this {} is not routed while that one exists; others are unaffected", noun(&container.id)),
        if is_entry(&container.id) {
            "give all entries and containers of a service the same hosts and path, or this one another `service`"
        } else {
            "give all containers of a service the same `tidegate.host` and `tidegate.path`, or this one another \
             `tidegate.service`"
        },
    )
}

pub(super) fn other_protocol(
    name: &ServiceName,
    container: &Discovered,
    membership: &Membership,
    protocol: Protocol,
) -> Problem {
    let Membership { version, protocol: own, .. } = membership;
    Problem::error(
        Code::Disagreement,
        container.subject(),
        format!("it speaks {own}, and the oldest of the version `{version}` of the service `{name}` speaks {protocol}"),
        format!("this {} is not routed while that one exists; others are unaffected", noun(&container.id)),
        "give all of a version the same protocol, or this one another version",
    )
}

/// Those who want their service's requests handled as the oldest of them does not.
pub(super) fn settings_differ(
    name: &ServiceName,
    members: &[(&Discovered, &Membership)],
    declared: Option<&ServiceConfig>,
) -> Option<Problem> {
    let declared = declared.map(|declared| declared.traffic).unwrap_or_default();
    let (eldest, own) = members.first()?;
    let differ = |(_, membership): &&(&Discovered, &Membership)| {
        membership.claim == own.claim && declared.or(membership.traffic) != declared.or(own.traffic)
    };
    let (other, wanted) = members.iter().find(differ)?;
    let problem = Problem::error(
        Code::SettingsDiffer,
        format!("service {name}"),
        format!(
            "its oldest {} `{}` says {}, and `{}` says {}",
            noun(&eldest.id),
            eldest.name,
            own.traffic,
            other.name,
            wanted.traffic
        ),
        format!("what `{}` says holds while it exists", eldest.name),
        format!("none needed while one replaces the other; else give all the same, or say it in `services.{name}`"),
    );
    Some(problem.notice())
}

pub(super) fn no_host(view: &ServiceView, claim: &Claim, eldest: &Discovered) -> Option<Problem> {
    let name = &view.name;
    let (reason, cure) = if is_entry(&eldest.id) {
        ("its entries have no `host`", format!("add a host such as `host: {name}.localhost` to each"))
    } else {
        (
            "its containers have no label `tidegate.host`",
            format!("add a label such as `tidegate.host={name}.localhost`"),
        )
    };
    let problem =
        Problem::error(Code::NoHost, format!("service {name}"), reason, "no route at the edge leads to it", cure);
    claim.hosts.is_empty().then(|| problem.warning())
}

pub(super) fn routing_problems(view: &ServiceView) -> Vec<Problem> {
    let name = &view.name;
    let mut problems = Vec::new();
    let named = view.split.versions();
    for version in &named {
        if !view.versions.contains_key(*version) {
            let known = view.versions.keys().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", ");
            let role = match &view.split {
                Split::Rollout { canary, .. } if canary.version == **version => "canary",
                _ => "stable",
            };
            let spills =
                matches!(&view.split, Split::Rollout { canary, .. } if canary.when_not_ready == WhenNotReady::Stable);
            let effect = if role == "canary" && spills {
                "its share is served by the stable version"
            } else {
                "its share is answered with 503"
            };
            let cure =
                crate::suggest::did_you_mean(version.as_str(), view.versions.keys().map(VersionName::as_str), || {
                    format!("start containers with `tidegate.version={version}`; there are {known}")
                });
            problems.push(
                Problem::error(
                    Code::UnknownReference,
                    format!("service {name}"),
                    format!("the configuration names {version:?} as its {role} version, which no container has"),
                    effect,
                    cure,
                )
                .warning(),
            );
        }
    }
    for (version, members) in &view.versions {
        if !named.contains(&version) && !members.instances.is_empty() {
            let told = named.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(" and ");
            problems.push(
                Problem::error(
                    Code::Unrouted,
                    format!("service {name} version {version}"),
                    format!(
                        "it has {} instance(s), but the configuration sends all traffic to {told}",
                        members.instances.len()
                    ),
                    "it gets no traffic",
                    format!("name it in `services.{name}` of tidegate.yaml, or stop its containers"),
                )
                .notice(),
            );
        }
    }
    problems
}

pub(super) fn readiness_problems(view: &ServiceView) -> Vec<Problem> {
    let name = &view.name;
    let mut problems = Vec::new();
    for instance in view.versions.values().flat_map(|version| &version.instances) {
        if let (Readiness::NotReady { reason }, None) = (&instance.readiness, instance.terminating)
            && matches!(instance.phase, Phase::Running)
            && instance.verdict.as_ref().is_none_or(|verdict| !verdict.starting)
        {
            problems.push(
                Problem::error(
                    Code::NotReady,
                    subject(&instance.container, &instance.id.container),
                    format!("not ready: {reason} at {}", instance.id.address),
                    "it gets no traffic until its check passes",
                    if is_entry(&instance.id.container) {
                        "see that it listens there, or mend the `address` or `check` of its entry"
                    } else {
                        "see that it listens on that port on all its addresses, or set `tidegate.port` and \
                         `tidegate.check.*`"
                    },
                )
                .warning(),
            );
        }
    }
    if let (Split::Rollout { canary, .. }, Some((ready @ 1.., needed))) = (&view.split, view.below_min_ready()) {
        let effect = match canary.when_not_ready {
            WhenNotReady::Stable => "it gets nothing: its share is served by the stable version",
            WhenNotReady::Error => "it gets nothing: its share is answered with 503",
        };
        let problem = Problem::error(
            Code::NotReady,
            format!("service {name} version {}", canary.version),
            format!("{ready} of its instances are ready, and `minReady` asks for {needed}"),
            effect,
            "start more of them, or lower `minReady`",
        );
        problems.push(problem.warning());
    }
    let last = view.versions.values().flat_map(|version| &version.instances).filter(|i| i.serves_as_last).count();
    if !view.has_ready_instance() || last > 0 {
        problems.push(Problem::error(
            Code::NoReadyInstance,
            format!("service {name}"),
            "none of its instances is ready",
            match last {
                0 => "its clients get 503 with `x-tidegate-reason`".to_owned(),
                last => format!("the {last} that were ready last are asked all the same, as `whenNoneReady` says"),
            },
            format!("see `tidegate explain {name}` for each instance's reason"),
        ));
    }
    problems
}
