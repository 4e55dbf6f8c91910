//! docs/from-source-function.md: the published rule, run by Node.js, beside the filter.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::fixtures::{Fixture, fixtures};
use tests::outcome::{Outcome, in_javascript, map, map_with};
use tests::pages::blocks;
use tests::reference::documents::Generator;
use tests::tools;

const PAGE: &str = "docs/from-source-function.md";

/// Segment's part: calls the function for each body, and prints its calls, or the name of its error, one per line.
const SEGMENT: &str = r"
let calls;
const Segment = { track: (call) => calls.push(call) };
(async () => {
  for (const body of JSON.parse(require('node:fs').readFileSync(process.argv[1], 'utf8'))) {
    calls = [];
    const outcome = await onRequest({ json: () => JSON.parse(body) }, {}).then(() => calls, (error) => error.name);
    console.log(JSON.stringify(outcome));
  }
})();";

/// What the function on the page does with each body: a list of its calls, or the name of its error. None if a string in it
/// is not Unicode, which only JavaScript can represent.
fn function(bodies: &[&str]) -> Result<Vec<Option<Value>>> {
    let page = blocks(PAGE)?;
    let function = page.iter().find(|block| block.kind == "js").context("the function is gone")?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), serde_json::to_vec(bodies)?)?;
    let script = [&function.text, SEGMENT].concat();
    let printed = tools::run("node", ["-e", &script, file.path().to_str().context("an odd path")?])?;
    let outcomes: Vec<_> = printed.lines().map(|line| serde_json::from_str(line).ok()).collect();
    ensure!(outcomes.len() == bodies.len(), "{} outcomes", outcomes.len());
    Ok(outcomes)
}

#[test]
fn the_example_becomes_the_calls_on_the_page() -> Result<()> {
    let page = blocks(PAGE)?;
    let block = |kind: &str| page.iter().find(|block| block.kind == kind).context(kind.to_owned());
    let event = &block("json event")?.text;
    let told = |kind| Ok::<Value, anyhow::Error>(serde_json::from_str(&block(kind)?.text)?);
    assert_eq!(function(&[event])?, [Some(json!([told("json function")?]))]);
    let Outcome::Call(call) = map_with(r#"{"source":"main"}"#, event.as_bytes()) else { panic!("no call") };
    assert_eq!(serde_json::from_slice::<Value>(&call)?, told("json call")?);
    Ok(())
}

#[test]
fn every_documented_event_has_the_same_name_user_and_properties() -> Result<()> {
    let fixtures = fixtures()?;
    let bodies: Vec<_> = fixtures.iter().map(|fixture| fixture.event.as_str()).collect();
    let mut sent = 0;
    for (Fixture { name, event, .. }, calls) in fixtures.iter().zip(function(&bodies)?) {
        let expected = match map(event) {
            Outcome::Call(call) => {
                sent += 1;
                let mut call: Value = serde_json::from_slice(&call)?;
                json!([{ "event": call["event"], "userId": call["userId"], "properties": call["properties"].take() }])
            }
            Outcome::Answer(status, _) => {
                assert_eq!(status, 204, "{name}");
                json!([])
            }
        };
        assert_eq!(calls.map(in_javascript), Some(in_javascript(expected)), "{name}");
    }
    assert!(sent > 20 && sent < fixtures.len(), "{sent} are sent");
    Ok(())
}

/// Where they differ, the page says so: the filter rejects what the function fails at or sends in vain.
#[test]
fn odd_events_differ_only_as_the_page_says() -> Result<()> {
    let bodies = (0..2_000).filter_map(|seed| String::from_utf8(Generator::new(seed).event()).ok());
    let bodies: Vec<_> = bodies.collect();
    let mut kinds = BTreeMap::new();
    for (body, does) in bodies.iter().zip(function(&bodies.iter().map(String::as_str).collect::<Vec<_>>())?) {
        let Some(does) = does else { continue };
        let calls = does.as_array().map(Vec::as_slice);
        let (kind, agree) = match map(body) {
            Outcome::Call(call) => {
                let Ok(call) = serde_json::from_slice::<Value>(&call) else { continue };
                let id = call["userId"].as_str().context("no user")?;
                // A number has another spelling, and beyond the doubles it is infinity, which JSON writes as null.
                let is_the_user = |user: &Value| match (user, id.parse::<f64>()) {
                    (Value::Number(user), Ok(id)) => user.as_f64().is_some_and(|user| (user / id - 1.0).abs() < 1e-12),
                    (Value::Null, Ok(id)) => id.is_infinite(),
                    (user, _) => user == id,
                };
                let is_the_call = |sent: &Value| sent["event"] == call["event"] && is_the_user(&sent["userId"]);
                ("call", matches!(calls, Some([sent]) if is_the_call(sent)))
            }
            Outcome::Answer(204, _) => ("204", calls == Some(&[])),
            Outcome::Answer(_, code @ ("malformed_json" | "empty_body")) => (code, does == "SyntaxError"),
            Outcome::Answer(_, code @ "not_an_object") => (code, calls == Some(&[]) || does == "TypeError"),
            Outcome::Answer(_, code @ "invalid_type") => {
                (code, does == "TypeError" || matches!(calls, Some([sent]) if sent["event"] == ""))
            }
            Outcome::Answer(_, code @ "invalid_customer_id") => {
                let is_in_vain = |sent: &Value| !sent["userId"].is_string() && !sent["userId"].is_number();
                (code, does == "TypeError" || matches!(calls, Some([sent]) if is_in_vain(sent)))
            }
            other => panic!("{other:?}: {body}"),
        };
        assert!(agree, "{kind}, but the function: {does}\n{body}");
        *kinds.entry(kind).or_insert(0) += 1;
    }
    for kind in ["call", "204", "malformed_json", "invalid_type", "invalid_customer_id"] {
        assert!(kinds.get(kind).is_some_and(|times| *times > 25), "{kinds:?}");
    }
    Ok(())
}
