//! What a NACK does to a watch: culprits are parked, the rest of the response is sent again.

use std::sync::Arc;
use std::time::Duration;

use crate::resource::Version;
use crate::session::Limits;
use crate::session::blame::{Blame, blame};
use crate::session::draft::SentUpsert;
use crate::session::watch::{Refusal, Sent, Watch};

/// How many refusals are remembered; a name that is pushed out would be tried once more. Far above what a sound
/// committer causes, and a bound on what a client that refuses everything can make the server keep.
const MAX_REFUSED: usize = 4096;

/// What a NACK led to.
#[derive(Debug)]
pub(in crate::session) struct Refused {
    pub(in crate::session) quarantined: Vec<(Arc<str>, Version)>,
    pub(in crate::session) message: Arc<str>,
}

impl Watch {
    /// Takes a NACK. What it accuses is quarantined; the rest of the response is sent again if Envoy refused it too; if
    /// it accuses nobody, halves of the response are sent until the culprit stands alone. Each NACK either quarantines
    /// or halves, so this ends.
    pub(in crate::session) fn refuse(
        &mut self,
        number: u64,
        message: &str,
        limits: &Limits,
        now: Duration,
    ) -> Option<Refused> {
        let sent = self.answered(number)?;
        let message = Arc::<str>::from(message);
        let names: Vec<&str> = sent.upserts.iter().map(|upsert| &*upsert.name).collect();
        let (culprits, rest_is_lost) = match blame(&message, &names) {
            _ if names.len() == 1 => (vec![0], true),
            Blame::Only(culprits) => (culprits, false),
            Blame::First(culprit) => (vec![culprit], true),
            Blame::Hints(hints) if hints.len() < names.len() => {
                self.suspect(&sent, |at| hints.contains(&at));
                (Vec::new(), true)
            }
            Blame::Hints(_) | Blame::Nobody => {
                self.suspect(&sent, |at| at < names.len() / 2);
                (Vec::new(), true)
            }
        };

        let mut quarantined = Vec::with_capacity(culprits.len());
        for at in &culprits {
            let SentUpsert { name, version, .. } = &sent.upserts[*at];
            let refusal = Refusal { version: *version, message: Arc::clone(&message), at: now };
            self.refused.insert(Arc::clone(name), refusal);
            if self.refused.len() > MAX_REFUSED
                && let Some(oldest) = self.refused.iter().min_by_key(|(_, it)| it.at).map(|(name, _)| Arc::clone(name))
            {
                self.refused.remove(&oldest);
            }
            quarantined.push((Arc::clone(name), *version));
        }
        if rest_is_lost && !names.is_empty() {
            if !culprits.is_empty() {
                let rest = sent.upserts.iter().enumerate().filter(|(at, _)| !culprits.contains(at));
                self.owed.extend(rest.map(|(_, upsert)| Arc::clone(&upsert.name)));
            }
            self.owed.extend(sent.removed.iter().cloned());
            let subscription = &self.subscription;
            self.owed.retain(|name| subscription.covers(name));
        }
        // Once nothing is owed, all but the culprits is with the client.
        self.unmarked = Some(number);
        self.settle(limits, now);
        Some(Refused { quarantined, message })
    }

    /// Splits a response into two groups to be tried one after the other, those chosen first.
    fn suspect(&mut self, sent: &Sent, chosen: impl Fn(usize) -> bool) {
        let (first, second): (Vec<_>, Vec<_>) =
            sent.upserts.iter().map(|upsert| Arc::clone(&upsert.name)).enumerate().partition(|(at, _)| chosen(*at));
        for group in [second, first] {
            if !group.is_empty() {
                self.suspects.push_front(group.into_iter().map(|(_, name)| name).collect());
            }
        }
    }
}
