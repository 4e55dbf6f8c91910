//! `make test-matrix`: the tests that run on Envoy, on each version of it, and a table of what came of them.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sandbox::envoy::{SKIPPED, VERSIONS, workspace_root};
use sandbox::marked::write_between;

/// The targets whose tests run on Envoy.
const TARGETS: [&str; 3] = ["deploy", "envoy", "ledger"];

fn main() -> Result<()> {
    let mut table = "| Envoy | tests passed | skipped | failed |\n| --- | --- | --- | --- |\n".to_owned();
    let mut failures = 0;
    for version in VERSIONS {
        eprintln!("Envoy {version}: {}", TARGETS.join(", "));
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--quiet", "--no-fail-fast", "--package", "tests"]);
        cargo.args(TARGETS.iter().flat_map(|target| ["--test", target]));
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
    write_between(&workspace_root().join("README.md"), "make test-matrix", &table)?;
    ensure!(failures == 0, "{failures} tests failed");
    Ok(())
}
