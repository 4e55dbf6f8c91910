//! `sandbox run`.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::iter::repeat_with;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail, ensure};
use sandbox::envoy::{self, Config, Envoy, ROUTE, Shell};
use sandbox::say;
use sandbox::segment::{Call, Segment};
use sandbox::stigg::PATH;
use sandbox::workspace_root;
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

use super::calls::{calls, shown};
use super::debugger::{self, Webhooks};
use super::endpoint::{self, Endpoint};
use super::pretty::pretty;

const WRITE_KEY: &str = "SEGMENT_WRITE_KEY";
const WEBHOOK_SECRET: &str = "STIGG_WEBHOOK_SECRET";

/// The debugger's port, if it is free.
const DEBUGGER_PORT: u16 = 10001;

/// How often Envoy writes its access log: soon enough to be watched.
const ACCESS_LOG_MS: &str = "50";

/// How the sandbox is run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The filter's own configuration, a JSON file, in place of the one in envoy.yaml; the secrets stay made up
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run the filter as a dynamic module of Envoy instead of in WebAssembly
    #[arg(long)]
    native: bool,
    /// Where to write what `send` needs to know
    #[arg(long, value_name = "FILE", default_value_os_t = endpoint::default_file())]
    running_file: PathBuf,
}

impl Options {
    fn shell(&self) -> Shell {
        if self.native { Shell::Native } else { Shell::Wasm }
    }
}

/// Runs the shipped configuration until it is told to stop.
pub async fn run(options: Options) -> Result<()> {
    let module = Config::shipped_with(options.shell())?.module_file()?;
    let target = if options.native { "native" } else { "build" };
    ensure!(module.exists(), "there is no {}: build the filter first, with `make {target}`", module.display());

    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match (is_set(WRITE_KEY), is_set(WEBHOOK_SECRET)) {
        (false, _) => with_stand_in(options).await,
        (true, true) => with_segment(options.shell()).map(|never| match never {}),
        (true, false) => bail!(
            "{WRITE_KEY} is set, {WEBHOOK_SECRET} is not: set it to the secret of the webhook in Stigg, or unset \
             {WRITE_KEY} to try the filter without Segment"
        ),
    }
}

/// Becomes Envoy, so that its output and the signals to it are its own affair.
fn with_segment(shell: Shell) -> Result<Infallible> {
    let binary = envoy::locate()?;
    let folder = Path::new("target/with-segment");
    let (config, admin) = (folder.join("envoy.json"), folder.join("admin"));
    let absolute = workspace_root().join(folder);
    fs::create_dir_all(&absolute)?;
    fs::set_permissions(&absolute, Permissions::from_mode(0o700))?;
    fs::write(workspace_root().join(&config), Config::shipped_with(shell)?.admin_at(&admin)?.to_string())?;
    let error = Command::new(&binary)
        .arg("--config-path")
        .arg(&config)
        .arg("--disable-hot-restart")
        .current_dir(workspace_root())
        .exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}

async fn with_stand_in(options: Options) -> Result<()> {
    // Before anything is listened for, so that an installation can be interrupted.
    envoy::locate()?;

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    // Whichever comes first drops the other, and Envoy with it.
    tokio::select! {
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
        result = serve(options) => result.map(|never| match never {}),
    }
}

async fn serve(options: Options) -> Result<Infallible> {
    let segment = Segment::start().await?;
    let mut config =
        Config::shipped_with(options.shell())?.on_loopback_at(unless_taken)?.upstream(&segment)?.tapped()?;
    let mut paths = vec![PATH.to_owned()];
    if let Some(file) = &options.config {
        (config, paths) = configured(config, file).with_context(|| format!("in {}", file.display()))?;
    }
    let plugin = config.own_configuration()?.to_owned();
    let secret = made_up();
    let mut envoy_options = envoy::Options::default().env(WRITE_KEY, &made_up()).env(WEBHOOK_SECRET, &secret);
    envoy_options.arguments = ["--file-flush-interval-msec", ACCESS_LOG_MS].map(str::to_owned).into();
    envoy_options.private_admin = true;
    let mut calls = segment.subscribe();
    let envoy = Envoy::start(config, envoy_options).await?;
    let mut tap = envoy.tap().await?;
    let mut access_log = 0;

    let urls: Vec<_> = paths.iter().map(|path| envoy.url(path)).collect();
    let [url, ..] = urls.as_slice() else { bail!("there is no path for webhooks") };
    let endpoint = Endpoint { url: url.clone(), secret };
    let _published = endpoint.publish(&options.running_file)?;
    let webhooks = Arc::new(Webhooks::new(plugin));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, unless_taken(DEBUGGER_PORT))).await?;
    welcome(&envoy, &segment, &endpoint, &urls, listener.local_addr()?)?;
    let debugger = debugger::serve(listener, Arc::clone(&webhooks), endpoint);
    tokio::pin!(debugger);
    loop {
        tokio::select! {
            call = calls.recv() => match call {
                Ok(call) => {
                    show(&call)?;
                    webhooks.sent(call);
                }
                Err(RecvError::Lagged(missed)) => say!("({missed} calls not shown)\n"),
                Err(RecvError::Closed) => unreachable!("the stand-in is still there"),
            },
            access = envoy.next_access(&mut access_log) => webhooks.ended(access),
            status = envoy.exited() => bail!("Envoy ended with {status}:\n{}", envoy.log_tail()),
            exchange = tap.next() => webhooks.said(exchange?),
            ended = &mut debugger => {
                ended?;
                bail!("the debugger has ended");
            }
        }
    }
}

/// With the filter's own configuration from a file, and the paths that it takes webhooks at. `envoy.yaml` says how the
/// request's headers are held, and the secrets are the sandbox's. Each environment gets its routes.
fn configured(config: Config, file: &Path) -> Result<(Config, Vec<String>)> {
    let mut own: Value = serde_json::from_slice(&fs::read(file)?)?;
    let common = own.as_object_mut().context("expected a JSON object")?;
    match config.shell() {
        Shell::Wasm => common.insert("hold_request_headers".to_owned(), true.into()),
        Shell::Native => common.remove("hold_request_headers"),
    };
    remove_secrets(common);
    let also = common.get("also").cloned();
    let config = config.set(&format!("{ROUTE}/route/prefix_rewrite"), endpoint_for(also.as_ref()).into())?;
    let mut endpoints = Vec::new();
    for (path, environment) in common.get_mut("environments").and_then(Value::as_object_mut).into_iter().flatten() {
        let environment = environment.as_object_mut().with_context(|| format!("expected an object for {path}"))?;
        remove_secrets(environment);
        endpoints.push((path.clone(), endpoint_for(environment.get("also").or(also.as_ref()))));
    }
    let config =
        config.paths(endpoints.iter().map(|(path, endpoint)| (path.as_str(), *endpoint)))?.plugin_configuration(own)?;
    let paths: Vec<_> = endpoints.into_iter().map(|(path, _)| path).collect();
    Ok((config, if paths.is_empty() { vec![PATH.to_owned()] } else { paths }))
}

fn remove_secrets(fields: &mut Map<String, Value>) {
    fields.remove("write_key");
    fields.remove("webhook_secret");
}

/// Where Segment takes the calls: a batch if there is more than one for each event.
fn endpoint_for(also: Option<&Value>) -> &'static str {
    let is_batch = also.and_then(Value::as_array).is_some_and(|also| !also.is_empty());
    if is_batch { "/v1/batch" } else { "/v1/track" }
}

/// The port itself if it is free, else one the system chooses.
fn unless_taken(port: u16) -> u16 {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() { port } else { 0 }
}

/// Looks like a write key of Segment's, and serves as a webhook secret as well.
fn made_up() -> String {
    repeat_with(fastrand::alphanumeric).take(32).collect()
}

fn welcome(envoy: &Envoy, segment: &Segment, endpoint: &Endpoint, urls: &[String], debugger: SocketAddr) -> Result<()> {
    let Endpoint { url, secret } = endpoint;
    say!(
        "\
Every webhook, what became of it, and buttons that send some: http://{debugger}

Envoy takes Stigg's webhooks at {urls} and sends track calls to a stand-in for Segment at https://{segment}.
Envoy's admin interface: curl --unix-socket {admin} http://localhost

Send an event about a customer, which becomes the track call shown below (or `make send` in another terminal):

  curl -i {url} \\
    -H 'Stigg-Webhooks-Secret: {secret}' -H 'Content-Type: application/json' \\
    --data '{{\"type\":\"subscription.created\",\"messageId\":\"'\"$(date +%s)-$RANDOM\"'\",\"customer\":{{\"id\":\"customer-1\"}},\"plan\":{{\"id\":\"plan-pro\"}}}}'

Send one about no customer, which the filter answers itself, with another last line:

    --data '{{\"type\":\"plan.updated\",\"messageId\":\"'\"$(date +%s)-$RANDOM\"'\",\"id\":\"plan-pro\"}}'

Ctrl-C ends all of it.
",
        urls = urls.join(" and "),
        segment = segment.addr(),
        admin = envoy.admin(),
    );
    Ok(())
}

fn show(call: &Call) -> Result<()> {
    let track = calls(&call.body).first().copied().unwrap_or(&call.body);
    let seconds = call.arrived.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    say!(
        "{:02}:{:02}:{:02} UTC  {}  event {}  userId {}  {} bytes  {}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        call.path,
        shown(track, "event"),
        shown(track, "userId"),
        call.body.len(),
        call.status.map_or("not answered".to_owned(), |status| format!("answered {status}")),
    );
    say!("{}\n", pretty(&String::from_utf8_lossy(&call.body)));
    Ok(())
}
