//! `events`: the timeline. One line for each thing that happened, with what caused it and what the edges answered:
//! `docker kill SIGTERM → draining (4 ms) → accepted by 2 edges (11 ms)`. Times in brackets count from the cause.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidegate_core::Timestamp;
use tidegate_core::journal::{Edges, Entry, What};

use super::ask::{Api, AskError, follow};
use super::{EventsArgs, Outcome, Output, draw, moment};
use crate::api::events::{Line, Said};

pub(super) async fn events(api: &Api, output: Output, args: &EventsArgs) -> Outcome {
    match run(api, output, args).await {
        Ok(()) => Outcome::Well,
        Err(error) => draw::fail(&error.to_string(), error.outcome()),
    }
}

async fn run(api: &Api, output: Output, args: &EventsArgs) -> Result<(), AskError> {
    let mut asked = url::Asked::default();
    asked.push("subject", args.subject.as_deref());
    asked.push("since", args.since.map(|since| ago(since).to_string()).as_deref());
    if args.follow {
        asked.push("follow", Some("true"));
    }
    let mut after = (args.follow && args.since.is_none()).then(|| "now".to_owned());
    let mut page = Page::default();
    loop {
        let mut asked = asked.clone();
        asked.push("after", after.as_deref());
        let path = format!("/v1/events?{}", asked.0);
        let mut last = None;
        follow(api, &path, |text| {
            let line: Line = serde_json::from_slice(text).map_err(|error| error.to_string())?;
            if let Said::Entry(entry) = &line.said {
                last = Some(entry.id);
            }
            match (output, line.said) {
                (Output::Json, _) => draw::page(&format!("{}\n", String::from_utf8_lossy(text)), false),
                (Output::Table, Said::Missed { missed }) => {
                    draw::say(&format!("warning: {missed} event(s) were dropped before they could be shown"));
                }
                (Output::Table, Said::Entry(entry)) => draw::page(&page.take(*entry), false),
            }
            Ok(())
        })
        .await?;
        if !args.follow {
            draw::page(&page.rest(), false);
            return Ok(());
        }
        // An answer ends now and then; what follows is the same timeline.
        after = last.map(|id| id.to_string()).or(after);
    }
}

/// Milliseconds since the Unix epoch, so long ago.
#[expect(clippy::disallowed_methods, reason = "the control plane's clock began with this one, on this machine")]
fn ago(since: Duration) -> u128 {
    (SystemTime::now() - since).duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()
}

mod url {
    use crate::http::escaped;

    /// A query.
    #[derive(Clone, Default)]
    pub(super) struct Asked(pub(super) String);

    impl Asked {
        pub(super) fn push(&mut self, key: &str, value: Option<&str>) {
            let Some(value) = value else { return };
            let separator = if self.0.is_empty() { "" } else { "&" };
            self.0.push_str(&format!("{separator}{key}={}", escaped(value)));
        }
    }
}

/// Joins what happened with what the edges answered.
#[derive(Default)]
struct Page {
    awaited: BTreeMap<u64, Entry>,
}

impl Page {
    /// The line that is complete now, if any. Answers come within seconds.
    fn take(&mut self, entry: Entry) -> String {
        match entry.follows {
            None if entry.awaited => {
                self.awaited.insert(entry.id, entry);
                String::new()
            }
            None => line(&entry, None),
            // Its beginning may be from before what was asked for.
            Some(first) => self.awaited.remove(&first).map(|first| line(&first, Some(&entry))).unwrap_or_default(),
        }
    }

    /// What has no answer yet.
    fn rest(&mut self) -> String {
        std::mem::take(&mut self.awaited).values().map(|entry| line(entry, None)).collect()
    }
}

/// One line of the timeline.
pub(super) fn line(entry: &Entry, answer: Option<&Entry>) -> String {
    let Entry { at, service, version, .. } = entry;
    format!("{}  {}  {service}/{version}  {}\n", moment::utc(*at), entry.subject(), chain(entry, answer))
}

/// What led to what.
pub(super) fn chain(entry: &Entry, answer: Option<&Entry>) -> String {
    let from = entry.cause.as_ref().map_or(entry.at, |cause| cause.at);
    let after = |at: Timestamp| moment::rough(at.since(from));
    let mut steps = Vec::new();
    if let Some(cause) = &entry.cause {
        steps.push(cause.what.clone());
    }
    let took = if entry.cause.is_some() { format!(" ({})", after(entry.at)) } else { String::new() };
    let until = entry.until.map(|until| format!(" until {}", moment::utc(until))).unwrap_or_default();
    let detail = if entry.detail.is_empty() { String::new() } else { format!(": {}", entry.detail) };
    steps.push(format!("{}{until}{took}{detail}", word(entry.what)));
    if let Some((answer, Edges { accepted, of })) = answer.and_then(|answer| Some((answer, answer.edges?))) {
        steps.push(match (accepted, of) {
            (_, 0) => answer.detail.clone(),
            (accepted, of) if accepted < of => {
                format!("accepted by {accepted} of {} ({}): {}", edges(of), after(answer.at), answer.detail)
            }
            (_, of) => format!("accepted by {} ({})", edges(of), after(answer.at)),
        });
    }
    steps.join(" → ")
}

fn edges(count: usize) -> String {
    if count == 1 { "1 edge".to_owned() } else { format!("{count} edges") }
}

const fn word(what: What) -> &'static str {
    match what {
        What::Discovered => "discovered",
        What::Ready => "ready",
        What::NotReady => "not ready",
        What::Draining => "draining",
        What::HeldBack => "held back",
        What::Damped => "damped",
        What::Gone => "gone",
        What::Accepted => "accepted",
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::journal::Cause;

    use super::*;

    fn entry(what: What, detail: &str) -> Entry {
        Entry {
            id: 1,
            at: Timestamp::from_millis(1_795_425_978_768),
            container: "shop-1".to_owned(),
            container_id: "3f9c1a2b77d0".to_owned(),
            service: "shop".to_owned(),
            version: "v1".to_owned(),
            address: "172.17.0.2:80".to_owned(),
            cause: Some(Cause {
                what: "docker kill SIGTERM".to_owned(),
                at: Timestamp::from_millis(1_795_425_978_764),
            }),
            what,
            detail: detail.to_owned(),
            until: None,
            sequence: Some(7),
            awaited: true,
            follows: None,
            edges: None,
        }
    }

    fn answer(accepted: usize, of: usize, detail: &str) -> Entry {
        let at = Timestamp::from_millis(1_795_425_978_775);
        let edges = Some(Edges { accepted, of });
        Entry { id: 2, at, follows: Some(1), awaited: false, edges, ..entry(What::Accepted, detail) }
    }

    #[test]
    fn one_line_says_what_led_to_what() {
        let head = "2026-11-23T09:26:18.768Z  container shop-1 (3f9c1a2b77d0)  shop/v1  ";
        let draining = entry(What::Draining, "");
        assert_eq!(
            line(&draining, Some(&answer(2, 2, ""))),
            format!("{head}docker kill SIGTERM → draining (4 ms) → accepted by 2 edges (11 ms)\n")
        );
        assert_eq!(
            chain(&draining, Some(&answer(1, 2, "1 of 2 edge(s) have not answered within 2 s"))),
            "docker kill SIGTERM → draining (4 ms) → accepted by 1 of 2 edges (11 ms): \
             1 of 2 edge(s) have not answered within 2 s"
        );
        assert_eq!(
            chain(&draining, Some(&answer(0, 0, "no edge is connected that sees it"))),
            "docker kill SIGTERM → draining (4 ms) → no edge is connected that sees it"
        );
        let damped = Entry { cause: None, until: Some(draining.at), ..entry(What::Damped, "it ended 3 times") };
        assert_eq!(line(&damped, None), format!("{head}damped until 2026-11-23T09:26:18.768Z: it ended 3 times\n"));
    }

    #[test]
    fn a_line_is_shown_when_it_is_complete() {
        let mut page = Page::default();
        assert_eq!(page.take(entry(What::Draining, "")), "");
        let gone = Entry { id: 3, awaited: false, sequence: None, ..entry(What::Gone, "the container is paused") };
        assert!(page.take(gone).contains("→ gone (4 ms): the container is paused\n"));
        assert!(page.take(answer(2, 2, "")).contains("→ accepted by 2 edges"));
        assert_eq!(page.take(answer(2, 2, "")), "", "its beginning was not asked for");
        page.take(entry(What::Ready, "connected"));
        assert!(page.rest().contains("→ ready (4 ms): connected\n"));
    }
}
