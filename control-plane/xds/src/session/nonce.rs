//! What a response is called, so that its answer can be told from one that strayed.

use std::fmt;

use crate::resource::ResourceType;
use crate::status::ClientId;

/// Names a response. It names the stream and the type too, so that one that strayed is seen to be stale.
#[derive(Debug)]
pub(super) struct Nonce {
    pub(super) client: ClientId,
    pub(super) resource_type: ResourceType,
    pub(super) number: u64,
}

impl Nonce {
    /// The number of a response of this stream and type, or `None` for any other nonce.
    pub(super) fn parse(text: &str, client: ClientId, resource_type: ResourceType) -> Option<u64> {
        let (rest, number) = text.rsplit_once('-')?;
        let (owner, label) = rest.split_once('-')?;
        let ours = owner.parse() == Ok(client.0) && label == resource_type.label();
        ours.then(|| number.parse().ok()).flatten()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.client, self.resource_type, self.number)
    }
}
