//! `make bench`: measures, prints a table and writes `target/bench/report.json`. With an argument only that part.

use anyhow::Result;
use tidegate_figures::publish;
use tidegate_tests::{bench, demo};

#[tokio::main]
async fn main() -> Result<()> {
    let rows = bench::run(std::env::args().nth(1).as_deref(), say).await?;
    let path = demo::target("bench/report.json");
    say(&publish(&rows, &path)?);
    let missed: Vec<&str> = rows.iter().filter(|row| row.met == Some(false)).map(|row| row.name.as_str()).collect();
    if !missed.is_empty() {
        say(&format!("short of the budget: {}", missed.join("; ")));
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this is what a person runs it for")]
fn say(text: &str) {
    println!("{text}");
}
