//! Who issues the certificates of a service's instances.

use std::sync::Arc;

use super::super::ServiceTls;
use super::super::tree::Node;
use super::Reader;
use crate::words::validate_host;

impl Reader<'_> {
    /// Whether the file is there is for whoever reads it to say.
    pub(super) fn service_tls(&mut self, path: &str, node: &Node) -> Option<Arc<ServiceTls>> {
        let keys = self.keys(path, node, &["ca", "serverName"]);
        let server_name = keys.get("serverName").and_then(|node| {
            let path = format!("{path}.serverName");
            match validate_host(self.text(&path, node)?) {
                Ok(name) => Some(name),
                Err(reason) => {
                    self.report(node.place, &format!("`{path}`: {reason}"), "write a name such as `shop.internal`");
                    None
                }
            }
        });
        let ca = match keys.get("ca") {
            Some(node) => {
                let ca = self.text(&format!("{path}.ca"), node)?;
                if ca.is_empty() {
                    self.report(node.place, &format!("`{path}.ca` is empty"), "name a PEM file of authorities");
                }
                ca.to_owned()
            }
            None => {
                self.report(node.place, &format!("`{path}` has no `ca`"), "add `ca: FILE`, a PEM file of authorities");
                return None;
            }
        };
        Some(Arc::new(ServiceTls { ca, server_name, authorities: String::new() }))
    }
}
