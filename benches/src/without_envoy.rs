//! Measurements without Envoy: the speed of the mapping alone, and the instructions of the module.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use benches::events::EVENTS;
use sandbox::workspace_root;
use serde_json::Value;

use crate::results::Mapping;

/// Runs `benches/mapping.rs`, and reads criterion's results.
pub async fn speeds() -> Result<Vec<Mapping>> {
    const NAME: &str = "this filter";
    eprintln!("the mapping alone, which takes minutes to build the first time");
    said("cargo", &["bench", "--quiet", "--package", "benches", "--bench", "mapping", "--", NAME]).await?;

    let measured = workspace_root().join("target/criterion/mapping").join(NAME);
    let events = EVENTS.into_iter().filter(|event| event.customer);
    let speed = |bytes: usize| {
        let file = measured.join(bytes.to_string()).join("new/estimates.json");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let estimates: Value = serde_json::from_str(&text)?;
        let nanoseconds = estimates["median"]["point_estimate"].as_f64().context("criterion has no median")?;
        Ok(Mapping { bytes, nanoseconds })
    };
    events.map(|event| speed(event.bytes)).collect()
}

/// The table that `make instructions` prints.
pub async fn instructions() -> Result<String> {
    eprintln!("the instructions of the module");
    let said = said("make", &["--no-print-directory", "instructions"]).await?;
    Ok(said.lines().filter(|line| line.starts_with('|')).map(|line| line.to_owned() + "\n").collect())
}

async fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace_root());
    let output = tokio::task::spawn_blocking(move || command.output()).await?;
    let output = output.with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
