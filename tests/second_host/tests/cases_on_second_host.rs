//! The table of cases on every kind of host.

use std::sync::LazyLock;

use anyhow::Result;
use second_host::cases::{ENVIRONMENT, cases, configuration};
use second_host::fixtures::repository;
use second_host::fresh::fresh;
use second_host::gateway::{Gateway, Kind, Program};

static FILTER: LazyLock<Program> = LazyLock::new(|| {
    let repository = repository().unwrap();
    let path = repository.join("target/wasm32-wasip1/release/stigg_segment.wasm");
    fresh(&repository, &path).unwrap();
    Program::new(&std::fs::read(&path).unwrap()).unwrap()
});

fn start(kind: Kind) -> Result<Gateway> {
    FILTER.start(kind, &configuration(kind.holds_headers).to_string(), &ENVIRONMENT)
}

#[test]
fn the_cases_hold_on_every_kind_of_host() -> Result<()> {
    let mut failures = Vec::new();
    for kind in Kind::all() {
        let mut gateway = start(kind)?;
        for case in cases()? {
            let outcome = gateway.serve(&case.request, case.segment_answers);
            if let Err(error) = outcome.and_then(|outcome| case.check(&outcome)) {
                failures.push(format!("{kind:?}: {}: {error:#}", case.name));
            }
        }
        let log = gateway.log();
        assert!(log.iter().all(|line| line.starts_with("Info: every path: the ids of calls start")), "{log:?}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
    Ok(())
}

#[test]
fn outcomes_are_counted_on_hosts_with_metrics() -> Result<()> {
    for kind in Kind::all() {
        let mut gateway = start(kind)?;
        let (mut forwarded, mut rejected) = (0, 0);
        for case in cases()? {
            let outcome = gateway.serve(&case.request, case.segment_answers)?;
            forwarded += u64::from(outcome.call.is_some());
            rejected += u64::from(outcome.status == 401);
        }
        let counted = |name: &str| gateway.metric(&format!("stigg_segment.{name}"));
        let expected = |count| kind.has_extras.then_some(count);
        assert_eq!(counted("webhooks.outcome.forwarded"), expected(forwarded));
        assert_eq!(counted("webhooks.outcome.rejected.reason.unauthorized"), expected(rejected));
    }
    Ok(())
}

#[test]
fn a_wrong_configuration_is_rejected_with_a_line_that_names_the_field() {
    for kind in Kind::all() {
        for (configuration, environment, line) in [
            (r#"{"wirte_key":1}"#, &ENVIRONMENT[..], "wirte_key: unknown field"),
            (r#"{"max_body_bytes":0}"#, &ENVIRONMENT, "max_body_bytes: expected a number of bytes, at least 1"),
            ("no JSON", &ENVIRONMENT, "the configuration: expected a JSON object"),
            ("", &[], "write_key: the environment variable SEGMENT_WRITE_KEY is not set"),
        ] {
            let error = FILTER.start(kind, configuration, environment).err().unwrap().to_string();
            assert!(error.starts_with("at the start: Error: ") && error.contains(line), "{error}");
        }
    }
}
