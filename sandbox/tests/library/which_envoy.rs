//! Which Envoy is used, as `sandbox envoy` prints it. These tests install nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;

/// `sandbox envoy` with only this folder on the path.
fn sandbox_envoy(path: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
    command.arg("envoy").env_remove("ENVOY").env_remove("ENVOY_VERSION").env("PATH", path);
    command
}

/// A program that gives this answer to `--version`.
fn script(file: &Path, answer: &str) -> Result<()> {
    fs::write(file, format!("#!/bin/sh\necho '{answer}'\n"))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const ANSWER: &str = "envoy  version: 0123456/1.40.0/Clean/RELEASE/BoringSSL";

#[test]
fn the_envoy_that_the_variable_names_comes_first() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let named = folder.path().join("named");
    script(&named, ANSWER)?;
    script(&folder.path().join("envoy"), ANSWER)?;
    let output = sandbox_envoy(folder.path()).env("ENVOY", &named).output()?;
    assert_eq!(printed(&output), format!("{}\n", named.display()), "{}", said(&output));
    Ok(())
}

#[test]
fn a_named_program_that_is_not_envoy_is_an_error() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let named = folder.path().join("named");
    for missing in [true, false] {
        if !missing {
            script(&named, "something else")?;
        }
        let output = sandbox_envoy(folder.path()).env("ENVOY", &named).output()?;
        assert!(!output.status.success());
        assert_eq!(said(&output), format!("Error: ENVOY is {}, which does not run as Envoy\n", named.display()));
    }
    Ok(())
}

#[test]
fn without_the_variable_the_envoy_on_the_path_is_taken() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let envoy = folder.path().join("envoy");
    script(&envoy, ANSWER)?;
    let output = sandbox_envoy(folder.path()).output()?;
    assert_eq!(printed(&output), format!("{}\n", envoy.display()), "{}", said(&output));
    Ok(())
}

#[test]
fn installing_a_version_needs_python() -> Result<()> {
    let folder = tempfile::tempdir()?;
    script(&folder.path().join("envoy"), ANSWER)?;
    let output = sandbox_envoy(folder.path()).env("ENVOY_VERSION", "0.0.0").output()?;
    assert!(!output.status.success());
    assert!(said(&output).contains("apt-get install python3 python3-venv"), "{}", said(&output));
    Ok(())
}
