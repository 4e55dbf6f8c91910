//! `sandbox run` as a child process, as `make run` starts it.

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

/// Longer than any step takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The turn to start one. Each looks for free ports before its Envoy takes them; two at once would take the same.
pub fn turn() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running `sandbox run`. Dropping it ends the process.
pub struct Run {
    child: Child,
    /// Its output after the welcome.
    output: Option<BufReader<ChildStdout>>,
    /// Its output until it is ready.
    pub welcome: String,
    /// The folder of its temporary files. It removes them itself, unless it crashes.
    pub tmp: TempDir,
    /// The file in which `send` finds it.
    pub running_file: PathBuf,
    _folder: TempDir,
}

impl Run {
    /// Starts it and reads its output until it is ready.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts it with further arguments.
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        Self::start_at(folder.path().join("sandbox.json"), folder, arguments)
    }

    /// Starts one more, which would be found by the same file.
    pub fn start_beside(&self) -> Result<Self> {
        Self::start_at(self.running_file.clone(), tempfile::tempdir()?, &[])
    }

    fn start_at(running_file: PathBuf, folder: TempDir, arguments: &[&str]) -> Result<Self> {
        let _turn = turn();
        let tmp = tempfile::tempdir()?;
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

    /// Appends the next line of its output to the text. Returns 0 at the end of the output.
    pub fn read_line(&mut self, text: &mut String) -> Result<usize> {
        Ok(self.output.as_mut().context("its output is closed")?.read_line(text)?)
    }

    /// Stops reading its output.
    pub fn close_output(&mut self) {
        self.output = None;
    }

    /// The part of its welcome between these two texts.
    fn told(&self, before: &str, after: &str) -> Result<&str> {
        let found = self.welcome.split_once(before).and_then(|(_, rest)| rest.split_once(after));
        found.map(|(found, _)| found).with_context(|| format!("there is no {before}… in: {}", self.welcome))
    }

    /// The URL for webhooks.
    pub fn url(&self) -> Result<&str> {
        self.told("curl -i ", " ")
    }

    /// The webhook's secret.
    pub fn secret(&self) -> Result<&str> {
        self.told("Stigg-Webhooks-Secret: ", "'")
    }

    /// The URL of the debugger's page.
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

    /// Whether Envoy stops listening. The kernel kills it, which takes a moment.
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

/// A sandbox command that does not inherit this process's secrets.
pub fn sandbox(command: &str) -> Command {
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    sandbox.arg(command).env_remove("SEGMENT_WRITE_KEY").env_remove("STIGG_WEBHOOK_SECRET");
    sandbox
}
