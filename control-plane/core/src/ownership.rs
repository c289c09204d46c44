//! Who may claim which hosts (threats T1). Labels are written by whoever makes a container; the configuration says, over them,
//! which Compose project, container or service may ask for a host. It says nothing of entries of files, which whoever writes the
//! configuration writes, too, and nothing of what no host leads to.

use std::borrow::Cow;

use serde::Serialize;

use crate::catalog::Catalog;
use crate::instance::{Discovered, Membership, is_entry};
use crate::{Code, Problem, ServiceName};

/// The rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ownership {
    /// What holds for a host that no rule names.
    pub policy: Policy,
    /// A host that rules name is for those alone whom one of them allows it.
    pub allow: Vec<Allow>,
}

/// What holds for a host that no rule names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Anybody may claim it.
    #[default]
    Open,
    /// Nobody may.
    Strict,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allow {
    /// Who may.
    pub who: Who,
    /// Which hosts.
    pub hosts: Vec<HostPattern>,
}

/// Who may claim a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// The containers of a Compose project.
    Project(String),
    /// Containers of no project, by name, or by its beginning with `*` after it.
    Container(String),
    /// Containers of no project, by their service's name, or by its beginning with `*` after it.
    Service(String),
}

/// `shop.example`, or `*.shop.example` for all below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct HostPattern(pub String);

impl HostPattern {
    fn matches(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => self.0 == host,
        }
    }
}

impl Who {
    fn is(&self, container: &Discovered, service: &ServiceName) -> bool {
        let named = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => pattern == name,
        };
        match (self, &container.project) {
            (Self::Project(name), Some(project)) => name == project,
            (Self::Container(pattern), None) => named(pattern, &container.name),
            (Self::Service(pattern), None) => named(pattern, service.as_str()),
            (Self::Project(_), None) | (Self::Container(_) | Self::Service(_), Some(_)) => false,
        }
    }
}

impl Ownership {
    /// The host that keeps a container from being a member of a service: one that it claims and may not.
    fn refused<'a>(&self, container: &Discovered, membership: &'a Membership) -> Option<&'a str> {
        if is_entry(&container.id) {
            return None;
        }
        let may = |host: &str| {
            let mut rules =
                self.allow.iter().filter(|rule| rule.hosts.iter().any(|pattern| pattern.matches(host))).peekable();
            match (rules.peek(), self.policy) {
                (None, Policy::Open) => true,
                (None, Policy::Strict) => false,
                (Some(_), _) => rules.any(|rule| rule.who.is(container, &membership.service)),
            }
        };
        membership.claim.hosts.iter().map(String::as_str).find(|host| !may(host))
    }

    /// The problem of a container that is no member of the service it names, for a host that it may not claim.
    #[must_use]
    pub fn refusal(&self, container: &Discovered, membership: &Membership) -> Option<Problem> {
        let host = self.refused(container, membership)?;
        let who: Cow<'_, str> = match &container.project {
            Some(project) => format!("the Compose project `{project}`").into(),
            None => "a container of no Compose project".into(),
        };
        let rule = match &container.project {
            Some(project) => format!("{{ project: {project}, hosts: [ \"{host}\" ] }}"),
            None => format!("{{ service: {}, hosts: [ \"{host}\" ] }}", membership.service),
        };
        Some(Problem::error(
            Code::HostRefused,
            container.subject(),
            format!("it claims `{host}` for the service `{}`, which {who} may not", membership.service),
            "this container is not routed for that service; others are unaffected",
            format!("use another `tidegate.host`, or add {rule} to `ownership.allow` of tidegate.yaml"),
        ))
    }

    /// The members of a service that may claim what they do: oldest first.
    pub(crate) fn members<'a>(
        &self,
        catalog: &'a Catalog,
        service: &ServiceName,
    ) -> Vec<(&'a Discovered, &'a Membership)> {
        let mut members = catalog.members(service);
        members.retain(|(container, membership)| self.refused(container, membership).is_none());
        members
    }

    /// All containers that claim what they may not.
    pub(crate) fn refusals<'a>(&'a self, catalog: &'a Catalog) -> impl Iterator<Item = Problem> + 'a {
        let members =
            catalog.containers().flat_map(|container| container.memberships.iter().map(move |m| (container, m)));
        members.filter_map(|(container, membership)| self.refusal(container, membership))
    }
}

#[cfg(test)]
mod tests;
