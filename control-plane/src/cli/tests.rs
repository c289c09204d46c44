use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn commands_and_their_options_are_understood() {
    for line in [
        "tidegate run --config a.yaml --state-dir s --filter-wasm f.wasm --log-format json",
        "tidegate run --insecure-xds",
        "tidegate up --envoy /usr/bin/envoy --node-id e1",
        "tidegate up --node-cluster inner --node-metadata tier=inside",
        "tidegate up --insecure-xds --tls-cert c.pem --tls-key k.pem --tls-ca ca.pem",
        "tidegate status -w",
        "tidegate -o json ps",
        "tidegate ps -o json --watch",
        "tidegate --api http://[::1]:7000 explain shop",
        "tidegate events",
        "tidegate events -f --since 10m shop-1",
        "tidegate events --follow -o json",
        "tidegate canary status",
        "tidegate canary status shop -w",
        "tidegate validate tidegate.yaml",
        "tidegate envoy bootstrap --node-id e1 --admin unix:/run/x.sock",
        "tidegate envoy bootstrap --node-cluster inner --node-metadata tier=inside --node-metadata a=b=c",
        "tidegate envoy bootstrap --xds-address 10.0.0.1:7 --tls-cert c --tls-key k --tls-ca a --tls-server-name tidegate",
        "tidegate envoy load -w",
        "tidegate envoy ls -w",
        "tidegate envoy diff --type rtds -o json",
        "tidegate envoy config --type CDS shop/v1",
        "tidegate envoy exec --parent 7 -- envoy -c x --base-id 3",
        "tidegate version",
    ] {
        assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
    }
}

#[test]
fn wrong_usage_ends_with_two_and_a_suggestion() {
    for (line, kind) in [
        ("tidegate", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("tidegate stauts", ErrorKind::InvalidSubcommand),
        ("tidegate explain", ErrorKind::MissingRequiredArgument),
        ("tidegate events --since yesterday", ErrorKind::ValueValidation),
        ("tidegate --api ftp://x status", ErrorKind::ValueValidation),
        ("tidegate envoy bootstrap --admin 0.0.0.0:9901", ErrorKind::ValueValidation),
        ("tidegate envoy bootstrap --node-metadata tier", ErrorKind::ValueValidation),
        ("tidegate envoy bootstrap --node-metadata =inside", ErrorKind::ValueValidation),
        ("tidegate envoy bootstrap --tls-cert c.pem", ErrorKind::MissingRequiredArgument),
        ("tidegate envoy bootstrap --tls-key k --tls-ca a", ErrorKind::MissingRequiredArgument),
        ("tidegate up --tls-server-name tidegate", ErrorKind::MissingRequiredArgument),
        ("tidegate envoy bootstrap --xds-address tidegate:1", ErrorKind::ValueValidation),
        ("tidegate envoy diff --type SDS", ErrorKind::InvalidValue),
        ("tidegate -o xml ps", ErrorKind::InvalidValue),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}");
    }
    assert!(parse("tidegate stauts").unwrap_err().to_string().contains("'status'"));
}

#[test]
fn an_api_is_a_plain_http_address() {
    for (url, shown) in [
        ("http://127.0.0.1:18001", "http://127.0.0.1:18001"),
        ("http://localhost:7/", "http://localhost:7"),
        ("http://[::1]:7", "http://[::1]:7"),
        ("http://localhost", "http://localhost:80"),
    ] {
        assert_eq!(url.parse::<Api>().map(|api| api.to_string()).as_deref(), Ok(shown));
    }
    for url in ["", "localhost:7", "https://localhost:7", "http://u@localhost:7", "http://localhost:7/v1", "http://"] {
        assert!(url.parse::<Api>().is_err(), "{url}");
    }
}

/// `tidegate envoy bootstrap > envoy/bootstrap.yaml`, below the header.
#[test]
fn the_shipped_bootstrap_is_what_the_command_prints() {
    let shipped = include_str!("../../../envoy/bootstrap.yaml");
    let below = shipped.lines().skip_while(|line| line.starts_with('#')).map(|line| format!("{line}\n"));
    let Command::Envoy(EnvoyCommand::Bootstrap(args)) =
        parse("tidegate envoy bootstrap --admin unix:/run/tidegate/envoy-admin.sock").unwrap().command
    else {
        panic!("another command");
    };
    let printed = envoy::render(&tidegate_core::config::Config::default(), &args, Output::Table).unwrap();
    assert_eq!(below.collect::<String>(), printed);
}
