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

#[tokio::test(start_paused = true)]
async fn an_engine_that_restarts_behind_a_new_socket_is_found_again() {
    let mut bench = Bench::new(&[("stays", ENABLED), ("ends", ENABLED)]).await;
    sleep(Duration::from_secs(60)).await;
    bench.fake.go_away().await;
    bench.fake.engine().exit("ends", 1);
    bench.until("the problem", |bench| bench.codes() == [Code::DockerUnreachable]).await;
    assert!(bench.problems[0].reason.contains("nothing listens on it"), "{:?}", bench.problems);
    bench.during(Duration::from_secs(600)).await;
    assert_eq!((bench.instances("stays"), bench.instances("ends")), (1, 1), "what was known stays");
    bench.fake.come_back();
    let took = bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_eq!((bench.instances("stays"), bench.instances("ends")), (1, 0), "no event told of the end");
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_for_twenty_hours_is_found_again() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.engine().faults.refusing = true;
    bench.fake.engine().cut();
    bench.during(Duration::from_secs(20 * 3600)).await;
    assert_eq!(bench.codes(), [Code::DockerUnreachable, Code::StaleView]);
    assert_eq!(bench.instances("a"), 1);
    bench.fake.engine().run(Spec::new("b", ENABLED));
    bench.fake.engine().faults.refusing = false;
    let took = bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_eq!(bench.instances("b"), 1);
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_view_that_nothing_confirms_is_called_stale_within_ten_seconds() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.during(Duration::from_secs(60)).await;
    assert!(bench.problems.is_empty(), "{:?}", bench.problems);
    bench.fake.engine().freeze(true);
    let took = bench.until("the problem", |bench| bench.codes().contains(&Code::StaleView)).await;
    assert!(took <= Duration::from_secs(10), "{took:?}");
    assert_eq!(bench.codes(), [Code::DockerUnreachable, Code::StaleView]);
    let stale = bench.problems[1].clone();
    assert!(stale.subject.contains("docker.sock") && stale.reason.contains("since 20"), "{stale}");
    bench.during(Duration::from_secs(60)).await;
    assert_eq!(bench.problems.last(), Some(&stale), "it says since when, and that does not change");
    bench.fake.engine().freeze(false);
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_only_pings_is_stale_too() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.engine().faults.answers.insert(Call::List, Answer::Never);
    bench.fake.engine().cut();
    let took = bench.until("the problem", |bench| bench.codes().contains(&Code::StaleView)).await;
    assert!(took <= Duration::from_secs(10), "{took:?}");
    bench.fake.engine().faults.answers.clear();
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn what_dies_while_the_list_is_made_is_not_lost() {
    let mut bench = Bench::before(&[("a", ENABLED)]);
    bench.fake.engine().after_list = Some(Hook::new(|engine| engine.exit("a", 1)));
    bench.fake.listen();
    bench.until("the first reset", |bench| bench.resets == 1).await;
    bench.during(Duration::from_millis(100)).await;
    assert_eq!(bench.instances("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_changed_during_a_gap_is_known_two_seconds_after_it() {
    let mut bench = gap(0).await;
    let took = bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_gap_is_closed(&bench);
}

#[tokio::test(start_paused = true)]
async fn more_events_than_the_engine_remembers_are_made_up_for_by_the_list() {
    let mut bench = gap(300).await;
    let took = bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
    assert_gap_is_closed(&bench);
}

/// Twenty containers change while there is no stream for 5 s, and so many commands are run after that.
async fn gap(commands: usize) -> Bench {
    let names: Vec<String> = (0..20).map(|number| format!("c{number:02}")).collect();
    let containers: Vec<_> = names.iter().map(|name| (name.as_str(), ENABLED)).collect();
    let mut bench = Bench::new(&containers).await;
    bench.fake.engine().faults.refusing = true;
    bench.fake.engine().cut();
    for (number, name) in names.iter().enumerate() {
        let mut engine = bench.fake.engine();
        match number % 4 {
            0 => engine.exit(name, 1),
            1 => engine.remove(name),
            2 => engine.restart(name, Duration::ZERO),
            _ => engine.pause(name),
        }
    }
    bench.fake.engine().run(Spec::new("anchor", &[]));
    (0..commands).for_each(|_| bench.fake.engine().exec("anchor", "true"));
    bench.during(Duration::from_secs(5)).await;
    bench.fake.engine().faults.refusing = false;
    bench
}

fn assert_gap_is_closed(bench: &Bench) {
    for number in 0..20 {
        let discovered = bench.seen.get(&format!("c{number:02}"));
        let phase = discovered.map(|discovered| discovered.phase.clone());
        let expected = match number % 4 {
            0 => Some(Phase::Exited { code: 1, oom: false }),
            1 => None,
            2 => Some(Phase::Running),
            _ => Some(Phase::Paused),
        };
        assert_eq!(phase, expected, "c{number:02}");
        if let Some(instance) = discovered.and_then(|discovered| discovered.instances.first()) {
            let run = bench.fake.engine().container(&discovered.unwrap().id).unwrap().started_at;
            assert_eq!(instance.id.started_at, tidegate_fake_docker::rfc3339(run));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_two_thousand_events_ends_in_what_is() {
    let mut bench = Bench::new(&[("a", ENABLED), ("b", ENABLED)]).await;
    {
        // All at once: nobody reads meanwhile, and the engine drops what does not fit.
        let mut engine = bench.fake.engine();
        for _ in 0..1_000 {
            engine.pause("a");
            engine.unpause("a");
        }
        engine.exit("b", 1);
    }
    let took = bench.until("the end of b", |bench| bench.instances("b") == 0).await;
    assert!(took <= Duration::from_secs(20), "{took:?}");
    bench.during(Duration::from_secs(20)).await;
    assert_eq!((bench.seen["a"].phase.clone(), bench.instances("a")), (Phase::Running, 1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_of_a_newer_api_is_spoken_to_in_a_version_that_both_know() {
    let mut bench = Bench::before(&[("a", ENABLED)]);
    bench.fake.engine().api = ("1.44", "1.52");
    bench.fake.listen();
    bench.until("the first reset", |bench| bench.resets == 1).await;
    assert_eq!(bench.instances("a"), 1);
    let requests = bench.fake.engine().requests.clone();
    assert!(requests.iter().any(|request| request == "GET /v1.52/containers/json"), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_oldest_api_is_too_new_says_so_and_keeps_what_was_known() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.go_away().await;
    bench.fake.engine().api = ("1.90", "1.99");
    bench.fake.come_back();
    let refused = |bench: &Bench| bench.problems.first().is_some_and(|problem| problem.reason.contains("too old"));
    bench.until("the problem", refused).await;
    assert!(bench.problems[0].cure.contains("a tidegate as new as it"), "{}", bench.problems[0]);
    assert_eq!(bench.instances("a"), 1);
    bench.fake.engine().api = ("1.24", "1.47");
    bench.until("the second reset", |bench| bench.resets == 2).await;
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_none_are_told_and_change_nothing() {
    for answer in [Answer::Garbage, Answer::Half, Answer::Status(503, "busy")] {
        let mut bench = Bench::new(&[("a", ENABLED)]).await;
        bench.fake.engine().faults.answers.insert(Call::List, answer.clone());
        bench.until("the problem", |bench| bench.codes().contains(&Code::DockerUnreachable)).await;
        assert_eq!(bench.instances("a"), 1, "{answer:?}");
        bench.fake.engine().faults.answers.clear();
        bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_whose_clock_is_an_hour_off_is_followed_all_the_same() {
    let mut bench = Bench::before(&[("a", ENABLED)]);
    bench.fake.engine().set_ahead(Duration::from_secs(3600));
    bench.fake.listen();
    bench.until("the first reset", |bench| bench.resets == 1).await;
    bench.fake.engine().cut();
    bench.until("the second reset", |bench| bench.resets == 2).await;
    bench.fake.engine().pause("a");
    let took = bench.until("the pause", |bench| bench.seen["a"].phase == Phase::Paused).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    bench.during(Duration::from_secs(6)).await;
    assert_eq!(bench.confirmed.reconnects, 1);
}
