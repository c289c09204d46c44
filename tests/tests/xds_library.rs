//! The example of the xDS library, as its documentation has it, and a real Envoy that asks it in either variant.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tidegate_tests::{
    envoy::Envoy,
    poll::{SOON, until},
    ports,
    process::Process,
    tidegate,
};

#[tokio::test]
async fn the_example_serves_its_cluster_to_an_envoy() -> Result<()> {
    let address = ports::free()?;
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(tidegate::locate_xds_example()?);
    let _example = Process::spawn("static_cluster", command.arg(address.to_string()), directory.path())?;
    for variant in ["DELTA_GRPC", "GRPC"] {
        let (ip, port) = (address.ip(), address.port());
        let mut envoy = Envoy::start(&format!(
            r#"
node: {{ id: edge-1, cluster: edge }}
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
dynamic_resources:
  ads_config:
    api_type: {variant}
    transport_api_version: V3
    grpc_services: [{{ envoy_grpc: {{ cluster_name: xds }} }}]
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: xds
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: xds
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{
        socket_address: {{ address: {ip}, port_value: {port} }} }} }} }}] }}]
"#
        ))
        .await?;
        envoy.ready(SOON).await?;
        until(SOON, "the cluster of the example", async || {
            let endpoints = envoy.endpoints("shop").await?.context("there is no such cluster")?;
            ensure!(endpoints.len() == 1 && endpoints[0].address == "127.0.0.1:9001", "{endpoints:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
