//! Which containers are to be inspected, and when: each at most once at a time, however many hints there are, and again later
//! when it failed or was too early. Pure but for the type of its instants.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tidegate_core::instance::Hint;
use tokio::time::Instant;

/// The queue of looks.
#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<String>,
    waiting: HashMap<String, Hint>,
    /// Under way; `false` when its result is of no use any more.
    running: HashMap<String, bool>,
    later: BTreeSet<(Instant, String)>,
    due: HashMap<String, (Instant, Hint)>,
    attempts: HashMap<String, u32>,
}

impl Queue {
    /// Looks at `id` as soon as there is room.
    pub(super) fn now(&mut self, id: &str, hint: Hint) {
        self.cancel(id);
        if self.waiting.insert(id.to_owned(), hint).is_none() {
            self.order.push_back(id.to_owned());
        }
    }

    /// Looks at `id` at `at`, unless it is looked at before.
    pub(super) fn later(&mut self, id: &str, hint: Hint, at: Instant) {
        if self.waiting.contains_key(id) {
            return;
        }
        self.cancel(id);
        self.later.insert((at, id.to_owned()));
        self.due.insert(id.to_owned(), (at, hint));
    }

    /// Looks at `id` again, by a schedule that gets `0`, `1`, … and says how long to wait; `None` gives up.
    pub(super) fn again(
        &mut self,
        id: &str,
        hint: Hint,
        now: Instant,
        schedule: impl FnOnce(u32) -> Option<Duration>,
    ) -> bool {
        let attempt = self.attempts.entry(id.to_owned()).or_default();
        let Some(pause) = schedule(*attempt) else {
            self.attempts.remove(id);
            return false;
        };
        *attempt = attempt.saturating_add(1);
        self.later(id, hint, now + pause);
        true
    }

    /// A look went well: the next schedule begins anew.
    pub(super) fn settled(&mut self, id: &str) {
        self.attempts.remove(id);
    }

    /// The next look, of a container that none is under way for.
    pub(super) fn next(&mut self) -> Option<(String, Hint)> {
        let position = self.order.iter().position(|id| !self.running.contains_key(id))?;
        let id = self.order.remove(position)?;
        let hint = self.waiting.remove(&id)?;
        self.running.insert(id.clone(), true);
        Some((id, hint))
    }

    /// A look ended; whether its result counts.
    pub(super) fn done(&mut self, id: &str) -> bool {
        self.running.remove(id).unwrap_or(false)
    }

    /// The container is gone: no look at it, and none under way counts.
    pub(super) fn forget(&mut self, id: &str) {
        self.cancel(id);
        self.attempts.remove(id);
        if self.waiting.remove(id).is_some() {
            self.order.retain(|other| other != id);
        }
        if let Some(counts) = self.running.get_mut(id) {
            *counts = false;
        }
    }

    /// When the first of the later looks is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Moves what is due to the looks of now.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((at, _)) = self.later.first()
            && *at <= now
        {
            let Some((_, id)) = self.later.pop_first() else { return };
            if let Some((_, hint)) = self.due.remove(&id) {
                self.now(&id, hint);
            }
        }
    }

    /// How many looks are under way.
    pub(super) fn running(&self) -> usize {
        self.running.len()
    }

    /// Whether a look at `id` is waiting or under way.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.waiting.contains_key(id) || self.running.contains_key(id)
    }

    fn cancel(&mut self, id: &str) {
        if let Some((at, _)) = self.due.remove(id) {
            self.later.remove(&(at, id.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Timestamp;

    use super::*;

    fn hint(action: &str) -> Hint {
        Hint { action: action.to_owned(), at: Timestamp::default() }
    }

    fn next(queue: &mut Queue) -> Option<(String, String)> {
        queue.next().map(|(id, hint)| (id, hint.action))
    }

    #[test]
    fn many_hints_are_one_look_and_never_two_at_a_time() {
        let mut queue = Queue::default();
        queue.now("a", hint("start"));
        queue.now("a", hint("health"));
        queue.now("b", hint("start"));
        assert_eq!(next(&mut queue), Some(("a".into(), "health".into())));
        queue.now("a", hint("die"));
        assert_eq!(next(&mut queue), Some(("b".into(), "start".into())));
        assert_eq!(next(&mut queue), None);
        assert!(queue.done("a"));
        assert_eq!(next(&mut queue), Some(("a".into(), "die".into())));
    }

    #[test]
    fn a_forgotten_container_is_not_looked_at_and_its_look_does_not_count() {
        let mut queue = Queue::default();
        queue.now("a", hint("start"));
        assert!(queue.next().is_some());
        queue.now("a", hint("kill"));
        queue.forget("a");
        assert!(!queue.done("a"));
        assert_eq!(next(&mut queue), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_look_yields_to_an_earlier_one() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.later("a", hint("create"), start + Duration::from_secs(2));
        queue.later("b", hint("create"), start + Duration::from_secs(1));
        assert_eq!(queue.next_due(), Some(start + Duration::from_secs(1)));
        queue.now("a", hint("start"));
        queue.wake(start + Duration::from_secs(5));
        assert_eq!(next(&mut queue), Some(("a".into(), "start".into())));
        assert_eq!(next(&mut queue), Some(("b".into(), "create".into())));
        assert_eq!(queue.next_due(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_schedule_goes_on_until_it_is_settled() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let schedule = |attempt: u32| (attempt < 2).then(|| Duration::from_millis(10 << attempt));
        for due in [10, 20] {
            assert!(queue.again("a", hint("retry"), now, schedule));
            assert_eq!(queue.next_due(), Some(now + Duration::from_millis(due)));
        }
        assert!(!queue.again("a", hint("retry"), now, schedule));
        assert!(queue.again("a", hint("retry"), now, schedule));
        queue.settled("a");
        assert!(queue.again("a", hint("retry"), now, schedule));
        assert_eq!(queue.next_due(), Some(now + Duration::from_millis(10)));
    }
}
