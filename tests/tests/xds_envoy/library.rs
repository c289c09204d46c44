//! An xDS server of the library in this process, resources for it, and the cable between it and a real Envoy, which can be
//! cut and can be made to carry nothing from the client.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use envoy_types::{
    pb::{
        envoy::{
            config::{
                cluster::v3::{
                    Cluster,
                    cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
                },
                core::v3::{
                    Address, AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService,
                    SocketAddress,
                    address::Address as AddressKind,
                    api_config_source::ApiType,
                    config_source::ConfigSourceSpecifier,
                    grpc_service::{EnvoyGrpc, TargetSpecifier},
                    socket_address::PortSpecifier,
                },
                endpoint::v3::{
                    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
                },
                listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
                route::v3::{
                    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
                    route_action::ClusterSpecifier, route_match::PathSpecifier,
                },
            },
            extensions::filters::{
                http::router::v3::Router,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
                    http_filter::ConfigType as HttpConfigType,
                },
            },
        },
        google::protobuf,
    },
    util::pack_any,
};
use serde_json::{Value, json};
use tidegate_tests::{
    client::{Answer, Request},
    edge::{Variant, host},
    envoy::Envoy,
    poll::{SOON, until},
    ports,
};
use tidegate_xds::{ClientStatus, Commit, ResourceType, ServeError, ServerConfig, Snapshot, Store, TypeStatus, serve};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::{oneshot, watch},
    task::JoinSet,
};

/// The static cluster that leads to the server, and the one listener and route table.
const XDS: &str = "xds";
const WEB: &str = "web";

/// How Envoy gets its resources.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transport {
    pub(crate) variant: Variant,
    /// One stream for all types, or one for each.
    pub(crate) aggregated: bool,
}

impl Transport {
    fn source(self) -> ConfigSource {
        let specifier = if self.aggregated {
            ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())
        } else {
            let api_type = match self.variant {
                Variant::Delta => ApiType::DeltaGrpc,
                Variant::Sotw => ApiType::Grpc,
            };
            let server = EnvoyGrpc { cluster_name: XDS.to_owned(), ..EnvoyGrpc::default() };
            ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
                api_type: api_type.into(),
                transport_api_version: ApiVersion::V3.into(),
                grpc_services: vec![GrpcService {
                    target_specifier: Some(TargetSpecifier::EnvoyGrpc(server)),
                    ..GrpcService::default()
                }],
                ..ApiConfigSource::default()
            })
        };
        ConfigSource {
            resource_api_version: ApiVersion::V3.into(),
            config_source_specifier: Some(specifier),
            ..ConfigSource::default()
        }
    }

    fn bootstrap(self, node: &str, server: SocketAddr) -> String {
        let api = json!({
            "api_type": self.variant.api_type(),
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": {
                "cluster_name": XDS,
                "retry_policy": { "retry_back_off": { "base_interval": "0.05s", "max_interval": "0.3s" } },
            } }],
        });
        let source = if self.aggregated {
            json!({ "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" })
        } else {
            json!({ "api_config_source": api, "resource_api_version": "V3", "initial_fetch_timeout": "0s" })
        };
        let mut dynamic = json!({ "cds_config": source, "lds_config": source });
        if self.aggregated {
            dynamic["ads_config"] = api;
        }
        let socket = |address: SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
        json!({
            "node": { "id": node, "cluster": "tests" },
            "admin": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } } },
            "dynamic_resources": dynamic,
            "static_resources": { "clusters": [{
                "name": XDS,
                "type": "STATIC",
                "connect_timeout": "0.25s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": { "http2_protocol_options": {} },
                    },
                },
                "load_assignment": {
                    "cluster_name": XDS,
                    "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket(server) } }] }],
                },
            }] },
        })
        .to_string()
    }
}

/// A server on a port, until it is stopped or dropped.
struct Server {
    stop: oneshot::Sender<()>,
    tasks: JoinSet<Result<(), ServeError>>,
}

impl Server {
    async fn start(store: &Store, address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (stop, stopped) = oneshot::channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(store.clone(), listener, ServerConfig::default(), async {
            // Dropped is stopped.
            let _ = stopped.await;
        }));
        Ok(Self { stop, tasks })
    }

    async fn stop(mut self) -> Result<()> {
        let _ = self.stop.send(());
        self.tasks.join_next().await.context("it serves")???;
        Ok(())
    }
}

/// A server, a cable, an Envoy.
pub(crate) struct World {
    pub(crate) envoy: Envoy,
    pub(crate) store: Store,
    pub(crate) cable: Cable,
    /// Where clients connect.
    pub(crate) listener: SocketAddr,
    pub(crate) transport: Transport,
    server: Server,
}

impl World {
    /// Serves these services, each with what answers for it.
    pub(crate) async fn start(transport: Transport, services: &[(&str, &[SocketAddr])]) -> Result<Self> {
        let (store, listener) = (Store::new(), ports::free()?);
        let mut commit = Commit::default();
        for (service, backends) in services {
            commit.upsert(ResourceType::Cluster, *service, &cluster(service, transport, 1));
            commit.upsert(ResourceType::Endpoint, *service, &assignment(service, backends));
        }
        let names: Vec<&str> = services.iter().map(|(service, _)| *service).collect();
        commit.upsert(ResourceType::Route, WEB, &routes(&names));
        commit.upsert(ResourceType::Listener, WEB, &web(listener, transport));
        store.commit(commit);
        store.open();
        let address = ports::free()?;
        let server = Server::start(&store, address).await?;
        let cable = Cable::start(address)?;
        let envoy = start_envoy("first", transport, cable.address).await?;
        Ok(Self { envoy, store, cable, listener, transport, server })
    }

    /// Another Envoy beside the first, or in its place.
    pub(crate) async fn another_envoy(&self) -> Result<Envoy> {
        start_envoy("second", self.transport, self.cable.address).await
    }

    /// Another server in the place of this one, with the same resources in a store of its own.
    pub(crate) async fn with_new_server(self) -> Result<Self> {
        let Self { envoy, store, cable, listener, transport, server } = self;
        let mut published = Vec::new();
        store.snapshot().write_to(&mut published)?;
        server.stop().await?;
        let store = Store::new();
        store.restore(Snapshot::decode(&published)?);
        store.open();
        let server = Server::start(&store, cable.server).await?;
        Ok(Self { envoy, store, cable, listener, transport, server })
    }

    /// The cluster of a service, told apart by its connect timeout in seconds.
    pub(crate) fn cluster(&self, service: &str, seconds: i64) -> Cluster {
        cluster(service, self.transport, seconds)
    }

    pub(crate) async fn get(&self, service: &str) -> Result<Answer> {
        Request::get(self.listener, "/").host(&host(service)).send().await
    }

    /// Waits until a service answers with this status.
    pub(crate) async fn answers(&self, service: &str, status: u16) -> Result<()> {
        until(SOON, &format!("status {status} of {service}"), async || {
            let answer = self.get(service).await?;
            ensure!(answer.status == status, "status {}: {}", answer.status, answer.text().trim());
            Ok(())
        })
        .await
    }

    /// What the server knows of the only stream that there is.
    pub(crate) fn client(&self) -> Result<ClientStatus> {
        let mut clients = self.store.clients();
        ensure!(clients.len() == 1, "there are {} clients", clients.len());
        clients.pop().context("a client")
    }

    pub(crate) fn status_of(&self, resource_type: ResourceType) -> Result<TypeStatus> {
        let status = self.client()?.types.into_iter().find(|status| status.resource_type == resource_type);
        status.context("every type is there")
    }

    /// Waits until the client has accepted everything and Envoy warms nothing.
    pub(crate) async fn settled(&self, limit: Duration) -> Result<()> {
        until(limit, "everything to be in force", async || {
            let client = self.client()?;
            ensure!(client.is_synced(), "{:#?}", client.types);
            let warming = self.envoy.stat("cluster_manager.warming_clusters").await?;
            ensure!(warming == 0, "{warming} clusters are warming");
            Ok(())
        })
        .await
    }
}

async fn start_envoy(node: &str, transport: Transport, server: SocketAddr) -> Result<Envoy> {
    let mut envoy = Envoy::start(&transport.bootstrap(node, server)).await?;
    envoy.ready(SOON).await?;
    Ok(envoy)
}

/// The connect timeout of a cluster that is in force, in seconds, as Envoy writes it.
pub(crate) async fn in_force(envoy: &Envoy, cluster: &str) -> Result<String> {
    let dump = envoy.get("/config_dump?resource=dynamic_active_clusters").await?.json()?;
    let clusters = dump["configs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = clusters.iter().map(|of| &of["cluster"]).find(|of| of["name"] == cluster);
    let timeout = found.and_then(|of: &Value| of["connect_timeout"].as_str());
    Ok(timeout.with_context(|| format!("no {cluster} in {dump}"))?.to_owned())
}

fn cluster(name: &str, transport: Transport, seconds: i64) -> Cluster {
    Cluster {
        name: name.to_owned(),
        connect_timeout: Some(protobuf::Duration { seconds, nanos: 0 }),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(transport.source()),
            ..EdsClusterConfig::default()
        }),
        ..Cluster::default()
    }
}

pub(crate) fn assignment(cluster: &str, backends: &[SocketAddr]) -> ClusterLoadAssignment {
    let endpoint = |backend: &SocketAddr| LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(*backend)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let endpoints =
        LocalityLbEndpoints { lb_endpoints: backends.iter().map(endpoint).collect(), ..LocalityLbEndpoints::default() };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: if backends.is_empty() { Vec::new() } else { vec![endpoints] },
        ..ClusterLoadAssignment::default()
    }
}

/// The table in which each service has its host, and its cluster.
pub(crate) fn routes(services: &[&str]) -> RouteConfiguration {
    let to_itself: Vec<_> = services.iter().map(|service| (*service, *service)).collect();
    routes_to(&to_itself)
}

/// The same with another cluster for some.
pub(crate) fn routes_to(services: &[(&str, &str)]) -> RouteConfiguration {
    let virtual_host = |(service, cluster): &(&str, &str)| VirtualHost {
        name: (*service).to_owned(),
        domains: vec![host(service)],
        routes: vec![Route {
            r#match: Some(RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
                ..RouteMatch::default()
            }),
            action: Some(Action::Route(RouteAction {
                cluster_specifier: Some(ClusterSpecifier::Cluster((*cluster).to_owned())),
                ..RouteAction::default()
            })),
            ..Route::default()
        }],
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: WEB.to_owned(),
        virtual_hosts: services.iter().map(virtual_host).collect(),
        ..RouteConfiguration::default()
    }
}

fn web(at: SocketAddr, transport: Transport) -> Listener {
    let manager = HttpConnectionManager {
        stat_prefix: WEB.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(transport.source()),
            route_config_name: WEB.to_owned(),
        })),
        http_filters: vec![HttpFilter {
            name: "router".to_owned(),
            config_type: Some(HttpConfigType::TypedConfig(pack_any(Router::default()))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    };
    let filter = Filter { name: "http".to_owned(), config_type: Some(ConfigType::TypedConfig(pack_any(manager))) };
    Listener {
        name: WEB.to_owned(),
        address: Some(address(at)),
        filter_chains: vec![FilterChain { filters: vec![filter], ..FilterChain::default() }],
        ..Listener::default()
    }
}

fn address(of: SocketAddr) -> Address {
    let socket = SocketAddress {
        address: of.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(of.port().into())),
        ..SocketAddress::default()
    };
    Address { address: Some(AddressKind::SocketAddress(socket)) }
}

/// A TCP port that leads to a server.
pub(crate) struct Cable {
    address: SocketAddr,
    server: SocketAddr,
    muted: watch::Sender<bool>,
    /// Takes connections and carries them; none while it is cut.
    tasks: JoinSet<()>,
}

impl Cable {
    fn start(server: SocketAddr) -> Result<Self> {
        let mut cable =
            Self { address: ports::free()?, server, muted: watch::Sender::new(false), tasks: JoinSet::new() };
        cable.mend()?;
        Ok(cable)
    }

    /// What clients say from now on arrives when they are heard again, or never, if it is cut before.
    pub(crate) fn mute(&self) {
        self.muted.send_replace(true);
    }

    /// Every connection ends, and none is taken.
    pub(crate) async fn cut(&mut self) {
        self.tasks.shutdown().await;
        self.muted.send_replace(false);
    }

    pub(crate) fn mend(&mut self) -> Result<()> {
        let listener = std::net::TcpListener::bind(self.address)?;
        listener.set_nonblocking(true)?;
        self.tasks.spawn(carry_all(TcpListener::from_std(listener)?, self.server, self.muted.subscribe()));
        Ok(())
    }
}

async fn carry_all(listener: TcpListener, server: SocketAddr, muted: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let muted = muted.clone();
        connections.spawn(async move {
            // Whoever ends it first ends it.
            let _ = carry(client, server, muted).await;
        });
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut muted: watch::Receiver<bool>) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let said = async {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            let read = from_client.read(&mut bytes).await?;
            if read == 0 {
                return anyhow::Ok(());
            }
            muted.wait_for(|muted| !muted).await?;
            to_server.write_all(&bytes[..read]).await?;
        }
    };
    tokio::select! {
        ended = said => ended,
        ended = copy(&mut from_server, &mut to_client) => Ok(ended.map(drop)?),
    }
}
