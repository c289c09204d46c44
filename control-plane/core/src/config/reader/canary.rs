//! `services.NAME.canary`: the version under trial, who gets it and by which steps. What is measured of it is read by `analysis`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::super::canary::{AffinityCookie, HeaderOverride, MinReady, Overrides, Step, Wanted, WhenNotReady};
use super::super::tree::{Node, Value};
use super::super::{Canary, HashOn, Salt, WHOLE, percent};
use super::{Reader, pattern};
use crate::{VersionName, suggest};

/// What a share may be, in basis points.
const SHARES: RangeInclusive<u32> = 0..=WHOLE;

/// How long a step may stay.
const PAUSES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(720);

/// Seconds that a client keeps its cookie: browsers cut it to 400 days (RFC 6265bis).
const AGES: RangeInclusive<u32> = 1..=34_560_000;

/// A day.
const AGE: u32 = 86_400;

const KEYS: [&str; 10] = [
    "version",
    "minReady",
    "whenNotReady",
    "match",
    "weight",
    "sessionAffinity",
    "steps",
    "analysis",
    "breaker",
    "webhooks",
];

/// Where clients get their key from.
#[derive(Default)]
struct Affinity {
    hash_on: Vec<HashOn>,
    cookie: Option<AffinityCookie>,
    salt: Salt,
}

impl Reader<'_> {
    pub(super) fn canary(&mut self, path: &str, node: &Node) -> Option<Arc<Canary>> {
        if let Value::List(_) = node.value {
            let reason = format!("`{path}` is a list, and a service has one canary at a time");
            self.report(node.place, &reason, "write one as a mapping, and the next when that one has ended");
            return None;
        }
        let keys = self.keys(path, node, &KEYS);
        let at = |key: &str| keys.get(key).map(|node| (format!("{path}.{key}"), *node));
        let version = self.version(path, node, keys.get("version").copied());
        let min_ready = at("minReady").and_then(|(path, node)| self.min_ready(&path, node)).unwrap_or_default();
        let ways = [("stable", WhenNotReady::Stable), ("error", WhenNotReady::Error)];
        let when_not_ready =
            self.one_of("way", &format!("{path}.whenNotReady"), keys.get("whenNotReady").copied(), &ways);
        let overrides = at("match").map(|(path, node)| self.overrides(&path, node)).unwrap_or_default();
        let affinity = at("sessionAffinity").map(|(path, node)| self.affinity(&path, node)).unwrap_or_default();
        if let (Some((path, node)), Some(cookie)) = (at("match"), &affinity.cookie)
            && overrides.cookie.as_ref() == Some(&cookie.name)
        {
            let reason = format!("`{path}.cookie` is `{}`, the cookie that `cookieName` gives clients", cookie.name);
            self.report(node.place, &reason, "give one of the two another name");
        }
        let steps = self.growth(path, node, at("weight"), at("steps"));
        let analysis = at("analysis").and_then(|(path, node)| self.analysis(&path, node));
        let breaker = at("breaker").and_then(|(path, node)| self.breaker(&path, node));
        let webhooks = at("webhooks").map(|(path, node)| self.webhooks(&path, node)).unwrap_or_default();
        let Affinity { hash_on, cookie, salt } = affinity;
        let (version, steps) = (version?, steps?);
        Some(Arc::new(Canary {
            version,
            min_ready,
            when_not_ready,
            overrides,
            hash_on,
            cookie,
            salt,
            steps,
            analysis,
            breaker,
            webhooks,
        }))
    }

    pub(super) fn version(&mut self, path: &str, parent: &Node, node: Option<&Node>) -> Option<VersionName> {
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

    fn min_ready(&mut self, path: &str, node: &Node) -> Option<MinReady> {
        let text = self.text(path, node)?;
        let (digits, is_percent) = text.strip_suffix('%').map_or((text, false), |digits| (digits.trim_end(), true));
        let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u32>().ok()).flatten();
        match number {
            Some(number @ 1..=100) if is_percent => return Some(MinReady::Percent(number)),
            Some(number @ 1..) if !is_percent => return Some(MinReady::Instances(number)),
            _ => {}
        }
        let reason = format!("`{path}`: {text:?} is not a number of instances, nor a share of them");
        self.report(node.place, &reason, "write a whole number from 1, or percent from \"1%\" to \"100%\"");
        None
    }

    fn overrides(&mut self, path: &str, node: &Node) -> Overrides {
        let keys = self.keys(path, node, &["header", "cookie"]);
        if let (Value::Map(_) | Value::Null, None, None) = (&node.value, keys.get("header"), keys.get("cookie")) {
            let reason = format!("`{path}` names neither a header nor a cookie");
            self.report(node.place, &reason, "add `header: { name: X-Canary }`, or leave the key out");
        }
        let header = keys.get("header").and_then(|node| self.header_override(&format!("{path}.header"), node));
        let cookie = keys.get("cookie").and_then(|node| {
            let path = format!("{path}.cookie");
            let Some(name) = self.keys(&path, node, &["name"]).get("name").copied() else {
                self.report(node.place, &format!("`{path}` has no `name`"), "write `cookie: { name: canary }`");
                return None;
            };
            self.token("cookie", &format!("{path}.name"), name, "canary").map(str::to_owned)
        });
        Overrides { header, cookie }
    }

    fn header_override(&mut self, path: &str, node: &Node) -> Option<HeaderOverride> {
        let keys = self.keys(path, node, &["name", "value", "pattern"]);
        let name = match keys.get("name") {
            Some(node) => {
                let so = "no client could say anything by it";
                self.header(&format!("{path}.name"), node, so, "name a header that clients send, such as X-Canary")
            }
            None => {
                self.report(node.place, &format!("`{path}` has no `name`"), "write `header: { name: X-Canary }`");
                None
            }
        };
        let wanted = match (keys.get("value"), keys.get("pattern")) {
            (None, None) => Some(Wanted::AlwaysNever),
            (Some(node), None) => {
                let path = format!("{path}.value");
                let value = self.text(&path, node)?;
                let fits = !value.is_empty() && value.len() <= 256 && value.trim() == value;
                if !fits || !value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
                    let reason = format!("`{path}`: {value:?} is not a value that a header can have");
                    self.report(node.place, &reason, "write up to 256 visible ASCII characters");
                    return None;
                }
                Some(Wanted::Value(value.to_owned()))
            }
            (None, Some(node)) => {
                let path = format!("{path}.pattern");
                let pattern = self.text(&path, node)?;
                if let Err(reason) = pattern::check(pattern) {
                    let reason = format!("`{path}`: {pattern:?} cannot be used: {reason}");
                    self.report(
                        node.place,
                        &reason,
                        "write a short RE2 expression of the whole value, such as \"beta-.*\"",
                    );
                    return None;
                }
                Some(Wanted::Pattern(pattern.to_owned()))
            }
            (Some(_), Some(node)) => {
                let reason = format!("`{path}` has both `value` and `pattern`");
                self.report(node.place, &reason, "leave one of the two out");
                None
            }
        };
        Some(HeaderOverride { name: name?, wanted: wanted? })
    }

    fn affinity(&mut self, path: &str, node: &Node) -> Affinity {
        let keys = self.keys(path, node, &["hashOn", "cookieName", "maxAge", "salt"]);
        let mut hash_on = Vec::new();
        match keys.get("hashOn") {
            Some(node) => {
                let items = self.some_items(&format!("{path}.hashOn"), node);
                hash_on.extend(items.iter().filter_map(|item| self.hash_on(&format!("{path}.hashOn"), item)));
            }
            None => {
                self.report(
                    node.place,
                    &format!("`{path}` has no `hashOn`"),
                    "add `hashOn: [ { header: X-User-Id } ]`",
                );
            }
        }
        let max_age = keys.get("maxAge").and_then(|node| self.max_age(&format!("{path}.maxAge"), node));
        let cookie = keys.get("cookieName").and_then(|node| {
            let name = self.cookie_name(&format!("{path}.cookieName"), node, &hash_on)?;
            Some(AffinityCookie { name, max_age_s: max_age.unwrap_or(AGE) })
        });
        if let (Some(node), None) = (keys.get("maxAge"), keys.get("cookieName")) {
            let reason = format!("`{path}.maxAge` is that of a cookie, and no `cookieName` says of which");
            self.report(node.place, &reason, "add `cookieName`, or leave `maxAge` out");
        }
        let salts = [("rollout", Salt::Rollout), ("service", Salt::Service)];
        let salt = self.one_of("salt", &format!("{path}.salt"), keys.get("salt").copied(), &salts);
        Affinity { hash_on, cookie, salt }
    }

    fn max_age(&mut self, path: &str, node: &Node) -> Option<u32> {
        let text = self.text(path, node)?;
        if let Ok(duration) = crate::duration::parse(text) {
            let reason = format!("`{path}`: {text:?} is a duration, and the age of a cookie is in seconds");
            self.report(node.place, &reason, &format!("write {}", duration.as_secs()));
            return None;
        }
        self.whole(path, node, &AGES)
    }

    /// The cookie that is given: one of those that are hashed, and one that browsers take from plain HTTP.
    fn cookie_name(&mut self, path: &str, node: &Node, hash_on: &[HashOn]) -> Option<String> {
        let name = self.token("cookie", path, node, "tg_id")?;
        if ["__host-", "__secure-"].iter().any(|prefix| name.to_ascii_lowercase().starts_with(prefix)) {
            let reason = format!("`{path}`: browsers take `{name}` over HTTPS alone");
            self.report(node.place, &reason, "write a name without that beginning");
            return None;
        }
        let hashed = hash_on.iter().filter_map(|source| match source {
            HashOn::Cookie(name) => Some(name.as_str()),
            HashOn::Header(_) | HashOn::SourceIp => None,
        });
        if hashed.clone().any(|hashed| hashed == name) {
            return Some(name.to_owned());
        }
        let cure = suggest::did_you_mean(name, hashed, || format!("add `cookie: {name}` to `hashOn`"));
        self.report(node.place, &format!("`{path}`: no cookie `{name}` is in `hashOn`"), &cure);
        None
    }

    fn hash_on(&mut self, path: &str, node: &Node) -> Option<HashOn> {
        let keys = self.keys(path, node, &["header", "cookie", "sourceIp"]);
        match (keys.get("header"), keys.get("cookie"), keys.get("sourceIp")) {
            (Some(node), None, None) => {
                let so = "no client could have a key";
                self.header(path, node, so, "hash on a header that clients send").map(HashOn::Header)
            }
            (None, Some(node), None) => {
                self.token("cookie", path, node, "tg_id").map(|name| HashOn::Cookie(name.to_owned()))
            }
            (None, None, Some(node)) => match self.text(path, node)? {
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
                    &format!("an item of `{path}` is one of `header: NAME`, `cookie: NAME` and `sourceIp: true`"),
                    "write one key an item",
                );
                None
            }
        }
    }

    /// `weight` or `steps`.
    fn growth(
        &mut self,
        path: &str,
        parent: &Node,
        weight: Option<(String, &Node)>,
        steps: Option<(String, &Node)>,
    ) -> Option<Vec<Step>> {
        match (weight, steps) {
            (None, None) => {
                self.report(
                    parent.place,
                    &format!("`{path}` has neither `weight` nor `steps`"),
                    "add `weight: 10` for 10 % of the traffic",
                );
                None
            }
            (Some((path, node)), None) => {
                let weight = self.percent("weight", &path, node, &SHARES)?;
                Some(vec![Step::SetWeight(weight), Step::Pause(None)])
            }
            (None, Some((path, node))) => self.steps(&path, node),
            (Some((_, node)), Some(_)) => {
                let reason = format!("`{path}` has both `weight` and `steps`");
                self.report(
                    node.place,
                    &reason,
                    "leave `weight` out: it is one step, and no more until it is promoted",
                );
                None
            }
        }
    }

    fn steps(&mut self, path: &str, node: &Node) -> Option<Vec<Step>> {
        let before = self.problems.len();
        let mut steps = Vec::new();
        let mut weight = None;
        for item in self.some_items(path, node) {
            let Some(step) = self.step(path, item) else { continue };
            match (step, weight) {
                (Step::Mirror(_), Some(_)) => {
                    let reason =
                        format!("`{path}`: a mirror comes after a weight, when clients get the canary's answers");
                    self.report(item.place, &reason, "move it before the first `setWeight`");
                }
                (Step::SetWeight(next), Some(last)) if next < last => {
                    let reason = format!("`{path}`: the weight goes down from {} to {}", percent(last), percent(next));
                    self.report(item.place, &reason, "let each weight be the last one or more");
                }
                _ => {}
            }
            if let Step::SetWeight(next) = step {
                weight = Some(next);
            }
            steps.push(step);
        }
        (self.problems.len() == before).then_some(steps)
    }

    fn step(&mut self, path: &str, node: &Node) -> Option<Step> {
        let keys = self.keys(path, node, &["setWeight", "pause", "mirror"]);
        match (keys.get("setWeight"), keys.get("pause"), keys.get("mirror")) {
            (Some(node), None, None) => {
                self.percent("weight", &format!("{path}.setWeight"), node, &SHARES).map(Step::SetWeight)
            }
            (None, Some(node), None) => {
                let path = format!("{path}.pause");
                match self.keys(&path, node, &["duration"]).get("duration") {
                    Some(node) => {
                        let duration = self.duration(&format!("{path}.duration"), node, &PAUSES, "10m")?;
                        Some(Step::Pause(Some(duration)))
                    }
                    // A text or a list has been reported, and is no pause without end.
                    None => matches!(node.value, Value::Map(_) | Value::Null).then_some(Step::Pause(None)),
                }
            }
            (None, None, Some(node)) => {
                self.percent("share", &format!("{path}.mirror"), node, &(1..=WHOLE)).map(Step::Mirror)
            }
            _ => {
                let reason =
                    format!("an item of `{path}` is one of `setWeight: PERCENT`, `pause: {{}}` and `mirror: PERCENT`");
                self.report(node.place, &reason, "write one key an item");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
