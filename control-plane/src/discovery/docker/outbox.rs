//! What the inbox is told of one engine: updates, what is wrong with it, and that what was told still holds. Watches how old
//! that is: a view that nothing confirms for a while is a problem of its own, whatever the reason.

use std::pin::pin;
use std::time::Duration;

use tidegate_core::instance::Confirmed;
use tidegate_core::{Input, Problem, ProviderName, Timestamp, Update};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::sightings::Sightings;
use super::stats::DockerStats;
use super::{DockerSettings, dial, problems};
use crate::clock::Clock;

/// A view that nothing confirmed for so long is stale: two pings and their time to answer, less a moment.
pub(super) const STALE_AFTER: Duration = Duration::from_millis(9_500);

/// The inbox has no reader any more: the control plane is ending.
#[derive(Debug)]
pub(super) struct InboxClosed;

/// The way to the inbox.
#[derive(Debug)]
pub(super) struct Outbox {
    inbox: mpsc::Sender<Input>,
    provider: ProviderName,
    endpoint: String,
    clock: Clock,
    stats: DockerStats,
    sightings: Sightings,
    /// What is wrong for as long as the endpoint is the one it is.
    standing: Option<Problem>,
    /// The engine that shows the same containers.
    twin: Option<ProviderName>,
    /// What is wrong, but for the age of the view.
    problems: Vec<Problem>,
    /// The problems the inbox knows of.
    reported: Vec<Problem>,
    /// A full set was told, so that single updates make sense.
    complete: bool,
    /// When what was told was last known to hold; `None`: nothing was told yet.
    confirmed: Option<Timestamp>,
}

impl Outbox {
    pub(super) fn new(inbox: mpsc::Sender<Input>, settings: &DockerSettings, clock: Clock, stats: DockerStats) -> Self {
        let plain = settings.tls.is_none() && dial::is_elsewhere(&settings.endpoint);
        Self {
            inbox,
            provider: settings.name.clone(),
            endpoint: settings.endpoint.clone(),
            sightings: settings.sightings.clone(),
            clock,
            stats,
            standing: plain.then(|| problems::plain(&settings.endpoint)),
            twin: None,
            problems: Vec::new(),
            reported: Vec::new(),
            complete: false,
            confirmed: None,
        }
    }

    /// What was last said to be wrong, but for the age of the view.
    pub(super) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Tells what changed. Before the first full set there is nothing that a single update could change.
    pub(super) async fn tell(&mut self, update: Update) -> Result<(), InboxClosed> {
        if self.complete || matches!(update, Update::Reset(_)) {
            self.complete = true;
            if let Some(update) = self.own(update) {
                self.send(update).await?;
            }
        }
        Ok(())
    }

    /// What is left of an update without what another engine shows.
    fn own(&mut self, update: Update) -> Option<Update> {
        let own = |id: &str| match self.sightings.show(id, &self.provider) {
            None => Ok(()),
            Some(twin) => Err(twin),
        };
        match update {
            Update::Reset(mut all) => {
                let ids = all.iter().map(|discovered| discovered.id.as_str()).collect();
                self.sightings.show_only(&ids, &self.provider);
                let mut twin = None;
                all.retain(|discovered| own(&discovered.id).map_err(|other| twin = Some(other)).is_ok());
                self.twin = twin;
                Some(Update::Reset(all))
            }
            Update::Upsert(discovered) => match own(&discovered.id) {
                Ok(()) => Some(Update::Upsert(discovered)),
                Err(twin) => {
                    self.twin = Some(twin);
                    None
                }
            },
            Update::Remove(id) => self.sightings.hide(&id, &self.provider).then_some(Update::Remove(id)),
            other => Some(other),
        }
    }

    /// Tells that what was told holds now.
    pub(super) async fn confirm(&mut self) -> Result<(), InboxClosed> {
        let now = self.clock.now();
        self.confirmed = Some(now);
        self.stats.confirmed(now);
        let confirmed = Confirmed { reconnects: self.stats.reconnects.get(), repaired: self.stats.drift.get() };
        self.send(Update::Confirmed(confirmed)).await?;
        self.catch_up().await
    }

    /// Tells what is wrong now, instead of what was.
    pub(super) async fn report(&mut self, problems: Vec<Problem>) -> Result<(), InboxClosed> {
        self.problems = problems;
        self.catch_up().await
    }

    /// Does `step`, and tells meanwhile when the view grows stale.
    pub(super) async fn watched<T>(&mut self, step: impl Future<Output = T>) -> Result<T, InboxClosed> {
        let mut step = pin!(step);
        loop {
            let left = self.confirmed.filter(|_| self.stale().is_none());
            let left = left.map(|at| at.after(STALE_AFTER).since(self.clock.now()));
            tokio::select! {
                done = &mut step => return Ok(done),
                () = sleep(left.unwrap_or_default()), if left.is_some() => self.catch_up().await?,
            }
        }
    }

    /// The problem of a view that is too old.
    fn stale(&self) -> Option<Problem> {
        let at = self.confirmed?;
        (self.clock.now().since(at) >= STALE_AFTER).then(|| problems::stale(&self.endpoint, at))
    }

    async fn catch_up(&mut self) -> Result<(), InboxClosed> {
        let twin = self.twin.as_ref().map(|twin| problems::twin(&self.endpoint, twin));
        let now: Vec<Problem> =
            self.problems.iter().cloned().chain(self.stale()).chain(self.standing.clone()).chain(twin).collect();
        if self.reported != now {
            self.reported.clone_from(&now);
            self.send(Update::Problems(now)).await?;
        }
        Ok(())
    }

    async fn send(&self, update: Update) -> Result<(), InboxClosed> {
        let input = Input::Provider { provider: self.provider.clone(), update };
        self.inbox.send(input).await.map_err(|_| InboxClosed)
    }
}
