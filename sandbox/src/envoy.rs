//! Starts a real Envoy on the shipped `envoy.yaml`, and ends it when its value is dropped.

mod config;
mod locate;
mod tap;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::HOST;
use hyper::{Method, Request};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

pub use self::config::{
    Config, FILTER_MISSING, HTTP_CONNECTION_MANAGER, PLUGIN, ROUTE, SEGMENT_CLUSTER, VALIDATION_CONTEXT, variant,
};
pub use self::locate::{ENVOY_VERSION, VERSIONS, is_older_than, loads, locate};
pub use self::tap::{Exchange, Tap};

use crate::fresh::fresh;
use crate::http::{self, Addr};
use crate::process::{Process, pin};
pub use crate::workspace_root;
pub use stigg_segment::config::Shell;

/// The listener that takes Stigg's webhooks.
pub const LISTENER: &str = "webhooks";

/// How Envoy is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Worker threads.
    pub concurrency: u32,
    /// Its environment besides `PATH` and `HOME`; nothing else is passed on.
    pub env: Vec<(String, String)>,
    /// How much it logs: `trace`, `debug`, `info`, `warning`, `error`, `critical` or `off`.
    pub log_level: String,
    /// Further arguments, such as `--component-log-level wasm:debug`.
    pub arguments: Vec<String>,
    /// How long it may take until it is ready.
    pub patience: Duration,
    /// The processors it may run on; any, if the list is empty.
    pub cpus: Vec<usize>,
    /// Whether only this user reaches its admin interface, on a socket in a folder. It has no authentication, and on a
    /// port it answers any web page that this machine's browser shows.
    pub private_admin: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 1,
            env: Vec::new(),
            log_level: "info".to_owned(),
            arguments: Vec::new(),
            patience: Duration::from_secs(60),
            cpus: Vec::new(),
            private_admin: false,
        }
    }
}

impl Options {
    /// Adds a variable to its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running Envoy. Dropping it kills it and waits until it is gone.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    admin: Addr,
    listeners: BTreeMap<String, SocketAddr>,
    host: String,
    _dir: TempDir,
}

/// A request, as the access log of `envoy.yaml` describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Access {
    /// When it began, in RFC 3339.
    pub time: String,
    /// The id that Envoy gave it and sends to Segment in `x-request-id`; `None` if Envoy rejected the request first.
    pub request_id: Option<String>,
    /// The event's `type`; `None` if the body was not read that far.
    pub event_type: Option<String>,
    /// The status of the answer; 0 if the client disconnected first.
    pub status: u16,
    /// Who answered and why: `via_upstream`, `stigg_segment_` with one of the filter's codes, or one of Envoy's details.
    pub outcome: Option<String>,
    /// How often it was sent upstream.
    pub attempts: u32,
    /// From its first byte to the answer's last, in milliseconds.
    pub duration_ms: u64,
    /// From its first byte to the first of Segment's answer, in milliseconds; `None` if it was not sent upstream.
    pub segment_ms: Option<u64>,
    /// The name of its route, if it has one.
    pub route: Option<String>,
    /// The size of its body.
    pub bytes_in: u64,
}

/// Envoy's verdict on a configuration.
#[derive(Debug, Clone)]
pub struct Validation {
    /// Whether Envoy would start.
    pub accepted: bool,
    /// What Envoy logged.
    pub log: String,
}

/// Lets Envoy validate a configuration without serving it.
pub async fn validate(config: Config, options: Options) -> Result<Validation> {
    let dir = temporary_folder()?;
    let mut command = command(&config, &options, dir.path()).await?;
    command.args(["--mode", "validate"]);
    let process = Process::spawn(command)?;
    let status = timeout(options.patience, process.exited())
        .await
        .with_context(|| format!("Envoy still validates after {:?}:\n{}", options.patience, process.log().tail()))?;
    Ok(Validation { accepted: status.success(), log: process.log().text() })
}

impl Envoy {
    /// Starts Envoy and waits until it accepts connections.
    pub async fn start(mut config: Config, options: Options) -> Result<Self> {
        let dir = temporary_folder()?;
        if options.private_admin {
            config = config.admin_at(&dir.path().join("admin"))?;
        }
        let admin_file = dir.path().join("admin-address");
        let mut command = command(&config, &options, dir.path()).await?;
        command.arg("--admin-address-path").arg(&admin_file);
        let process = Process::spawn(command)?;

        let admin = tokio::select! {
            status = process.exited() => {
                bail!("Envoy ended with {status} before it was ready:\n{}", process.log().tail())
            }
            admin = timeout(options.patience, ready(&admin_file)) => admin.with_context(|| {
                format!("Envoy is not ready after {:?}:\n{}", options.patience, process.log().tail())
            })?,
        };
        let listeners = listeners(&admin).await?;
        let webhooks = *listeners.get(LISTENER).with_context(|| format!("Envoy has no listener `{LISTENER}`"))?;
        Ok(Self { process, admin, listeners, host: webhooks.to_string(), _dir: dir })
    }

    /// The Envoy that another program has started. It takes webhooks for a host, through a proxy if `webhooks` is one's address.
    pub fn of(process: Process, dir: TempDir, admin: SocketAddr, host: &str, webhooks: SocketAddr) -> Self {
        let host = format!("{host}:{}", webhooks.port());
        Self { process, admin: Addr::Tcp(admin), listeners: [(LISTENER.to_owned(), webhooks)].into(), host, _dir: dir }
    }

    /// The address of a listener; `None` if there is no such listener.
    pub fn addr(&self, listener: &str) -> Option<SocketAddr> {
        self.listeners.get(listener).copied()
    }

    /// A URL on the listener for webhooks.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    /// Where its admin interface listens: an IP address with a port, or the path of a socket.
    pub fn admin(&self) -> impl fmt::Display {
        &self.admin
    }

    /// Reads from its admin interface.
    pub async fn admin_get(&self, path: &str) -> Result<String> {
        admin(&self.admin, Method::GET, path).await
    }

    /// Sends a command to its admin interface.
    pub async fn admin_post(&self, path: &str) -> Result<String> {
        admin(&self.admin, Method::POST, path).await
    }

    /// A counter or gauge. Envoy creates many of them on first use, so a missing one is 0.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        stat(&self.admin, name).await
    }

    /// Waits until a counter or gauge has at least this value.
    pub async fn wait_for_stat(&self, name: &str, at_least: u64, patience: Duration) -> Result<u64> {
        let reached = async {
            loop {
                match self.stat(name).await {
                    Ok(value) if value < at_least => sleep(POLL).await,
                    reached_or_failed => return reached_or_failed,
                }
            }
        };
        timeout(patience, reached).await.with_context(|| format!("{name} is below {at_least} after {patience:?}"))?
    }

    /// Its whole output so far, including the access log.
    pub fn log(&self) -> String {
        self.process.log().text()
    }

    /// The last lines of its output.
    pub fn log_tail(&self) -> String {
        self.process.log().tail()
    }

    /// Waits until its log contains this text, and returns the line.
    pub async fn wait_for_log(&self, text: &str, patience: Duration) -> Result<String> {
        self.wait_for_line(|line| line.contains(text), patience)
            .await
            .with_context(|| format!("Envoy did not log `{text}`"))
    }

    /// Waits until its log has a line that fits, and returns the line.
    pub async fn wait_for_line(&self, is_it: impl Fn(&str) -> bool, patience: Duration) -> Result<String> {
        timeout(patience, self.process.log().line(is_it))
            .await
            .with_context(|| format!("no such line within {patience:?} in:\n{}", self.log()))
    }

    /// Waits for the next line of its access log after a position, and moves the position past the line.
    pub async fn next_access(&self, position: &mut usize) -> Access {
        loop {
            let line = self.process.log().line_after(position, |line| line.starts_with('{')).await;
            if let Ok(access) = serde_json::from_str(&line) {
                return access;
            }
        }
    }

    /// Watches the traffic through the tap that [`Config::tapped`] adds, from now on. Only one can watch at a time.
    pub async fn tap(&self) -> Result<Tap> {
        Tap::open(self.admin.clone()).await
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks it to end, as Kubernetes does, and does not wait.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)
    }

    /// Ends it as a crash would, and does not wait.
    pub fn kill(&self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)
    }

    /// Waits until it has ended, for any reason.
    pub async fn exited(&self) -> ExitStatus {
        self.process.exited().await
    }

    /// Asks it to end and waits until it has.
    pub async fn stop(self) -> Result<ExitStatus> {
        const PATIENCE: Duration = Duration::from_secs(10);
        self.terminate()?;
        timeout(PATIENCE, self.exited()).await.with_context(|| format!("Envoy does not end:\n{}", self.log_tail()))
    }
}

/// The admin interface answers to any name.
const ADMIN_HOST: &str = "localhost";

/// How often to poll a condition that nothing reports.
const POLL: Duration = Duration::from_millis(10);

/// A folder that no other user may enter.
fn temporary_folder() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("envoy-").permissions(Permissions::from_mode(0o700)).tempdir()?)
}

/// Envoy's command line for this configuration.
async fn command(config: &Config, options: &Options, dir: &Path) -> Result<Command> {
    // A configuration without the filter, or another gateway's, names no module in its place.
    if let Ok(module) = config.module_named() {
        fresh(workspace_root(), &module)?;
    }
    let binary: PathBuf = tokio::task::spawn_blocking(locate).await??;
    let file = dir.join("envoy.json"); // JSON is YAML, and Envoy reads either
    std::fs::write(&file, config.to_string())?;

    let mut command = Command::new(binary);
    command
        .arg("--config-path")
        .arg(file)
        .args(["--concurrency", &options.concurrency.to_string()])
        .args(["--log-level", &options.log_level])
        // So that several can run at once: no shared memory, to compete for or to leave behind.
        .arg("--disable-hot-restart")
        .args(&options.arguments)
        .current_dir(workspace_root())
        .env_clear()
        .envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(options.env.iter().map(|(name, value)| (name, value)));
    if !options.cpus.is_empty() {
        pin(&mut command, &options.cpus)?;
    }
    Ok(command)
}

/// Waits until Envoy accepts connections, and returns the address of its admin interface.
async fn ready(admin_file: &Path) -> Addr {
    loop {
        if let Some(addr) = std::fs::read_to_string(admin_file).ok().and_then(|addr| admin_addr(addr.trim()))
            && admin(&addr, Method::GET, "/ready").await.is_ok_and(|state| state.trim() == "LIVE")
            // It claims to be live a moment before its workers listen.
            && stat(&addr, "listener_manager.workers_started").await.is_ok_and(|started| started == 1)
        {
            return addr;
        }
        sleep(POLL).await;
    }
}

/// Reads what Envoy writes to its admin address file.
fn admin_addr(text: &str) -> Option<Addr> {
    match text.starts_with('/') {
        true => Some(Addr::Unix(text.into())),
        false => text.parse().ok().map(Addr::Tcp),
    }
}

async fn listeners(addr: &Addr) -> Result<BTreeMap<String, SocketAddr>> {
    let answer: Value = serde_json::from_str(&admin(addr, Method::GET, "/listeners?format=json").await?)?;
    let statuses = answer["listener_statuses"].as_array().context("Envoy lists no listeners")?;
    statuses
        .iter()
        .map(|status| {
            let socket = &status["local_address"]["socket_address"];
            let (name, ip, port) = (status["name"].as_str(), socket["address"].as_str(), socket["port_value"].as_u64());
            let (Some(name), Some(ip), Some(port)) = (name, ip, port) else {
                bail!("cannot read this entry in Envoy's list of listeners: {status}");
            };
            Ok((name.to_owned(), SocketAddr::new(ip.parse()?, port.try_into()?)))
        })
        .collect()
}

async fn stat(addr: &Addr, name: &str) -> Result<u64> {
    let stats = admin(addr, Method::GET, "/stats").await?;
    let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    value.map_or(Ok(0), |value| value.parse().with_context(|| format!("{name} is {value}, which is not a number")))
}

async fn admin(addr: &Addr, method: Method, path: &str) -> Result<String> {
    let request =
        Request::builder().method(&method).uri(path).header(HOST, ADMIN_HOST).body(Full::new(Bytes::new()))?;
    let response = http::send(addr.clone(), request).await?;
    let status = response.status();
    let body = String::from_utf8_lossy(response.body()).into_owned();
    ensure!(status.is_success(), "{method} {path} on Envoy's admin interface: {status}: {body}");
    Ok(body)
}
