//! The canary that containers declare by a label: which version it is, beside which stable one, and why there is none although a
//! label says so. The configuration's word holds against a label's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Canary, ServiceConfig, percent};
use crate::instance::{Discovered, Membership, Phase, is_entry, noun};
use crate::{Code, Problem, ServiceName, VersionName};

/// The label.
const LABEL: &str = "tidegate.canary.weight";

/// What follows from the labels of a service's containers.
#[derive(Debug, Default)]
pub(super) struct Labelled {
    /// The stable version, and the canary.
    pub(super) canary: Option<(VersionName, Arc<Canary>)>,
    /// Why there is none, or what else is wrong.
    pub(super) problem: Option<Problem>,
}

impl Labelled {
    const fn without(problem: Problem) -> Self {
        Self { canary: None, problem: Some(problem) }
    }
}

/// `members` are the containers that agree with their service, the oldest first.
pub(super) fn labelled(
    name: &ServiceName,
    members: &[(&Discovered, &Membership)],
    declared: Option<&ServiceConfig>,
) -> Labelled {
    // The oldest of each version that says it.
    let mut canaries: BTreeMap<&VersionName, (u32, &Discovered)> = BTreeMap::new();
    for (container, membership) in members {
        if let Some(weight) = membership.canary_weight {
            canaries.entry(&membership.version).or_insert((weight, container));
        }
    }
    let Some((version, (weight, eldest))) = canaries.iter().next().map(|(version, said)| (*version, *said)) else {
        return Labelled::default();
    };
    let idle = |reason: String, cure: String| {
        Problem::error(Code::IdleCanaryLabel, format!("service {name}"), reason, "it has no effect", cure)
    };
    let said = if is_entry(&eldest.id) {
        format!("the entry `{}` says `canary.weight`", eldest.name)
    } else {
        format!("the container `{}` has the label `{LABEL}`", eldest.name)
    };
    let stable = declared.and_then(|declared| declared.stable.as_ref());
    if let Some(canary) = declared.and_then(|declared| declared.canary.as_ref()) {
        let reason = format!("{said}, and the configuration declares the canary {:?}", canary.version.as_str());
        let cure = format!("remove the label, or `canary` from `services.{name}` of tidegate.yaml");
        return Labelled::without(idle(reason, cure).notice());
    }
    if canaries.len() > 1 {
        let versions = canaries.keys().map(|version| format!("`{version}`")).collect::<Vec<_>>().join(" and ");
        let reason = format!("{versions} are canaries by the label `{LABEL}`, and a service has one at a time");
        return Labelled::without(
            idle(reason, "leave the label on the containers of one version".to_owned()).warning(),
        );
    }
    if stable == Some(version) {
        let problem = idle(
            format!("{said}, and its version `{version}` is the stable one by the configuration"),
            "none needed once it was a canary; leave the label out when its containers are made anew".to_owned(),
        );
        return Labelled::without(problem.notice());
    }
    let others = |of: &dyn Fn(&Discovered) -> bool| -> BTreeSet<&VersionName> {
        let others = members.iter().filter(|(container, membership)| membership.version != *version && of(container));
        others.map(|(_, membership)| &membership.version).collect()
    };
    // What a deployment left behind is no candidate, unless it is all there is.
    let runs = |container: &Discovered| !matches!(container.phase, Phase::Created | Phase::Exited { .. });
    let running = others(&runs);
    let others = if running.is_empty() { others(&|_| true) } else { running };
    let stable = match (stable, others.iter().collect::<Vec<_>>().as_slice()) {
        (Some(stable), _) => stable.clone(),
        (None, [only]) => (**only).clone(),
        (None, []) => {
            let problem = idle(
                format!("{said}, and there is no version beside `{version}`"),
                "none needed once it was a canary; start containers of the version that it is compared with".to_owned(),
            );
            return Labelled::without(problem.notice());
        }
        (None, several) => {
            let several = several.iter().map(|other| format!("`{other}`")).collect::<Vec<_>>().join(" and ");
            let problem = idle(
                format!("{said}, and which version is the stable one is not clear: there are {several}"),
                format!("declare `stable` in `services.{name}` of tidegate.yaml, or stop all but one of them"),
            );
            return Labelled::without(problem.warning());
        }
    };
    let other = members
        .iter()
        .find(|(_, membership)| membership.version == *version && membership.canary_weight != Some(weight))
        .map(|(other, membership)| (other, membership.canary_weight.map_or("nothing".to_owned(), percent)));
    let problem = other.map(|(other, says)| {
        Problem::error(
            Code::SettingsDiffer,
            format!("service {name} version {version}"),
            format!("{said} with {}, and the {} `{}` says {says}", percent(weight), noun(&other.id), other.name),
            format!("what `{}` says holds while it exists", eldest.name),
            "none needed while one replaces the other; else give all of the version the same",
        )
        .notice()
    });
    Labelled { canary: Some((stable, Arc::new(Canary::at(version.clone(), weight)))), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::testing;

    /// What containers of these versions with these labels come to: what the canary gets, and the problem.
    fn come_to(containers: &[(&str, Option<&str>)], file: &str) -> (Option<String>, Option<String>) {
        let discovered: Vec<Discovered> = containers
            .iter()
            .zip(1_u8..)
            .map(|((version, weight), n)| {
                let mut container = testing::shop(&format!("shop-{n}"), n, version);
                container.labels.extend(weight.map(|weight| (LABEL.to_owned(), weight.to_owned())));
                testing::discovered(&container)
            })
            .collect();
        let members: Vec<_> = discovered.iter().map(|container| (container, &container.memberships[0])).collect();
        let name = ServiceName::new("shop").unwrap();
        let Config { services, .. } = testing::config(file);
        let Labelled { canary, problem } = labelled(&name, &members, services.get(&name));
        let canary = canary.map(|(stable, canary)| {
            assert_eq!(*canary, Canary::at(canary.version.clone(), crate::rollout::Share::first(&canary).weight));
            format!("{stable} {} {}", canary.version, crate::rollout::Share::first(&canary).weight)
        });
        (canary, problem.map(|problem| format!("{} {} | {}", problem.code.as_str(), problem.reason, problem.cure)))
    }

    #[test]
    fn a_label_makes_a_canary_where_it_is_clear_beside_what() {
        let ten = Some("10");
        let declared = "services: { shop: { stable: { version: v1 } } }";
        for (containers, file, expected) in [
            (&[("v1", None), ("v2", ten)][..], "", "v1 v2 1000"),
            (&[("v1", None), ("v1", None), ("v2", Some("0.01"))], "", "v1 v2 1"),
            (&[("v1", None), ("v2", ten), ("v3", None)], declared, "v1 v2 1000"),
            (&[("v2", Some("100"))], declared, "v1 v2 10000"),
        ] {
            assert_eq!(come_to(containers, file), (Some(expected.to_owned()), None), "{containers:?} {file}");
        }
        assert_eq!(come_to(&[("v1", None), ("v2", None)], ""), (None, None));
    }

    #[test]
    fn where_it_makes_none_it_is_said_why() {
        let ten = Some("10");
        let label = "the container `shop-2` has the label `tidegate.canary.weight`";
        for (containers, file, said) in [
            (
                &[("v1", None), ("v2", ten)][..],
                "services: { shop: { stable: { version: v1 }, canary: { version: v3, weight: 1 } } }",
                format!("{label}, and the configuration declares the canary \"v3\""),
            ),
            (
                &[("v1", None), ("v2", ten), ("v3", ten)],
                "",
                "`v2` and `v3` are canaries by the label `tidegate.canary.weight`, and a service has one at a time"
                    .to_owned(),
            ),
            (
                &[("v1", None), ("v2", ten)],
                "services: { shop: { stable: { version: v2 } } }",
                format!("{label}, and its version `v2` is the stable one by the configuration"),
            ),
            (&[("v2", None), ("v2", ten)], "", format!("{label}, and there is no version beside `v2`")),
            (
                &[("v1", None), ("v2", ten), ("v3", None)],
                "",
                format!("{label}, and which version is the stable one is not clear: there are `v1` and `v3`"),
            ),
        ] {
            let (canary, problem) = come_to(containers, file);
            let problem = problem.unwrap_or_default();
            assert!(canary.is_none() && problem.starts_with(&format!("TG0208 {said}")), "{said}: {problem}");
        }
    }

    #[test]
    fn what_has_ended_is_no_candidate_while_another_runs() {
        let exited = Phase::Exited { code: 0, oom: false };
        let mut discovered = ["v0", "v1", "v2"].map(|version| testing::discovered(&testing::shop("shop", 1, version)));
        discovered[2].memberships[0].canary_weight = Some(1_000);
        let name = ServiceName::new("shop").unwrap();
        for (ended, stable) in [(&[][..], None), (&[0], Some("v1")), (&[1], Some("v0")), (&[0, 1], None)] {
            for (place, container) in discovered.iter_mut().enumerate() {
                container.phase = if ended.contains(&place) { exited.clone() } else { Phase::Running };
            }
            let members: Vec<_> = discovered.iter().map(|container| (container, &container.memberships[0])).collect();
            let canary = labelled(&name, &members, None).canary;
            assert_eq!(canary.as_ref().map(|(stable, _)| stable.as_str()), stable, "{ended:?}");
        }
    }

    #[test]
    fn of_a_version_whose_containers_differ_the_oldest_counts() {
        for (other, says) in [(Some("20"), "20 %"), (None, "nothing")] {
            let (canary, problem) = come_to(&[("v1", None), ("v2", Some("10")), ("v2", other)], "");
            assert_eq!(canary.as_deref(), Some("v1 v2 1000"));
            let said = format!(
                "TG0207 the container `shop-2` has the label `tidegate.canary.weight` with 10 %, and the container `shop-3` \
                 says {says}"
            );
            assert!(problem.as_deref().is_some_and(|problem| problem.starts_with(&said)), "{problem:?}");
        }
    }
}
