//! The sample backend of tidegate's demo and tests: a small HTTP/1.1 server that names itself in every answer and can be
//! told, while it runs, to be slow, failing, unready or unhealthy. Std only and static, so that its image is this one file
//! `FROM scratch`. It owns no policy of tidegate's: it only behaves, well or badly, as a container's application would.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a std-only program: the console is its log, and std's clock the only one"
)]

mod answer;
mod backlog;
mod behaviour;
mod healthcheck;
mod request;
mod server;
mod settings;
mod signal;

use std::{process::ExitCode, sync::Arc, thread, time::Duration};

use crate::{
    behaviour::Behaviour,
    server::Server,
    settings::{OnTerm, Settings},
};

const USAGE: &str = "\
tidegate-sample: a backend that names itself and misbehaves on request

usage: tidegate-sample [serve]               serve, configured by the environment
       tidegate-sample healthcheck [PATH]    exit 0 if GET PATH (default /health) of this container's server succeeds

environment: ADDRESS (0.0.0.0)  PORT (8080)  SERVICE (sample)  VERSION (v1)
             SECOND_PORT        serve there, too, as VERSION-second
             START_DELAY_MS     wait before listening           READY_AFTER_MS  /ready fails until then
             ERRORS             percent of requests that fail   DELAY_MS        added to every request
             TERM               graceful | now | ignore: what SIGTERM does
             TERM_DELAY_MS      with graceful: go on accepting for so long
             EXIT_AFTER_MS      crash so long after the start (0: never)

paths: / and any other   who answered          /version  the version alone
       /health  /ready   200 or 503            /slow?ms=N  after N ms
       /stream?ms=N      a piece each 100 ms   /ws  an upgrade that echoes bytes
       /echo             the request, as text
       POST /control?ready=BOOL&health=BOOL&errors=PERCENT&delay_ms=N&eat_mib=N   GET /control";

fn main() -> ExitCode {
    // Before any thread exists, so that all inherit it. As PID 1 an unblocked, unhandled SIGTERM would be dropped.
    let signals = signal::Termination::block();
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(problem) => {
            eprintln!("tidegate-sample: {problem}");
            return ExitCode::from(2);
        }
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] | ["serve"] => serve(settings, &signals),
        ["healthcheck"] => healthcheck::run(&settings, "/health"),
        ["healthcheck", path] => healthcheck::run(&settings, path),
        ["-h" | "--help" | "help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn start(settings: Settings, delay: Duration) -> Arc<Server> {
    let address = settings.address;
    let server = Arc::new(Server::new(Arc::new(Behaviour::new(settings))));
    let listening = Arc::clone(&server);
    thread::spawn(move || {
        thread::sleep(delay);
        if let Err(error) = listening.run(address) {
            eprintln!("tidegate-sample: cannot listen on {address}: {error}");
            std::process::exit(1);
        }
    });
    server
}

fn serve(settings: Settings, signals: &signal::Termination) -> ExitCode {
    let on_term = settings.on_term;
    let exit_after = settings.exit_after;
    let start_delay = settings.start_delay;
    let second = settings.second();
    let servers: Vec<Arc<Server>> = std::iter::once(settings).chain(second).map(|s| start(s, start_delay)).collect();

    if !exit_after.is_zero() {
        thread::spawn(move || {
            thread::sleep(exit_after);
            eprintln!("tidegate-sample: exits after {exit_after:?}, as it was told");
            std::process::exit(1);
        });
    }

    loop {
        let signal = signals.wait();
        match on_term {
            OnTerm::Ignore => println!("signal {signal}: ignored"),
            OnTerm::Now => {
                println!("signal {signal}: exit");
                // What a shell reports of a process that the signal ended.
                return ExitCode::from(128 + signal);
            }
            OnTerm::Graceful { delay } => {
                println!("signal {signal}: accepting for {delay:?} more, then finishing what is in flight");
                thread::sleep(delay);
                servers.iter().for_each(|server| server.drain());
                println!("drained");
                return ExitCode::SUCCESS;
            }
        }
    }
}
