//! `make demo`: tells the story, and with `ONESHOT=1` ends with it: the report is written, and a broken promise is a failure.

use std::{env, process::ExitCode};

use anyhow::Result;
use tidegate_tests::demo;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let ended = tokio::select! {
        told = run() => told,
        // What was started is removed as it is dropped. A story that was to be told to its end was not.
        () = interrupted() => Ok(!oneshot()),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("the demo could not be told to its end: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool> {
    let path = demo::target("demo/report.json");
    // Or the last run's would speak for one that fails.
    if path.exists() {
        std::fs::remove_file(&path)?;
    }
    let told = demo::tell().await?;
    told.report.write(&path)?;
    let broken = told.report.broken();
    say(&if broken == 0 { "every promise held".to_owned() } else { format!("{broken} promise(s) broken") });
    if !oneshot() {
        say(&told.how_to_look()?);
        std::future::pending::<()>().await;
    }
    Ok(told.report.ok)
}

fn oneshot() -> bool {
    env::var_os("ONESHOT").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Ctrl-C, or the SIGTERM of whoever started it.
async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[allow(clippy::print_stdout, reason = "this is what a person runs it for")]
fn say(text: &str) {
    println!("{text}");
}
