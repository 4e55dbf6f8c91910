//! Compares the mapping with an independent reference, on thousands of generated documents.
//!
//! Inputs that fuzzing finds (`make fuzz`) are kept in `tests/regressions/` and tried here again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tests::fixtures::{Fixture, fixtures};
use tests::reference::documents::Generator;
use tests::reference::places::compare_placed;
use tests::reference::trimmed::compare_trimmed;
use tests::reference::{Outcome, compare, compare_redacted, configuration};

/// Prints which document it was when a check panics.
struct Trying<'a>(&'a str, &'a dyn std::fmt::Display);

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the document was made by {} from {}", self.0, self.1);
        }
    }
}

/// Checks the documents that `make` generates for the seeds below `seeds`.
fn try_seeds(what: &str, seeds: u64, make: impl Fn(&mut Generator) -> Vec<u8>, mut check: impl FnMut(&[u8])) {
    for seed in 0..seeds {
        let _trying = Trying(what, &format!("seed {seed}"));
        check(&make(&mut Generator::new(seed)));
    }
}

fn try_files(folder: &str, mut check: impl FnMut(&[u8])) {
    for file in files(folder) {
        let _trying = Trying(folder, &file.display());
        check(&std::fs::read(&file).unwrap());
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The kind of an outcome, as one word.
fn kind(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Call(_) => "call",
        Outcome::Ignored(reason) => reason,
        Outcome::Rejected(code) => code,
    }
}

#[test]
fn generated_events_are_mapped_as_by_the_reference() {
    let seeds = 10_000;
    let mut kinds = BTreeMap::new();
    try_seeds("event", seeds, Generator::event, |body| *kinds.entry(kind(compare(body))).or_insert(0) += 1);
    // Otherwise the generator is broken, and little was compared.
    for kind in ["call", "no_customer", "customer_elsewhere", "invalid_customer_id", "invalid_type", "malformed_json"] {
        assert!(kinds.get(kind).is_some_and(|times| times * 100 > seeds), "{kinds:?}");
    }
}

#[test]
fn generated_events_are_redacted_as_by_the_reference() {
    try_seeds("event", 1_000, Generator::event, compare_redacted);
}

#[test]
fn generated_events_are_placed_as_by_the_reference() {
    try_seeds("event", 2_000, Generator::event, compare_placed);
}

#[test]
fn generated_events_are_trimmed_as_by_the_reference() {
    try_seeds("event", 2_000, Generator::event, compare_trimmed);
}

#[test]
fn fixtures_are_mapped_as_by_the_reference_whole_and_mutated() {
    for Fixture { name, event, .. } in fixtures().unwrap() {
        let body = event.as_bytes();
        {
            let _trying = Trying("fixtures", &name);
            every_way(body);
        }
        try_seeds(&format!("mutation of {name}"), 10, |generator| generator.mutate(body), every_way);
    }
}

fn every_way(body: &[u8]) {
    compare(body);
    compare_redacted(body);
    compare_placed(body);
    compare_trimmed(body);
}

#[test]
fn no_message_has_a_secret_or_two_lines() {
    let seeds = 5_000;
    let mut right = 0;
    try_seeds("configuration", seeds, Generator::configuration, |json| right += u64::from(configuration::check(json)));
    assert!((seeds / 20..seeds / 2).contains(&right), "{right} of {seeds}");
}

#[test]
fn bugs_that_fuzzing_found_stay_fixed() {
    try_files("regressions/mapping", every_way);
    try_files("regressions/configuration", |json| {
        configuration::check(json);
    });
}
