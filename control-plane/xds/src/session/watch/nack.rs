//! What a NACK does to a watch: culprits are parked, the rest of the response is sent again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::resource::Version;
use crate::session::Limits;
use crate::session::blame::{Blame, blame};
use crate::session::parcel::SentUpsert;
use crate::session::refusals::Refusal;
use crate::session::watch::{Sent, Watch};
use crate::store::table::Table;

/// What a NACK led to.
#[derive(Debug)]
pub(in crate::session) struct Refused {
    pub(in crate::session) quarantined: Vec<(Arc<str>, Version)>,
    pub(in crate::session) message: Arc<str>,
    /// What had been refused by other clients, and is now accepted for the first time: the client has taken the others of
    /// the response.
    pub(in crate::session) released: Vec<Arc<str>>,
}

impl Watch {
    /// Takes a NACK. What it accuses is quarantined; the rest of the response is sent again if Envoy refused it too; if
    /// it accuses nobody, halves of the response are sent until the culprit stands alone. Each NACK either quarantines
    /// or halves, so this ends. Of what is quarantined the client gets the last accepted version, if there is one: it
    /// may have none.
    pub(in crate::session) fn refuse(
        &mut self,
        number: u64,
        message: &str,
        table: &Table,
        limits: &Limits,
        now: Duration,
    ) -> Option<Refused> {
        let sent = self.answered(number)?;
        self.tally.rejected += 1;
        let message = Arc::<str>::from(kept(message));
        let names: Vec<&str> = sent.upserts.iter().map(|upsert| &*upsert.name).collect();
        let (culprits, rest_is_lost) = match blame(&message, &names) {
            _ if names.len() == 1 => (vec![0], true),
            Blame::Only(culprits) => (culprits, false),
            Blame::First(culprit) => (vec![culprit], true),
            // What others have accepted goes first: it is hardly to blame, and in a response that has to be whole the
            // client loses what is left out.
            Blame::Hints(_) | Blame::Nobody if (1..names.len()).contains(&sent.accepted_elsewhere().count()) => {
                let accepted: HashSet<usize> = sent.accepted_elsewhere().collect();
                self.suspect(&sent, |at| accepted.contains(&at));
                (Vec::new(), true)
            }
            Blame::Hints(hints) if hints.len() < names.len() => {
                self.suspect(&sent, |at| hints.contains(&at));
                (Vec::new(), true)
            }
            Blame::Hints(_) | Blame::Nobody => {
                self.suspect(&sent, |at| at < names.len() / 2);
                (Vec::new(), true)
            }
        };

        let mut released = Vec::new();
        if !rest_is_lost {
            let others = sent.upserts.iter().enumerate().filter(|(at, _)| !culprits.contains(at));
            let others = others.map(|(_, upsert)| upsert);
            self.take_accepted(others.clone());
            released.extend(others.filter(|it| it.standing.accept()).map(|it| Arc::clone(&it.name)));
            self.unsaid = false;
        }
        let mut quarantined = Vec::with_capacity(culprits.len());
        for at in &culprits {
            let SentUpsert { name, version, standing, .. } = &sent.upserts[*at];
            standing.refuse();
            let refusal = Refusal { version: *version, message: Arc::clone(&message), at: now };
            self.refused.insert(Arc::clone(name), refusal);
            let falls_back = table.get(name).is_some_and(|entry| self.refused.fallback(name, entry).is_some());
            if falls_back && self.subscription.covers(name) {
                self.owed.insert(Arc::clone(name));
            }
            quarantined.push((Arc::clone(name), *version));
        }
        if rest_is_lost && !names.is_empty() {
            if !culprits.is_empty() {
                let rest = sent.upserts.iter().enumerate().filter(|(at, _)| !culprits.contains(at));
                let rest: Vec<_> =
                    rest.map(|(_, upsert)| &upsert.name).filter(|name| self.has_some(name, table)).collect();
                self.owed.extend(rest.into_iter().cloned());
            }
            self.owed.extend(sent.removed.iter().cloned());
            self.must_answer |= self.unsaid;
            let subscription = &self.subscription;
            self.owed.retain(|name| subscription.covers(name));
        }
        // Once nothing is owed, all but the culprits is with the client.
        self.unmarked = Some(number);
        self.settle(limits, now);
        Some(Refused { quarantined, message, released })
    }

    /// Whether there is anything for the client under a name, or the news that there is not.
    fn has_some(&self, name: &str, table: &Table) -> bool {
        table.get(name).is_none_or(|entry| {
            !self.refused.contains(name, entry.version()) || self.refused.fallback(name, entry).is_some()
        })
    }

    /// What the client accepted after all, in a response that overtook the doubt, need not be tried.
    pub(super) fn clear_of_suspicion(&mut self, sent: &Sent) {
        if self.suspects.is_empty() {
            return;
        }
        let proven: HashSet<&Arc<str>> = sent.upserts.iter().map(|upsert| &upsert.name).collect();
        for group in &mut self.suspects {
            group.retain(|name| !proven.contains(name));
        }
        self.suspects.retain(|group| !group.is_empty());
    }

    /// Splits a response into two groups to be tried one after the other, those chosen first.
    fn suspect(&mut self, sent: &Sent, chosen: impl Fn(usize) -> bool) {
        // An earlier response with some of the same may have been refused, too.
        self.clear_of_suspicion(sent);
        let (first, second): (Vec<_>, Vec<_>) =
            sent.upserts.iter().map(|upsert| Arc::clone(&upsert.name)).enumerate().partition(|(at, _)| chosen(*at));
        for group in [second, first] {
            if !group.is_empty() {
                self.suspects.push_front(group.into_iter().map(|(_, name)| name).collect());
            }
        }
    }
}

/// How much of a client's words is kept, in bytes: all of what Envoy says (it cuts dumps itself), and a bound on what
/// others do.
const MAX_MESSAGE: usize = 16 * 1024;

fn kept(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE)]
}
