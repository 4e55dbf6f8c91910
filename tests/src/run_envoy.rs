//! Envoy under `deploy/run-envoy`, as an operator runs it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use sandbox::envoy::{Config, locate, workspace_root};
use sandbox::process::Process;
use sandbox::stigg::Webhook;
use serde_json::json;
use tempfile::TempDir;

use crate::edge::*;

/// The script, with its Envoy. Dropping it kills both.
#[derive(Debug)]
pub struct RunEnvoy {
    script: Process,
    /// Where Envoy takes webhooks.
    pub webhooks: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl RunEnvoy {
    /// Starts the script and waits until its Envoy takes webhooks. `admin` and `webhooks` are addresses where nobody listens.
    pub async fn start(config: Config, webhooks: SocketAddr, admin: SocketAddr) -> Result<Self> {
        Self::start_with(config, webhooks, admin, []).await
    }

    /// The same, with more variables in the script's environment.
    pub async fn start_with<const N: usize>(
        config: Config,
        webhooks: SocketAddr,
        admin: SocketAddr,
        variables: [(&str, String); N],
    ) -> Result<Self> {
        let address =
            |addr: SocketAddr| json!({ "socket_address": { "address": addr.ip(), "port_value": addr.port() } });
        let config = config
            .set("/static_resources/listeners/webhooks/address", address(webhooks))?
            .set("/admin/address", address(admin))?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, config.to_string())?;
        let mut command = Command::new(workspace_root().join("deploy/run-envoy"));
        command
            .args(["setpriv", "--pdeathsig", "KILL"]) // so that Envoy ends if this test kills the script
            .arg(tokio::task::spawn_blocking(locate).await??)
            .args(["--disable-hot-restart", "--concurrency", "2", "--log-level", "error", "-c"])
            .arg(&file)
            .env("ADMIN", admin.to_string())
            .envs(options().env)
            .envs(variables)
            .current_dir(workspace_root());
        let this = Self { script: Process::spawn(command)?, webhooks, admin, _folder: folder };
        let healthz = this.url("/healthz");
        let probe = async || Ok(Webhook::new("").method("GET".parse()?).send(&healthz).await.is_ok());
        eventually("Envoy is up", probe).await.with_context(|| this.log())?;
        Ok(this)
    }

    /// A URL on the listener for webhooks.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.webhooks)
    }

    /// A counter or gauge of Envoy.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let url = format!("http://{}/stats", self.admin);
        let stats = Webhook::new("").method("GET".parse()?).send(&url).await?.text();
        let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(value.with_context(|| format!("there is no {name}"))?.parse()?)
    }

    /// What script and Envoy have written.
    pub fn log(&self) -> String {
        self.script.log().text()
    }

    /// Sends a signal to the script alone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.script.signal(signal)
    }

    /// Sends a signal to the process group that the script leads, as a terminal does.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        Ok(killpg(Pid::from_raw(self.script.pid().try_into()?), signal)?)
    }

    /// Waits until the script has ended.
    pub async fn exited(&self) -> Result<ExitStatus> {
        tokio::time::timeout(PATIENCE, self.script.exited()).await.with_context(|| self.log())
    }
}

/// An address on which nobody listens.
///
/// Each has a loopback host of its own where the system has them: another Envoy that asks for any port could otherwise
/// get this one before it is used, and two Envoys on one port share its connections (`reuse_port`).
pub fn free_address() -> Result<SocketAddr> {
    static GIVEN: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = [127, high | 1, low, GIVEN.fetch_add(1, Relaxed)];
    let host = if cfg!(target_os = "linux") { own.into() } else { Ipv4Addr::LOCALHOST };
    free_address_at(host.into())
}

/// An address of this host on which nobody listens.
pub fn free_address_at(host: IpAddr) -> Result<SocketAddr> {
    Ok(TcpListener::bind((host, 0))?.local_addr()?)
}
