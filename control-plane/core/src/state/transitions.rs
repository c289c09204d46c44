//! What happened to the instances of a service between two of its views, with what made it happen.

use crate::catalog::Catalog;
use crate::instance::{Discovered, InstanceId, Phase};
use crate::journal::{Cause, Event, What};
use crate::service::{ConditionKind, InstanceView, ServiceView};
use crate::{Timestamp, VersionName};

/// What happened to one instance.
#[derive(Debug)]
pub(super) struct Change {
    /// For the timeline.
    pub(super) event: Event,
    /// Edges knew it, and are told that it is no more.
    pub(super) left: bool,
    /// Edges did not know it, and are told of it.
    pub(super) joined: bool,
    /// It was ready and is not any more; whether somebody asked for that.
    pub(super) fell: Option<bool>,
}

/// The instances that are something else now, new or gone.
pub(super) fn between(before: Option<&ServiceView>, after: Option<&ServiceView>, catalog: &Catalog) -> Vec<Change> {
    let mut changes = Vec::new();
    for (view, version, now) in instances(after) {
        let old = before.and_then(|view| find(view, version, &now.id));
        let what = what(now);
        let what = match old {
            None if what == What::NotReady => What::Discovered,
            Some(old) if self::what(old) == what => continue,
            _ => what,
        };
        let detail = match (&now.condition, what) {
            (_, What::Draining) if now.terminating.is_none() => "an operator wants it".to_owned(),
            (_, What::Draining) => String::new(),
            (Some(condition), What::HeldBack | What::Damped) => condition.reason.clone(),
            _ => now.readiness.to_string(),
        };
        let fell = old.filter(|old| old.readiness.is_ready() && !now.readiness.is_ready());
        let listed = |instance: &InstanceView| (instance.is_published(), instance.is_leaving());
        let relisted = old.map(listed).unwrap_or_default() != listed(now);
        let event = Event {
            id: now.id.clone(),
            container: now.container.clone(),
            service: view.name.clone(),
            version: version.clone(),
            cause: cause(old, now),
            what,
            detail,
            until: now.condition.as_ref().filter(|_| matches!(what, What::HeldBack | What::Damped)).map(|c| c.until),
            published: relisted && is_routed([before, after], version),
        };
        changes.push(Change {
            event,
            left: old.is_some_and(InstanceView::is_published) && !now.is_published(),
            joined: !old.is_some_and(InstanceView::is_published) && now.is_published(),
            fell: fell.map(|old| old.terminating.is_some() || now.phase == Phase::Paused),
        });
    }
    for (view, version, old) in instances(before) {
        if after.is_some_and(|view| find(view, version, &old.id).is_some()) {
            continue;
        }
        let container = catalog.member(&view.name, &old.id.container);
        // What is told of the same run elsewhere has not ended.
        let goes_on = catalog.service_of(&old.id).is_some();
        let fell = container.filter(|_| old.readiness.is_ready() && !goes_on);
        let asked = |container: &Discovered| {
            let event = container.hint.action.as_str();
            old.terminating.is_some() || event == "stop" || event.starts_with("kill")
        };
        let event = Event {
            id: old.id.clone(),
            container: old.container.clone(),
            service: view.name.clone(),
            version: version.clone(),
            cause: container.map(|container| Cause::of(&container.hint, &container.id)),
            what: What::Gone,
            detail: end(container, goes_on),
            until: None,
            published: old.is_published() && is_routed([before, after], version),
        };
        changes.push(Change { event, left: old.is_published(), joined: false, fell: fell.map(asked) });
    }
    changes
}

fn instances(view: Option<&ServiceView>) -> impl Iterator<Item = (&ServiceView, &VersionName, &InstanceView)> {
    view.into_iter().flat_map(|view| {
        let versions = view.versions.iter();
        versions.flat_map(move |(name, version)| version.instances.iter().map(move |instance| (view, name, instance)))
    })
}

/// The instances of a version are sorted by their ids.
pub(super) fn find<'a>(view: &'a ServiceView, version: &VersionName, id: &InstanceId) -> Option<&'a InstanceView> {
    let instances = &view.versions.get(version)?.instances;
    instances.binary_search_by(|known| known.id.cmp(id)).ok().and_then(|place| instances.get(place))
}

fn what(instance: &InstanceView) -> What {
    let condition = instance.condition.as_ref().map(|condition| condition.kind);
    match (instance.is_leaving(), instance.readiness.is_ready(), condition) {
        (true, _, _) => What::Draining,
        (false, false, _) => What::NotReady,
        (false, true, Some(ConditionKind::HeldBack)) => What::HeldBack,
        (false, true, Some(ConditionKind::Damped)) => What::Damped,
        (false, true, None) => What::Ready,
    }
}

/// The provider's hint where what it told is new, else the check where that is; `None`: only time passed, or edges answered.
fn cause(old: Option<&InstanceView>, now: &InstanceView) -> Option<Cause> {
    let told = || Cause::of(&now.hint, &now.id.container);
    let checked = |at: Timestamp| Cause::check(at);
    let Some(old) = old else { return Some(told()) };
    if old.phase != now.phase || old.terminating != now.terminating {
        return Some(told());
    }
    if old.drained != now.drained {
        let command = if now.drained.is_some() { "drain" } else { "undrain" };
        return Some(Cause::operator(command, now.drained.unwrap_or(now.serving_since)));
    }
    match (&old.verdict, &now.verdict) {
        (old, Some(verdict)) if old.as_ref() != Some(verdict) => Some(checked(verdict.since)),
        _ if old.readiness.is_ready() != now.readiness.is_ready() && old.hint != now.hint => Some(told()),
        _ => None,
    }
}

fn is_routed(views: [Option<&ServiceView>; 2], version: &VersionName) -> bool {
    views.into_iter().flatten().any(|view| view.split.versions().contains(&version))
}

fn end(container: Option<&Discovered>, goes_on: bool) -> String {
    match container {
        _ if goes_on => "its labels or its service say otherwise now".to_owned(),
        None => "it was removed".to_owned(),
        Some(container) if container.instances.is_empty() => format!("the container is {}", container.phase),
        Some(_) => "a newer run has begun, or it has another address".to_owned(),
    }
}
