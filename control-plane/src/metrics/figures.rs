//! The numbers that one look at the state yields. Series are bounded: what comes after the first ten thousand is summed up as
//! `other`.

use std::collections::BTreeMap;

use tidegate_core::rollout::Split;
use tidegate_core::service::{Condition, ConditionKind, InstanceView};
use tidegate_core::{Code, Severity, State, Timestamp};

use crate::api::load;

/// Series of one metric with labels of services and versions (threats T11).
const MAX_SERIES: usize = 10_000;
const OTHER: &str = "other";

/// The state in numbers.
#[derive(Debug, Default, PartialEq)]
pub struct Figures {
    pub(super) synced: bool,
    pub(super) services: i64,
    pub(super) containers: BTreeMap<String, i64>,
    pub(super) provider_age: BTreeMap<String, f64>,
    pub(super) instances: BTreeMap<(String, String, &'static str), i64>,
    /// Services and their versions, with the clusters that they are.
    pub(super) versions: Vec<load::Known>,
    pub(super) weights: BTreeMap<(String, String), i64>,
    pub(super) problems: BTreeMap<(Code, Severity), i64>,
    pub(super) policy_services: i64,
    pub(super) filter_generation: i64,
}

impl Figures {
    /// The numbers as of `now`.
    #[must_use]
    pub fn of(state: &State, now: Timestamp) -> Self {
        let mut figures = Self {
            synced: state.is_synced(),
            filter_generation: i64::try_from(state.filter_generation()).unwrap_or(i64::MAX),
            ..Self::default()
        };
        for (provider, heard) in state.providers() {
            figures.containers.insert(provider.to_string(), 0);
            if let Some(heard) = heard {
                figures.provider_age.insert(provider.to_string(), now.since(heard).as_secs_f64());
            }
        }
        for (key, _) in state.catalog().entries() {
            *figures.containers.entry(key.provider.to_string()).or_default() += 1;
        }
        for view in state.services() {
            figures.services += 1;
            figures.policy_services += i64::from(matches!(view.split, Split::Rollout { .. }));
            for (version, members) in &view.versions {
                for instance in &members.instances {
                    let key = (view.name.to_string(), version.to_string(), state_of(instance));
                    let full = figures.instances.len() >= MAX_SERIES && !figures.instances.contains_key(&key);
                    let key = if full { (OTHER.to_owned(), OTHER.to_owned(), key.2) } else { key };
                    *figures.instances.entry(key).or_default() += 1;
                }
            }
            // Shares cannot be summed up: what does not fit is left out.
            if figures.weights.len() < MAX_SERIES {
                for version in view.split.versions() {
                    let weight = i64::from(view.split.weight(version));
                    figures.weights.insert((view.name.to_string(), version.to_string()), weight);
                }
            }
        }
        // Three outcomes each. Those who come later are left out here, too.
        let mut room = MAX_SERIES / 3;
        figures.versions = load::known(state);
        for known in &mut figures.versions {
            known.versions.truncate(room);
            room -= known.versions.len();
        }
        for problem in state.problems() {
            *figures.problems.entry((problem.code, problem.severity)).or_default() += 1;
        }
        figures
    }
}

const fn state_of(instance: &InstanceView) -> &'static str {
    match (instance.terminating, instance.readiness.is_ready(), &instance.condition) {
        (Some(_), _, _) => "terminating",
        (None, false, _) => "not_ready",
        (None, true, None) => "ready",
        (None, true, Some(Condition { kind: ConditionKind::HeldBack, .. })) => "held_back",
        (None, true, Some(Condition { kind: ConditionKind::Damped, .. })) => "damped",
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::config::Config;
    use tidegate_core::instance::Update;
    use tidegate_core::{Input, ProviderName};

    use super::*;
    use crate::api::tests::container;

    #[test]
    fn series_are_bounded_and_nothing_is_lost() {
        let services = MAX_SERIES + 50;
        let all = (0..services).map(|n| container(&format!("s{n}"), &format!("c{n:05}"), "v1", 2)).collect();
        let now = Timestamp::from_millis(5_000);
        let mut state = State::new(Config::default(), [ProviderName::docker()], 0);
        state.apply(Input::Provider { provider: ProviderName::docker(), update: Update::Reset(all) }, now);
        state.settle(now);
        let figures = Figures::of(&state, now);
        assert_eq!(figures.services, i64::try_from(services).unwrap());
        assert!(figures.instances.len() <= MAX_SERIES + 1 && figures.weights.len() <= MAX_SERIES);
        assert_eq!(figures.versions.iter().map(|known| known.versions.len()).sum::<usize>(), MAX_SERIES / 3);
        assert_eq!(figures.instances.values().sum::<i64>(), figures.services);
        let other = (OTHER.to_owned(), OTHER.to_owned(), "not_ready");
        assert_eq!(figures.instances.get(&other), Some(&50));
        assert_eq!(figures.provider_age.get("docker"), Some(&0.0));
    }
}
