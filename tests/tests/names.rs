//! A Docker engine that is known by a name, and the name is not known any more. The control plane is a real process that finds
//! names in a file of the test's own: in a mount namespace, `/etc/hosts` is that file, and no name server is asked. Needs root.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tidegate_core::{Code, status::Status};
use tidegate_fake_docker::{FakeDocker, Spec};
use tidegate_tests::{
    poll::{SOON, until},
    ports,
    process::Process,
    tidegate::{self, Cli},
};

/// Reserved for tests (RFC 6761): no name server knows it.
const NAME: &str = "engine.test";

/// Runs `"$@"` where names are those of the file `$0`, and of nobody else.
const WITH_HOSTS: &str = "printf 'hosts: files\\n' > \"$0.nsswitch\" && mount --bind \"$0\" /etc/hosts && \
                          mount --bind \"$0.nsswitch\" /etc/nsswitch.conf && exec \"$@\"";

/// The name is that of this address, or of none. The file stays the same: a mount is of a file, not of its name.
fn resolve(hosts: &Path, address: Option<Ipv4Addr>) -> Result<()> {
    Ok(fs::write(hosts, address.map(|address| format!("{address} {NAME}\n")).unwrap_or_default())?)
}

/// Waits until just so many containers of the service get requests, and the engine is, or is not, called unreachable.
async fn seen(cli: &Cli, endpoint: &str, ready: u32, unreachable: bool) -> Result<Status> {
    until(SOON, &format!("{ready} ready, unreachable: {unreachable}"), async || {
        let output = cli.run(["status", "-o", "json"]).await?;
        let status: Status = serde_json::from_str(&output.stdout).context("no status")?;
        let service = status.services.iter().find(|service| service.name == "shop").context("no service")?;
        let subject = format!("Docker engine {endpoint}");
        let of_it = |code: Code| status.problems.iter().any(|it| it.code == code && it.subject == subject);
        ensure!(service.ready == ready, "{} ready", service.ready);
        ensure!(of_it(Code::DockerUnreachable) == unreachable, "{:#?}", status.problems);
        Ok(status)
    })
    .await
}

#[tokio::test]
async fn an_engine_whose_name_is_forgotten_and_known_again_is_followed_as_before() -> Result<()> {
    let mut fake = FakeDocker::new();
    fake.engine().image("fake", &[]);
    let engine = fake.listen_tcp().await?;
    let endpoint = format!("tcp://{NAME}:{}", engine.port());
    let labels = [("tidegate.enable", "true"), ("tidegate.service", "shop"), ("tidegate.check.type", "none")];
    let first = fake.engine().run(Spec::new("first", &labels));
    let second = fake.engine().run(Spec::new("second", &labels));

    let directory = tempfile::tempdir()?;
    let hosts = directory.path().join("hosts");
    resolve(&hosts, Some(Ipv4Addr::LOCALHOST))?;
    let [listener, xds, api]: [SocketAddr; 3] = [ports::free()?, ports::free()?, ports::free()?];
    let configuration = format!(
        "edge: {{ listeners: [ {{ name: web, address: \"{listener}\" }} ] }}\nxds: {{ address: \"{xds}\" }}\n\
         api: {{ address: \"{api}\" }}\nproviders: {{ docker: {{ endpoint: \"{endpoint}\" }} }}\n"
    );
    fs::write(directory.path().join("tidegate.yaml"), configuration)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", WITH_HOSTS]).arg(&hosts).arg(tidegate::locate()?).arg("run");
    command.current_dir(directory.path()).env_remove("TIDEGATE_API").env_remove("STATE_DIRECTORY");
    let mut process = Process::spawn("tidegate", &mut command, directory.path())?;
    let cli = Cli { api: Some(format!("http://{api}")), ..Cli::default() };
    process.until(SOON, "both containers", async || seen(&cli, &endpoint, 2, false).await.map(drop)).await?;

    // The stream of events is cut, as by a proxy that is replaced, and nobody knows the name any more.
    resolve(&hosts, None)?;
    fake.engine().cut();
    let status = seen(&cli, &endpoint, 2, true).await?;
    let problem =
        status.problems.iter().find(|problem| problem.code == Code::DockerUnreachable).context("it is told")?;
    ensure!(problem.reason.contains("lookup") || problem.reason.contains("name"), "{problem}");
    // What happens meanwhile is told to nobody.
    fake.engine().kill(&first, 9, None);
    let third = fake.engine().run(Spec::new("third", &labels));
    let fourth = fake.engine().run(Spec::new("fourth", &labels));
    ensure!([&third, &fourth].iter().all(|id| fake.engine().inspects_of(id) == 0), "they are known already");

    resolve(&hosts, Some(Ipv4Addr::LOCALHOST))?;
    seen(&cli, &endpoint, 3, false).await?;
    // And events are heard again.
    fake.engine().kill(&second, 9, None);
    seen(&cli, &endpoint, 2, false).await?;
    Ok(())
}
