//! `cargo run -p tidegate-core --example simulate [ROLLOUTS]`: the tables of docs/canary-simulation.md, of so many rollouts per
//! error rate (10,000).

#![allow(clippy::print_stdout)]

mod simulation;

use std::thread;
use std::time::Duration;

use simulation::{End, How, SMALL, Setting, plan, rollout};

/// The stable version's chance to fail.
const STABLE: f64 = 0.005;
/// The canary's, in percent.
const RATES: [f64; 12] = [0.0, 0.1, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0];

fn main() {
    let rollouts = std::env::args().nth(1).map_or(10_000, |number| number.parse().expect("a number of rollouts"));
    for (rate, shares) in [(1_000, SMALL), (100, SMALL), (100, [500, 2_000, 5_000])] {
        let [first, second, third] = shares.map(|share| f64::from(share) / 100.0);
        println!("\n## {rate} requests/s: {first}, {second} and {third} %\n");
        println!(
            "| canary's error rate | promoted | rolled back | left to an operator | its failed requests: median (95 %) | time: median (95 %) |"
        );
        println!("|---|---|---|---|---|---|");
        let settings = RATES.map(|percent| Setting { rate, canary: percent / 100.0, stable: STABLE });
        let rows = thread::scope(|scope| {
            let rows = settings.map(|setting| scope.spawn(move || row(shares, setting, rollouts)));
            rows.map(|row| row.join().expect("no rollout panics"))
        });
        rows.iter().for_each(|row| println!("{row}"));
    }
}

fn row(shares: [u32; 3], setting: Setting, rollouts: u64) -> String {
    let plan = plan(shares);
    let ends: Vec<End> = (0..rollouts).map(|seed| rollout(&plan, setting, seed)).collect();
    let share = |how| 100.0 * ends.iter().filter(|end| end.how == how).count() as f64 / rollouts as f64;
    let mut failed: Vec<u64> = ends.iter().map(|end| end.failed).collect();
    let mut after: Vec<Duration> = ends.iter().map(|end| end.after).collect();
    failed.sort_unstable();
    after.sort_unstable();
    let (half, most) = (ends.len() / 2, ends.len() * 95 / 100);
    format!(
        "| {} % | {:.2} % | {:.2} % | {:.2} % | {} ({}) | {} ({}) |",
        setting.canary * 100.0,
        share(How::Promoted),
        share(How::RolledBack),
        share(How::Undecided),
        failed[half],
        failed[most],
        shown(after[half]),
        shown(after[most]),
    )
}

fn shown(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds => format!("{:.1} min", seconds as f64 / 60.0),
    }
}
