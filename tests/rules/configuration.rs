//! The plugin's configuration: what is accepted, and in which words the rest is refused.

use std::sync::Arc;

use stigg_segment::config::{Config, Environment, Error, Shell};
use stigg_segment::verify::{Verdict, Verification};

const KEY: &str = "abcdefghijklmnopqrstuvwxyz012345";

fn env(name: &str) -> Option<String> {
    match name {
        "SEGMENT_WRITE_KEY" => Some(KEY.to_owned()),
        "STIGG_WEBHOOK_SECRET" => Some("current".to_owned()),
        "PREVIOUS" => Some("previous\n".to_owned()),
        "EMPTY" => Some(" ".to_owned()),
        "CONTROL" => Some("se\u{1}cret".to_owned()),
        _ => None,
    }
}

fn parse(json: &str) -> Result<Config, Error> {
    Config::parse(json.as_bytes(), env)
}

/// What applies where there are no environments.
fn only(config: &Config) -> Arc<Environment> {
    config.environment(b"/whatever").unwrap()
}

fn authorization(config: &Config) -> String {
    String::from_utf8(only(config).authorization.as_ref().unwrap().reveal().to_vec()).unwrap()
}

fn admits(config: &Config, secret: &str) -> bool {
    verdict(config, &[secret]) == Verdict::Admitted
}

fn verdict(config: &Config, presented: &[&str]) -> Verdict {
    only(config).verification.verdict(presented.iter().map(|secret| secret.as_bytes()), |_| None)
}

#[test]
fn everything_has_a_default() {
    for empty in ["", " \n", "{}"] {
        let config = parse(empty).unwrap();
        // base64 of "<write key>:"
        assert_eq!(authorization(&config), "Basic YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU6");
        assert!(admits(&config, "current"));
        assert!(!config.hold_request_headers);
        let environment = only(&config);
        assert_eq!((environment.max_body_bytes, environment.max_call_bytes), (524_288, 32_768));
        assert_eq!(config.warnings, [""; 0]);
    }
}

#[test]
fn secrets_come_from_the_environment_or_inline() {
    let config =
        parse(r#"{"webhook_secret": {"env": ["STIGG_WEBHOOK_SECRET", "UNSET", "PREVIOUS", "EMPTY"]}}"#).unwrap();
    assert!(admits(&config, "current") && admits(&config, "previous"));
    assert!(!admits(&config, "") && !admits(&config, "currentx") && !admits(&config, "curren"));
    assert!(verdict(&config, &[]) == Verdict::Unauthorized);
    let config = parse(r#"{"webhook_secret": {"value": ["one", " two "]}, "write_key": {"value": "k"}}"#).unwrap();
    assert!(admits(&config, "one") && admits(&config, "two") && !admits(&config, "current"));
    assert_eq!(authorization(&config), "Basic azo=");
    let config =
        parse(r#"{"webhook_secret": {"value": "one"}, "write_key": {"env": "STIGG_WEBHOOK_SECRET"}}"#).unwrap();
    assert!(admits(&config, "one"));
    assert_eq!(authorization(&config), "Basic Y3VycmVudDo=");
}

#[test]
fn secrets_in_the_filter_state_are_looked_up_for_each_request() {
    let config = parse(r#"{"webhook_secret": {"filter_state": "stigg.secret"}}"#).unwrap();
    let verdict = |state: Option<&str>, presented: &str| {
        only(&config).verification.verdict([presented.as_bytes()].into_iter(), |key| {
            assert_eq!(key, "stigg.secret");
            state.map(|state| state.as_bytes().to_vec())
        })
    };
    assert_eq!(verdict(Some("one\n"), "one"), Verdict::Admitted);
    assert_eq!(verdict(Some("new\n old \r\n\n"), "old"), Verdict::Admitted);
    assert_eq!(verdict(Some("new\nold"), "new\nold"), Verdict::Unauthorized);
    assert_eq!(verdict(Some("new"), ""), Verdict::Unauthorized);
    for nothing in [None, Some(""), Some(" \n")] {
        assert_eq!(verdict(nothing, ""), Verdict::NoSecret);
    }
}

#[test]
fn of_several_presented_secrets_each_must_be_valid() {
    let config = parse(r#"{"webhook_secret": {"value": ["one", "two"]}}"#).unwrap();
    assert_eq!(verdict(&config, &["one", "two"]), Verdict::Admitted);
    assert_eq!(verdict(&config, &["one", "three"]), Verdict::Unauthorized);
    assert_eq!(verdict(&config, &["three", "one"]), Verdict::Unauthorized);
}

#[test]
fn a_secret_is_only_given_up_in_so_many_words() {
    let config = parse(r#"{"webhook_secret": "unverified", "write_key": "gateway"}"#).unwrap();
    assert_eq!(only(&config).authorization, None);
    assert_eq!(only(&config).verification, Verification::Unverified);
    assert!(verdict(&config, &[]) == Verdict::Admitted && admits(&config, "anything"));
}

#[test]
fn what_is_probably_not_meant_is_warned_about() {
    let warnings = |json: &str| parse(json).unwrap().warnings.join("\n");
    for odd in ["short", "abcdefghijklmnopqrstuvwxyz01234-", "abcdefghijklmnopqrstuvwxyz0123456"] {
        let warning = warnings(&format!(r#"{{"write_key": {{"value": "{odd}"}}}}"#));
        assert!(warning.starts_with("write_key: ") && warning.contains("API Keys"), "{warning}");
        assert!(!warning.contains(odd), "{warning}");
    }
    assert!(warnings(r#"{"webhook_secret": "unverified"}"#).starts_with("webhook_secret: "));
    assert!(warnings(r#"{"also": ["group"]}"#).starts_with("also: the route must rewrite the path to /v1/batch"));
    assert!(warnings(r#"{"max_call_bytes": 32769}"#).starts_with("max_call_bytes: "));
    assert_eq!(warnings(r#"{"max_call_bytes": 32768, "max_body_bytes": 1, "hold_request_headers": true}"#), "");
}

#[test]
fn a_wrong_configuration_is_refused_in_one_line_that_names_the_field_or_variable() {
    for (json, message) in [
        ("{", "the configuration: EOF while parsing an object at line 1 column 1"),
        ("{} {}", "the configuration: trailing characters at line 1 column 4"),
        ("[1]", "the configuration: expected a JSON object"),
        ("write_key", "the configuration: expected a JSON object"),
        (
            "\n\x0e\n\x09write_key",
            "the configuration is not JSON text but a protobuf message: give it as a google.protobuf.StringValue",
        ),
        (
            r#"{"wirte_key": {"value": "k"}, "write_key": {"env": "UNSET"}}"#,
            "wirte_key: unknown field, expected one of hold_request_headers, environments, write_key, ",
        ),
        (r#"{"events": {"alow": []}}"#, "events.alow: unknown field, expected one of allow, deny"),
        ("{\"a\\nb\": 1}", "a\\nb: unknown field, "),
        (r#"{"hold_request_headers": 1}"#, "hold_request_headers: expected true or false"),
        (r#"{"max_body_bytes": "1"}"#, "max_body_bytes: expected a number of bytes, at least 1"),
        (r#"{"max_body_bytes": -1}"#, "max_body_bytes: expected a number of bytes, at least 1"),
        (r#"{"max_body_bytes": 1.5}"#, "max_body_bytes: expected a number of bytes, at least 1"),
        (r#"{"max_call_bytes": 0}"#, "max_call_bytes: expected a number of bytes, at least 1"),
        (r#"{"write_key": {"env": "UNSET"}}"#, "write_key: the environment variable UNSET is not set; "),
        (r#"{"write_key": {"env": "EMPTY"}}"#, "write_key: the environment variable EMPTY is not set; "),
        (r#"{"write_key": {"env": "CONTROL"}}"#, "write_key: the value has a control character in it"),
        (r#"{"write_key": {"value": ""}}"#, "write_key: the value is empty"),
        (
            r#"{"webhook_secret": {"env": ["UNSET", "EMPTY"]}}"#,
            "webhook_secret: the environment variable UNSET, EMPTY is not set; ",
        ),
        (r#"{"webhook_secret": {"env": "UNSET"}}"#, "webhook_secret: the environment variable UNSET is not set; "),
        (r#"{"webhook_secret": {"value": ["a", " "]}}"#, "webhook_secret: the value is empty"),
        (r#"{"webhook_secret": {"value": "a\nb"}}"#, "webhook_secret: the value has a control character in it"),
    ] {
        let error = parse(json).unwrap_err().to_string();
        assert!(error.starts_with(message), "{json} gave: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let unset = Config::parse(b"{}", |_| None).unwrap_err().to_string();
    assert!(unset.starts_with("write_key: the environment variable SEGMENT_WRITE_KEY is not set; "), "{unset}");
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    for source in [
        r#""hunter2""#,
        r#"["hunter2"]"#,
        r#"{"value": ["hunter2", 7]}"#,
        r#"{"value": {"hunter2": 1}}"#,
        r#"{"valeu": "hunter2"}"#,
        r#"{"value": "hunter2", "env": "STIGG_WEBHOOK_SECRET"}"#,
        r#"{"env": []}"#,
        "{}",
        "null",
        "7",
    ] {
        for field in ["write_key", "webhook_secret"] {
            let error = parse(&format!(r#"{{"{field}": {source}}}"#)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}: expected {{\"env\": ")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

#[test]
fn no_secret_shows_in_debug_output() {
    let debug = format!("{:?}", parse(r#"{"webhook_secret": {"value": "hunter2"}}"#).unwrap());
    assert!(debug.contains("Secret(…)"));
    for secret in ["hunter2", KEY, "YWJjZGVm"] {
        assert!(!debug.contains(secret), "{debug}");
    }
}

#[test]
fn a_dynamic_module_always_holds_the_headers() {
    let native = |json: &str, env: fn(&str) -> Option<String>| Config::parse_for(Shell::Native, json.as_bytes(), env);
    assert!(native("{}", env).unwrap().hold_request_headers);
    for (json, expected) in [
        (r#"{"hold_request_headers": true}"#, "hold_request_headers: a dynamic module always holds"),
        (
            r#"{"environments": {"/a": {"hold_request_headers": true}}}"#,
            "environments./a: hold_request_headers: a dynamic module always holds",
        ),
    ] {
        let error = native(json, env).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let unset = native("{}", |_| None).unwrap_err().to_string();
    assert_eq!(unset, "write_key: the environment variable SEGMENT_WRITE_KEY is not set; set it for Envoy");
}
