//! When which target is checked, and how many at once. Pure but for the type of its instants. A check that lasts longer than
//! [`PATIENCE`] leaves the sockets of the quick ones to them: it moves to those of the slow ones, or where these are all in use is
//! given up, to be made there when it is its turn. So no crowd of hanging targets keeps the others waiting, not even one that
//! answered a moment ago.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// A target, by a number that is never used again.
pub(super) type Key = u64;
/// Which of the checks of a target.
pub(super) type Run = u64;

/// Sockets for quick checks: 5,000 targets that answer within 10 ms need some 25. Together with those for slow ones they are half of
/// the usual limit of a process, 1,024.
pub(super) const MAX_QUICK: usize = 256;
/// Sockets for slow ones.
const MAX_SLOW: usize = 256;
/// How long a check is a quick one.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// How much too early a check may begin: one wake-up is for all that are due so soon.
pub(super) const EARLY: Duration = Duration::from_millis(5);

/// The schedule.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: BTreeSet<(Instant, Key)>,
    ready: VecDeque<Key>,
    ready_slow: VecDeque<Key>,
    slots: HashMap<Key, Slot>,
    running: usize,
    running_slow: usize,
    /// Quick ones that began, the first first, also such as ended.
    began: VecDeque<(Instant, Key, Run)>,
}

#[derive(Debug, Default)]
struct Slot {
    state: Place,
    run: Run,
    /// Its last check lasted longer than a quick one.
    slow: bool,
    /// It was asked for again while it ran.
    again: bool,
    forgotten: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Idle,
    Due(Instant),
    /// Since when it should run.
    Ready(Instant),
    Running {
        slow: bool,
        since: Instant,
    },
}

/// A check that is to be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) key: Key,
    pub(super) run: Run,
    /// By how much it is late.
    pub(super) late: Duration,
}

impl Schedule {
    /// Checks `key` as soon as there is room; once more, if it is being checked.
    pub(super) fn at_once(&mut self, key: Key) {
        self.ready(key, Instant::now());
    }

    fn ready(&mut self, key: Key, since: Instant) {
        let slot = self.slots.entry(key).or_default();
        match slot.state {
            Place::Ready(_) => return,
            Place::Running { .. } => {
                slot.again = true;
                return;
            }
            Place::Due(at) => {
                self.due.remove(&(at, key));
            }
            Place::Idle => {}
        }
        slot.state = Place::Ready(since);
        if slot.slow { self.ready_slow.push_back(key) } else { self.ready.push_back(key) }
    }

    /// Checks `key`, which ended, after `pause`; at once, if it was asked for meanwhile.
    pub(super) fn after(&mut self, key: Key, pause: Duration) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if std::mem::take(&mut slot.again) {
            self.at_once(key);
        } else if slot.state == Place::Idle {
            let at = Instant::now() + pause;
            slot.state = Place::Due(at);
            self.due.insert((at, key));
        }
    }

    /// Checks `key` no more. One that runs keeps its socket until it ended.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        match slot.state {
            Place::Running { .. } => {
                slot.forgotten = true;
                return;
            }
            Place::Due(at) => {
                self.due.remove(&(at, key));
            }
            // Its place in a queue is passed over.
            Place::Ready(_) | Place::Idle => {}
        }
        self.slots.remove(&key);
    }

    /// When [`Self::wake`] has something to do.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        while let Some((_, key, run)) = self.began.front()
            && !self.is_quick(*key, *run)
        {
            self.began.pop_front();
        }
        let patience = self.began.front().map(|(since, ..)| *since + PATIENCE);
        let due = self.due.first().map(|(at, _)| *at);
        patience.into_iter().chain(due).min()
    }

    /// Makes ready what is due, and has what lasts too long leave the quick ones; returns the checks that are to be given up.
    pub(super) fn wake(&mut self, now: Instant) -> Vec<Key> {
        while let Some(&(at, key)) = self.due.first()
            && at <= now + EARLY
        {
            self.ready(key, at);
        }
        let mut given_up = Vec::new();
        while let Some(&(since, key, run)) = self.began.front()
            && since + PATIENCE <= now
        {
            self.began.pop_front();
            if self.is_quick(key, run) && self.leave(key, since, now) {
                given_up.push(key);
            }
        }
        given_up
    }

    /// A quick one turns out to be slow; true if there is no room for it.
    fn leave(&mut self, key: Key, since: Instant, now: Instant) -> bool {
        let Some(slot) = self.slots.get_mut(&key) else { return false };
        self.running -= 1;
        if self.running_slow < MAX_SLOW {
            self.running_slow += 1;
            slot.state = Place::Running { slow: true, since };
            return false;
        }
        slot.slow = true;
        slot.again = false;
        if slot.forgotten {
            self.slots.remove(&key);
        } else {
            slot.state = Place::Ready(now);
            self.ready_slow.push_back(key);
        }
        true
    }

    fn is_quick(&self, key: Key, run: Run) -> bool {
        let slot = self.slots.get(&key).filter(|slot| slot.run == run);
        slot.is_some_and(|slot| matches!(slot.state, Place::Running { slow: false, .. }))
    }

    /// The next one to check, if there is room.
    pub(super) fn start(&mut self) -> Option<Start> {
        loop {
            let (key, slow) = match self.ready.front() {
                Some(_) if self.running < MAX_QUICK => (self.ready.pop_front()?, false),
                _ if self.running_slow < MAX_SLOW => (self.ready_slow.pop_front()?, true),
                _ => return None,
            };
            let now = Instant::now();
            if let Some(slot) = self.slots.get_mut(&key)
                && let Place::Ready(since) = slot.state
            {
                slot.run += 1;
                slot.state = Place::Running { slow, since: now };
                if slow {
                    self.running_slow += 1;
                } else {
                    self.running += 1;
                    self.began.push_back((now, key, slot.run));
                }
                return Some(Start { key, run: slot.run, late: now - since });
            }
        }
    }

    /// A check ended; false if it is none of those that run, because it was given up.
    pub(super) fn ended(&mut self, key: Key, run: Run) -> bool {
        let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.run == run) else { return false };
        let Place::Running { slow, since } = slot.state else { return false };
        if slow {
            self.running_slow -= 1;
        } else {
            self.running -= 1;
        }
        slot.state = Place::Idle;
        slot.slow = since.elapsed() >= PATIENCE;
        if slot.forgotten {
            self.slots.remove(&key);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn drain(schedule: &mut Schedule) -> Vec<Start> {
        std::iter::from_fn(|| schedule.start()).collect()
    }

    fn keys(started: &[Start]) -> Vec<Key> {
        started.iter().map(|start| start.key).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_targets_leave_their_sockets_to_the_others() {
        let mut schedule = Schedule::default();
        for key in 0..1000 {
            schedule.at_once(key);
        }
        // Those that hang from now on take all sockets for a moment, and no longer.
        let mut started = 0;
        let mut given_up = Vec::new();
        while started < 1000 {
            started += drain(&mut schedule).len();
            assert!(schedule.running <= MAX_QUICK && schedule.running_slow <= MAX_SLOW);
            assert_eq!(schedule.next_due(), Some(Instant::now() + PATIENCE));
            advance(PATIENCE).await;
            given_up.extend(schedule.wake(Instant::now()));
        }
        assert_eq!((schedule.running, schedule.running_slow), (0, MAX_SLOW));
        assert_eq!(given_up.len(), 1000 - MAX_SLOW, "and the rest is made when it is its turn");
        assert_eq!(schedule.next_due(), None, "slow ones are waited for");
        schedule.at_once(5000);
        assert_eq!(keys(&drain(&mut schedule)), [5000]);
        assert!(schedule.ended(5000, 1));
        // Those that were given up follow as those before them end.
        assert!(schedule.ended(0, 1));
        schedule.after(0, Duration::from_secs(2));
        assert_eq!(drain(&mut schedule), [Start { key: given_up[0], run: 2, late: PATIENCE * 2 }]);
        assert!(!schedule.ended(given_up[0], 1), "that run was given up");
        // The one that hung is checked among its like.
        advance(Duration::from_secs(2)).await;
        schedule.wake(Instant::now());
        assert_eq!(schedule.ready_slow.back(), Some(&0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_answers_quickly_again_is_quick_again() {
        let mut schedule = Schedule::default();
        for (lasts, slow) in [(PATIENCE, false), (Duration::from_millis(1), true), (PATIENCE, false)] {
            schedule.at_once(1);
            let [start] = drain(&mut schedule)[..] else { panic!("it runs") };
            assert_eq!((schedule.running, schedule.running_slow), if slow { (0, 1) } else { (1, 0) });
            advance(lasts).await;
            assert_eq!(schedule.wake(Instant::now()), Vec::<Key>::new());
            assert!(schedule.ended(1, start.run));
        }
        assert_eq!((schedule.running, schedule.running_slow), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn how_late_a_check_begins_is_counted_from_when_it_was_due() {
        let mut schedule = Schedule::default();
        schedule.at_once(1);
        let [start] = drain(&mut schedule)[..] else { panic!("it runs") };
        schedule.ended(1, start.run);
        schedule.after(1, Duration::from_secs(2));
        advance(Duration::from_millis(2030)).await;
        schedule.wake(Instant::now());
        assert_eq!(drain(&mut schedule), [Start { key: 1, run: 2, late: Duration::from_millis(30) }]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_wake_up_is_for_all_that_are_due_soon() {
        let mut schedule = Schedule::default();
        let due = [Duration::from_secs(2), Duration::from_millis(2005), Duration::from_millis(2006)];
        for (key, after) in (0..).zip(due) {
            schedule.at_once(key);
            let [start] = drain(&mut schedule)[..] else { panic!("it runs") };
            schedule.ended(key, start.run);
            schedule.after(key, after);
        }
        advance(Duration::from_secs(2)).await;
        schedule.wake(Instant::now());
        let started = drain(&mut schedule);
        assert_eq!(keys(&started), [0, 1]);
        assert!(started.iter().all(|start| start.late.is_zero()), "{started:?}");
        assert_eq!(schedule.due.first().map(|(_, key)| *key), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_is_never_checked_twice_at_a_time() {
        let mut schedule = Schedule::default();
        schedule.at_once(1);
        schedule.at_once(1);
        assert_eq!(keys(&drain(&mut schedule)), [1]);
        schedule.at_once(1);
        assert_eq!(drain(&mut schedule), []);
        schedule.ended(1, 1);
        schedule.after(1, Duration::from_secs(9));
        assert_eq!(keys(&drain(&mut schedule)), [1], "it was asked for again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_target_gives_its_socket_back() {
        let mut schedule = Schedule::default();
        for key in 0..MAX_QUICK as u64 {
            schedule.at_once(key);
        }
        assert_eq!(drain(&mut schedule).len(), MAX_QUICK);
        schedule.at_once(999);
        schedule.forget(3);
        assert_eq!(drain(&mut schedule), []);
        schedule.ended(3, 1);
        schedule.after(3, Duration::from_secs(1));
        assert_eq!(keys(&drain(&mut schedule)), [999]);
        assert_eq!(schedule.next_due(), Some(Instant::now() + PATIENCE));
    }
}
