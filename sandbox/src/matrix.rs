//! `make test-matrix`: the tests that run on Envoy, on each version of it, and a table of what came of them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{SKIPPED, VERSIONS, workspace_root};

/// What stands around the table in the README.
const MARKS: [&str; 2] = ["<!-- make test-matrix -->\n", "<!-- /make test-matrix -->\n"];

/// Runs the tests on each version and writes the table into the README.
pub fn run() -> Result<()> {
    let tests = tests_on_envoy()?;
    let mut table = "| Envoy | tests passed | skipped | failed |\n| --- | --- | --- | --- |\n".to_owned();
    let mut failures = 0;
    for version in VERSIONS {
        eprintln!("Envoy {version}: {}", tests.join(", "));
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--quiet", "--no-fail-fast"]);
        cargo.args(tests.iter().flat_map(|test| ["--test", test]));
        cargo.args(["--", "--show-output", "--format", "pretty"]);
        cargo.env("ENVOY_VERSION", version).env_remove("ENVOY").current_dir(workspace_root()).stderr(Stdio::inherit());
        let output = String::from_utf8(cargo.output().context("cannot run cargo")?.stdout)?;
        let tests = output.lines().filter(|line| line.starts_with("test ")).collect::<Vec<_>>();
        let ok = tests.iter().filter(|line| line.ends_with("... ok")).count();
        let failed: Vec<_> = tests.iter().filter(|line| line.ends_with("... FAILED")).collect();
        failed.iter().for_each(|line| eprintln!("{line}"));
        let mut reasons: Vec<&str> = output.lines().filter_map(|line| line.strip_prefix(SKIPPED)).collect();
        let skipped = reasons.len();
        reasons.sort_unstable();
        reasons.dedup();
        ensure!(!tests.is_empty(), "no test ran:\n{output}");
        let why = if skipped == 0 { String::new() } else { format!(": {}", reasons.join("; ")) };
        table += &format!("| {version} | {} | {skipped}{why} | {} |\n", ok - skipped, failed.len());
        failures += failed.len();
    }
    print!("{table}");
    write_into(&workspace_root().join("README.md"), &table)?;
    ensure!(failures == 0, "{failures} tests failed");
    Ok(())
}

/// The names of the test files that start an Envoy.
fn tests_on_envoy() -> Result<Vec<String>> {
    let mut tests = Vec::new();
    for entry in fs::read_dir(workspace_root().join("tests"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && fs::read_to_string(&path)?.contains("\nmod edge;\n")
        {
            tests.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    tests.sort();
    Ok(tests)
}

fn write_into(file: &Path, table: &str) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let [start, end] = MARKS;
    let (before, rest) = text.split_once(start).with_context(|| format!("no {start} in {}", file.display()))?;
    let (_, after) = rest.split_once(end).with_context(|| format!("no {end} in {}", file.display()))?;
    Ok(fs::write(file, [before, start, table, end, after].concat())?)
}
