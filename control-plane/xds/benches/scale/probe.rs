//! Asks a server, by an ordinary client, whether it serves a variant at all.

use std::time::Duration;

use anyhow::{Context, Result};
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use futures_util::{StreamExt, stream};
use tidegate_xds::ResourceType;
use tonic::{Code, Status};

use crate::child::Command;
use crate::plan::Variant;
use crate::server::Server;

const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the server does anything but call the method unimplemented.
pub(crate) fn is_served(variant: Variant) -> Result<bool> {
    let mut server = Server::start(&Command::Serve, "", None)?;
    server.publish(1, 1)?;
    let url = format!("http://{}", server.address);
    let type_url = ResourceType::Cluster.type_url().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let first = runtime.block_on(async {
        let mut client = AggregatedDiscoveryServiceClient::connect(url).await?;
        let answer = async {
            match variant {
                Variant::Delta => {
                    let request = DeltaDiscoveryRequest { type_url, ..Default::default() };
                    let requests = stream::iter([request]).chain(stream::pending());
                    client.delta_aggregated_resources(requests).await?.into_inner().message().await.map(drop)
                }
                Variant::StateOfTheWorld => {
                    let request = DiscoveryRequest { type_url, ..Default::default() };
                    let requests = stream::iter([request]).chain(stream::pending());
                    client.stream_aggregated_resources(requests).await?.into_inner().message().await.map(drop)
                }
            }
        };
        let answer: Result<(), Status> = tokio::time::timeout(PATIENCE, answer).await.context("no answer")?;
        anyhow::Ok(answer)
    })?;
    match first {
        Ok(()) => Ok(true),
        Err(status) if status.code() == Code::Unimplemented => Ok(false),
        Err(status) => Err(status).context("probe"),
    }
}
