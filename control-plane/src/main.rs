//! Skeleton.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let config = std::env::args().nth(1).map(Into::into);
    tidegate::run::run(tidegate::options::RunOptions {
        config,
        state_dir: "/tmp/tgstate".into(),
        filter_wasm: None,
        supervised: false,
    })
    .await
}
