//! `sandbox run`.

use std::convert::Infallible;
use std::iter::repeat_with;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail, ensure};
use sandbox::envoy::{self, Config, Envoy, Options};
use sandbox::segment::{Call, Segment};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

use crate::pretty::pretty;

const WRITE_KEY: &str = "SEGMENT_WRITE_KEY";
const WEBHOOK_SECRET: &str = "STIGG_WEBHOOK_SECRET";

/// Runs the shipped configuration until it is told to stop.
pub async fn run() -> Result<()> {
    let module = Config::shipped()?.module_file()?;
    ensure!(module.exists(), "there is no {}: build the filter first, with `make build`", module.display());

    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match (is_set(WRITE_KEY), is_set(WEBHOOK_SECRET)) {
        (false, _) => with_stand_in().await,
        (true, true) => with_segment().map(|never| match never {}),
        (true, false) => bail!(
            "{WRITE_KEY} is set, {WEBHOOK_SECRET} is not: set it to the secret of the webhook in Stigg, or unset \
             {WRITE_KEY} to try the filter without Segment"
        ),
    }
}

/// Becomes Envoy, so that its output and the signals to it are its own affair.
fn with_segment() -> Result<Infallible> {
    let binary = envoy::locate()?;
    let error = Command::new(&binary)
        .args(["--config-path", "envoy.yaml", "--disable-hot-restart"])
        .current_dir(envoy::workspace_root())
        .exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}

async fn with_stand_in() -> Result<()> {
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
        result = serve() => result.map(|never| match never {}),
    }
}

async fn serve() -> Result<Infallible> {
    let segment = Segment::start().await?;
    let config = Config::shipped()?.on_loopback_at(unless_taken)?.upstream(&segment)?;
    let secret = made_up();
    let options = Options::default().env(WRITE_KEY, &made_up()).env(WEBHOOK_SECRET, &secret);
    let mut calls = segment.subscribe();
    let envoy = Envoy::start(config, options).await?;

    welcome(&envoy, &segment, &secret);
    loop {
        tokio::select! {
            call = calls.recv() => match call {
                Ok(call) => show(&call),
                Err(RecvError::Lagged(missed)) => println!("({missed} calls not shown)\n"),
                Err(RecvError::Closed) => unreachable!("the stand-in is still there"),
            },
            status = envoy.exited() => bail!("Envoy ended with {status}:\n{}", envoy.log_tail()),
        }
    }
}

/// The port itself if it is free, else one the system chooses.
fn unless_taken(port: u16) -> u16 {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() { port } else { 0 }
}

/// Looks like a write key of Segment's, and serves as a webhook secret as well.
fn made_up() -> String {
    repeat_with(fastrand::alphanumeric).take(32).collect()
}

fn welcome(envoy: &Envoy, segment: &Segment, secret: &str) {
    let url = envoy.url("/webhooks/stigg");
    println!(
        "\
Envoy takes Stigg's webhooks at {url} and sends track calls to a stand-in for Segment at https://{segment}.
Envoy's admin interface is at http://{admin}.

Send an event about a customer, which becomes the track call shown below:

  curl -i {url} \\
    -H 'Stigg-Webhooks-Secret: {secret}' -H 'Content-Type: application/json' \\
    --data '{{\"type\":\"subscription.created\",\"messageId\":\"m-1\",\"customer\":{{\"id\":\"customer-1\"}},\"plan\":{{\"id\":\"plan-pro\"}}}}'

Send one about no customer, which the filter answers itself, with another last line:

    --data '{{\"type\":\"plan.updated\",\"messageId\":\"m-2\",\"id\":\"plan-pro\"}}'

Ctrl-C ends all of it.
",
        segment = segment.addr(),
        admin = envoy.admin_addr(),
    );
}

fn show(call: &Call) {
    let json = call.json();
    let seconds = call.arrived.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    println!(
        "{:02}:{:02}:{:02} UTC  {}  event {}  userId {}  {} bytes  {}",
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        call.path,
        json["event"],
        json["userId"],
        call.body.len(),
        call.status.map_or("not answered".to_owned(), |status| format!("answered {status}")),
    );
    println!("{}\n", pretty(&String::from_utf8_lossy(&call.body)));
}
