//! The provider on real directories.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tidegate_core::compile::Compiler;
use tidegate_core::config::Config;
use tidegate_core::{Code, State};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

/// Longer than a look that is due anyway, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// A provider at work.
struct Running {
    inbox: mpsc::Receiver<Input>,
    stats: FileStats,
    _tasks: JoinSet<()>,
}

fn follow(path: &Path) -> Running {
    let provider = FileProvider::new(path);
    let stats = provider.stats();
    let (sender, inbox) = mpsc::channel(64);
    let mut tasks = JoinSet::new();
    tasks.spawn(provider.run(sender, Clock::start(), CancellationToken::new()));
    Running { inbox, stats, _tasks: tasks }
}

impl Running {
    async fn next(&mut self) -> Update {
        let input = timeout(SOON, self.inbox.recv()).await.expect("an update comes soon").expect("it runs");
        let Input::Provider { provider, update } = input else { panic!("{input:?}") };
        assert_eq!(provider, ProviderName::file());
        update
    }

    async fn reset(&mut self) -> Vec<String> {
        match self.next().await {
            Update::Reset(all) => all.into_iter().map(|discovered| discovered.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    async fn upsert(&mut self) -> String {
        match self.next().await {
            Update::Upsert(discovered) => discovered.name,
            other => panic!("{other:?}"),
        }
    }

    async fn remove(&mut self) -> String {
        match self.next().await {
            Update::Remove(id) => id,
            other => panic!("{other:?}"),
        }
    }

    async fn problems(&mut self) -> Vec<Problem> {
        match self.next().await {
            Update::Problems(problems) => problems,
            other => panic!("{other:?}"),
        }
    }
}

fn line(service: &str, port: u16) -> String {
    format!(
        "- {{ service: {service}, host: {service}.localhost, address: \"127.0.0.1:{port}\", check: {{ type: none }} }}\n"
    )
}

/// As an editor writes: beside it, and renamed over it.
fn replace(path: &Path, text: &str) {
    let staging = path.with_extension("new");
    fs::write(&staging, text).unwrap();
    fs::rename(staging, path).unwrap();
}

#[tokio::test]
async fn a_directory_is_a_full_set_and_then_its_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    fs::write(file("shop.yaml"), line("shop", 1)).unwrap();
    fs::write(file("cart.yml"), line("cart", 2)).unwrap();
    for ignored in ["notes.txt", ".#shop.yaml", "shop.yaml~"] {
        fs::write(file(ignored), line("ignored", 3)).unwrap();
    }
    fs::create_dir(file("below.yaml")).unwrap();
    let mut running = follow(directory.path());
    assert_eq!(running.reset().await, ["cart/default@127.0.0.1:2", "shop/default@127.0.0.1:1"]);
    assert_eq!(running.stats.reads.get(), 2);

    replace(&file("shop.yaml"), &(line("shop", 1) + &line("shop", 4)));
    assert_eq!(running.upsert().await, "shop/default@127.0.0.1:4");
    fs::write(file("new.yaml"), line("new", 5)).unwrap();
    assert_eq!(running.upsert().await, "new/default@127.0.0.1:5");
    assert_eq!(running.stats.reads.get(), 4, "each change reads one file");
    fs::remove_file(file("cart.yml")).unwrap();
    assert_eq!(running.remove().await, "file:cart/default@127.0.0.1:2");
    assert_eq!(running.stats.reads.get(), 4, "the end of a file reads none");
}

#[tokio::test]
async fn equal_content_says_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    fs::write(&a, line("shop", 1)).unwrap();
    let mut running = follow(directory.path());
    running.reset().await;
    replace(&a, &format!("# the same\n{}", line("shop", 1)));
    let reads = async {
        while running.stats.reads.get() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, reads).await.expect("it is read again");
    fs::write(&b, line("cart", 2)).unwrap();
    assert_eq!(running.upsert().await, "cart/default@127.0.0.1:2", "nothing was told of the first");
}

#[tokio::test]
async fn a_single_file_may_have_any_name_and_its_absence_keeps_its_entries() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("instances");
    let mut running = follow(&path);
    let [missing] = &running.problems().await[..] else { panic!("one problem") };
    assert_eq!((missing.code, missing.reason.as_str()), (Code::UnreadableInstances, "it is not there"));
    fs::write(&path, line("shop", 1)).unwrap();
    assert_eq!(running.reset().await, ["shop/default@127.0.0.1:1"], "the first full set comes with the file");
    assert_eq!(running.problems().await, []);
    fs::remove_file(&path).unwrap();
    assert_eq!(running.problems().await.len(), 1, "a problem, and no removal");
    // Whole at once: on a busy machine one that is being written is seen empty.
    replace(&path, &(line("shop", 1) + &line("shop", 2)));
    assert_eq!(running.upsert().await, "shop/default@127.0.0.1:2");
    assert_eq!(running.problems().await, []);
}

#[tokio::test]
async fn a_directory_that_vanished_keeps_what_was_known() {
    let directory = tempfile::tempdir().unwrap();
    let (path, away) = (directory.path().join("instances"), directory.path().join("away"));
    fs::create_dir(&path).unwrap();
    fs::write(path.join("shop.yaml"), line("shop", 1)).unwrap();
    let mut running = follow(&path);
    running.reset().await;
    fs::rename(&path, &away).unwrap();
    assert_eq!(running.problems().await[0].code, Code::UnreadableInstances);
    fs::write(away.join("cart.yaml"), line("cart", 2)).unwrap();
    fs::rename(&away, &path).unwrap();
    assert_eq!(running.upsert().await, "cart/default@127.0.0.1:2");
    assert_eq!(running.problems().await, []);
    fs::write(path.join("cart.yaml"), "").unwrap();
    assert_eq!(running.remove().await, "file:cart/default@127.0.0.1:2", "it is watched again");
}

#[tokio::test]
async fn what_cannot_be_read_stops_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.path().join("a.yaml")).unwrap();
    fs::write(directory.path().join("b.yaml"), [0xff, 0xfe]).unwrap();
    fs::write(directory.path().join("c.yaml"), "- { service: [").unwrap();
    fs::write(directory.path().join("d.yaml"), line("shop", 1)).unwrap();
    let large = fs::File::create(directory.path().join("e.yaml")).unwrap();
    large.set_len(tidegate_core::instances_file::MAX_FILE + 1).unwrap();
    std::os::unix::fs::symlink("nowhere", directory.path().join("f.yaml")).unwrap();
    let mut running = follow(directory.path());
    assert_eq!(running.reset().await, ["shop/default@127.0.0.1:1"]);
    let problems = running.problems().await;
    let said: Vec<(Code, &str)> = problems.iter().map(|problem| (problem.code, problem.reason.as_str())).collect();
    let [(unreadable, socket), (_, text), (invalid, _), (_, large)] = said[..] else { panic!("{said:?}") };
    assert_eq!((unreadable, invalid), (Code::UnreadableInstances, Code::InvalidInstances));
    assert!(socket.contains("no regular file") && text.contains("UTF-8") && large.contains("are allowed"), "{said:?}");
}

/// As `reconcile` does with what comes.
#[tokio::test]
async fn touching_one_of_a_thousand_files_reads_one_and_compiles_one() {
    const FILES: u16 = 1_000;
    let directory = tempfile::tempdir().unwrap();
    let file = |number: u16| directory.path().join(format!("{number:04}.yaml"));
    let text = |number: u16, more: u16| {
        (0..10 + more).map(|port| line(&format!("s{number}"), 9_000 + port)).collect::<String>()
    };
    for number in 0..FILES {
        fs::write(file(number), text(number, 0)).unwrap();
    }
    let mut running = follow(directory.path());
    let mut state = State::new(Config::default(), [ProviderName::file()], 0);
    let mut compiler = Compiler::new("/filter.wasm".to_owned());
    let now = Timestamp::from_millis(1);
    let mut round = |update: Update| {
        state.apply(Input::Provider { provider: ProviderName::file(), update }, now);
        let services: BTreeSet<_> = state.settle(now).services;
        let changes = compiler.update(&state, &services, false);
        (services.len(), changes.upserts.len())
    };
    let (services, resources) = round(running.next().await);
    assert_eq!(services, usize::from(FILES));
    assert!(resources >= 2 * usize::from(FILES), "a cluster and its endpoints each, not {resources}");
    assert_eq!(running.stats.reads.get(), u64::from(FILES));
    replace(&file(500), &text(500, 1));
    let changed = round(running.next().await);
    assert_eq!(running.stats.reads.get(), u64::from(FILES) + 1, "one file is read again");
    assert_eq!(changed, (1, 1), "one service is compiled, and its endpoints are all that is sent");
}

#[tokio::test]
async fn a_flood_of_changes_is_one_full_set() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("all.yaml");
    fs::write(&path, line("shop", 1)).unwrap();
    let mut running = follow(directory.path());
    running.reset().await;
    let many: String = (1..=2_000).map(|port| line("shop", port)).collect();
    replace(&path, &many);
    assert_eq!(running.reset().await.len(), 2_000);
}
