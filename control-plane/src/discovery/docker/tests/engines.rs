//! Engines that are away, hang, lose events or refuse.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_starts_while_the_list_is_made_is_not_lost() {
    let mut bench = Bench::before(&[("a", ENABLED)]);
    let late = Hook::new(|engine| drop(engine.run(Spec::new("late", ENABLED))));
    bench.fake.engine().after_list = Some(late);
    bench.fake.listen();
    bench.until("the first reset", |bench| bench.resets == 1).await;
    let took = bench.until("the latecomer", |bench| bench.instances("late") == 1).await;
    assert!(took < Duration::from_millis(500), "{took:?}: a later list found it, not the event");
    let requests = bench.fake.engine().requests.clone();
    let first = |what: &str| requests.iter().position(|request| request.ends_with(what)).unwrap();
    assert!(first("/events") < first("/containers/json"), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn what_happened_just_before_the_subscription_is_not_lost() {
    let mut bench = Bench::before(&[]);
    // It happens while nobody listens, and no list shows it: only the memory of events does.
    bench.fake.engine().emit("a", "create", &[("tidegate.enable", "false")]);
    bench.fake.listen();
    bench.until("the container", |bench| bench.seen.contains_key("a")).await;
}

#[tokio::test(start_paused = true)]
async fn only_enabled_containers_are_inspected_and_nothing_is_ever_changed() {
    let mut bench = Bench::new(&[("on", ENABLED), ("off", &[]), ("no", &[("tidegate.enable", "false")])]).await;
    assert_eq!(bench.seen.len(), 3);
    bench.fake.engine().emit("off", "pause", &[]);
    bench.until("the pause", |bench| bench.seen["off"].phase == Phase::Paused).await;
    bench.change("no", |container| container.status = Status::Exited);
    bench.during(Duration::from_secs(40)).await;
    assert_eq!(bench.seen["no"].phase, Phase::Exited { code: 0, oom: false }, "the list said so");
    let state = bench.fake.engine();
    assert_eq!((state.inspects_of("off"), state.inspects_of("no")), (0, 0));
    assert!(state.inspects_of("on") > 0);
    for request in &state.requests {
        let path = request.strip_prefix("GET ").unwrap();
        assert!(path.starts_with("/v1.41/") || path == "/version" || path == "/_ping", "{request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_stream_is_followed_by_a_full_set() {
    let mut bench = Bench::new(&[("stays", ENABLED), ("goes", ENABLED), ("ends", ENABLED)]).await;
    {
        let mut state = bench.fake.engine();
        state.faults.refusing = true;
        state.cut();
        state.remove("goes");
        state.exit("ends", 0);
        state.run(Spec::new("comes", ENABLED));
    }
    bench.until("the problem", |bench| bench.codes() == [Code::DockerUnreachable]).await;
    assert_eq!(bench.seen.len(), 3, "what was known stays");
    sleep(Duration::from_secs(5)).await;
    bench.fake.engine().faults.refusing = false;
    let took = bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
    assert_eq!(bench.seen.keys().collect::<Vec<_>>(), ["comes", "ends", "stays"]);
    assert_eq!((bench.instances("comes"), bench.instances("ends"), bench.instances("stays")), (1, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_idle_stream_is_no_problem() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    sleep(Duration::from_secs(60)).await;
    bench.fake.engine().cut();
    let took = bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(bench.problems.is_empty());
    assert_eq!(bench.upserts, 0, "nothing had changed");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_noticed_within_ten_seconds() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.engine().freeze(true);
    let took = bench.until("the problem", |bench| bench.codes() == [Code::DockerUnreachable]).await;
    assert!(took <= Duration::from_secs(10), "{took:?}");
    assert!(bench.problems[0].reason.contains("no answer to a ping within 2s"), "{:?}", bench.problems);
    assert_eq!(bench.instances("a"), 1, "what was known stays");
    bench.change("a", |container| container.status = Status::Exited);
    bench.fake.engine().freeze(false);
    let took = bench.until("its end", |bench| bench.instances("a") == 0).await;
    assert!(took <= Duration::from_secs(20), "{took:?}");
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_keeps_events_to_itself_is_made_up_for_by_lists() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    sleep(Duration::from_secs(70)).await;
    bench.fake.engine().faults.mute = true;
    bench.change("a", |container| container.status = Status::Exited);
    bench.fake.engine().emit("a", "die", &[("exitCode", "0")]);
    let took = bench.until("its end", |bench| bench.instances("a") == 0).await;
    assert!(took <= Duration::from_secs(16), "{took:?}");
    bench.fake.engine().faults.mute = false;
    let took = bench.until("another stream", |bench| bench.resets == 2).await;
    assert!(took <= Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_socket_is_one_clear_problem_until_it_is_there() {
    let mut bench = Bench::before(&[("a", ENABLED)]);
    bench.until("the problem", |bench| !bench.problems.is_empty()).await;
    let [problem] = bench.problems.as_slice() else { panic!("{:?}", bench.problems) };
    assert_eq!(problem.code, Code::DockerUnreachable);
    assert!(problem.reason.starts_with("there is no socket at /"), "{problem}");
    assert!(problem.cure.contains("start Docker"), "{problem}");
    assert_eq!(bench.resets, 0);
    bench.during(Duration::from_secs(30)).await;
    bench.fake.listen();
    let took = bench.until("the first reset", |bench| bench.resets == 1).await;
    assert!(took <= Duration::from_secs(5), "{took:?}");
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
    assert!(bench.started.elapsed() >= Duration::from_secs(30));
}
