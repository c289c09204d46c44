//! Which service or container is meant.

use super::SubjectError;
use crate::instance::Discovered;
use crate::problem::printable;
use crate::{ServiceName, State, suggest};

/// Longer words are no names; they are not compared with every name there is.
const MAX_SUBJECT: usize = 256;

pub(super) enum Found<'a> {
    Service(ServiceName),
    Container(&'a Discovered),
}

/// A service by its name; else a container by its name, its id, or the beginning of its id.
pub(super) fn find<'a>(state: &'a State, subject: &str) -> Result<Found<'a>, SubjectError> {
    if let Ok(name) = ServiceName::new(subject)
        && !state.catalog().members(&name).is_empty()
    {
        return Ok(Found::Service(name));
    }
    if let Some(named) = state.catalog().containers().find(|container| container.name == subject) {
        return Ok(Found::Container(named));
    }
    let begun: Vec<&Discovered> = state
        .catalog()
        .containers()
        .filter(|container| !subject.is_empty() && container.id.starts_with(subject))
        .collect();
    match begun.as_slice() {
        [only] => Ok(Found::Container(only)),
        [] => Err(unknown(state, subject)),
        several => Err(SubjectError::Ambiguous {
            subject: printable(subject),
            candidates: several.iter().map(|container| container.subject()).collect(),
        }),
    }
}

/// A container or entry by its name, its id, or the beginning of its id.
///
/// # Errors
/// When none, or more than one, is meant.
pub fn container<'a>(state: &'a State, subject: &str) -> Result<&'a Discovered, SubjectError> {
    if let Some(named) = state.catalog().containers().find(|container| container.name == subject) {
        return Ok(named);
    }
    match find(state, subject)? {
        Found::Container(container) => Ok(container),
        Found::Service(name) => {
            let names = state.catalog().members(&name);
            let names = names.iter().map(|(member, _)| format!("`{}`", member.name)).collect::<Vec<_>>().join(", ");
            Err(SubjectError::Service { subject: printable(subject), cure: format!("name one of {names}") })
        }
    }
}

fn unknown(state: &State, subject: &str) -> SubjectError {
    let subject: String = subject.chars().take(MAX_SUBJECT).collect();
    if let (None, Some(awaited)) = (state.catalog().containers().next(), state.awaiting()) {
        let cure = format!("nothing is known before {awaited}; ask again then");
        return SubjectError::Unknown { subject: printable(&subject), cure };
    }
    let services = state.catalog().services().map(ServiceName::as_str);
    let containers = state.catalog().containers().map(|container| container.name.as_str());
    let cure = suggest::did_you_mean(&subject, services.chain(containers), || {
        "`tidegate ps -o json` lists the services with their containers and entries".to_owned()
    });
    SubjectError::Unknown { subject: printable(&subject), cure }
}
