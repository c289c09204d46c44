//! Who a client says it is.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{Node, node::UserAgentVersionType};

/// What a client says about itself; bounded, whatever it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node_id: Arc<str>,
    pub(crate) node_cluster: Arc<str>,
    pub(crate) user_agent: Arc<str>,
}

impl Identity {
    pub(super) fn of(node: &Node) -> Self {
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
                .version
                .as_ref()
                .map(|version| format!("{}.{}.{}", version.major_number, version.minor_number, version.patch))
                .unwrap_or_default(),
            None => String::new(),
        };
        let user_agent = format!("{} {version}", node.user_agent_name);
        Self {
            node_id: Arc::from(truncated(&node.id)),
            node_cluster: Arc::from(truncated(&node.cluster)),
            user_agent: Arc::from(truncated(user_agent.trim())),
        }
    }
}

/// At most 256 bytes of what a client calls itself: it is kept, logged and shown.
pub(super) fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(256)]
}
