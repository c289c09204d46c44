//! Events: the engine's memory of the last of them, who is subscribed to what, and how each event gets there. As in moby's
//! `daemon/events`: the memory holds 256 events of every kind, a filter that names `health_status` matches by prefix, and a
//! subscriber that does not read loses events.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::mpsc;

/// How many events are remembered (moby `eventsLimit`).
const MEMORY: usize = 256;
/// How many events wait for a subscriber that does not read (moby `bufferSize`).
const BUFFER: usize = 1024;

/// How one event reaches the subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Once, at once.
    Once,
    /// Not at all; it is remembered all the same.
    Lost,
    /// So many times.
    Times(u8),
    /// So much later, and after whatever happens until then.
    Late(Duration),
}

/// An event and when it happened.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) at: i64,
    kind: &'static str,
    action: String,
    line: Bytes,
}

impl Event {
    pub(crate) fn new(at: i64, kind: &'static str, action: &str, value: &Value) -> Self {
        Self { at, kind, action: action.to_owned(), line: Bytes::from(format!("{value}\n")) }
    }
}

/// What a subscriber asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    kinds: Vec<String>,
    actions: Vec<String>,
}

impl Filter {
    /// Reads `{"type":["container"],"event":[…]}`, or with objects for the lists.
    pub(crate) fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let words = |key: &str| match &value[key] {
            Value::Array(list) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Value::Object(map) => map.keys().cloned().collect(),
            _ => Vec::new(),
        };
        Self { kinds: words("type"), actions: words("event") }
    }

    fn passes(&self, event: &Event) -> bool {
        // moby#25798
        let fuzzy =
            self.actions.iter().any(|wanted| matches!(wanted.as_str(), "health_status" | "exec_create" | "exec_start"));
        let named = |wanted: &String| if fuzzy { event.action.starts_with(wanted) } else { event.action == *wanted };
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == event.kind))
            && (self.actions.is_empty() || self.actions.iter().any(named))
    }
}

/// Memory and subscribers.
#[derive(Debug, Default)]
pub(crate) struct Events {
    memory: VecDeque<Event>,
    subscribers: Vec<(Filter, mpsc::Sender<Bytes>)>,
    /// How the next events are delivered; when it is empty, well.
    pub(crate) script: VecDeque<Delivery>,
}

impl Events {
    /// Begins a stream with what is remembered since `since`; `None`: with nothing.
    pub(crate) fn subscribe(&mut self, since: Option<i64>, filter: Filter) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(MEMORY + BUFFER);
        if let Some(since) = since {
            // From the newest back to the first that is older, as moby looks.
            let recent = self.memory.iter().rev().take_while(|event| event.at >= since).count();
            for event in self.memory.iter().skip(self.memory.len() - recent).filter(|event| filter.passes(event)) {
                let _ = sender.try_send(event.line.clone());
            }
        }
        self.subscribers.push((filter, sender));
        receiver
    }

    pub(crate) fn remember(&mut self, event: Event) {
        self.memory.push_back(event);
        if self.memory.len() > MEMORY {
            self.memory.pop_front();
        }
    }

    pub(crate) fn send(&mut self, event: &Event) {
        self.subscribers.retain(|(filter, subscriber)| {
            if !filter.passes(event) {
                return !subscriber.is_closed();
            }
            // Whoever does not read loses it.
            !matches!(subscriber.try_send(event.line.clone()), Err(mpsc::error::TrySendError::Closed(_)))
        });
    }

    pub(crate) fn cut(&mut self) {
        self.subscribers.clear();
    }

    pub(crate) fn forget(&mut self) {
        self.memory.clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(at: i64, action: &str) -> Event {
        Event::new(at, "container", action, &json!({ "Action": action }))
    }

    fn replayed(events: &mut Events, since: Option<i64>, filter: &str) -> Vec<String> {
        let mut stream = events.subscribe(since, Filter::parse(filter));
        let mut lines = Vec::new();
        while let Ok(line) = stream.try_recv() {
            lines.push(serde_json::from_slice::<Value>(&line).unwrap()["Action"].as_str().unwrap().to_owned());
        }
        lines
    }

    #[test]
    fn a_stream_begins_with_what_is_remembered_since_then() {
        let mut events = Events::default();
        for at in 0..300 {
            events.remember(event(at, "start"));
        }
        assert_eq!(replayed(&mut events, None, "{}").len(), 0);
        assert_eq!(replayed(&mut events, Some(290), "{}").len(), 10);
        assert_eq!(replayed(&mut events, Some(0), "{}").len(), MEMORY);
    }

    #[test]
    fn filters_match_by_prefix_once_they_name_health() {
        let mut events = Events::default();
        for action in ["start", "exec_start: ls", "health_status: healthy", "starter"] {
            events.remember(event(1, action));
        }
        let kinds = r#"{"type":["container"],"event":["start","exec_start: ls"]}"#;
        assert_eq!(replayed(&mut events, Some(0), kinds), ["start", "exec_start: ls"]);
        let fuzzy = r#"{"event":{"start":true,"health_status":true}}"#;
        assert_eq!(replayed(&mut events, Some(0), fuzzy), ["start", "health_status: healthy", "starter"]);
        assert!(replayed(&mut events, Some(0), r#"{"type":["network"]}"#).is_empty());
    }
}
