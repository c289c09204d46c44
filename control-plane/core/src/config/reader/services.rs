//! What is declared of services.

use std::collections::BTreeMap;

use super::super::tree::Node;
use super::super::{ServiceConfig, WhenNoneReady, WhenStarting};
use super::Reader;
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
}
