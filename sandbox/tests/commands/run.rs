//! `sandbox run`, as `make run` calls it.

use std::fs::Permissions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use sandbox::envoy::locate;
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

#[tokio::test]
async fn a_batch_is_shown_as_its_calls() -> Result<()> {
    let config = tempfile::NamedTempFile::new()?;
    let own = json!({
        "also": ["identify", "group"],
        "max_call_bytes": 40000,
        "write_key": { "value": "key in the file" },
        "webhook_secret": { "value": "secret in the file" },
    });
    std::fs::write(&config, own.to_string())?;
    let file = config.path().to_str().context("a path in UTF-8")?;
    let mut run = Run::start_with(&["--config", file])?;
    assert!(run.welcome.contains("All secrets are made up for this run.\n"), "{}", run.welcome);
    assert!(!run.welcome.contains("in the file"), "{}", run.welcome);
    assert!(run.welcome.contains(&format!("The filter's configuration: {file}\nwarning: ")), "{}", run.welcome);
    assert_eq!(run.welcome.matches("warning: max_call_bytes").count(), 1, "{}", run.welcome);
    assert_eq!(run.send(r#"{"type":"a.b","customer":{"id":"c-1"}}"#).await?.status, 200);
    let mut shown = String::new();
    while !shown.contains("type \"group\"") {
        run.read_line(&mut shown)?;
    }
    for line in [
        "  3 calls  ",
        "\n  type \"track\"  event \"a_b\"  userId \"c-1\"\n",
        "\n  type \"identify\"  userId \"c-1\"\n",
        "\n  type \"group\"  userId \"c-1\"  groupId \"c-1\"\n",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(!shown.contains("null"), "{shown}");
    Ok(())
}

#[test]
fn a_wrong_configuration_is_told_in_one_line_before_envoy_is_looked_for() -> Result<()> {
    let config = tempfile::NamedTempFile::new()?;
    let file = config.path().to_str().context("a path in UTF-8")?;
    for (text, what) in [
        (r#"{"max_event_byte":1}"#, "max_event_byte"),
        (r#"{"#, "line 1"),
        (r#"{"environments":{"/a":{"also":["x"]}}}"#, "environments./a: also"),
    ] {
        std::fs::write(&config, text)?;
        let output = sandbox("run").args(["--config", file]).env("ENVOY", "/nonexistent").output()?;
        let error = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && error.lines().count() == 1, "{error}");
        assert!(error.starts_with(&format!("Error: {file}: ")) && error.contains(what), "{error}");
    }
    Ok(())
}

/// It listens on all interfaces; here, a script moves its listener to loopback.
#[test]
fn with_a_write_key_the_configuration_is_used_and_it_says_what_it_does() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (envoy, config) = (folder.path().join("envoy"), folder.path().join("own.json"));
    let real = locate()?;
    let real = real.display();
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1\" != --version ] || exec {real} --version\n\
         sed -e 's/\"0.0.0.0\"/\"127.0.0.1\"/' -e 's/\"port_value\": 10000/\"port_value\": 0/' \"$2\" > \"$2.loopback\"\n\
         file=$2; shift 2; exec {real} --config-path \"$file.loopback\" \"$@\" 2>&1\n"
    );
    std::fs::write(&envoy, script)?;
    std::fs::set_permissions(&envoy, Permissions::from_mode(0o755))?;
    let own = json!({
        "write_key": { "env": "A_KEY" },
        "max_call_bytes": 40000,
        "environments": { "/a": { "also": ["identify"] }, "/b": { "source": "b" } },
    });
    std::fs::write(&config, own.to_string())?;
    let run = |secret: &str| {
        let mut run = sandbox("run");
        run.arg("--config").arg(&config).env("ENVOY", &envoy).env("A_KEY", "k".repeat(32));
        run.env("STIGG_WEBHOOK_SECRET", secret).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    };
    let mut child = run("s")?;
    let (mut shown, mut output) = (String::new(), BufReader::new(child.stdout.take().context("it is piped")?));
    while !shown.contains("starting main dispatch loop") && output.read_line(&mut shown)? > 0 {}
    child.kill()?;
    child.wait()?;
    assert!(shown.contains("starting main dispatch loop"), "{shown}");
    let start = format!("The filter's configuration: {}\nwarning: ", config.display());
    assert!(shown.starts_with(&start), "{shown}");
    for once in [
        "warning: environments./a, /b: max_call_bytes",
        "/b: the ids of calls start with stigg-b-\n",
        ":10000/a become calls to https://api.segment.io/v1/batch\n",
        ":10000/b become calls to https://api.segment.io/v1/track\n",
        "Envoy listens on all interfaces, and sends real calls to Segment.\n",
    ] {
        assert_eq!(shown.matches(once).count(), 1, "{once}: {shown}");
    }
    assert!(!shown.contains(&"k".repeat(32)), "{shown}");

    let output = run("")?.wait_with_output()?;
    let error = String::from_utf8(output.stderr)?;
    assert!(!output.status.success() && error.contains("own.json cannot run with it"), "{error}");
    assert!(error.contains("variables STIGG_WEBHOOK_SECRET") && error.lines().count() == 1, "{error}");
    Ok(())
}

/// Segment would answer 200 to calls without a credential, and drop them.
#[test]
fn with_a_write_key_a_configuration_that_does_not_use_it_is_an_error() -> Result<()> {
    let config = tempfile::NamedTempFile::new()?;
    for text in [
        r#"{"write_key":"gateway"}"#,
        r#"{"write_key":{"filter_state":"k"}}"#,
        r#"{"environments":{"/a":{},"/b":{"webhook_secret":{"filter_state":"k"}}}}"#,
    ] {
        std::fs::write(&config, text)?;
        let mut run = sandbox("run");
        run.arg("--config").arg(config.path()).env("ENVOY", "/nonexistent");
        let output = run.env("SEGMENT_WRITE_KEY", "k".repeat(32)).env("STIGG_WEBHOOK_SECRET", "s").output()?;
        let error = String::from_utf8(output.stderr)?;
        assert!(!output.status.success() && error.lines().count() == 1, "{error}");
        assert!(error.contains("comes from Envoy"), "{error}");
    }
    Ok(())
}

#[test]
fn a_write_key_without_a_webhook_secret_is_an_error() -> Result<()> {
    let output = sandbox("run").env("SEGMENT_WRITE_KEY", "k").output()?;
    assert!(!output.status.success());
    let error = String::from_utf8(output.stderr)?;
    assert!(error.contains("none of the environment variables STIGG_WEBHOOK_SECRET"), "{error}");
    Ok(())
}
