//! `make test-matrix`: runs the tests that need Envoy on each of its versions, and writes a table of the results.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{Shell, VERSIONS, loads, workspace_root};
use sandbox::generated::write_between;
use tests::skip::SKIPS_FILE;

/// The targets whose tests run on Envoy, by the shell that they run.
const TARGETS: [(Shell, &[&str]); 2] = [(Shell::Wasm, &["deploy", "envoy", "ledger"]), (Shell::Native, &["native"])];

fn main() -> Result<()> {
    let mut table = "| Envoy | Wasm module | dynamic module |\n| --- | --- | --- |\n".to_owned();
    let mut failures = 0;
    for version in VERSIONS {
        ensure!(
            on(version, &workspace_root().join("tests/tools")).arg("envoy").status()?.success(),
            "cannot install Envoy {version}"
        );
        let mut cells = Vec::new();
        for (shell, targets) in TARGETS {
            if !loads(version, shell) {
                cells.push("does not load it".to_owned());
                continue;
            }
            eprintln!("Envoy {version}: {}", targets.join(", "));
            let (cell, failed) = run(version, targets)?;
            cells.push(cell);
            failures += failed;
        }
        table += &format!("| {version} | {} |\n", cells.join(" | "));
    }
    print!("{table}");
    write_between(&workspace_root().join("README.md"), "make test-matrix", &table)?;
    ensure!(failures == 0, "{failures} tests failed");
    Ok(())
}

/// Runs the tests on a version. Returns the cell of the table, and the number of tests that failed.
fn run(version: &str, targets: &[&str]) -> Result<(String, usize)> {
    let mut list = on(version, "cargo".as_ref());
    list.args(test(targets)).args(["--", "--list"]).stderr(Stdio::inherit());
    let list = String::from_utf8(list.output().context("cannot run cargo")?.stdout)?;
    let all = list.lines().filter(|line| line.ends_with(": test")).count();
    let mut cargo = on(version, "cargo".as_ref());
    let skips = tempfile::NamedTempFile::new()?;
    cargo.args(test(targets)).args(["--", "--format", "pretty"]).env(SKIPS_FILE, skips.path()).stderr(Stdio::inherit());
    let output = String::from_utf8(cargo.output().context("cannot run cargo")?.stdout)?;
    let tests = output.lines().filter(|line| line.starts_with("test ")).collect::<Vec<_>>();
    let ok = tests.iter().filter(|line| line.ends_with("... ok")).count();
    let failed: Vec<_> = tests.iter().filter(|line| line.ends_with("... FAILED")).collect();
    failed.iter().for_each(|line| eprintln!("{line}"));
    let ran = ok + failed.len();
    ensure!(all > 0 && ran == all, "{ran} of {all} tests ran:\n{output}");
    let skips = fs::read_to_string(skips.path())?;
    let skipped: BTreeMap<&str, &str> = skips.lines().filter_map(|line| line.split_once(": ")).collect();
    let mut cell = format!("{} tests passed", ok - skipped.len());
    if !failed.is_empty() {
        cell += &format!(", {} **failed**", failed.len());
    }
    // Last, since what follows are reasons.
    if !skipped.is_empty() {
        let reasons = skipped.values().copied().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        cell += &format!(", {} skipped: {}", skipped.len(), reasons.join("; "));
    }
    Ok((cell, failed.len()))
}

/// The arguments of cargo that run these targets.
fn test<'a>(targets: &'a [&'a str]) -> impl Iterator<Item = &'a str> {
    let options = ["test", "--quiet", "--no-fail-fast", "--package", "tests"];
    options.into_iter().chain(targets.iter().flat_map(|target| ["--test", target]))
}

/// A program that uses this version.
fn on(version: &str, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("ENVOY_VERSION", version).env_remove("ENVOY").current_dir(workspace_root());
    command
}
