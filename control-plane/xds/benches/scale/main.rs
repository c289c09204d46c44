//! How the server scales, as `make bench` measures it: the server in a process of its own, thousands of clients on one thread
//! of this one, figures as ratios within one run or as counts wherever the machine would speak louder than the code.
//!
//! `cargo bench -p tidegate-xds --bench scale -- [--only TEXT] [--seconds N] [--streams N] [--profile FOLDER]`; see
//! `docs/performance.md`.

mod wire;
mod http2;
mod plan;
mod tally;
mod ads;
mod fleet;

mod resources;
mod plain;
mod child;
mod server;
mod probe;

mod cases;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidegate_figures::{Row, publish};

use crate::plan::{Endpoints, Variant};

/// Makes this program the server's process.
const CHILD: &str = "--child";
/// Files that may be open: every stream has one at each end, and the ends are in two processes.
const FILES: u64 = 16_384;

pub(crate) struct Options {
    /// Only the cases whose name has this in it.
    only: Option<String>,
    /// How long a steady load lasts.
    seconds: u64,
    /// Streams of the cases with thousands.
    streams: usize,
    /// Where profiles of the servers are put.
    profiles: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    raise_limit()?;
    if arguments.first().is_some_and(|first| first == CHILD) {
        return child::run();
    }
    let options = Options::parse(arguments)?;
    let mut rows = Vec::new();
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        if probe::is_served(variant)? {
            rows.extend(measure(&options, variant)?);
        } else {
            say(&format!("skipped: this server does not answer {}", variant.label()));
        }
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench/xds.json");
    say(&publish(&rows, &target)?);
    let missed: Vec<&str> = rows.iter().filter(|row| row.met == Some(false)).map(|row| row.name.as_str()).collect();
    if !missed.is_empty() {
        say(&format!("short of the budget: {}", missed.join("; ")));
    }
    Ok(())
}

fn measure(options: &Options, variant: Variant) -> Result<Vec<Row>> {
    type Case<'a> = (String, Box<dyn Fn() -> Result<Vec<Row>> + 'a>);
    let label = variant.label();
    let mut cases: Vec<Case<'_>> = Vec::new();
    for (services, budget) in [(1_000, 5.0), (10_000, 20.0)] {
        for (how, endpoints) in [("named", Endpoints::OfClusters), ("wildcard", Endpoints::Wildcard)] {
            let case = move || cases::change::endpoint(options, variant, services, endpoints, budget);
            cases.push((format!("change {services} {how} {label}"), Box::new(case)));
        }
    }
    cases.push((format!("sync {label}"), Box::new(move || cases::sync::first(options, variant))));
    if variant == Variant::Delta {
        cases.push((format!("lag named {label}"), Box::new(move || cases::lag::steady(options, variant, false))));
        cases.push((format!("lag wildcard {label}"), Box::new(move || cases::lag::steady(options, variant, true))));
        cases.push((format!("reconnect {label}"), Box::new(|| cases::reconnect::idle_then_back(options))));
    }
    cases.push((format!("weight {label}"), Box::new(move || cases::change::weight(options, variant))));
    cases.push((format!("counters {label}"), Box::new(move || cases::counters::counted(options, variant))));

    let mut rows = Vec::new();
    for (name, case) in cases {
        if options.only.as_ref().is_none_or(|only| name.contains(only)) {
            say(&format!("{name} …"));
            match case() {
                Ok(figures) => rows.extend(figures),
                // One case that cannot be measured does not take the others' figures away; it is a miss.
                Err(error) => {
                    let reason = format!("not measured: {error:#}");
                    say(&format!("{name}: {reason}"));
                    let mut row = Row::new(name, f64::NAN, "");
                    (row.budget, row.met) = (Some(reason), Some(false));
                    rows.push(row);
                }
            }
        }
    }
    Ok(rows)
}

impl Options {
    fn parse(arguments: Vec<String>) -> Result<Self> {
        let mut options = Self { only: None, seconds: 20, streams: 5_000, profiles: None };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().with_context(|| format!("{argument} takes a value"));
            match argument.as_str() {
                // What cargo adds.
                "--bench" => {}
                "--only" => options.only = Some(value()?),
                "--seconds" => options.seconds = value()?.parse()?,
                "--streams" => options.streams = value()?.parse()?,
                "--profile" => options.profiles = Some(value()?.into()),
                other => bail!("'{other}' is none of --only, --seconds, --streams, --profile"),
            }
        }
        ensure!(options.seconds > 0 && options.streams > 0, "--seconds and --streams are at least 1");
        Ok(options)
    }
}

fn raise_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < FILES) {
        let maximum = limit.maximum.map(|maximum| maximum.max(FILES));
        setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum })
            .with_context(|| format!("raise the limit of open files to {FILES}"))?;
    }
    Ok(())
}

#[expect(
    clippy::print_stderr,
    reason = "the child's standard output is spoken for, and this is what a person waits for"
)]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}
