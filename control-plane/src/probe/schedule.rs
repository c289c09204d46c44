//! When which target is checked, and how many at once. Pure but for the type of its instants. Targets whose last check timed
//! out may hold only half of the sockets, so that a crowd of hanging ones never keeps the others waiting.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// A target, by a number that is never used again.
pub(super) type Key = u64;

/// Sockets open at once: 5,000 targets that answer within 10 ms need some 25, and the usual limit of a process is 1,024.
pub(super) const MAX_RUNNING: usize = 256;
/// Of these, for targets whose last check timed out.
const MAX_SLOW: usize = MAX_RUNNING / 2;

/// The schedule.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    due: BTreeSet<(Instant, Key)>,
    ready: VecDeque<Key>,
    ready_slow: VecDeque<Key>,
    slots: HashMap<Key, Slot>,
    running: usize,
    running_slow: usize,
}

#[derive(Debug, Default)]
struct Slot {
    state: Place,
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
    Ready,
    Running {
        slow: bool,
    },
}

impl Schedule {
    /// Checks `key` as soon as there is room; once more, if it is being checked.
    pub(super) fn at_once(&mut self, key: Key) {
        let slot = self.slots.entry(key).or_default();
        match slot.state {
            Place::Ready => return,
            Place::Running { .. } => {
                slot.again = true;
                return;
            }
            Place::Due(at) => {
                self.due.remove(&(at, key));
            }
            Place::Idle => {}
        }
        slot.state = Place::Ready;
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
            Place::Ready | Place::Idle => {}
        }
        self.slots.remove(&key);
    }

    /// When the first of the waiting is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Makes ready what is due.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            self.at_once(key);
        }
    }

    /// The next one to check, if there is room.
    pub(super) fn start(&mut self) -> Option<Key> {
        while self.running < MAX_RUNNING {
            let (key, slow) = match self.ready.pop_front() {
                Some(key) => (key, false),
                None if self.running_slow < MAX_SLOW => (self.ready_slow.pop_front()?, true),
                None => return None,
            };
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.state = Place::Running { slow };
                self.running += 1;
                self.running_slow += usize::from(slow);
                return Some(key);
            }
        }
        None
    }

    /// A check ended; `slow` when it timed out.
    pub(super) fn ended(&mut self, key: Key, slow: bool) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        if let Place::Running { slow } = slot.state {
            self.running -= 1;
            self.running_slow -= usize::from(slow);
        }
        slot.state = Place::Idle;
        slot.slow = slow;
        if slot.forgotten {
            self.slots.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(schedule: &mut Schedule) -> Vec<Key> {
        std::iter::from_fn(|| schedule.start()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_targets_hold_only_half_of_the_sockets() {
        let mut schedule = Schedule::default();
        for key in 0..1000 {
            schedule.at_once(key);
        }
        let mut started = 0;
        while started < 1000 {
            for key in drain(&mut schedule) {
                started += 1;
                schedule.ended(key, true);
                schedule.after(key, Duration::from_secs(2));
            }
        }
        schedule.wake(Instant::now() + Duration::from_secs(2));
        assert_eq!(drain(&mut schedule).len(), MAX_SLOW);
        schedule.at_once(5000);
        assert_eq!(drain(&mut schedule), [5000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_is_never_checked_twice_at_a_time() {
        let mut schedule = Schedule::default();
        schedule.at_once(1);
        schedule.at_once(1);
        assert_eq!(drain(&mut schedule), [1]);
        schedule.at_once(1);
        assert_eq!(drain(&mut schedule), Vec::<Key>::new());
        schedule.ended(1, false);
        schedule.after(1, Duration::from_secs(9));
        assert_eq!(drain(&mut schedule), [1], "it was asked for again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_forgotten_target_gives_its_socket_back() {
        let mut schedule = Schedule::default();
        for key in 0..MAX_RUNNING as u64 {
            schedule.at_once(key);
        }
        assert_eq!(drain(&mut schedule).len(), MAX_RUNNING);
        schedule.at_once(999);
        schedule.forget(3);
        assert_eq!(drain(&mut schedule), Vec::<Key>::new());
        schedule.ended(3, false);
        schedule.after(3, Duration::from_secs(1));
        assert_eq!(drain(&mut schedule), [999]);
        assert_eq!(schedule.next_due(), None);
    }
}
