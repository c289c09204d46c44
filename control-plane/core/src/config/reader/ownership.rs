//! `ownership`: who may claim which hosts, and what can be wrong with that.

use super::super::tree::Node;
use super::Reader;
use crate::ownership::{Allow, HostPattern, Ownership, Policy, Who};
use crate::suggest;
use crate::words::validate_host;

/// Where the rules stand.
const ALLOW: &str = "ownership.allow";
/// The ways to say who.
const WHO: [&str; 3] = ["project", "container", "service"];

impl Reader<'_> {
    pub(super) fn ownership(&mut self, node: &Node) -> Ownership {
        let keys = self.keys("ownership", node, &["policy", "allow"]);
        let mut ownership = Ownership::default();
        if let Some(node) = keys.get("policy") {
            match self.text("ownership.policy", node) {
                Some("open") | None => {}
                Some("strict") => ownership.policy = Policy::Strict,
                Some(other) => {
                    let cure = suggest::did_you_mean(other, ["open", "strict"], || "use open or strict".to_owned());
                    self.report(node.place, &format!("`ownership.policy`: there is no policy {other:?}"), &cure);
                }
            }
        }
        if let Some(node) = keys.get("allow") {
            for item in self.items(ALLOW, node) {
                ownership.allow.extend(self.allow(item));
            }
        }
        ownership
    }

    fn allow(&mut self, node: &Node) -> Option<Allow> {
        const EXAMPLE: &str = "write { project: shop, hosts: [ \"*.shop.example\" ] }";
        let before = self.problems.len();
        let keys = self.keys(ALLOW, node, &["project", "container", "service", "hosts"]);
        let said: Vec<&str> = WHO.into_iter().filter(|who| keys.contains_key(who)).collect();
        let (Some(hosts), [who]) = (keys.get("hosts"), said.as_slice()) else {
            if self.problems.len() == before {
                let reason = format!("an item of `{ALLOW}` needs `hosts`, and one of project, container and service");
                self.report(node.place, &reason, EXAMPLE);
            }
            return None;
        };
        let path = format!("{ALLOW}.{who}");
        let named = keys[who];
        let name = self.text(&path, named)?;
        let stem = name.strip_suffix('*').filter(|_| *who != "project").unwrap_or(name);
        if (name.is_empty() || stem.contains('*')) && self.problems.len() == before {
            let cure = match *who {
                "project" => "write the name of a Compose project",
                _ => "write a name, or the beginning of one with `*` after it",
            };
            self.report(named.place, &format!("`{path}`: {name:?} can be nobody's name"), cure);
        }
        let mut patterns = Vec::new();
        for item in self.items(&format!("{ALLOW}.hosts"), hosts) {
            patterns.extend(self.host_pattern(item));
        }
        if patterns.is_empty() && self.problems.len() == before {
            self.report(hosts.place, &format!("`{ALLOW}.hosts` is empty"), EXAMPLE);
        }
        let name = name.to_owned();
        let who = match *who {
            "project" => Who::Project(name),
            "container" => Who::Container(name),
            _ => Who::Service(name),
        };
        (self.problems.len() == before).then_some(Allow { who, hosts: patterns })
    }

    fn host_pattern(&mut self, node: &Node) -> Option<HostPattern> {
        let text = self.text("ownership.allow.hosts", node)?;
        let (star, host) = text.strip_prefix("*.").map_or(("", text), |host| ("*.", host));
        match validate_host(host) {
            Ok(host) => Some(HostPattern(format!("{star}{host}"))),
            Err(reason) => {
                let cure = "write a host such as \"shop.example\", or \"*.shop.example\" for all below it";
                self.report(node.place, &format!("`{ALLOW}.hosts`: {reason}"), cure);
                None
            }
        }
    }
}
