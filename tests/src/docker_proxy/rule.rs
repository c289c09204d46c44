//! The rule of the socket proxy that we ship: read from its file, not from a copy.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use regex::Regex;

/// Which requests may reach the engine.
pub struct Rule {
    get: Regex,
    head: Regex,
}

impl Rule {
    /// That of `envoy/docker-proxy/compose.yaml`.
    pub fn shipped() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/docker-proxy/compose.yaml");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let rule = |option: &str| {
            let found = text.lines().find_map(|line| line.trim().strip_prefix("- '-")?.strip_prefix(option));
            let found = found.and_then(|rest| rest.strip_prefix('=')?.strip_suffix('\''));
            // As the proxy anchors it.
            let pattern = format!("^{}$", found.with_context(|| format!("there is no -{option}"))?);
            Regex::new(&pattern).with_context(|| pattern.clone())
        };
        Ok(Self { get: rule("allowGET")?, head: rule("allowHEAD")? })
    }

    /// Judges the first line of a request, by its method and its path without the query.
    pub fn allows(&self, line: &str) -> bool {
        let mut words = line.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return false };
        let path = target.split('?').next().unwrap_or(target);
        match method {
            "GET" => self.get.is_match(path),
            "HEAD" => self.head.is_match(path),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_allowed_and_nothing_else() {
        let rule = Rule::shipped().unwrap();
        for line in [
            "HEAD /_ping HTTP/1.1",
            "GET /_ping HTTP/1.1",
            "GET /v1.41/_ping HTTP/1.1",
            "GET /version HTTP/1.1",
            "GET /v1.41/events?since=1.000000000&filters=%7B%7D HTTP/1.1",
            "GET /v1.41/containers/json?all=true HTTP/1.1",
            "GET /v1.52/containers/3f9c1a2b77d0/json HTTP/1.1",
            "GET /v1.41/images/sha256:77d0/json HTTP/1.1",
        ] {
            assert!(rule.allows(line), "{line}");
        }
        for line in [
            "POST /v1.41/containers/create HTTP/1.1",
            "POST /v1.41/containers/3f9c/json HTTP/1.1",
            "DELETE /v1.41/containers/3f9c HTTP/1.1",
            "HEAD /v1.41/containers/3f9c/archive HTTP/1.1",
            "GET /v1.41/containers/3f9c/logs?stdout=1 HTTP/1.1",
            "GET /v1.41/containers/3f9c/archive?path=/json HTTP/1.1",
            "GET /v1.41/containers/3f9c/export HTTP/1.1",
            "GET /v1.41/containers/../secrets/json HTTP/1.1",
            "GET /v1.41/containers/a/b/json HTTP/1.1",
            "GET /v1.41/images/a/../../json HTTP/1.1",
            "GET /v1.41/images/json HTTP/1.1",
            "GET /v1.41/secrets HTTP/1.1",
            "GET /v1.41/plugins HTTP/1.1",
            "GET /info HTTP/1.1",
            "GET /v1.41/version/x HTTP/1.1",
            "GET /v1.411/version HTTP/1.1",
            "GET",
            "",
        ] {
            assert!(!rule.allows(line), "{line}");
        }
    }
}
