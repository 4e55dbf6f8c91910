//! The plugin's configuration: accepted values, and the messages for rejected ones.

use std::env::VarError;
use std::sync::Arc;

use stigg_segment::authorization::{Authorization, NoWriteKey};
use stigg_segment::config::{Config, Environment, Error, Shell};
use stigg_segment::verify::{Verdict, Verification};

const KEY: &str = "abcdefghijklmnopqrstuvwxyz012345";

fn env(name: &str) -> Result<String, VarError> {
    match name {
        "SEGMENT_WRITE_KEY" => Ok(KEY.to_owned()),
        "STIGG_WEBHOOK_SECRET" => Ok("current".to_owned()),
        "PREVIOUS" => Ok("previous\n".to_owned()),
        "EMPTY" => Ok(" ".to_owned()),
        "CONTROL" => Ok("se\u{1}cret".to_owned()),
        "NOT_UTF_8" => Err(VarError::NotUnicode("se\u{1}cret".into())),
        _ => Err(VarError::NotPresent),
    }
}

fn parse(json: &str) -> Result<Config, Error> {
    Config::parse(json.as_bytes(), env)
}

/// The settings of a configuration without environments.
fn only(config: &Config) -> Arc<Environment> {
    config.environment(b"/whatever").unwrap()
}

fn authorization(config: &Config) -> String {
    let header = only(config).authorization.header(|_| None, &mut None).unwrap().unwrap();
    String::from_utf8(header.reveal().to_vec()).unwrap()
}

fn admits(config: &Config, secret: &str) -> bool {
    verdict(config, &[secret]) == Verdict::Admitted
}

fn verdict(config: &Config, presented: &[&str]) -> Verdict {
    only(config).verification.verdict(presented.iter().map(|secret| secret.as_bytes()), |_| None)
}

#[test]
fn everything_has_a_default() {
    for empty in ["", "{}", " {\n} "] {
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
fn a_rotation_works_whatever_else_is_configured() {
    let both = |name: &str| match name {
        "STIGG_WEBHOOK_SECRET_PREVIOUS" => Ok("previous".to_owned()),
        _ => env(name),
    };
    let config = Config::parse(br#"{"event_name": {"prefix": "Stigg "}}"#, both).unwrap();
    assert!(admits(&config, "current") && admits(&config, "previous"));
    assert!(!admits(&config, "") && !admits(&config, "else"));
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
    for nothing in [None, Some(""), Some(" \n"), Some("-"), Some("-\n-")] {
        for presented in ["", "-"] {
            assert_eq!(verdict(nothing, presented), Verdict::NoSecret);
        }
    }
}

#[test]
fn a_write_key_in_the_filter_state_is_encoded_for_each_request() {
    let config = parse(r#"{"write_key": {"filter_state": "stigg.key"}}"#).unwrap();
    assert!(config.warnings[0].starts_with("source: it is not set, and the write key is not known here"));
    let environment = only(&config);
    let header = |file: &[u8], warning: &mut Option<String>| {
        let read = |key: &str| (key == "stigg.key").then(|| file.to_vec());
        let header = environment.authorization.header(read, warning)?.unwrap();
        Ok(String::from_utf8(header.reveal().to_vec()).unwrap())
    };
    let mut warning = None;
    let basic = "Basic YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU6"; // of the key and a colon
    for around in [("", ""), ("", "\n"), ("", "\r\n"), ("\u{feff}", "\n"), (" ", " \n\n")] {
        let file = format!("{}abcdefghijklmnopqrstuvwxyz012345{}", around.0, around.1);
        assert_eq!(header(file.as_bytes(), &mut warning), Ok(basic.to_owned()), "{around:?}");
    }
    assert_eq!(warning, None);
    let utf_16: Vec<u8> = "key\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for nothing in [b"".as_slice(), b" \n", b"-", b"one\ntwo", &utf_16] {
        assert_eq!(header(nothing, &mut warning), Err(NoWriteKey), "{nothing:?}");
    }
    assert_eq!(environment.authorization.header(|_| None, &mut warning), Err(NoWriteKey));
    assert_eq!(warning, None);
    // One that is already encoded is sent, with one warning in all.
    assert_eq!(header(b"azo=", &mut warning), Ok("Basic YXpvPTo=".to_owned()));
    let first = warning.take().unwrap();
    assert!(first.starts_with("write_key: this is not 32 letters and digits") && !first.contains("azo"), "{first}");
    header(b"odd", &mut warning).unwrap();
    assert_eq!(warning, None);
}

#[test]
fn of_several_presented_secrets_each_must_be_valid() {
    let config = parse(r#"{"webhook_secret": {"value": ["one", "two"]}}"#).unwrap();
    assert_eq!(verdict(&config, &["one", "two"]), Verdict::Admitted);
    assert_eq!(verdict(&config, &["one", "three"]), Verdict::Unauthorized);
    assert_eq!(verdict(&config, &["three", "one"]), Verdict::Unauthorized);
}

#[test]
fn a_secret_is_optional_only_if_the_configuration_says_so() {
    let config = parse(r#"{"webhook_secret": "unverified", "write_key": "gateway"}"#).unwrap();
    assert_eq!(only(&config).authorization, Authorization::Gateway);
    assert_eq!(only(&config).verification, Verification::Unverified);
    assert!(verdict(&config, &[]) == Verdict::Admitted && admits(&config, "anything"));
}

#[test]
fn probable_mistakes_are_warned_about() {
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

/// Their calls for one event would have the same id, and Segment would drop all but one.
#[test]
fn every_group_of_environments_with_equal_ids_is_warned_about() {
    let groups = |json: &str| {
        let config = parse(json).unwrap();
        let equal = config
            .warnings
            .iter()
            .filter_map(|line| line.strip_prefix("environments: the ids of calls start the same for "));
        equal.map(|line| line.split(';').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (same, expected) in [
        // The same key.
        (r#"{"environments": {"/a": {}, "/b": {}, "/c": {"write_key": {"value": "c"}}}}"#, ["/a and /b"].as_slice()),
        // The same source, its own or inherited.
        (
            r#"{"environments": {"/a": {"source": "x"}, "/b": {"source": "x"}, "/c": {"source": "y"}, "/d": {"source": "y"}, "/e": {"source": "y"}}}"#,
            &["/a and /b", "/c and /d and /e"],
        ),
        (
            r#"{"source": "x", "environments": {"/a": {"write_key": {"value": "a"}}, "/b": {"write_key": {"value": "b"}}}}"#,
            &["/a and /b"],
        ),
        // None.
        (r#"{"write_key": "gateway", "environments": {"/a": {}, "/b": {}, "/c": {"source": "c"}}}"#, &["/a and /b"]),
        (r#"{"environments": {"/a": {"write_key": {"value": "a"}}, "/b": {}, "/c": {"source": "c"}}}"#, &[]),
    ] {
        assert_eq!(groups(same), expected, "{same}");
    }
}

#[test]
fn what_looks_like_segments_or_misspelt_is_warned_about() {
    let warnings = |json: &str| parse(json).unwrap().warnings;
    for (json, place) in [
        (
            r#"{"event_name": {"rename": {"subscription_created": "A"}}}"#,
            "event_name.rename: `subscription_created` is not written as Stigg's types are, ",
        ),
        (r#"{"event_name": {"rename": {"Subscription Created": "A"}}}"#, "event_name.rename: this is not written "),
        // Only patterns have a `*`.
        (r#"{"event_name": {"rename": {"customer.*": "A"}}}"#, "event_name.rename: this is not written "),
        (r#"{"events": {"deny": ["a.b", "customer_updated"]}}"#, "events.deny[1]: `customer_updated` is not written "),
        (r#"{"events": {"deny": ["customer.deleted "]}}"#, "events.deny[0]: this is not written "),
        (r#"{"events": {"deny": ["a.b", "Customer.*"]}}"#, "events.deny[1]: this is not written "),
        (r#"{"events": {"allow": ["hunter2"]}}"#, "events.allow[0]: this is not written "),
        (r#"{"user_id": [{"path": "id", "events": ["plan"]}]}"#, "user_id[0].events[0]: `plan` is not written "),
        (r#"{"properties": {"remove": ["traits.email"]}}"#, "properties.remove[0]: `traits.email` looks like a place "),
        (r#"{"group_id": [{"path": "context.groupId"}]}"#, "group_id[0].path: `context.groupId` looks like a place "),
    ] {
        let warnings = warnings(json);
        assert!(warnings.len() == 1 && warnings[0].starts_with(place), "{json} gave: {warnings:?}");
        assert!(!warnings[0].contains("hunter2"), "{warnings:?}");
    }
    for right in [
        r#"{"event_name": {"rename": {"subscription.created": "subscription_created"}}}"#,
        r#"{"events": {"allow": ["customer_*", "*"], "deny": ["*_failed"]}}"#,
        r#"{"properties": {"remove": ["traits", "\"traits\".email", "customer.traits.email"]}}"#,
    ] {
        assert_eq!(warnings(right), [""; 0], "{right}");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_answered_with_an_example() {
    for (json, message) in [
        (
            r#"{"user_id": ["customer.id"]}"#,
            r#"user_id: expected a list of objects, such as [{"path": "customer.id"}]"#,
        ),
        (r#"{"group_id": {"path": "id"}}"#, r#"group_id: expected a list, such as [{"path": "customer.id"}]"#),
        (r#"{"user_id": "customer.id"}"#, r#"user_id: expected "all" or a list: [{"path": "customer.id"}]"#),
        (r#"{"timestamp": "at"}"#, r#"timestamp: expected a list, such as [{"path": "timestamp"}]"#),
        (r#"{"also": "group"}"#, r#"also: expected a list, such as ["group"]"#),
        (r#"{"events": ["plan.*"]}"#, r#"events: expected an object, such as {"deny": ["plan.*"]}"#),
        (r#"{"events": {"deny": "plan.*"}}"#, r#"events.deny: expected a list, such as ["customer.*"]"#),
        (r#"{"event_name": "as_is"}"#, r#"event_name: expected an object, such as {"style": "title_case"}"#),
        (r#"{"properties": ["a"]}"#, r#"properties: expected an object, such as {"remove": ["customer.email"]}"#),
        (r#"{"properties": {"remove": "a"}}"#, r#"properties.remove: expected a list, such as ["customer.email"]"#),
        (r#"{"too_large": ["a"]}"#, r#"too_large: expected an object, such as {"remove": ["entitlements"]}"#),
        (r#"{"environments": ["/a"]}"#, r#"environments: expected an object, such as {"/webhooks/stigg": {}}"#),
    ] {
        assert_eq!(parse(json).unwrap_err().to_string(), message, "{json}");
    }
}

#[test]
fn a_wrong_configuration_is_rejected_in_one_line_that_names_the_field_or_variable() {
    let deep = format!(r#"{{"context": {}0{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200));
    for (json, message) in [
        ("{", "the configuration: expected a `\"` that starts a key, or `}` at line 1 column 2"),
        ("{} {}", "the configuration: expected the end of the body at line 1 column 4"),
        (" \n", "the configuration: expected a JSON object"),
        (r#"{"also": ["\ud800"]}"#, "also: half of a surrogate pair, which is not a text, at line 1 column 11"),
        (
            r#"{"context": {"\ud800": 1}}"#,
            "context: half of a surrogate pair, which is not a text, at line 1 column 23",
        ),
        (&deep, "context.a.a.a.a.a"),
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
        (r#"{"event_name": {"rename": {"a\nb": ""}}}"#, r"event_name.rename.a\nb: the name is empty"),
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
            "webhook_secret: none of the environment variables UNSET, EMPTY is set; ",
        ),
        (r#"{"webhook_secret": {"env": "UNSET"}}"#, "webhook_secret: the environment variable UNSET is not set; "),
        (
            r#"{"write_key": {"env": "NOT_UTF_8"}}"#,
            "write_key: the environment variable NOT_UTF_8 is set, but its value is not UTF-8",
        ),
        (
            r#"{"webhook_secret": {"env": ["STIGG_WEBHOOK_SECRET", "NOT_UTF_8"]}}"#,
            "webhook_secret: the environment variable NOT_UTF_8 is set, ",
        ),
        (r#"{"webhook_secret": {"value": ["a", " "]}}"#, "webhook_secret: the value is empty"),
        (r#"{"webhook_secret": {"value": "a\nb"}}"#, "webhook_secret: the value has a control character in it"),
    ] {
        let error = parse(json).unwrap_err().to_string();
        assert!(error.starts_with(message), "{json} gave: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let unset = Config::parse(b"{}", |_| Err(VarError::NotPresent)).unwrap_err().to_string();
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
fn a_key_occurs_once_at_every_depth() {
    for (json, message) in [
        (
            r#"{"properties":{"remove":["customer"]},"properties":{}}"#,
            "properties: the same key a second time at line 1 column 52",
        ),
        (
            r#"{"webhook_secret":"unverified","webhook_secret":{"env":"A"}}"#,
            "webhook_secret: the same key a second time",
        ),
        (
            "{\"events\":{\"deny\":[\"a\"],\n \"d\\u0065ny\":[]}}",
            "events.deny: the same key a second time at line 2 column 14",
        ),
        (r#"{"user_id":[{"path":"a","path":"b"}]}"#, "user_id.path: the same key a second time"),
        (r#"{"event_name":{"rename":{"a.b":"A","a.b":"B"}}}"#, "event_name.rename.#2: the same key a second time"),
        (r#"{"context":{"a":[1,{"b":1,"c":2,"b":3}]}}"#, "context.a.b: the same key a second time"),
        (r#"{"environments":{"/a":{},"/a":{}}}"#, "environments./a: the same key a second time"),
        (r#"{"environments":{"/a":{"also":[],"also":[]}}}"#, "environments./a.also: the same key a second time"),
        (r#"{"write_key":{"hunter":{"a":1,"a":1}}}"#, "write_key: the same key a second time at line 1 column 35"),
    ] {
        let error = parse(json).unwrap_err().to_string();
        assert!(error.starts_with(message), "{json} gave: {error}");
        assert!(!error.contains("hunter"), "{error}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_not_an_empty_one() {
    let load =
        |size, text: Option<&[u8]>| Config::load(Shell::Wasm, size, text, env).map_err(|error| error.to_string());
    for text in [None, Some(b"".as_slice())] {
        let config = load(0, text).unwrap();
        assert!(config.warnings[0].contains("the defaults apply"), "{:?}", config.warnings);
        assert_eq!(only(&config), only(&parse("").unwrap()));
    }
    for text in [None, Some(b"".as_slice()), Some(b"{")] {
        assert_eq!(load(2, text).unwrap_err(), "the configuration: its 2 bytes cannot be read");
    }
    assert_eq!(load(2, Some(b"{}")), Ok(parse("{}").unwrap()));
}

#[test]
fn a_name_is_repeated_only_if_it_looks_like_one() {
    let secrets = [
        "whsec_C2FVsBQIhrscChlQIYT",
        "hunter2",
        "0A1B2C3D",
        "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
        "a key with spaces",
        "株",
    ];
    for secret in secrets {
        for (json, place) in [
            (format!(r#"{{"write_key": {{"env": "{secret}"}}}}"#), "write_key"),
            (format!(r#"{{"webhook_secret": {{"env": ["UNSET", "{secret}"]}}}}"#), "webhook_secret"),
            (format!(r#"{{"webhook_secret": "unverified", "{secret}": 1}}"#), "#2"),
            (format!(r#"{{"events": {{"{secret}": 1}}}}"#), "events.#1"),
            (format!(r#"{{"environments": {{"{secret}": {{}}}}}}"#), "environments.#1"),
            (format!(r#"{{"environments": {{"/a": {{"{secret}": {{}}}}}}}}"#), "environments./a: "),
            (format!(r#"{{"{secret}": 1, "{secret}": 2}}"#), "#2"),
        ] {
            let error = parse(&json).unwrap_err().to_string();
            assert!(error.starts_with(place) && !error.contains(secret), "{json} gave: {error}");
        }
    }
    let error = parse(r#"{"write_key": {"env": "MY_KEY_2"}}"#).unwrap_err().to_string();
    assert!(error.contains("MY_KEY_2"), "{error}");
}

#[test]
fn a_step_that_looks_like_an_index_is_warned_about() {
    let warnings = |json: &str| parse(json).unwrap().warnings;
    for (json, place) in [
        (r#"{"properties": {"remove": ["a", "entitlements.0.feature"]}}"#, "properties.remove[1]: the step 0 of "),
        (r#"{"properties": {"keep_only": ["a.12"]}}"#, "properties.keep_only[0]: the step 12 of "),
        (r#"{"user_id": [{"path": "a.1.id"}]}"#, "user_id[0].path: the step 1 of "),
        (r#"{"properties": {"remove": ["\"0\".a.0"]}}"#, "properties.remove[0]: the step 0 of "),
        (r#"{"properties": {"remove": ["a.-1.x"]}}"#, "properties.remove[0]: the step -1 of "),
    ] {
        let warnings = warnings(json);
        assert!(warnings[0].starts_with(place) && warnings[0].contains('*'), "{warnings:?}");
    }
    assert_eq!(
        warnings(r#"{"properties": {"remove": ["a.\"0\"", "b.\"1.2\"", "c.\"$\".\"d[0]\"", "\"/d\".e/f"]}}"#),
        [""; 0]
    );
    // A path with a line feed does not make two lines of one.
    let warnings = warnings(r#"{"properties": {"remove": ["a\nb.0"]}}"#);
    assert!(warnings[0].contains(r"`a\nb.0`") && !warnings[0].contains('\n'), "{warnings:?}");
}

#[test]
fn a_secrets_file_may_come_from_any_editor() {
    let config = parse(r#"{"webhook_secret": {"filter_state": "k"}}"#).unwrap();
    let verdict =
        |file: &[u8]| only(&config).verification.verdict([b"new".as_slice()].into_iter(), |_| Some(file.to_vec()));
    let utf_16 = |order: fn(u16) -> [u8; 2]| "\u{feff}new\nold".encode_utf16().flat_map(order).collect::<Vec<u8>>();
    assert_eq!(verdict("\u{feff}new\nold".as_bytes()), Verdict::Admitted);
    assert_eq!(verdict(b"old\rnew\r"), Verdict::Admitted);
    // No line of it is a secret, which has a reason and an alert of its own.
    assert_eq!(verdict(&utf_16(u16::to_le_bytes)), Verdict::NoSecret);
    assert_eq!(verdict(&utf_16(u16::to_be_bytes)), Verdict::NoSecret);
}

#[test]
fn a_dynamic_module_always_holds_the_headers() {
    let native = |json: &str, env: fn(&str) -> Result<String, VarError>| {
        Config::load(Shell::Native, json.len(), Some(json.as_bytes()), env)
    };
    assert!(native("{}", env).unwrap().hold_request_headers);
    for (json, expected) in [
        (r#"{"hold_request_headers": true}"#, "hold_request_headers: a dynamic module always holds"),
        (
            r#"{"environments": {"/a": {"hold_request_headers": true}}}"#,
            "environments./a.hold_request_headers: a dynamic module always holds",
        ),
    ] {
        let error = native(json, env).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    let unset = native("{}", |_| Err(VarError::NotPresent)).unwrap_err().to_string();
    assert_eq!(unset, "write_key: the environment variable SEGMENT_WRITE_KEY is not set; set it for Envoy");
}
