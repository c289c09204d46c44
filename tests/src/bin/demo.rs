//! `make demo`: tells the story, and with `ONESHOT=1` ends with it: the report is written, and a broken promise is a failure.

use std::{env, process::ExitCode};

use anyhow::Result;
use tidegate_tests::demo;

#[tokio::main]
async fn main() -> ExitCode {
    let ended = tokio::select! {
        told = run() => told,
        // What was started is removed as it is dropped.
        _ = tokio::signal::ctrl_c() => Ok(true),
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
    let told = demo::tell().await?;
    let path = demo::target("demo/report.json");
    told.report.write(&path)?;
    let broken = told.report.broken();
    say(&if broken == 0 { "every promise held".to_owned() } else { format!("{broken} promise(s) broken") });
    if env::var_os("ONESHOT").is_none_or(|value| value.is_empty() || value == "0") {
        say(&told.how_to_look()?);
        std::future::pending::<()>().await;
    }
    Ok(told.report.ok)
}

#[allow(clippy::print_stdout, reason = "this is what a person runs it for")]
fn say(text: &str) {
    println!("{text}");
}
