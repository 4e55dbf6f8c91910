//! The options of the mapping, and the defaults.

use serde_json::{Value, json};
use stigg_segment::config::Config;
use stigg_segment::filter::Step;
use tests::outcome::*;

const EVENT: &str = r#"{"type":"subscription.trial_started","messageId":"m","customer":{"id":"acme","name":"Acme","email":"a@example.com","metadata":{"tier":"gold","n":12345678901234567890}}}"#;

fn event_name(choice: &str, kind: &str) -> Value {
    let body = format!(r#"{{"type":"{kind}","customer":{{"id":"c"}}}}"#);
    call_with(&format!(r#"{{"event_name": {choice}}}"#), body)["event"].clone()
}

#[test]
fn the_customer_id_can_be_looked_for_in_several_places() {
    let everywhere = r#"{"user_id": [
        {"path": "customer.id"},
        {"path": "id", "events": ["customer.*"]},
        {"path": "customerId"},
        {"path": "input.customerId"},
        {"path": "data.customer.id"}
    ]}"#;
    for (body, user_id) in [
        (r#"{"type":"a","customer":{"id":"x"},"id":"y","customerId":"z"}"#, "x"),
        (r#"{"type":"customer.created","id":"x"}"#, "x"),
        (r#"{"type":"customer\u002ecreated","id":"x"}"#, "x"),
        (r#"{"type":"credits.granted","id":"y","customerId":"x"}"#, "x"),
        (r#"{"type":"subscription.create_failed","input":{"customerId":"x"}}"#, "x"),
        (r#"{"type":"a","data":{"customer":{"id":"x"}}}"#, "x"),
        // A place without a usable id is skipped.
        (r#"{"type":"a","customer":{"id":null},"customerId":"x"}"#, "x"),
        (r#"{"type":"a","customer":{"id":""},"customerId":0,"input":{"customerId":7}}"#, "7"),
        (r#"{"type":"a","customer":"y","customerId":"x"}"#, "x"),
        (r#"{"type":"a","customer":{"id":"y"},"customer":{},"customerId":"x"}"#, "x"),
    ] {
        assert_eq!(call_with(everywhere, body)["userId"], user_id, "{body}");
    }
    for (body, status, code) in [
        (r#"{"type":"plan.created","id":"y"}"#, 204, "no_customer"),
        (r#"{"type":"a","customer":{"id":true},"customerId":"x"}"#, 400, "invalid_customer_id"),
        (r#"{"customerId":"x"}"#, 400, "invalid_type"),
        (r#"{"type":7,"id":"x"}"#, 204, "no_customer"),
    ] {
        assert_eq!(map_with(everywhere, body.as_bytes()), Outcome::Answer(status, code), "{body}");
    }
    // In the order of the list.
    let other_way = r#"{"user_id": [{"path": "customerId"}, {"path": "customer.id"}]}"#;
    assert_eq!(call_with(other_way, r#"{"type":"a","customer":{"id":"x"},"customerId":"y"}"#)["userId"], "y");
    // A path may lead through the end of another.
    let nested = r#"{"user_id": [{"path": "a"}, {"path": "a.b"}]}"#;
    assert_eq!(map_with(nested, br#"{"type":"t","a":{"b":"x"}}"#), Outcome::Answer(400, "invalid_customer_id"));
    let nested = r#"{"user_id": [{"path": "a.b"}, {"path": "a"}]}"#;
    assert_eq!(call_with(nested, r#"{"type":"t","a":"x"}"#)["userId"], "x");
}

#[test]
fn an_event_can_be_named_in_other_ways() {
    for (choice, kind, name) in [
        ("{}", "customer.payment_failed", "customer_payment_failed"),
        (r#"{"style": "underscores"}"#, "customer.payment_failed", "customer_payment_failed"),
        (r#"{"style": "as_is"}"#, "customer.payment_failed", "customer.payment_failed"),
        (r#"{"style": "title_case"}"#, "customer.payment_failed", "Customer Payment Failed"),
        (r#"{"style": "title_case"}"#, "promotionalEntitlement.ends_soon", "Promotional Entitlement Ends Soon"),
        (r#"{"style": "title_case"}"#, "subscription\\u002etrial.ends_soon", "Subscription Trial Ends Soon"),
        (r#"{"style": "title_case"}"#, "._api.SDKReady__été.", "Api SDKReady été"),
        (r#"{"style": "title_case"}"#, "customer.eSignature.done", "Customer E Signature Done"),
        (r#"{"style": "title_case", "prefix": "X"}"#, "aB.C", "XA B C"),
        (r#"{"style": "title_case", "rename": {"...": "Dots"}}"#, "...", "Dots"),
        ("{}", "...", "___"),
        (r#"{"prefix": "Stigg \"x\" "}"#, "a.b", "Stigg \"x\" a_b"),
        (r#"{"style": "title_case", "prefix": "Stigg "}"#, "plan.created", "Stigg Plan Created"),
        (r#"{"prefix": "x", "rename": {"a.b": "Über \"b\""}}"#, "a.b", "Über \"b\""),
        (r#"{"prefix": "x ", "rename": {"a.b": "B"}}"#, "a.c", "x a_c"),
        (r#"{"rename": {"a.b": "B"}}"#, "a\\u002eb", "B"),
    ] {
        assert_eq!(event_name(choice, kind), name, "{choice}");
    }
}

#[test]
fn events_can_be_let_through_or_not_by_type() {
    for (choice, kind, sent) in [
        (r#"{"allow": ["subscription.*"]}"#, "subscription.created", true),
        (r#"{"allow": ["subscription.*"]}"#, "subscription.", true),
        (r#"{"allow": ["subscription.*"]}"#, "xsubscription.created", false),
        (r#"{"allow": ["*.created"]}"#, "plan.created", true),
        (r#"{"allow": ["*.created"]}"#, "plan.created2", false),
        (r#"{"allow": ["a*b*c"]}"#, "a.b.b.c", true),
        (r#"{"allow": ["a*b*c"]}"#, "a.c", false),
        (r#"{"allow": ["ab*ba"]}"#, "aba", false),
        (r#"{"allow": ["plan.created", "*"]}"#, "anything", true),
        (r#"{"allow": ["plan.created"]}"#, "plan.created", true),
        (r#"{"allow": ["plan\u002ecreated"]}"#, "plan\\u002ecreated", true),
        (r#"{"deny": ["*.deleted"]}"#, "plan.created", true),
        (r#"{"deny": ["*.deleted"]}"#, "plan.deleted", false),
        (r#"{"allow": ["plan.*"], "deny": ["*.deleted"]}"#, "plan.deleted", false),
    ] {
        let body = format!(r#"{{"type":"{}","customer":{{"id":"c"}}}}"#, kind);
        let outcome = map_with(&format!(r#"{{"events": {choice}}}"#), body.as_bytes());
        match sent {
            true => assert!(matches!(outcome, Outcome::Call(_)), "{choice}, {kind}"),
            false => assert_eq!(outcome, Outcome::Answer(204, "event_not_allowed"), "{choice}, {kind}"),
        }
    }
}

#[test]
fn properties_can_be_left_out_and_the_rest_keeps_its_bytes() {
    let properties = |choice: &str, event: &str| {
        let head_and_tail = r#"{"type":"t","customer":{"id":"c"},"event":"#;
        let body = format!("{head_and_tail}{event}}}");
        let Outcome::Call(call) = map_with(&format!(r#"{{"properties": {choice}}}"#), body.as_bytes()) else {
            panic!()
        };
        let call = String::from_utf8(call).unwrap();
        call.split_once(r#""properties":"#).unwrap().1.strip_suffix('}').unwrap().to_owned()
    };
    for (choice, event, left) in [
        (r#"{"remove": ["event.a"]}"#, r#"{"a":1,"b":1.0,"c":"\u0041"}"#, r#"{"b":1.0,"c":"\u0041"}"#),
        (r#"{"remove": ["event.b"]}"#, r#"{ "a" : 1 , "b":2 , "c" : 3 }"#, r#"{ "a" : 1 , "c" : 3 }"#),
        (r#"{"remove": ["event.c"]}"#, r#"{"a":1, "c":3 }"#, r#"{"a":1 }"#),
        (r#"{"remove": ["event.a", "event.c"]}"#, r#"{"a":1,"c":3}"#, "{}"),
        (r#"{"remove": ["event.*"]}"#, r#"{"a":1,"c":{"d":1}}"#, "{}"),
        (r#"{"remove": ["event.*.x"]}"#, r#"{"a":{"x":1,"y":2},"b":{"x":3},"c":4}"#, r#"{"a":{"y":2},"b":{},"c":4}"#),
        (r#"{"remove": ["event.*.x"]}"#, r#"[{"x":1,"y":2},{"x":3},7]"#, r#"[{"y":2},{},7]"#),
        (r#"{"remove": ["event.a.b"]}"#, r#"{"a":7,"b":8}"#, r#"{"a":7,"b":8}"#),
        (r#"{"remove": ["event.a"]}"#, r#"{"\u0061":1,"a":2,"b":3}"#, r#"{"b":3}"#),
        (r#"{"remove": ["event.*"]}"#, "[1,2]", "[]"),
        (r#"{"remove": ["nothing.here"]}"#, " [ 1 , 2 ] ", " [ 1 , 2 ] "),
        (r#"{"remove": ["event.a.b"]}"#, r#"{"a" :  {"b":1, "c":2}, "d": 3}"#, r#"{"a" :  { "c":2}, "d": 3}"#),
        (r#"{"remove": ["event.*.b"]}"#, r#"[ {"b":1} , {"c":2} ]"#, r#"[ {} , {"c":2} ]"#),
        (
            r#"{"remove": ["event.\"a.b\"", "event.\"*\""]}"#,
            r#"{"a.b":1,"a":{"b":2},"*":3,"c":4}"#,
            r#"{"a":{"b":2},"c":4}"#,
        ),
        (r#"{"remove": ["event.0"]}"#, r#"{"0":[{"0":1}],"a":[1]}"#, r#"{"a":[1]}"#),
        (r#"{"remove": ["event.0"]}"#, "[1,2]", "[1,2]"),
    ] {
        let expected = format!(r#"{{"type":"t","customer":{{"id":"c"}},"event":{left}}}"#);
        assert_eq!(properties(choice, event), expected, "{choice} of {event}");
    }
    for (choice, event, left) in [
        (r#"{"keep_only": ["event.a"]}"#, r#"{"a":1.0,"b":2}"#, r#"{"event":{"a":1.0}}"#),
        (r#"{"keep_only": ["event.b", "type"]}"#, r#"{"a":1, "b":2 }"#, r#"{"type":"t","event":{ "b":2 }}"#),
        (r#"{"keep_only": ["event"]}"#, r#"{"a":{"b":[ 1 ]}}"#, r#"{"event":{"a":{"b":[ 1 ]}}}"#),
        (r#"{"keep_only": ["event.*.x"]}"#, r#"[{"x":1,"y":2},7]"#, r#"{"event":[{"x":1}]}"#),
        (r#"{"keep_only": ["event.a.b"]}"#, r#"{"a":7}"#, r#"{"event":{}}"#),
        (r#"{"keep_only": ["nothing.here"]}"#, "1", "{}"),
    ] {
        assert_eq!(properties(choice, event), left, "{choice} of {event}");
    }
    // Removed members still decide on the mapping.
    let redacted = call_with(r#"{"properties": {"remove": ["customer", "type", "messageId"]}}"#, EVENT);
    assert_eq!((&redacted["userId"], &redacted["messageId"]), (&json!("acme"), &json!("stigg-m")));
    assert_eq!(redacted["properties"], json!({}));
    // The call is smaller, so larger events fit.
    let long = format!(r#"{{"type":"a","customer":{{"id":"c"}},"x":"{}"}}"#, "x".repeat(40_000));
    assert_eq!(map(&long), Outcome::Answer(413, "call_too_large"));
    assert_eq!(call_with(r#"{"properties": {"remove": ["x"]}}"#, &long)["userId"], "c");
}

#[test]
fn constants_are_merged_into_the_call() {
    let settings = r#"{"context": {"app": {"name": "billing"}, "ip": "0.0.0.0"}, "integrations": {"All": false, "Mixpanel": true}}"#;
    let call = call_with(settings, EVENT);
    let version = env!("CARGO_PKG_VERSION");
    let context = json!({
        "app": { "name": "billing" },
        "ip": "0.0.0.0",
        "library": { "name": "stigg-segment-filter", "version": version },
    });
    assert_eq!(call["context"], context);
    assert_eq!(call["integrations"], json!({ "All": false, "Mixpanel": true }));
}

#[test]
fn identify_and_group_calls_can_go_beside_the_track_call() {
    let traits = json!({
        "name": "Acme",
        "email": "a@example.com",
        "metadata": { "tier": "gold", "n": serde_json::from_str::<Value>("12345678901234567890").unwrap() },
    });
    let batch = call_with(r#"{"also": ["identify", "group"], "integrations": {"All": true}}"#, EVENT);
    assert_eq!(batch.as_object().unwrap().len(), 1);
    let [track, identify, group] = batch["batch"].as_array().unwrap().as_slice() else { panic!("{batch}") };
    let single = call_with(r#"{"integrations": {"All": true}}"#, EVENT);
    let mut expected = single.clone();
    expected["type"] = "track".into();
    assert_eq!(*track, expected);
    for (call, kind, id) in [(identify, "identify", "stigg-m-identify"), (group, "group", "stigg-m-group")] {
        assert_eq!((&call["type"], &call["messageId"]), (&json!(kind), &json!(id)));
        assert_eq!((&call["userId"], &call["traits"]), (&json!("acme"), &traits));
        for key in ["context", "integrations"] {
            assert_eq!(call[key], single[key]);
        }
    }
    assert_eq!(group["groupId"], "acme");

    let calls = |settings: &str, body: &str| call_with(settings, body)["batch"].clone();
    assert_eq!(calls(r#"{"also": ["group"]}"#, EVENT).as_array().unwrap().len(), 2);
    // The traits are the members beside the id that was used.
    let flat = r#"{"type":"customer.updated","id":"x","name":null,"email":"e@example.com","timestamp":"2026-01-01T00:00:00Z"}"#;
    let settings =
        r#"{"also": ["identify"], "user_id": [{"path": "customer.id"}, {"path": "id"}, {"path": "customerId"}]}"#;
    let identify = &calls(settings, flat)[1];
    assert_eq!(
        (&identify["traits"], &identify["timestamp"]),
        (&json!({ "email": "e@example.com" }), &json!("2026-01-01T00:00:00Z"))
    );
    assert_eq!(calls(settings, r#"{"type":"a","customerId":"x","name":"not the customer's"}"#)[1]["traits"], json!({}));
    // If the suffix does not fit after an id, that call gets an id derived from the body.
    let long = EVENT.replace(r#""m""#, &format!("{:?}", "m".repeat(90)));
    let calls_of_long = calls(r#"{"also": ["identify"]}"#, &long);
    assert_eq!(calls_of_long[0]["messageId"], format!("stigg-{}", "m".repeat(90)));
    let derived = calls_of_long[1]["messageId"].as_str().unwrap();
    assert!(
        derived.starts_with("stigg-sha256-") && derived.ends_with("-identify") && derived.len() <= 100,
        "{derived}"
    );
}

#[test]
fn removed_members_are_not_sent_as_traits() {
    let traits = |properties: &str| {
        let settings = format!(r#"{{"also": ["identify"], "properties": {properties}}}"#);
        call_with(&settings, EVENT)["batch"][1]["traits"].clone()
    };
    assert_eq!(
        traits(r#"{"remove": ["customer.email", "customer.metadata.n"]}"#),
        json!({ "name": "Acme", "metadata": { "tier": "gold" } })
    );
    assert_eq!(
        traits(r#"{"remove": ["customer.metadata.*", "*.name"]}"#),
        json!({ "email": "a@example.com", "metadata": {} })
    );
    assert_eq!(traits(r#"{"remove": ["customer"]}"#), json!({}));
    assert_eq!(
        traits(r#"{"keep_only": ["customer.name", "customer.metadata.tier"]}"#),
        json!({ "name": "Acme", "metadata": { "tier": "gold" } })
    );
    assert_eq!(traits(r#"{"keep_only": ["type"]}"#), json!({}));
}

#[test]
fn what_is_left_out_for_all_environments_never_comes_back() {
    let event = r#"{"type":"t","customer":{"id":"c","name":"n","email":"e","phone":"p"}}"#;
    for (common, own, left) in [
        (
            r#"{"remove": ["customer.email"]}"#,
            r#"{"remove": ["customer.phone", "type"]}"#,
            json!({ "id": "c", "name": "n" }),
        ),
        (
            r#"{"remove": ["customer.email"]}"#,
            r#"{"keep_only": ["customer.email", "customer.name"]}"#,
            json!({ "name": "n" }),
        ),
        (r#"{"keep_only": ["customer.email", "customer.name"]}"#, r#"{"remove": ["*.email"]}"#, json!({ "name": "n" })),
        (r#"{"keep_only": ["customer.*"]}"#, r#"{"keep_only": ["customer.id", "type"]}"#, json!({ "id": "c" })),
        (r#"{"keep_only": ["customer.id"]}"#, r#"{"keep_only": ["*.*"]}"#, json!({ "id": "c" })),
        (r#"{"remove": ["customer.email"]}"#, "{}", json!({ "id": "c", "name": "n", "phone": "p" })),
        ("{}", r#"{"keep_only": ["customer.id"]}"#, json!({ "id": "c" })),
    ] {
        let settings = format!(
            r#"{{"properties": {common}, "also": ["identify"], "environments": {{"/": {{"properties": {own}}}}}}}"#
        );
        let batch = call_with(&settings, event)["batch"].clone();
        assert_eq!(batch[0]["properties"]["customer"], left, "{settings}");
        let mut traits = left.clone();
        traits.as_object_mut().unwrap().retain(|key, _| ["name", "email"].contains(&key.as_str()));
        assert_eq!(batch[1]["traits"], traits, "{settings}");
    }
    // Other fields of an environment replace those of all.
    let settings = r#"{"events": {"deny": ["t"]}, "environments": {"/": {"events": {"allow": ["t"]}}}}"#;
    assert_eq!(call_with(settings, event)["userId"], "c");
}

#[test]
fn constants_keep_their_bytes() {
    let context = r#""ip" : "\u0030", "n":[ 1.50 ,1E2, 1e400, 12345678901234567890 ]"#;
    let json = format!(
        r#"{{"webhook_secret": "unverified", "write_key": "gateway", "context": {{ {context} }}, "integrations":{{"All" :false}}}}"#
    );
    let config = Config::parse(json.as_bytes(), |_| Ok(String::new())).unwrap();
    let environment = config.environment(b"/").unwrap();
    let call = environment.mapping.map(EVENT.as_bytes(), usize::MAX, |_| (), || None).unwrap();
    let head = String::from_utf8(call.head).unwrap();
    assert!(head.contains(&format!(r#""}},{context}}},"integrations":{{"All" :false}},"properties":"#)), "{head}");
}

#[test]
fn an_empty_type_is_an_absent_one() {
    for events in [r#"{"allow": ["a"]}"#, r#"{"allow": ["*"]}"#, r#"{"deny": ["*"]}"#] {
        let outcome = |body: &str| map_with(&format!(r#"{{"events": {events}}}"#), body.as_bytes());
        for kind in ["", r#""type":"","#] {
            let body = |customer: &str| format!(r#"{{{kind}"customer":{customer}}}"#);
            assert_eq!(outcome(&body(r#"{"id":"c"}"#)), Outcome::Answer(400, "invalid_type"), "{events}");
            assert_eq!(outcome(&body("null")), Outcome::Answer(204, "no_customer"), "{events}");
        }
    }
}

#[test]
fn a_type_without_a_word_has_no_name_in_title_case() {
    for prefix in ["", "Stigg "] {
        for kind in ["...", "_", "\\u002e"] {
            let settings = format!(r#"{{"event_name": {{"style": "title_case", "prefix": "{prefix}"}}}}"#);
            let body = format!(r#"{{"type":"{kind}","customer":{{"id":"c"}}}}"#);
            assert_eq!(map_with(&settings, body.as_bytes()), Outcome::Answer(400, "invalid_type"), "{kind}");
        }
    }
}

/// The type is decoded once, and not for each of the patterns and names: a debug build takes minutes for that.
#[test]
fn long_lists_cost_little_for_a_long_type() {
    let texts: Vec<String> = (0..2000).map(|n| format!("type.{n}")).collect();
    let renamed: Value = texts.iter().map(|text| (text.clone(), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    let allow: Vec<&str> = texts.iter().map(String::as_str).chain(["*"]).collect();
    let settings = json!({
        "events": { "allow": allow, "deny": texts },
        "event_name": { "rename": renamed },
        "user_id": [{ "path": "x", "events": texts }, { "path": "customer.id" }],
        "max_call_bytes": 1_000_000,
    });
    let body = format!(r#"{{"type":"{}","customer":{{"id":"c"}}}}"#, r"\u0061".repeat(80_000));
    let start = std::time::Instant::now();
    assert!(matches!(map_with(&settings.to_string(), body.as_bytes()), Outcome::Call(_)));
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
}

/// An event with two large members.
fn large(first: usize, second: usize) -> String {
    format!(
        r#"{{"type":"a","messageId":"m","customer":{{"id":"c","name":"{}"}}, "first":["{}"] ,"second":"{}","kept":1.50}}"#,
        "n".repeat(100),
        "f".repeat(first),
        "s".repeat(second)
    )
}

#[test]
fn a_call_over_its_limit_loses_the_named_paths_until_it_fits() {
    let settings = r#"{"too_large":{"remove":["missing","first","second"]},"max_call_bytes":1000}"#;
    let whole = call_with(settings, large(100, 100));
    assert_eq!(whole["properties"], serde_json::from_str::<Value>(&large(100, 100)).unwrap());
    assert!(whole["context"].get("removed").is_none(), "{whole}");

    let one = call_with(settings, large(900, 100));
    assert_eq!(one["context"]["removed"], json!(["first"]), "`missing` was not there");
    assert_eq!((one["properties"].get("first"), one["properties"]["second"].as_str().map(str::len)), (None, Some(100)));
    assert_eq!(one["messageId"], "stigg-m");

    let both = call_with(settings, large(900, 900));
    assert_eq!(both["context"]["removed"], json!(["first", "second"]));
    let Outcome::Call(sent) = map_with(settings, large(900, 900).as_bytes()) else { panic!() };
    assert!(sent.ends_with(br#""kept":1.50}}"#), "what stays keeps its bytes");
    assert!(sent.len() <= 1000);

    let fits_not = map_with(settings, large(100, 100).replace("1.50", &"1".repeat(900)).as_bytes());
    assert_eq!(fits_not, Outcome::Answer(413, "call_too_large"));
}

/// White space around an event leaves it with the first path. That alone removes nothing.
#[test]
fn only_what_was_in_the_event_is_listed_as_removed() {
    let settings = r#"{"too_large":{"remove":["missing","first"]},"max_call_bytes":600}"#;
    let padded = call_with(settings, format!(" \n{}\r\n\t", large(500, 10)));
    assert_eq!(padded["context"]["removed"], json!(["first"]));
    let settings = r#"{"too_large":{"remove":["missing"]},"max_call_bytes":600}"#;
    let spaces = format!("{}{}", large(10, 10), " ".repeat(600));
    assert_eq!(map_with(settings, spaces.as_bytes()), Outcome::Answer(413, "call_too_large"));
}

/// The list of what was removed counts too.
#[test]
fn a_trimmed_call_is_never_over_its_limit() {
    for limit in 300..700 {
        let settings = format!(r#"{{"too_large":{{"remove":["second","first"]}},"max_call_bytes":{limit}}}"#);
        match map_with(&settings, large(50, 40).as_bytes()) {
            Outcome::Call(sent) => assert!(sent.len() <= limit, "{} of {limit}", sent.len()),
            answer => assert_eq!(answer, Outcome::Answer(413, "call_too_large")),
        }
    }
}

#[test]
fn each_call_of_a_batch_has_the_limit_of_a_call() {
    let limits = |own: &str| format!(r#"{{"also":["identify","group"],"max_call_bytes":700{own}}}"#);
    // Three calls of less than 700 bytes each.
    let Outcome::Call(batch) = map_with(&limits(""), large(100, 50).as_bytes()) else { panic!() };
    assert!(batch.len() > 700, "{}", batch.len());
    let trimmed = limits(r#","too_large":{"remove":["first","customer.name"]}"#);
    let event = large(600, 10).replace(&"n".repeat(100), &"n".repeat(650));
    let batch = call_with(&trimmed, &event);
    let removed = |call: usize| batch["batch"][call]["context"]["removed"].clone();
    assert_eq!((removed(0), removed(1)), (json!(["first", "customer.name"]), json!(["customer.name"])), "{batch}");
    assert_eq!(batch["batch"][1]["traits"], json!({}));
    // The message says which call, which limit, and what would help.
    let message = |settings: &str, event: &str| match step(settings, event.as_bytes()) {
        Step::Reply(reply) => reply.message().into_owned(),
        other => panic!("{other:?}"),
    };
    let track = message(&limits(""), &large(700, 10));
    assert!(track.contains("track call") && track.contains("max_call_bytes is 700"), "{track}");
    assert!(track.contains("too_large") && track.contains("first, customer"), "{track}");
    let trimmed = limits(r#","too_large":{"remove":["first"]}"#).replace("700", "300");
    let rest = message(&trimmed, &large(700, 400));
    assert!(rest.contains("are second, customer, ") && !rest.contains("first"), "what has left is no help: {rest}");
    let identify =
        message(&limits(r#","too_large":{"remove":["customer"]}"#), &event.replace("\"first\":[", "\"email\":["));
    assert!(identify.contains("call for this event is"), "{identify}");
    let whole =
        message(r#"{"also":["identify"],"max_body_bytes":1000000,"max_call_bytes":1000000}"#, &large(600_000, 1));
    assert!(whole.contains("whole batch call") && whole.contains("500000"), "{whole}");
}

#[test]
fn a_message_names_members_and_repeats_no_data() {
    let event =
        format!(r#"{{"type":"a","customer":{{"id":"c"}},"a@b.example":"{0}","x":"{0}"}}"#, "secret".repeat(100));
    let Step::Reply(reply) = step(r#"{"max_call_bytes":500}"#, event.as_bytes()) else { panic!() };
    let message = reply.message();
    assert!(message.contains("are x, customer") && !message.contains("secret") && !message.contains('@'), "{message}");
}

#[test]
fn all_stands_for_every_known_place() {
    for (event, user_id, path) in [
        (r#"{"type":"credit_grant.created","customerId":"c"}"#, "c", "customerId"),
        (r#"{"type":"subscription.create_failed","input":{"customerId":"c"}}"#, "c", "input.customerId"),
        (r#"{"type":"customer.created","id":"c"}"#, "c", "id"),
        (r#"{"type":"a","customer":{"id":"c"},"customerId":"d"}"#, "c", "customer.id"),
    ] {
        assert_eq!(call_with(r#"{"user_id":"all"}"#, event)["userId"], user_id, "{event}");
        if path != "customer.id" {
            assert_eq!(map(event), Outcome::Answer(204, "customer_elsewhere"), "{event}");
            let Step::Reply(reply) = step("{}", event.as_bytes()) else { panic!() };
            assert!(reply.message().contains(&format!("at {path}; \"user_id\": \"all\"")), "{}", reply.message());
            // A list for people must not be told to send a company's id.
            let Step::Reply(reply) = step(r#"{"user_id":[{"path":"customer.metadata.userId"}]}"#, event.as_bytes())
            else {
                panic!()
            };
            assert!(reply.message().contains("company") && !reply.message().contains("all"), "{}", reply.message());
        }
    }
    for not_about_one in [
        r#"{"type":"plan.created","id":"plan-pro"}"#,
        r#"{"type":"customer.created","id":""}"#,
        r#"{"type":"a","customerId":true}"#,
    ] {
        assert_eq!(map(not_about_one), Outcome::Answer(204, "no_customer"), "{not_about_one}");
    }
}

/// The page names the events that need a place.
#[test]
fn the_page_lists_the_known_places() {
    let page = tests::pages::read("docs/configuration.md").unwrap();
    for known in stigg_segment::places::KNOWN.iter().filter(|known| !known.needed_by.is_empty()) {
        let events = known.needed_by.iter().map(|event| format!("`{event}`")).collect::<Vec<_>>().join(", ");
        assert!(page.contains(&format!("| {events} | `{}` |", known.path)), "{events}: {}", known.path);
    }
    let list = page.split("It stands for this list:\n\n```json configuration\n").nth(1).unwrap();
    let list = list.split("```").next().unwrap();
    let read = |text: &str| Config::parse(text.as_bytes(), |_| Ok("x".to_owned())).unwrap();
    assert_eq!(read(list), read(r#"{"user_id":"all"}"#));
}

#[test]
fn the_time_is_the_first_that_is_one_at_these_places() {
    let settings =
        r#"{"timestamp":[{"path":"timestamp"},{"path":"createdAt","events":["subscription.*"]},{"path":"input.at"}]}"#;
    let time = |members: &str| {
        call_with(settings, format!(r#"{{"type":"subscription.created","customer":{{"id":"c"}},{members}}}"#))["timestamp"].clone()
    };
    let [first, second, third] = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"];
    assert_eq!(time(&format!(r#""timestamp":"{first}","createdAt":"{second}""#)), first);
    assert_eq!(time(&format!(r#""timestamp":"soon","createdAt":"{second}""#)), second);
    assert_eq!(time(&format!(r#""timestamp":7,"input":{{"at":"{third}"}}"#)), third);
    assert_eq!(time(r#""timestamp":null"#), Value::Null);
    let other = format!(r#"{{"type":"plan.created","customer":{{"id":"c"}},"createdAt":"{second}"}}"#);
    assert_eq!(call_with(settings, other)["timestamp"], Value::Null);
}

#[test]
fn the_whole_event_can_come_under_a_key() {
    let event = r#"{"type":"a","messageId":"m", "id":1.50,"customer":{"id":"c","email":"e"}}"#;
    let Outcome::Call(sent) = map_with(r#"{"properties":{"under":"stigg"}}"#, event.as_bytes()) else { panic!() };
    assert!(sent.ends_with(format!(r#","properties":{{"stigg":{event}}}}}"#).as_bytes()), "{}", sent.escape_ascii());
    // With everything else that changes the event, and in a batch.
    let settings = r#"{"properties":{"under":"a \"b\"","remove":["customer.email"]},"also":["identify"],
                      "too_large":{"remove":["large"]},"max_call_bytes":600}"#;
    let large = event.replace("1.50", &format!(r#"1.50,"large":"{}""#, "x".repeat(600)));
    let batch = call_with(settings, &large);
    let expected = json!({"type":"a","messageId":"m","id":1.50,"customer":{"id":"c"}});
    assert_eq!(batch["batch"][0]["properties"], json!({ "a \"b\"": expected }));
    assert_eq!(batch["batch"][0]["context"]["removed"], json!(["large"]));
    // The key of all environments stays until one has its own.
    for (own, key) in [(r#""remove":["x"]"#, "stigg"), (r#""under":"own""#, "own")] {
        let settings =
            format!(r#"{{"properties":{{"under":"stigg"}},"environments":{{"/":{{"properties":{{{own}}}}}}}}}"#);
        assert!(call_with(&settings, event)["properties"][key].is_object(), "{own}");
    }
}

/// An event of a company, with the person in its metadata.
const COMPANY: &str = r#"{"type":"subscription.created","messageId":"m","customer":{"id":"acme","name":"Acme Inc.","email":"office@acme.example","metadata":{"userId":"u-1","userEmail":"a@acme.example"}}}"#;

/// How the page says that companies are configured.
const COMPANIES: &str = r#"{
    "user_id": [{"path": "customer.metadata.userId", "traits": {"email": "customer.metadata.userEmail"}}],
    "group_id": "all",
    "also": ["identify", "group"]
}"#;

#[test]
fn a_company_is_the_group_and_a_person_the_user() {
    let batch = call_with(COMPANIES, COMPANY);
    let [track, identify, group] = batch["batch"].as_array().unwrap().as_slice() else { panic!("{batch}") };
    for call in [track, identify, group] {
        assert_eq!((&call["userId"], &call["context"]["groupId"]), (&json!("u-1"), &json!("acme")), "{call}");
        assert_eq!(call["context"]["library"]["name"], "stigg-segment-filter");
    }
    assert_eq!(identify["traits"], json!({ "email": "a@acme.example" }));
    assert_eq!(group["groupId"], "acme");
    let metadata = json!({ "userId": "u-1", "userEmail": "a@acme.example" });
    let traits = json!({ "name": "Acme Inc.", "email": "office@acme.example", "metadata": metadata });
    assert_eq!(group["traits"], traits);
    // Without other calls.
    let track = call_with(
        r#"{"group_id": [{"path": "customer.id"}], "user_id": [{"path": "customer.metadata.userId"}]}"#,
        COMPANY,
    );
    assert_eq!((&track["userId"], &track["context"]["groupId"]), (&json!("u-1"), &json!("acme")));
    assert_eq!(track.get("groupId"), None);
}

#[test]
fn a_group_is_found_as_a_customer_is() {
    let settings = r#"{"group_id": [{"path":"account.id","events":["a"]},{"path":"org"}], "also": ["group"]}"#;
    for (members, group) in [
        (r#""account":{"id":"x"},"org":"y""#, "x"),
        (r#""account":{"id":""},"org":7.0"#, "7.0"),
        (r#""org":"\u00e9\"""#, "é\""),
    ] {
        let batch = call_with(settings, format!(r#"{{"type":"a","customer":{{"id":"c"}},{members}}}"#));
        assert_eq!(batch["batch"][1]["groupId"], group, "{batch}");
        assert_eq!(batch["batch"][0]["context"]["groupId"], group, "{batch}");
    }
    // Nothing says that the event belongs to a group: it is sent without one.
    for (kind, members) in [("a", r#""org":null"#), ("a", r#""account":{"id":0}"#), ("b", r#""account":{"id":"x"}"#)] {
        let batch = call_with(settings, format!(r#"{{"type":"{kind}","customer":{{"id":"c"}},{members}}}"#));
        assert_eq!(batch["batch"].as_array().unwrap().len(), 1, "{batch}");
        assert_eq!((&batch["batch"][0]["type"], &batch["batch"][0]["userId"]), (&json!("track"), &json!("c")));
        assert_eq!(batch["batch"][0]["context"].get("groupId"), None, "{batch}");
    }
    for (event, status, code) in [
        (r#"{"type":"a","customer":{"id":"c"},"org":[]}"#, 400, "invalid_customer_id"),
        (r#"{"type":"a","org":"x"}"#, 204, "no_customer"),
        (r#"{"type":"a","org":{}}"#, 204, "no_customer"),
    ] {
        assert_eq!(map_with(settings, event.as_bytes()), Outcome::Answer(status, code), "{event}");
    }
}

#[test]
fn traits_come_from_the_record_whose_own_id_it_is() {
    let traits = |user_id: &str, group_id: &str, event: &str| {
        let settings = format!(
            r#"{{"user_id":{user_id},"group_id":{group_id},"also":["group","identify"],"properties":{{"remove":["customer.email"]}}}}"#
        );
        let batch = call_with(&settings, event);
        let of = |kind: &str| {
            let call = batch["batch"].as_array().unwrap().iter().find(|call| call["type"] == kind).cloned();
            call.map(|call| call["traits"].clone())
        };
        (of("identify").unwrap(), of("group").unwrap())
    };
    let event = r#"{"type":"a","id":"sub","name":"Plan","customerId":"x","customer":{"id":"c","name":"C","email":"e"},
        "metadata":{"id":"m","name":"free","\u00e9":1.50}, "person":{"id":"p","name":"P","metadata":null}}"#;
    let own = json!({ "name": "C" });
    let of_person = json!({ "name": "P" });
    assert_eq!(
        traits(r#"[{"path":"person.id"}]"#, r#"[{"path":"customer.id"}]"#, event),
        (of_person.clone(), own.clone())
    );
    assert_eq!(traits(r#"[{"path":"customer.id"}]"#, r#"[{"path":"person.id"}]"#, event), (own, of_person));
    // What is beside another id belongs to something else.
    assert_eq!(traits(r#"[{"path":"customerId"}]"#, r#"[{"path":"metadata.id"}]"#, event), (json!({}), json!({})));
    // Named traits replace the others, and nothing that is left out comes back.
    let named = r#"[{"path":"customerId","traits":{"plan \"name\"":"name","Email":"customer.email","none":"person.metadata","n":"metadata.é"}}]"#;
    let settings = |group| traits(named, group, event);
    let expected = json!({ "plan \"name\"": "Plan", "n": 1.50 });
    assert_eq!(settings(r#"[{"path":"customer.id","traits":{}}]"#), (expected, json!({})));
}

#[test]
fn what_the_filter_says_in_the_context_is_not_a_constant() {
    for (own, message) in [
        (r#""group_id": "all", "context": {"groupId": "x"}"#, "context.groupId: says what group_id has found"),
        (r#""too_large": {"remove": ["a"]}, "context": {"removed": []}"#, "context.removed: says what too_large"),
        (
            r#""group_id": "all", "environments": {"/": {"context": {"groupId": "x"}}}"#,
            "environments./: context.groupId: says what",
        ),
    ] {
        let settings = format!(r#"{{"webhook_secret": "unverified", "write_key": "gateway", {own}}}"#);
        let error = Config::parse(settings.as_bytes(), |_| Ok(String::new())).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    let call = call_with(r#"{"context": {"groupId": "x", "removed": 1}}"#, EVENT);
    assert_eq!((&call["context"]["groupId"], &call["context"]["removed"]), (&json!("x"), &json!(1)));
}

#[test]
fn the_groups_id_counts_in_the_size_of_each_call_and_stays_when_it_is_trimmed() {
    let settings =
        r#"{"group_id":[{"path":"first"}],"also":["group"],"too_large":{"remove":["second"]},"max_call_bytes":700}"#;
    let event = large(1, 500).replace(r#"["f"]"#, &format!("{:?}", "g".repeat(100)));
    let Outcome::Call(sent) = map_with(settings, event.as_bytes()) else { panic!() };
    let batch: Value = serde_json::from_slice(&sent).unwrap();
    for call in batch["batch"].as_array().unwrap() {
        assert_eq!(call["context"]["groupId"], "g".repeat(100), "{call}");
    }
    assert_eq!(batch["batch"][0]["context"]["removed"], json!(["second"]));
    let too_long = event.replace(&"g".repeat(100), &"g".repeat(700));
    assert_eq!(map_with(settings, too_long.as_bytes()), Outcome::Answer(413, "call_too_large"));
}
