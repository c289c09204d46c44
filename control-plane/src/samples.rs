//! What the edges' load reports say of the versions under trial, as it comes: how many requests each of a rollout's two versions had
//! since the last look, and how many of them failed. What was reported before a trial began is nobody's evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::name::cluster_name;
use tidegate_core::rollout::{Counts, Sample};
use tidegate_core::{Input, ServiceName, VersionName};
use tidegate_xds::{LoadReports, Requests};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::reconcile::Observer;
use crate::rollouts::Held;

/// Reports of many edges are looked at together.
const REST: Duration = Duration::from_millis(200);

/// The two versions of a trial.
type Trial = (ServiceName, VersionName, VersionName);

/// Watches `reports` and tells `inbox` until `shutdown`. When `rollouts` change it looks, too: what was counted when a trial began has to be
/// known before the first report that follows.
pub(crate) async fn watch(
    reports: LoadReports,
    mut rollouts: watch::Receiver<Held>,
    observer: Observer,
    inbox: mpsc::Sender<Input>,
    shutdown: CancellationToken,
) {
    let mut changes = reports.changes();
    let mut ledger = Ledger::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            changed = rollouts.changed() => if changed.is_err() { return },
        }
        let Ok(trials) = observer.look(|look| look.state.trials().versions().collect::<Vec<_>>()).await else { return };
        let total = |cluster: &str| reports.cluster(cluster).map(|load| load.load.total).unwrap_or_default();
        for (service, sample) in ledger.look(&trials, total) {
            if inbox.send(Input::Sampled { service, sample: Box::new(sample) }).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(REST) => {}
        }
    }
}

/// What has been counted of each trial's clusters up to the last look.
#[derive(Debug, Default)]
struct Ledger(BTreeMap<String, Requests>);

impl Ledger {
    /// What came since the last look, where anything did.
    fn look(&mut self, trials: &[Trial], total: impl Fn(&str) -> Requests) -> Vec<(ServiceName, Sample)> {
        let mut seen = BTreeMap::new();
        let mut samples = Vec::new();
        for (service, stable, canary) in trials {
            let mut since = |version: &VersionName| {
                let cluster = cluster_name(service, version);
                let now = total(&cluster);
                let before = self.0.get(&cluster).copied().unwrap_or(now);
                seen.insert(cluster, now);
                counts(before, now)
            };
            let sample = Sample { canary: since(canary), stable: since(stable) };
            if sample != Sample::default() {
                samples.push((service.clone(), sample));
            }
        }
        self.0 = seen;
        samples
    }
}

/// Requests that came to an end.
fn counts(before: Requests, now: Requests) -> Counts {
    let errors = now.error.saturating_sub(before.error);
    let successful = now.successful.saturating_sub(before.successful);
    Counts { requests: successful.saturating_add(errors), errors, ..Counts::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_counts_once_and_what_was_before_the_trial_never() {
        let name = |version: &str| VersionName::new(version).unwrap();
        let trials = [(ServiceName::new("shop").unwrap(), name("v1"), name("v2"))];
        let reported = |good: u64, bad: u64| {
            move |cluster: &str| match cluster {
                "shop/v1" => Requests { successful: 10 * good, ..Requests::default() },
                _ => Requests { successful: good, error: bad, ..Requests::default() },
            }
        };
        let mut ledger = Ledger::default();
        assert_eq!(ledger.look(&trials, reported(5, 5)), []);
        let seen = ledger.look(&trials, reported(7, 6));
        assert_eq!((seen[0].1.canary.requests, seen[0].1.canary.errors, seen[0].1.stable.requests), (3, 1, 20));
        assert_eq!(ledger.look(&trials, reported(7, 6)), [], "nothing came since");
        assert_eq!(ledger.look(&[], reported(9, 9)), []);
        assert_eq!(ledger.look(&trials, reported(9, 9)), [], "another trial begins with what comes then");
    }
}
