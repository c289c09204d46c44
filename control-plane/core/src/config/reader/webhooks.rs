//! `services.NAME.canary.webhooks`: who is asked, and who is told.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::canary::{Webhook, WebhookKind};
use super::super::tree::Node;
use super::Reader;

/// Shorter, and a slow answer is none; longer, and nobody knows that anything is waited for.
const ANSWERS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_mins(1);

/// How long a webhook's answer may take unless it says otherwise.
const ANSWER: Duration = Duration::from_secs(5);

impl Reader<'_> {
    pub(super) fn webhooks(&mut self, path: &str, node: &Node) -> Vec<Webhook> {
        let items = self.some_items(path, node);
        items.iter().filter_map(|item| self.webhook(path, item)).collect()
    }

    fn webhook(&mut self, path: &str, node: &Node) -> Option<Webhook> {
        let keys = self.keys(path, node, &["type", "url", "timeout"]);
        if !keys.contains_key("type") || !keys.contains_key("url") {
            let cure = "write { type: confirm-promotion, url: \"http://gate:8080/approve\" }";
            self.report(node.place, &format!("an item of `{path}` needs `type` and `url`"), cure);
        }
        let kinds = [
            ("confirm-promotion", WebhookKind::ConfirmPromotion),
            ("confirm-traffic-increase", WebhookKind::ConfirmTrafficIncrease),
            ("notify", WebhookKind::Notify),
        ];
        let kind = keys.get("type").and_then(|node| self.word("webhook", &format!("{path}.type"), node, &kinds));
        let url = keys.get("url").and_then(|node| self.url(&format!("{path}.url"), node, "http://gate:8080/approve"));
        let timeout = match keys.get("timeout") {
            Some(node) => self.duration(&format!("{path}.timeout"), node, &ANSWERS, "5s"),
            None => Some(ANSWER),
        };
        Some(Webhook { kind: kind?, url: url?, timeout: timeout? })
    }
}
