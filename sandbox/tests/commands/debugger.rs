//! The debugger's page of `sandbox run`, in a real browser.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use anyhow::Result;
use nix::sys::signal::Signal;
use sandbox::stigg::{Reply, Webhook};
use serde_json::{Value, json};

use crate::browser::{Key, Page};
use crate::child::*;

const WIDE: u32 = 1200;
const PHONE: u32 = 360;

const EVENT: &str =
    r#"{"type":"customer.updated","messageId":"m-1","customer":{"id":"acme","email":"a@acme.example"}}"#;
const CATALOG_EVENT: &str = r#"{"type":"plan.created","messageId":"m-2","id":"plan-pro"}"#;

const FIRST: &str = "#list li:first-child";
const CHOSEN: &str = "#list [aria-selected=true]";

fn open(width: u32) -> Result<(Run, Page)> {
    let run = Run::start()?;
    let page = Page::open(run.debugger()?, width)?;
    Ok((run, page))
}

/// Waits until the list has this many webhooks.
fn until_listed(page: &mut Page, count: usize) -> Result<()> {
    page.until(&format!("document.querySelectorAll('#list li').length === {count}"))
}

/// Waits until the webhook of this type is shown.
fn until_shown(page: &mut Page, event_type: &str) -> Result<()> {
    page.until(&format!("document.querySelector('#detail-title')?.textContent === {}", json!(event_type)))
}

/// Chooses the newest webhook.
fn choose_first(page: &mut Page, event_type: &str) -> Result<()> {
    page.click(FIRST)?;
    until_shown(page, event_type)
}

/// The lines of one side that have a mark, without the text for screen readers.
fn lines(page: &mut Page, mark: &str, side: &str) -> Result<Vec<String>> {
    let cells = format!("document.querySelectorAll('tr.{mark} td:{side}-child .text')");
    Ok(serde_json::from_value(page.value(&format!("Array.from({cells}, (cell) => cell.textContent)"))?)?)
}

#[tokio::test]
async fn a_test_event_is_sent_and_both_sides_are_shown() -> Result<()> {
    let (run, mut page) = open(WIDE)?;
    page.until("document.querySelectorAll('#events button').length > 0")?;
    let fixtures = sandbox::envoy::workspace_root().join("tests/fixtures");
    let buttons =
        page.value("Array.from(document.querySelectorAll('#events button'), (button) => button.textContent)")?;
    let buttons: Vec<String> = serde_json::from_value(buttons)?;
    assert_eq!(buttons.len(), fixtures.read_dir()?.count() / 2);

    let position = buttons.iter().position(|button| button == "subscription.created").unwrap() + 1;
    page.click(&format!("#events button:nth-child({position})"))?;
    until_shown(&mut page, "subscription.created")?;
    assert_eq!(page.text("#sent")?, "subscription.created: 200 OK");
    assert_eq!(page.text("#detail .badge")?, "Forwarded");
    assert_eq!(page.text("#detail .status")?, "200 OK");
    assert_eq!(page.text("#detail .body")?, r#"{"success":true}"#);
    assert_eq!(page.text(".summary")?, "Sent to /v1/track; the event is in properties, byte for byte.");

    let mut event: Value = serde_json::from_slice(&std::fs::read(fixtures.join("subscription.created.json"))?)?;
    let shown =
        page.value("Array.from(document.querySelectorAll('td:first-child .text'), (t) => t.textContent).join('')")?;
    let shown: Value = serde_json::from_str(shown.as_str().unwrap())?;
    assert_ne!(shown["messageId"], event["messageId"], "a click is a new event");
    event["messageId"] = shown["messageId"].clone();
    assert_eq!(shown, event);
    let added = lines(&mut page, "added", "last")?;
    assert!(added.contains(&r#""event": "subscription_created","#.to_owned()), "{added:?}");
    assert!(added.contains(&format!(r#""userId": {},"#, event["customer"]["id"])), "{added:?}");
    assert!(page.text("td.origin + td")?.contains("\"event\":"));
    assert!(page.text("tr:has(+ tr td.origin) + tr + tr td.origin")?.contains("customer.id"));
    assert!(lines(&mut page, "left_out", "first")?.is_empty());
    let [event, call] = [lines(&mut page, "both", "first")?, lines(&mut page, "both", "last")?];
    assert_eq!((event[0].as_str(), call[0].as_str()), ("{", r#""properties": {"#));
    assert_eq!(event[1..], call[1..]);

    if let Some(file) = std::env::var_os("SCREENSHOT") {
        for event in [CATALOG_EVENT, r#"{"type":"#, EVENT] {
            run.send(event).await?;
        }
        Webhook::new(EVENT).send(run.url()?).await?;
        until_listed(&mut page, 5)?;
        page.screenshot(Path::new(&file))?;
    }
    assert_eq!(page.complaints()?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn a_webhook_can_be_delivered_again_with_its_message_id() -> Result<()> {
    const IDS: &str = "Array.from(document.querySelectorAll('td:first-child .text'), (t) => t.textContent).join('')";
    let (_run, mut page) = open(WIDE)?;
    page.until("document.querySelectorAll('#events button').length > 0")?;
    let mut shown = Vec::new();
    for (count, button) in (1..).zip(["#events button:nth-child(1)", ".again", "#events button:nth-child(1)"]) {
        page.click(button)?;
        until_listed(&mut page, count)?;
        // The details are those of the newest one.
        page.until(
            "document.querySelector('#list li[aria-selected=true]') === document.querySelectorAll('#list li')[0] && \
             document.querySelector('#detail .facts')?.textContent.includes(\
             document.querySelectorAll('#list li')[0].id.replace('webhook-', ''))",
        )?;
        let event: Value = serde_json::from_str(page.value(IDS)?.as_str().unwrap())?;
        shown.push(event["messageId"].clone());
    }
    assert_eq!(shown[0], shown[1], "the same delivery");
    assert_ne!(shown[0], shown[2], "a new event");
    Ok(())
}

#[tokio::test]
async fn every_webhook_is_listed_live_with_its_answer() -> Result<()> {
    let (run, mut page) = open(WIDE)?;
    assert!(page.text("#empty")?.contains("make send"));
    let unauthorized = async || Webhook::new(EVENT).send(run.url()?).await;
    let elsewhere = async || Webhook::new(EVENT).send(&format!("{}/else", run.url()?)).await;
    let by_envoy = async || Webhook::new(EVENT).send(&run.url()?.replace("/webhooks/", "/%2F/")).await;
    let answers: [(&str, Reply, [&str; 3]); 6] = [
        ("customer.updated", run.send(EVENT).await?, ["Forwarded", "200", "byte for byte"]),
        ("plan.created", run.send(CATALOG_EVENT).await?, ["Ignored", "204 · no_customer", "not about a customer"]),
        (
            "type not read",
            run.send("{\"type\":").await?,
            ["Rejected", "400 · malformed_json", "The answer above says why"],
        ),
        ("type not read", unauthorized().await?, ["Rejected", "401 · unauthorized", "The body was not read"]),
        ("type not read", elsewhere().await?, ["Rejected", "404 · not_found", "The answer above says why"]),
        ("type not read", by_envoy().await?, ["Rejected", "400 · path_normalization_failed", "The body was not read"]),
    ];
    for (number, (event_type, reply, [outcome, more, why])) in answers.into_iter().enumerate() {
        until_listed(&mut page, 6)?;
        let option = format!("#list li:nth-last-child({})", number + 1);
        assert_eq!(page.text(&format!("{option} .type"))?, event_type);
        assert_eq!(page.text(&format!("{option} .badge"))?, outcome);
        assert_eq!(page.text(&format!("{option} .more"))?, more);
        page.click(&option)?;
        page.until(&format!("document.querySelector('#detail .status')?.textContent.startsWith('{}')", reply.status))?;
        assert!(page.text(".summary")?.contains(why), "{}", page.text(".summary")?);
        let body: String = page.text("#detail .body")?.split_whitespace().collect();
        assert_eq!(body, reply.text().split_whitespace().collect::<String>());
    }
    assert_eq!(page.complaints()?, [""; 0]);

    run.signal(Signal::SIGINT)?;
    page.until("document.querySelector('#connection').textContent.includes('make run')")?;
    Ok(())
}

#[tokio::test]
async fn the_keyboard_is_enough() -> Result<()> {
    let (run, mut page) = open(WIDE)?;
    for number in 1..=3 {
        run.send(format!(r#"{{"type":"event.{number}"}}"#)).await?;
    }
    until_listed(&mut page, 3)?;
    page.until("document.querySelectorAll('#events button').length > 0")?;

    page.press(Key::Tab)?;
    assert_eq!(page.value("document.activeElement.parentElement.id")?, "about");
    page.press(Key::Enter)?;
    page.until("document.querySelector('#configuration').checkVisibility()")?;
    page.press(Key::Tab)?;
    assert_eq!(page.value("document.activeElement.id")?, "list");
    for (key, event_type) in [
        (Key::Down, "event.3"),
        (Key::Down, "event.2"),
        (Key::End, "event.1"),
        (Key::Up, "event.2"),
        (Key::Home, "event.3"),
    ] {
        page.press(key)?;
        until_shown(&mut page, event_type)?;
        assert_eq!(page.text(&format!("{CHOSEN} .type"))?, event_type);
        let told = page.value(
            "document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).ariaSelected",
        )?;
        assert_eq!(told, "true");
    }
    assert_ne!(page.value("getComputedStyle(document.activeElement).outlineStyle")?, "none");

    page.press(Key::Tab)?;
    assert_eq!(page.value("document.activeElement.labels[0].textContent")?, "Search test events");
    page.press(Key::Tab)?;
    page.until("document.activeElement.matches('#events button')")?;
    let first = page.value("document.activeElement.textContent")?;
    page.press(Key::Enter)?;
    until_shown(&mut page, first.as_str().unwrap())?;
    assert_eq!(page.value("document.activeElement.textContent")?, first);
    Ok(())
}

#[tokio::test]
async fn markup_in_an_event_is_shown_and_never_run() -> Result<()> {
    let (run, mut page) = open(WIDE)?;
    let markup = "<img src=x onerror=alert(1)><script>document.title='owned'</script>";
    let event =
        format!(r#"{{"type":"{markup}","n":123456789012345678901234567890,"f":1.0,"customer":{{"id":"{markup}"}}}}"#);
    run.send(event).await?;
    run.send(format!("{markup} is no JSON")).await?;
    until_listed(&mut page, 2)?;
    choose_first(&mut page, "type not read")?;
    assert_eq!(page.text("td .text")?, format!("{markup} is no JSON"));
    page.press(Key::End)?;
    page.click("#list li:last-child")?;
    page.until(&format!("document.querySelector('#detail-title').textContent.startsWith({})", json!(&markup[..20])))?;

    let shown = lines(&mut page, "both", "first")?;
    assert!(shown.contains(&r#""n": 123456789012345678901234567890,"#.to_owned()), "{shown:?}");
    assert!(shown.contains(&r#""f": 1.0,"#.to_owned()), "{shown:?}");
    assert_eq!(page.value("document.querySelectorAll('img, main script').length")?, 0);
    assert!(page.value("document.title")?.as_str().unwrap().starts_with("Debugger"));
    assert_eq!(page.complaints()?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn it_fits_a_phone_and_the_night() -> Result<()> {
    let (run, mut page) = open(PHONE)?;
    let long = "x".repeat(200);
    run.send(format!(r#"{{"type":"{long}","customer":{{"id":"{long}"}},"{long}":[[[[1]]]]}}"#)).await?;
    run.send(CATALOG_EVENT).await?;
    until_listed(&mut page, 2)?;
    let wider = "document.documentElement.scrollWidth > innerWidth";
    for (option, row) in [(FIRST, "tr.both td:first-child"), ("#list li:last-child", "tr.added td:last-child")] {
        page.click(option)?;
        page.until(&format!("document.querySelector('{row} .text')?.checkVisibility()"))?;
        assert_eq!(page.value(wider)?, false, "{option}");
        let place = "document.querySelector('#detail').getBoundingClientRect()";
        page.until(&format!("{place}.top < 1 || {place}.bottom <= innerHeight"))?;
    }

    // Fingers need room, and one thing above the other.
    page.until("document.querySelectorAll('#events button').length > 0")?;
    let targets = "#list li, #events button, #search, #about summary, .again";
    let small = format!(
        "[...document.querySelectorAll('{targets}')].filter((target) => target.getBoundingClientRect().height < 40)\
         .map((target) => target.outerHTML)"
    );
    assert_eq!(page.value(&small)?, json!([]));
    let parts = "[...document.querySelectorAll('main > *')].map((part) => part.getBoundingClientRect())";
    let apart = format!("{parts}.every((part, number, all) => number === 0 || part.top >= all[number - 1].bottom)");
    assert_eq!(page.value(&apart)?, true);
    assert!(!page.text("body")?.contains("side by side"));

    let mut colours = Vec::new();
    for scheme in ["light", "dark"] {
        page.prefer(scheme)?;
        let style = |property: &str| format!("getComputedStyle(document.body).{property}");
        colours.push([page.value(&style("color"))?, page.value(&style("backgroundColor"))?]);
        if let Some(file) = std::env::var_os("SCREENSHOT") {
            page.screenshot(&Path::new(&file).with_extension(format!("phone.{scheme}.png")))?;
            page.resize(WIDE)?;
            page.screenshot(&Path::new(&file).with_extension(format!("{scheme}.png")))?;
            page.resize(PHONE)?;
        }
    }
    assert_ne!(colours[0][0], colours[1][0]);
    assert_ne!(colours[0][1], colours[1][1]);
    assert_eq!(page.complaints()?, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn members_that_the_configuration_removes_are_marked() -> Result<()> {
    let config = tempfile::NamedTempFile::new()?;
    std::fs::write(&config, r#"{"properties":{"remove":["customer.email"]},"also":["identify"]}"#)?;
    let run = Run::start_with(&["--config", config.path().to_str().unwrap()])?;
    let mut page = Page::open(run.debugger()?, WIDE)?;
    assert_eq!(run.send(EVENT).await?.status, 200);
    until_listed(&mut page, 1)?;
    choose_first(&mut page, "customer.updated")?;
    assert_eq!(page.text(".summary")?, "Sent to /v1/batch; left out of properties: customer.email.");
    assert_eq!(lines(&mut page, "left_out", "first")?, [r#""email": "a@acme.example""#]);
    Ok(())
}

#[tokio::test]
async fn each_environment_has_a_route_and_a_secret_and_explains_its_calls_by_its_own_rules() -> Result<()> {
    let config = tempfile::NamedTempFile::new()?;
    let environments = json!({
        "user_id": [{ "path": "customer.id" }],
        "environments": {
            "/webhooks/production": { "webhook_secret": { "env": "PRODUCTION_SECRET" }, "write_key": { "env": "PRODUCTION_KEY" } },
            "/webhooks/staging": { "user_id": [{ "path": "customer.email" }], "also": ["identify"], "max_call_bytes": 40000 },
        },
    });
    std::fs::write(&config, environments.to_string())?;
    let file = config.path().to_str().unwrap();
    let run = Run::start_with(&["--config", file])?;
    let mut page = Page::open(run.debugger()?, WIDE)?;
    page.until("document.querySelectorAll('#events button').length > 0")?;

    // What runs is there to be seen, and secrets are not.
    assert_eq!(page.text("#file")?, file);
    assert!(page.text("#warnings li")?.contains("/webhooks/staging: max_call_bytes"), "{}", page.text("#warnings")?);
    assert!(!page.value("document.querySelector('#configuration').checkVisibility()")?.as_bool().unwrap());
    page.click("#about summary")?;
    page.until("document.querySelector('#configuration').checkVisibility()")?;
    let shown: Value = serde_json::from_str(&page.text("#configuration")?)?;
    assert_eq!(shown["environments"]["/webhooks/staging"], environments["environments"]["/webhooks/staging"]);
    assert_eq!(shown["environments"]["/webhooks/production"], json!({}));
    page.click("#about summary")?;

    let [production, staging] = ["production", "staging"].map(|name| format!("/webhooks/{name}"));
    assert!(run.url()?.ends_with(&production));
    let send = |page: &mut Page, name: &str| {
        let button = "[...document.querySelectorAll('#events button')].find((button) => button.textContent ===";
        page.value(&format!("{button} {}).click()", json!(name)))
    };
    for (number, (environment, path, user_id)) in
        [(&production, "/v1/track", "customer.id"), (&staging, "/v1/batch", "customer.email")].into_iter().enumerate()
    {
        page.value(&format!("document.querySelector('#environment').value = {}", json!(environment)))?;
        send(&mut page, "subscription.created")?;
        until_listed(&mut page, number + 1)?;
        page.until(&format!("document.querySelector('.summary')?.textContent.includes({})", json!(path)))?;
        assert_eq!(page.text(&format!("{FIRST} .more"))?, format!("200 · {environment}"));
        assert!(page.text("#detail .facts")?.contains(&format!("environment{environment}")));
        let origins = "Array.from(document.querySelectorAll('td.origin'), (cell) => cell.textContent).join('; ')";
        let origins = page.value(origins)?;
        assert!(origins.as_str().unwrap().contains(&format!("from {user_id}")), "{origins}");
    }
    page.value(&format!("document.querySelector('#environment').value = {}", json!(production)))?;
    page.click(".again")?;
    until_listed(&mut page, 3)?;
    assert_eq!(page.text(&format!("{FIRST} .more"))?, format!("200 · {staging}"), "where it came in first");

    // A reason too depends on the environment; so does the secret.
    page.value(&format!("document.querySelector('#environment').value = {}", json!(staging)))?;
    send(&mut page, "plan.created")?;
    until_shown(&mut page, "plan.created")?;
    assert_eq!(page.text(&format!("{FIRST} .more"))?, format!("204 · no_customer · {staging}"));
    assert!(page.text(".summary")?.contains("not about a customer"), "{}", page.text(".summary")?);
    let url = run.url()?.replace(&production, &staging);
    assert_eq!(Webhook::new(EVENT).secret(run.secret()?).send(&url).await?.status, 401);
    Ok(())
}

#[test]
fn test_events_are_found_by_any_part_of_their_names() -> Result<()> {
    let (_run, mut page) = open(WIDE)?;
    page.until("document.querySelectorAll('#events button').length > 0")?;
    let visible = |page: &mut Page, selector: &str| -> Result<usize> {
        let count =
            format!("[...document.querySelectorAll('{selector}')].filter((one) => one.checkVisibility()).length");
        Ok(serde_json::from_value(page.value(&count)?)?)
    };
    let all = visible(&mut page, "#events button")?;
    assert_eq!(visible(&mut page, "#to")?, 0, "there is one environment");
    for (wanted, is_found) in [(" SUBSCRIPTION.cre ", true), ("nothing like it", false), ("", true)] {
        page.value(&format!(
            "{{ const search = document.querySelector('#search');
                search.value = {};
                search.dispatchEvent(new Event('input')); }}",
            json!(wanted)
        ))?;
        let found = visible(&mut page, "#events button")?;
        assert_eq!((found > 0, found == all), (is_found, wanted.is_empty()), "{wanted}: {found} of {all}");
        assert_eq!(visible(&mut page, "#no-match")?, usize::from(!is_found), "{wanted}");
    }
    Ok(())
}

#[tokio::test]
async fn only_its_own_page_may_use_the_debugger_and_the_secret_does_not_show() -> Result<()> {
    let run = Run::start()?;
    let page = run.debugger()?;
    let own = page.strip_prefix("http://").unwrap();
    run.send(EVENT).await?;

    let button = format!("{page}/events/%2Fwebhooks%2Fstigg/plan.created");
    let send = |origin: &str| Webhook::new("").header("origin", origin).send(&button);
    for origin in ["http://elsewhere.example", "null", &format!("https://{own}"), &format!("http://{own}.example")] {
        assert_eq!(send(origin).await?.status, 403, "{origin}");
    }
    assert_eq!(Webhook::new("").send(&button).await?.status, 403);
    let reply = send(page).await?;
    assert_eq!((reply.status, reply.json()["status"].clone()), (200, json!(204)));

    let get = async |path: &str| Webhook::new("").method("GET".parse()?).send(&format!("{page}{path}")).await;
    let mut rebound = TcpStream::connect(own)?;
    rebound.write_all(b"GET / HTTP/1.1\r\nhost: elsewhere.example\r\nconnection: close\r\n\r\n")?;
    let mut rejected = String::new();
    rebound.read_to_string(&mut rejected)?;
    assert!(rejected.starts_with("HTTP/1.1 403"), "{rejected}");
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let webhook = format!("/webhooks/{id}");
    let secret = run.secret()?;
    for path in ["/", "/page.js", "/page.css", "/about", "/events", &webhook] {
        let mut reply = get(path).await?;
        while reply.status == 404 {
            reply = get(path).await?; // Envoy has not written its log yet
        }
        assert_eq!(reply.status, 200, "{path}");
        assert!(!reply.text().contains(secret), "{path}");
    }
    Ok(())
}
