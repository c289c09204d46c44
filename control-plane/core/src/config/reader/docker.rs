//! `providers.docker`: one engine, or several with names, and what can be wrong with them.

use std::collections::BTreeMap;

use super::super::docker::{Docker, DockerEngine, DockerTls};
use super::super::tree::{Node, Place};
use super::Reader;
use crate::VersionName;

const DOCKER: &str = "providers.docker";
const ENGINES: &str = "providers.docker.engines";

impl Reader<'_> {
    /// `can_be_off`: there is another source of instances.
    pub(super) fn docker(&mut self, node: &Node, can_be_off: bool) -> Docker {
        let keys = self.keys(DOCKER, node, &["enabled", "endpoint", "tls", "engines", "trustImageLabels"]);
        let mut docker = Docker::default();
        if let Some(node) = keys.get("trustImageLabels")
            && let Some(trust) = self.truth("providers.docker.trustImageLabels", node)
        {
            docker.trust_image_labels = trust;
        }
        if let Some(node) = keys.get("enabled") {
            match self.truth("providers.docker.enabled", node) {
                Some(true) | None => {}
                Some(false) if can_be_off => docker.enabled = false,
                Some(false) => self.report(
                    node.place,
                    "without Docker there is no source of instances",
                    "set `providers.file.path`, or leave `enabled` out",
                ),
            }
        }
        let only = self.engine(DOCKER, None, node.place, &keys);
        if let Some(list) = keys.get("engines") {
            if let Some(beside) = keys.get("endpoint").or(keys.get("tls")) {
                self.report(
                    beside.place,
                    "`providers.docker` has `engines`, and an engine of its own beside them",
                    "move it into the list, with a `name`",
                );
            }
            docker.engines = self.engines(list);
        } else {
            docker.engines = only.into_iter().collect();
        }
        docker
    }

    fn engines(&mut self, node: &Node) -> Vec<DockerEngine> {
        let mut engines: Vec<DockerEngine> = Vec::new();
        let items = self.items(ENGINES, node);
        if items.is_empty() {
            self.report(node.place, "`providers.docker.engines` names no engine", "name one, or leave the key out");
        }
        for item in items {
            let keys = self.keys(ENGINES, item, &["name", "endpoint", "tls", "required"]);
            let name = keys.get("name").and_then(|node| {
                let name = self.text("providers.docker.engines.name", node)?;
                Some(self.name(node.place, "an engine", name, VersionName::new)?.as_str().to_owned())
            });
            let engine = self.engine(ENGINES, name, item.place, &keys);
            if !keys.contains_key("name") || !keys.contains_key("endpoint") {
                let cure = "write { name: build, endpoint: \"tcp://10.0.0.2:2376\" }";
                self.report(item.place, "an engine of a list needs `name` and `endpoint`", cure);
                continue;
            }
            let Some(mut engine) = engine.filter(|engine| engine.name.is_some()) else { continue };
            if let Some(node) = keys.get("required")
                && let Some(required) = self.truth("providers.docker.engines.required", node)
            {
                engine.required = required;
            }
            let twin = engines.iter().find(|other| other.name == engine.name || other.endpoint == engine.endpoint);
            if twin.is_some() {
                let reason = "another engine before this one has its name or its endpoint";
                self.report(item.place, reason, "give each engine its own name, and name each once");
            } else {
                engines.push(engine);
            }
        }
        engines
    }

    fn engine(
        &mut self,
        path: &str,
        name: Option<String>,
        place: Place,
        keys: &BTreeMap<&str, &Node>,
    ) -> Option<DockerEngine> {
        let endpoint = match keys.get("endpoint") {
            Some(node) => self.endpoint(&format!("{path}.endpoint"), node),
            None => Some(DockerEngine::default().endpoint),
        };
        let tls = keys.get("tls").and_then(|node| self.docker_tls(&format!("{path}.tls"), node));
        let engine = DockerEngine { name, endpoint: endpoint?, tls, required: true };
        if engine.tls.is_some() && !engine.endpoint.starts_with("tcp://") {
            let reason = format!("`{path}.tls` is for an engine at a socket, which has no TLS");
            self.report(place, &reason, "leave `tls` out, or write \"tcp://HOST:PORT\" as the endpoint");
        }
        Some(engine)
    }

    fn endpoint(&mut self, path: &str, node: &Node) -> Option<String> {
        let text = self.text(path, node)?;
        if text.starts_with("unix:///") || text.starts_with("tcp://") {
            return Some(text.to_owned());
        }
        let reason = format!("`{path}`: {text:?} is not an endpoint");
        self.report(node.place, &reason, "write \"unix:///var/run/docker.sock\" or \"tcp://HOST:PORT\"");
        None
    }

    fn docker_tls(&mut self, path: &str, node: &Node) -> Option<DockerTls> {
        let keys = self.keys(path, node, &["ca", "cert", "key"]);
        let mut file = |key: &str| {
            let text = self.text(&format!("{path}.{key}"), keys.get(key)?)?;
            Some(text.to_owned()).filter(|text| !text.is_empty())
        };
        let (ca, cert, key) = (file("ca"), file("cert"), file("key"));
        let Some(ca) = ca else {
            self.report(node.place, &format!("`{path}` has no `ca`"), "add `ca: FILE`, a PEM file");
            return None;
        };
        let shown = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                let reason = format!("`{path}` has one of `cert` and `key`");
                self.report(node.place, &reason, "add the other, or leave both out");
                None
            }
        };
        Some(DockerTls { ca, shown })
    }
}
