//! Describes the machine of a measurement.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use sandbox::envoy::locate;
use sandbox::workspace_root;

use crate::results::Machine;

impl Machine {
    /// This machine, now.
    pub fn this() -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        // path  version: revision/version/…
        let envoy = said(Command::new(locate()?).arg("--version"))?;
        let envoy = envoy.split_once("version: ").and_then(|(_, version)| version.split('/').nth(1));
        Ok(Self {
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            processors: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            envoy: envoy.context("Envoy does not say its version")?.to_owned(),
            date: said(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?,
            commit: commit()?,
        })
    }
}

/// The commit, and whether any file is changed except those that a benchmark writes.
fn commit() -> Result<String> {
    let git = |arguments: &[&str]| said(Command::new("git").args(arguments).current_dir(workspace_root()));
    let changes = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs", ":!README.md"])?;
    Ok(git(&["rev-parse", "--short", "HEAD"])? + if changes.is_empty() { "" } else { ", changed" })
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
