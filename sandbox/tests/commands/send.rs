//! `sandbox send`, as `make send` calls it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result};
use sandbox::segment::{Behaviour, Call, Options, Segment, Transport};
use serde_json::Value;

use crate::child::*;

/// Runs it to its end on another thread, because this process may have to serve the stand-in.
async fn send(event: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = sandbox("send");
    command.arg(event).args(arguments);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// Its output, or its error output, as text.
fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn fixture(name: &str) -> Result<Value> {
    let file = sandbox::envoy::workspace_root().join(format!("tests/fixtures/{name}.json"));
    Ok(serde_json::from_slice(&std::fs::read(file)?)?)
}

/// A receiver that answers 200 to anything.
async fn receiver() -> Result<(Segment, String)> {
    let segment = Segment::start_with(Options { transport: Transport::Plain, ..Options::default() }).await?;
    segment.behave(Behaviour::status(200));
    let url = format!("http://{}/webhooks/stigg", segment.addr());
    Ok((segment, url))
}

#[tokio::test]
async fn one_event_is_answered_as_stigg_would_show_it() -> Result<()> {
    let run = Run::start()?;
    let file = run.running_file.to_str().context("a path in UTF-8")?;
    let output = send("subscription.created", &["--running-file", file]).await?;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("200 OK"), "{shown}");
    assert!(shown.contains(r#"{"success":true}"#), "{shown}");

    let output = send("plan.created", &["--running-file", file]).await?;
    let shown = text(&output.stdout);
    assert!(shown.starts_with("204 No Content") && shown.contains("\nno_customer: "), "{shown}");
    assert!(output.status.success());
    let output = send("plan.created", &["--running-file", file, "--count", "3"]).await?;
    assert!(text(&output.stdout).contains("       3  204 No Content  no_customer\n"), "{}", text(&output.stdout));

    let output = send("subscription.created", &["--running-file", file, "--secret", "another"]).await?;
    let shown = text(&output.stdout);
    assert!(shown.starts_with("401 Unauthorized") && shown.contains(r#""code": "unauthorized""#), "{shown}");
    assert!(text(&output.stderr).contains("Stigg would send it again"));
    assert!(!output.status.success());

    let no_json = tempfile::NamedTempFile::new()?;
    std::fs::write(&no_json, "no JSON")?;
    let path = no_json.path().to_str().context("a path in UTF-8")?;
    assert!(text(&send(path, &["--running-file", file]).await?.stdout).starts_with("400 Bad Request"));
    Ok(())
}

#[tokio::test]
async fn it_goes_to_the_environment_that_is_chosen_and_not_to_a_second_sandbox() -> Result<()> {
    let config = tempfile::NamedTempFile::new()?;
    std::fs::write(&config, r#"{"environments":{"/a":{},"/b":{"events":{"deny":["*"]}}},"write_key":{"value":"x"}}"#)?;
    let run = Run::start_with(&["--config", config.path().to_str().context("a path in UTF-8")?])?;
    let second = run.start_beside()?;
    assert!(second.welcome.contains("keeps sending to the sandbox that was started before"), "{}", second.welcome);

    let file = run.running_file.to_str().context("a path in UTF-8")?;
    let output = send("subscription.created", &["--running-file", file]).await?;
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains("--path: /a, /b"), "{error}");
    for (path, answer) in [("/a", "200 OK"), ("/b", "204 No Content")] {
        let shown = text(&send("subscription.created", &["--running-file", file, "--path", path]).await?.stdout);
        assert!(shown.starts_with(answer), "{path}: {shown}");
        assert_eq!(shown.contains("event_not_allowed"), path == "/b", "{shown}");
    }
    Ok(())
}

#[tokio::test]
async fn many_have_a_message_id_each_and_are_summed_up() -> Result<()> {
    const COUNT: usize = 40;
    let (segment, url) = receiver().await?;
    segment.script([Behaviour::status(503)]);
    let arguments = ["--url", &url, "--secret", "s", "--count", "40", "--rate", "200"];
    let output = send("subscription.created", &arguments).await?;

    let calls = segment.calls();
    assert_eq!(calls.len(), COUNT);
    let message_id = |call: &Call| call.json()["messageId"].as_str().map(str::to_owned);
    assert_eq!(calls.iter().filter_map(message_id).collect::<BTreeSet<_>>().len(), COUNT);
    for call in &calls {
        let mut event = call.json();
        event["messageId"] = fixture("subscription.created")?["messageId"].clone();
        assert_eq!(event, fixture("subscription.created")?);
        assert_eq!(call.header("stigg-webhooks-secret"), Some("s"));
    }
    let took = calls[COUNT - 1].arrived.duration_since(calls[0].arrived)?;
    assert!(took > Duration::from_millis(150), "40 at 200 a second take 195 ms, not {took:?}");

    let shown = text(&output.stdout);
    assert!(shown.starts_with("40 webhooks in "), "{shown}");
    assert!(shown.contains("      39  200 OK\n       1  503 Service Unavailable\n"), "{shown}");
    assert!(["p50", "p90", "p99", "max"].iter().all(|part| shown.contains(part)), "{shown}");
    assert!(text(&output.stderr).contains("1 not delivered"));
    assert!(!output.status.success());
    Ok(())
}

#[tokio::test]
async fn one_is_sent_byte_for_byte() -> Result<()> {
    let (segment, url) = receiver().await?;
    let event = tempfile::NamedTempFile::new()?;
    std::fs::write(&event, "{ \"n\": 1.50,\n\"messageId\" : \"m\" }\n")?;
    let path = event.path().to_str().context("a path in UTF-8")?;
    assert!(send(path, &["--url", &url, "--secret", "s"]).await?.status.success());
    assert_eq!(segment.calls()[0].body, std::fs::read(&event)?);
    Ok(())
}

#[tokio::test]
async fn errors_say_what_is_missing() -> Result<()> {
    let error = async |event: &str, arguments: &[&str]| -> Result<String> {
        let output = send(event, arguments).await?;
        assert!(!output.status.success());
        Ok(text(&output.stderr))
    };
    let unknown = error("subscription.invented", &[]).await?;
    assert!(
        unknown.contains("`subscription.invented`") && unknown.contains("`make explain EVENT=--list` lists the events"),
        "{unknown}"
    );

    let nothing_runs = error("plan.created", &["--running-file", "/nonexistent/sandbox.json"]).await?;
    assert!(nothing_runs.contains("make run"), "{nothing_runs}");

    let (segment, url) = receiver().await?;
    drop(segment);
    let gone = error("plan.created", &["--url", &url, "--secret", "s", "--count", "1000"]).await?;
    assert!(gone.contains(&url) && gone.contains("make run"), "{gone}");
    Ok(())
}

#[test]
fn only_the_owner_may_read_where_to_send_and_only_while_it_runs() -> Result<()> {
    let mut run = Run::start()?;
    let mode = |file: &Path| -> Result<u32> { Ok(std::fs::metadata(file)?.permissions().mode() & 0o777) };
    assert_eq!(mode(&run.running_file)?, 0o600);
    run.signal(nix::sys::signal::Signal::SIGINT)?;
    run.ended()?;
    assert!(!run.running_file.exists());
    Ok(())
}
