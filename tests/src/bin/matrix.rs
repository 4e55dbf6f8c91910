//! `make test-matrix`: runs the tests that need Envoy on each of its versions, and writes a table of the results.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{ENVOY_VERSION, VERSIONS, workspace_root};
use sandbox::generated::write_between;
use tests::skip::SKIPS_FILE;

/// The targets whose tests run on Envoy.
const TARGETS: [&str; 3] = ["deploy", "envoy", "ledger"];

fn main() -> Result<()> {
    let mut table = "| Envoy | tests passed | skipped | failed |\n| --- | --- | --- | --- |\n".to_owned();
    let mut list = on(ENVOY_VERSION, "cargo".as_ref());
    list.args(test()).args(["--", "--list"]).stderr(Stdio::inherit());
    let list = String::from_utf8(list.output().context("cannot run cargo")?.stdout)?;
    let all = list.lines().filter(|line| line.ends_with(": test")).count();
    let mut failures = 0;
    for version in VERSIONS {
        eprintln!("Envoy {version}: {}", TARGETS.join(", "));
        ensure!(
            on(version, &workspace_root().join("tests/tools")).arg("envoy").status()?.success(),
            "cannot install Envoy {version}"
        );
        let mut cargo = on(version, "cargo".as_ref());
        cargo.args(test());
        let skips = tempfile::NamedTempFile::new()?;
        cargo.args(["--", "--format", "pretty"]).env(SKIPS_FILE, skips.path()).stderr(Stdio::inherit());
        let output = String::from_utf8(cargo.output().context("cannot run cargo")?.stdout)?;
        let tests = output.lines().filter(|line| line.starts_with("test ")).collect::<Vec<_>>();
        let ok = tests.iter().filter(|line| line.ends_with("... ok")).count();
        let failed: Vec<_> = tests.iter().filter(|line| line.ends_with("... FAILED")).collect();
        failed.iter().for_each(|line| eprintln!("{line}"));
        let ran = ok + failed.len();
        ensure!(all > 0 && ran == all, "{ran} of {all} tests ran:\n{output}");
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

/// The arguments of cargo that run the targets.
fn test() -> impl Iterator<Item = &'static str> {
    let options = ["test", "--quiet", "--no-fail-fast", "--package", "tests"];
    options.into_iter().chain(TARGETS.into_iter().flat_map(|target| ["--test", target]))
}

/// A program that uses this version.
fn on(version: &str, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("ENVOY_VERSION", version).env_remove("ENVOY").current_dir(workspace_root());
    command
}
