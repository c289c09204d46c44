//! What is declared of services.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::tree::Node;
use super::super::{Canary, HashOn, Salt, ServiceConfig, WHOLE, WhenNoneReady, WhenStarting};
use super::Reader;
use crate::VersionName;
use crate::traffic::Traffic;
use crate::words::{Fault, Words};

/// The keys that say how a service's instances are asked, and the words of containers that say the same.
const TRAFFIC: [(&str, &str); 4] =
    [("timeout", "timeout"), ("retry", "retry"), ("slowStart", "slowstart"), ("hold", "ready.hold")];

impl Reader<'_> {
    pub(super) fn service(&mut self, name: &str, node: &Node) -> ServiceConfig {
        let path = format!("services.{name}");
        let keys = self.keys(
            &path,
            node,
            &["stable", "canary", "timeout", "retry", "slowStart", "hold", "tls", "whenStarting", "whenNoneReady"],
        );
        let stable = keys.get("stable").and_then(|node| {
            let path = format!("{path}.stable");
            let version = self.keys(&path, node, &["version"]).get("version").copied();
            self.version(&path, node, version)
        });
        let canary = keys.get("canary").and_then(|node| self.canary(&format!("{path}.canary"), node));
        if let (Some(node), Some(canary)) = (keys.get("canary"), &canary) {
            if !keys.contains_key("stable") {
                let reason = format!("`{path}` has a canary but no stable version to compare it with");
                self.report(node.place, &reason, "add `stable: { version: … }`");
            } else if stable.as_ref() == Some(&canary.version) {
                let reason = format!("`{path}`: the canary is the stable version {:?} itself", canary.version.as_str());
                self.report(node.place, &reason, "name another version, or remove `canary`");
            }
        }
        let traffic = self.traffic(&path, &keys);
        let tls = keys.get("tls").and_then(|node| self.service_tls(&format!("{path}.tls"), node));
        let starting = [("wait", WhenStarting::Wait), ("route", WhenStarting::Route)];
        let when_starting =
            self.one_of("way", &format!("{path}.whenStarting"), keys.get("whenStarting").copied(), &starting);
        let none_ready = [("error", WhenNoneReady::Error), ("serveLast", WhenNoneReady::ServeLast)];
        let when_none_ready =
            self.one_of("way", &format!("{path}.whenNoneReady"), keys.get("whenNoneReady").copied(), &none_ready);
        ServiceConfig { stable, canary, traffic, tls, when_starting, when_none_ready }
    }

    fn traffic(&mut self, path: &str, keys: &BTreeMap<&str, &Node>) -> Traffic {
        let said = TRAFFIC.iter().filter_map(|(key, word)| {
            let text = self.text(&format!("{path}.{key}"), keys.get(key)?)?;
            Some((*word, text))
        });
        let words = Words::new("", said.collect::<Vec<_>>());
        let faults = match words.traffic() {
            Ok(traffic) => return traffic,
            Err(faults) => faults,
        };
        for Fault { word, reason, cure } in faults {
            let key = TRAFFIC.iter().find(|(_, meant)| *meant == word).map_or(word, |(key, _)| key);
            let place = keys.get(key).map(|node| node.place).unwrap_or_default();
            self.report(place, &format!("`{path}.{key}`: {reason}"), &cure);
        }
        Traffic::default()
    }

    fn version(&mut self, path: &str, parent: &Node, node: Option<&Node>) -> Option<VersionName> {
        let Some(node) = node else {
            self.report(
                parent.place,
                &format!("`{path}` names no version"),
                "add `version: …`, a value of the label `tidegate.version`",
            );
            return None;
        };
        let text = self.text(&format!("{path}.version"), node)?;
        self.name(node.place, "a version", text, VersionName::new)
    }

    fn canary(&mut self, path: &str, node: &Node) -> Option<Arc<Canary>> {
        let keys = self.keys(path, node, &["version", "weight", "sessionAffinity"]);
        let version = self.version(path, node, keys.get("version").copied());
        let weight = match keys.get("weight") {
            Some(node) => self.weight(&format!("{path}.weight"), node),
            None => {
                self.report(node.place, &format!("`{path}` has no weight"), "add `weight: 10` for 10 % of the traffic");
                None
            }
        };
        let (hash_on, salt) = match keys.get("sessionAffinity") {
            Some(node) => self.affinity(&format!("{path}.sessionAffinity"), node),
            None => (Vec::new(), Salt::default()),
        };
        Some(Arc::new(Canary { hash_on, salt, ..Canary::at(version?, weight?) }))
    }

    /// Percent with at most two decimals, to basis points; by hand, because 0.29 × 100 is no whole number in floating point.
    fn weight(&mut self, path: &str, node: &Node) -> Option<u32> {
        let text = self.text(path, node)?;
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.len() <= 3 && s.bytes().all(|b| b.is_ascii_digit());
        let decimals = decimals.trim_end_matches('0');
        let basis_points = (digits(whole) && !whole.is_empty() && digits(decimals) && decimals.len() <= 2)
            .then(|| Some(whole.parse::<u32>().ok()? * 100 + format!("{decimals:0<2}").parse::<u32>().ok()?))
            .flatten();
        match basis_points {
            Some(weight @ 0..=WHOLE) => Some(weight),
            _ => {
                let reason = format!("`{path}`: {text:?} is not a weight");
                self.report(
                    node.place,
                    &reason,
                    "write percent from 0 to 100 with at most two decimals, without a sign: 12.5",
                );
                None
            }
        }
    }

    fn affinity(&mut self, path: &str, node: &Node) -> (Vec<HashOn>, Salt) {
        let keys = self.keys(path, node, &["hashOn", "salt"]);
        let mut hash_on = Vec::new();
        match keys.get("hashOn") {
            Some(node) => {
                for item in self.items(&format!("{path}.hashOn"), node) {
                    hash_on.extend(self.hash_on(&format!("{path}.hashOn"), item));
                }
            }
            None => {
                self.report(
                    node.place,
                    &format!("`{path}` has no `hashOn`"),
                    "add `hashOn: [ { header: X-User-Id } ]`",
                );
            }
        }
        let salts = [("rollout", Salt::Rollout), ("service", Salt::Service)];
        let salt = self.one_of("salt", &format!("{path}.salt"), keys.get("salt").copied(), &salts);
        (hash_on, salt)
    }

    fn hash_on(&mut self, path: &str, node: &Node) -> Option<HashOn> {
        let keys = self.keys(path, node, &["header", "sourceIp"]);
        match (keys.get("header"), keys.get("sourceIp")) {
            (Some(node), None) => {
                let name = self.text(path, node)?.to_ascii_lowercase();
                let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                let ours = name.starts_with("x-tg-") || name.starts_with("x-tidegate-");
                if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
                    self.report(
                        node.place,
                        &format!("`{path}`: {name:?} is not a header name"),
                        "write a name such as X-User-Id",
                    );
                } else if ours {
                    let reason =
                        format!("`{path}`: `{name}` is stripped from every request, so no client could have a key");
                    self.report(node.place, &reason, "hash on a header that clients send");
                } else {
                    return Some(HashOn::Header(name));
                }
                None
            }
            (None, Some(node)) => match self.text(path, node)? {
                "true" => Some(HashOn::SourceIp),
                other => {
                    self.report(
                        node.place,
                        &format!("`{path}`: sourceIp is {other:?}"),
                        "write `sourceIp: true`, or leave the item out",
                    );
                    None
                }
            },
            _ => {
                self.report(
                    node.place,
                    &format!("an item of `{path}` is one of `header: NAME` and `sourceIp: true`"),
                    "write one key an item",
                );
                None
            }
        }
    }
}
