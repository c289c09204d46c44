//! Lives of containers, as events tell them.

use serde_json::Value;

use super::*;
use crate::FakeDocker;

/// Everything told since the beginning, as `ACTION` or `network ACTION`.
fn told(fake: &FakeDocker) -> Vec<String> {
    let mut stream = fake.engine().subscribe(Some(0), Filter::default());
    let mut all = Vec::new();
    while let Ok(line) = stream.try_recv() {
        let event: Value = serde_json::from_slice(&line).unwrap();
        let prefix = if event["Type"] == "network" { "network " } else { "" };
        all.push(format!("{prefix}{}", event["Action"].as_str().unwrap()));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_policy_starts_again_after_a_pause_that_doubles() {
    let fake = FakeDocker::new();
    fake.engine().run(Spec { restart: Restart::Always, ..Spec::new("a", &[]) });
    let mut runs = Vec::new();
    for pause in [100, 200, 400] {
        fake.engine().exit("a", 1);
        assert_eq!(fake.engine().container("a").unwrap().status, Status::Restarting);
        tokio::time::sleep(Duration::from_millis(pause - 1)).await;
        assert_eq!(fake.engine().container("a").unwrap().status, Status::Restarting);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(fake.engine().container("a").unwrap().status, Status::Running);
        runs.push(fake.engine().container("a").unwrap().started_at);
    }
    assert!(runs.is_sorted());
    fake.engine().exit("a", 1);
    fake.engine().stop("a", Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.engine().container("a").unwrap().status, Status::Exited);
    assert_eq!(told(&fake).iter().filter(|action| *action == "die").count(), 4);
    assert_eq!(told(&fake).last().unwrap(), "stop", "which is all that a stop in a pause tells");
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_its_time_and_a_removal_none() {
    let fake = FakeDocker::new();
    fake.engine().run(Spec::new("a", &[]));
    fake.engine().stop("a", Duration::from_secs(3));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fake.engine().container("a").unwrap().status, Status::Running);
    assert_eq!(told(&fake), ["create", "network connect", "start", "kill"]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(told(&fake)[4..], ["die", "network disconnect", "stop"]);
    fake.engine().start("a");
    fake.engine().remove("a");
    assert_eq!(told(&fake)[7..], ["network connect", "start", "kill", "die", "network disconnect", "destroy"]);
    assert!(fake.engine().containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_the_engine_is_away_is_told_by_nothing() {
    let mut fake = FakeDocker::new();
    fake.listen();
    fake.engine().run(Spec::new("ends", &[]));
    fake.engine().run(Spec { restart: Restart::Always, ..Spec::new("again", &[]) });
    fake.go_away().await;
    fake.engine().exit("ends", 1);
    fake.engine().exit("again", 1);
    fake.come_back();
    assert_eq!(told(&fake), ["network connect", "start"], "of the one that is started again");
    assert_eq!(fake.engine().container("ends").unwrap().status, Status::Exited);
    assert_eq!(fake.engine().container("again").unwrap().status, Status::Running);
}

#[tokio::test(start_paused = true)]
async fn addresses_are_used_again_and_a_stale_look_shows_the_old_one() {
    let fake = FakeDocker::new();
    let address =
        |id: &str| fake.engine().inspect(id).unwrap()["NetworkSettings"]["Networks"]["bridge"]["IPAddress"].clone();
    fake.engine().run(Spec::new("a", &[]));
    assert_eq!(address("a"), "172.30.0.2");
    fake.engine().faults.stale = Duration::from_secs(1);
    fake.engine().exit("a", 0);
    fake.engine().run(Spec::new("b", &[]));
    assert_eq!(address("a"), "172.30.0.2", "stale");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((address("a"), address("b")), (Value::from(""), Value::from("172.30.0.2")));
}
