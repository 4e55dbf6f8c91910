//! The pages: their examples do what they say, and their links lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use sandbox::envoy::workspace_root;
use serde_json::{Value, json};
use stigg_segment::config::Config;
use stigg_segment::metrics::Metric;
use stigg_segment::pattern::Pattern;
use stigg_segment::reply::{Ignored, Rejection};
use tests::fixtures::{Fixture, fixtures};
use tests::guard::names_all;
use tests::outcome::*;
use tests::pages::{blocks, pages, read};

const CONFIGURATION: &str = "docs/configuration.md";

fn parse(configuration: &str) -> Result<Config> {
    Ok(Config::parse(configuration.as_bytes(), |name| Ok(format!("value of {name}")))?)
}

#[test]
fn every_example_configuration_does_what_the_page_says() -> Result<()> {
    let (mut configuration, mut event) = (String::new(), String::new());
    let mut shown = 0;
    for block in blocks(CONFIGURATION)? {
        let outcome = || map_with(&configuration, event.as_bytes());
        match block.kind.as_str() {
            "json configuration" => {
                parse(&block.text).with_context(|| block.place.clone())?;
                configuration = block.text;
            }
            "json event" => event = block.text,
            "json call" => {
                let Outcome::Call(call) = outcome() else { panic!("{}: no call: {:?}", block.place, outcome()) };
                let call: BTreeMap<String, Value> = serde_json::from_slice(&call)?;
                let told: BTreeMap<String, Value> = serde_json::from_str(&block.text)?;
                assert!(!told.is_empty(), "{}", block.place);
                for (key, value) in told {
                    assert_eq!(call.get(&key), Some(&value), "{}: {key}", block.place);
                    shown += 1;
                }
            }
            "text answer" => {
                let Outcome::Answer(status, code) = outcome() else { panic!("{}: a call", block.place) };
                assert_eq!(format!("{status} {code}"), block.text, "{}", block.place);
                shown += 1;
            }
            "yaml cases" | "yaml workflow" => {} // sandbox/tests/commands/check.rs runs them
            other => panic!("{}: no test reads a block of {other}", block.place),
        }
    }
    assert!(shown > 5, "the examples are gone");
    Ok(())
}

#[test]
fn the_setting_that_keeps_every_customer_keeps_what_the_page_says() -> Result<()> {
    let page = read(CONFIGURATION)?;
    let section = page.split("## `user_id`").nth(1).unwrap().split("\n## ").next().unwrap();
    let in_code = |text: &str| -> Vec<Pattern> { text.split('`').skip(1).step_by(2).map(Pattern::new).collect() };
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let dropped: Vec<_> = rows.flat_map(|row| in_code(row.split('|').nth(1).unwrap())).collect();
    let about_none = in_code(section.split("not about a customer: ").nth(1).unwrap().split(". The").next().unwrap());

    let keeps_all = blocks(CONFIGURATION)?.into_iter().find(|block| block.text.contains("input.customerId")).unwrap();
    let mut kinds = BTreeSet::new();
    for Fixture { name: kind, event, .. } in fixtures()? {
        let is_call = |settings: &str| matches!(map_with(settings, event.as_bytes()), Outcome::Call(_));
        let is_in = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(kind.as_bytes()));
        let what = match (is_call("{}"), is_call(&keeps_all.text)) {
            (true, true) => "always sent",
            (false, true) => "kept by the setting",
            (false, false) => "about no customer",
            (true, false) => panic!("{kind} is lost by the setting"),
        };
        let place = "the section `user_id` of docs/configuration.md";
        let named = (is_in(&about_none), is_in(&dropped));
        let meant = (what == "about no customer", what == "kept by the setting");
        assert_eq!(named, meant, "{kind} is {what}: (named as about no customer, as kept) in {place}; change it there");
        kinds.insert(what);
    }
    assert_eq!(kinds.len(), 3);
    Ok(())
}

/// Puts an address wherever people write what they like: as a text, and somewhere inside.
fn with_addresses(event: &str) -> Result<Vec<String>> {
    let address = "someone@example.com";
    let free = [
        "email",
        "name",
        "metadata",
        "error",
        "input",
        "actor",
        "reason",
        "changedBy",
        "displayName",
        "data",
        "latestInvoice",
    ];
    let mut events = vec![event.to_owned()];
    for value in [json!(address), json!({ "a": [{ "b": address }] }), json!({ address: 1 })] {
        let mut event: Value = serde_json::from_str(event)?;
        let top = event.as_object_mut().context("an event is an object")?;
        for name in free {
            // What the id is in stays, or there would be no call.
            match top.get_mut(name).and_then(Value::as_object_mut) {
                Some(members) => drop(members.insert("of".to_owned(), value.clone())),
                None => drop(top.insert(name.to_owned(), value.clone())),
            }
        }
        for within in ["customer", "plan", "subscription", "feature"] {
            let Some(members) = top.get_mut(within).and_then(Value::as_object_mut) else { continue };
            members.insert("metadata".to_owned(), value.clone());
            members.insert("email".to_owned(), value.clone());
            if within == "customer" {
                members.insert("name".to_owned(), value.clone());
            }
        }
        top.insert("addons".to_owned(), json!([{ "id": "addon", "metadata": value, "email": value }]));
        events.push(event.to_string());
    }
    Ok(events)
}

#[test]
fn with_the_settings_against_addresses_none_leaves() -> Result<()> {
    let page = read(CONFIGURATION)?;
    let section = page.split("### No e-mail address may leave\n").nth(1).context("no section")?;
    let settings = section.split("```json configuration\n").skip(1).take(2).filter_map(|rest| rest.split("```").next());
    let (mut calls, mut with_an_address) = (0, 0);
    for settings in settings {
        for Fixture { name, event, .. } in fixtures()? {
            for event in with_addresses(&event)? {
                let Outcome::Call(call) = map_with(settings, event.as_bytes()) else { continue };
                let call = String::from_utf8(call)?;
                assert!(!call.contains('@') && !call.contains("u0040"), "{name}: {call}");
                assert!(call.contains("\"identify\"") && call.contains("\"group\""), "{name}: {call}");
                calls += 1;
                with_an_address += usize::from(event.contains('@'));
            }
        }
    }
    assert!(
        calls > 250 && with_an_address * 4 > calls * 3,
        "{calls} calls, {with_an_address} of events with an address"
    );
    Ok(())
}

#[test]
fn the_readme_names_events_that_only_the_setting_sends() -> Result<()> {
    let readme = read("README.md")?;
    let named = readme.split("It drops ").nth(1).and_then(|rest| rest.split(" and [others]").next()).unwrap();
    let setting =
        format!("{{{}}}", readme.split("One setting, `").nth(1).and_then(|rest| rest.split('`').next()).unwrap());
    let fixtures = fixtures()?;
    for pattern in named.split('`').skip(1).step_by(2) {
        let events = fixtures.iter().filter(|fixture| Pattern::new(pattern).matches(fixture.name.as_bytes()));
        let events: Vec<_> = events.map(|fixture| fixture.event.as_bytes()).collect();
        assert!(!events.is_empty(), "{pattern} is no event");
        for event in events {
            assert_eq!(map_with("{}", event), Outcome::Answer(204, "customer_elsewhere"), "{pattern}");
            assert!(matches!(map_with(&setting, event), Outcome::Call(_)), "{pattern} with {setting}");
        }
    }
    Ok(())
}

#[test]
fn every_field_is_explained_with_its_default() -> Result<()> {
    let rejected = parse(r#"{"wirte_key": 1}"#).unwrap_err().to_string();
    let fields = rejected.rsplit_once("expected one of ").unwrap().1.split(", ");
    let schema: Value = serde_json::from_str(&read("configuration.schema.json")?)?;
    for field in fields.chain(["hold_request_headers", "environments"]) {
        let of = |at: &str| schema.pointer(&format!("{at}/properties/{field}")).cloned();
        let described = of("/$defs/environment").or_else(|| of(""));
        let missing = || format!("`{field}` is missing in configuration.schema.json: add it");
        let default = described.with_context(missing)?["default"].clone();
        let page = read(CONFIGURATION)?;
        let (_, table) = page.split_once("| field | default | ").unwrap();
        let mut rows = table.lines().map(|row| row.split('|').collect::<Vec<_>>());
        let row = rows.find(|row| row.get(1).is_some_and(|name| name.contains(&format!("`{field}`"))));
        let told =
            row.with_context(|| format!("`{field}` is missing in the table of {CONFIGURATION}: add a row"))?[2].trim();
        let is_told = match default.is_null() {
            true => told.is_empty(),
            false => serde_json::from_str(told.trim_matches('`')).is_ok_and(|told: Value| told == default),
        };
        assert!(
            is_told,
            "the table of {CONFIGURATION} has {told} as the default of `{field}`; the schema has {default}"
        );
    }
    Ok(())
}

/// The names in a column of the table in a section of the page on operations.
fn listed(section: &str, column: usize) -> Result<BTreeSet<String>> {
    let page = read("docs/operations.md")?;
    let (_, section) = page.split_once(&format!("\n## {section}\n")).context(section.to_owned())?;
    let rows = section.lines().take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with('|')).skip(2);
    let cells = rows.filter_map(|row| row.split('|').nth(column));
    Ok(cells.filter_map(|cell| cell.split('`').nth(1)).map(str::to_owned).collect())
}

#[test]
fn every_answer_and_every_metric_is_explained() -> Result<()> {
    let yaml = read("envoy.yaml")?;
    // Envoy's own answers have codes too.
    let of_envoy = ["{ code: ", "{\"code\":\""].into_iter().flat_map(|before| yaml.split(before).skip(1));
    let of_envoy = of_envoy.filter_map(|rest| rest.split([',', '"']).next());
    let codes = Ignored::CODES.iter().chain(Rejection::CODES).copied().chain(of_envoy);
    let answers = "What each answer means";
    names_all(
        &format!("the table under `{answers}` of docs/operations.md"),
        "answer's code",
        listed(answers, 2)?,
        codes,
    );

    let metrics = Metric::all().into_iter().map(|metric| {
        let name = metric.name().replacen('.', "_", 1);
        name.split('.').next().unwrap_or_default().to_owned()
    });
    names_all("the table under `Metrics` of docs/operations.md", "metric", listed("Metrics", 1)?, metrics);
    Ok(())
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
    kept.replace(' ', "-")
}

/// Whether the target of a link on a page exists.
fn leads_somewhere(page: &str, link: &str) -> Result<bool> {
    // GitHub's own pages of the repository.
    if let Some(page) = link.strip_prefix("../../") {
        if page == "releases" {
            return Ok(true);
        }
        let workflow = page.strip_prefix("actions/workflows/").unwrap_or_default().trim_end_matches("/badge.svg");
        return Ok(workspace_root().join(".github/workflows").join(workflow).is_file());
    }
    let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
    let file = match file {
        "" => page.to_owned(),
        file => Path::new(page).parent().unwrap().join(file).to_str().unwrap().to_owned(),
    };
    if fragment.is_empty() {
        return Ok(workspace_root().join(file).exists());
    }
    let headings = read(&file)?;
    let mut headings = headings.lines().filter(|line| line.starts_with('#'));
    Ok(headings.any(|line| anchor(line.trim_start_matches(['#', ' '])) == fragment))
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    let mut links = 0;
    for page in pages()? {
        let text = read(&page)?;
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in targets.filter(|link| !link.starts_with("https://")) {
            assert!(
                leads_somewhere(&page, link)?,
                "{page}: the link {link} leads nowhere; compare the file and its headings"
            );
            links += 1;
        }
    }
    assert!(links > 10, "the links are gone");
    Ok(())
}

#[test]
fn only_the_readme_names_the_registry_of_releases() -> Result<()> {
    for page in pages()? {
        assert_eq!(read(&page)?.matches("ghcr.io").count(), usize::from(page == "README.md"), "{page}");
    }
    Ok(())
}

#[test]
fn the_readme_downloads_files_of_a_release() -> Result<()> {
    let contains = read("docs/releasing.md")?;
    let blocks = blocks("README.md")?;
    let install = blocks.iter().find(|block| block.comment == "needs: a release").context("no way in")?;
    let mut downloads = 0;
    for line in install.text.lines().filter(|line| line.starts_with("curl ")) {
        let names = line.split_once("$RELEASE").context(line.to_owned())?.1.split(' ').next().unwrap_or_default();
        for name in names.trim_matches(['"', '/', '{', '}']).split(',') {
            assert!(contains.contains(&format!("`{name}`")), "{name} is not in a release: {line}");
            downloads += 1;
        }
    }
    assert!(downloads > 3, "{downloads} downloads");
    Ok(())
}

#[test]
fn the_site_has_every_page() -> Result<()> {
    let summary = read("docs/site/SUMMARY.md")?;
    for page in pages()? {
        assert!(summary.contains(&format!("]({page})")), "docs/site/SUMMARY.md does not list {page}");
    }
    Ok(())
}

#[test]
fn every_alert_names_the_place_that_says_what_to_do() -> Result<()> {
    let rules: Value = serde_yaml_ng::from_str(&read("deploy/alerts.yaml")?)?;
    for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let runbook = rule["annotations"]["runbook"].as_str().unwrap();
        assert!(
            runbook.starts_with("docs/operations.md#") && leads_somewhere("README.md", runbook)?,
            "deploy/alerts.yaml: the runbook {runbook} is no heading of docs/operations.md: name one, or write it"
        );
        assert!(
            rule["labels"]["severity"].is_string() && rule["annotations"]["summary"].is_string(),
            "deploy/alerts.yaml: give {} a severity and a summary",
            rule["alert"]
        );
    }
    Ok(())
}

#[test]
fn every_guarantee_names_a_test_that_exists() -> Result<()> {
    let readme = read("README.md")?;
    let section = readme.split("## What it guarantees").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut named = 0;
    for row in section.lines().filter(|line| line.starts_with("| ") && line.contains("`tests/")) {
        let mut codes = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).peekable();
        while let Some(file) = codes.next() {
            let source = read(file)?;
            assert!(codes.peek().is_some_and(|code| !code.ends_with(".rs")), "no test of {file} is named: {row}");
            while let Some(test) = codes.next_if(|code| !code.ends_with(".rs")) {
                assert!(source.contains(&format!("fn {test}()")), "{file} has no test {test}");
                named += 1;
            }
        }
    }
    let rows = section.lines().filter(|line| line.starts_with("| ")).count() - 2;
    assert!(rows > 5 && named >= rows, "a guarantee without a test: {named} tests for {rows} rows");
    Ok(())
}
