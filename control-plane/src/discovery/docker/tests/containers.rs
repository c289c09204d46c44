//! What happens to containers, and what is told of it.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_container_is_known_as_soon_as_it_starts() {
    let mut bench = Bench::new(&[]).await;
    bench.fake.engine().run(Spec::new("a", ENABLED));
    let took = bench.until("the instance", |bench| bench.instances("a") == 1).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(bench.seen["a"].hint.action, "start");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_inspected_stays_as_it_was() {
    let mut bench = Bench::new(&[("a", ENABLED), ("b", ENABLED)]).await;
    bench.fake.engine().faults.looks.insert("a".to_owned(), Answer::Status(500, "it is broken"));
    bench.change("a", |container| _ = container.networks.insert("bridge".to_owned(), Some([172, 30, 0, 9].into())));
    bench.fake.engine().emit("a", "rename", &[]);
    bench.until("the problem", |bench| bench.codes() == [Code::InspectFailed]).await;
    assert!(bench.problems[0].reason.contains("HTTP 500: it is broken"), "{:?}", bench.problems);
    assert_eq!(bench.seen["a"].instances[0].id.address.ip().to_string(), "172.30.0.2");
    bench.fake.engine().faults.looks.clear();
    let took = bench
        .until("the new address", |bench| bench.seen["a"].instances[0].id.address.ip().to_string() == "172.30.0.9");
    assert!(took.await < Duration::from_secs(2));
    bench.until("the all-clear", |bench| bench.problems.is_empty()).await;
    assert_eq!(bench.resets, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_drains_at_once_and_outlives_a_reconnect_but_not_its_time() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.engine().faults.answers.insert(Call::Inspect, Answer::Never);
    bench.fake.engine().kill("a", 1, None);
    bench.fake.engine().kill("a", 15, None);
    let took = bench.until("the drain", |bench| bench.seen["a"].terminating.is_some()).await;
    assert!(took < Duration::from_millis(50), "{took:?}: it waited for a look");
    assert_eq!(bench.instances("a"), 1);
    bench.fake.engine().faults.answers.clear();
    bench.fake.engine().cut();
    bench.until("the second reset", |bench| bench.resets == 2).await;
    assert!(bench.seen["a"].terminating.is_some());
    let took = bench.until("the end of the drain", |bench| bench.seen["a"].terminating.is_none()).await;
    assert!((Duration::from_secs(10)..Duration::from_secs(13)).contains(&took), "{took:?}");
    assert_eq!(bench.instances("a"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_died_is_gone_at_once_and_its_run_never_comes_back() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    let first = bench.seen["a"].instances[0].id.clone();
    sleep(Duration::from_secs(1)).await;
    // The engine goes on showing the run that ended.
    bench.fake.engine().emit("a", "die", &[("exitCode", "137")]);
    let took = bench.until("its end", |bench| bench.instances("a") == 0).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(bench.seen["a"].phase, Phase::Exited { code: 137, oom: false });
    bench.during(Duration::from_secs(30)).await;
    assert_eq!(bench.instances("a"), 0);
    let now = bench.fake.engine().now();
    bench.change("a", |container| container.started_at = now);
    bench.until("the next run", |bench| bench.instances("a") == 1).await;
    assert_ne!(bench.seen["a"].instances[0].id, first);
}

#[tokio::test(start_paused = true)]
async fn a_destroyed_container_is_removed() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.engine().remove("a");
    bench.until("the removal", |bench| bench.seen.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_without_die_is_seen() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.change("a", |container| container.status = Status::Exited);
    bench.fake.engine().emit("a", "stop", &[]);
    let took = bench.until("its end", |bench| bench.instances("a") == 0).await;
    assert!(took < Duration::from_millis(250), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn swapped_and_repeated_events_end_in_what_is() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    sleep(Duration::from_secs(1)).await;
    {
        let mut state = bench.fake.engine();
        let now = state.now();
        state.change("a", |container| container.started_at = now);
        for _ in 0..10 {
            state.emit_at(now + 1_000_000, "a", "start", &[]);
            state.emit_at(now - 1_000_000, "a", "die", &[("exitCode", "0")]);
        }
    }
    bench.during(Duration::from_secs(1)).await;
    assert_eq!(bench.instances("a"), 1);
    assert!(bench.upserts <= 2, "the end of one run and the next one, not {} updates", bench.upserts);
    let run = bench.seen["a"].instances[0].id.clone();
    let before = bench.upserts;
    for _ in 0..10 {
        bench.fake.engine().emit("a", "oom", &[]);
    }
    bench.during(Duration::from_secs(1)).await;
    assert_eq!((bench.upserts, &bench.seen["a"].instances[0].id), (before, &run));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_comes_late_is_found_soon() {
    let mut bench = Bench::new(&[]).await;
    {
        let mut engine = bench.fake.engine();
        engine.run(Spec::new("a", ENABLED));
        engine.change("a", |container| _ = container.networks.insert("bridge".to_owned(), None));
    }
    bench.until("the container", |bench| bench.seen.contains_key("a")).await;
    bench.change("a", |container| _ = container.networks.insert("bridge".to_owned(), Some([172, 30, 0, 7].into())));
    let took = bench.until("the instance", |bench| bench.instances("a") == 1).await;
    assert!(took <= Duration::from_millis(10), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_never_ends_delays_no_other() {
    let mut bench = Bench::new(&[("a", ENABLED), ("b", ENABLED)]).await;
    bench.fake.engine().faults.looks.insert("a".to_owned(), Answer::Never);
    bench.fake.engine().rename("a", "other");
    bench.fake.engine().restart("b", Duration::ZERO);
    let run = bench.seen["b"].instances[0].id.clone();
    let is_new = |bench: &Bench| bench.seen["b"].instances.first().is_some_and(|instance| instance.id != run);
    let took = bench.until("the next run of b", is_new).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    bench.until("the problem", |bench| bench.codes() == [Code::InspectFailed]).await;
    assert!(bench.problems[0].reason.contains("no answer to the inspection within 5s"), "{}", bench.problems[0]);
    assert_eq!((bench.instances("a"), bench.seen["a"].name.as_str()), (1, "a"), "as it was");
}

#[tokio::test(start_paused = true)]
async fn health_checks_of_strangers_cost_no_look() {
    let names: Vec<String> = (0..50).map(|number| format!("stranger-{number}")).collect();
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    for name in &names {
        bench.fake.engine().run(Spec { healthcheck: true, ..Spec::new(name, &[]) });
    }
    bench.during(Duration::from_secs(2)).await;
    let before = bench.fake.engine().requests.len();
    for round in 0..12 {
        for name in &names {
            let health = if round % 2 == 0 { Health::Healthy } else { Health::Unhealthy };
            let mut engine = bench.fake.engine();
            engine.exec(name, "healthcheck");
            engine.judge(name, health);
        }
        bench.during(Duration::from_secs(5)).await;
    }
    let engine = bench.fake.engine();
    assert_eq!(names.iter().map(|name| engine.inspects_of(name)).sum::<usize>(), 0);
    // In a minute: a ping every 5 s, a list every 15 s, and a look at what is enabled with each.
    let asked = engine.requests.len() - before;
    assert!(asked <= 12 + 2 * 5, "{asked} requests in a minute");
}

#[tokio::test(start_paused = true)]
async fn an_event_costs_one_look_however_many_containers_there_are() {
    for others in [10, 100, 1_000] {
        let names: Vec<String> = (0..others).map(|number| format!("other-{number}")).collect();
        let mut containers: Vec<(&str, &[(&str, &str)])> = names.iter().map(|name| (name.as_str(), ENABLED)).collect();
        containers.push(("a", ENABLED));
        let mut bench = Bench::new(&containers).await;
        // Past the list that follows a connection, and before the next one.
        bench.during(Duration::from_secs(3)).await;
        let before = bench.fake.engine().requests.len();
        for _ in 0..20 {
            bench.fake.engine().restart("a", Duration::ZERO);
            bench.during(Duration::from_millis(50)).await;
        }
        let engine = bench.fake.engine();
        let asked = &engine.requests[before..];
        let looks = asked.iter().filter(|request| !request.ends_with("_ping")).count();
        assert!(asked.iter().all(|request| !request.ends_with("/containers/json")), "it lists: {asked:?}");
        // What is told of a restart at once is looked at once, or twice when a look is under way.
        assert!((20..=40).contains(&looks), "{looks} looks for 20 restarts among {others}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_of_a_child_by_lack_of_memory_changes_nothing() {
    let mut bench = Bench::new(&[("a", ENABLED)]).await;
    bench.fake.engine().emit("a", "oom", &[]);
    bench.during(Duration::from_secs(5)).await;
    assert_eq!((bench.instances("a"), bench.upserts), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_stop_between_two_runs_is_known_at_once() {
    let mut bench = Bench::new(&[]).await;
    bench.fake.engine().run(Spec { restart: tidegate_fake_docker::Restart::Always, ..Spec::new("a", ENABLED) });
    bench.until("the instance", |bench| bench.instances("a") == 1).await;
    bench.fake.engine().exit("a", 1);
    bench.until("the pause", |bench| bench.seen["a"].phase == Phase::Restarting).await;
    bench.fake.engine().stop("a", Duration::ZERO);
    let ended = |bench: &Bench| matches!(bench.seen["a"].phase, Phase::Exited { .. });
    let took = bench.until("its end", ended).await;
    assert!(took <= Duration::from_millis(250), "{took:?}");
}
