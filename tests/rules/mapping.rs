//! The mapping, as its specification reads: a webhook's body in, a track call, a 204 or a rejection out.

use serde_json::{Value, json};
use stigg_segment::config::Config;
use stigg_segment::filter::Step;
use stigg_segment::pattern::Pattern;
use stigg_segment::places::KNOWN;
use tests::fixtures::{Fixture, fixtures};
use tests::outcome::*;

fn assert_answer(status: u32, code: &'static str, body: impl AsRef<[u8]>) {
    let expected = Outcome::Answer(status, code);
    assert_eq!(map(&body), expected, "for {}", String::from_utf8_lossy(body.as_ref()));
}

/// The `event` and `userId` texts of a call, with their escapes: a Rust string cannot hold every value.
fn written(body: &str, key: &str) -> String {
    let Outcome::Call(call) = map(body) else { panic!("{body} was not mapped") };
    let call = String::from_utf8(call).unwrap();
    let start = call.find(&format!("\"{key}\":\"")).unwrap() + key.len() + 4;
    call[start..].split("\",\"").next().unwrap().to_owned()
}

#[test]
fn a_track_call_is_the_head_then_the_body_untouched_then_a_brace() {
    let body = r#" {"type":"subscription.created", "customer":{"id":"acme"},
        "messageId":"m-1","timestamp":"2026-01-02T03:04:05Z","big":12345678901234567890,"e":"\u0041\/"} "#;
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        r#"{"event":"subscription_created","userId":"acme","messageId":"stigg-m-1","#,
        r#""timestamp":"2026-01-02T03:04:05Z","#,
        &format!(r#""context":{{"library":{{"name":"stigg-segment-filter","version":"{version}"}}}},"#),
        r#""properties":"#,
        body,
        "}",
    ]
    .concat();
    assert_eq!(map(body), Outcome::Call(expected.into_bytes()));
}

#[test]
fn an_event_that_is_not_about_a_customer_is_a_204() {
    for customer in [
        r#""other":1"#,
        r#""customer":null"#,
        r#""customer":"acme""#,
        r#""customer":7"#,
        r#""customer":true"#,
        r#""customer":[{"id":"acme"}]"#,
        r#""customer":{}"#,
        r#""customer":{"id":null}"#,
        r#""customer":{"id":false}"#,
        r#""customer":{"id":""}"#,
        r#""customer":{"id":0}"#,
        r#""customer":{"id":-0}"#,
        r#""customer":{"id":0.000}"#,
        r#""customer":{"id":-0.0E+9}"#,
        r#""customer":{"id":1e-400}"#,
        r#""customer":{"id":-2.4e-324}"#,
        r#""customer":{"id":0.1e-99999999999999999999}"#,
        r#""customer":{"name":"acme"},"id":"acme""#,
        r#""customer":{"nested":{"id":"acme"}}"#,
    ] {
        assert_answer(204, "no_customer", format!(r#"{{"type":"a.b",{customer}}}"#));
    }
    // With any type, or without one.
    assert_answer(204, "no_customer", "{}");
    assert_answer(204, "no_customer", r#"{"type":7,"customer":null}"#);
}

#[test]
fn the_customer_id_is_the_user_id() {
    for (id, user_id) in [
        (r#""acme""#, "acme"),
        (r#""0""#, "0"),
        (r#"" ""#, " "),
        (r#""Société 株式会社 🦀""#, "Société 株式会社 🦀"),
        (r#""a\"b\\c\/d\u0041\n""#, "a\"b\\c/dA\n"),
        (r#""\ud83e\udd80""#, "🦀"),
        (r#""nul\u0000""#, "nul\0"),
    ] {
        let call = call(format!(r#"{{"type":"a","customer":{{"id":{id}}}}}"#));
        assert_eq!(call["userId"], user_id);
    }
    for number in
        ["7", "-7", "1.0", "1E2", "12345678901234567890", "1e400", "0.1e-9", "5e-324", "2.5e-324", "0.00025e-320"]
    {
        assert_eq!(written(&format!(r#"{{"type":"a","customer":{{"id":{number}}}}}"#), "userId"), number);
    }
    // Lone surrogates are sent unchanged; a Rust string cannot hold them.
    assert_eq!(written(r#"{"type":"a","customer":{"id":"x\ud800y\udc00"}}"#, "userId"), r"x\ud800y\udc00");
}

#[test]
fn a_customer_id_that_is_neither_string_nor_number_is_rejected() {
    for id in ["true", "[]", "[1]", "{}", r#"{"id":"acme"}"#] {
        assert_answer(400, "invalid_customer_id", format!(r#"{{"type":"a","customer":{{"id":{id}}}}}"#));
    }
    // Before the type is checked.
    assert_answer(400, "invalid_customer_id", r#"{"customer":{"id":true}}"#);
}

#[test]
fn a_type_that_is_not_a_non_empty_string_is_rejected() {
    for kind in ["", r#""type":null,"#, r#""type":"","#, r#""type":7,"#, r#""type":["a"],"#, r#""type":{"a":1},"#] {
        assert_answer(400, "invalid_type", format!(r#"{{{kind}"customer":{{"id":"acme"}}}}"#));
    }
}

#[test]
fn every_dot_of_the_type_becomes_an_underscore() {
    for (kind, event) in [
        ("customer.updated", "customer_updated"),
        ("subscription.billing_month.ends_soon", "subscription_billing_month_ends_soon"),
        ("promotionalEntitlement.granted", "promotionalEntitlement_granted"),
        ("no_dot", "no_dot"),
        ("..", "__"),
        (r"a\u002eb\u002Ec", "a_b_c"),
        (r#"q\"uo\\te.\/"#, r#"q\"uo\\te_\/"#),
        (r"\ud800.x", r"\ud800_x"),
        ("été.株", "été_株"),
        (r"\\u002e", r"\\u002e"),
    ] {
        assert_eq!(written(&format!(r#"{{"type":"{kind}","customer":{{"id":"c"}}}}"#), "event"), event);
    }
}

#[test]
fn the_message_id_is_stiggs_with_a_prefix() {
    let sent =
        |id: &str| call(format!(r#"{{"type":"a","customer":{{"id":"c"}},"messageId":{id}}}"#))["messageId"].clone();
    assert_eq!(sent(r#""3f0c""#), "stigg-3f0c");
    assert_eq!(sent(r#""\u0033f0c""#), "stigg-3f0c");
    // At most 100 characters with the prefix, counted as characters and not as bytes or escapes.
    for (character, decoded) in [("x", "x"), ("é", "é"), ("🦀", "🦀"), (r"\ud83e\udd80", "🦀"), (r"\u00e9", "é")]
    {
        let longest = character.repeat(94);
        assert_eq!(sent(&format!("\"{longest}\"")), format!("stigg-{}", decoded.repeat(94)));
        assert!(is_digest(&sent(&format!("\"{longest}{character}\""))));
    }
}

#[test]
fn without_a_usable_message_id_one_is_derived_from_the_body() {
    let body = r#"{"type":"a","customer":{"id":"c"},"timestamp":"2026-01-02T03:04:05Z"}"#;
    let digest = "stigg-sha256-4880f5184d1531d9fc467bad0931f91bc1a0704181f571b2e1d56ae8ed5cda2b";
    assert_eq!(call(body)["messageId"], digest);
    assert_eq!(call(body)["messageId"], digest);
    assert_ne!(call(format!("{body} "))["messageId"], digest);
    for unusable in ["null", r#""""#, "7", "true", "[]", r#"{"a":1}"#] {
        let call = call(format!(r#"{{"type":"a","customer":{{"id":"c"}},"messageId":{unusable}}}"#));
        assert!(is_digest(&call["messageId"]), "{unusable}");
    }
}

fn is_digest(message_id: &Value) -> bool {
    message_id.as_str().unwrap().strip_prefix("stigg-sha256-").is_some_and(|digest| digest.len() == 64)
}

/// The same thing can happen to a customer again. Without an id and a time, only the day tells it apart.
#[test]
fn an_event_without_an_id_and_a_time_is_another_one_on_another_day() {
    let body = r#"{"type":"a","customer":{"id":"c"},"messageId":null}"#;
    let config = Config::parse(br#"{"write_key":"gateway"}"#, |_| Ok("s".to_owned())).unwrap();
    let environment = config.environment(b"/").unwrap();
    let head = |body: &str, day| environment.mapping.map(body.as_bytes(), usize::MAX, |_| (), || day).unwrap().head;
    for body in [body, &body.replace("null", r#""","timestamp":"""#)] {
        assert_eq!(head(body, Some(1)), head(body, Some(1)));
        assert_ne!(head(body, Some(1)), head(body, Some(2)), "{body}");
        assert_ne!(head(body, Some(1)), head(body, None), "a host without a clock");
    }
    for told_apart in [body.replace("null", "\"m\""), body.replace("null", "null,\"timestamp\":7")] {
        assert_eq!(head(&told_apart, Some(1)), head(&told_apart, Some(2)), "{told_apart}");
    }
}

/// Segment drops an id that any source has had.
#[test]
fn message_ids_name_the_source() {
    let id = |settings: &str, event: &str| call_with(settings, event)["messageId"].as_str().unwrap().to_owned();
    let event = r#"{"type":"a","customer":{"id":"c"},"messageId":"m"}"#;
    // `printf %s k | sha256sum`
    assert_eq!(id(r#"{"write_key":{"value":"k"}}"#, event), "stigg-8254c329-m");
    assert_eq!(id(r#"{"write_key":{"value":"k"},"source":"eu-1_a"}"#, event), "stigg-eu-1_a-m");
    assert_eq!(id(r#"{"write_key":"gateway","source":"main"}"#, event), "stigg-main-m");
    assert_eq!(id(r#"{"write_key":"gateway"}"#, event), "stigg-m");
    // Segment's limit of 100 characters holds, and a derived id keeps at least 128 bits of the hash.
    let source = "s".repeat(32);
    let settings = format!(r#"{{"write_key":"gateway","source":"{source}","also":["identify"]}}"#);
    for (stiggs, kept) in [(61, true), (62, false)] {
        let long = event.replace("\"m\"", &format!("\"{}\"", "m".repeat(stiggs)));
        let batch = call_with(&settings, &long);
        for (call, suffix) in [(0, ""), (1, "-identify")] {
            let id = batch["batch"][call]["messageId"].as_str().unwrap();
            let rest = id.strip_prefix(&format!("stigg-{source}-")).unwrap().strip_suffix(suffix).unwrap();
            assert!(id.len() <= 100 && rest.len() >= 32, "{id}");
            assert_eq!(rest.starts_with("mm"), kept && suffix.is_empty(), "{id}");
        }
    }
}

#[test]
fn the_timestamp_is_sent_when_segment_can_read_it() {
    let sent =
        |t: &str| call(format!(r#"{{"type":"a","customer":{{"id":"c"}},"timestamp":{t}}}"#))["timestamp"].clone();
    for good in [
        "2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05.678Z",
        "2026-01-02T03:04:05.123456789123456789+05:30",
        "2026-01-02t03:04:05z",
        "2026-01-02T03:04:05-00:00",
        "0000-01-01T00:00:00Z",
        "2024-02-29T23:59:59Z",
        "2000-02-29T23:59:59Z",
        "2016-12-31T23:59:60Z",
        "1990-12-31T15:59:60-08:00",
        // Segment reads these too.
        "2026-01-02T03:04Z",
        "2026-01-02T03:04:05+0100",
        "2026-01-02T03:04-0830",
    ] {
        assert_eq!(sent(&format!("\"{good}\"")), good);
    }
    assert_eq!(sent(r#""2026\u002d01-02T03:04:05Z""#), "2026-01-02T03:04:05Z");
    for bad in [
        "\"\"",
        "null",
        "1767322800",
        "\"yesterday\"",
        "\"2026-01-02\"",
        "\"2026-01-02 03:04:05Z\"",
        "\"2026-01-02T03:04:05\"",
        "\"2026-01-02T03:04.5Z\"",
        "\"2026-01-02T03:04\"",
        "\"2026-01-02T03Z\"",
        "\"2026-01-02T03:04:05.Z\"",
        "\"2026-01-02T03:04:05,5Z\"",
        "\"2026-01-02T03:04:05+010\"",
        "\"2026-01-02T03:04:05+01:0\"",
        "\"2026-01-02T03:04:05+2400\"",
        "\"2026-01-02T03:04:05+24:00\"",
        "\"2026-01-02T03:04:05Zulu\"",
        "\"2026-00-02T03:04:05Z\"",
        "\"2026-13-02T03:04:05Z\"",
        "\"2026-01-00T03:04:05Z\"",
        "\"2026-01-32T03:04:05Z\"",
        "\"2026-04-31T03:04:05Z\"",
        "\"2026-02-29T03:04:05Z\"",
        "\"1900-02-29T03:04:05Z\"",
        "\"2026-01-02T24:00:00Z\"",
        "\"2026-01-02T03:60:05Z\"",
        "\"2026-01-02T03:04:61Z\"",
        "\"+2026-01-02T03:04:05Z\"",
        "\" 2026-01-02T03:04:05Z\"",
    ] {
        assert_eq!(sent(bad), Value::Null, "{bad}");
    }
}

#[test]
fn of_a_key_that_occurs_twice_the_last_one_counts() {
    let both = |first: &str, last: &str| format!(r#"{{"type":"a",{first},"x":1,{last}}}"#);
    let (acme, none) = (r#""customer":{"id":"acme"}"#, r#""customer":null"#);
    assert_answer(204, "no_customer", both(acme, none));
    assert_answer(204, "no_customer", both(acme, r#""customer":{}"#));
    assert_answer(204, "no_customer", both(acme, r#""customer":{"id":"x","id":null}"#));
    assert_eq!(call(both(none, acme))["userId"], "acme");
    assert_eq!(call(both(r#""customer":{"id":"x"}"#, r#""customer":{"id":"y","\u0069d":"z"}"#))["userId"], "z");
    assert_eq!(call(both(acme, r#""type":"b.c""#))["event"], "b_c");
    assert_eq!(call(both(acme, r#""messageId":"1","messageId":"2""#))["messageId"], "stigg-2");
    assert!(is_digest(&call(both(acme, r#""messageId":"1","messageId":null"#))["messageId"]));
}

#[test]
fn keys_are_compared_decoded() {
    let body = r#"{"ty\u0070e":"a.b","\u0063ustomer":{"i\u0064":"acme"},"message\u0049d":"1"}"#;
    let call = call(body);
    assert_eq!(
        (&call["event"], &call["userId"], &call["messageId"]),
        (&json!("a_b"), &json!("acme"), &json!("stigg-1"))
    );
    // A key that is longer or shorter is another key.
    assert_answer(
        204,
        "no_customer",
        r#"{"type":"a","customer\u0000":{"id":"x"},"customer2":{"id":"x"},"custome":{"id":"x"}}"#,
    );
    assert_answer(204, "no_customer", r#"{"type":"a","customer":{"i":"x","idd":"x","\ud800":"x","ID":"x"}}"#);
}

#[test]
fn all_legal_json_is_mapped() {
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    let mixed = |n: usize| r#"{"a":["#.repeat(n) + "0" + &"]}".repeat(n);
    for value in [
        deep(1),
        deep(64),
        deep(65),
        deep(5000),
        mixed(33),
        mixed(2500),
        r#""\ud800""#.into(),
        r#""\udc00\ud800""#.into(),
        "1e400".into(),
        "-1E-400".into(),
        "-0".into(),
        "123456789012345678901234567890.5e+7".into(),
        r#"[ 1 , "a" ,	{ "b" : [ ] , "c" : { } } , null,true,false ]"#.into(),
        r#"{"\ud800":{"":1,"":2}}"#.into(),
        r#""\"\\\/\b\f\n\r\t\u00e9\uFFFF""#.into(),
        format!("\"{}\u{7f}\"", "é株🦀\u{2028}".repeat(100)),
    ] {
        let body = format!(r#"{{"x":{value},"type":"a","customer":{{"x":{value},"id":"c"}}}}"#);
        let settings = r#"{"max_call_bytes": 500000}"#;
        let Outcome::Call(call) = map_with(settings, body.as_bytes()) else { panic!("{value:.50} was not mapped") };
        assert!(call.starts_with(br#"{"event":"a","userId":"c","#));
    }
    for space in ["", " ", "\n\r\t "] {
        let spaced = format!(
            r#"{space}{{{space}"type"{space}:{space}"a"{space},{space}"customer":{{"id":"c"}}{space}}}{space}"#
        );
        assert_eq!(call(spaced)["userId"], "c");
    }
}

#[test]
fn malformed_json_is_rejected_and_told_where() {
    let long = "x".repeat(37);
    for (body, expected, at) in [
        ("{", "a `\"` that starts a key, or `}`", 1),
        ("{\"a\"", "`:`", 4),
        ("{\"a\":", "a JSON value", 5),
        ("{\"a\":}", "a JSON value", 5),
        ("{\"a\":1", "`,` or `}`", 6),
        ("{\"a\":1,", "a `\"` that starts a key", 7),
        ("{\"a\":1,}", "a `\"` that starts a key", 7),
        ("{,}", "a `\"` that starts a key, or `}`", 1),
        ("{a:1}", "a `\"` that starts a key, or `}`", 1),
        ("{'a':1}", "a `\"` that starts a key, or `}`", 1),
        ("{\"a\":1]", "`,` or `}`", 6),
        ("{\"a\":[1}}", "`,` or `]`", 7),
        ("{\"a\":[1,]}", "a JSON value", 8),
        ("{\"a\":[1 2]}", "`,` or `]`", 8),
        ("{\"a\":[{\"b\":1 \"c\":2}]}", "`,` or `}`", 13),
        ("{\"a\":[{\"b\":1,}]}", "a `\"` that starts a key", 13),
        ("{} {}", "the end of the body", 3),
        ("{}x", "the end of the body", 2),
        ("nul", "a JSON value", 0),
        ("nullx", "the end of the body", 4),
        ("{\"a\":True}", "a JSON value", 5),
        ("{\"a\":NaN}", "a JSON value", 5),
        ("{\"a\":-}", "a digit", 6),
        ("{\"a\":01}", "`,` or `}`", 6),
        ("{\"a\":1.}", "a digit", 7),
        ("{\"a\":1.e5}", "a digit", 7),
        ("{\"a\":1e}", "a digit", 7),
        ("{\"a\":1e+}", "a digit", 8),
        ("{\"a\":.5}", "a JSON value", 5),
        ("{\"a\":+5}", "a JSON value", 5),
        ("{\"a\":\"", "a `\"` that ends the string", 6),
        ("{\"a\":\"b\\\"}", "a `\"` that ends the string", 10),
        ("{\"a\":\"\\x\"}", "an escape: one of \" \\ / b f n r t u", 7),
        ("{\"a\":\"\\u12g4\"}", "four hexadecimal digits", 8),
        ("{\"a\":\"\\u123", "four hexadecimal digits", 8),
        ("{\"a\":\"\n\"}", "an escape for a control character", 6),
        ("{\"a\":\"12345678\t\"}", "an escape for a control character", 14),
        ("{\"a\":\"\0\"}", "an escape for a control character", 6),
        ("\u{feff}{}", "a JSON value", 0),
        ("{\"a\":1}\0", "the end of the body", 7),
        ("// x\n{}", "a JSON value", 0),
        (&format!("{{\"{long}\":\"{long}"), "a `\"` that ends the string", 79),
    ] {
        assert_malformed(body.as_bytes(), expected, at);
    }
}

/// The reader takes many bytes at once; the result must not depend on where these begin and end.
#[test]
fn a_string_may_begin_and_end_anywhere() {
    for before in 0..70 {
        let head = format!(r#"{{{}"type":"a","customer":{{"id":"c"}},"x":""#, " ".repeat(before));
        for length in [0, 1, 15, 16, 17, 63, 64, 65, 130] {
            let text = "x".repeat(length);
            assert_eq!(call(format!(r#"{head}{text}"}}"#))["properties"]["x"], text);
            assert_eq!(call(format!(r#"{head}{text}\""}}"#))["properties"]["x"], format!("{text}\""));
            assert_eq!(call(format!(r#"{head}{text}é"}}"#))["properties"]["x"], format!("{text}é"));
            let at = head.len() + length;
            assert_malformed(format!("{head}{text}").as_bytes(), "a `\"` that ends the string", at);
            assert_malformed(format!("{head}{text}\u{1f}\"}}").as_bytes(), "an escape for a control character", at);
            assert_malformed(&[head.as_bytes(), text.as_bytes(), b"\xff\"}"].concat(), "valid UTF-8", at);
        }
    }
}

#[test]
fn invalid_utf_8_is_rejected_anywhere() {
    for bad in [b"\xff".as_slice(), b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\x80", b"\xe2\x82"] {
        for (before, behind) in [
            (r#"{"type":"a","customer":{"id":""#, r#""}}"#),
            (r#"{"type":"a","customer":{"id":"c"},"x":""#, r#""}"#),
            (r#"{"type":"a","customer":{"id":"c"},"deep":[[{"#, r#"":1}]]}"#),
            (r#"{"type":"a","customer":{"id":"c"},"0123456789abcdef0123456789"#, r#"":1}"#),
        ] {
            let before = if before.ends_with('{') { before.to_owned() + "\"" } else { before.to_owned() };
            assert_malformed(&[before.as_bytes(), bad, behind.as_bytes()].concat(), "valid UTF-8", before.len());
        }
    }
}

fn assert_malformed(body: &[u8], expected: &str, at: usize) {
    let shown = String::from_utf8_lossy(body);
    let Step::Reply(reply) = step("{}", body) else { panic!("{shown} was let through") };
    assert_eq!(reply.status(), 400, "{shown}");
    let answer: Value = serde_json::from_slice(&reply.body()).unwrap();
    assert_eq!(answer["code"], "malformed_json", "{shown}");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains(&format!("expected {expected} at byte {at} ")), "{shown} gave: {message}");
}

#[test]
fn the_place_of_an_error_is_told_by_line_and_column_too() {
    let Step::Reply(reply) = step("{}", b"{\n  \"a\": 1,\n  oops\n}") else { panic!() };
    let body = String::from_utf8(reply.body()).unwrap();
    assert!(body.contains("at byte 14 (line 3, column 3)"), "{body}");
}

#[test]
fn json_that_is_not_an_object_is_rejected() {
    for body in ["null", "true", "7", "\"x\"", "[]", r#"[{"type":"a","customer":{"id":"c"}}]"#, " 1e400 "] {
        assert_answer(400, "not_an_object", body);
    }
    assert_answer(400, "empty_body", "");
    assert_answer(400, "malformed_json", " \n");
}

#[test]
fn the_limits_are_kept_to_the_byte() {
    let body = |len: usize, id: &str| {
        let frame = format!(r#"{{"type":"a","customer":{{"id":"{id}"}},"x":""}}"#);
        frame.replace(r#""x":"""#, &format!(r#""x":"{}""#, "x".repeat(len - frame.len())))
    };
    let settings = r#"{"max_body_bytes": 4000, "max_call_bytes": 2000}"#;
    let outcome = |body: String| map_with(settings, body.as_bytes());
    let Outcome::Call(call) = outcome(body(1000, "c")) else { panic!() };
    let envelope = call.len() - 1000;
    let Outcome::Call(largest) = outcome(body(2000 - envelope, "c")) else { panic!() };
    assert_eq!(largest.len(), 2000);
    assert_eq!(outcome(body(2001 - envelope, "c")), Outcome::Answer(413, "call_too_large"));
    // An event that is not sent need not fit into a call, only into the body's limit.
    assert_eq!(outcome(body(4000, "")), Outcome::Answer(204, "no_customer"));
    assert_eq!(outcome(body(4001, "")), Outcome::Answer(413, "body_too_large"));
    // The defaults: 512 KiB and 32 KiB.
    let Outcome::Call(call) = map(body(32 * 1024 - envelope, "c")) else { panic!() };
    assert_eq!(call.len(), 32 * 1024);
    assert_answer(413, "call_too_large", body(32 * 1024 - envelope + 1, "c"));
    assert_answer(204, "no_customer", body(512 * 1024, ""));
    assert_answer(413, "body_too_large", body(512 * 1024 + 1, ""));
}

/// The shape of every event that Stigg documents, with the call beside it.
#[test]
fn each_fixture_becomes_the_call_beside_it() {
    for Fixture { name, event, track } in fixtures().unwrap() {
        if track.is_null() {
            let needs_a_place = KNOWN.iter().flat_map(|known| known.needed_by);
            let is_elsewhere = needs_a_place.map(|kind| Pattern::new(kind)).any(|kind| kind.matches(name.as_bytes()));
            let code = if is_elsewhere { "customer_elsewhere" } else { "no_customer" };
            assert_eq!(map(&event), Outcome::Answer(204, code), "{name}");
            continue;
        }
        let mut call = call(&event);
        let call = call.as_object_mut().unwrap();
        let library = json!({ "library": { "name": "stigg-segment-filter", "version": env!("CARGO_PKG_VERSION") } });
        assert_eq!(call.remove("context").unwrap(), library);
        assert_eq!(call.remove("properties").unwrap(), serde_json::from_str::<Value>(&event).unwrap());
        if track["messageId"].is_null() {
            assert!(is_digest(&call.remove("messageId").unwrap()));
        }
        assert_eq!(Value::from(call.clone()), track, "{name}");
    }
}
