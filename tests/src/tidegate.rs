//! tidegate itself, as a user has it: the built binary, run with a configuration file and asked by its commands.

use std::{
    env,
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    client::Request,
    poll::SOON,
    process::{self, Output, Process},
};

/// How long a command may take that is not told to wait for something.
const COMMAND: Duration = Duration::from_secs(30);

/// A running `tidegate run` or `tidegate up`, in a folder of its own that holds its configuration and state.
pub struct Tidegate {
    pub process: Process,
    directory: TempDir,
}

/// The commands of tidegate, run in a folder and with an environment.
#[derive(Debug, Clone, Default)]
pub struct Cli {
    /// The control plane's address, as `TIDEGATE_API`.
    pub api: Option<String>,
    pub directory: Option<PathBuf>,
    pub environment: Vec<(String, String)>,
}

/// `TIDEGATE_BIN`, else what cargo built beside this test.
pub fn locate() -> Result<PathBuf> {
    built("TIDEGATE_BIN", "", "tidegate")
}

/// The sample backend.
pub(crate) fn locate_sample() -> Result<PathBuf> {
    locate_static("tidegate-sample")
}

/// A program that cargo built for musl, unless `TIDEGATE_SAMPLE`, or of another one its name in that manner, names a file.
pub(crate) fn locate_static(name: &str) -> Result<PathBuf> {
    let variable = name.to_uppercase().replace('-', "_");
    built(&variable, &format!("{}-unknown-linux-musl", env::consts::ARCH), name)
}

/// `TIDEGATE_XDS_EXAMPLE`, else the example of the xDS library that cargo built beside this test.
pub fn locate_xds_example() -> Result<PathBuf> {
    built("TIDEGATE_XDS_EXAMPLE", "", "examples/static_cluster")
}

/// What the variable names, else the binary in cargo's target folder, in the profile that the tests have.
fn built(variable: &str, target: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    // target/PROFILE/demo or target/PROFILE/deps/TEST-HASH.
    let here = env::current_exe()?;
    let profile = here.ancestors().skip(1).find(|path| !path.ends_with("deps")).context("a binary is in a folder")?;
    let target_directory = profile.parent().context("a profile's folder is in the target folder")?;
    let path = target_directory.join(target).join(profile.file_name().unwrap_or_default()).join(name);
    ensure!(path.is_file(), "{} is not built: run make build", path.display());
    Ok(path)
}

impl Tidegate {
    /// `tidegate run` with this configuration.
    pub fn run(configuration: &str) -> Result<Self> {
        Self::start(&["run"], configuration, &[])
    }

    /// Any long-running command, with `--config FILE` after it and the given environment. Its working folder, where its
    /// state goes, is its own.
    pub fn start(command: &[&str], configuration: &str, environment: &[(&str, &str)]) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, command, configuration, environment)
    }

    fn start_in(
        directory: TempDir,
        command: &[&str],
        configuration: &str,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let path = directory.path().join("tidegate.yaml");
        fs::write(&path, configuration)?;
        let mut process = Command::new(locate()?);
        process.args(command).arg("--config").arg(path).current_dir(directory.path());
        process.env_remove("TIDEGATE_API").env_remove("STATE_DIRECTORY").envs(environment.iter().copied());
        Ok(Self { process: Process::spawn("tidegate", &mut process, directory.path())?, directory })
    }

    /// Its working folder: `tidegate.yaml`, `tidegate-state`, `tidegate.log`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Replaces the configuration file as an editor would: as a whole.
    pub fn reconfigure(&self, configuration: &str) -> Result<()> {
        let staging = self.directory().join("tidegate.yaml.new");
        fs::write(&staging, configuration)?;
        fs::rename(staging, self.directory().join("tidegate.yaml"))?;
        Ok(())
    }

    /// Starts again in the same folder, with its state. The process must have ended, or is killed now.
    pub fn again(self, command: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let Self { process, directory } = self;
        drop(process);
        let configuration = fs::read_to_string(directory.path().join("tidegate.yaml"))?;
        Self::start_in(directory, command, &configuration, environment)
    }

    /// Waits until the address answers HTTP, whatever the status.
    pub async fn answers(&mut self, url: &str) -> Result<()> {
        let request = Request::url(http::Method::GET, url)?;
        self.process.until(SOON, &format!("an answer at {url}"), async || request.clone().send().await.map(drop)).await
    }

    /// Waits for its first full picture.
    pub async fn synced(&mut self, api: SocketAddr, limit: Duration) -> Result<()> {
        let ready = Request::get(api, "/readyz");
        let serving = async || {
            let answer = ready.clone().send().await?;
            ensure!(answer.status == 200, "{}", answer.text().trim());
            Ok(())
        };
        self.process.until(limit, "xDS to be served", serving).await
    }

    /// Commands in its folder.
    pub fn cli(&self, api: &str) -> Cli {
        Cli { api: Some(api.to_owned()), directory: Some(self.directory().to_owned()), environment: Vec::new() }
    }
}

impl Cli {
    /// Runs a command to its end. A code other than 0 is an answer; see [`Output::ok`].
    pub async fn run(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Output> {
        let mut command = Command::new(locate()?);
        command.args(arguments).env_remove("TIDEGATE_API").env_remove("STATE_DIRECTORY");
        if let Some(api) = &self.api {
            command.env("TIDEGATE_API", api);
        }
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        process::output(command, COMMAND).await
    }

    /// How far the rollout of a service is, of which `canary status` says with 1 that it failed.
    pub async fn canary(&self, service: &str) -> Result<serde_json::Value> {
        let output = self.run(["canary", "status", service, "-o", "json"]).await?;
        ensure!(matches!(output.code, 0 | 1), "canary status ended with {}: {}", output.code, output.stderr);
        let mut status: serde_json::Value = output.stdout.parse()?;
        Ok(status["canaries"][0].take())
    }

    /// Runs a command with `-o json` and reads its answer.
    pub async fn json(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<serde_json::Value> {
        let json = ["-o", "json"].map(Into::into);
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).chain(json);
        let output = self.run(arguments).await?.ok()?;
        serde_json::from_str(&output.stdout).with_context(|| format!("not JSON: {}", output.stdout))
    }
}
