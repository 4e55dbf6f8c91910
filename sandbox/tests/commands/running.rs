//! A running `sandbox run`, as `make run` calls it.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::stigg::{Reply, Webhook};
use tempfile::TempDir;

/// Long enough for anything that happens at all.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The turn to start one. Each looks for free ports before its Envoy takes them; two at once would take the same.
pub fn turn() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running `sandbox run`, ended with its value.
pub struct Run {
    child: Child,
    /// What it prints after its welcome.
    output: Option<BufReader<ChildStdout>>,
    welcome: String,
    /// Where its files are: it can take them away itself unless it crashes.
    pub tmp: TempDir,
    /// The file that tells `send` where it is.
    pub running_file: PathBuf,
    _folder: TempDir,
}

impl Run {
    /// Starts it and reads what it says until it is ready.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts it with further arguments.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let _turn = turn();
        let (tmp, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let running_file = folder.path().join("sandbox.json");
        let mut command = sandbox("run");
        command.args(arguments).arg("--running-file").arg(&running_file);
        let mut child = command.env("TMPDIR", tmp.path()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().map(BufReader::new);
        let mut run = Self { child, output, welcome: String::new(), tmp, running_file, _folder: folder };
        let mut welcome = String::new();
        while !welcome.contains("Ctrl-C") {
            ensure!(run.read_line(&mut welcome)? > 0, "it ended: {welcome}");
        }
        run.welcome = welcome;
        Ok(run)
    }

    /// Adds the next line that it prints to the text. Returns 0 once there is no further one.
    pub fn read_line(&mut self, text: &mut String) -> Result<usize> {
        Ok(self.output.as_mut().context("its output is closed")?.read_line(text)?)
    }

    /// Stops reading what it prints.
    pub fn close_output(&mut self) {
        self.output = None;
    }

    /// What its welcome has between these two.
    fn told(&self, before: &str, after: &str) -> Result<&str> {
        let found = self.welcome.split_once(before).and_then(|(_, rest)| rest.split_once(after));
        found.map(|(found, _)| found).with_context(|| format!("there is no {before}… in: {}", self.welcome))
    }

    /// Where it takes webhooks.
    pub fn url(&self) -> Result<&str> {
        self.told("curl -i ", " ")
    }

    /// The webhook's secret.
    pub fn secret(&self) -> Result<&str> {
        self.told("Stigg-Webhooks-Secret: ", "'")
    }

    /// The debugger's page.
    pub fn debugger(&self) -> Result<&str> {
        self.told("buttons that send some: ", "\n")
    }

    /// Sends a webhook with its secret.
    pub async fn send(&self, event: impl Into<String>) -> Result<Reply> {
        Webhook::new(event.into()).secret(self.secret()?).send(self.url()?).await
    }

    /// The socket of Envoy's admin interface.
    pub fn admin(&self) -> Result<&Path> {
        Ok(Path::new(self.told("--unix-socket ", " ")?))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    /// Waits until it has ended.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Whether Envoy stops listening; killed by the kernel, it takes a moment.
    pub fn envoy_ends(&self) -> Result<bool> {
        let (addr, _) = self.told("curl -i http://", " ")?.split_once('/').context("no path")?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(addr).is_ok() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::yield_now();
        }
        Ok(true)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command of the sandbox's, which does not see the secrets that this process may have.
pub fn sandbox(command: &str) -> Command {
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    sandbox.arg(command).env_remove("SEGMENT_WRITE_KEY").env_remove("STIGG_WEBHOOK_SECRET");
    sandbox
}
