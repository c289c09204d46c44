//! `explain SUBJECT`: the answer in one sentence, and the stages behind it.

use tidegate_core::explain::{Explanation, Part, StageState};
use tidegate_core::journal::Entry;

use super::ask::{Api, Shown, get};
use super::draw::{Drawn, Mood, plain};
use super::{Outcome, Output, events, moment};
use crate::http::escaped;

pub(super) async fn explain(api: &Api, output: Output, subject: &str) -> Shown {
    let answer = get::<Explanation>(api, &format!("/v1/explain/{}", escaped(subject))).await?;
    let outcome = if answer.value.has_failed() { Outcome::ProblemFound } else { Outcome::Well };
    Ok((answer.print(output, screen), outcome))
}

fn screen(explanation: &Explanation) -> String {
    let mut text = format!("{}\n", explanation.answer);
    for part in &explanation.parts {
        text.push_str(&format!("\n{}\n", part.subject));
        text.push_str(&stages(part));
        text.push_str(&happened(&part.events));
    }
    text
}

/// What happened last.
fn happened(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let answer = |first: &Entry| entries.iter().find(|entry| entry.follows == Some(first.id));
    let lines = entries
        .iter()
        .filter(|entry| entry.follows.is_none())
        .map(|entry| format!("{}  {}\n", moment::utc(entry.at), events::chain(entry, answer(entry))));
    format!("\nwhat happened last:\n{}", lines.collect::<String>())
}

/// The stages, with their time and how long after the first one that was.
fn stages(part: &Part) -> String {
    let mut table = Drawn::new(&["STAGE", "STATE", "AT", "AFTER", "DETAIL"]);
    let first = part.stages.iter().find_map(|stage| stage.at);
    for stage in &part.stages {
        let mood = match stage.state {
            StageState::Passed => Mood::Good,
            StageState::Failed => Mood::Bad,
            StageState::Pending | StageState::Unknown => Mood::Unsure,
        };
        let after = match (stage.at, first) {
            (Some(at), Some(first)) if at >= first => format!("+{}", moment::rough(at.since(first))),
            _ => "-".to_owned(),
        };
        table.row([
            plain(&stage.name),
            (stage.state.to_string(), mood),
            plain(stage.at.map_or_else(|| "-".to_owned(), moment::utc)),
            plain(after),
            plain(&stage.detail),
        ]);
    }
    table.text()
}
