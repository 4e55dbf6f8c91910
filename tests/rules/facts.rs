//! One fact has one value: the numbers, names and versions that several files state are the same in all of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Config, HTTP_CONNECTION_MANAGER, Shell, VERSIONS, loads, workspace_root};
use serde_json::{Map, Value};
use tests::outcome::{Outcome, map};

const ENVOY: &str = "envoy.yaml";
const EXISTING: &str = "deploy/existing-envoy.yaml";
const ISTIO: &str = "deploy/istio.yaml";
const GATEWAY: &str = "deploy/envoy-gateway.yaml";
const COMPOSE: &str = "deploy/compose.yaml";
const CHART: &str = "deploy/chart/values.yaml";
const POD: &str = "deploy/chart/templates/deployment.yaml";
const RATE_LIMIT: &str = "deploy/ratelimit.yaml";
const RUN_ENVOY: &str = "deploy/run-envoy";
const UNIT: &str = "deploy/stigg-envoy.service";
const ALERTS: &str = "deploy/alerts.yaml";
const DASHBOARD: &str = "deploy/dashboard.json";
const SCHEMA: &str = "configuration.schema.json";
const README: &str = "README.md";
const CONFIGURATION: &str = "docs/configuration.md";
const DEPLOYMENT: &str = "docs/deployment.md";
const DESIGN: &str = "docs/design.md";
const OPERATIONS: &str = "docs/operations.md";
const CHANGELOG: &str = "CHANGELOG.md";

/// A name, a value, and the places that state the value: a file, and the words around the number, which is the `…`.
type Fact = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

#[rustfmt::skip]
const NUMBERS: &[Fact] = &[
    ("Stigg gives up after", "30 s", &[
        (ENVOY, "Stigg gives up after …."),
        (ALERTS, "Stigg gives up after …\""),
        (DASHBOARD, "Stigg gives up after …\""),
        (ISTIO, "Stigg gives up after …, also"),
        (GATEWAY, "Stigg gives up after …, also"),
        (README, "an answer within its … |"),
        (DESIGN, "of Stigg's …, and only"),
    ]),
    ("deliveries by Stigg at once", "3", &[
        (OPERATIONS, "the event again: … times at once"),
        (DESIGN, "delivers the event … times at once"),
    ]),
    ("deliveries by Stigg later", "3", &[
        (OPERATIONS, "at once and … times"),
        (DESIGN, "at once and … times"),
    ]),
    ("time between later deliveries", "30 s", &[
        (OPERATIONS, "at once and three times … apart"),
        (DESIGN, "at once and three times … apart"),
    ]),
    ("timeout of all attempts", "25 s", &[
        (ENVOY, "timeout: … # all attempts together"),
        (EXISTING, "timeout: … # all attempts together"),
        (ISTIO, "timeout: … # all attempts together"),
        (GATEWAY, "timeouts: { request: … } # all attempts together"),
        (OPERATIONS, "times within …. Then Stigg"),
        (DESIGN, "within … of Stigg's"),
    ]),
    ("timeout of one attempt", "8 s", &[
        (ENVOY, "per_try_timeout: …"),
        (ENVOY, "if the next attempt then has its …."),
        (OPERATIONS, "the next attempt can take …"),
        (ISTIO, "perTryTimeout: …"),
        (GATEWAY, "perRetry: { timeout: …,"),
    ]),
    ("retries", "3", &[
        (ENVOY, "num_retries: …"),
        (ISTIO, "attempts: …"),
        (GATEWAY, "numRetries: …"),
        (OPERATIONS, "after a connection failure: … times"),
    ]),
    ("shortest back-off", "250 ms", &[
        (ENVOY, "retry_back_off: { base_interval: …,"),
        (ISTIO, "backoff: …"),
        (GATEWAY, "backOff: { baseInterval: …,"),
    ]),
    ("longest back-off", "3 s", &[
        (ENVOY, "max_interval: … } rate_limited_retry_back_off"),
        (GATEWAY, "maxInterval: … }"),
    ]),
    ("longest wait for Segment", "11 s", &[
        (ENVOY, "waits up to …, if"),
        (ENVOY, "X-RateLimit-Reset, format: SECONDS } ] max_interval: … - name"),
        (OPERATIONS, "Envoy waits for up to …. It adds"),
        (DEPLOYMENT, "up to … are waited for"),
    ]),
    ("time for the request to arrive", "10 s", &[
        (ENVOY, "request_timeout: … # until the whole request has arrived"),
        (ISTIO, "request_timeout: … # until the whole request has arrived"),
        (GATEWAY, "requestReceivedTimeout: …,"),
        (OPERATIONS, "the request did not arrive within … |"),
    ]),
    ("idle time of a request", "28 s", &[(ENVOY, "stream_idle_timeout: …"), (ISTIO, "stream_idle_timeout: …")]),
    ("time of a request with its answer", "28 s", &[
        (ENVOY, "max_stream_duration: … # from"),
        (EXISTING, "max_stream_duration: … }"),
        (ISTIO, "max_stream_duration: …"),
        (GATEWAY, "maxStreamDuration: …"),
        (RUN_ENVOY, "a request takes at most …)"),
        (OPERATIONS, "ends within …, also if"),
        (DEPLOYMENT, "Envoy answers within …"),
    ]),
    ("idle time of a connection from Stigg", "75 s", &[
        (ENVOY, "idle_timeout: … max_connection_duration"),
        (GATEWAY, "idleTimeout: … }"),
        (OPERATIONS, "may stay idle for …, because"),
    ]),
    ("headers of a request", "64", &[
        (ENVOY, "max_headers_count: …"),
        (OPERATIONS, "more than … headers,"),
    ]),
    ("KiB of headers", "16", &[
        (ENVOY, "max_request_headers_kb: …"),
        (OPERATIONS, "or more than … KiB of them"),
    ]),
    ("connections to the listener", "8,000", &[
        (ENVOY, "listener.webhooks.connection_limit: …"),
        (OPERATIONS, "The listener takes … connections"),
    ]),
    ("time for a connection to send", "5 s", &[
        (ENVOY, "listener_filters_timeout: … filter_chains"),
        (ENVOY, "request_headers_timeout: … request_timeout"),
        (ISTIO, "request_headers_timeout: … request_timeout"),
        (OPERATIONS, "a request within … is closed"),
    ]),
    ("idle time of a connection to Segment", "50 s", &[
        (ENVOY, "common_http_protocol_options: { idle_timeout: …,"),
        (ISTIO, "idleTimeout: …,"),
        (GATEWAY, "connectionIdleTimeout: …"),
    ]),
    ("connect timeout", "3 s", &[
        (ENVOY, "connect_timeout: … per_connection_buffer_limit_bytes"),
        (ISTIO, "connectTimeout: …,"),
        (GATEWAY, "connectTimeout: …"),
    ]),
    ("circuit breaker: connections", "256", &[
        (ENVOY, "max_connections: …"),
        (ISTIO, "maxConnections: …"),
        (GATEWAY, "maxConnections: …,"),
    ]),
    ("circuit breaker: pending requests", "1024", &[
        (ENVOY, "max_pending_requests: …"),
        (ISTIO, "http1MaxPendingRequests: …,"),
        (GATEWAY, "maxPendingRequests: …,"),
    ]),
    ("circuit breaker: requests", "1024", &[
        (ENVOY, "max_requests: …"),
        (ISTIO, "http2MaxRequests: …"),
        (GATEWAY, "maxParallelRequests: …"),
    ]),
    ("ejection: 5xx in a row", "20", &[
        (ENVOY, "consecutive_5xx: …"),
        (ISTIO, "consecutive5xxErrors: …"),
    ]),
    ("ejection: gateway failures in a row", "20", &[
        (ENVOY, "consecutive_gateway_failure: …"),
        (ISTIO, "consecutiveGatewayErrors: …"),
    ]),
    ("ejection: interval", "5 s", &[
        (ENVOY, "interval: … base_ejection_time"),
        (ISTIO, "interval: … baseEjectionTime"),
    ]),
    ("ejection: shortest time", "10 s", &[
        (ENVOY, "base_ejection_time: …"),
        (ISTIO, "baseEjectionTime: …"),
    ]),
    ("ejection: percent of the addresses", "50", &[
        (ENVOY, "max_ejection_percent: …"),
        (ISTIO, "maxEjectionPercent: …"),
    ]),
    ("Envoy's limit of a body", "1 MiB", &[
        (ENVOY, "request_body_buffer_limit: &body_limit …"),
        (ISTIO, "max_request_bytes: …"),
        (GATEWAY, "requestBuffer: { limit: … }"),
    ]),
    ("limit of a call", "32 KiB", &[
        (SCHEMA, "The default is Segment's limit for a call.\", \"type\": \"integer\", \"minimum\": 1, \"maximum\": 1073741824, \"default\": …"),
        (CONFIGURATION, "[`max_call_bytes`](#limits) | `…` |"),
        (CONFIGURATION, "The default of … is Segment's limit"),
        (OPERATIONS, "the default is Segment's limit, … |"),
        (OPERATIONS, "cannot read or that is over …."),
    ]),
    ("webhooks per second", "1,000", &[
        (ENVOY, "tokens_per_fill: …,"),
        (ENVOY, "Segment advises at most … requests a second"),
        (CHART, "perSecond: …"),
        (CHART, "Segment advises at most … requests a second"),
        (RATE_LIMIT, "requests_per_unit: …"),
        (RATE_LIMIT, "Segment advises at most … requests a second"),
        ("deploy/chart/templates/_helpers.tpl", "tokens_per_fill: …, fill_interval: 1s }\" $bucket"),
        (DEPLOYMENT, "limit of … webhooks a second"),
        (OPERATIONS, "accepts … webhooks a second"),
        (OPERATIONS, "maps far more than … events a second"),
    ]),
    ("webhooks at once", "2,000", &[
        (ENVOY, "max_tokens: …,"),
        (OPERATIONS, "with bursts of …;"),
    ]),
    ("largest heap of Envoy", "1 GiB", &[(ENVOY, "max_heap_size_bytes: …")]),
    ("memory of a container", "1536 MiB", &[
        (COMPOSE, "mem_limit: …"),
        (CHART, "limits: { memory: … }"),
        (UNIT, "MemoryMax=…"),
    ]),
    ("longest drain", "30 s", &[
        (RUN_ENVOY, "${DRAIN_SECONDS:=…}"),
        (RUN_ENVOY, "the longest wait (default …;"),
        (UNIT, "run-envoy waits up to … for"),
        (COMPOSE, "run-envoy waits up to … for"),
        (POD, "preStop and run-envoy's … together"),
        (OPERATIONS, "Allow it …."),
    ]),
    ("time for Envoy to end", "5 s", &[
        (RUN_ENVOY, "Envoy has … to end"),
        (UNIT, "then up to … for Envoy"),
        (OPERATIONS, "Envoy has … to end"),
    ]),
    ("fewest replicas", "2", &[
        (CHART, "between them (docs/operations.md#scale). replicas: …"),
        (CHART, "minReplicas: …"),
        (ISTIO, "replicas: …"),
        (GATEWAY, "minReplicas: …"),
    ]),
    ("most replicas", "10", &[
        (CHART, "maxReplicas: …"),
        (GATEWAY, "maxReplicas: …"),
    ]),
    ("percent of CPU that adds a replica", "60", &[
        (CHART, "targetCPUUtilizationPercentage: …"),
        (GATEWAY, "averageUtilization: …"),
    ]),
    ("longest messageId", "100", &[
        (README, "the result is over … characters"),
        ("src/envelope.rs", "MESSAGE_ID_MAX: usize = …"),
        ("benches/yardsticks/filter.lua", "MESSAGE_ID_MAX = …"),
    ]),
    ("port for webhooks", "10,000", &[
        (ENVOY, "address: 0.0.0.0, port_value: …"),
        (ENVOY, "address: \"::\", port_value: …,"),
        (DEPLOYMENT, "server 127.0.0.1:…;"),
        ("sandbox/src/commands/send.rs", "\"http://127.0.0.1:…{path}\""),
    ]),
];

/// The names of two numbers, of which the first must be below the second.
const ORDER: &[(&str, &str)] = &[
    ("shortest back-off", "longest back-off"),
    ("timeout of one attempt", "timeout of all attempts"),
    ("longest wait for Segment", "timeout of all attempts"),
    ("timeout of all attempts", "idle time of a request"),
    ("idle time of a request", "Stigg gives up after"),
    ("timeout of all attempts", "time of a request with its answer"),
    ("time of a request with its answer", "Stigg gives up after"),
    ("time of a request with its answer", "longest drain"),
    ("limit of a call", "Envoy's limit of a body"),
    ("webhooks per second", "webhooks at once"),
    ("largest heap of Envoy", "memory of a container"),
    ("fewest replicas", "most replicas"),
];

#[rustfmt::skip]
const VERSIONS_OF_ENVOY: &[Fact] = &[
    ("Envoy that exports to OpenTelemetry", "1.37", &[
        (ENVOY, "cluster `telemetry`. Needs Envoy …. node:"),
        ("tests/telemetry/main.rs", "is_too_old((…), \"exporters to OpenTelemetry\")"),
    ]),
    ("oldest Envoy", VERSIONS[0], &[(CHANGELOG, "for Envoy … and later")]),
    ("Envoy that reads secrets from files", "1.39", &[
        (ENVOY, "Needs Envoy … for secrets from files"),
        (CONFIGURATION, "variant of `envoy.yaml`; Envoy … or later"),
        (CHANGELOG, "while Envoy runs (Envoy …)"),
        ("tests/src/edge.rs", "is_too_old((…), \"secrets from files\")"),
    ]),
];

/// The statuses after which a call is sent again. Istio and Envoy Gateway list single ones.
#[rustfmt::skip]
const RETRIED: &[Fact] = &[
    ("retried by envoy.yaml", "408, 410, 429, 460, 5xx except 501, 505, 511", &[
        (ENVOY, "safe_regex: { regex: \"(…) ([01]"),
        (ENVOY, "retriable_headers: # … - {"),
        (DEPLOYMENT, "a call is sent again after | … |"),
        (OPERATIONS, "Envoy sends a call again after …, and after"),
    ]),
    ("retried by Istio", "408, 410, 429, 500, 502, 503, 504, 506, 507, 508, 510", &[
        (ISTIO, "retryOn: connect-failure,refused-stream,reset,…"),
        (DEPLOYMENT, "501, 505, 511 | … |"),
    ]),
    ("retried by Envoy Gateway", "408, 410, 429, 460, 500, 502, 503, 504, 506, 507, 508, 510", &[
        (GATEWAY, "httpStatusCodes: [ … ]"),
        (DEPLOYMENT, "508, 510 | … |"),
    ]),
];

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(workspace_root().join(file)).with_context(|| file.to_owned())
}

/// A text without line breaks, without the sign that continues a comment, and with single spaces.
fn on_one_line(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("# "));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

/// What stands for the `…` of `place` in `file`, in the one place that reads like this.
fn stated(file: &str, place: &str) -> Result<String> {
    let text = on_one_line(&read(file)?);
    let (before, after) = place.split_once('…').context("no … in the place")?;
    let starts_word = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let found = text.match_indices(before).filter(|(at, _)| starts_word(*at)).filter_map(|(at, _)| {
        let rest = text[at + before.len()..].trim_start();
        let value = match after {
            "" => rest.split([' ', ';', '}']).next()?,
            _ => &rest[..rest.find(after.trim_start())?],
        };
        // What goes on too long does not end as the place says.
        Some(value.trim()).filter(|value| !value.is_empty() && value.len() < 70)
    });
    let found: Vec<_> = found.collect();
    ensure!(found.len() == 1, "{file} says {} times: {place}", found.len());
    Ok(found[0].to_owned())
}

/// A number with its unit, in seconds or bytes if it has one, or a number in words.
fn number(text: &str) -> Option<f64> {
    const WORDS: [&str; 10] = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];
    if let Some(less_one) = WORDS.iter().position(|word| *word == text) {
        return Some(less_one as f64 + 1.0);
    }
    let text = text.trim().replace(',', "");
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let scale = match unit.trim() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "Ki" | "KiB" => 1024.0,
        "m" | "M" | "Mi" | "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * scale)
}

/// The major and minor version that a text means: `1.36.4` or `1, 36`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(['.', ',']).map(|number| number.trim().parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The statuses that a list means: `408, 5xx except 501`, or a regular expression of alternatives.
fn statuses(text: &str) -> Option<BTreeSet<u16>> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"[]-".contains(c));
    let (mut statuses, mut except) = (BTreeSet::new(), false);
    for word in words.filter(|word| !word.is_empty() && *word != "and") {
        if word == "except" {
            except = true;
            continue;
        }
        let meant: Vec<_> = (100..600).filter(|status: &u16| is_like(&status.to_string(), word)).collect();
        if meant.is_empty() {
            return None;
        }
        for status in meant {
            if except {
                statuses.remove(&status)
            } else {
                statuses.insert(status)
            };
        }
    }
    Some(statuses)
}

/// Whether digits match a pattern of digits, `x` for any, and classes such as `[02-46-9]`.
fn is_like(digits: &str, pattern: &str) -> bool {
    let Some(digit) = digits.chars().next() else { return pattern.is_empty() };
    let (matches, rest) = match pattern.strip_prefix('[').and_then(|class| class.split_once(']')) {
        Some((class, rest)) => {
            let class: Vec<_> = class.chars().collect();
            let in_range = class.windows(3).any(|w| w[1] == '-' && (w[0]..=w[2]).contains(&digit));
            (in_range || class.contains(&digit), rest)
        }
        None => match pattern.chars().next() {
            Some(own) => (own == 'x' || own == digit, &pattern[1..]),
            None => return false,
        },
    };
    matches && is_like(&digits[1..], rest)
}

/// Fails with every fact on which places differ: the places that state something else, and the first that does not.
fn assert_same_everywhere<T: PartialEq>(facts: &[Fact], read: fn(&str) -> Option<T>) {
    let mut differences = Vec::new();
    for (name, value, places) in facts {
        let meant = read(value);
        assert!(meant.is_some(), "{name}: this table says {value}, which cannot be read");
        let (mut same, mut other) = (format!("this table says {value}"), Vec::new());
        for (file, place) in places.iter().rev() {
            match stated(file, place) {
                Err(error) => other.push(format!("{error:#}")),
                Ok(stated) => {
                    let says = format!("{file} says `{}`", place.replace('…', &stated));
                    if read(&stated) == meant { same = says } else { other.push(says) }
                }
            }
        }
        if !other.is_empty() {
            differences.push(format!("{name}: {same}, but {}", other.join(" and ")));
        }
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn each_number_is_the_same_in_every_file() {
    assert_same_everywhere(NUMBERS, number);
}

#[test]
fn the_numbers_are_in_order() {
    for (smaller, larger) in ORDER {
        let [small, large] = [smaller, larger].map(|name| {
            let (_, value, _) = NUMBERS.iter().find(|(known, ..)| known == name).unwrap();
            number(value).unwrap()
        });
        assert!(small < large, "{smaller} is {small}, and {larger} is {large}");
    }
}

#[test]
fn each_version_of_envoy_is_the_same_in_every_file() {
    assert_same_everywhere(VERSIONS_OF_ENVOY, version);
}

#[test]
fn the_table_has_every_gateway_that_sends_to_segment() -> Result<()> {
    let (_, _, places) = NUMBERS.iter().find(|(name, ..)| *name == "timeout of all attempts").unwrap();
    for entry in std::fs::read_dir(workspace_root().join("deploy"))?.filter_map(Result::ok) {
        let file = format!("deploy/{}", entry.file_name().to_str().unwrap());
        let names_segment = |text: String| ["api.segment.io", "segmentapis.com"].iter().any(|host| text.contains(host));
        if entry.path().is_file() && names_segment(read(&file)?) {
            assert!(places.iter().any(|(known, _)| *known == file), "add {file} to NUMBERS in tests/rules/facts.rs");
        }
    }
    Ok(())
}

/// A call is sent again only if its next attempt has all its time within the route's, however long Envoy waits before. So
/// no answer of Segment gives way to Envoy's 504, unless a later attempt has none.
#[test]
fn a_retry_has_time_for_a_whole_attempt() -> Result<()> {
    let of = |name| NUMBERS.iter().find(|(known, ..)| *known == name).and_then(|(_, value, _)| number(value)).unwrap();
    let [whole, attempt, longest, retries, shortest] = [
        "timeout of all attempts",
        "timeout of one attempt",
        "longest wait for Segment",
        "retries",
        "shortest back-off",
    ]
    .map(of);
    let yaml = read(ENVOY)?;
    let (_, regex) = yaml.split_once("safe_regex: { regex: \"").context("no regex")?;
    let (regex, _) = regex.split_once('"').context("no end")?;
    let is_retried = regex::Regex::new(&format!("^(?:{regex})$"))?;
    let latest = |wait: &str| {
        let mut allowed = (0..30_000).filter(|elapsed| is_retried.is_match(&format!("429 {wait} {elapsed}")));
        allowed.next_back().map(|elapsed| f64::from(elapsed) / 1000.0)
    };
    // The longest of Envoy's usual pauses.
    let back_off = shortest * (retries.exp2() - 1.0);
    assert!(latest("").context("never")? + back_off + attempt <= whole);
    for wait in 0..100 {
        let latest = latest(&wait.to_string());
        assert_eq!(latest.is_some(), f64::from(wait) <= longest, "a wait of {wait} s");
        // Envoy adds up to half of it.
        let pause = f64::max(1.5 * f64::from(wait), back_off);
        assert!(latest.is_none_or(|latest| latest + pause + attempt <= whole), "{wait} s after {latest:?} s");
    }
    for unreadable in ["429 Wed, 21 Oct 2026 07:28:00 GMT 5", "429 -1 5", "429 1.5 5", "400  5", "429  15000"] {
        assert!(!is_retried.is_match(unreadable), "{unreadable}");
    }
    assert!(["429  14999", "429 3 11999", "429 11 0"].iter().all(|answer| is_retried.is_match(answer)));
    Ok(())
}

#[test]
fn each_list_of_retried_statuses_is_the_same_in_every_file() {
    assert_same_everywhere(RETRIED, statuses);
}

#[test]
fn numbers_and_statuses_are_read_as_they_are_meant() {
    for (text, value) in [("25s", 25.0), ("0.25s", 0.25), ("250ms", 0.25), ("1,000", 1000.0), ("1Mi", 1_048_576.0)] {
        assert_eq!(number(text), Some(value), "{text}");
    }
    assert_eq!((number("four"), number("soon")), (Some(4.0), None));
    assert_eq!((version("1.36.4"), version("1, 36"), version("1")), (Some((1, 36)), Some((1, 36)), None));
    assert_eq!(statuses("50[02-3]|460"), Some([460, 500, 502, 503].into()));
    assert_eq!(statuses("5xx except 501").map(|statuses| statuses.len()), Some(99));
    assert_eq!(statuses("429 or so"), None);
}

#[test]
fn the_readme_has_a_row_for_every_version_of_envoy() -> Result<()> {
    let readme = read(README)?;
    let (_, table) = readme.split_once("| Envoy | Wasm module | dynamic module |").context("the table is gone")?;
    let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
    let rows: Vec<_> = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>()).collect();
    let versions: Vec<_> = rows.iter().map(|row| row[1]).collect();
    assert_eq!(versions, VERSIONS, "the table of README.md is not of these versions: run `make test-matrix`");
    for (column, shell) in [(2, Shell::Wasm), (3, Shell::Native)] {
        // All rows are of the same tests: passed, skipped (with the reasons) and failed.
        let tests = |row: &Vec<&str>| -> u32 {
            let counts = row[column].split(':').next().unwrap_or_default().split(", ");
            counts.filter_map(|count| count.split(' ').next()?.parse::<u32>().ok()).sum()
        };
        let sums: BTreeSet<_> = rows.iter().filter(|row| loads(row[1], shell)).map(tests).collect();
        let remedy = "run `make test-matrix`";
        assert!(sums.len() == 1 && !sums.contains(&0), "{shell:?}: {sums:?} tests in the rows of README.md: {remedy}");
        let others = rows.iter().filter(|row| !loads(row[1], shell)).map(|row| row[column]);
        assert!(others.clone().all(|cell| cell == "does not load it"), "{:?}", others.collect::<Vec<_>>());
    }
    Ok(())
}

/// `cases` is also compiled into a package that does not depend on the sandbox, so it states the path itself.
#[test]
fn the_table_of_cases_uses_the_path_that_the_sandbox_sends_to() {
    assert_eq!(tests::cases::PATH, sandbox::stigg::PATH);
}

/// What the default mapping makes of an event, without what every call has.
fn expectation(event: &Value) -> String {
    let Outcome::Call(call) = map(event.to_string()) else { return "null".to_owned() };
    let mut call: Map<String, Value> = serde_json::from_slice(&call).unwrap();
    call.retain(|member, _| !["context", "properties"].contains(&member.as_str()));
    format!("{:#}", Value::from(call))
}

#[test]
fn each_fixture_is_named_after_its_type() -> Result<()> {
    let (mut fixtures, mut longest) = (0, 0);
    for entry in std::fs::read_dir(workspace_root().join("tests/fixtures"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(kind) = name.strip_suffix(".json").filter(|name| !name.ends_with(".track")) else { continue };
        let event: Value = serde_json::from_slice(&std::fs::read(&path)?).with_context(|| name.to_owned())?;
        assert_eq!(event["type"], kind, "the file tests/fixtures/{name} must have its event's type as its name");
        assert!(
            path.with_extension("track.json").exists(),
            "write tests/fixtures/{kind}.track.json; as the mapping is now, the text is\n{}",
            expectation(&event)
        );
        fixtures += 1;
        longest = longest.max(kind.len());
    }
    assert!(fixtures > 30, "the fixtures are gone");
    assert_eq!(stated("src/filter.rs", "Stigg's longest has ….")?, longest.to_string());
    Ok(())
}

/// The names of the members that a schema knows, at any depth, each as JSON text with its colon, and the texts it names.
fn words(schema: &Value, words: &mut BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("properties", Value::Object(members)) => {
                        words.extend(members.keys().map(|name| format!("\"{name}\":")));
                        members.values().for_each(|member| self::words(member, words));
                    }
                    ("enum", Value::Array(texts)) => words.extend(texts.iter().map(Value::to_string)),
                    ("const", text) => drop(words.insert(text.to_string())),
                    _ => self::words(value, words),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| self::words(value, words)),
        _ => {}
    }
}

#[test]
fn the_fuzz_dictionary_has_every_field_of_the_configuration() -> Result<()> {
    let mut expected = BTreeSet::new();
    words(&serde_json::from_str(&read(SCHEMA)?)?, &mut expected);
    assert!(expected.len() > 20, "{expected:?}");
    let dictionary = read("fuzz/dictionaries/configuration.dict")?.replace("\\\"", "\"");
    for word in &expected {
        assert!(
            dictionary.contains(word.as_str()),
            "{word} is missing in fuzz/dictionaries/configuration.dict: add it"
        );
    }
    // And no field that is gone.
    for line in dictionary.lines().filter(|line| line.ends_with("\":\"") && line.len() > 5) {
        let field = line.trim_matches(['"', '{', ':']);
        assert!(
            expected.contains(&format!("\"{field}\":")),
            "fuzz/dictionaries/configuration.dict has {field}, which is no field: remove it"
        );
    }
    Ok(())
}

#[test]
fn a_collector_is_told_the_same_of_a_webhook_as_the_log() -> Result<()> {
    let config = Config::from_yaml(&read(ENVOY)?.replace("#otlp ", ""))?;
    let log =
        |at: &str| Ok::<_, anyhow::Error>(config.get(&format!("{HTTP_CONNECTION_MANAGER}/access_log/{at}"))?.clone());
    let Value::Object(mut fields) = log("0/typed_config/log_format/json_format")? else { panic!("no fields") };
    fields.remove("time").context("no time")?; // the record has its own
    let attributes = log("1/typed_config/attributes/values")?;
    let pair =
        |pair: &Value| (pair["key"].as_str().unwrap_or_default().to_owned(), pair["value"]["string_value"].clone());
    let attributes: serde_json::Map<_, _> = attributes.as_array().context("no list")?.iter().map(pair).collect();
    assert_eq!(attributes, fields);
    assert_eq!(log("1/filter")?, log("0/filter")?);
    Ok(())
}

#[test]
fn a_page_names_every_file_of_deploy() -> Result<()> {
    let pages = [read(DEPLOYMENT)?, read(OPERATIONS)?].concat();
    for entry in std::fs::read_dir(workspace_root().join("deploy"))? {
        let name = entry?.file_name().into_string().unwrap();
        assert!(
            pages.contains(&format!("deploy/{name}")),
            "deploy/{name} is named neither in {DEPLOYMENT} nor in {OPERATIONS}: say what it is for"
        );
    }
    Ok(())
}
