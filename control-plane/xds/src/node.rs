//! Who a client says it is: an excerpt of Envoy's `Node`, bounded whatever the client says, because it is kept for as long
//! as the stream lives, and logged and shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{Node as Message, node::UserAgentVersionType};
use envoy_types::pb::google::protobuf::value::Kind;

/// How many bytes of a text are kept.
const MAX_TEXT: usize = 256;
/// How many entries of the metadata, and how many features.
const MAX_ENTRIES: usize = 64;

/// What a client says about itself in its first request. Texts are cut at 256 bytes; what it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The node's id as its bootstrap gives it.
    pub id: Arc<str>,
    /// The node's cluster: which fleet it belongs to.
    pub cluster: Arc<str>,
    /// The name and version of the client's software: `envoy 1.40.0`.
    pub user_agent: Arc<str>,
    /// Where it runs: `REGION/ZONE/SUB_ZONE`, without the empty ones at the end.
    pub locality: Arc<str>,
    /// The entries of its metadata that are a text, a number or a truth value, the first 64 by name.
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
    /// The client features that it announces, such as `xds.config.resource-in-sotw`, at most 64.
    pub features: Vec<Arc<str>>,
}

impl Node {
    pub(crate) fn of(message: &Message) -> Self {
        let version = match &message.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
                .version
                .as_ref()
                .map(|version| format!("{}.{}.{}", version.major_number, version.minor_number, version.patch))
                .unwrap_or_default(),
            None => String::new(),
        };
        let user_agent = format!("{} {version}", message.user_agent_name);
        let locality = message.locality.as_ref().map(|it| format!("{}/{}/{}", it.region, it.zone, it.sub_zone));
        let mut metadata: Vec<_> = message.metadata.iter().flat_map(|metadata| &metadata.fields).collect();
        metadata.sort_unstable_by_key(|(name, _)| *name);
        let metadata = metadata.into_iter().filter_map(|(name, value)| {
            let value = match value.kind.as_ref()? {
                Kind::StringValue(text) => truncated(text).to_owned(),
                Kind::NumberValue(number) => number.to_string(),
                Kind::BoolValue(truth) => truth.to_string(),
                Kind::NullValue(_) | Kind::StructValue(_) | Kind::ListValue(_) => return None,
            };
            Some((Arc::from(truncated(name)), Arc::from(value)))
        });
        Self {
            id: Arc::from(truncated(&message.id)),
            cluster: Arc::from(truncated(&message.cluster)),
            user_agent: Arc::from(truncated(user_agent.trim())),
            locality: Arc::from(truncated(locality.as_deref().unwrap_or_default().trim_end_matches('/'))),
            metadata: metadata.take(MAX_ENTRIES).collect(),
            features: message.client_features.iter().take(MAX_ENTRIES).map(|it| Arc::from(truncated(it))).collect(),
        }
    }
}

/// The part of a text that is kept.
pub(crate) fn truncated(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::Locality;
    use envoy_types::pb::google::protobuf::{Struct, Value};

    use super::*;

    #[test]
    fn what_a_client_says_is_bounded() {
        let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        let nested = Value { kind: Some(Kind::StructValue(Struct::default())) };
        let fields = (0..100).map(|n| (format!("{n:03}"), text(&"x".repeat(1000))));
        let node = Node::of(&Message {
            id: "é".repeat(1000),
            locality: Some(Locality { region: "eu".to_owned(), zone: "a".to_owned(), ..Locality::default() }),
            metadata: Some(Struct { fields: fields.chain([("nested".to_owned(), nested)]).collect() }),
            client_features: vec!["f".repeat(1000); 1000],
            ..Message::default()
        });
        assert_eq!(node.id.len(), 256);
        assert_eq!(&*node.locality, "eu/a");
        assert_eq!(node.metadata.len(), 64);
        assert!(node.metadata.iter().all(|(name, value)| name.len() == 3 && value.len() == 256));
        assert_eq!((node.features.len(), node.features[0].len()), (64, 256));
    }
}
