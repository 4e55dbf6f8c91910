//! `sandbox run`, as `make run` calls it. The filter must have been built.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::stigg::Webhook;
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(10);

/// A running `sandbox run`, ended with its value.
struct Run {
    child: Child,
    output: BufReader<ChildStdout>,
    welcome: String,
    /// Where its files are: it can take them away itself unless it crashes.
    tmp: TempDir,
}

impl Run {
    /// Starts it and reads what it says until it is ready.
    fn start() -> Result<Self> {
        // Each looks for free ports before its Envoy takes them; two at once would take the same.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

        let tmp = tempfile::tempdir()?;
        let mut child = sandbox_run().env("TMPDIR", tmp.path()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut run = Self { child, output, welcome: String::new(), tmp };
        while !run.welcome.contains("Ctrl-C") {
            ensure!(run.output.read_line(&mut run.welcome)? > 0, "it ended: {}", run.welcome);
        }
        Ok(run)
    }

    /// What its welcome has between these two.
    fn told(&self, before: &str, after: &str) -> Result<&str> {
        let found = self.welcome.split_once(before).and_then(|(_, rest)| rest.split_once(after));
        found.map(|(found, _)| found).with_context(|| format!("there is no {before}… in: {}", self.welcome))
    }

    fn url(&self) -> Result<&str> {
        self.told("curl -i ", " ")
    }

    fn secret(&self) -> Result<&str> {
        self.told("Stigg-Webhooks-Secret: ", "'")
    }

    fn admin(&self) -> Result<SocketAddr> {
        Ok(self.told("admin interface is at http://", ".\n")?.parse()?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Whether Envoy stops listening; killed by the kernel, it takes a moment.
    fn envoy_ends(&self) -> Result<bool> {
        let admin = self.admin()?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(admin).is_ok() {
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

fn sandbox_run() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    command.arg("run").env_remove("SEGMENT_WRITE_KEY").env_remove("STIGG_WEBHOOK_SECRET");
    command
}

#[tokio::test]
async fn a_webhook_becomes_a_track_call_on_the_screen() -> Result<()> {
    let mut run = Run::start()?;
    let event = json!({"type": "subscription.created", "messageId": "m-1", "customer": {"id": "customer-1"}});
    assert_eq!(Webhook::event(&event).secret(run.secret()?).send(run.url()?).await?.status, 200);

    let mut shown = String::new();
    while !shown.contains("answered") {
        run.output.read_line(&mut shown)?;
    }
    assert!(shown.contains(r#"event "subscription_created"  userId "customer-1""#), "{shown}");
    assert!(shown.contains("answered 200"), "{shown}");
    Ok(())
}

#[test]
fn being_told_to_stop_is_a_good_end() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = Run::start()?;
        run.signal(signal)?;
        assert!(run.ended()?.success(), "{signal}");
        assert!(run.envoy_ends()?, "{signal}");
        assert_eq!(run.tmp.path().read_dir()?.count(), 0, "{signal}");
    }
    Ok(())
}

#[test]
fn envoy_does_not_outlive_a_crash() -> Result<()> {
    let mut run = Run::start()?;
    run.signal(Signal::SIGKILL)?;
    assert!(!run.ended()?.success());
    assert!(run.envoy_ends()?);
    Ok(())
}

#[test]
fn a_write_key_alone_is_refused() -> Result<()> {
    let output = sandbox_run().env("SEGMENT_WRITE_KEY", "k").output()?;
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr)?;
    assert!(error.contains("STIGG_WEBHOOK_SECRET is not"), "{error}");
    Ok(())
}
