//! The prober against real sockets on loopback. Time is paused: it jumps to the next deadline whenever nothing is to be read.

mod answers;

use std::collections::HashMap;
use std::net::SocketAddr;

use tidegate_core::instance::{CheckKind, HttpCheck};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

use super::*;

/// Answers every connection on a port of loopback with `answer`, or accepts and hangs without one.
async fn server(tasks: &mut JoinSet<()>, answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve(tasks, listener, answer);
    address
}

fn serve(tasks: &mut JoinSet<()>, listener: TcpListener, answer: Option<&'static str>) {
    tasks.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            match answer {
                Some(answer) => {
                    let _ = timeout(Duration::from_millis(1), stream.read(&mut request)).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
                None => open.push(stream),
            }
        }
    });
}

/// An address where nothing listens.
async fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn http(path: &str) -> Check {
    Check { kind: CheckKind::Http(HttpCheck::get(path)), ..Check::default() }
}

fn instance(name: &str, address: SocketAddr) -> InstanceId {
    InstanceId { container: name.to_owned(), started_at: String::new(), network: "bridge".to_owned(), address }
}

/// A prober at work, and what it told.
struct Bench {
    changes: mpsc::Sender<ProbeChange>,
    inbox: mpsc::Receiver<Input>,
    verdicts: HashMap<String, Verdict>,
    told: Vec<(String, bool, String)>,
    metrics: ProbeMetrics,
    tasks: JoinSet<()>,
}

impl Bench {
    fn new() -> Self {
        let (changes, receiver) = mpsc::channel(16);
        let (sender, inbox) = mpsc::channel(1);
        let prober = Prober::new(Clock::start());
        let metrics = prober.metrics();
        let mut tasks = JoinSet::new();
        tasks.spawn(prober.run(receiver, sender, CancellationToken::new()));
        Self { changes, inbox, verdicts: HashMap::new(), told: Vec::new(), metrics, tasks }
    }

    async fn watch(&self, name: &str, address: SocketAddr, check: Check) {
        self.changes.send(ProbeChange::Watch { id: instance(name, address), check: Box::new(check) }).await.unwrap();
    }

    fn take(&mut self, input: Input) {
        let Input::Checked { id, verdict } = input else { panic!("not a check: {input:?}") };
        self.told.push((id.container.clone(), verdict.passing, verdict.detail.clone()));
        self.verdicts.insert(id.container, verdict);
    }

    /// Waits for the next verdict.
    async fn next(&mut self) -> (String, bool, String) {
        let input = timeout(Duration::from_secs(60), self.inbox.recv()).await.expect("no verdict came").unwrap();
        self.take(input);
        self.told.last().unwrap().clone()
    }

    async fn during(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while let Ok(input) = tokio::time::timeout_at(end, self.inbox.recv()).await {
            self.take(input.unwrap());
        }
    }

    fn checks(&self) -> u64 {
        ["passed", "failed", "timed_out", "inconclusive"]
            .iter()
            .flat_map(|result| ["tcp", "http"].map(|check| metrics::CheckLabels { check, result }))
            .map(|labels| self.metrics.checks.get_or_create(&labels).get())
            .sum()
    }
}

#[tokio::test(start_paused = true)]
async fn answers_become_outcomes_in_exact_words() {
    const HUGE: &str = "x-filler: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    let huge: &'static str = format!("HTTP/1.1 200 OK\r\n{}\r\n", HUGE.repeat(500)).leak();
    let passed = |text: &str| Outcome::Passed(text.to_owned());
    let failed = |text: &str| Outcome::Failed(text.to_owned());
    let mut tasks = JoinSet::new();
    for (answer, expected) in [
        (Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"), passed("HTTP 200 in under 1 ms")),
        (Some("HTTP/1.1 204 No Content\r\n\r\n"), passed("HTTP 204 in under 1 ms")),
        (Some("HTTP/1.0 200 OK\r\n\r\nendless"), passed("HTTP 200 in under 1 ms")),
        (Some("HTTP/1.1 503 Service Unavailable\r\n\r\n"), failed("HTTP 503")),
        (
            Some("HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n\r\n"),
            failed("HTTP 302, a redirect, which checks do not follow"),
        ),
        (Some("SSH-2.0-OpenSSH_9.6\r\n"), failed("no HTTP answer: what came is not HTTP")),
        (Some(""), failed("no HTTP answer: the connection was closed before one")),
        (Some(huge), failed("no HTTP answer: its head is longer than 8192 bytes")),
        (None, Outcome::TimedOut("timed out after 1s, waiting for the answer".to_owned())),
    ] {
        let address = server(&mut tasks, answer).await;
        assert_eq!(check::perform(address, &http("/health?deep=1")).await, expected, "{answer:?}");
    }
    let address = server(&mut tasks, None).await;
    assert_eq!(check::perform(address, &Check::default()).await, passed("connected in under 1 ms"));
    assert_eq!(check::perform(nowhere().await, &Check::default()).await, failed("connection refused"));
    assert_eq!(check::perform(nowhere().await, &http("/")).await, failed("connection refused"));
    assert_eq!(check::perform(address, &http("no path")).await, failed("\"no path\" cannot be asked for"));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_ready_soon_after_it_listens() {
    let mut bench = Bench::new();
    let address = nowhere().await;
    bench.watch("a", address, Check::default()).await;
    let began = Instant::now();
    assert_eq!(bench.next().await, ("a".into(), false, "connection refused".into()));
    assert!(began.elapsed() < Duration::from_millis(10), "the first check is made at once");
    sleep(Duration::from_millis(120)).await;
    serve(&mut bench.tasks, TcpListener::bind(address).await.unwrap(), Some(""));
    let listening = Instant::now();
    assert_eq!(bench.next().await, ("a".into(), true, "connected in under 1 ms".into()));
    assert!(listening.elapsed() <= Duration::from_millis(115), "{:?}", listening.elapsed());
}

#[tokio::test(start_paused = true)]
async fn only_flips_are_told() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    serve(&mut server, listener, Some(""));
    bench.watch("a", address, Check::default()).await;
    bench.during(Duration::from_secs(60)).await;
    assert_eq!(bench.told.len(), 1, "{:?}", bench.told);
    let checks = bench.checks();
    assert!((27..=34).contains(&checks), "{checks} checks in a minute");
    server.shutdown().await;
    let went = Instant::now();
    assert_eq!(bench.next().await, ("a".into(), false, "connection refused".into()));
    assert!(
        (Duration::from_millis(1800)..Duration::from_millis(4600)).contains(&went.elapsed()),
        "{:?}",
        went.elapsed()
    );
    bench.during(Duration::from_secs(60)).await;
    assert_eq!(bench.told.len(), 2, "{:?}", bench.told);
    serve(&mut server, TcpListener::bind(address).await.unwrap(), Some(""));
    assert!(bench.next().await.1);
    assert_eq!(bench.told.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_new_reason_of_a_failing_instance_is_told() {
    let mut bench = Bench::new();
    let address = nowhere().await;
    bench.watch("a", address, http("/")).await;
    assert_eq!(bench.next().await.2, "connection refused");
    serve(&mut bench.tasks, TcpListener::bind(address).await.unwrap(), Some("HTTP/1.1 503 Later\r\n\r\n"));
    assert_eq!(bench.next().await, ("a".into(), false, "HTTP 503".into()));
    bench.during(Duration::from_secs(30)).await;
    assert_eq!(bench.told.len(), 2);
}

/// More than there are sockets, and none of them known to hang.
#[tokio::test(start_paused = true)]
async fn hanging_targets_delay_no_other() {
    let mut bench = Bench::new();
    let hanging = server(&mut bench.tasks, None).await;
    let slow = Check { timeout: Duration::from_secs(30), ..http("/") };
    for number in 0..1000 {
        bench.watch(&format!("hanging-{number}"), hanging, slow.clone()).await;
    }
    let answering = server(&mut bench.tasks, Some("HTTP/1.1 200 OK\r\n\r\n")).await;
    bench.watch("a", answering, http("/")).await;
    let began = Instant::now();
    assert_eq!(bench.next().await, ("a".into(), true, "HTTP 200 in under 1 ms".into()));
    assert!(began.elapsed() <= Duration::from_millis(500), "{:?}", began.elapsed());
    // Those that were given up for want of sockets are checked to their end when it is their turn.
    while bench.told.len() < 1001 {
        let (name, passing, detail) = bench.next().await;
        // The backlog of one listener is less than that.
        assert!(!passing && detail.starts_with("timed out after 30s, "), "{name}: {detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_starting_until_it_passes_or_its_grace_is_over() {
    let grace =
        |grace| Check { grace: Duration::from_secs(grace), interval: Duration::from_secs(600), ..Check::default() };
    let mut bench = Bench::new();
    let began = Instant::now();
    bench.watch("late", nowhere().await, grace(30)).await;
    assert_eq!(bench.next().await.2, "connection refused");
    assert!(bench.verdicts["late"].starting);
    bench.watch("none", nowhere().await, grace(0)).await;
    assert_eq!(bench.next().await.0, "none");
    assert!(!bench.verdicts["none"].starting);
    // Its end is told when it comes, although the reason is the same and the next check is far.
    assert_eq!(bench.next().await, ("late".into(), false, "connection refused".into()));
    assert!(!bench.verdicts["late"].starting);
    assert!(
        (Duration::from_secs(30)..Duration::from_millis(30_010)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_passed_once_is_starting_no_more() {
    let mut bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = JoinSet::new();
    serve(&mut server, listener, Some(""));
    bench.watch("a", address, Check { grace: Duration::from_secs(3600), ..Check::default() }).await;
    assert!(bench.next().await.1);
    server.shutdown().await;
    assert!(!bench.next().await.1);
    assert!(!bench.verdicts["a"].starting);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_instance_is_checked_no_more_and_comes_back_as_a_newcomer() {
    let mut bench = Bench::new();
    let address = nowhere().await;
    bench.watch("a", address, Check::default()).await;
    bench.next().await;
    bench.changes.send(ProbeChange::Forget(instance("a", address))).await.unwrap();
    bench.during(Duration::from_secs(1)).await;
    let before = bench.checks();
    bench.during(Duration::from_secs(60)).await;
    assert_eq!((bench.checks(), bench.told.len()), (before, 1));
    assert_eq!(bench.metrics.targets.get(), 0);
    bench.watch("a", address, Check::default()).await;
    assert!(!bench.next().await.1);
}

#[tokio::test(start_paused = true)]
async fn watching_again_checks_at_once_and_keeps_the_verdict() {
    let mut bench = Bench::new();
    let address = server(&mut bench.tasks, Some("HTTP/1.1 200 OK\r\n\r\n")).await;
    let check = Check { interval: Duration::from_secs(600), ..Check::default() };
    bench.watch("a", address, check.clone()).await;
    bench.next().await;
    bench.watch("a", address, check.clone()).await;
    bench.during(Duration::from_secs(1)).await;
    assert_eq!((bench.checks(), bench.told.len()), (2, 1));
    // Another kind of check is another question.
    bench.watch("a", address, Check { interval: check.interval, ..http("/") }).await;
    assert_eq!(bench.next().await, ("a".into(), true, "HTTP 200 in under 1 ms".into()));
    bench.watch("a", address, Check { kind: CheckKind::Docker, ..check }).await;
    bench.during(Duration::from_secs(1)).await;
    assert_eq!(bench.metrics.targets.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_keeps_no_change_waiting_and_loses_no_verdict() {
    let mut bench = Bench::new();
    let address = nowhere().await;
    // Nobody reads the inbox, which holds one.
    for number in 0..200 {
        let name = format!("i{number}");
        let watch = bench.watch(&name, address, Check::default());
        timeout(Duration::from_secs(5), watch).await.expect("the prober waits for the inbox");
    }
    sleep(Duration::from_secs(10)).await;
    bench.during(Duration::from_secs(1)).await;
    assert_eq!(bench.verdicts.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn five_thousand_targets_are_checked_in_time() {
    let mut bench = Bench::new();
    let address = server(&mut bench.tasks, Some("")).await;
    for number in 0..5000 {
        bench.watch(&format!("i{number}"), address, Check::default()).await;
        while let Ok(input) = bench.inbox.try_recv() {
            bench.take(input);
        }
    }
    while bench.verdicts.len() < 5000 {
        bench.next().await;
    }
    assert!(bench.verdicts.values().all(|verdict| verdict.passing));
}
