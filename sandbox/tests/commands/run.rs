//! `sandbox run`, as `make run` calls it.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::child::*;

#[tokio::test]
async fn a_webhook_becomes_a_track_call_on_the_screen() -> Result<()> {
    let mut run = Run::start()?;
    let event = json!({"type": "subscription.created", "messageId": "m-1", "customer": {"id": "customer-1"}});
    assert_eq!(run.send(event.to_string()).await?.status, 200);

    let mut shown = String::new();
    while !shown.contains("answered") {
        run.read_line(&mut shown)?;
    }
    assert!(shown.contains(r#"event "subscription_created"  userId "customer-1""#), "{shown}");
    assert!(shown.contains("answered 200"), "{shown}");
    Ok(())
}

#[test]
fn it_ends_in_good_order_when_told_to_stop() -> Result<()> {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = Run::start()?;
        run.signal(signal)?;
        assert!(run.ended()?.success(), "{signal}");
        assert!(run.envoy_ends()?, "{signal}");
        assert_eq!(run.tmp.path().read_dir()?.count(), 0, "{signal}");
    }
    Ok(())
}

#[tokio::test]
async fn it_ends_in_good_order_when_nobody_reads_its_output() -> Result<()> {
    let mut run = Run::start()?;
    run.close_output();
    // It may end before it answers.
    let _ = run.send(r#"{"type":"a","customer":{"id":"customer-1"}}"#).await;
    assert!(run.ended()?.success());
    assert!(run.envoy_ends()?);
    assert!(!run.running_file.exists());
    Ok(())
}

/// It has no authentication. On a port it would answer a web page that sends a POST or has its name resolve to loopback.
#[test]
fn only_the_user_reaches_envoys_admin_interface() -> Result<()> {
    let run = Run::start()?;
    let socket = run.admin()?;
    let folder = socket.parent().context("no folder")?;
    for (path, mode) in [(socket, 0o600), (folder, 0o700)] {
        assert_eq!(path.metadata()?.permissions().mode() & 0o777, mode, "{}", path.display());
    }
    let mut admin = UnixStream::connect(socket)?;
    admin
        .write_all(b"GET /config_dump?mask=bootstrap.admin HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut dump = String::new();
    admin.read_to_string(&mut dump)?;
    assert!(dump.contains("\"pipe\"") && !dump.contains("socket_address"), "{dump}");
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
fn a_write_key_without_a_webhook_secret_is_an_error() -> Result<()> {
    let output = sandbox("run").env("SEGMENT_WRITE_KEY", "k").output()?;
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr)?;
    assert!(error.contains("STIGG_WEBHOOK_SECRET is not"), "{error}");
    Ok(())
}
