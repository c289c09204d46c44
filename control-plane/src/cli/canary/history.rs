//! `canary history SERVICE`: what became of a service's rollouts.

use tidegate_core::config::percent;
use tidegate_core::status::CanaryHistory;

use super::super::ask::{Api, Shown, get};
use super::super::draw::{Drawn, plain};
use super::super::{Outcome, Output, moment};
use crate::http::escaped;

pub(in super::super) async fn history(api: &Api, output: Output, service: &str) -> Shown {
    let answer = get::<CanaryHistory>(api, &format!("/v1/canary/{}/history", escaped(service))).await?;
    let text = answer.print(output, |history| {
        let mut table = Drawn::new(&["WHEN", "WHAT", "SHARE", "BY", "WHY"]);
        for event in &history.events {
            let share = if event.from == event.to {
                percent(event.to)
            } else {
                format!("{} → {}", percent(event.from), percent(event.to))
            };
            table.row([
                plain(moment::utc(event.at)),
                plain(event.what.as_str()),
                plain(share),
                plain(&event.by),
                plain(&event.reason),
            ]);
            for finding in event.evidence.iter().flat_map(|evidence| &evidence.findings) {
                let (metric, reason) = (&finding.metric, &finding.reason);
                table.row(["", "", "", "", &format!("  {metric}: {reason}")].map(plain));
            }
        }
        table.text()
    });
    Ok((text, Outcome::Well))
}
