//! What a changed configuration would do to the rollouts, before it does it: [`forecast`] compares what is in force with what a file
//! declares, and counts who would move. Pure; nothing is changed by looking.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::config::canary::Step;
use crate::config::{Canary, Config, ServiceConfig, WHOLE, percent};
use crate::rollout::{Origin, Phase, Plan};
use crate::status::API_VERSION;
use crate::{ServiceName, State, Timestamp, VersionName};

/// What is in force, as far as a change of the configuration concerns it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InForce {
    /// [`API_VERSION`].
    pub api_version: String,
    /// When this was looked at.
    pub at: Timestamp,
    /// Every service that is declared, or has containers or entries.
    pub services: BTreeMap<ServiceName, ServiceInForce>,
}

/// What is in force of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInForce {
    /// The stable version that the configuration declares.
    pub stable: Option<VersionName>,
    /// Its rollout, whoever declared it.
    pub trial: Option<Trial>,
    /// How many instances each version has.
    pub versions: BTreeMap<VersionName, u32>,
}

/// A rollout that is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// What it follows.
    pub plan: Plan,
    /// The canary's share now, in basis points.
    pub weight: u32,
    /// Whether it was aborted: the canary gets nothing any more.
    pub aborted: bool,
}

/// What a file would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// [`API_VERSION`].
    pub api_version: String,
    /// To each service that is declared now or by the file, or has a rollout.
    pub services: Vec<Foreseen>,
}

/// What a file would do to one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreseen {
    /// Which.
    pub service: ServiceName,
    /// What happens.
    pub change: Change,
    /// The same for people.
    pub says: String,
    /// The canary's share now, in basis points.
    pub from: u32,
    /// The share of the canary, the file's, once the change is in force and its version is ready.
    pub to: u32,
    /// Clients that would get another version than they do now, at least, in basis points of all.
    pub moved: u32,
    /// What else is worth knowing before.
    pub warnings: Vec<String>,
}

/// What happens to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Nothing.
    None,
    /// A rollout begins.
    Begins,
    /// Another version takes the canary's place.
    Supersedes,
    /// The same versions, by another declaration: it begins at its first step.
    Restarts,
    /// The canary becomes the stable version.
    Promotes,
    /// The rollout ends, and its clients go back.
    Ends,
    /// Another stable version, and no canary before or after.
    Switches,
}

impl InForce {
    /// What is in force as of `now`.
    #[must_use]
    pub fn of(state: &State, now: Timestamp) -> Self {
        let mut services: BTreeMap<ServiceName, ServiceInForce> = BTreeMap::new();
        for view in state.services() {
            let versions = view.versions.iter().map(|(name, version)| (name.clone(), version.census().instances));
            services.entry(view.name.clone()).or_default().versions = versions.collect();
        }
        for (service, declared) in &state.config().services {
            services.entry(service.clone()).or_default().stable.clone_from(&declared.stable);
        }
        for (service, known) in &mut services {
            known.trial = state.trials().get(service).map(|(plan, record)| Trial {
                plan: plan.clone(),
                weight: record.rollout.share(plan).weight,
                aborted: matches!(record.rollout.phase(), Phase::Aborted { .. }),
            });
        }
        Self { api_version: API_VERSION.to_owned(), at: now, services }
    }
}

/// What `config` would do, once in force.
#[must_use]
pub fn forecast(now: &InForce, config: &Config) -> Forecast {
    let declared = now.services.iter().filter(|(_, known)| known.stable.is_some() || known.trial.is_some());
    let names: BTreeSet<&ServiceName> = declared.map(|(name, _)| name).chain(config.services.keys()).collect();
    let (unknown, undeclared) = (ServiceInForce::default(), ServiceConfig::default());
    let services = names.into_iter().map(|name| {
        let (known, file) = (now.services.get(name), config.services.get(name));
        foresee(name, known.unwrap_or(&unknown), file.unwrap_or(&undeclared))
    });
    Forecast { api_version: API_VERSION.to_owned(), services: services.collect() }
}

fn foresee(service: &ServiceName, known: &ServiceInForce, file: &ServiceConfig) -> Foreseen {
    let from = known.trial.as_ref().map_or(0, |trial| trial.weight);
    let next = file.stable.clone().zip(file.canary.clone());
    let next = next.map(|(stable, canary)| Plan { stable, canary, origin: Origin::File });
    let (change, says, to, moved) = match (&known.trial, &next) {
        (None, None) => switches(known, file),
        (None, Some(next)) => {
            let to = first(next);
            let says = format!("{} begins at {} beside {}", next.canary.version, percent(to), next.stable);
            let moved = if known.stable.as_ref() == Some(&next.stable) { to } else { 0 };
            (Change::Begins, says, to, moved)
        }
        (Some(trial), None) => without(trial, file),
        (Some(trial), Some(next)) if trial.plan.generation() == next.generation() => {
            let how = if trial.aborted { "stays aborted" } else { "goes on" };
            (Change::None, format!("{} {how} at {}", next.canary.version, percent(from)), from, 0)
        }
        (Some(trial), Some(next)) => instead(trial, next),
    };
    let mut warnings = Vec::new();
    if let Some(next) = next.filter(|_| change != Change::None) {
        warnings = warnings_of(&next, known);
    }
    Foreseen { service: service.clone(), change, says, from, to, moved, warnings }
}

/// No rollout before and after.
fn switches(known: &ServiceInForce, file: &ServiceConfig) -> (Change, String, u32, u32) {
    match (&known.stable, &file.stable) {
        (before, after) if before == after => (Change::None, "nothing changes".to_owned(), 0, 0),
        (Some(before), Some(after)) => {
            (Change::Switches, format!("all requests go to {after} instead of {before} at once"), 0, WHOLE)
        }
        (_, Some(after)) => {
            let ready = known.versions.iter().filter(|(version, instances)| *version != after && **instances > 0);
            let others = ready.map(|(version, _)| version.as_str()).collect::<Vec<_>>();
            let says = if others.is_empty() {
                format!("all requests go to {after}, as before")
            } else {
                format!("the pool ends: all requests go to {after}, and none to {}", others.join(", "))
            };
            (Change::Switches, says, 0, 0)
        }
        (before, None) => {
            let before = before.as_ref().map_or("", VersionName::as_str);
            (Change::Switches, format!("a pool: each version gets its share, not {before} alone"), 0, 0)
        }
    }
}

/// The file declares no canary, and one is in force.
fn without(trial: &Trial, file: &ServiceConfig) -> (Change, String, u32, u32) {
    let Trial { plan, weight, .. } = trial;
    let version = &plan.canary.version;
    if file.stable.as_ref() == Some(version) {
        let says =
            format!("{version} becomes stable: it gets everything, {} more", percent(WHOLE.saturating_sub(*weight)));
        return (Change::Promotes, says, WHOLE, WHOLE.saturating_sub(*weight));
    }
    let by = match plan.origin {
        Origin::File => {
            let stable = file.stable.as_ref();
            let rest = stable.map_or("what the pool gives them".to_owned(), |stable| stable.to_string());
            let says = format!("{version} ends: its {} return to {rest}", clients(*weight));
            let moved = if stable.is_none_or(|stable| *stable == plan.stable) { *weight } else { WHOLE };
            return (Change::Ends, says, 0, moved);
        }
        Origin::Operator => "an operator",
        Origin::Label => "a label",
    };
    let says = format!("{version}, declared by {by}, goes on at {}", percent(*weight));
    match &file.stable {
        Some(stable) if *stable != plan.stable => {
            let says = format!("{version}, declared by {by}, begins anew beside {stable} instead of {}", plan.stable);
            (Change::Restarts, says, first(plan), WHOLE.saturating_sub(*weight))
        }
        _ => (Change::None, says, *weight, 0),
    }
}

/// The file declares another rollout than the one in force.
fn instead(trial: &Trial, next: &Plan) -> (Change, String, u32, u32) {
    let Trial { plan: last, weight: from, .. } = trial;
    let (from, to) = (*from, first(next));
    let (old, new) = (&last.canary.version, &next.canary.version);
    if next.stable != last.stable {
        let (change, promoted) = if next.stable == *old {
            (Change::Promotes, format!("{old} becomes stable, and "))
        } else {
            (Change::Supersedes, format!("{} becomes stable in place of {}, and ", next.stable, last.stable))
        };
        let says = format!("{promoted}{new} begins at {}", percent(to));
        let moved = match new == old {
            true => WHOLE - from.min(to),
            false if next.stable == *old => WHOLE.saturating_sub(from),
            false => WHOLE,
        };
        return (change, says, to, moved);
    }
    if old != new {
        let says = format!(
            "{new} takes the place of {old}, which gets nothing first: its {} return to {}; then {new} begins at {}",
            clients(from),
            last.stable,
            percent(to)
        );
        return (Change::Supersedes, says, to, from.max(to));
    }
    let anew = "begins again at its first step";
    if is_dealt_anew(&last.canary, &next.canary) {
        let says = format!("{new} {anew}, {} → {}, and its clients are others", percent(from), percent(to));
        // Of those that had it, the next share keeps only as many as chance does.
        return (Change::Restarts, says, to, from.max(to) - from * to / WHOLE);
    }
    let who = match (from, to) {
        (from, to) if to < from => format!("{} return to {}", clients(from - to), next.stable),
        (from, to) if to > from => format!("{} join it, and nobody leaves it", clients(to - from)),
        _ => "nobody moves".to_owned(),
    };
    let says = format!("{new} {anew}, {} → {}: {who}", percent(from), percent(to));
    (Change::Restarts, says, to, from.abs_diff(to))
}

/// Whether the same weight is other clients by the other declaration.
fn is_dealt_anew(last: &Canary, next: &Canary) -> bool {
    last.salt != next.salt || last.hash_on != next.hash_on
}

fn warnings_of(next: &Plan, known: &ServiceInForce) -> Vec<String> {
    let canary = &next.canary;
    let mut warnings = Vec::new();
    let has_none = |version: &VersionName| known.versions.get(version).copied().unwrap_or(0) == 0;
    if has_none(&canary.version) {
        warnings.push(format!("{} has no instance: it waits until it has", canary.version));
    }
    if has_none(&next.stable) {
        warnings.push(format!("{}, the stable version, has no instance", next.stable));
    }
    if canary.hash_on.is_empty() {
        warnings.push("no `sessionAffinity`: each request is drawn anew, and a client gets both versions".to_owned());
    }
    let last = known.trial.as_ref().filter(|trial| trial.plan.canary.version == canary.version);
    if last.is_some_and(|trial| is_dealt_anew(&trial.plan.canary, canary)) {
        warnings.push("another `salt` or `hashOn` deals all clients anew".to_owned());
    }
    let is_held = canary.steps.contains(&Step::Pause(None));
    if canary.analysis.is_none() && !is_held && first(next) < WHOLE {
        warnings.push("no `analysis`, and no pause without end: time alone takes it to everybody".to_owned());
    }
    warnings
}

/// The share of the first stage.
fn first(plan: &Plan) -> u32 {
    plan.stage(0).map_or(WHOLE, |stage| stage.weight)
}

fn clients(weight: u32) -> String {
    format!("clients ({} of all)", percent(weight))
}

#[cfg(test)]
mod tests;
