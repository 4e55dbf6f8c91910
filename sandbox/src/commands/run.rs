//! `sandbox run`.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use sandbox::envoy::{self, Config, Envoy, SEGMENT_CLUSTER, Shell};
use sandbox::say;
use sandbox::segment::{Call, Segment};
use sandbox::workspace_root;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

use super::calls::{calls, shown};
use super::debugger::{self, Webhooks};
use super::endpoint::{self, Endpoint, Running};
use super::own::Own;
use super::pretty::pretty;

/// The debugger's port, if it is free.
const DEBUGGER_PORT: u16 = 10001;

/// How often Envoy writes its access log: soon enough to be watched.
const ACCESS_LOG_MS: &str = "50";

/// Path of the file with the authorities that certify Segment.
const AUTHORITIES: &str = "/static_resources/clusters/segment/transport_socket/typed_config/common_tls_context\
                           /validation_context/trusted_ca/filename";

/// Where a Mac has them.
const AUTHORITIES_ON_A_MAC: &str = "/etc/ssl/cert.pem";

/// How the sandbox is run.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The filter's own configuration, a JSON file, in place of the one in envoy.yaml
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

/// Runs the shipped configuration until it is told to stop: with the keys in the environment, or with made-up ones.
pub async fn run(options: Options) -> Result<()> {
    let config = Config::shipped_with(options.shell())?;
    config.module_file()?;
    let own = Own::read(options.config.as_deref(), &config)?;
    match own.has_write_key() {
        true => with_segment(config, &own.with_secrets()?).map(|never| match never {}),
        false => with_stand_in(config, own, &options.running_file).await,
    }
}

/// Becomes Envoy, so that its output and the signals to it are its own affair.
fn with_segment(config: Config, own: &Own) -> Result<Infallible> {
    let binary = envoy::locate()?;
    let folder = Path::new("target/with-segment");
    let (file, admin) = (folder.join("envoy.json"), folder.join("admin"));
    let absolute = workspace_root().join(folder);
    fs::create_dir_all(&absolute)?;
    fs::set_permissions(&absolute, Permissions::from_mode(0o700))?;
    let mut config = own.put_into(config)?.admin_at(&admin)?;
    let authorities = config.at(AUTHORITIES)?;
    if !authorities.as_str().is_some_and(|file| Path::new(file).exists()) && Path::new(AUTHORITIES_ON_A_MAC).exists() {
        *authorities = AUTHORITIES_ON_A_MAC.into();
    }
    fs::write(workspace_root().join(&file), config.to_string())?;
    introduce(own)?;
    for note in &own.notes {
        say!("{note}");
    }
    let port = config.get("/static_resources/listeners/webhooks/address/socket_address/port_value")?;
    let endpoint = format!("{SEGMENT_CLUSTER}/load_assignment/endpoints/0/lb_endpoints/0/endpoint");
    let segment = config.get(&format!("{endpoint}/address/socket_address/address"))?.as_str().context("no name")?;
    for place in own.places() {
        say!(
            "Webhooks to http://<this machine>:{port}{} become calls to https://{segment}{}",
            place.path,
            place.endpoint
        );
    }
    say!("Envoy listens on all interfaces, and sends real calls to Segment.\n");
    let error = Command::new(&binary)
        .arg("--config-path")
        .arg(&file)
        .arg("--disable-hot-restart")
        // The filter's warnings and notes are above; Envoy would repeat them for each of its threads.
        .args(["--component-log-level", "wasm:error,dynamic_modules:error"])
        .current_dir(workspace_root())
        .exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}

/// Says which configuration runs, and what is odd about it.
fn introduce(own: &Own) -> Result<()> {
    say!("The filter's configuration: {}", own.file);
    for warning in &own.warnings {
        say!("warning: {warning}");
    }
    Ok(())
}

async fn with_stand_in(config: Config, own: Own, running_file: &Path) -> Result<()> {
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
        result = serve(config, own, running_file) => result.map(|never| match never {}),
    }
}

async fn serve(config: Config, own: Own, running_file: &Path) -> Result<Infallible> {
    introduce(&own)?;
    let segment = Segment::start().await?;
    let (own, variables, secrets) = own.with_made_up_secrets();
    let config = own.put_into(config.on_loopback_at(unless_taken)?.upstream(&segment)?.tapped()?)?;
    let envoy_options = envoy::Options {
        env: variables,
        arguments: ["--file-flush-interval-msec", ACCESS_LOG_MS].map(str::to_owned).into(),
        private_admin: true,
        ..envoy::Options::default()
    };
    let mut calls = segment.subscribe();
    let envoy = Envoy::start(config, envoy_options).await?;
    let mut tap = envoy.tap().await?;
    let mut access_log = 0;

    let endpoints = own.places().into_iter().zip(secrets);
    let endpoints = endpoints.map(|(place, secret)| Endpoint { url: envoy.url(&place.path), path: place.path, secret });
    let running = Running { endpoints: endpoints.collect(), configuration: own.shown() };
    let published = running.publish(running_file)?;
    let webhooks = Arc::new(Webhooks::new(&running));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, unless_taken(DEBUGGER_PORT))).await?;
    welcome(&envoy, &segment, &running, listener.local_addr()?, published.is_some())?;
    let debugger = debugger::serve(listener, Arc::clone(&webhooks), &own, running);
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

/// The port itself if it is free, else one the system chooses.
fn unless_taken(port: u16) -> u16 {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() { port } else { 0 }
}

fn welcome(
    envoy: &Envoy,
    segment: &Segment,
    running: &Running,
    debugger: SocketAddr,
    is_published: bool,
) -> Result<()> {
    let [Endpoint { url, secret, .. }, others @ ..] = running.endpoints.as_slice() else {
        bail!("there is no path for webhooks")
    };
    say!(
        "\
Every webhook, what became of it, and buttons that send some: http://{debugger}

Envoy takes Stigg's webhooks at {urls} and sends their calls to a stand-in for Segment at https://{segment}.
All secrets are made up for this run.
Envoy's admin interface: curl --unix-socket {admin} http://localhost

Send an event about a customer, which becomes the track call shown below{or_send}:

  curl -i {url} \\
    -H 'Stigg-Webhooks-Secret: {secret}' -H 'Content-Type: application/json' \\
    --data '{{\"type\":\"subscription.created\",\"messageId\":\"'\"$(date +%s)-$RANDOM\"'\",\"customer\":{{\"id\":\"customer-1\"}},\"plan\":{{\"id\":\"plan-pro\"}}}}'

Send one about no customer, which the filter answers itself, with another last line:

    --data '{{\"type\":\"plan.updated\",\"messageId\":\"'\"$(date +%s)-$RANDOM\"'\",\"id\":\"plan-pro\"}}'
",
        urls = running.endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect::<Vec<_>>().join(" and "),
        segment = segment.addr(),
        admin = envoy.admin(),
        or_send = if is_published { " (or `make send` in another terminal)" } else { "" },
    );
    for Endpoint { url, secret, .. } in others {
        say!("The secret of {url} is {secret}");
    }
    if !is_published {
        say!("`make send` keeps sending to the sandbox that was started before this one.");
    }
    say!("Ctrl-C ends all of it.\n");
    Ok(())
}

fn show(call: &Call) -> Result<()> {
    let calls = calls(&call.body);
    let seconds = call.arrived.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let what = match calls.as_slice() {
        [track] => format!("event {}  userId {}", shown(track, "event"), shown(track, "userId")),
        batch => format!("{} calls", batch.len()),
    };
    say!(
        "{:02}:{:02}:{:02} UTC  {}  {what}  {} bytes  {}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        call.path,
        call.body.len(),
        call.status.map_or("not answered".to_owned(), |status| format!("answered {status}")),
    );
    if calls.len() > 1 {
        for call in calls {
            let members = ["type", "event", "userId", "groupId"].map(|member| (member, shown(call, member)));
            let members = members.iter().filter(|(_, value)| value != "null");
            let members: Vec<_> = members.map(|(member, value)| format!("{member} {value}")).collect();
            say!("  {}", members.join("  "));
        }
    }
    say!("{}\n", pretty(&String::from_utf8_lossy(&call.body)));
    Ok(())
}
