//! Bytes as what an engine says: every line is read as an event, an inspect and a list, by what reads those. Nothing of it may
//! panic, and what ends has no instances. For the fuzzer and for property tests.

use std::time::Duration;

use bollard::models::ContainerSummary;
use tidegate_core::instance::{Hint, Phase};
use tidegate_core::labels::Placement;
use tidegate_core::{Timestamp, Update};

use super::facts::{self, Inspect};
use super::fate::Moment;
use super::hints::{Dirty, Event};
use super::view::View;

/// Plays the lines of `bytes`.
pub fn answers(bytes: &[u8]) {
    let mut view = View::new(Placement::default());
    let mut dirty = Dirty::default();
    let mut now = Timestamp::from_millis(1_795_642_898_000);
    for line in bytes.split(|byte| *byte == b'\n') {
        now = now.after(Duration::from_millis(700));
        let hint = Hint { action: "hostile".to_owned(), at: now };
        if let Ok(event) = serde_json::from_slice::<Event>(line) {
            dirty.insert(event, now);
            let engine = i64::try_from(now.as_millis()).unwrap_or(i64::MAX).saturating_mul(1_000_000);
            let moment = Moment { now, engine, opened: 0 };
            for (id, pending) in dirty.take() {
                let _ = view.hear(&id, &pending, moment);
            }
        }
        if let Ok(inspect) = serde_json::from_slice::<Inspect>(line) {
            let _ = view.look(inspect.into(), hint.clone(), now);
        }
        if let Ok(list) = serde_json::from_slice::<Vec<ContainerSummary>>(line) {
            let list: Vec<_> = list.into_iter().filter_map(facts::listed).collect();
            let _ = view.list_again(list.clone(), now, |_| false, &hint, now);
            let _ = view.list_all(list, &hint, now);
        }
        let _ = (view.next_deadline(), view.overdue(now));
    }
    let Update::Reset(all) = view.reset() else { return };
    for discovered in all {
        let lives = matches!(discovered.phase, Phase::Running | Phase::Paused);
        assert!(lives || discovered.instances.is_empty(), "{discovered:?}");
        assert!(discovered.enabled || discovered.instances.is_empty(), "{discovered:?}");
    }
}
