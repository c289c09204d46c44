//! The task against a real directory. Time is paused where it matters.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use tempfile::TempDir;
use tidegate_core::compile::{Compiler, Resource};
use tidegate_core::config::Config;
use tidegate_core::{ProviderName, State};
use tidegate_xds::Commit;
use tokio::task::JoinSet;

use super::*;

/// A store, and the task that keeps what it publishes.
struct World {
    directory: TempDir,
    store: Store,
    commits: watch::Sender<u64>,
    reports: mpsc::Receiver<Input>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl World {
    fn start(directory: TempDir) -> Self {
        let kept = LastKnownGood::new(directory.path());
        Self::run(directory, Store::new(), kept)
    }

    fn run(directory: TempDir, store: Store, kept: LastKnownGood) -> Self {
        let (commits, committed) = watch::channel(0);
        let (inbox, reports) = mpsc::channel(64);
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(kept.run(store.clone(), committed, inbox, shutdown.clone()));
        Self { directory, store, commits, reports, shutdown, tasks }
    }

    fn commit(&self, name: &str) {
        self.commits.send_replace(commit(&self.store, name));
    }

    /// As reconcile ends, and then the process.
    async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        drop(self.commits);
        self.tasks.join_next().await.unwrap().unwrap();
        self.directory
    }

    /// The codes of the next report.
    async fn reported(&mut self) -> Vec<Code> {
        match self.reports.recv().await {
            Some(Input::Reported { part: PART, problems }) => problems.iter().map(|problem| problem.code).collect(),
            other => panic!("{other:?}"),
        }
    }

    async fn until_kept(&self, name: &str) {
        while !kept_names(self.directory.path()).contains(name) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn commit(store: &Store, name: &str) -> u64 {
    let mut commit = Commit::default();
    let cluster = Cluster { name: name.to_owned(), ..Cluster::default() };
    commit.upsert(ResourceType::Cluster, name, &cluster);
    store.commit(commit).sequence
}

fn kept_names(directory: &Path) -> BTreeSet<String> {
    let kept = file::read(&directory.join(FILE)).unwrap();
    let everyone = Group::default();
    kept.iter().flat_map(|snapshot| snapshot.resources(&everyone).map(|(_, name, ..)| name.to_owned())).collect()
}

fn files(directory: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// A directory in which "shop" was kept.
async fn kept_shop() -> TempDir {
    let world = World::start(tempfile::tempdir().unwrap());
    world.commit("shop");
    world.stop().await
}

#[tokio::test]
async fn what_was_committed_is_served_after_a_restart() {
    let world = World::start(tempfile::tempdir().unwrap());
    world.commit("shop");
    world.until_kept("shop").await;
    world.commit("cart");
    let version = world.store.version(ResourceType::Cluster, "cart");
    let directory = world.stop().await;
    assert_eq!(files(directory.path()), BTreeSet::from([FILE.to_owned()]));
    let mode = fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");

    let store = Store::new();
    assert!(LastKnownGood::new(directory.path()).restore(&store).is_some());
    assert!(store.is_open());
    assert_eq!(store.len(ResourceType::Cluster), 2);
    assert_eq!(store.version(ResourceType::Cluster, "cart"), version);
}

#[tokio::test]
async fn a_start_without_a_sync_overwrites_nothing() {
    let directory = kept_shop().await;
    let before = fs::read(directory.path().join(FILE)).unwrap();
    let store = Store::new();
    let mut kept = LastKnownGood::new(directory.path());
    assert!(kept.restore(&store).is_some());
    let directory = World::run(directory, store, kept).stop().await;
    assert_eq!(fs::read(directory.path().join(FILE)).unwrap(), before);
}

#[tokio::test]
async fn without_a_file_the_store_stays_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new();
    let mut kept = LastKnownGood::new(directory.path());
    assert_eq!(kept.restore(&store), None);
    assert!(!store.is_open());
    assert_eq!(kept.problems(), []);
}

#[tokio::test(start_paused = true)]
async fn a_damaged_file_is_set_aside_and_reported_until_it_is_removed() {
    let directory = kept_shop().await;
    let path = directory.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, &bytes).unwrap();

    let store = Store::new();
    let mut kept = LastKnownGood::new(directory.path());
    assert_eq!(kept.restore(&store), None);
    assert!(!store.is_open() && store.is_empty());
    let aside = directory.path().join("last-known-good.damaged-1");
    assert_eq!(fs::read(&aside).unwrap(), bytes);
    assert!(!path.exists());
    let problem = kept.problems().remove(0);
    assert!(problem.reason.starts_with("it is damaged: its checksum does not match"), "{problem}");
    assert!(problem.cure.contains("last-known-good.damaged-1"), "{problem}");

    let mut world = World::run(directory, store, kept);
    assert_eq!(world.reported().await, [Code::UnusableKept]);
    world.commit("shop");
    world.until_kept("shop").await;
    fs::remove_file(aside).unwrap();
    assert_eq!(world.reported().await, []);
    world.stop().await;
}

#[test]
fn so_many_unusable_files_are_kept_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    for life in 1..=7 {
        fs::write(directory.path().join(FILE), format!("of life {life}")).unwrap();
        assert_eq!(LastKnownGood::new(directory.path()).restore(&Store::default()), None);
    }
    let said = |number: u32| fs::read_to_string(directory.path().join(format!("{FILE}.damaged-{number}"))).unwrap();
    assert_eq!([1, 2, 3, 4, 5].map(said), [1, 2, 3, 4, 7].map(|life| format!("of life {life}")));
    assert_eq!(files(directory.path()).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_a_problem_until_one_succeeds_and_the_old_file_stays() {
    let mut world = World::start(kept_shop().await);
    let obstacle = world.directory.path().join("last-known-good.new");
    fs::create_dir(&obstacle).unwrap();
    world.commit("cart");
    assert_eq!(world.reported().await, [Code::NotKept]);
    assert_eq!(kept_names(world.directory.path()), BTreeSet::from(["shop".to_owned()]));
    // It is tried again, though nothing is committed.
    fs::remove_dir(&obstacle).unwrap();
    assert_eq!(world.reported().await, []);
    assert_eq!(kept_names(world.directory.path()), BTreeSet::from(["cart".to_owned()]));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_commits_costs_one_write_a_second() {
    let world = World::start(tempfile::tempdir().unwrap());
    let mut writes = BTreeSet::new();
    for number in 0..500 {
        world.commit(&format!("cluster-{number}"));
        tokio::time::sleep(Duration::from_millis(10)).await;
        writes.extend(file::read(&world.directory.path().join(FILE)).unwrap().map(|kept| kept.taken_at()));
    }
    assert!((4..=6).contains(&writes.len()), "{} writes in 5 s", writes.len());
    assert_eq!(kept_names(world.stop().await.path()).len(), 500, "the last ones at the end");
}

#[tokio::test]
async fn what_names_a_filter_that_is_gone_is_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let code = directory.path().join("filter.wasm");
    fs::write(&code, b"\0asm").unwrap();
    let world = World::start(directory);
    let mut state = State::new(Config::default(), [ProviderName::docker()], 0);
    let empty = tidegate_core::Update::Reset(Vec::new());
    state.apply(Input::Provider { provider: ProviderName::docker(), update: empty }, Timestamp::default());
    let settled = state.settle(Timestamp::default());
    let compiled = Compiler::new(code.display().to_string()).update(&state, &settled.services, settled.edge);
    let mut commit = Commit::default();
    for upsert in &compiled.upserts {
        if let Resource::ExtensionConfig(message) = &upsert.resource {
            commit.upsert(ResourceType::ExtensionConfig, &upsert.name, message);
        }
    }
    world.commits.send_replace(world.store.commit(commit).sequence);
    let directory = world.stop().await;

    let restored = |store: &Store| {
        let mut kept = LastKnownGood::new(directory.path());
        (
            kept.restore(store).is_some(),
            kept.problems().iter().map(|problem| problem.reason.clone()).collect::<String>(),
        )
    };
    assert_eq!(restored(&Store::new()), (true, String::new()));
    fs::remove_file(&code).unwrap();
    let store = Store::new();
    let (served, reason) = restored(&store);
    assert!(!served && !store.is_open() && store.is_empty());
    assert!(reason.contains("filter.wasm, which is not there any more"), "{reason}");
    assert_eq!(files(directory.path()), BTreeSet::from([FILE.to_owned()]), "it is whole, and stays");
}
