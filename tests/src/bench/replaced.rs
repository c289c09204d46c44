//! What events of Docker cost, by the number of containers that there are: the processor time of the control plane, and what it asks
//! of the engine, while containers of one service are replaced one by one, each a start and an end. The engine is the fake one.

use anyhow::{Result, ensure};
use tidegate_figures::Row;

use super::{
    fleet::{Fleet, routed},
    measured::processor_time,
};
use crate::{
    client::SERVED_BY,
    edge::{Edge, host},
    poll::{SOON, until},
};

const CONTAINERS: [usize; 3] = [10, 100, 1_000];
const TURNS: usize = 60;
/// So many answers of the new one in a row end a turn.
const ANSWERS: usize = 16;
/// How often as much a replacement may cost with a thousand containers as with ten. It is not one, because what is kept on disk
/// is written as a whole, once a second at most, and everything is listed now and then.
const BUDGET: f64 = 2.0;
const SERVICE: &str = "replaced";

pub(super) async fn run() -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut first = None;
    for containers in CONTAINERS {
        let Cost { micros, looks, lists } = cost(containers).await?;
        let name = format!("a container replaced among {containers}");
        let mut row = Row::new(format!("{name}, processor time"), micros, "µs");
        if let Some(first) = first {
            let ratio = micros / first;
            row = row.against(format!("{} containers", CONTAINERS[0]), ratio);
            (row.budget, row.met) = (Some(format!("≤ {BUDGET} ×")), Some(ratio <= BUDGET));
        }
        first.get_or_insert(micros);
        rows.push(row);
        rows.push(Row::new(format!("{name}, inspects"), looks, ""));
        rows.push(Row::new(format!("{name}, lists of all"), lists, ""));
    }
    Ok(rows)
}

/// Of one replacement.
struct Cost {
    micros: f64,
    looks: f64,
    lists: f64,
}

async fn cost(containers: usize) -> Result<Cost> {
    let not_checked = [("tidegate.check.type", "none")];
    let mut fleet = Fleet::new();
    fleet.run(containers, &not_checked).await?;
    let mut last = fleet.create(SERVICE, &not_checked).await?;
    fleet.docker.engine().start(&last);
    let edge = Edge::start_at(&fleet.docker.endpoint(), "{}", &[], 2).await?;
    routed(&edge, containers + 1).await?;

    let mut turn = async |fleet: &mut Fleet| -> Result<()> {
        let next = fleet.create(SERVICE, &not_checked).await?;
        fleet.docker.engine().start(&next);
        let answers = async || {
            let answer = edge.get(&host(SERVICE)).await?;
            ensure!(answer.header(SERVED_BY) == Some(&next), "status {} of another", answer.status);
            Ok(())
        };
        until(SOON, "an answer of the new one", &answers).await?;
        fleet.remove(&last);
        until(SOON, "answers of nobody else", async || {
            for _ in 0..ANSWERS {
                answers().await?;
            }
            Ok(())
        })
        .await?;
        last = next;
        Ok(())
    };
    // The first ones warm up.
    for _ in 0..4 {
        turn(&mut fleet).await?;
    }
    let pid = edge.tidegate.process.pid();
    let (before, (looks, lists)) = (processor_time(pid)?, fleet.asked());
    for _ in 0..TURNS {
        turn(&mut fleet).await?;
    }
    let spent = processor_time(pid)? - before;
    let (looks_after, lists_after) = fleet.asked();
    Ok(Cost {
        micros: spent.as_secs_f64() * 1e6 / TURNS as f64,
        looks: (looks_after - looks) as f64 / TURNS as f64,
        lists: (lists_after - lists) as f64 / TURNS as f64,
    })
}
