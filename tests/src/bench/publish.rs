//! How long a start and a stop take to reach clients, by the number of containers that are there: from the moment at which the
//! start is done to the first 200 through Envoy, and from the moment at which a container is told to stop to the first request
//! that it does not get, although it would still answer. Real containers, and for a thousand those of the fake engine.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Error, Result, ensure};
use tidegate_figures::{Row, percentile};
use tokio::time::{Instant, sleep};

use super::{
    fleet::{Fleet, routed},
    measured::processor_time,
};
use crate::{
    client::{Request, SERVED_BY},
    edge::{Edge, host},
    engine::{Container, Engine, Network, Spec},
};

/// With real containers.
const REAL: [usize; 2] = [10, 100];
/// With those of the fake engine; ten and a hundred tell how it compares.
const FAKE: [usize; 3] = [10, 100, 1_000];
/// So many answers of another one in a row, where each of two is as likely as the other, end a stop.
const OTHERS: usize = 16;
/// A container that was told to stop goes on for so long.
const GOES_ON: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(30);

/// An engine, and how its containers are made.
trait World {
    const KIND: &str;
    const TURNS: usize;
    type One;

    /// A name that no other run has.
    fn unique(&self, name: &str) -> String;

    /// A container of this service.
    async fn create(&mut self, service: &str) -> Result<Self::One>;

    /// Returns when `docker start` does.
    async fn start(&self, one: &Self::One) -> Result<()>;

    /// It gets the signal by which `docker stop` tells a container to stop, and goes on for [`GOES_ON`].
    async fn stop(&self, one: &Self::One) -> Result<()>;

    async fn address(&self, one: &Self::One) -> Result<SocketAddr>;

    /// How it names itself in its answers, asked without Envoy.
    async fn says(&self, one: &Self::One) -> Result<String> {
        let answer = Request::get(self.address(one).await?, "/").send().await?;
        Ok(answer.header(SERVED_BY).context("a name")?.to_owned())
    }

    async fn remove(&mut self, one: Self::One) -> Result<()>;
}

struct Real {
    engine: Engine,
    network: Network,
    created: usize,
}

impl World for Real {
    const KIND: &str = "real";
    /// Each takes seconds.
    const TURNS: usize = 50;
    type One = Container;

    fn unique(&self, name: &str) -> String {
        self.engine.unique(name)
    }

    async fn create(&mut self, service: &str) -> Result<Container> {
        self.created += 1;
        let spec = Spec::sample(&self.created.to_string())
            .label("tidegate.enable", "true")
            .label("tidegate.service", service)
            .label("tidegate.host", &host(service))
            .label("tidegate.port", "8080")
            .env("TERM", "graceful")
            .env("TERM_DELAY_MS", &GOES_ON.as_millis().to_string())
            .network(&self.network);
        self.engine.create(spec).await
    }

    async fn start(&self, one: &Container) -> Result<()> {
        one.start().await
    }

    async fn stop(&self, one: &Container) -> Result<()> {
        one.kill("SIGTERM").await
    }

    async fn address(&self, one: &Container) -> Result<SocketAddr> {
        one.address().await
    }

    async fn remove(&mut self, one: Container) -> Result<()> {
        one.remove().await
    }
}

impl World for Fleet {
    const KIND: &str = "fake";
    const TURNS: usize = 100;
    type One = String;

    fn unique(&self, name: &str) -> String {
        name.to_owned()
    }

    async fn create(&mut self, service: &str) -> Result<String> {
        self.create(service, &[]).await
    }

    async fn start(&self, one: &String) -> Result<()> {
        self.docker.engine().start(one);
        Ok(())
    }

    async fn stop(&self, one: &String) -> Result<()> {
        self.docker.engine().stop(one, GOES_ON);
        Ok(())
    }

    async fn address(&self, one: &String) -> Result<SocketAddr> {
        self.address(one).context("it is there")
    }

    async fn remove(&mut self, one: String) -> Result<()> {
        self.remove(&one);
        Ok(())
    }
}

pub(super) async fn run() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for present in FAKE {
        let fleet = Fleet::new();
        let edge = Edge::start_at(&fleet.docker.endpoint(), "{}", &[], 2).await?;
        rows.extend(among(present, fleet, &edge).await?);
    }
    for present in REAL {
        let engine = Engine::connect().await?;
        let network = engine.network("publish").await?;
        let edge = Edge::start_at(&engine.direct(), "{}", &[], 2).await?;
        rows.extend(among(present, Real { engine: engine.clone(), network, created: 0 }, &edge).await?);
        drop(edge);
        engine.clean().await?;
    }
    Ok(rows)
}

async fn among<W: World>(present: usize, mut world: W, edge: &Edge) -> Result<Vec<Row>> {
    for number in 0..present {
        let one = world.create(&world.unique(&format!("s{number}"))).await?;
        world.start(&one).await?;
    }
    routed(edge, present).await?;
    let (mut starts, mut stops, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let processes = [("the control plane", edge.tidegate.process.pid()), ("Envoy", edge.envoy.process.pid())];
    let mut before = Vec::new();
    // The first one warms up.
    for number in 0..=W::TURNS {
        if number == 1 {
            before = times(&processes)?;
        }
        let turn = turn(&mut world, edge, &format!("turn{number}")).await?;
        if number > 0 {
            starts.push(turn.start);
            stops.push(turn.stop);
            calls.push(turn.call);
        }
    }
    let spent = times(&processes)?;
    let what = format!("among {present} {} containers", W::KIND);
    let mut rows = percentiles(&format!("{what}, start done to first 200"), starts);
    rows.extend(percentiles(&format!("{what}, told to stop to no more requests"), stops));
    rows.extend(percentiles(&format!("{what}, told to stop to the engine's own answer"), calls));
    for ((name, _), (before, spent)) in processes.into_iter().zip(before.into_iter().zip(spent)) {
        let millis = (spent - before).as_secs_f64() * 1e3 / W::TURNS as f64;
        rows.push(Row::new(format!("{what}, processor time of {name} for both of two"), millis, "ms"));
    }
    Ok(rows)
}

fn times(processes: &[(&str, u32)]) -> Result<Vec<Duration>> {
    processes.iter().map(|(_, pid)| processor_time(*pid)).collect()
}

/// What one container showed.
struct Turn {
    start: Duration,
    stop: Duration,
    /// Of `stop`, what the engine takes until it has passed the signal on and answers.
    call: Duration,
}

/// A container of a new service, from its start to its end. The last one of a service goes on getting requests while it stops, so
/// another joins it before.
async fn turn(world: &mut impl World, edge: &Edge, name: &str) -> Result<Turn> {
    let service = world.unique(name);
    let host = host(&service);
    let one = world.create(&service).await?;
    world.start(&one).await?;
    let started = Instant::now();
    while edge.get(&host).await?.status != 200 {
        ensure!(started.elapsed() < LIMIT, "{service} never answered");
        sleep(Duration::from_millis(1)).await;
    }
    let start = started.elapsed();

    let other = world.create(&service).await?;
    world.start(&other).await?;
    let own = world.says(&one).await?;
    let answers = async || Ok::<_, Error>(edge.get(&host).await?.header(SERVED_BY) == Some(&own));
    while answers().await? {
        ensure!(started.elapsed() < 2 * LIMIT, "{service} never got another");
    }
    let told = Instant::now();
    let left = async {
        let (mut others, mut first) = (0, told);
        while others < OTHERS {
            ensure!(told.elapsed() < GOES_ON, "{service} still gets requests");
            if answers().await? {
                others = 0;
                continue;
            }
            if others == 0 {
                first = Instant::now();
            }
            others += 1;
        }
        Ok(first - told)
    };
    let call = async { world.stop(&one).await.map(|()| told.elapsed()) };
    let (stop, call) = tokio::try_join!(left, call)?;
    // If it had ended, this would say nothing of Envoy.
    world.says(&one).await.context("it has ended")?;
    world.remove(one).await?;
    world.remove(other).await?;
    // The next one is not to wait for the end of this one.
    edge.answers(&host, 404).await?;
    Ok(Turn { start, stop, call })
}

fn percentiles(name: &str, mut times: Vec<Duration>) -> Vec<Row> {
    times.sort_unstable();
    let row = |percent| Row::new(format!("{name}, p{percent}"), percentile(&times, percent).as_secs_f64() * 1e3, "ms");
    [50.0, 90.0, 99.0].map(row).into()
}
