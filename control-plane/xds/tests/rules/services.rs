//! One service for each type beside the aggregated one.

use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tidegate_xds::ResourceType;
use tonic::Code;
use tonic::client::Grpc;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

use crate::client::{Client, Got, Served, Speaks, commit, serve, service};

both! {
    each_type_has_a_service_of_its_own
    a_service_refuses_other_types
}

async fn each_type_has_a_service_of_its_own<V: Speaks>() {
    let Served { store, address, .. } = serve().await;
    store.open();
    for resource_type in ResourceType::ALL {
        commit(&store, resource_type, &["a"], "1");
        let mut client = Client::<V>::open(address, "edge-1", Some(resource_type)).await;
        client.subscribe(resource_type, &["a"]).await;
        let got = client.next().await;
        assert_eq!((got.resource_type(), got.names()), (resource_type, vec!["a".to_owned()]));
        client.answer(&got, &["a"], None).await;
        commit(&store, resource_type, &["a"], "2");
        assert_eq!(client.next().await.contents(), ["2"]);
    }
}

async fn a_service_refuses_other_types<V: Speaks>() {
    let Served { store, address, .. } = serve().await;
    store.open();
    let [routes, clusters] = [ResourceType::Route, ResourceType::Cluster];
    let mut client = Client::<V>::open(address, "edge-1", Some(routes)).await;
    client.subscribe(clusters, &["a"]).await;
    let status = client.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("RDS alone"), "{status}");
}

#[tokio::test]
async fn unary_methods_are_unimplemented() {
    let Served { store, address, .. } = serve().await;
    store.open();
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    for resource_type in ResourceType::ALL {
        let (package, service, _, fetch) = service(resource_type);
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let path = format!("/envoy.service.{package}.v3.{service}/{fetch}").parse().unwrap();
        let codec = ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
        let request = tonic::Request::new(DiscoveryRequest::default());
        let status = grpc.unary(request, path, codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{resource_type}");
        assert!(status.message().contains("streams alone"), "the service is there, the method is not: {status}");
    }
}
