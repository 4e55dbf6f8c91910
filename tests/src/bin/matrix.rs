//! `make test-matrix`: runs the tests that need Envoy on each of its versions, and writes a table of the results.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{VERSIONS, workspace_root};
use sandbox::generated::write_between;
use tests::skip::SKIPS_FILE;

/// The targets whose tests run on Envoy.
const TARGETS: [&str; 3] = ["deploy", "envoy", "ledger"];

fn main() -> Result<()> {
    let mut table = "| Envoy | tests passed | skipped | failed |\n| --- | --- | --- | --- |\n".to_owned();
    let mut failures = 0;
    for version in VERSIONS {
        eprintln!("Envoy {version}: {}", TARGETS.join(", "));
        ensure!(
            on(version, &workspace_root().join("tests/tools")).arg("envoy").status()?.success(),
            "cannot install Envoy {version}"
        );
        let mut cargo = on(version, "cargo".as_ref());
        cargo.args(["test", "--quiet", "--no-fail-fast", "--package", "tests"]);
        cargo.args(TARGETS.iter().flat_map(|target| ["--test", target]));
        let skips = tempfile::NamedTempFile::new()?;
        cargo.args(["--", "--format", "pretty"]).env(SKIPS_FILE, skips.path()).stderr(Stdio::inherit());
        let output = String::from_utf8(cargo.output().context("cannot run cargo")?.stdout)?;
        let tests = output.lines().filter(|line| line.starts_with("test ")).collect::<Vec<_>>();
        let ok = tests.iter().filter(|line| line.ends_with("... ok")).count();
        let failed: Vec<_> = tests.iter().filter(|line| line.ends_with("... FAILED")).collect();
        failed.iter().for_each(|line| eprintln!("{line}"));
        ensure!(!tests.is_empty(), "no test ran:\n{output}");
        let skips = fs::read_to_string(skips.path())?;
        let skipped: BTreeMap<&str, &str> = skips.lines().filter_map(|line| line.split_once(": ")).collect();
        let reasons = skipped.values().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        let why = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join("; ")) };
        let skipped = skipped.len();
        table += &format!("| {version} | {} | {skipped}{why} | {} |\n", ok - skipped, failed.len());
        failures += failed.len();
    }
    print!("{table}");
    write_between(&workspace_root().join("README.md"), "make test-matrix", &table)?;
    ensure!(failures == 0, "{failures} tests failed");
    Ok(())
}

/// A program that uses this version.
fn on(version: &str, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("ENVOY_VERSION", version).env_remove("ENVOY").current_dir(workspace_root());
    command
}
