//! `sandbox check` compares what the filter does with what is expected.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::workspace_root;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::child::sandbox;

/// A folder with a configuration and cases.
struct Folder(TempDir);

impl Folder {
    fn with(configuration: &str, cases: &str) -> Result<Self> {
        let folder = Self(tempfile::tempdir()?);
        folder.write("configuration.json", configuration)?;
        folder.write("cases.yaml", cases)?;
        Ok(folder)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.0.path().join(name), text)?)
    }

    /// Checks them. Returns the exit status, the lines of the output, and the error.
    fn check(&self, arguments: &[&str]) -> Result<(Option<i32>, Vec<String>, String)> {
        let mut check = sandbox("check");
        check.args(["cases.yaml", "--config", "configuration.json"]).args(arguments);
        self.run(check)
    }

    fn run(&self, mut command: Command) -> Result<(Option<i32>, Vec<String>, String)> {
        let output = command.current_dir(&self.0).output()?;
        let lines = String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect();
        Ok((output.status.code(), lines, String::from_utf8(output.stderr)?))
    }
}

/// The blocks of docs/configuration.md, each with its kind.
fn blocks() -> Result<Vec<(String, String)>> {
    let page = std::fs::read_to_string(workspace_root().join("docs/configuration.md"))?;
    let blocks = page.split("\n```").skip(1).step_by(2);
    blocks
        .map(|block| block.split_once('\n').map(|(kind, text)| (kind.into(), text.into())).context("a fence"))
        .collect()
}

#[test]
fn each_case_has_a_line_and_each_difference_another() -> Result<()> {
    let cases = r#"
- { name: As it is, event: subscription.created, call: { event: subscription_created, properties.customer.id: acme-jp } }
- event: plan.created
  answer: 204 no_customer
- { name: Another name, event: subscription.created, call: { event: Created, userId: acme-jp } }
- { event: { type: customer.updated, customer: { id: 7, email: e } }, call: { properties: { type: customer.updated, customer: { id: 7 } } } }
- { event: '{"type":"a"}', call: {} }
- { event: mine.json, answer: 204 no_customer }
- { event: '{', answer: 204 no_customer }
"#;
    let folder = Folder::with("{}", cases)?;
    folder.write("mine.json", r#"{"type":"mine","customer":{"id":"m"}}"#)?;
    let (status, lines, error) = folder.check(&[])?;
    let expected = [
        "ok    As it is",
        "ok    case 2: plan.created",
        "FAIL  Another name",
        r#"      event: expected "Created", got "subscription_created""#,
        "FAIL  case 4: customer.updated",
        r#"      properties.customer.email: expected nothing, got "e""#,
        "FAIL  case 5: an event",
        "      expected a call, got the answer 204 no_customer: ",
        "FAIL  case 6: mine.json",
        r#"      expected the answer 204 no_customer, got a call: "mine" of "m""#,
        "FAIL  case 7: an event",
        "      expected the answer 204 no_customer, got 400 malformed_json: ",
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        let is_cut = expected.ends_with(": ");
        assert!(if is_cut { line.starts_with(expected) } else { line == expected }, "{line} is not {expected}");
    }
    assert_eq!((status, error.as_str()), (Some(1), "Error: 5 of 7 cases failed\n"));

    let folder = Folder::with("{}", r#"[{"event": "plan.created", "answer": "204 no_customer"}]"#)?;
    let (status, lines, error) = folder.check(&[])?;
    assert_eq!((status, lines.last().map(String::as_str), error.as_str()), (Some(0), Some("all 1 cases hold"), ""));
    Ok(())
}

#[test]
fn the_examples_of_the_page_hold_and_fail_when_they_are_changed() -> Result<()> {
    let (mut configuration, mut event, mut cases) = (String::new(), String::new(), Vec::<Value>::new());
    let mut shown = 0;
    let mut blocks = blocks()?;
    blocks.push(("json configuration".to_owned(), String::new()));
    for (kind, text) in blocks {
        match kind.as_str() {
            "json configuration" => {
                if !cases.is_empty() {
                    let folder = Folder::with(&configuration, &json!(cases).to_string())?;
                    let (status, lines, error) = folder.check(&[])?;
                    ensure!(status == Some(0), "{configuration}: {lines:#?} {error}");
                    shown += cases.len();
                    // Each case can fail.
                    for case in &mut cases {
                        match case["call"].as_object_mut() {
                            Some(call) => drop(call.insert("type".to_owned(), json!("screen"))),
                            None => case["answer"] = json!("204 no_reason"),
                        }
                    }
                    folder.write("cases.yaml", &json!(cases).to_string())?;
                    let failed = format!("Error: {0} of {0} cases failed\n", cases.len());
                    assert_eq!(folder.check(&[])?.2, failed, "{configuration}");
                    cases.clear();
                }
                configuration = text;
            }
            "json event" => event = text,
            "json call" => {
                cases.push(json!({ "event": event, "call": serde_json::from_str::<Value>(&text)? }));
            }
            "text answer" => cases.push(json!({ "event": event, "answer": text })),
            _ => {}
        }
    }
    assert!(shown > 10, "the examples are gone");
    Ok(())
}

#[test]
fn the_step_for_a_ci_on_the_page_writes_a_report() -> Result<()> {
    let blocks = blocks()?;
    let text =
        |kind: &str| blocks.iter().find(|block| block.0 == kind).map(|block| block.1.as_str()).context("a block");
    let position = blocks.iter().position(|block| block.0 == "yaml cases").context("no cases")?;
    let folder = Folder::with(&blocks[position - 1].1, text("yaml cases")?)?;
    let workflow: Value = serde_yaml_ng::from_str(text("yaml workflow")?)?;
    let steps = workflow["jobs"]["configuration"]["steps"].as_array().context("no steps")?;
    let command = steps.last().and_then(|step| step["run"].as_str()).context("no command")?;
    let (cargo, arguments) = command.split_once(" -- ").context("no arguments")?;
    assert!(workspace_root().join("sandbox").is_dir() && cargo.ends_with("--package sandbox"), "{cargo}");
    let (_, arguments) = arguments.split_once("check ").context("not a check")?;
    let mut check = sandbox("check");
    check.args(arguments.split_whitespace());
    let (status, lines, error) = folder.run(check)?;
    assert_eq!((status, error.as_str()), (Some(0), ""), "{lines:#?}");
    assert!(lines.contains(&"ok    The address leaves in neither call".to_owned()), "{lines:#?}");
    assert!(folder.0.path().join("report.xml").exists());
    Ok(())
}

#[test]
fn the_report_is_xml_that_counts_and_names_the_failures() -> Result<()> {
    let cases = json!([
        { "name": "a < b & \"c\"", "event": "plan.created", "answer": "204 no_customer" },
        { "event": { "type": "t", "customer": { "id": "\u{1}]]>" } }, "call": { "userId": "<b>" } },
    ]);
    let folder = Folder::with("{}", &cases.to_string())?;
    assert_eq!(folder.check(&["--junit", "report.xml"])?.0, Some(1));
    let script = "import sys, json, xml.etree.ElementTree as tree\n\
        suite = tree.parse('report.xml').getroot().find('testsuite')\n\
        cases = [[case.get('name')] + [failure.text for failure in case] for case in suite.iter('testcase')]\n\
        print(json.dumps([suite.get('name'), suite.get('tests'), suite.get('failures'), cases]))";
    let mut python = Command::new("python3");
    let (_, lines, error) = folder.run({
        python.args(["-c", script]);
        python
    })?;
    let read: Value = serde_json::from_str(lines.first().context(error)?)?;
    let failure = r#"userId: expected "<b>", got "\u0001]]>""#;
    let expected = json!(["cases.yaml", "2", "1", [["a < b & \"c\""], ["case 2: t", failure]]]);
    assert_eq!(read, expected);
    Ok(())
}

#[test]
fn a_wrong_file_is_told_in_one_line_that_names_it() -> Result<()> {
    let environments = r#"{"environments": {"/a": {}, "/b": {"events": {"deny": ["*"]}}}}"#;
    for (configuration, cases, message) in [
        (r#"{"user_ids": 1}"#, "[]", "Error: configuration.json: user_ids: unknown field"),
        ("{}", "[]", "Error: cases.yaml: there is no case in it"),
        ("{}", "{", "Error: cases.yaml: "),
        ("{}", "- { event: plan.created, answers: a }", "Error: cases.yaml: .[0]: unknown field `answers`"),
        ("{}", "- { event: plan.created }", "Error: cases.yaml: case 1: expected either `call`"),
        ("{}", "- { event: plan.created, answer: a, call: {} }", "Error: cases.yaml: case 1: expected either `call`"),
        (
            "{}",
            "- { event: plan.created, call: { event: a, event: b } }",
            "Error: cases.yaml: .[0].call: duplicate entry with key",
        ),
        ("{}", "- { event: 7, answer: a }", "Error: cases.yaml: case 1: event: expected an event"),
        (
            "{}",
            "- { event: plan.create, answer: a }",
            "Error: cases.yaml: case 1: there is no event and no file `plan.create`",
        ),
        (
            "{}",
            "- { event: plan.created, call: { a..b: 1 } }",
            "Error: cases.yaml: case 1: call: `a..b` has an empty step",
        ),
        (
            environments,
            "- { event: plan.created, answer: 204 no_customer }",
            "Error: cases.yaml: case 1: the configuration has several environments; choose one with `path`: /a, /b",
        ),
    ] {
        let (status, lines, error) = Folder::with(configuration, cases)?.check(&[])?;
        assert!(status == Some(1) && lines.is_empty() && error.lines().count() == 1, "{lines:?} {error}");
        assert!(error.starts_with(message), "{error}");
    }
    // Also at any depth of JSON, however the key is written.
    let folder = Folder::with("{}", "")?;
    let call = r#"{"properties.a": {"b": 1, "\u0062": 2}}"#;
    folder.write("cases.json", &format!(r#"[{{"event": "plan.created", "call": {call}}}]"#))?;
    let mut check = sandbox("check");
    check.arg("cases.json");
    let (status, _, error) = folder.run(check)?;
    assert_eq!((status, error.as_str()), (Some(1), "Error: cases.json: the key `\\u0062` occurs twice\n"));
    let cases = "[{ event: subscription.created, path: /b, answer: 204 event_not_allowed },
                  { event: subscription.created, path: /a, call: { userId: acme-jp } }]";
    assert_eq!(Folder::with(environments, cases)?.check(&[])?.0, Some(0));
    Ok(())
}

#[test]
fn what_matches_nothing_in_any_event_is_named() -> Result<()> {
    let configuration = json!({
        "user_id": [{ "path": "customer.id", "traits": { "mail": "customer.email", "phone": "customer.phone" } }],
        "timestamp": [{ "path": "timestamp", "events": ["subscription.*", "subscriptions.*"] }],
        "event_name": { "rename": { "subscription.created": "A", "subscription.create": "B" } },
        "events": { "deny": ["plan.*", "plans.*"] },
        "properties": { "remove": ["customer.mail", "packageEntitlements.*.feature", "packageEntitlements.*.features"] },
        "context": { "path": "not.one" },
        "environments": { "/a": { "too_large": { "remove": ["of_a"] } }, "/b": { "events": { "deny": ["of_b.*"] } } },
    });
    let on = |path: &str| json!({ "event": "subscription.created", "path": path, "call": {} });
    let other = json!({ "event": "plan.created", "path": "/a", "answer": "204 event_not_allowed" });
    let unmatched = |cases: Value| -> Result<Vec<String>> {
        let (status, lines, error) = Folder::with(&configuration.to_string(), &cases.to_string())?.check(&[])?;
        assert_eq!((status, error.as_str()), (Some(0), ""), "{lines:#?}");
        Ok(lines.iter().filter_map(|line| Some(line.strip_prefix("unmatched")?.trim().to_owned())).collect())
    };
    let of_all = [
        "event_name.rename: subscription.create",
        "events.deny[1]: plans.*",
        "properties.remove[0]: customer.mail",
        "properties.remove[2]: packageEntitlements.*.features",
        "timestamp[0].events[1]: subscriptions.*",
        "user_id[0].traits.phone: customer.phone",
    ];
    let of_a = ["environments./a.too_large.remove[0]: of_a"];
    assert_eq!(unmatched(json!([on("/a"), other]))?, [of_all.as_slice(), &of_a].concat());
    // The environment's own field takes the place of the common one, which then applies to no event.
    let without_deny = of_all.iter().copied().filter(|line| !line.starts_with("events.deny"));
    let expected: Vec<_> = without_deny.chain(["environments./b.events.deny[0]: of_b.*"]).collect();
    assert_eq!(unmatched(json!([on("/b")]))?, expected);
    Ok(())
}
