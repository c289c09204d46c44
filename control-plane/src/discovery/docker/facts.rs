//! From Docker's answers to the facts that tidegate may know: inspect and list in, [`Container`] out. Pure. The type that an
//! inspect is read into has no field for the environment, mounts or command line, so no secret in them is ever kept.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bollard::models::{ContainerSummary, EndpointSettings, PortSummary, PortSummaryTypeEnum};
use serde::Deserialize;
use tidegate_core::Timestamp;
use tidegate_core::container::Container;
use tidegate_core::instance::{DockerHealth, Phase};
use tidegate_core::labels;

use super::signal;

/// Docker's own stop timeout, where a container names none.
pub(super) const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What an inspect tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inspected {
    /// The facts.
    pub(super) facts: Container,
    /// How the container is told to stop.
    pub(super) stop: Stop,
}

/// How a container is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    /// The signal that asks it to end.
    pub(super) signal: u8,
    /// How long Docker waits before it kills.
    pub(super) timeout: Duration,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: signal::TERM, timeout: DEFAULT_STOP_TIMEOUT }
    }
}

/// The parts of `GET /containers/{id}/json` that are read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspect {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    created: String,
    #[serde(default)]
    state: State,
    #[serde(default)]
    config: Option<Config>,
    #[serde(default)]
    host_config: Option<HostConfig>,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    #[serde(default)]
    status: String,
    #[serde(default)]
    started_at: String,
    #[serde(default)]
    exit_code: i64,
    #[serde(default, rename = "OOMKilled")]
    oom_killed: bool,
    #[serde(default)]
    health: Option<Health>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    #[serde(default)]
    status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    #[serde(default)]
    stop_signal: Option<String>,
    #[serde(default)]
    stop_timeout: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    #[serde(default)]
    network_mode: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<HashMap<String, Option<Endpoint>>>,
    #[serde(default)]
    ports: Option<HashMap<String, Option<Vec<PortBinding>>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PortBinding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

#[derive(Debug, Default, Deserialize)]
struct Endpoint {
    #[serde(default, rename = "IPAddress")]
    ip_address: Option<String>,
    #[serde(default, rename = "GlobalIPv6Address")]
    global_ipv6_address: Option<String>,
}

impl Inspect {
    /// The id of its image.
    pub(super) fn image(&self) -> &str {
        &self.image
    }
}

impl From<Inspect> for Inspected {
    fn from(inspect: Inspect) -> Self {
        let State { status, started_at, exit_code, oom_killed, health } = inspect.state;
        let config = inspect.config.unwrap_or_default();
        let NetworkSettings { networks, ports } = inspect.network_settings.unwrap_or_default();
        let networks = networks.unwrap_or_default();
        let bindings = ports.unwrap_or_default().into_iter().flat_map(|(port, bindings)| {
            let port = port.strip_suffix("/tcp").and_then(|port| port.parse().ok());
            let bindings = bindings.unwrap_or_default().into_iter();
            bindings.filter_map(move |binding| Some((port?, binding.host_ip, binding.host_port.parse().ok()?)))
        });
        let published = published(bindings);
        let stop_timeout = config
            .stop_timeout
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DEFAULT_STOP_TIMEOUT, Duration::from_secs);
        let labels = labels::kept(config.labels.unwrap_or_default());
        let stop = Stop {
            signal: config.stop_signal.as_deref().and_then(signal::parse).unwrap_or(signal::TERM),
            // `docker stop -t` tells nobody its time; the label can.
            timeout: stop_timeout.max(labels::drain(&labels).unwrap_or_default()),
        };
        let facts = Container {
            id: inspect.id,
            name: plain_name(&inspect.name),
            created: timestamp(&inspect.created),
            started_at,
            phase: phase(&status, exit_code, oom_killed),
            health: health.and_then(|health| health_of(&health.status)),
            labels,
            tcp_ports: tcp_ports(config.exposed_ports.unwrap_or_default().into_keys()),
            network_mode: inspect.host_config.unwrap_or_default().network_mode,
            networks: networks
                .into_iter()
                .map(|(name, endpoint)| {
                    let endpoint = endpoint.unwrap_or_default();
                    (name, address(endpoint.ip_address.as_deref(), endpoint.global_ipv6_address.as_deref()))
                })
                .collect(),
            published,
            ..Container::default()
        };
        Self { facts, stop }
    }
}

/// What the list tells of one container: no start of its run, no exposed ports of one that does not run, no exit code. Enough
/// for a container that is not enabled, and to see that something changed in one that is. `None` without an id.
pub(super) fn listed(summary: ContainerSummary) -> Option<Container> {
    let status = summary.status.unwrap_or_default();
    let phase = phase(&summary.state.map(|state| state.to_string()).unwrap_or_default(), exit_code(&status), false);
    let networks = summary.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let names = summary.names.unwrap_or_default();
    let tcp = |port: &PortSummary| port.typ == Some(PortSummaryTypeEnum::TCP);
    let ports = summary.ports.unwrap_or_default().into_iter().filter(tcp);
    // Legacy links add names such as `/other/alias`.
    let name = names.iter().find(|name| !name.trim_start_matches('/').contains('/')).or(names.first());
    Some(Container {
        id: summary.id?,
        name: name.map(|name| plain_name(name)).unwrap_or_default(),
        created: Timestamp::from_millis(
            summary.created.and_then(|s| u64::try_from(s).ok()).unwrap_or(0).saturating_mul(1000),
        ),
        started_at: String::new(),
        health: listed_health(&status),
        phase,
        labels: labels::kept(summary.labels.unwrap_or_default()),
        tcp_ports: Vec::new(),
        network_mode: summary.host_config.and_then(|config| config.network_mode).unwrap_or_default(),
        networks: networks.into_iter().map(|(name, endpoint)| (name, endpoint_address(&endpoint))).collect(),
        published: published(ports.filter_map(|port| Some((port.private_port, port.ip?, port.public_port?)))),
        ..Container::default()
    })
}

/// Whether the list says something else than what is known of a container.
pub(super) fn differs(listed: &Container, known: &Container) -> bool {
    let lives = |phase: &Phase| matches!(phase, Phase::Running | Phase::Paused);
    let alive = lives(&listed.phase);
    std::mem::discriminant(&listed.phase) != std::mem::discriminant(&known.phase)
        || listed.name != known.name
        || listed.labels != known.labels
        // The list shows health and addresses of what is up; of what is down, both are left-overs.
        || (alive
            && (listed.health != known.health
                || listed.networks != known.networks
                || listed.published != known.published))
}

fn plain_name(name: &str) -> String {
    name.trim_start_matches('/').to_owned()
}

fn phase(status: &str, code: i64, oom: bool) -> Phase {
    match status {
        // `stopping` is what newer engines call the time between the signal and the end: the `kill` event said it already.
        "running" | "stopping" => Phase::Running,
        "paused" => Phase::Paused,
        "restarting" => Phase::Restarting,
        "created" => Phase::Created,
        // `exited`, `dead`, `removing`, and whatever a later engine invents: unknown is not running.
        _ => Phase::Exited { code, oom },
    }
}

fn health_of(status: &str) -> Option<DockerHealth> {
    match status {
        "starting" => Some(DockerHealth::Starting),
        "healthy" => Some(DockerHealth::Healthy),
        "unhealthy" => Some(DockerHealth::Unhealthy),
        // `none` and the empty text: no HEALTHCHECK.
        _ => None,
    }
}

/// From the text for people (`Up 2 minutes (healthy)`): before API 1.52 the list says it nowhere else.
fn listed_health(status: &str) -> Option<DockerHealth> {
    if status.contains("(health: starting)") {
        Some(DockerHealth::Starting)
    } else if status.contains("(unhealthy)") {
        Some(DockerHealth::Unhealthy)
    } else if status.contains("(healthy)") {
        Some(DockerHealth::Healthy)
    } else {
        None
    }
}

/// From `Exited (137) 3 seconds ago`.
fn exit_code(status: &str) -> i64 {
    let code = status.strip_prefix("Exited (").and_then(|rest| rest.split_once(')'));
    code.and_then(|(code, _)| code.parse().ok()).unwrap_or(0)
}

fn tcp_ports(keys: impl Iterator<Item = String>) -> Vec<u16> {
    let mut ports: Vec<u16> =
        keys.filter_map(|key| key.strip_suffix("/tcp").unwrap_or(&key).parse().ok()).filter(|port| *port > 0).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// By the port in the container; Docker writes an empty text for all addresses.
fn published(bindings: impl Iterator<Item = (u16, String, u16)>) -> BTreeMap<u16, Vec<SocketAddr>> {
    let mut published: BTreeMap<u16, Vec<SocketAddr>> = BTreeMap::new();
    for (port, ip, on_node) in bindings.filter(|(.., on_node)| *on_node > 0) {
        let ip = if ip.is_empty() { Some(Ipv4Addr::UNSPECIFIED.into()) } else { ip.parse::<IpAddr>().ok() };
        published.entry(port).or_default().extend(ip.map(|ip| SocketAddr::new(ip, on_node)));
    }
    for addresses in published.values_mut() {
        addresses.sort_unstable();
        addresses.dedup();
    }
    published
}

fn endpoint_address(endpoint: &EndpointSettings) -> Option<IpAddr> {
    address(endpoint.ip_address.as_deref(), endpoint.global_ipv6_address.as_deref())
}

/// IPv4 where there is one; Docker writes an empty text for none.
fn address(v4: Option<&str>, v6: Option<&str>) -> Option<IpAddr> {
    let parse = |text: Option<&str>| text.and_then(|text| text.parse::<IpAddr>().ok());
    parse(v4).or_else(|| parse(v6)).filter(|ip| !ip.is_unspecified())
}

fn timestamp(text: &str) -> Timestamp {
    let millis = nanos(text).map_or(0, |nanos| nanos / 1_000_000);
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// Nanoseconds since the Unix epoch of an RFC 3339 time; `None` for what is none, and for Docker's zero time (`0001-01-01…`).
pub(super) fn nanos(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let mut clock = clock.split(':');
    let (hour, minute) = (clock.next()?.parse::<i64>().ok()?, clock.next()?.parse::<i64>().ok()?);
    let (second, fraction) = clock.next().map(|text| text.split_once('.').unwrap_or((text, "")))?;
    let second = second.parse::<i64>().ok()?;
    let fraction: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let offset = match zone.get(1..).filter(|rest| !rest.is_empty()) {
        None => 0,
        Some(rest) => {
            let (hours, minutes) = rest.split_once(':')?;
            let seconds = i64::from(hours.parse::<u8>().ok()?) * 3600 + i64::from(minutes.parse::<u8>().ok()?) * 60;
            if zone.starts_with('-') { -seconds } else { seconds }
        }
    };
    let plausible = (1970..2262).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && [hour, minute, second].iter().all(|part| (0..=60).contains(part))
        && offset.abs() <= 86_400;
    if !plausible {
        return None;
    }
    // Days from the civil date (Howard Hinnant, "chrono-compatible low-level date algorithms"): the year begins in March.
    let shifted = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

#[cfg(test)]
mod tests;
