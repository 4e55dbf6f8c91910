//! `sandbox explain` says what the filter does, and why.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use sandbox::envoy::workspace_root;
use serde_json::{Value, json};

/// Its output for an event on its standard input.
fn explain(event: &str, configuration: Option<Value>, arguments: &[&str]) -> Result<(bool, String)> {
    explain_by(Command::new(env!("CARGO_BIN_EXE_sandbox")), event, configuration, arguments)
}

fn explain_by(
    mut command: Command,
    event: &str,
    configuration: Option<Value>,
    arguments: &[&str],
) -> Result<(bool, String)> {
    let file = tempfile::NamedTempFile::new()?;
    command.arg("explain").args(arguments).env_clear().env("TOKIO_WORKER_THREADS", "1");
    if let Some(configuration) = configuration {
        std::fs::write(&file, configuration.to_string())?;
        command.arg("--config").arg(file.path());
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("it is piped")?.write_all(event.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok((output.status.success(), String::from_utf8([output.stdout, output.stderr].concat())?))
}

/// Whether it has a line that starts with this field and contains all these texts.
fn says(shown: &str, field: &str, what: &[&str]) -> bool {
    shown.lines().any(|line| line.starts_with(field) && what.iter().all(|what| line.contains(what)))
}

const EVENT: &str = r#"{"type":"customer.updated","messageId":"m-1","timestamp":"2026-03-01T08:15:30Z","customer":{"id":7,"email":"e"},"id":"acme"}"#;

#[test]
fn a_call_and_the_origin_of_each_part() -> Result<()> {
    let (success, shown) = explain(EVENT, None, &[])?;
    assert!(success);
    assert!(says(&shown, "decision", &["sent to Segment as a track call"]), "{shown}");
    assert!(says(&shown, "event", &[r#""customer_updated""#, "dots as underscores"]), "{shown}");
    assert!(says(&shown, "userId", &[r#""7""#, "customer.id", "a number there"]), "{shown}");
    assert!(says(&shown, "messageId", &[r#"-m-1""#, "the source, and the event's messageId"]), "{shown}");
    assert!(says(&shown, "source", &["of a made-up write key", "logs at start"]), "{shown}");
    assert!(says(&shown, "timestamp", &[r#""2026-03-01T08:15:30Z", from timestamp"#]), "{shown}");
    assert!(says(&shown, "properties", &["byte for byte"]), "{shown}");
    assert!(says(&shown, "body", &[&format!("{} bytes", EVENT.len()), "524288"]), "{shown}");
    let call: Value = serde_json::from_str(shown.split_once("\n\n").context("no call")?.1)?;
    assert_eq!(call["properties"], serde_json::from_str::<Value>(EVENT)?);
    Ok(())
}

/// Somebody may copy it into the configuration, so a made-up one is marked.
#[test]
fn the_source_in_message_ids() -> Result<()> {
    // `printf %s k | sha256sum`
    for (configuration, shown_as) in [
        (json!({ "write_key": { "value": "k" } }), "source      8254c329"),
        (json!({ "source": "eu-1" }), "source      eu-1"),
        (json!({ "write_key": "gateway", "source": "main" }), "source      main"),
        (json!({ "write_key": "gateway" }), "source      none: it is not set, and the write key is not known"),
    ] {
        let (success, shown) = explain(EVENT, Some(configuration), &[])?;
        assert!(success && shown.lines().any(|line| line == shown_as), "{shown_as}: {shown}");
    }
    Ok(())
}

#[test]
fn the_configuration_decides_and_needs_no_secret() -> Result<()> {
    let configuration = json!({
        "write_key": { "env": "A_VARIABLE_THAT_IS_NOT_SET" },
        "webhook_secret": { "value": ["whsec-inline"] },
        "user_id": [{ "path": "customerId" }, { "path": "id", "events": ["customer.*"] }, { "path": "customer.id" }],
        "event_name": { "rename": { "customer.updated": "Customer Changed" } },
        "properties": { "remove": ["customer.email", "messageId"] },
        "also": ["identify"],
        "max_call_bytes": 2000,
    });
    let event = EVENT.replace("2026-03-01T08:15:30Z", "yesterday").replace("\"m-1\"", "1");
    let (success, shown) = explain(&event, Some(configuration), &[])?;
    assert!(success);
    assert!(says(&shown, "warning", &["/v1/batch"]), "{shown}");
    assert!(says(&shown, "decision", &["a batch: track, identify"]), "{shown}");
    assert!(says(&shown, "event", &[r#""Customer Changed""#, "the configuration has for this type"]), "{shown}");
    assert!(says(&shown, "userId", &[r#""acme", from id"#]), "{shown}");
    assert!(says(&shown, "messageId", &["SHA-256"]), "{shown}");
    assert!(says(&shown, "timestamp", &["left out: timestamp is not a time that Segment"]), "{shown}");
    assert!(says(&shown, "properties", &["the event without messageId, customer.email"]), "{shown}");
    // Each call has a limit, and the batch another one.
    for (part, limit) in [("track", "2000"), ("identify", "2000"), ("batch", "500000")] {
        assert!(says(&shown, part, &[&format!("bytes, of at most {limit}")]), "{shown}");
    }
    assert!(!shown.contains("whsec-inline"), "{shown}");
    Ok(())
}

#[test]
fn a_time_that_is_left_out_has_a_reason_for_each_place() -> Result<()> {
    let places =
        json!([{ "path": "timestamp" }, { "path": "at" }, { "path": "a", "events": ["plan.*"] }, { "path": "b" }]);
    let event = r#"{"type":"t","timestamp":null,"at":7,"a":"2026-03-01T08:15:30Z","customer":{"id":"x"}}"#;
    let (success, shown) = explain(event, Some(json!({ "timestamp": places })), &[])?;
    let why = "left out: timestamp is null, at is not a text, a is not for events of this type, b is absent";
    assert!(success && says(&shown, "timestamp", &[why]), "{shown}");
    Ok(())
}

#[test]
fn the_group_and_its_absence_are_explained() -> Result<()> {
    let configuration = json!({
        "user_id": [{ "path": "person" }],
        "group_id": [{ "path": "customer.id" }],
        "also": ["group"],
    });
    let event = r#"{"type":"t","person":"p","customer":{"id":"acme"}}"#;
    let (_, shown) = explain(event, Some(configuration.clone()), &[])?;
    assert!(says(&shown, "decision", &["a batch: track, group"]), "{shown}");
    assert!(says(&shown, "groupId", &[r#""acme", from customer.id"#]), "{shown}");
    let (_, shown) = explain(&event.replace("acme", ""), Some(configuration.clone()), &[])?;
    assert!(says(&shown, "decision", &["a track call"]), "{shown}");
    assert!(says(&shown, "groupId", &["left out: no place of group_id has an id"]), "{shown}");
    // Without a person, the hint does not advise to send the company's id as one.
    let (_, shown) = explain(&event.replace("\"p\"", "null"), Some(configuration), &[])?;
    assert!(says(&shown, "decision", &["ignored: 204 customer_elsewhere"]), "{shown}");
    assert!(shown.contains("at customer.id, which may be a company's") && !shown.contains("\"all\""), "{shown}");
    Ok(())
}

#[test]
fn an_event_without_a_call_is_ignored_or_rejected_with_a_reason() -> Result<()> {
    let limited = json!({ "max_call_bytes": 100, "events": { "deny": ["plan.*"] } });
    for (event, decision, why) in [
        (r#"{"type":"a"}"#, "ignored: 204 no_customer", "user_id looks at customer.id."),
        (r#"{"type":"plan.created"}"#, "ignored: 204 event_not_allowed", "of this type"),
        (r#"{"customer":{"id":"x"}}"#, "rejected: 400 invalid_type", "type is not a non-empty string"),
        ("{", "rejected: 400 malformed_json", "line 1, column 2"),
        ("", "rejected: 400 empty_body", "The body is empty"),
        (EVENT, "rejected: 413 call_too_large", "max_call_bytes is 100"),
    ] {
        let (success, shown) = explain(event, Some(limited.clone()), &[])?;
        assert!(success);
        assert!(says(&shown, "decision", &[decision]) && shown.contains(why), "{event}: {shown}");
    }
    Ok(())
}

/// Values that other JSON readers reject, and the filter does not.
#[test]
fn whatever_the_filter_forwards_is_explained() -> Result<()> {
    let deep = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    for odd in ["1e400", r#""\ud800""#, &deep] {
        for configuration in [json!({}), json!({ "also": ["identify"] })] {
            let event = EVENT.replace("\"e\"", odd);
            let (success, shown) = explain(&event, Some(configuration), &[])?;
            assert!(success, "{shown}");
            assert!(says(&shown, "event", &[r#""customer_updated""#]), "{shown}");
            assert!(says(&shown, "properties", &["byte for byte"]), "{shown}");
        }
    }
    Ok(())
}

#[test]
fn what_is_left_out_is_named_at_any_depth() -> Result<()> {
    for depth in [109, 110, 111, 1_000] {
        let (keys, path) = (r#"{"a":"#.repeat(depth), "a.".repeat(depth));
        let event =
            format!(r#"{{"type":"t","customer":{{"id":"x"}},"in":{keys}{{"gone":1,"b":2}}{}}}"#, "}".repeat(depth));
        let path = format!("in.{path}gone");
        let (success, shown) = explain(&event, Some(json!({ "properties": { "remove": [path] } })), &[])?;
        assert!(success && says(&shown, "properties", &["the event without", &path]), "{shown}");
    }
    Ok(())
}

#[test]
fn what_leaves_a_call_over_its_limit_is_named() -> Result<()> {
    let event = format!(r#"{{"type":"t","messageId":"m","customer":{{"id":"x"}},"large":"{}"}}"#, "x".repeat(2_000));
    let configuration = json!({ "too_large": { "remove": ["small", "large"] }, "max_call_bytes": 1_000 });
    let (success, shown) = explain(&event, Some(configuration), &[])?;
    assert!(success && says(&shown, "properties", &["the event without", "large"]), "{shown}");
    assert!(shown.contains("large left this call, which was over its limit (too_large)"), "{shown}");
    // Of a batch, each call is trimmed by itself.
    let configuration = json!({ "also": ["identify"], "too_large": { "remove": ["large"] }, "max_call_bytes": 1_000, "source": "main" });
    let (_, shown) = explain(&event, Some(configuration), &[])?;
    assert!(shown.contains("large left the track call, which") && !shown.contains("left the identify call"), "{shown}");
    Ok(())
}

#[test]
fn an_id_that_depends_on_the_day_is_explained() -> Result<()> {
    for (members, has_day) in [("", true), (r#""timestamp":7,"#, false), (r#""messageId":7,"#, false)] {
        let (_, shown) = explain(&format!(r#"{{{members}"type":"t","customer":{{"id":"x"}}}}"#), None, &[])?;
        let of_the_day = "the SHA-256 of the event and the day (UTC)";
        assert_eq!(says(&shown, "messageId", &["sha256-", of_the_day]), has_day, "{shown}");
        assert!(says(&shown, "messageId", &["SHA-256"]), "{shown}");
    }
    Ok(())
}

/// A path is not written out for each line or for each member that is left out.
#[test]
fn a_long_key_takes_little_memory() -> Result<()> {
    let members: Vec<_> = (0..5_000).map(|number| format!(r#""{number}":1"#)).collect();
    let event = format!(r#"{{"type":"t","customer":{{"id":"x"}},"{}":{{{}}}}}"#, "k".repeat(60_000), members.join(","));
    let configurations = [
        json!({ "max_call_bytes": 500_000 }),
        json!({ "max_call_bytes": 500_000, "properties": { "keep_only": ["customer", "*.0"] } }),
    ];
    for configuration in configurations {
        let mut limited = Command::new("/bin/sh");
        limited.args(["-c", r#"ulimit -v 250000 && exec "$0" "$@""#, env!("CARGO_BIN_EXE_sandbox")]);
        let (success, shown) = explain_by(limited, &event, Some(configuration), &[])?;
        assert!(success && says(&shown, "properties", &[]), "{}", &shown[..shown.len().min(1_000)]);
    }
    Ok(())
}

#[test]
fn each_environment_has_its_own_rules() -> Result<()> {
    let environments = json!({
        "environments": {
            "/webhooks/eu": { "webhook_secret": { "filter_state": "stigg" } },
            "/webhooks/us": { "webhook_secret": "unverified", "events": { "deny": ["*"] } },
        }
    });
    for (path, decision) in [
        ("eu", "a track call"),
        ("eu?a=/webhooks/us", "a track call"),
        ("us", "event_not_allowed"),
        ("elsewhere", "404 unknown_path"),
    ] {
        let (_, shown) = explain(EVENT, Some(environments.clone()), &["--path", &format!("/webhooks/{path}")])?;
        assert!(says(&shown, "decision", &[decision]), "{path}: {shown}");
        assert_eq!(shown.contains("The environments are /webhooks/eu, /webhooks/us."), path == "elsewhere", "{shown}");
    }
    let (success, shown) = explain(EVENT, Some(environments), &[])?;
    let choices = "several environments; choose one with --path: /webhooks/eu, /webhooks/us\n";
    assert!(!success && shown.ends_with(choices), "{shown}");
    // A choice of one is none.
    let only = json!({ "environments": { "/one": { "events": { "deny": ["*"] } } } });
    assert!(says(&explain(EVENT, Some(only), &[])?.1, "decision", &["event_not_allowed"]));
    Ok(())
}

/// What all environments have in common is checked for each of them.
#[test]
fn a_warning_appears_once() -> Result<()> {
    let environments =
        json!({ "also": ["group"], "environments": { "/a": {}, "/b": { "webhook_secret": "unverified" } } });
    let (_, shown) = explain(EVENT, Some(environments), &["--path", "/a"])?;
    let warnings: Vec<_> = shown.lines().filter(|line| line.starts_with("warning")).collect();
    assert_eq!(warnings.len(), 3, "{shown}");
    assert!(warnings[0].contains(" environments./a, /b: also: the route"), "{shown}");
    assert!(warnings[1].contains(" environments./b: webhook_secret: "), "{shown}");
    assert!(warnings[2].contains(" environments: the ids of calls start the same for /a and /b"), "{shown}");
    let several = format!("{EVENT}\n{EVENT}\n");
    let (_, shown) = explain(&several, Some(json!({ "also": ["group"] })), &[])?;
    assert_eq!(shown.matches("warning").count(), 1, "{shown}");
    Ok(())
}

#[test]
fn several_events_have_a_line_each_and_a_summary() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let lines = format!("{EVENT}\n\n{{\"type\":\"a\"}}\n{{\"type\"\n");
    std::fs::write(folder.path().join("lines.jsonl"), lines)?;
    std::fs::write(folder.path().join("one.json"), format!("{EVENT}\n"))?;
    std::fs::write(folder.path().join("one.track.json"), "{}")?;
    std::fs::write(folder.path().join("notes.txt"), "none")?;
    let remove = json!({ "properties": { "remove": ["customer.email", "customer.mail"] }, "also": ["identify"] });
    let folder = folder.path().to_str().context("a path in UTF-8")?;
    let (success, shown) = explain("", Some(remove), &[folder, "plan.created"])?;
    assert!(success);
    let call = r#"sent as "customer_updated" of "7", with identify, without customer.email"#;
    for (field, what) in [
        ("lines.jsonl:1", call),
        ("lines.jsonl:3", "  204 no_customer"),
        ("lines.jsonl:4", "  400 malformed_json: The body is not JSON"),
        ("one ", call),
        ("plan.created", "  204 no_customer"),
        ("summary", "  5 events"),
        ("           2", " 2 sent to Segment"),
        ("           2", " 2 204 no_customer"),
        ("unmatched", "properties.remove[1]: customer.mail"),
    ] {
        assert!(says(&shown, field, &[what]), "{what}: {shown}");
    }
    assert_eq!(shown.lines().count(), 12, "{shown}");
    Ok(())
}

#[test]
fn only_white_space_around_the_event_may_leave() -> Result<()> {
    let remove = json!({ "properties": { "remove": ["a"] } });
    let (_, shown) = explain(&format!("{EVENT}\n"), Some(remove), &[])?;
    assert!(says(&shown, "properties", &["byte for byte, without the white space around it"]), "{shown}");
    assert!(says(&shown, "unmatched", &["properties.remove[0]: a"]), "{shown}");
    Ok(())
}

#[test]
fn a_number_that_only_the_filter_can_read_is_told() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(&file, r#"{"context":{"app":1e999},"properties":{"remove":["a"]}}"#)?;
    let config = file.path().to_str().context("not UTF-8")?;
    let (succeeded, shown) = explain(EVENT, None, &["--config", config])?;
    assert!(succeeded && says(&shown, "unmatched", &["not known"]), "{shown}");
    Ok(())
}

#[test]
fn at_a_terminal_without_an_event_the_usage_is_shown() -> Result<()> {
    let in_a_terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    let mut python = Command::new("python3");
    python.args(["-c", in_a_terminal, env!("CARGO_BIN_EXE_sandbox"), "explain"]);
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // Ctrl-D ends what is typed, so that nothing waits for it.
    child.stdin.take().context("it is piped")?.write_all(b"\x04")?;
    let output = child.wait_with_output()?;
    let shown = String::from_utf8(output.stdout)?;
    assert!(shown.contains("explain [OPTIONS] [EVENT]...") && shown.contains("which event?"), "{shown}");
    assert_eq!(output.status.code(), Some(1));
    Ok(())
}

#[test]
fn a_wrong_name_is_corrected_and_the_names_are_listed_on_request() -> Result<()> {
    let (success, shown) = explain("", None, &["plan_created"])?;
    assert!(!success && shown.lines().count() == 1 && shown.ends_with("; did you mean plan.created?\n"), "{shown}");
    let (success, shown) = explain("", None, &["--list"])?;
    assert!(success && shown.lines().any(|line| line == "plan.created"), "{shown}");
    Ok(())
}

#[test]
fn a_fixture_by_its_name_and_a_configuration_that_is_wrong() -> Result<()> {
    let (_, shown) = explain("", None, &["subscription.created"])?;
    assert!(says(&shown, "event", &["subscription_created"]), "{shown}");
    let (success, shown) = explain(EVENT, Some(json!({ "max_event_byte": 1 })), &[])?;
    let (file, message) = shown.split_once(": max_event_byte: unknown field").context("no message")?;
    assert!(!success && file.starts_with("Error: /") && message.lines().count() == 1, "{shown}");
    Ok(())
}

#[test]
fn make_passes_its_variables_on() -> Result<()> {
    let make = |arguments: &[&str]| -> Result<String> {
        let mut make = Command::new("make");
        // The variables of a make around this test are not its own.
        let output = make.args(arguments).current_dir(workspace_root()).env_remove("MAKEFLAGS").output()?;
        Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
    };
    for (arguments, command) in [
        (["explain", "EVENT=a b", "CONFIG=c", "ENVIRONMENT=/d"], " explain 'a b' --config 'c' --path '/d'\n"),
        (["check", "CASES=a b", "CONFIG=c", "EVENT=ignored"], " check 'a b' --config 'c'\n"),
    ] {
        let shown = make(&[["--no-print-directory", "--dry-run"].as_slice(), &arguments].concat())?;
        assert!(shown.ends_with(command), "{shown}");
        assert!(make(&["help"])?.contains(&format!("make {} ", arguments[0])));
    }
    Ok(())
}
